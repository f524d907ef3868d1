"""A whole plan: each stage by a measurement if there is one, else by the roofline; what goes to disk; what it costs."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from embinv.config import Config
from embinv.encoders.spec import resolve_model
from embinv.planning.accelerators import CPU, Accelerator, accelerator
from embinv.planning.encoder_size import encoder_size
from embinv.planning.encoding import plan_encoding
from embinv.planning.inversion import plan_inversion
from embinv.planning.inverter_size import InverterSize, inverter_size
from embinv.planning.runs import settings_of
from embinv.planning.stage_plan import StagePlan
from embinv.planning.storage import Item, corpus_and_pairs, recovered, training_state
from embinv.planning.throughput import UNTOLD, Throughput, per_unit_on, plan_measured, require_applies
from embinv.planning.training import plan_training, resolved_settings, training_memory
from embinv.planning.workload import Workload


@dataclass(frozen=True)
class Plan:
    """Stages one after another.

    Attributes:
        stages: as asked for.
        storage: what lies on disk in the end or meanwhile.
        memory: what training holds on each GPU; empty where nobody knows the GPU.
        price: of an hour of a GPU; None if it is not known.
        disk: bytes that are free for it; None if nobody asked.
    """

    stages: tuple[StagePlan, ...]
    storage: tuple[Item, ...]
    memory: tuple[Item, ...]
    price: float | None = None
    disk: float | None = None

    @property
    def seconds(self) -> float:
        """Expected, of all stages."""
        return sum(stage.seconds for stage in self.stages)

    @property
    def good_seconds(self) -> float:
        """On a good day."""
        return sum(stage.good_seconds for stage in self.stages)

    @property
    def gpu_hours(self) -> float:
        """Expected, of all stages and devices."""
        return sum(stage.gpu_hours for stage in self.stages)

    @property
    def cost(self) -> float | None:
        """Expected, in the price's currency."""
        return None if self.price is None else self.gpu_hours * self.price

    @property
    def stored(self) -> float:
        """Bytes on disk."""
        return sum(item.size for item in self.storage)

    @property
    def warnings(self) -> tuple[str, ...]:
        """Of all stages, and of the disk."""
        found = [warning for stage in self.stages for warning in stage.warnings]
        if self.disk is not None and self.stored > self.disk:
            found.append(
                f"disk: {self.stored / 1e9:,.1f} GB are needed and {self.disk / 1e9:,.1f} GB are free; lower --rows, "
                "or put pairs and runs on a larger disk"
            )
        return tuple(found)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "stages": [
                stage.to_dict() | {"cost": None if self.price is None else stage.cost(self.price)}
                for stage in self.stages
            ],
            "seconds": self.seconds,
            "good_seconds": self.good_seconds,
            "gpu_hours": self.gpu_hours,
            "price": self.price,
            "cost": self.cost,
            "storage": [asdict(item) for item in self.storage],
            "storage_bytes": self.stored,
            "memory": [asdict(item) for item in self.memory],
            "warnings": list(self.warnings),
        }


def known_vocabulary(config: Config) -> int:
    """Tokens of the decoder's tokenizer, as far as that can be said without downloading it.

    Raises:
        ValueError: it cannot.
    """
    if Path(resolve_model(config.tokenizer)).is_dir():
        return config.open_tokenizer().vocab_size
    if config.data.tokenizer is None and config.model.backbone is None:
        return encoder_size(config.encoder).vocabulary
    raise ValueError(
        f"the tokenizer {config.tokenizer!r} is not at hand, so nobody knows how many tokens it has; give "
        "--vocabulary N"
    )


def make_plan(
    load: Workload,
    gpu: str,
    stages: tuple[str, ...],
    measured: Mapping[str, tuple[Throughput, str]],
    price: float | None = None,
    disk: float | None = None,
) -> Plan:
    """Plans some stages.

    Args:
        load: what is to be done.
        gpu: a name of ACCELERATORS, or CPU.
        stages: of STAGES, in order.
        measured: by stage, and the flag that it came by; what is not in it is worked out from the data sheet.
        price: of an hour of a GPU, or of the machine.
        disk: bytes that are free for it.

    Raises:
        ValueError: the GPU is not known; a stage on a CPU was not measured; a measurement is of something else.
    """
    sheet = None if gpu == CPU else accelerator(gpu)
    if "train" in measured:
        load = _at_the_measured_batch(load, measured["train"][0])
    settings = load.config.model_dump(mode="json")
    for stage, (throughput, flag) in measured.items():
        require_applies(throughput, gpu, {"passes": load.passes} | settings_of(stage, settings), flag)
    inverter = inverter_size(load.config, load.vocabulary) if {"train", "invert"} & set(stages) else None
    found = tuple(_stage(stage, load, gpu, sheet, inverter, measured.get(stage)) for stage in stages)
    return Plan(found, _storage(load, stages, inverter), _memory(load, stages, sheet, inverter), price, disk)


def _stage(
    stage: str,
    load: Workload,
    gpu: str,
    sheet: Accelerator | None,
    inverter: InverterSize | None,
    measured: tuple[Throughput, str] | None,
) -> StagePlan:
    if measured is not None:
        throughput, flag = measured
        return replace(_by_measurement(stage, load, throughput), warnings=_taken_on_trust(throughput, gpu, flag))
    if sheet is None:
        raise ValueError(
            f"--gpu {CPU}: what a CPU does at {stage} has to be measured; add --measure, or --from with the folder of "
            f"a finished run, or --measured FILE, or leave it out with --stages"
        )
    if stage == "encode":
        return plan_encoding(load, encoder_size(load.config.encoder), sheet)
    assert inverter is not None
    return plan_training(load, inverter, sheet) if stage == "train" else plan_inversion(load, inverter, sheet)


def _at_the_measured_batch(load: Workload, measured: Throughput) -> Workload:
    """With the batch that a training was measured at, where the config leaves it to be found by trial."""
    batch = (measured.of or {}).get("training.batch_size")
    if load.config.training.batch_size is not None or not isinstance(batch, int) or batch < 1:
        return load
    training = load.config.training.model_copy(update={"batch_size": batch})
    return replace(load, config=load.config.model_copy(update={"training": training}))


def _taken_on_trust(measured: Throughput, gpu: str, flag: str) -> tuple[str, ...]:
    """What a record leaves open, and how it is taken."""
    if measured.gpu == UNTOLD:
        return (
            f"{measured.stage}: the record of {flag} names neither GPUs nor the inverter's size; it is taken for a run "
            f"on 1 x {gpu} of the config's model. If it was another, the plan is wrong; --measure makes sure",
        )
    if measured.gpu != gpu:
        return (
            f"{measured.stage}: the record of {flag} does not name the kind of GPU; it is taken for "
            f"{measured.devices} x {gpu}",
        )
    return ()


def _by_measurement(stage: str, load: Workload, throughput: Throughput) -> StagePlan:
    gpus, assumptions = load.gpus, load.assumptions
    if stage == "encode":
        return plan_measured(stage, load.rows, "texts", throughput, gpus, assumptions)
    if stage == "invert":
        return plan_measured(stage, load.vectors, "vectors", throughput, gpus, assumptions)
    validations, notes = load.config.training.validations, []
    steps, minutes = load.training_steps, load.training_minutes
    if minutes is not None:
        left = max(0.0, 60 * minutes - validations * throughput.per_validation)
        each = load.batch * per_unit_on(throughput, gpus, assumptions)
        within = int(left / each) if each else steps
        if within < steps:
            notes.append(f"{minutes:g} minutes end it after about {within:,} of {steps:,} steps")
            steps = within
    notes.append(f"{steps:,} steps of {load.batch:,} texts")
    units = steps * load.batch
    return plan_measured(stage, units, "texts", throughput, gpus, assumptions, validations, tuple(notes))


def _storage(load: Workload, stages: tuple[str, ...], inverter: InverterSize | None) -> tuple[Item, ...]:
    data, found = load.config.data, []
    if "encode" in stages:
        found += corpus_and_pairs(load.rows, data.seq_len, load.config.encoder.dim, load.tokens, load.assumptions)
    if "train" in stages:
        assert inverter is not None
        settings = load.config.training
        low = settings.model_copy(update={"precision": "float32"}) if settings.precision == "auto" else settings
        found += training_state(inverter, low)
    if "invert" in stages:
        found.append(recovered(load.vectors, load.tokens, load.assumptions))
    return tuple(found)


def _memory(
    load: Workload, stages: tuple[str, ...], sheet: Accelerator | None, inverter: InverterSize | None
) -> tuple[Item, ...]:
    if sheet is None or "train" not in stages:
        return ()
    assert inverter is not None
    settings = resolved_settings(load, sheet)
    state, kept = training_memory(load, inverter, settings)
    stage = f"ZeRO-{settings.zero_stage}, {settings.precision}"
    texts = -(-load.batch // (load.gpus * settings.gradient_accumulation))
    return (
        Item("weights", state.weights, stage),
        Item("gradients", state.gradients, stage),
        Item("optimizer", state.optimizer, f"{stage}, {settings.optimizer}"),
        Item("moving average", state.average, "float32, whole on every GPU"),
        Item("activations", kept, f"{texts:,} texts a pass"),
    )
