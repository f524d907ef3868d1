"""Encoders of the sentence-transformers family, run exactly as their owners run them.

The model's own modules do the pooling, Dense layers and normalisation; this adapter adds only what the recipe says
(prompt, task, Matryoshka truncation and renormalisation, dtype). Texts become ids in tokens.py, so that the same ids
may come from another process; the first thing that an encoder does is to compare them with those of the model's own
tokenisation. It does not download by itself: a hub id goes through huggingface_hub's cache.

Shapes: N texts, B of them in one batch, S tokens, D embedding.
"""

import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch

from embinv.encoders.arithmetic import multiplies_in_bfloat16
from embinv.encoders.batches import pad, token_batches
from embinv.encoders.settings import EncodingSettings
from embinv.encoders.spec import EncoderSpec, resolve_model
from embinv.encoders.tokenizer_files import cannot_be_loaded, load_tokenizer
from embinv.encoders.tokens import Tokens

BATCH_TOKENS = {"cpu": 1024, "cuda": 32768}  # docs/LOG.md
# What the two tokenisations are compared on: several scripts, a sign of many bytes, nothing, spaces, more than fits.
PROBES = [
    "Dr. Weber moved the appointment to May 4.",
    "Anna Müller wohnt in Köln; она пишет 的信 です 한국어 العربية \U0001f642",
    "",
    "  two  spaces\nand a line ",
    "ok",
    "a longer text of words " * 3000,
]


def _dtype(spec: EncoderSpec, device: str, settings: EncodingSettings | None) -> torch.dtype:
    """bfloat16 in place of float32 where the settings allow it and the hardware multiplies in it.

    The whole model is loaded in it: faster than autocast or than its Linear layers alone, with cosines of 0.9998 at
    least to the float32 vectors of MiniLM (docs/LOG.md).
    """
    allowed = settings is not None and settings.precision == "auto" and spec.dtype == "float32"
    return torch.bfloat16 if allowed and multiplies_in_bfloat16(device) else getattr(torch, spec.dtype)


class SentenceTransformersEncoder:
    """Encodes with a `SentenceTransformer`, as `EncoderSpec` says.

    Args:
        spec: the recipe.
        device: where the model runs, `cpu`, `cuda` or `cuda:N`.
        settings: how to spend the hardware; None computes exactly in the recipe's dtype.

    Raises:
        ValueError: the model cannot be loaded, is narrower than `spec.dim`, lacks the task, or tokenises otherwise
            than its files say.
    """

    def __init__(self, spec: EncoderSpec, device: str = "cpu", settings: EncodingSettings | None = None) -> None:
        from sentence_transformers import SentenceTransformer

        self.spec = spec
        self.device = torch.device(device)
        self.tokenizer = load_tokenizer(spec)
        self.batch_tokens = (settings and settings.batch_tokens) or BATCH_TOKENS[self.device.type]
        try:
            self.model = SentenceTransformer(
                resolve_model(spec.model),
                device=device,
                revision=spec.revision,
                trust_remote_code=spec.trust_remote_code,
                model_kwargs={"dtype": _dtype(spec, device, settings)},
            )
        # A model's own code is written for some version of transformers and may not import with ours.
        except (OSError, ValueError, ImportError, AttributeError) as error:
            raise cannot_be_loaded(spec, error) from error
        native = self.model.get_embedding_dimension()
        if native is not None and native < spec.dim:
            raise ValueError(
                f"encoder.dim is {spec.dim}, but {spec.model} gives {native} dimensions; lower encoder.dim"
            )
        self.arguments = self._task_arguments()
        self.constants = self._compared_tokenisation()
        self.model.eval()
        if settings is not None and settings.compile:
            self.model.compile(dynamic=True)

    def _task_arguments(self) -> dict[str, Any]:
        """What `SentenceTransformer.encode` hands to the forward pass beside the features, once a task is chosen.

        Code of the model's own takes the task in each forward pass; a model of transformers' own has an adapter for
        each task, in a folder of that name, and one is switched on for good.
        """
        from sentence_transformers.base.modules import Router

        task, backbone = self.spec.task, self.model.transformers_model
        if task is None:
            return {}
        if "task" in self.model.get_model_kwargs() or any(isinstance(module, Router) for module in self.model):
            return {"task": task}
        name = re.sub(r"\W", "_", task)  # retrieval.passage lies in retrieval_passage
        try:
            if backbone is None:
                raise ValueError("there is no transformer to adapt")
            adapter = {"subfolder": name, "revision": self.spec.revision}
            backbone.load_adapter(resolve_model(self.spec.model), adapter_name=name, adapter_kwargs=adapter)
            backbone.set_adapter(name)
        except ImportError as error:
            raise ValueError(
                f"encoder.task is {task!r}, and {self.spec.model} takes no task by itself; "
                f"its adapter {name!r} is loaded with peft: run `pip install peft`"
            ) from error
        except (OSError, ValueError) as error:
            raise ValueError(
                f"encoder.task is {task!r}, but {self.spec.model} takes no task and has no adapter {name!r}; remove it"
            ) from error
        return {}

    def _compared_tokenisation(self) -> dict[str, Any]:
        """The features beside ids and mask that the model's own tokenisation makes; compares its ids with ours."""
        if self.spec.max_tokens is not None:
            self.model.max_seq_length = self.tokenizer.max_tokens
        own = dict(self.model.preprocess(PROBES, prompt=self.tokenizer.prompt or None, **self.arguments))
        ids, mask = own.pop("input_ids").numpy(), own.pop("attention_mask").numpy()
        tokens = self.tokenizer(PROBES)
        ours = pad(tokens, np.arange(len(PROBES)), self.tokenizer.pad_id, self.tokenizer.padding_side)
        if not (np.array_equal(ids, ours[0]) and np.array_equal(mask, ours[1])):
            raise ValueError(
                f"encoder.model {self.spec.model!r}: the ids of its tokenizer's files differ from those that the model "
                "makes itself, so its vectors would not be its owner's; embinv cannot encode with it"
            )
        for name, value in own.items():
            if isinstance(value, torch.Tensor) and (name != "token_type_ids" or value.any()):
                raise ValueError(f"encoder.model {self.spec.model!r} takes {name}, which embinv does not know to make")
        return own

    def encode(self, texts: Sequence[str] | np.ndarray) -> np.ndarray:
        """Returns [N, D] float32 vectors; row i belongs to text i, whatever the batch size.

        Raises:
            ValueError: the model gave a vector that is not finite.
        """
        vectors = self.encode_tokens(self.tokenizer(texts))
        finite = np.isfinite(vectors).all(axis=1)
        if not finite.all():
            row = int(np.flatnonzero(~finite)[0])
            raise ValueError(
                f"{self.spec.model} gave a vector with NaN or infinity for text {str(texts[row])!r} (row {row}); "
                "try encoder.dtype: float32"
            )
        return vectors

    @torch.inference_mode()
    def encode_tokens(self, tokens: Tokens) -> np.ndarray:
        """Encodes N texts that `self.tokenizer` has tokenised, here or elsewhere.

        Returns:
            [N, D] float32; a vector that is not finite is left in for the caller to find.
        """
        if len(tokens) == 0:
            return np.zeros((0, self.spec.dim), dtype=np.float32)
        batches = token_batches(tokens.lengths, self.batch_tokens)
        on_gpu = self.device.type == "cuda"
        # In the order of the batches. Pinned, so that copying a result does not wait for the next forward pass.
        found = torch.empty((len(tokens), self.spec.dim), dtype=torch.float32, pin_memory=on_gpu)
        start = 0
        for features in self._prepared(tokens, batches):
            vectors = self.model(features, **self.arguments)["sentence_embedding"]  # [B, native]
            vectors = vectors[:, : self.spec.dim].float()  # [B, D]
            if self.spec.normalized:
                vectors = torch.nn.functional.normalize(vectors, dim=-1)
            found[start : start + len(vectors)].copy_(vectors, non_blocking=True)
            start += len(vectors)
        if on_gpu:
            torch.cuda.synchronize(self.device)
        result = np.empty((len(tokens), self.spec.dim), dtype=np.float32)
        result[np.concatenate(batches)] = found.numpy()
        return result

    def _prepared(self, tokens: Tokens, batches: list[np.ndarray]) -> Iterator[dict[str, Any]]:
        """Features of each batch on the device; on a GPU the next batch is padded and sent while this one runs."""
        if self.device.type != "cuda":
            yield from (self.features(tokens, rows) for rows in batches)
            return
        with ThreadPoolExecutor(1) as ahead:
            following = ahead.submit(self.features, tokens, batches[0])
            for rows in batches[1:]:
                features, following = following.result(), ahead.submit(self.features, tokens, rows)
                yield features
            yield following.result()

    def features(self, tokens: Tokens, rows: np.ndarray) -> dict[str, Any]:
        """One batch as the model's own tokenisation would give it."""
        arrays = pad(tokens, rows, self.tokenizer.pad_id, self.tokenizer.padding_side)
        input_ids, attention_mask = (self._sent(torch.from_numpy(array)) for array in arrays)  # [B, S]
        features = {"input_ids": input_ids, "attention_mask": attention_mask}
        for name, value in self.constants.items():
            features[name] = torch.zeros_like(input_ids) if isinstance(value, torch.Tensor) else value
        return features

    def _sent(self, tensor: torch.Tensor) -> torch.Tensor:
        if self.device.type != "cuda":
            return tensor
        return tensor.pin_memory().to(self.device, non_blocking=True)
