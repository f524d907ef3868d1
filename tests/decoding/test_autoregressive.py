"""Greedy and beam over a model that can be counted out, and beside transformers' own."""

import itertools
import math

import pytest
import torch

from embinv.decoding.autoregressive import WRITERS, decode_by_beam, decode_greedily
from embinv.decoding.base import DecodingRequest, final_state
from embinv.decoding.options import DecodingOptions
from tests.t5 import DIM, tiny_config, tiny_inverter

EOS, PAD, START = 0, 1, 7
LENGTH, VOCABULARY = 4, 5
MASK = VOCABULARY


class TableWriter:
    """Log-probabilities that depend on the vector and on the whole beginning, by a table that anybody can read."""

    start_id = START

    def __init__(self, spread=2.0):
        self.spread = spread

    def after(self, vector, beginning):
        """[V], given a vector's number and the tokens written so far."""
        seed = hash((round(float(vector), 4), *beginning)) % 2**31
        logits = torch.randn(VOCABULARY, generator=torch.Generator().manual_seed(seed)) * self.spread
        return logits.log_softmax(-1)

    def begin(self, embedding):
        return TableWriting(self, [(float(row[0]), ()) for row in embedding])


class TableWriting:
    def __init__(self, writer, texts):
        self.writer, self.texts = writer, texts
        self.asked = []  # rows of each pass

    def next_token(self, last):
        assert len(last) == len(self.texts)
        self.texts = [
            (vector, beginning if token == START else (*beginning, token))
            for (vector, beginning), token in zip(self.texts, last.tolist(), strict=True)
        ]
        self.writer.asked = [*getattr(self.writer, "asked", []), len(last)]
        return torch.stack([self.writer.after(*text) for text in self.texts])

    def keep(self, rows):
        self.texts = [self.texts[row] for row in rows.tolist()]


def request(rows=6, other_id=None, **options):
    embedding = torch.arange(rows, dtype=torch.float32).unsqueeze(1) + 0.5
    return DecodingRequest(
        embedding, LENGTH, MASK, 1, other_id=other_id, end_ids=(EOS, PAD), options=DecodingOptions(**options)
    )


def every_text(writer, vector, penalty, never=(PAD,)):
    """(score, tokens) of every text that there is, the best first."""
    words = [token for token in range(VOCABULARY) if token not in (EOS, *never)]
    found = []
    for length in range(LENGTH + 1):
        for body in itertools.product(words, repeat=length):
            tokens = (*body, EOS) if length < LENGTH else body
            total = sum(float(writer.after(vector, tokens[:i])[token]) for i, token in enumerate(tokens))
            found.append((total / len(tokens) ** penalty, tokens))
    return sorted(found, reverse=True)


def said(state, row):
    """The tokens of a row up to its end."""
    tokens = state.tokens[row].tolist()
    return tuple(tokens[: tokens.index(EOS) + 1] if EOS in tokens else tokens)


def test_greedy_takes_the_likeliest_token_each_time():
    writer, wanted = TableWriter(), request()
    state = final_state(decode_greedily(writer, wanted))
    for row, vector in enumerate(wanted.embedding[:, 0].tolist()):
        tokens = said(state, row)
        for place, token in enumerate(tokens):
            table = writer.after(vector, tokens[:place])
            table[PAD] = -math.inf
            assert token == int(table.argmax())
            assert state.confidence[row, place] == pytest.approx(float(table.max().exp()), rel=1e-4)
        assert (state.tokens[row, len(tokens) :] == PAD).all() and (state.confidence[row, len(tokens) :] == 1).all()


@pytest.mark.parametrize("penalty", [0.0, 0.7, 1.0])
def test_a_beam_wide_enough_finds_the_best_text_of_all(penalty):
    writer, wanted = TableWriter(), request(beams=64, length_penalty=penalty)
    state = final_state(decode_by_beam(writer, wanted))
    for row, vector in enumerate(wanted.embedding[:, 0].tolist()):
        score, tokens = every_text(writer, vector, penalty)[0]
        assert said(state, row) == tokens
        product = float(state.confidence[row, : len(tokens)].log().sum())
        assert product / len(tokens) ** penalty == pytest.approx(score, abs=1e-4)
        assert (state.tokens[row, len(tokens) :] == PAD).all() and (state.confidence[row, len(tokens) :] == 1).all()


def test_one_beam_without_penalty_goes_the_way_of_greedy_at_most_to_a_better_end():
    writer = TableWriter()
    greedy, beam = (
        final_state(
            decode(writer, request(40, beams=1, length_penalty=0.0) if decode is decode_by_beam else request(40))
        )
        for decode in (decode_greedily, decode_by_beam)
    )
    for row in range(40):
        ours, theirs = said(beam, row), said(greedy, row)
        assert ours[:-1] == theirs[: len(ours) - 1]


def test_a_wider_beam_is_no_worse_on_the_whole():
    writer = TableWriter()

    def mean(beams):
        state = final_state(decode_by_beam(writer, request(60, beams=beams, length_penalty=0.0)))
        return float(state.confidence.log().sum(dim=1).mean())

    assert mean(1) < mean(3) <= mean(16)


@pytest.mark.parametrize("decode", WRITERS.values())
def test_what_must_not_be_written_is_not(decode):
    options = {"beams": 3} if decode is decode_by_beam else {}
    writer = TableWriter()
    free = final_state(decode(writer, request(60, **options))).tokens
    bound = final_state(decode(writer, request(60, other_id=3, **options))).tokens
    assert (free == 3).any() and not (bound == 3).any()


@pytest.mark.parametrize("decode", WRITERS.values())
def test_a_state_comes_after_each_token_and_ended_texts_cost_nothing_more(decode):
    options = {"beams": 3} if decode is decode_by_beam else {}
    writer = TableWriter(spread=6.0)
    states = list(decode(writer, request(30, **options)))
    assert [state.step for state in states] == list(range(1, len(states) + 1))
    for place, state in enumerate(states[:-1]):
        unknown = state.tokens == MASK
        assert not unknown[:, : place + 1].any() and (state.confidence[unknown] == 0).all()
    assert not (states[-1].tokens == MASK).any()
    assert writer.asked == sorted(writer.asked, reverse=True) and writer.asked[-1] < writer.asked[0]


@pytest.mark.parametrize("decode", WRITERS.values())
def test_a_text_does_not_depend_on_its_batch(decode):
    options = {"beams": 3} if decode is decode_by_beam else {}
    whole = final_state(decode(TableWriter(), request(6, **options))).tokens
    for row in range(6):
        alone = request(6, **options)
        one = DecodingRequest(
            alone.embedding[row : row + 1], LENGTH, MASK, 1, end_ids=(EOS, PAD), options=alone.options
        )
        assert torch.equal(final_state(decode(TableWriter(), one)).tokens[0], whole[row])


def test_texts_that_have_no_end_fill_their_places():
    wanted = DecodingRequest(torch.ones(2, 1), LENGTH, MASK, 1)
    for decode in WRITERS.values():
        state = final_state(decode(TableWriter(), wanted))
        assert state.tokens.shape == (2, LENGTH) and not (state.tokens == MASK).any()


def test_greedy_says_what_transformers_says_of_a_t5():
    config = tiny_config()
    model = tiny_inverter(config, seed=5, spread=0.4)
    vectors = torch.randn(12, DIM, generator=torch.Generator().manual_seed(0))
    wanted = DecodingRequest(vectors, config.seq_len, config.mask_id, 1, end_ids=(config.eos_id, config.pad_id))
    theirs = model.encoder_decoder.generate(
        inputs_embeds=model.pseudo_tokens(vectors),
        max_new_tokens=config.seq_len,
        do_sample=False,
        suppress_tokens=[config.pad_id],
    )[:, 1:]
    with torch.no_grad():
        ours = final_state(decode_greedily(model, wanted)).tokens
    assert torch.equal(ours[:, : theirs.shape[1]], theirs)
    assert (ours[:, theirs.shape[1] :] == config.pad_id).all()


def test_a_beam_scores_as_high_as_that_of_transformers():
    config = tiny_config()
    model = tiny_inverter(config, seed=5, spread=0.4)
    vectors = torch.randn(12, DIM, generator=torch.Generator().manual_seed(0))
    options = DecodingOptions(beams=4, length_penalty=1.0)
    wanted = DecodingRequest(
        vectors, config.seq_len, config.mask_id, 1, end_ids=(config.eos_id, config.pad_id), options=options
    )
    found = model.encoder_decoder.generate(
        inputs_embeds=model.pseudo_tokens(vectors),
        max_new_tokens=config.seq_len,
        num_beams=4,
        do_sample=False,
        suppress_tokens=[config.pad_id],
        return_dict_in_generate=True,
        output_scores=True,
    )
    with torch.no_grad():
        state = final_state(decode_by_beam(model, wanted))
    counted = (state.tokens != config.pad_id).sum(dim=1)
    ours = state.confidence.log().sum(dim=1) / counted
    assert (ours > found.sequences_scores - 0.05).all()
    assert ours.mean() >= found.sequences_scores.mean() - 1e-3
