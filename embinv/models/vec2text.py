"""Folders in the format of vec2text's inverters: read as a `T5Inverter`, and written for those who use vec2text.

Their config.json names a T5 (`model_name_or_path`) and says nothing about its sizes, so those are read off the shapes
of the weights; nothing but the folder is needed. Weights come from safetensors, or from torch files that hold tensors
and nothing else (`weights_only`). Keys of older versions are taken too, and an encoder that was saved along is left
out. Shapes and names: Morris et al., 2023, and the published checkpoints.

Shapes: D embedding, R pseudo-tokens, H hidden, V vocabulary.
"""

import json
import pickle
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from embinv.encoders.spec import resolve_model
from embinv.models.t5_inverter import T5Inverter
from embinv.models.t5_settings import T5InverterConfig, T5Shape
from embinv.models.t5_writer import COPIES, HEAD, SHARED

FILES = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
OF_THE_ENCODER = "embedder."
LEFT_OUT = re.compile(
    # T5 saved this once, and never used it.
    r"encoder_decoder\.decoder\.block\.0\.layer\.1\.EncDecAttention\.relative_attention_bias\.weight"
)
OLDER = {"embedding_transform.2.": "embedding_transform.3."}  # from before there was a dropout
FIRST = "encoder_decoder.encoder.block.0.layer."
SHOWN = 8  # problems that a message names
DROPOUT = 0.1  # of every published T5
LENGTH = 32  # theirs, where their config does not say


@dataclass(frozen=True)
class Vec2TextFolder:
    """What their config.json says that weights do not.

    Attributes:
        encoder: name of the embedding model (`embedder_model_name`), if it is named.
        t5: name of the T5 that training started from, whose tokenizer it is, if it is named.
    """

    encoder: str | None
    t5: str | None


def load_vec2text(source: str, revision: str | None = None) -> tuple[T5Inverter, Vec2TextFolder]:
    """Reads a folder, or a repository of the hub, in vec2text's format.

    Args:
        source: folder, `pkg://package/path` or hub id.
        revision: hub commit or tag.

    Raises:
        ValueError: there is no such folder, its weights cannot be read, or they are not those of a T5 inverter; the
            message names what is missing or of another shape.
    """
    place = _Place(source, revision)
    try:
        own = json.loads(place.file("config.json").read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{source}: config.json cannot be read ({error})") from error
    if not isinstance(own, dict):
        raise ValueError(f"{source}: config.json is no mapping; give a folder that vec2text wrote")
    weights = _named_as_now(place.weights())
    try:
        config = _architecture(weights, own)
    except ValidationError as error:
        raise ValueError(f"{source}: no T5 inverter ({error.errors()[0]['msg']})") from error
    except KeyError as error:
        raise ValueError(f"{source}: no T5 inverter, {error.args[0]} is missing") from error
    with torch.device("meta"):
        model = T5Inverter(config)
    _require_the_same(weights, model.state_dict(), source)
    model.load_state_dict(weights, assign=True)
    model.tie()
    return model.eval(), Vec2TextFolder(own.get("embedder_model_name"), own.get("model_name_or_path"))


def save_vec2text(model: T5Inverter, folder: str | Path, encoder: str, t5: str) -> None:
    """Writes weights and config as vec2text does.

    Args:
        model: what to write.
        folder: where; it is made.
        encoder: name of the embedding model, as vec2text knows it or as the hub does.
        t5: the model whose tokenizer and sizes it has, such as t5-base.

    Raises:
        ValueError: the model scales its vectors, which vec2text would not do.
    """
    config, folder = model.config, Path(folder)
    if config.unit_rms:
        raise ValueError(
            "this inverter scales vectors to unit RMS, which vec2text does not; train with unit_rms: false"
        )
    folder.mkdir(parents=True, exist_ok=True)
    weights = {name: tensor.detach().float().cpu().contiguous() for name, tensor in model.state_dict().items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    said = {
        "architectures": ["InversionModel"],
        "embedder_model_name": encoder,
        "model_name_or_path": t5,
        "max_seq_length": config.seq_len,
        "num_repeat_tokens": config.pseudo_tokens,
        "embedder_no_grad": True,
        "use_frozen_embeddings_as_input": True,
        "torch_dtype": "float32",
    }
    (folder / "config.json").write_text(json.dumps(said, indent=2) + "\n", encoding="utf-8")


class _Place:
    """A folder here or a repository of the hub."""

    def __init__(self, source: str, revision: str | None) -> None:
        self.source, self._revision = source, revision
        self._folder = Path(resolve_model(source))

    def file(self, name: str) -> Path:
        """A file of it.

        Raises:
            ValueError: it has none of that name, or cannot be reached.
        """
        if (found := self.find(name)) is None:
            raise ValueError(f"{self.source}: no {name}; give a folder or a repository that vec2text wrote")
        return found

    def find(self, name: str) -> Path | None:
        """A file of it, or None if it has none of that name."""
        if self._folder.is_dir():
            return self._folder / name if (self._folder / name).is_file() else None
        try:
            return Path(hf_hub_download(self.source, name, revision=self._revision))
        except LocalEntryNotFoundError as error:  # a kind of EntryNotFoundError
            raise ValueError(f"{self.source} is no folder, and the hub cannot be reached") from error
        except EntryNotFoundError:
            return None
        except (HFValidationError, HfHubHTTPError, OSError) as error:
            why = str(error).strip().splitlines()[-1]
            raise ValueError(f"{self.source} is no folder, and no repository of the hub: {why}") from error

    def weights(self) -> dict[str, Tensor]:
        """All tensors, of one file or of several."""
        for name in FILES:
            if (path := self.find(name)) is None:
                continue
            if not name.endswith(".index.json"):
                return self._read(path)
            parts = set(json.loads(path.read_text(encoding="utf-8"))["weight_map"].values())
            return {key: tensor for part in sorted(parts) for key, tensor in self._read(self.file(part)).items()}
        raise ValueError(f"{self.source}: no weights; expected one of {', '.join(FILES)}")

    def _read(self, path: Path) -> dict[str, Tensor]:
        try:
            if path.suffix == ".safetensors":
                return load_file(path)
            found = torch.load(path, map_location="cpu", weights_only=True)
        except (OSError, SafetensorError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
            why = str(error).strip().splitlines()[0]
            raise ValueError(f"{self.source}: {path.name} cannot be read as tensors alone ({why})") from error
        if not isinstance(found, dict) or not all(isinstance(value, Tensor) for value in found.values()):
            raise ValueError(f"{self.source}: {path.name} is no table of tensors")
        return found


def _named_as_now(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Without the encoder's weights and copies of the token embedding, under the names of today, in float32."""
    kept = {}
    for name, tensor in weights.items():
        if name.startswith(OF_THE_ENCODER) or LEFT_OUT.fullmatch(name):
            continue
        for old, new in OLDER.items():
            if name.startswith(old):
                name = new + name.removeprefix(old)
        kept[name] = tensor.float()
    shared = kept.setdefault(SHARED, kept.get(COPIES[0], kept.get(COPIES[1], kept.get(HEAD, torch.empty(0)))))
    for name in (*COPIES, HEAD):
        if name in kept and (name in COPIES or torch.equal(kept[name], shared)):
            del kept[name]
    return kept


def _architecture(weights: dict[str, Tensor], own: dict[str, Any]) -> T5InverterConfig:
    """What shapes say; a KeyError names the tensor that is missing."""
    if not weights[SHARED].numel():
        raise KeyError(SHARED)
    rows, hidden = weights[SHARED].shape
    buckets, heads = weights[f"{FIRST}0.SelfAttention.relative_attention_bias.weight"].shape
    gated = f"{FIRST}1.DenseReluDense.wi_0.weight" in weights
    wide = weights[f"{FIRST}1.DenseReluDense.{'wi_0' if gated else 'wi'}.weight"]
    last = weights["embedding_transform.3.weight"]
    return T5InverterConfig(
        vocab_size=rows,
        rows=rows,
        embedding_dim=weights["embedding_transform.0.weight"].shape[1],
        seq_len=own.get("max_seq_length") or LENGTH,
        pseudo_tokens=own.get("num_repeat_tokens") or last.shape[0] // hidden,
        dropout=DROPOUT,
        start_id=0,  # T5 starts with its padding
        eos_id=1,
        pad_id=0,
        unit_rms=False,
        tied_head=HEAD not in weights,
        transformer=T5Shape(
            d_model=hidden,
            d_kv=weights[f"{FIRST}0.SelfAttention.q.weight"].shape[0] // heads,
            d_ff=wide.shape[0],
            num_layers=_blocks(weights, "encoder"),
            num_decoder_layers=_blocks(weights, "decoder"),
            num_heads=heads,
            relative_attention_num_buckets=buckets,
            feed_forward_proj="gated-gelu" if gated else "relu",
        ),
    )


def _blocks(weights: dict[str, Tensor], stack: str) -> int:
    pattern = re.compile(rf"encoder_decoder\.{stack}\.block\.(\d+)\.")
    return 1 + max((int(found[1]) for name in weights if (found := pattern.match(name))), default=-1)


def _require_the_same(found: dict[str, Tensor], expected: dict[str, Tensor], source: str) -> None:
    problems = [f"{name} is missing" for name in expected if name not in found]
    problems += [f"{name} is no part of a T5 inverter" for name in found if name not in expected]
    problems += [
        f"{name} has shape {tuple(found[name].shape)}, expected {tuple(tensor.shape)}"
        for name, tensor in expected.items()
        if name in found and found[name].shape != tensor.shape
    ]
    if problems:
        more = f"; and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
        raise ValueError(f"{source}: " + "; ".join(problems[:SHOWN]) + more)
