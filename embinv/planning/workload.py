"""What is to be done: a config, how much of it, on what; the numbers that all stages share."""

from dataclasses import dataclass

from embinv.config import Config
from embinv.planning.accelerators import Accelerator
from embinv.planning.assumptions import Assumptions
from embinv.planning.roofline import Efficiency

DAYS = ("expected", "good")
MICRO = 1e-6
UNKNOWN_BATCH = {"cpu": 64, "cuda": 1024}  # texts a step, where training.batch_size is found by trial


@dataclass(frozen=True)
class Workload:
    """A plan's task.

    Attributes:
        config: of the run.
        rows: texts to be encoded.
        vectors: to be inverted.
        gpus: devices of each stage.
        tokens: mean tokens of a text, at most data.seq_len.
        vocabulary: tokens that the inverter knows.
        passes: denoising passes of an inversion.
        steps: of training; None: by epochs, by minutes or by the config.
        epochs: of training; None: see `steps`.
        minutes: of training; None: no bound.
        assumptions: all that is taken for granted.
    """

    config: Config
    rows: int
    vectors: int
    gpus: int
    tokens: float
    vocabulary: int
    passes: int
    assumptions: Assumptions
    steps: int | None = None
    epochs: float | None = None
    minutes: float | None = None

    @property
    def training_rows(self) -> int:
        """Texts of the training split."""
        data = self.config.data
        return round(self.rows * (1 - data.validation - data.test - data.correction))

    @property
    def batch(self) -> int:
        """Texts of an optimizer step."""
        return self.config.training.batch_size or UNKNOWN_BATCH[self.config.training.device]

    @property
    def nodes(self) -> int:
        """Machines."""
        return -(-self.gpus // int(self.assumptions["gpus_per_node"].expected))

    @property
    def training_steps(self) -> int:
        """Optimizer steps, where they do not depend on how fast they are."""
        if self.steps is not None:
            return self.steps
        if self.epochs is not None:
            return round(self.epochs * self.training_rows / self.batch)
        return self.config.training.max_steps

    @property
    def training_minutes(self) -> float | None:
        """The bound on minutes: the command line's, else the config's unless steps or epochs were asked for."""
        if self.minutes is not None:
            return self.minutes
        return None if self.steps is not None or self.epochs is not None else self.config.training.minutes

    def expected(self, name: str) -> float:
        """An assumption's expected value."""
        return self.assumptions[name].expected

    def good(self, name: str) -> float:
        """An assumption's value on a good day."""
        return self.assumptions[name].good

    def kernels(self, day: str, name: str, layers: int, compiled: bool) -> float:
        """Kernels of a forward pass on a day of DAYS; `name` is the assumption of how many a layer has."""
        left = getattr(self.assumptions["compiled_kernels"], day) if compiled else 1.0
        return layers * getattr(self.assumptions[name], day) * left

    def efficiency(self, day: str, mfu: str) -> Efficiency:
        """What is reached of a GPU on a day of DAYS; `mfu` names the assumption."""
        value = {name: getattr(self.assumptions[name], day) for name in (mfu, "bandwidth_share", "kernel_us")}
        return Efficiency(value[mfu], value["bandwidth_share"], value["kernel_us"] * MICRO)


def encoder_precision(config: Config, gpu: Accelerator) -> str:
    """What the encoder multiplies in: the recipe's dtype, or bfloat16 for float32 where encoding.precision allows."""
    dtype = config.encoder.dtype
    if dtype == "float32" and config.encoding.precision == "auto" and gpu.bfloat16 is not None:
        return "bfloat16"
    return dtype


def training_precision(config: Config, gpu: Accelerator) -> str:
    """What training multiplies in, `auto` resolved."""
    asked = config.training.precision
    if asked != "auto":
        return asked
    return "bfloat16-mixed" if gpu.bfloat16 is not None else "float32"


def bytes_of(precision: str) -> int:
    """Bytes of a weight that is kept in `precision`."""
    return {"float32": 4, "bfloat16-mixed": 4, "bfloat16": 2, "float16": 2}[precision]
