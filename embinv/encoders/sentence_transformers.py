"""Encoders of the sentence-transformers family, run exactly as their owners run them.

The model's own modules do the pooling, Dense layers and normalisation; this adapter adds only what the recipe
says (prompt, task, Matryoshka truncation and renormalisation, dtype) and orders texts by length so that a batch
holds little padding. It does not download by itself: a hub id goes through huggingface_hub's cache.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from embinv.encoders.spec import EncoderSpec, resolve_model


class SentenceTransformersEncoder:
    """Encodes with a `SentenceTransformer`, as `EncoderSpec` says.

    Args:
        spec: the recipe.
        device: where the model runs.
        batch_size: texts in one forward pass.

    Raises:
        ValueError: the model cannot be loaded, or is narrower than `spec.dim`.
    """

    def __init__(self, spec: EncoderSpec, device: str = "cpu", batch_size: int = 64) -> None:
        from sentence_transformers import SentenceTransformer

        self.spec = spec
        self.batch_size = batch_size
        model_kwargs = {"torch_dtype": getattr(torch, spec.dtype)}
        folder = resolve_model(spec.model)
        try:
            self.model = SentenceTransformer(
                folder,
                device=device,
                revision=spec.revision,
                trust_remote_code=spec.trust_remote_code,
                model_kwargs=model_kwargs,
            )
        except (OSError, ValueError) as error:
            reason = " ".join(str(error).split())
            raise ValueError(
                f"encoder.model {spec.model!r} cannot be loaded: {reason}. Give a hub id that this machine can reach "
                "(log in with `hf auth login` for gated models), a folder, or pkg://package/path"
            ) from error
        if spec.max_tokens is not None:
            self.model.max_seq_length = spec.max_tokens
        native = self.model.get_embedding_dimension()
        if native is not None and native < spec.dim:
            raise ValueError(
                f"encoder.dim is {spec.dim}, but {spec.model} gives {native} dimensions; lower encoder.dim"
            )
        self.model.eval()

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Returns [N, D] float32 vectors; row i belongs to text i, whatever the batch size.

        Raises:
            ValueError: the model gave a vector that is not finite.
        """
        if not texts:
            return np.zeros((0, self.spec.dim), dtype=np.float32)
        # sentence-transformers sorts by length itself; sorting here keeps that true of any version.
        order = sorted(range(len(texts)), key=lambda i: -len(texts[i]))
        extra: dict[str, Any] = {} if self.spec.task is None else {"task": self.spec.task}
        vectors = self.model.encode(
            [texts[i] for i in order],
            batch_size=self.batch_size,
            prompt=self.spec.prompt,
            convert_to_numpy=False,
            convert_to_tensor=True,
            show_progress_bar=False,
            **extra,
        )
        result = torch.empty((len(texts), self.spec.dim), dtype=torch.float32)
        result[order] = vectors[:, : self.spec.dim].float().cpu()
        if self.spec.normalized:
            result = torch.nn.functional.normalize(result, dim=-1)
        if not torch.isfinite(result).all():
            bad = int((~torch.isfinite(result).all(dim=1)).nonzero()[0])
            raise ValueError(
                f"{self.spec.model} gave a vector with NaN or infinity for text {texts[bad]!r}; "
                "try encoder.dtype: float32"
            )
        return result.numpy()
