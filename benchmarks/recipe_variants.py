"""What is compared: a base, and variants that each change one thing of it.

The base is written out in full, so that the comparison stays what it was when a winner becomes the default.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

from torch import nn

from benchmarks.recipe_parts import (
    Objective,
    SelfConditionedMDLM,
    UngatedMDLM,
    decode_as_it_is,
    decode_with_memory,
    product_objective,
    reference_objective,
)
from embinv.decoding.base import Denoiser
from embinv.models.mdlm import ConditionalMDLM
from embinv.models.settings import MDLMConfig

BASE = "base"
COMBINED = "combined"
SETTINGS = (
    *("model.size=small", "model.adaln=true", "model.pseudo_tokens=8", "model.rope=true", "model.qk_norm=true"),
    *("model.tied_head=true", "model.trim_vocabulary=true", "model.dropout=0.0"),
    *("training.batch_size=32", "training.gradient_accumulation=1", "training.gradient_clipping=1.0"),
    *("training.times=low-discrepancy", "training.loss_weight=uniform", "training.embedding_noise=0.0"),
    *("training.optimizer=muon", "training.learning_rate=0.002", "training.muon_learning_rate=0.01"),
    *("training.weight_decay=0.01", "training.beta1=0.9", "training.beta2=0.98"),
    *("training.schedule=trapezoid", "training.warmup=0.02", "training.decay=0.4"),
    *("training.ema_decay=0.99", "training.ema_share=0.1", "training.precision=auto"),
)
"""The base's settings, on top of configs/minilm.yaml: what a run of ten minutes on two cores is started with."""

FREE = {
    f"training.{name}"
    for name in (
        *("learning_rate", "muon_learning_rate", "loss_weight", "times", "embedding_noise"),
        *("schedule", "warmup", "decay", "ema_decay", "ema_share"),
    )
}
"""Settings that cannot change what a step costs."""


@dataclass(frozen=True)
class Variant:
    """One way to train.

    Attributes:
        name: of the variant and of its result files.
        group: what it is compared within.
        overrides: `section.key=value`, on top of the base.
        model: makes the model.
        objective: makes the loss of a batch.
        generation: makes the denoiser of one batch's generation.
    """

    name: str
    group: str
    overrides: tuple[str, ...] = ()
    model: Callable[[MDLMConfig], ConditionalMDLM] = ConditionalMDLM
    objective: Objective = product_objective
    generation: Callable[[nn.Module], Denoiser] = decode_as_it_is

    @property
    def parts(self) -> tuple[str, ...]:
        """Names of what is no setting of the product."""
        return tuple(getattr(self, name).__name__ for name in _own_parts(self))

    @property
    def cost_key(self) -> str:
        """Equal for variants whose steps cost the same."""
        costly = sorted(part for part in self.overrides if part.partition("=")[0] not in FREE)
        return " ".join([*costly, *self.parts]) or BASE


def _own_parts(variant: Variant) -> list[str]:
    """The fields among model, objective and generation that are not the product's."""
    defaults = {field.name: field.default for field in fields(Variant)}
    return [name for name in ("model", "objective", "generation") if getattr(variant, name) is not defaults[name]]


def combine(name: str, variants: Sequence[Variant]) -> Variant:
    """A variant that changes all that the given ones change; of two values of one setting the later counts.

    Raises:
        ValueError: two of them bring a model, an objective or a way to generate of their own.
    """
    settings: dict[str, str] = {}
    parts: dict[str, Callable] = {}
    for variant in variants:
        settings |= dict(override.split("=", 1) for override in variant.overrides)
        for part in _own_parts(variant):
            if parts.setdefault(part, getattr(variant, part)) is not getattr(variant, part):
                raise ValueError(f"--combine {name}: {variant.name} and another one each bring a {part} of their own")
    return Variant(name, COMBINED, tuple("=".join(item) for item in settings.items()), **parts)


def _training(group: str, name: str, **settings: object) -> Variant:
    return Variant(name, group, tuple(f"training.{key}={value}" for key, value in settings.items()))


def _model(group: str, name: str, **settings: object) -> Variant:
    return Variant(name, group, tuple(f"model.{key}={value}" for key, value in settings.items()))


def _ungated(name: str, *overrides: str) -> Variant:
    return Variant(name, "conditioning", overrides, model=UngatedMDLM)


_MASK, _WEIGHT, _CONDITION, _ATTENTION = "mask schedule", "loss weight", "conditioning", "attention"
_RATE, _ADAMW, _SCHEDULE, _EMA = "muon rates", "adamw", "schedule", "ema"
_HEAD, _FEEDBACK, _NOISE, _BATCH = "head", "self-conditioning", "regularisation", "batch"
_LONG = 0.9999  # an EMA decay that no run of minutes reaches, so that the share alone counts

VARIANTS = (
    Variant(BASE, BASE),
    Variant("mask-reference", _MASK, objective=reference_objective),
    _training(_MASK, "times-uniform", times="uniform"),
    _training(_WEIGHT, "weight-nelbo", loss_weight="nelbo"),
    _training(_WEIGHT, "weight-clipped", loss_weight="clipped"),
    _model(_CONDITION, "unconditioned", adaln="false", pseudo_tokens=0),
    _model(_CONDITION, "adaln-only", pseudo_tokens=0),
    _model(_CONDITION, "pseudo-tokens-only-4", adaln="false", pseudo_tokens=4),
    _model(_CONDITION, "pseudo-tokens-only", adaln="false"),
    _model(_CONDITION, "pseudo-tokens-only-16", adaln="false", pseudo_tokens=16),
    _model(_CONDITION, "pseudo-tokens-4", pseudo_tokens=4),
    _model(_CONDITION, "pseudo-tokens-16", pseudo_tokens=16),
    _ungated("adaln-ungated"),
    _ungated("adaln-ungated-only", "model.pseudo_tokens=0"),
    _model(_ATTENTION, "rope-off", rope="false"),
    _model(_ATTENTION, "qk-norm-off", qk_norm="false"),
    _training(_RATE, "muon-0.005", muon_learning_rate=0.005),
    _training(_RATE, "muon-0.02", muon_learning_rate=0.02),
    _training(_RATE, "muon-0.04", muon_learning_rate=0.04),
    _training(_RATE, "muon-others-0.001", learning_rate=0.001),
    _training(_RATE, "muon-others-0.004", learning_rate=0.004),
    _training(_RATE, "muon-others-0.008", learning_rate=0.008),
    _training(_ADAMW, "adamw-0.0005", optimizer="adamw", learning_rate=0.0005),
    _training(_ADAMW, "adamw-0.001", optimizer="adamw", learning_rate=0.001),
    _training(_ADAMW, "adamw-0.002", optimizer="adamw", learning_rate=0.002),
    _training(_ADAMW, "adamw-0.004", optimizer="adamw", learning_rate=0.004),
    _training(_SCHEDULE, "decay-0.2", decay=0.2),
    _training(_SCHEDULE, "decay-0.7", decay=0.7),
    _training(_SCHEDULE, "cosine", schedule="cosine"),
    _training(_SCHEDULE, "warmup-0.0", warmup=0.0),
    _training(_SCHEDULE, "warmup-0.05", warmup=0.05),
    _training(_EMA, "ema-off", ema_decay=0.0),  # the average is the weights themselves
    _training(_EMA, "ema-share-0.03", ema_decay=_LONG, ema_share=0.03),
    _training(_EMA, "ema-share-0.1", ema_decay=_LONG, ema_share=0.1),
    _training(_EMA, "ema-share-0.3", ema_decay=_LONG, ema_share=0.3),
    _training(_EMA, "ema-0.999", ema_decay=0.999, ema_share=1.0),
    _training(_EMA, "ema-0.9999", ema_decay=0.9999, ema_share=1.0),
    _model(_HEAD, "head-untied", tied_head="false"),
    Variant("self-conditioning", _FEEDBACK, model=SelfConditionedMDLM, generation=decode_with_memory),
    _training(_NOISE, "noise-0.05", embedding_noise=0.05),
    _training(_NOISE, "noise-0.1", embedding_noise=0.1),
    _training(_NOISE, "noise-0.2", embedding_noise=0.2),
    _model(_NOISE, "dropout-0.1", dropout=0.1),
    _training(_BATCH, "batch-16", batch_size=16),
    _training(_BATCH, "batch-64", batch_size=64),
    _training(_BATCH, "batch-128", batch_size=128),
    _training(_BATCH, "batch-256", batch_size=256),
    _training(_BATCH, "batch-128-rates-x2", batch_size=128, learning_rate=0.004, muon_learning_rate=0.02),
)


def choose(wanted: Sequence[str], combined: Sequence[Sequence[str]] = ()) -> list[Variant]:
    """The base, then the variants asked for by group or name, then those that are combined.

    Args:
        wanted: groups and names; empty means all variants, or none beside the base where some are combined.
        combined: of each a name, and the names of what it combines.

    Raises:
        ValueError: a name is unknown or taken.
    """
    by_name = {variant.name: variant for variant in VARIANTS}
    groups = {variant.group for variant in VARIANTS}
    unknown = [name for name in wanted if name not in by_name and name not in groups]
    if unknown:
        raise ValueError(f"--only {unknown[0]!r}: no such group or variant; --list shows them")
    every = not wanted and not combined
    chosen = [v for v in VARIANTS if every or v.name == BASE or v.name in wanted or v.group in wanted]
    for name, *names in combined:
        missing = [part for part in names if part not in by_name]
        if name in by_name or missing or not names:
            raise ValueError(
                f"--combine {name}: "
                + (f"no variant {missing[0]!r}; --list shows them" if missing else "give a new name, then variants")
            )
        chosen.append(combine(name, [by_name[part] for part in names]))
    return chosen
