"""Writing a text from left to right: the likeliest token each time, or the best of several texts at a time (a beam).

A state is told after each token, as other decoders tell one after each pass. Rows whose text has ended leave the batch,
so that a long text does not keep the others' arithmetic going.

Shapes: B batch, K beams of each vector, L length, D embedding, V vocabulary, N texts on their way.
"""

from collections.abc import Callable, Iterator
from typing import Protocol

import torch
from torch import Tensor

from embinv.decoding.base import DecodingRequest, DecodingState, final_state


class Writing(Protocol):
    """N texts on their way, and what the model remembers of them."""

    def next_token(self, last: Tensor, /) -> Tensor:
        """Log-probabilities [N, V] of what follows, given the last token [N] of each text; the start id comes first."""
        ...

    def keep(self, rows: Tensor, /) -> None:
        """Goes on with the texts of these rows [M], each as often as it is named."""
        ...


class Writer(Protocol):
    """A model that writes from left to right."""

    @property
    def start_id(self) -> int:
        """What stands before each text."""
        ...

    def begin(self, embedding: Tensor, /) -> Writing:
        """A text for each vector [B, D], of which nothing is written yet."""
        ...


WriterDecoder = Callable[[Writer, DecodingRequest], Iterator[DecodingState]]
"""Yields the state after each token; the last one holds no hidden token."""


def decode_greedily(writer: Writer, request: DecodingRequest) -> Iterator[DecodingState]:
    """Takes the likeliest token each time."""
    state = request.fully_hidden()
    tokens, confidence = state.tokens.clone(), state.confidence.clone()
    writing = writer.begin(request.embedding)
    rows = torch.arange(len(tokens), device=tokens.device)  # those that have not ended
    last = torch.full_like(rows, writer.start_id)
    for place in range(request.length):
        best, last = allowed(writing.next_token(last), request).max(dim=-1)
        tokens[rows, place], confidence[rows, place] = last, best.exp()
        going_on = ~_is_end(last, request)
        ended = rows[~going_on]
        tokens[ended, place + 1 :], confidence[ended, place + 1 :] = _padding(request), 1.0
        yield DecodingState(tokens.clone(), confidence.clone(), place + 1)
        if len(ended):
            kept = going_on.nonzero().squeeze(1)
            rows, last = rows[kept], last[kept]
            if not len(rows):
                return
            writing.keep(kept)


def decode_by_beam(writer: Writer, request: DecodingRequest) -> Iterator[DecodingState]:
    """Keeps the `beams` likeliest beginnings at each token; tells the text that leads.

    A text's score is its log-probability over its length to the power of `length_penalty`, the end counted. A vector is
    done when no beginning can still come to a better score than a text that has ended.
    """
    yield from _beams(writer, request, _Best(request, 1))


def best_texts(writer: Writer, request: DecodingRequest) -> DecodingState:
    """The `beams` best texts of each vector [B x K, L], best first, as `decode_by_beam` finds the best one."""
    found = _Best(request, request.options.beams)
    return found.all_texts(final_state(_beams(writer, request, found)).step)


def _beams(writer: Writer, request: DecodingRequest, found: "_Best") -> Iterator[DecodingState]:
    """Fills `found`; yields the state of those that lead after each token."""
    beams, device = request.options.beams, request.embedding.device
    batch, length = len(request.embedding), request.length
    writing = writer.begin(request.embedding)
    writing.keep(torch.arange(batch, device=device).repeat_interleave(beams))
    rows = torch.arange(batch, device=device)  # vectors that are not done
    tokens = torch.full((batch, beams, length), request.mask_id, dtype=torch.int64, device=device)
    each = torch.zeros((batch, beams, length), device=device)  # log-probability of each token
    total = torch.full((batch, beams), -torch.inf, device=device)
    total[:, 0] = 0.0  # the beams begin alike: one of them counts
    last = torch.full((batch * beams,), writer.start_id, dtype=torch.int64, device=device)
    for place in range(length):
        step = allowed(writing.next_token(last), request).view(len(rows), beams, -1)  # [B, K, V]
        vocabulary = step.shape[-1]
        # Of 2 K candidates K at least do not end the text: each beam has one end alone.
        score, chosen = (total.unsqueeze(-1) + step).flatten(1).topk(min(2 * beams, beams * vocabulary), dim=1)
        parent, token = chosen // vocabulary, chosen % vocabulary  # [B, 2 K]
        tokens, each = _take(tokens, parent), _take(each, parent)
        tokens[:, :, place] = token
        each[:, :, place] = step.flatten(1).gather(1, chosen)
        ends = _is_end(token, request) | (place + 1 == length)
        found.offer(rows, tokens, each, torch.where(ends, score, -torch.inf), place + 1)
        total, order = torch.where(ends, -torch.inf, score).topk(beams, dim=1)
        tokens, each, parent = _take(tokens, order), _take(each, order), parent.gather(1, order)
        yield found.leading(rows, tokens, each, total, place + 1)
        open_ = total[:, 0] > -torch.inf
        kept = (open_ & ~found.beats(rows, total[:, 0])).nonzero().squeeze(1)
        if not len(kept):
            return
        writing.keep((kept.unsqueeze(1) * beams + parent[kept]).flatten())
        rows, tokens, each, total = rows[kept], tokens[kept], each[kept], total[kept]
        last = tokens[:, :, place].flatten()


class _Best:
    """The best texts that have ended, K of each vector, best first."""

    def __init__(self, request: DecodingRequest, kept: int) -> None:
        batch, device = len(request.embedding), request.embedding.device
        self._request, self._kept = request, kept
        shape = (batch, kept, request.length)
        self._tokens = torch.full(shape, request.mask_id, dtype=torch.int64, device=device)
        self._each = torch.zeros(shape, device=device)  # log-probability of each token
        self._score = torch.full((batch, kept), -torch.inf, device=device)

    def _scored(self, total: Tensor, length: int) -> Tensor:
        return total / length**self._request.options.length_penalty

    def offer(self, rows: Tensor, tokens: Tensor, each: Tensor, total: Tensor, length: int) -> None:
        """Takes texts [B, M, L] of vectors `rows` that end now, if they are better; those that do not end have -inf."""
        tokens, each = tokens.clone(), each.clone()
        tokens[:, :, length:], each[:, :, length:] = _padding(self._request), 0.0
        score = torch.cat([self._score[rows], self._scored(total, length)], dim=1)
        score, best = score.topk(self._kept, dim=1)  # of equals it may take any: one that is there gives way to none
        self._score[rows] = score
        self._tokens[rows] = _take(torch.cat([self._tokens[rows], tokens], dim=1), best)
        self._each[rows] = _take(torch.cat([self._each[rows], each], dim=1), best)

    def beats(self, rows: Tensor, total: Tensor) -> Tensor:
        """[B] bool: whether no text that begins with a log-probability of `total` [B] can come among the best."""
        # It can only lose by going on, but a long one is divided by more.
        return self._score[rows, -1] >= self._scored(total, self._request.length)

    def leading(self, rows: Tensor, tokens: Tensor, each: Tensor, total: Tensor, length: int) -> DecodingState:
        """Of each vector the best text so far, ended or not; of those in `rows` beginnings [B, K, L] go on."""
        ahead = self._scored(total[:, 0], length) > self._score[rows, 0]
        shown, logs = self._tokens[:, 0].clone(), self._each[:, 0].clone()
        shown[rows[ahead]], logs[rows[ahead]] = tokens[ahead, 0], each[ahead, 0]
        return self._state(shown, logs, length)

    def all_texts(self, step: int) -> DecodingState:
        """All K of each vector in a row: [B x K, L]. Where fewer texts than K are possible, the best stands in."""
        found = (self._score > -torch.inf).unsqueeze(-1)  # [B, K, 1]
        tokens = torch.where(found, self._tokens, self._tokens[:, :1])
        logs = torch.where(found, self._each, self._each[:, :1])
        return self._state(tokens.flatten(0, 1), logs.flatten(0, 1), step)

    def _state(self, tokens: Tensor, logs: Tensor, step: int) -> DecodingState:
        return DecodingState(tokens, torch.where(tokens == self._request.mask_id, 0.0, logs.exp()), step)


def allowed(log_probabilities: Tensor, request: DecodingRequest) -> Tensor:
    """Log-probabilities [N, V] without what is never written: PAD as a word, and `other` of a trimmed vocabulary."""
    never = [] if request.other_id is None else [request.other_id]
    if request.end_ids is not None and request.end_ids[1] != request.end_ids[0]:
        never.append(request.end_ids[1])
    if never:
        log_probabilities[:, never] = -torch.inf
    return log_probabilities


def _is_end(tokens: Tensor, request: DecodingRequest) -> Tensor:
    return torch.zeros_like(tokens, dtype=torch.bool) if request.end_ids is None else tokens == request.end_ids[0]


def _padding(request: DecodingRequest) -> int:
    return 0 if request.end_ids is None else request.end_ids[1]


def _take(values: Tensor, order: Tensor) -> Tensor:
    """values [B, K, L] in the order [B, M] of their second axis: [B, M, L]."""
    return values.gather(1, order.unsqueeze(-1).expand(-1, -1, values.shape[-1]))


WRITERS: dict[str, WriterDecoder] = {"greedy": decode_greedily, "beam": decode_by_beam}
"""The decoders of models that write from left to right, by name: what `strategy=` may say for those."""
