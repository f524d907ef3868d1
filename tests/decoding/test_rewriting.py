"""Parts of a text written anew: which go, which stay, and by whose probabilities what comes is drawn."""

import pytest
import torch

from embinv.decoding.autoregressive import decode_greedily
from embinv.decoding.base import DecodingRequest, final_state
from embinv.decoding.ends import behind_the_end
from embinv.decoding.options import DecodingOptions
from embinv.decoding.rewriting import rewrite, rewrite_end
from tests.fakes import ContextDenoiser

PAD, EOS, V, LENGTH, DIM = 0, 1, 9, 12, 4
OTHER = V - 1


class ContextWriter:
    """A fixed random distribution for each text so far and each vector."""

    start_id = PAD

    def begin(self, embedding):
        return _Writing(embedding)


class _Writing:
    def __init__(self, embedding):
        self.denoiser, self.embedding = ContextDenoiser(V), embedding
        self.so_far = torch.zeros((len(embedding), 0), dtype=torch.int64)

    def next_token(self, last):
        self.so_far = torch.cat([self.so_far, last.unsqueeze(1)], dim=1)
        return self.denoiser(self.so_far, self.embedding)[:, -1]

    def keep(self, rows):
        self.so_far, self.embedding = self.so_far[rows], self.embedding[rows]


WAYS = {"denoiser": (rewrite, lambda: ContextDenoiser(V)), "writer": (rewrite_end, ContextWriter)}


def texts(rows, content=8, seed=0):
    """Texts of `content` tokens."""
    tokens = torch.randint(2, OTHER, (rows, LENGTH), generator=torch.Generator().manual_seed(seed))
    tokens[:, content], tokens[:, content + 1 :] = EOS, PAD
    return tokens


def request(rows, steps=3, temperature=1.0, streams=None):
    vectors = torch.randn(rows, DIM, generator=torch.Generator().manual_seed(5))
    options = DecodingOptions(temperature=temperature)
    return DecodingRequest(vectors, LENGTH, V, steps, 0, OTHER, (EOS, PAD), options, streams)


def run(way, tokens, share, **options):
    """The texts with a part hidden, and at the end."""
    function, model = WAYS[way]
    shares = torch.full((len(tokens),), share, dtype=torch.float64)
    states = list(function(model(), request(len(tokens), **options), tokens, shares))
    return states[0], states[-1]


@pytest.mark.parametrize("way", WAYS)
def test_about_the_share_goes_and_what_stays_is_left_as_it_was(way):
    tokens = texts(400)
    first, last = run(way, tokens, 0.3)
    inside = ~behind_the_end(tokens, (EOS, PAD))
    hidden = first.tokens == V
    share = hidden[inside].float().mean().item()
    assert share == pytest.approx(0.3, abs=0.04 if way == "denoiser" else 0.07)  # a writer hides a whole number
    kept, over = inside & ~hidden, behind_the_end(last.tokens, (EOS, PAD))
    assert torch.equal(last.tokens[kept & ~over], tokens[kept & ~over])
    assert (last.confidence[kept] == 1).all()
    assert (last.tokens != V).all() and (last.tokens != OTHER).all()
    assert (last.tokens[over] == PAD).all()


@pytest.mark.parametrize("way", WAYS)
def test_a_text_can_become_shorter_and_longer(way):
    tokens = texts(300, content=5)
    _, last = run(way, tokens, 0.5)
    lengths = (~behind_the_end(last.tokens, (EOS, PAD))).sum(dim=1)
    assert (lengths < 6).any() and (lengths > 6).any()


@pytest.mark.parametrize("way", WAYS)
def test_what_the_vocabulary_lacks_goes_in_any_case(way):
    tokens = texts(5)
    tokens[2, 3] = OTHER
    first, last = run(way, tokens, 0.0)
    assert first.tokens[2, 3] == V and (last.tokens != OTHER).all()
    if way == "denoiser":
        assert torch.equal(last.tokens[[0, 1, 3, 4]], tokens[[0, 1, 3, 4]])
    else:
        assert torch.equal(first.tokens[:, :3], tokens[:, :3]) and (first.tokens[2, 3:] == V).all()


@pytest.mark.parametrize("way", WAYS)
def test_draws_belong_to_a_vector_and_its_stream_and_not_to_the_batch(way):
    tokens = texts(1).repeat(3, 1)
    function, model = WAYS[way]

    def written(rows, streams):
        one = request(1)
        asked = DecodingRequest(one.embedding.repeat(rows, 1), LENGTH, V, 3, 0, OTHER, (EOS, PAD), one.options, streams)
        return final_state(function(model(), asked, tokens[:rows], torch.full((rows,), 0.6))).tokens

    together = written(3, (7, 8, 7))
    assert torch.equal(together[0], together[2]) and not torch.equal(together[0], together[1])
    assert torch.equal(written(1, (8,))[0], together[1])


def test_a_writer_goes_on_as_it_would_have_begun():
    tokens = texts(6)
    greedy = final_state(decode_greedily(ContextWriter(), request(6))).tokens
    states = list(rewrite_end(ContextWriter(), request(6, temperature=0.0), greedy, torch.full((6,), 0.5)))
    assert torch.equal(states[-1].tokens, greedy)
    _, other = run("writer", tokens, 0.5, temperature=0.0)
    assert not torch.equal(other.tokens, greedy)


def test_a_writer_draws_by_its_probabilities():
    rows = 4000
    tokens = texts(1).repeat(rows, 1)
    asked = DecodingRequest(
        request(1).embedding.repeat(rows, 1), LENGTH, V, 1, 0, OTHER, (EOS, PAD), streams=tuple(range(rows))
    )
    states = list(rewrite_end(ContextWriter(), asked, tokens, torch.full((rows,), 1.0)))
    anew = (states[0].tokens[:, 0] == V).nonzero().squeeze(1)  # those of which nothing was kept
    said = ContextWriter().begin(asked.embedding[:1]).next_token(torch.tensor([PAD]))[0]
    said[[PAD, OTHER]] = -torch.inf
    expected = said.softmax(-1)
    found = torch.bincount(states[-1].tokens[anew, 0], minlength=V) / len(anew)
    assert len(anew) > 1500 and (found - expected).abs().max() < 4 * (0.25 / len(anew)) ** 0.5
