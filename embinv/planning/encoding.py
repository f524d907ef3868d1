"""How long encoding a corpus takes on GPUs: encoders, and beside them tokenisers and the storage.

Read, align, encode and write run at the same time (jobs/encode_pipeline.py), so the slowest of them is the job's time.
"""

from embinv.encoders.sentence_transformers import BATCH_TOKENS
from embinv.planning.accelerators import Accelerator
from embinv.planning.encoder_size import EncoderSize
from embinv.planning.roofline import Pass, bound, pass_seconds
from embinv.planning.stage_plan import Part, StagePlan, slowest
from embinv.planning.storage import pair_bytes
from embinv.planning.workload import DAYS, Workload, bytes_of, encoder_precision

SPECIAL_TOKENS = 2  # at the ends of a text
CHARS_PER_TOKEN = 4.0  # of a prompt
MICRO = 1e-6
RESERVED = 2e9  # bytes of a GPU for CUDA itself and its libraries


def encoder_tokens(load: Workload) -> float:
    """Tokens that the encoder reads of a text: its own, the ends, and the prompt."""
    prompt = len(load.config.encoder.prompt or "") / CHARS_PER_TOKEN
    return load.tokens + SPECIAL_TOKENS + prompt


def plan_encoding(load: Workload, size: EncoderSize, gpu: Accelerator) -> StagePlan:
    """The stage on `load.gpus` GPUs, each with an encoder of its own."""
    encoding, tokens = load.config.encoding, encoder_tokens(load)
    batch_tokens = encoding.batch_tokens or BATCH_TOKENS["cuda"]
    precision = encoder_precision(load.config, gpu)
    batches = load.rows * tokens / batch_tokens

    def work(day: str) -> Pass:
        return Pass(
            flops=size.flops(tokens) * batch_tokens / tokens,
            weight_bytes=size.parameters * bytes_of(precision),
            kernels=load.kernels(day, "encoder_kernels", size.layers, encoding.compile),
            precision=precision,
        )

    expected, good = (pass_seconds(work(day), gpu, load.efficiency(day, "encode_mfu")) for day in DAYS)
    share = batches / load.gpus
    parts = [
        Part(
            "encode",
            share * max(expected.values()),
            share * max(good.values()),
            f"{size.flops(tokens) / 1e9:,.1f} GFLOP a text of {tokens:.0f} tokens in {precision}; {bound(expected)}",
        ),
        _tokenising(load),
        _writing(load),
    ]
    longest, others = slowest(parts)
    start = Part("start", load.expected("encode_start"), load.good("encode_start"), "Ray, libraries, weights")
    return StagePlan(
        name="encode",
        units=load.rows,
        unit="texts",
        gpus=load.gpus,
        parts=(start, longest),
        alongside=others,
        limit=bound(expected) if longest.name == "encode" else longest.name,
        notes=(f"encoder: {size.parameters / 1e6:,.0f} million weights ({size.source})",),
        warnings=_warnings(load, size, gpu, precision),
    )


def _tokenising(load: Workload) -> Part:
    characters = load.rows * load.tokens * CHARS_PER_TOKEN

    def seconds(day: str) -> float:
        cores = load.gpus * getattr(load.assumptions["cores_per_gpu"], day)
        return characters * getattr(load.assumptions["align_us"], day) * MICRO / cores

    cores = load.expected("cores_per_gpu")
    return Part("tokenise", seconds("expected"), seconds("good"), f"{cores:g} cores a GPU")


def _writing(load: Workload) -> Part:
    each = pair_bytes(load.config.data.seq_len, load.config.encoder.dim, load.tokens, load.assumptions)
    size = load.rows * each
    rates = (load.expected("storage_mb") * 1e6, load.good("storage_mb") * 1e6)
    return Part("write", size / rates[0], size / rates[1], f"{size / 1e9:,.1f} GB of pairs")


def _warnings(load: Workload, size: EncoderSize, gpu: Accelerator, precision: str) -> tuple[str, ...]:
    found = []
    needed = size.parameters * bytes_of(precision) + RESERVED
    if needed > gpu.memory_bytes:
        found.append(
            f"encode: the encoder's weights alone are {size.parameters * bytes_of(precision) / 1e9:.1f} GB in "
            f"{precision}, and a {gpu.name} has {gpu.memory_bytes / 1e9:.0f} GB; choose another GPU, or encoder.dtype "
            "bfloat16 if the vectors were made so"
        )
    if precision == "bfloat16" and gpu.bfloat16 is None:
        found.append(f"encode: a {gpu.name} has no bfloat16, and does that work in float32, {_slower(gpu)}")
    if load.config.encoding.device != "cuda":
        found.append("encode: encoding.device of the config is cpu; give --set encoding.device=cuda to the job")
    return tuple(found)


def _slower(gpu: Accelerator) -> str:
    return f"{gpu.float16 / gpu.float32:.0f} times slower than its float16"
