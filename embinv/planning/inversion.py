"""How long inverting a dump takes on GPUs: one process reads and checks all vectors, then each GPU decodes a share."""

from embinv.planning.accelerators import Accelerator
from embinv.planning.inverter_size import InverterSize
from embinv.planning.roofline import Pass, bound, pass_seconds
from embinv.planning.stage_plan import Part, StagePlan
from embinv.planning.workload import DAYS, Workload, bytes_of

BATCH = 128  # vectors decoded together, the default of embinv invert
FLOAT32 = 4


def plan_inversion(load: Workload, size: InverterSize, gpu: Accelerator) -> StagePlan:
    """The stage on `load.gpus` GPUs, an inverter on each."""
    precision = "bfloat16" if gpu.bfloat16 is not None else "float32"
    passes = size.passes(load.passes)

    def work(day: str) -> Pass:
        return Pass(
            flops=BATCH * size.writing_flops(load.passes),
            weight_bytes=passes * bytes_of(precision) * size.parameters,
            kernels=passes * load.kernels(day, "inverter_kernels", size.layers, compiled=False),
            precision=precision,
        )

    expected, good = (pass_seconds(work(day), gpu, load.efficiency(day, "invert_mfu")) for day in DAYS)
    share = load.vectors / BATCH / load.gpus
    numbers = load.vectors * FLOAT32 * load.config.encoder.dim
    return StagePlan(
        name="invert",
        units=load.vectors,
        unit="vectors",
        gpus=load.gpus,
        parts=(
            Part("start", load.expected("invert_start"), load.good("invert_start"), "Ray, libraries, checkpoint"),
            Part(
                "read and check",
                numbers / (load.expected("inspect_mb") * 1e6),
                numbers / (load.good("inspect_mb") * 1e6),
                f"{numbers / 1e9:,.1f} GB of vectors in one process",
            ),
            Part(
                "decode",
                share * max(expected.values()),
                share * max(good.values()),
                f"{size.writing_flops(load.passes) / 1e9:,.1f} GFLOP a text in {passes} passes in {precision}, batches "
                f"of {BATCH}; {bound(expected)}",
            ),
        ),
        limit=bound(expected),
    )
