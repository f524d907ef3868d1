"""Correctors of both families: what they read of a hypothesis, and how it enters."""

import pytest
import torch
from torch.nn import functional as F

from embinv.checkpoint import load_checkpoint
from embinv.data.vocabulary import Vocabulary
from embinv.decoding.autoregressive import decode_greedily
from embinv.decoding.base import DecodingRequest, final_state
from embinv.models.build import empty_model, new_model
from embinv.models.evidence import evidence, parted
from embinv.models.mdlm import ConditionalMDLM
from embinv.models.settings import ModelSettings
from embinv.models.t5_corrector import T5Corrector
from embinv.models.warm_start import corrector_of
from embinv.training.correction import OfHypotheses
from embinv.training.flops import flops_per_sample
from tests.correctors import FAMILIES, corrector_checkpoint, narrow_t5_corrector, settings, tiny_corrector
from tests.fakes import awaken, hash_spec, word_tokenizer
from tests.t5 import DIM, EOS, LENGTH, PAD, PSEUDO, VOCABULARY, tiny_config, tiny_inverter


def vectors(rows, seed=0, dim=DIM):
    return torch.randn(rows, dim, generator=torch.Generator().manual_seed(seed))


def texts(rows, seed=0):
    """Token ids of `rows` texts, each of another length."""
    ids = torch.randint(3, VOCABULARY, (rows, LENGTH), generator=torch.Generator().manual_seed(seed))
    for row in range(rows):
        ids[row, row + 2], ids[row, row + 3 :] = EOS, PAD
    return ids


def given(family, hypothesis, text):
    return torch.cat([hypothesis, text], dim=1) if family == "t5" else hypothesis


@pytest.fixture(scope="module", params=FAMILIES)
def corrector(request):
    return request.param, tiny_corrector(request.param, VOCABULARY, DIM, LENGTH, (EOS, PAD))


def test_evidence_is_taken_apart_into_wanted_difference_and_own():
    wanted, own = vectors(3, 1), vectors(3, 2)
    e, difference, known = parted(evidence(wanted, 7 * own), DIM)
    assert torch.allclose(e.square().mean(dim=1), torch.ones(3)) and torch.allclose(
        known, parted(evidence(own, own), DIM)[0]
    )
    assert torch.allclose(difference, e - known)
    raw = parted(evidence(wanted, own), DIM, unit_rms=False)
    assert torch.equal(raw[0], wanted) and torch.equal(raw[1], wanted - own) and torch.equal(raw[2], own)


def test_every_part_of_what_is_known_plays_a_part(corrector):
    family, model = corrector
    hypothesis, text, wanted, own = texts(3), texts(3, 1), vectors(3, 1), vectors(3, 2)
    said = model(given(family, hypothesis, text), evidence(wanted, own))
    assert said.shape == (3, LENGTH, VOCABULARY) and torch.allclose(said.exp().sum(dim=-1), torch.ones(3, LENGTH))
    others = [
        (given(family, texts(3, 5), text), evidence(wanted, own)),
        (given(family, hypothesis, text), evidence(vectors(3, 6), own)),
        (given(family, hypothesis, text), evidence(wanted, vectors(3, 6))),
        (given(family, hypothesis, text), evidence(own, wanted)),
    ]
    assert all((model(*other) - said).abs().amax() > 1e-3 for other in others)


def test_vectors_count_by_their_directions_and_one_that_is_reached_leaves_no_difference(corrector):
    family, model = corrector
    row, wanted, own = given(family, texts(3), texts(3, 1)), vectors(3, 1), vectors(3, 2)
    assert torch.allclose(model(row, evidence(wanted, own)), model(row, evidence(3 * wanted, 0.1 * own)), atol=1e-4)
    assert torch.isfinite(model(row, evidence(wanted, wanted))).all()
    assert torch.isfinite(model(row, evidence(wanted, torch.zeros(3, DIM)))).all()  # of an empty text


def test_vectors_of_another_length_are_refused(corrector):
    family, model = corrector
    with pytest.raises(ValueError, match=f"embeddings have {DIM} dimensions, the model takes {2 * DIM}"):
        model(given(family, texts(1), texts(1)), vectors(1))


def test_a_denoiser_sees_a_small_difference_as_well_as_a_large_one():
    model = tiny_corrector("mdlm", VOCABULARY, DIM, LENGTH, (EOS, PAD))
    wanted, away = vectors(1, 1), vectors(1, 2)
    near, far = (model.unit_vectors(evidence(wanted, wanted + share * away)) for share in (0.001, 0.01))
    assert near.shape == (1, 3 * DIM)
    [difference, other] = (each[:, DIM : 2 * DIM] for each in (near, far))
    assert difference.square().mean() == pytest.approx(1.0, rel=1e-3)
    assert F.cosine_similarity(difference, other).item() > 0.99


def test_a_t5_reads_in_the_order_of_the_published_corrector():
    model = narrow_t5_corrector()
    hypothesis, wanted, own = texts(2), vectors(2, 1), vectors(2, 2)
    seen = []
    model.layernorm.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    _, mask = model.read(evidence(wanted, own), hypothesis)

    def tokens(transform, vector):
        first, last = transform[0], transform[3]
        hidden = F.gelu(F.linear(vector, first.weight, first.bias))
        return F.linear(hidden, last.weight, last.bias).view(2, PSEUDO, -1)

    embed = model.encoder_decoder.shared.weight
    separator = embed[EOS].expand(2, 1, -1)
    by_hand = [
        separator,
        tokens(model.embedding_transform_1, wanted),
        separator,
        tokens(model.embedding_transform_3, own),
        separator,
        tokens(model.embedding_transform_2, wanted - own),
        separator,
        embed[hypothesis],
    ]
    assert torch.allclose(seen[0], torch.cat(by_hand, dim=1), atol=1e-6)
    looked_at = [[True] * (4 + 3 * PSEUDO + row + 3) + [False] * (LENGTH - row - 3) for row in range(2)]
    assert (mask[:, 0, 0] == 0).tolist() == looked_at and mask.amin() < -1e30


def test_what_stands_behind_the_end_of_a_hypothesis_is_not_read_by_a_t5():
    model, known = narrow_t5_corrector(), evidence(vectors(2, 1), vectors(2, 2))
    long, text = texts(2), texts(2, 1)
    short = long[:, :8]
    padded, cut = (model.states(text, *model.read(known, each)) for each in (long, short))
    assert torch.allclose(padded, cut, atol=1e-5)


def test_a_t5_writes_token_by_token_what_it_says_at_once():
    model = narrow_t5_corrector(seed=4)
    hypotheses, known = texts(5), evidence(vectors(5, 1), vectors(5, 2))
    request = DecodingRequest(known, LENGTH, VOCABULARY, 1)
    written = final_state(decode_greedily(OfHypotheses(model, hypotheses), request)).tokens
    at_once = model(torch.cat([hypotheses, written], dim=1), known).argmax(dim=-1)
    assert torch.equal(at_once, written)


def test_its_names_of_weights_are_the_published_ones():
    names = set(narrow_t5_corrector().state_dict())
    own = {name for name in names if not name.startswith("encoder_decoder.")}
    assert own == {
        f"{module}.{kind}"
        for module in (*(f"embedding_transform_{i}.{j}" for i in (1, 2, 3) for j in (0, 3)), "layernorm")
        for kind in ("weight", "bias")
    }
    assert "encoder_decoder.shared.weight" in names and "encoder_decoder.lm_head.weight" not in names


@pytest.mark.parametrize("family", FAMILIES)
def test_a_config_makes_a_corrector_and_a_checkpoint_brings_it_back(family, tmp_path):
    chosen, vocabulary = settings(family), Vocabulary.whole(VOCABULARY)
    model = new_model(chosen, vocabulary, DIM, LENGTH, (EOS, PAD))
    assert model.config.family == chosen.kind == f"{family}_corrector"
    assert type(empty_model(model.config)) is type(model)
    assert flops_per_sample(model) > 0

    tokenizer = word_tokenizer(tmp_path / "words")
    made = corrector_checkpoint(tmp_path / "checkpoint", family, tokenizer, hash_spec(DIM), LENGTH)
    loaded = load_checkpoint(tmp_path / "checkpoint")
    assert loaded.config.family == chosen.kind and loaded.config.model == made.config
    assert all(torch.equal(weight, made.state_dict()[name]) for name, weight in loaded.model.state_dict().items())


def test_a_denoisers_backbone_cannot_be_a_corrector():
    with pytest.raises(ValueError, match="model.family t5 alone"):
        ModelSettings(corrector=True, backbone="answerdotai/ModernBERT-base")


@pytest.mark.parametrize("family", FAMILIES)
def test_a_corrector_that_begins_as_an_inverter_says_what_that_says(family):
    hypothesis, text, wanted, own = texts(3), texts(3, 1), vectors(3, 1), vectors(3, 2)
    if family == "t5":
        inverter = tiny_inverter(tiny_config(unit_rms=True), spread=0.3)
        corrector = corrector_of(inverter)
        assert type(corrector) is T5Corrector and corrector.config.transformer == inverter.config.transformer
        assert torch.equal(corrector.embedding_transform_1[3].weight, inverter.embedding_transform[3].weight)
        theirs, ours = inverter.encoder_decoder.state_dict(), corrector.encoder_decoder.state_dict()
        assert all(torch.equal(tensor, ours[name]) for name, tensor in theirs.items())
        assert corrector.encoder_decoder.lm_head.weight is corrector.encoder_decoder.shared.weight
        assert torch.isfinite(corrector(torch.cat([hypothesis, text], dim=1), evidence(wanted, own))).all()
    else:
        plain = ModelSettings(size="tiny").resolve(VOCABULARY, DIM, LENGTH)
        inverter = awaken(ConditionalMDLM(plain)).eval()
        corrector = corrector_of(inverter).eval()
        assert torch.equal(corrector(hypothesis, evidence(wanted, own)), inverter(hypothesis, wanted))
        with pytest.raises(ValueError, match="cannot begin as an inverter of family mdlm_corrector"):
            corrector_of(corrector)
    before = {name: tensor.clone() for name, tensor in inverter.state_dict().items()}
    with torch.no_grad():
        for parameter in corrector.parameters():
            parameter.add_(1.0)
    assert all(torch.equal(tensor, before[name]) for name, tensor in inverter.state_dict().items())


def test_what_a_corrector_begins_as_is_of_correctors_alone():
    for wrong in ({"inverter": "x"}, {"inverter": "x", "corrector": True, "family": "t5", "backbone": "y"}):
        with pytest.raises(ValueError, match=r"model\.inverter is what a corrector begins as"):
            ModelSettings(**wrong)
