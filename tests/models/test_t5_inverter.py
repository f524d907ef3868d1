"""A T5 that reads a vector, at tiny sizes; the sizes of the published one on the meta device."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from embinv.decoding.autoregressive import decode_greedily
from embinv.decoding.base import DecodingRequest, final_state
from embinv.models.t5_inverter import T5Inverter
from embinv.training.step import TokenIds
from embinv.training.teacher_forcing import counted
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
    before, after = model(ids, vectors(2)), model(changed, vectors(2))
    assert torch.allclose(before[1, :7], after[1, :7], atol=1e-5)  # place 6 reads up to place 5
    assert not torch.allclose(before[1, 7], after[1, 7], atol=1e-5)
    assert not torch.allclose(before, model(ids, vectors(2, seed=1)))


def test_the_decoder_reads_the_start_first(model):
    shifted = torch.tensor([[START, *texts(1)[0, :-1].tolist()]])
    by_hand = model.encoder_decoder(inputs_embeds=model.pseudo_tokens(vectors(1)), decoder_input_ids=shifted).logits
    assert torch.allclose(model(texts(1), vectors(1)), by_hand.log_softmax(-1), atol=1e-5)


@pytest.mark.parametrize("tied", [True, False])
def test_log_probabilities_and_loss_are_those_of_transformers(tied):
    model, ids = tiny_inverter(tiny_config(tied_head=tied)), texts(3)
    t5 = model.encoder_decoder
    labelled = t5(inputs_embeds=model.pseudo_tokens(vectors(3)), labels=ids)
    asked = torch.rand(ids.shape, generator=torch.Generator().manual_seed(1)) < 0.4
    assert torch.allclose(model(ids, vectors(3), asked), labelled.logits.log_softmax(-1)[asked], atol=1e-5)
    everywhere = torch.ones_like(ids, dtype=torch.bool)
    loss, each = model(ids, vectors(3), everywhere, ids.flatten(), torch.full((ids.numel(),), 1 / ids.numel()))
    assert loss.item() == pytest.approx(labelled.loss.item(), rel=1e-5)
    (ours,) = torch.autograd.grad(loss, t5.shared.weight)
    (theirs,) = torch.autograd.grad(labelled.loss, t5.shared.weight)
    assert (ours - theirs).norm() < 1e-5 * theirs.norm()
    assert each.shape == (ids.numel(),)


def test_activations_that_are_made_again_change_no_gradient(model):
    def gradients():
        model.zero_grad()
        model.train()(texts(2), vectors(2)).sum().backward()
        return {name: weight.grad.clone() for name, weight in model.named_parameters()}

    try:
        kept = gradients()
        model.recompute(True)
        assert model.encoder_decoder.is_gradient_checkpointing
        again = gradients()
        assert all(torch.allclose(kept[name], again[name], rtol=1e-4, atol=1e-5) for name in kept)
    finally:
        model.recompute(False)
        model.eval().zero_grad()


@pytest.mark.nightly
@pytest.mark.timeout(600)
def test_compiled_blocks_say_the_same(model):
    compiled = tiny_inverter(tiny_config())
    names = set(compiled.state_dict())
    compiled.compile_blocks()
    assert set(compiled.state_dict()) == names
    assert torch.allclose(compiled(texts(2), vectors(2)), model(texts(2), vectors(2)), atol=1e-4)


def test_token_by_token_it_says_what_it_says_of_a_whole_text(model):
    ids = texts(3, seed=4)
    whole = model(ids, vectors(3))
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
    expected = model(ids, vectors(3))[rows, 2]
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
    assert torch.equal(model(texts(2), vectors(2)), again(texts(2), vectors(2)))
    t5 = again.encoder_decoder
    assert t5.encoder.embed_tokens.weight is t5.decoder.embed_tokens.weight is t5.shared.weight
    assert (t5.lm_head.weight is t5.shared.weight) == tied


def test_it_learns_texts_by_heart():
    model = tiny_inverter(tiny_config(unit_rms=True)).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    ids = texts(6)
    for _ in range(400):
        optimizer.zero_grad()
        asked = counted(ids, TokenIds(VOCABULARY, EOS, PAD))
        targets = ids[asked]
        model(ids, vectors(6), asked, targets, torch.full(targets.shape, 1 / len(targets)))[0].backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    request = DecodingRequest(vectors(6), LENGTH, VOCABULARY, 1, end_ids=(EOS, PAD))
    assert torch.equal(final_state(decode_greedily(model.eval(), request)).tokens, ids)
