"""A T5 that reads a vector, at tiny sizes; the sizes of the published one on the meta device."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from embinv.decoding.autoregressive import decode_greedily
from embinv.decoding.base import DecodingRequest, final_state
from embinv.models.t5_inverter import IGNORED, T5Inverter
from tests.t5 import DIM, EOS, LENGTH, PAD, PSEUDO, START, VOCABULARY, published_config, tiny_config, tiny_inverter


@pytest.fixture(scope="module")
def model():
    return tiny_inverter(tiny_config())


def vectors(rows, seed=0):
    return torch.randn(rows, DIM, generator=torch.Generator().manual_seed(seed))


def texts(rows, seed=0):
    """Token ids of `rows` texts, each of another length; the last one fills all places."""
    ids = torch.randint(3, VOCABULARY, (rows, LENGTH), generator=torch.Generator().manual_seed(seed))
    for row in range(rows - 1):
        ids[row, row + 1], ids[row, row + 2 :] = EOS, PAD
    return ids


def test_the_published_size_has_its_tensors_and_parameters():
    with torch.device("meta"):
        model = T5Inverter(published_config())
    state = model.state_dict()
    assert len(state) == 261
    assert sum(tensor.numel() for tensor in state.values()) == 290_028_800
    assert sum(parameter.numel() for parameter in model.parameters()) == 290_028_800


def test_a_vector_enters_as_vec2text_lets_it_in(model):
    first, last = model.embedding_transform[0], model.embedding_transform[3]
    by_hand = F.linear(F.gelu(F.linear(vectors(3), first.weight, first.bias)), last.weight, last.bias)
    assert torch.equal(model.pseudo_tokens(vectors(3)), by_hand.view(3, PSEUDO, -1))
    with pytest.raises(ValueError, match=f"embeddings have 5 dimensions, the model takes {DIM}"):
        model.pseudo_tokens(torch.zeros(1, 5))


def test_its_scale_counts_unless_it_is_told_otherwise(model):
    unit = tiny_inverter(tiny_config(unit_rms=True))
    assert torch.allclose(unit.pseudo_tokens(vectors(3)), unit.pseudo_tokens(vectors(3) * 100), atol=1e-5)
    assert not torch.allclose(model.pseudo_tokens(vectors(3)), model.pseudo_tokens(vectors(3) * 100))


def test_a_token_depends_on_the_vector_and_on_the_tokens_before_it(model):
    ids, changed = texts(2), texts(2)
    changed[1, 6] = 3 + (changed[1, 6] - 2) % (VOCABULARY - 3)
    before, after = model(vectors(2), ids), model(vectors(2), changed)
    assert torch.allclose(before[1, :7], after[1, :7], atol=1e-5)  # place 6 reads up to place 5
    assert not torch.allclose(before[1, 7], after[1, 7], atol=1e-5)
    assert not torch.allclose(before, model(vectors(2, seed=1), ids))


def test_the_decoder_reads_the_start_first(model):
    shifted = torch.tensor([[START, *texts(1)[0, :-1].tolist()]])
    by_hand = model.encoder_decoder(inputs_embeds=model.pseudo_tokens(vectors(1)), decoder_input_ids=shifted).logits
    assert torch.equal(model(vectors(1), texts(1)), by_hand)


def test_what_stands_behind_the_end_counts_for_nothing(model):
    ids = texts(4)
    targets = model.targets(ids)
    assert targets[0].tolist() == [ids[0, 0], EOS] + [IGNORED] * (LENGTH - 2)
    assert (targets[3] == ids[3]).all()
    entropies = -model(vectors(4), ids).log_softmax(-1).gather(-1, ids.unsqueeze(-1)).squeeze(-1)
    assert model.loss(vectors(4), ids).item() == pytest.approx(entropies[targets != IGNORED].mean().item(), rel=1e-5)


def test_an_end_that_is_the_padding_too_counts_once():
    model = tiny_inverter(tiny_config(pad_id=EOS))
    ids = torch.full((1, LENGTH), EOS)
    ids[0, :3] = torch.tensor([5, 6, 7])
    assert model.targets(ids)[0].tolist() == [5, 6, 7, EOS] + [IGNORED] * (LENGTH - 4)


def test_token_by_token_it_says_what_it_says_of_a_whole_text(model):
    ids = texts(3, seed=4)
    whole = model(vectors(3), ids).log_softmax(-1)
    writing = model.begin(vectors(3))
    last = torch.full((3,), START)
    for place in range(LENGTH):
        assert torch.allclose(writing.next_token(last), whole[:, place], atol=1e-4)
        last = ids[:, place]


def test_rows_that_are_kept_go_on_as_if_they_were_alone(model):
    ids, rows = texts(3, seed=4), torch.tensor([2, 0, 2])
    writing = model.begin(vectors(3))
    writing.next_token(torch.full((3,), START))
    writing.next_token(ids[:, 0])
    writing.keep(rows)
    expected = model(vectors(3), ids).log_softmax(-1)[rows, 2]
    assert torch.allclose(writing.next_token(ids[rows, 1]), expected, atol=1e-4)


def test_rows_of_the_token_embedding_beyond_the_vocabulary_are_never_said():
    model = tiny_inverter(tiny_config(rows=VOCABULARY + 8))
    said = model.begin(vectors(2)).next_token(torch.full((2,), START))
    assert said.shape == (2, VOCABULARY) and torch.allclose(said.exp().sum(-1), torch.ones(2))
    with pytest.raises(ValueError, match="model.rows"):
        tiny_config(rows=VOCABULARY - 1)


@pytest.mark.parametrize("tied", [True, False])
def test_each_tensor_is_kept_once_and_found_again_by_all_its_names(tied):
    model, again = (tiny_inverter(tiny_config(tied_head=tied), seed=seed) for seed in (1, 2))
    state = model.state_dict()
    assert len({tensor.data_ptr() for tensor in state.values()}) == len(state) == 51 + (not tied)
    again.load_state_dict(state)
    assert torch.equal(model(vectors(2), texts(2)), again(vectors(2), texts(2)))
    t5 = again.encoder_decoder
    assert t5.encoder.embed_tokens.weight is t5.decoder.embed_tokens.weight is t5.shared.weight
    assert (t5.lm_head.weight is t5.shared.weight) == tied


def test_it_learns_texts_by_heart():
    model = tiny_inverter(tiny_config(unit_rms=True)).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    ids = texts(6)
    for _ in range(400):
        optimizer.zero_grad()
        model.loss(vectors(6), ids).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    request = DecodingRequest(vectors(6), LENGTH, VOCABULARY, 1, end_ids=(EOS, PAD))
    assert torch.equal(final_state(decode_greedily(model.eval(), request)).tokens, ids)
