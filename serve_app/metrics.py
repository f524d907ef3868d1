"""Counters and histograms of the server, which Ray exports to Prometheus on each node's metrics port (`ray_` before
their names). No vector and no text is a label; `encoder` is one of the served names, or empty.
"""

from ray.serve import metrics

from serve_app.batching import BatchReport

SECONDS = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0]
ROWS = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0]


class GatewayMetrics:
    """What happens at the door."""

    def __init__(self) -> None:
        self._requests = metrics.Counter(
            "embinv_requests_total", "Requests that were answered.", tag_keys=("encoder", "route", "status")
        )
        self._seconds = metrics.Histogram(
            "embinv_request_seconds", "From a request to its answer.", SECONDS, tag_keys=("encoder", "route")
        )
        self._vectors = metrics.Counter("embinv_vectors_total", "Vectors that were inverted.", tag_keys=("encoder",))
        self._queued = metrics.Gauge(
            "embinv_queued_vectors", "Vectors that wait or are being inverted.", tag_keys=("encoder",)
        )
        self._rejected = metrics.Counter(
            "embinv_rejected_total", "Requests that were turned away.", tag_keys=("encoder", "reason")
        )
        self._retries = metrics.Counter(
            "embinv_retries_total", "Calls that were made again since a replica died.", tag_keys=("encoder",)
        )

    def answered(self, encoder: str, route: str, status: int, seconds: float) -> None:
        """A request has its answer."""
        self._requests.inc(tags={"encoder": encoder, "route": route, "status": str(status)})
        self._seconds.observe(seconds, tags={"encoder": encoder, "route": route})

    def inverted(self, encoder: str, vectors: int) -> None:
        """Vectors have their texts."""
        self._vectors.inc(vectors, tags={"encoder": encoder})

    def queued(self, encoder: str, vectors: int) -> None:
        """So many vectors are under way now."""
        self._queued.set(vectors, tags={"encoder": encoder})

    def rejected(self, encoder: str, reason: str) -> None:
        """A request was turned away: `queue`, `timeout`, `unavailable`, `key` or `body`."""
        self._rejected.inc(tags={"encoder": encoder, "reason": reason})

    def retried(self, encoder: str) -> None:
        """A call is made again."""
        self._retries.inc(tags={"encoder": encoder})


class ReplicaMetrics:
    """What happens in the model's replica.

    Args:
        encoder: the name that it is served by.
    """

    def __init__(self, encoder: str) -> None:
        self._batch = metrics.Histogram(
            "embinv_batch_size", "Vectors that went through the model together.", ROWS, tag_keys=("encoder",)
        )
        self._queue = metrics.Histogram(
            "embinv_queue_seconds", "How long a vector waited for its batch.", SECONDS, tag_keys=("encoder",)
        )
        self._model = metrics.Histogram(
            "embinv_model_seconds", "How long a batch was in the model.", SECONDS, tag_keys=("encoder",)
        )
        self._refine = metrics.Histogram(
            "embinv_refine_seconds", "How long the texts of a call were refined.", SECONDS, tag_keys=("encoder",)
        )
        self._encoder_calls = metrics.Counter(
            "embinv_encoder_calls_total", "Texts that were embedded to refine others.", tag_keys=("encoder",)
        )
        for metric in (self._batch, self._queue, self._model, self._refine, self._encoder_calls):
            metric.set_default_tags({"encoder": encoder})

    def batch(self, report: BatchReport) -> None:
        """A batch ended."""
        self._batch.observe(report.rows)
        self._model.observe(report.model_s)
        for queued_s in report.queued_s:
            self._queue.observe(queued_s)

    def refined(self, encoder_calls: int, seconds: float) -> None:
        """Texts were refined."""
        self._encoder_calls.inc(encoder_calls)
        self._refine.observe(seconds)
