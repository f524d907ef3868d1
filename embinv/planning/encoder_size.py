"""How much arithmetic an encoder is: its weights by how often they are multiplied with, and its attention.

Of a model whose folder is at hand all is read off its config, on tensors without data; of the encoders that ship as
configs, off the table below. Nothing is downloaded, no weight is loaded, and no code of a model's own is run.

    FLOPs of a text of S tokens = 2 S matrices + 2 per_text + 4 S^2 attention

Shapes: S tokens, H hidden, N heads, P head width.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embinv.encoders.spec import EncoderSpec, resolve_model


@dataclass(frozen=True)
class EncoderSize:
    """An encoder's weights and attention.

    Attributes:
        matrices: weights that each token is multiplied with.
        per_text: weights that each pooled vector is multiplied with.
        other: token embedding, norms, biases: read and not multiplied with.
        attention: N x P, summed over the layers.
        layers: blocks.
        vocabulary: V, which is the decoder's too where the config names no other tokenizer.
        source: where this is from.
    """

    matrices: int
    per_text: int
    other: int
    attention: int
    layers: int
    vocabulary: int
    source: str

    @property
    def parameters(self) -> int:
        """All weights."""
        return self.matrices + self.per_text + self.other

    def flops(self, tokens: float) -> float:
        """Of one text of so many tokens; attention is counted whole, though a causal one may leave out half."""
        return 2 * tokens * self.matrices + 2 * self.per_text + 4 * tokens**2 * self.attention


def transformer(
    layers: int,
    hidden: int,
    ffn: int,
    heads: int,
    vocabulary: int,
    source: str,
    key_heads: int | None = None,
    head_width: int | None = None,
    gated: bool = False,
    dense: tuple[tuple[int, int], ...] = (),
    positions: int = 0,
) -> EncoderSize:
    """The closed form for the usual transformer; norms and biases are left out.

    Args:
        layers: blocks.
        hidden: H.
        ffn: width of the feed-forward.
        heads: N, of queries.
        vocabulary: V.
        source: where the widths are from.
        key_heads: of keys and values; None: N.
        head_width: P; None: H / N.
        gated: whether the feed-forward has three matrices and not two.
        dense: (inputs, outputs) of each Dense module behind the pooling.
        positions: rows of a table of positions and the like.
    """
    width = head_width or hidden // heads
    queries, keys = heads * width, (key_heads or heads) * width
    block = hidden * (2 * queries + 2 * keys) + (3 if gated else 2) * hidden * ffn
    return EncoderSize(
        matrices=layers * block,
        per_text=sum(inputs * outputs for inputs, outputs in dense),
        other=(vocabulary + positions) * hidden,
        attention=layers * queries,
        layers=layers,
        vocabulary=vocabulary,
        source=source,
    )


_CARD = "config.json of {} on the hub"
_JINA = transformer(24, 1024, 4096, 16, 250_002, _CARD.format("jinaai/jina-embeddings-v3 (XLM-R large, rotary)"))
KNOWN = {
    "qwen/qwen3-embedding-0.6b": transformer(
        28,
        1024,
        3072,
        16,
        151_669,
        _CARD.format("Qwen/Qwen3-Embedding-0.6B"),
        key_heads=8,
        head_width=128,
        gated=True,
    ),
    "qwen/qwen3-embedding-8b": transformer(
        36,
        4096,
        12_288,
        32,
        151_665,
        _CARD.format("Qwen/Qwen3-Embedding-8B"),
        key_heads=8,
        head_width=128,
        gated=True,
    ),
    "jinaai/jina-embeddings-v3": _JINA,
    "jinaai/jina-embeddings-v3-hf": _JINA,
    "google/embeddinggemma-300m": transformer(
        24,
        768,
        1152,
        3,
        262_144,
        _CARD.format("google/embeddinggemma-300m"),
        key_heads=1,
        head_width=256,
        gated=True,
        dense=((768, 3072), (3072, 768)),
    ),
    "sentence-transformers/all-minilm-l6-v2": transformer(
        6, 384, 1536, 12, 30_522, _CARD.format("sentence-transformers/all-MiniLM-L6-v2"), positions=514
    ),
}


def encoder_size(spec: EncoderSpec) -> EncoderSize:
    """The size of a recipe's encoder: of its folder if that is at hand, else of the table.

    Raises:
        ValueError: neither knows it; the message says what to do.
    """
    if spec.kind == "hash":
        return EncoderSize(0, 0, 0, 0, 0, 0, "a hash, no model")
    if spec.kind == "openai":
        raise ValueError(
            "encoder.kind openai: what a server can do cannot be worked out from here; give what it was measured to do "
            "with --from PAIRS or --measured FILE, or leave out encoding (--stages train,invert) and name the "
            "vocabulary (--vocabulary)"
        )
    folder = Path(resolve_model(spec.model))
    if (folder / "config.json").is_file():
        return size_of_folder(folder)
    known = KNOWN.get(spec.model.lower())
    if known is None:
        raise ValueError(
            f"encoder.model {spec.model}: is not at hand and not in the table of known encoders ({', '.join(KNOWN)}); "
            "download it and give its folder (--set encoder.model=FOLDER), or plan from measurements (--from, "
            "--measured)"
        )
    return known


def size_of_folder(folder: Path) -> EncoderSize:
    """Reads an encoder's config and counts its weights, on tensors without data.

    Raises:
        ValueError: transformers does not know the architecture.
    """
    import torch
    from torch import nn
    from transformers import AutoConfig, AutoModel

    try:
        config: Any = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        with torch.device("meta"):
            model = AutoModel.from_config(config, trust_remote_code=False)
    except (OSError, ValueError, KeyError, AttributeError) as error:
        why = str(error).strip().splitlines()[0]
        raise ValueError(f"encoder.model {folder}: its config cannot be read ({why}); plan from --measured") from error
    text = config.get_text_config()
    pooler = getattr(model, "pooler", None)  # which sentence-transformers leaves unused
    unused = set() if pooler is None else {id(module) for module in pooler.modules()}
    linear = [each for each in model.modules() if isinstance(each, nn.Linear) and id(each) not in unused]
    matrices = sum(each.weight.numel() for each in linear)
    width = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    return EncoderSize(
        matrices=matrices,
        per_text=sum(inputs * outputs for inputs, outputs in _dense(folder)),
        other=sum(weight.numel() for weight in model.parameters()) - matrices,
        attention=text.num_hidden_layers * text.num_attention_heads * width,
        layers=text.num_hidden_layers,
        vocabulary=text.vocab_size,
        source=f"config.json in {folder.name}/",
    )


def _dense(folder: Path) -> list[tuple[int, int]]:
    """(inputs, outputs) of the Dense modules that sentence-transformers puts behind the pooling."""
    found = []
    for path in sorted(folder.glob("*_Dense/config.json")):
        settings = json.loads(path.read_text(encoding="utf-8"))
        found.append((int(settings["in_features"]), int(settings["out_features"])))
    return found
