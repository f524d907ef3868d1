"""Folders as vec2text writes them, made here of the published names; and ours, read by their rules."""

import json
import os
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional as F
from transformers import T5Config, T5ForConditionalGeneration

from embinv.models.vec2text import load_vec2text, save_vec2text
from tests.hub import HubServer
from tests.t5 import DIM, LENGTH, PSEUDO, TINY, VOCABULARY, tiny_config, tiny_inverter

HIDDEN = TINY.d_model
COPIES = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "lm_head.weight")
OWN = {
    "architectures": ["InversionModel"],
    "embedder_model_name": "Qwen/Qwen3-Embedding-8B",
    "model_name_or_path": "t5-base",
    "max_seq_length": LENGTH,
    "num_repeat_tokens": PSEUDO,
}


@pytest.fixture(scope="module")
def t5():
    """A T5 made by transformers alone, tied as T5 1.0 is."""
    torch.manual_seed(0)
    sizes = TINY.model_dump()
    return T5ForConditionalGeneration(T5Config(vocab_size=VOCABULARY, decoder_start_token_id=0, **sizes)).eval()


@pytest.fixture(scope="module")
def transform():
    """W and b of both linear maps."""
    torch.manual_seed(1)
    shapes = ((DIM, DIM), (DIM,), (PSEUDO * HIDDEN, DIM), (PSEUDO * HIDDEN,))
    return [torch.randn(shape) for shape in shapes]


@pytest.fixture
def published(t5, transform):
    """The tensors of a published folder: the token embedding once."""
    names = ("0.weight", "0.bias", "3.weight", "3.bias")
    found = {f"embedding_transform.{name}": tensor for name, tensor in zip(names, transform, strict=True)}
    kept = {name: tensor for name, tensor in t5.state_dict().items() if name not in COPIES}
    return found | {f"encoder_decoder.{name}": tensor.clone() for name, tensor in kept.items()}


def write(folder, tensors, own=OWN, name="model.safetensors"):
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(own))
    if name.endswith(".safetensors"):
        save_file(tensors, folder / name)
    else:
        torch.save(tensors, folder / name)
    return str(folder)


def logits_by_hand(t5, transform, vectors, ids):
    """vec2text's own forward pass (InversionModel.embed_and_project, then T5)."""
    first, first_bias, last, last_bias = transform
    states = F.linear(F.gelu(F.linear(vectors, first, first_bias)), last, last_bias).view(len(vectors), PSEUDO, HIDDEN)
    mask = torch.ones(states.shape[:2], dtype=torch.long)
    return t5(inputs_embeds=states, attention_mask=mask, labels=ids).logits


def assert_the_same(model, t5, transform):
    vectors, ids = torch.randn(3, DIM) * 5, torch.randint(2, VOCABULARY, (3, LENGTH))
    with torch.no_grad():
        assert torch.allclose(
            model(ids, vectors), logits_by_hand(t5, transform, vectors, ids).log_softmax(-1), atol=1e-5
        )


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_a_published_folder_computes_what_vec2text_would(published, t5, transform, tmp_path, name):
    model, said = load_vec2text(write(tmp_path / "theirs", published, name=name))
    assert_the_same(model, t5, transform)
    assert (said.encoder, said.t5) == ("Qwen/Qwen3-Embedding-8B", "t5-base")
    config = model.config
    assert (config.pseudo_tokens, config.seq_len, config.tied_head, config.unit_rms) == (PSEUDO, LENGTH, True, False)
    assert config.transformer == TINY
    assert model.begin(torch.randn(2, DIM)).next_token(torch.zeros(2, dtype=torch.long)).shape == (2, VOCABULARY)


def test_older_names_copies_and_an_encoder_beside_it_are_taken_as_they_are_meant(published, t5, transform, tmp_path):
    tensors = {name.replace("transform.3.", "transform.2."): tensor for name, tensor in published.items()}
    shared = tensors["encoder_decoder.shared.weight"]
    tensors |= {f"encoder_decoder.{name}": shared.clone() for name in COPIES}
    tensors["embedder.layers.0.weight"] = torch.zeros(2, 2)
    unused = "encoder_decoder.decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"
    tensors[unused] = torch.zeros(32, 2)
    model, _ = load_vec2text(write(tmp_path / "theirs", tensors))
    assert_the_same(model, t5, transform)
    assert len(model.state_dict()) == len(published)


def test_half_precision_and_several_files_are_read(published, t5, transform, tmp_path):
    folder = tmp_path / "theirs"
    halves = {name: tensor.to(torch.float64) for name, tensor in published.items()}
    names = sorted(halves)
    parts = {"a.safetensors": names[:20], "b.safetensors": names[20:]}
    for part, held in parts.items():
        write(folder, {name: halves[name] for name in held}, name=part)
    weight_map = {name: part for part, held in parts.items() for name in held}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    model, _ = load_vec2text(str(folder))
    assert_the_same(model, t5, transform)
    assert all(tensor.dtype == torch.float32 for tensor in model.state_dict().values())


def test_a_head_of_its_own_is_kept(published, tmp_path):
    head = torch.randn(VOCABULARY, HIDDEN)
    model, _ = load_vec2text(write(tmp_path / "theirs", published | {"encoder_decoder.lm_head.weight": head}))
    assert not model.config.tied_head
    assert torch.equal(model.encoder_decoder.lm_head.weight, head)


def test_without_a_word_of_length_or_pseudo_tokens_the_weights_tell(published, tmp_path):
    model, said = load_vec2text(write(tmp_path / "theirs", published, own={}))
    assert model.config.pseudo_tokens == PSEUDO and model.config.seq_len == 32
    assert (said.encoder, said.t5) == (None, None)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("embedding_transform.0.bias"), "embedding_transform.0.bias is missing"),
        (lambda t: t.pop("embedding_transform.3.weight"), "embedding_transform.3.weight is missing"),
        (lambda t: t.pop("encoder_decoder.shared.weight"), "encoder_decoder.shared.weight is missing"),
        (
            lambda t: t.update({"embedding_transform.3.bias": torch.zeros(5)}),
            r"embedding_transform.3.bias has shape \(5,\), expected \(48,\)",
        ),
        (lambda t: t.update(odd=torch.zeros(1)), "odd is no part of a T5 inverter"),
        (lambda t: t.clear() or t.update(a=torch.zeros(1)), "no T5 inverter"),
    ],
)
def test_what_does_not_fit_is_named(published, tmp_path, change, message):
    change(published)
    with pytest.raises(ValueError, match=message):
        load_vec2text(write(tmp_path / "theirs", published))


def test_pseudo_tokens_that_the_weights_contradict_are_named(published, tmp_path):
    with pytest.raises(ValueError, match=r"embedding_transform.3.weight has shape \(48, 8\), expected \(256, 8\)"):
        load_vec2text(write(tmp_path / "theirs", published, own=OWN | {"num_repeat_tokens": 16}))


def test_many_problems_are_counted(published, tmp_path):
    left = {name: tensor for name, tensor in published.items() if "block.1" not in name or "encoder.block.1" in name}
    broken = {name: torch.zeros(1) if "layer_norm" in name else tensor for name, tensor in left.items()}
    with pytest.raises(ValueError, match="and 1 more"):
        load_vec2text(write(tmp_path / "theirs", broken))


def test_a_folder_without_weights_or_with_another_content_is_a_mistake(published, tmp_path):
    folder = tmp_path / "theirs"
    write(folder, published)
    (folder / "model.safetensors").write_bytes(b"no tensors")
    with pytest.raises(ValueError, match="model.safetensors cannot be read"):
        load_vec2text(str(folder))
    (folder / "model.safetensors").unlink()
    with pytest.raises(ValueError, match="no weights; expected one of model.safetensors"):
        load_vec2text(str(folder))
    (folder / "config.json").write_text("[1]")
    with pytest.raises(ValueError, match="is no mapping"):
        load_vec2text(str(folder))
    (folder / "config.json").unlink()
    with pytest.raises(ValueError, match=r"no config.json; give a folder"):
        load_vec2text(str(folder))


class Evil:
    def __reduce__(self):
        return os.system, ("touch pwned",)


def test_a_torch_file_that_would_run_code_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="cannot be read as tensors alone"):
        load_vec2text(write(tmp_path / "theirs", {"a": Evil()}, name="pytorch_model.bin"))
    assert not (tmp_path / "pwned").exists()


def test_what_is_written_for_vec2text_is_read_again(tmp_path):
    model = tiny_inverter(tiny_config())
    save_vec2text(model, tmp_path / "ours", "minilm", "t5-small")
    again, said = load_vec2text(str(tmp_path / "ours"))
    assert (said.encoder, said.t5) == ("minilm", "t5-small")
    assert again.config == model.config.model_copy(update={"dropout": again.config.dropout})
    written, expected = load_file(tmp_path / "ours" / "model.safetensors"), model.state_dict()
    assert written.keys() == expected.keys() == again.state_dict().keys()
    assert all(torch.equal(again.state_dict()[name], tensor) for name, tensor in expected.items())
    with pytest.raises(ValueError, match="unit_rms: false"):
        save_vec2text(tiny_inverter(tiny_config(unit_rms=True)), tmp_path / "other", "minilm", "t5-small")


@pytest.mark.slow
def test_a_repository_of_the_hub_is_read_and_an_absent_one_named(published, tmp_path):
    root = tmp_path / "hub"
    (root / "owner").mkdir(parents=True)
    write(root / "owner" / "inverter", published)
    program = "import sys; from embinv.models.vec2text import load_vec2text as load; "
    program += "print(len(load(sys.argv[1])[0].state_dict()))"
    with HubServer(root) as hub:
        environment = os.environ | hub.environment(tmp_path / "home")

        def read(name):
            return subprocess.run(
                [sys.executable, "-c", program, name], env=environment, capture_output=True, text=True, check=False
            )

        found, absent = read("owner/inverter"), read("owner/other")
    assert found.stdout.strip() == str(len(published)), found.stderr
    assert "owner/other is no folder, and no repository of the hub" in absent.stderr
