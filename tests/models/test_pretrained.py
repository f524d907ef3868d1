import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BertConfig, ModernBertModel

from embinv.data.tokenizer import TextTokenizer
from embinv.data.vocabulary import Vocabulary
from embinv.models.pretrained import pretrained_denoiser
from embinv.models.settings import ModelSettings
from tests.backbones import MASK, TOKENS, save_tiny_backbone, tiny_config

DIM = 6
KEPT = np.array([0, 1, 2, 5, 7, 8, 11, 20])  # special tokens and some words
LENGTHS = [16, 64]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    return str(folder), save_tiny_backbone(folder)


def start(folder, vocabulary, seq_len=16, **settings):
    return pretrained_denoiser(ModelSettings(backbone=str(folder), **settings), vocabulary, DIM, seq_len).eval()


def masked_texts(vocabulary, length, rows=3):
    """Texts in our ids [B, L] with masks, the same in the backbone's, and embeddings."""
    generator = torch.Generator().manual_seed(0)
    z_t = torch.randint(vocabulary.size + 1, (rows, length), generator=generator)
    z_t[:, 3] = vocabulary.size
    original = torch.from_numpy(vocabulary.original(z_t.clamp(max=vocabulary.size - 1).numpy())).long()
    return z_t, original.masked_fill(z_t == vocabulary.size, MASK), torch.randn((rows, DIM), generator=generator)


def vocabularies():
    return {"whole": Vocabulary.whole(TOKENS), "trimmed": Vocabulary(KEPT, TOKENS, other=2)}


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("name", ["whole", "trimmed"])
@pytest.mark.parametrize("adaln", [True, False])
@torch.no_grad()
def test_start_says_what_the_backbone_says_whatever_the_embedding(tiny, length, name, adaln):
    folder, language_model = tiny
    vocabulary = vocabularies()[name]
    z_t, original, embedding = masked_texts(vocabulary, length)
    new = start(folder, vocabulary, length, adaln=adaln)
    found = new.logits(new.hidden_states(z_t, 10 * embedding))
    kept = vocabulary.original(np.arange(vocabulary.size))
    expected = language_model(original).logits[..., kept]  # [B, L, V]
    assert expected.std() > 0.5  # something is said
    assert torch.allclose(found, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    "changes",
    [
        {"tie_word_embeddings": False},
        {"decoder_bias": False},
        {"norm_bias": True, "attention_bias": True, "mlp_bias": True, "classifier_bias": True},
        {"hidden_activation": "silu", "classifier_activation": "relu", "norm_eps": 1e-2},
        {"attention_dropout": 0.5, "mlp_dropout": 0.5, "embedding_dropout": 0.5},
    ],
    ids=lambda changes: next(iter(changes)),
)
@torch.no_grad()
def test_start_follows_what_the_backbones_config_says(tmp_path, changes):
    language_model = save_tiny_backbone(tmp_path, **changes)
    vocabulary = vocabularies()["trimmed"]
    z_t, original, embedding = masked_texts(vocabulary, 32)
    new = start(tmp_path, vocabulary, 32).train()  # its dropouts are not taken over
    expected = language_model(original).logits[..., vocabulary.original(np.arange(vocabulary.size))]
    assert torch.allclose(new.logits(new.hidden_states(z_t, embedding)), expected, atol=1e-5, rtol=1e-5)


def test_gradient_reaches_the_backbone_and_every_modulation_from_the_start(tiny):
    vocabulary = vocabularies()["trimmed"]
    new = start(tiny[0], vocabulary).train()
    z_t, _, embedding = masked_texts(vocabulary, 16)
    new(z_t, embedding, z_t == vocabulary.size)[:, 0].sum().backward()
    still = [name for name, p in new.named_parameters() if p.grad is None or not p.grad.abs().sum()]
    assert {name.split(".")[0] for name in still} == {"condition"}  # behind zeros, until the first step has been made


@torch.no_grad()
def test_pseudo_tokens_move_the_start_away_from_the_backbone(tiny):
    vocabulary = vocabularies()["whole"]
    z_t, original, embedding = masked_texts(vocabulary, 16)
    new = start(tiny[0], vocabulary, pseudo_tokens=2)
    assert new.config.pseudo_tokens == 2
    found = new.logits(new.hidden_states(z_t, embedding))
    assert not torch.allclose(found, tiny[1](original).logits, atol=1e-2)


def test_two_starts_of_one_seed_are_equal(tiny):
    states = []
    for _ in range(2):
        torch.manual_seed(3)
        states.append(start(tiny[0], vocabularies()["whole"]).state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def refusal(folder, vocabulary=None, **more):
    with pytest.raises(ValueError, match=r".+") as caught:
        pretrained_denoiser(
            ModelSettings(backbone=str(folder)), vocabulary or Vocabulary.whole(TOKENS), DIM, 16, **more
        )
    assert len(str(caught.value).splitlines()) == 1
    assert str(folder) in str(caught.value)
    return str(caught.value)


def test_pairs_of_another_tokenizer_are_refused_by_its_size_or_by_its_hash(tiny):
    mend = "; set data.tokenizer to null, which is the backbone's own, and encode again"
    sizes = f"the pairs have one of {TOKENS + 1:,} ids, the backbone one of {TOKENS:,}{mend}"
    assert sizes in refusal(tiny[0], Vocabulary.whole(TOKENS + 1))
    assert f"both have {TOKENS:,} ids, but another rule or another order of them{mend}" in refusal(
        tiny[0], tokenizer_hash="0" * 16
    )
    own = TextTokenizer(tiny[0]).fingerprint()
    settings = ModelSettings(backbone=tiny[0])
    assert pretrained_denoiser(settings, Vocabulary.whole(TOKENS), DIM, 16, own).config.backbone == tiny[0]


def test_tokenizer_without_a_mask_token_is_refused(tmp_path):
    save_tiny_backbone(tmp_path, mask_token=None)
    assert "no mask token" in refusal(tmp_path)


def test_model_of_another_kind_is_refused_by_its_name(tiny, tmp_path):
    save_tiny_backbone(tmp_path)
    BertConfig(vocab_size=TOKENS).save_pretrained(tmp_path)
    assert "it is a bert" in refusal(tmp_path)


def test_body_without_the_masked_language_models_head_is_refused(tmp_path):
    save_tiny_backbone(tmp_path)
    ModernBertModel(tiny_config()).save_pretrained(tmp_path)
    assert "is absent" in refusal(tmp_path)


def test_tokenizer_with_more_ids_than_the_weights_know_is_refused(tmp_path):
    save_tiny_backbone(tmp_path, vocab_size=TOKENS - 1)
    assert "does not know" in refusal(tmp_path)


def test_pickled_weights_are_never_read(tmp_path):
    save_tiny_backbone(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    (tmp_path / "model.safetensors").unlink()
    torch.save(weights, tmp_path / "pytorch_model.bin")
    assert "cannot be used" in refusal(tmp_path)
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    start(tmp_path, Vocabulary.whole(TOKENS))  # the weights themselves are well


def test_code_in_the_folder_is_not_run(tmp_path):
    import json

    save_tiny_backbone(tmp_path)
    (tmp_path / "evil.py").write_text("raise SystemExit('was run')\n")
    path = tmp_path / "config.json"
    tree = json.loads(path.read_text()) | {"auto_map": {"AutoConfig": "evil.C", "AutoModelForMaskedLM": "evil.M"}}
    path.write_text(json.dumps(tree))
    start(tmp_path, Vocabulary.whole(TOKENS))


@pytest.mark.parametrize("name", ["pkg://no_such_package/model", "/no/such/folder"])
def test_backbone_that_is_not_there_is_refused(name):
    assert "model.backbone" in refusal(name)
