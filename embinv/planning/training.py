"""How long training takes on GPUs, and whether it fits into their memory.

A step is its passes, the exchange of gradients, and the optimizer; to the steps come validations and saves.
"""

from embinv.planning.accelerators import Accelerator
from embinv.planning.inverter_size import InverterSize
from embinv.planning.roofline import WEIGHT_READS, Pass, bound, exchange_seconds, pass_seconds
from embinv.planning.stage_plan import Part, StagePlan
from embinv.planning.workload import DAYS, Workload, bytes_of, training_precision
from embinv.planning.zero import FLOAT32, StateBytes, Weights, activation_bytes, save_bytes, sent_bytes, state_bytes
from embinv.training.settings import TrainingSettings

GBIT = 1e9 / 8  # bytes
STEP_READS = 10  # float32 numbers a weight that AdamW and the moving average read and write in a step
FURTHER_PASSES = 6  # of a validation beside those that write: likelihoods, and texts with gaps
MEMORY = 0.8  # share of a GPU that training may take (jobs/batch_size.py)


def resolved_settings(load: Workload, gpu: Accelerator) -> TrainingSettings:
    """The config's settings as they come out on these GPUs."""
    changed = {"precision": training_precision(load.config, gpu), "workers": load.gpus, "batch_size": load.batch}
    return load.config.training.model_copy(update=changed)


def plan_training(load: Workload, size: InverterSize, gpu: Accelerator) -> StagePlan:
    """The stage on `load.gpus` GPUs, a worker on each."""
    settings = resolved_settings(load, gpu)
    steps, per_step = load.training_steps, _step(load, size, gpu, settings)
    each = sum(part.expected for part in per_step)
    minutes, notes = load.training_minutes, []
    validation, save = _validation(load, size, gpu, settings), save_part(load, size, settings)
    if minutes is not None:
        left = max(0.0, 60 * minutes - settings.validations * validation.expected)
        within = int(left / each)
        if within < steps:
            notes.append(f"{minutes:g} minutes end it after about {within:,} of {steps:,} steps")
            steps = within
    epochs = steps * load.batch / max(1, load.training_rows)
    notes.append(
        f"inverter: {size.parameters / 1e6:,.0f} million weights with {size.vocabulary:,} tokens; {steps:,} steps of "
        f"{load.batch:,} texts, {epochs:.1f} epochs of {load.training_rows:,}"
    )
    if load.config.training.batch_size is None:
        notes.append(f"training.batch_size is found by trial: {load.batch:,} is a guess; --set training.batch_size=N")
    parts = [
        Part("start", load.expected("train_start"), load.good("train_start"), "Ray, libraries, pairs into memory"),
        *(Part(each.name, steps * each.expected, steps * each.good, each.note) for each in per_step),
        Part(
            "validate",
            settings.validations * validation.expected,
            settings.validations * validation.good,
            f"{settings.validations} times {validation.note}",
        ),
        Part("save", settings.validations * save.expected, settings.validations * save.good, save.note),
    ]
    return StagePlan(
        name="train",
        units=steps * load.batch,
        unit="texts",
        gpus=load.gpus,
        parts=tuple(parts),
        limit=max(per_step, key=lambda part: part.expected).name,
        notes=tuple(notes),
        warnings=_warnings(load, size, gpu, settings),
    )


def _step(load: Workload, size: InverterSize, gpu: Accelerator, settings: TrainingSettings) -> list[Part]:
    """Seconds of one optimizer step, by part."""
    passes = settings.gradient_accumulation
    micro = load.batch / (load.gpus * passes)
    weights = Weights(size.parameters, size.matrices)

    def work(day: str) -> Pass:
        return Pass(
            flops=micro * size.training_flops,
            weight_bytes=WEIGHT_READS["training"] * bytes_of(settings.precision) * size.parameters,
            kernels=3 * load.kernels(day, "inverter_kernels", size.layers, settings.compiles),
            precision=settings.precision,
        )

    expected, good = (pass_seconds(work(day), gpu, load.efficiency(day, "train_mfu")) for day in DAYS)
    sent = sent_bytes(weights, settings, load.gpus)
    return [
        Part(
            "passes",
            passes * max(expected.values()),
            passes * max(good.values()),
            f"{size.training_flops / 1e9:,.1f} GFLOP a text in {settings.precision}; {bound(expected)}",
        ),
        Part(
            "exchange",
            _exchange(load, gpu, sent, "expected"),
            _exchange(load, gpu, sent, "good"),
            f"{sent / 1e9:.2f} GB a step and GPU, ZeRO-{settings.zero_stage}",
        ),
        Part(
            "optimizer",
            _optimizer(load, size, gpu, settings, "expected"),
            _optimizer(load, size, gpu, settings, "good"),
            settings.optimizer,
        ),
    ]


def _exchange(load: Workload, gpu: Accelerator, sent: float, day: str) -> float:
    value = {name: getattr(each, day) for name, each in load.assumptions.items()}
    return exchange_seconds(
        sent,
        load.gpus,
        int(load.expected("gpus_per_node")),
        gpu.link_bytes_per_second,
        value["network_gbit"] * GBIT,
        value["link_share"],
        value["overlap"],
    )


def _optimizer(load: Workload, size: InverterSize, gpu: Accelerator, settings: TrainingSettings, day: str) -> float:
    """Muon's products, shared out among the workers, and reading and writing what AdamW and the average hold."""
    efficiency = load.efficiency(day, "train_mfu")
    moved = (1 / load.gpus if settings.zero_stage else 1.0) * STEP_READS * FLOAT32 * size.parameters
    products = size.muon_flops / load.gpus / (gpu.peak("bfloat16") * efficiency.mfu)
    return products + moved / (gpu.memory_bytes_per_second * efficiency.bandwidth)


def _validation(load: Workload, size: InverterSize, gpu: Accelerator, settings: TrainingSettings) -> Part:
    """One validation, shared out among the workers."""
    passes = size.passes(settings.validation_steps) + FURTHER_PASSES
    rows = settings.validation_rows / load.gpus

    def work(day: str) -> Pass:
        return Pass(
            flops=rows * (size.writing_flops(settings.validation_steps) + FURTHER_PASSES * size.training_flops / 3),
            weight_bytes=passes * FLOAT32 * size.parameters,
            kernels=passes * load.kernels(day, "inverter_kernels", size.layers, compiled=False),
            precision=settings.precision,
        )

    expected, good = (max(pass_seconds(work(day), gpu, load.efficiency(day, "invert_mfu")).values()) for day in DAYS)
    return Part("validate", expected, good, f"{settings.validation_rows:,} texts in {settings.validation_steps} passes")


def save_part(load: Workload, size: InverterSize, settings: TrainingSettings) -> Part:
    """One save and the checkpoints beside it."""
    state = save_bytes(Weights(size.parameters, size.matrices), settings)
    written = state + 2 * FLOAT32 * size.parameters
    expected, good = (written / (getattr(load.assumptions["storage_mb"], day) * 1e6) for day in DAYS)
    return Part("save", expected, good, f"{written / 1e9:.2f} GB each")


def training_memory(load: Workload, size: InverterSize, settings: TrainingSettings) -> tuple[StateBytes, float]:
    """Bytes that a GPU holds: the state, and the activations of a pass."""
    low = settings.precision.startswith("bfloat16")
    texts = -(-load.batch // (load.gpus * settings.gradient_accumulation))
    state = state_bytes(Weights(size.parameters, size.matrices), settings, load.gpus)
    checkpointed = settings.activation_checkpointing
    kept = activation_bytes(size.positions, size.hidden, size.layers, texts, checkpointed, low)
    return state, kept


def _warnings(load: Workload, size: InverterSize, gpu: Accelerator, settings: TrainingSettings) -> tuple[str, ...]:
    found = []
    low = settings.precision.startswith("bfloat16")
    state, kept = training_memory(load, size, settings)
    if state.total + kept > MEMORY * gpu.memory_bytes:
        found.append(
            f"train: about {(state.total + kept) / 1e9:.0f} GB a GPU (state {state.total / 1e9:.1f}, activations "
            f"{kept / 1e9:.1f}), and a {gpu.name} has {gpu.memory_bytes / 1e9:.0f} GB; raise "
            "training.gradient_accumulation, set training.activation_checkpointing true, or a zero_stage with adamw"
        )
    per_pass = load.gpus * settings.gradient_accumulation
    if load.config.training.batch_size is not None and load.batch % per_pass:
        found.append(
            f"train: training.batch_size ({load.batch:,}) is no multiple of {load.gpus} workers x "
            f"{settings.gradient_accumulation} passes, which jobs/train.py refuses; set it to {per_pass} or a multiple"
        )
    if low and gpu.bfloat16 is None:
        found.append(f"train: a {gpu.name} has no bfloat16; set training.precision float32")
    if load.training_rows < load.batch and load.rows:
        found.append(
            f"train: {load.training_rows:,} training texts do not fill a step of {load.batch:,}; lower the batch"
        )
    return tuple(found)
