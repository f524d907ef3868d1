"""What a GPU can do at most, by its maker's data sheet: arithmetic, memory and links.

The peaks in bfloat16 are those of `embinv.training.flops`, which measures utilisation against them; here stand memory,
bandwidth and float32 beside them, and the two GPUs before bfloat16. What share of a peak a program reaches is no
matter of a data sheet: that is `embinv.planning.assumptions`.
"""

import re
from dataclasses import dataclass
from difflib import get_close_matches

from embinv.training.flops import DATA_SHEET_PEAKS

GB, TERA = 1e9, 1e12
VARIANTS = ("pcie", "nvl")  # at the end of a name; without one it is the SXM module, or the only kind there is
MEMORY_OFF = 0.15  # of a sheet's memory: 80 GB may mean GiB, and drivers and error correction keep some
CPU = "cpu"
"""A machine without GPUs; it has no data sheet here, so what it can do must be measured."""


@dataclass(frozen=True)
class Accelerator:
    """One GPU.

    Attributes:
        name: for a command line, such as a100-40g.
        sheet: title of the data sheet.
        bfloat16: dense FLOP/s on tensor cores, a multiply-add counting twice; None for a GPU that has it not.
        float16: the same in float16.
        float32: the same outside of tensor cores, which is what PyTorch does with float32 by default.
        memory_bytes: of its own.
        memory_bytes_per_second: to and from that memory.
        link_bytes_per_second: to its neighbours in a node, one way.
    """

    name: str
    sheet: str
    bfloat16: float | None
    float16: float
    float32: float
    memory_bytes: float
    memory_bytes_per_second: float
    link_bytes_per_second: float

    def peak(self, precision: str) -> float:
        """FLOP/s in what `precision` is multiplied in on it: float32, float16, bfloat16 or bfloat16-mixed.

        A GPU without bfloat16 does that work in float32.
        """
        if precision == "float16":
            return self.float16
        if precision.startswith("bfloat16") and self.bfloat16 is not None:
            return self.bfloat16
        return self.float32


NVLINK_2, NVLINK_3, NVLINK_4, NVLINK_5 = 150 * GB, 300 * GB, 450 * GB, 900 * GB  # one way; sheets give both together
PCIE_3, PCIE_4, PCIE_5 = 16 * GB, 32 * GB, 64 * GB  # one way, 16 lanes


def _with_bfloat16(
    name: str, model: str, sheet: str, float32: float, memory: float, bandwidth: float, link: float
) -> Accelerator:
    """A GPU of DATA_SHEET_PEAKS; float32 in TFLOP/s, memory in GB, bandwidth in GB/s."""
    peak = DATA_SHEET_PEAKS[model]
    return Accelerator(name, sheet, peak, peak, float32 * TERA, memory * GB, bandwidth * GB, link)


_ALL = (
    _with_bfloat16("a10", "A10", "NVIDIA A10 Tensor Core GPU", 31.2, 24, 600, PCIE_4),
    Accelerator(
        "a10g",
        "NVIDIA A10G of AWS, as quoted in baseten.co, NVIDIA A10 vs A10G: half of an A10's tensor cores",
        70 * TERA,
        70 * TERA,
        35 * TERA,
        24 * GB,
        600 * GB,
        PCIE_4,
    ),
    _with_bfloat16("a30", "A30", "NVIDIA A30 Tensor Core GPU", 10.3, 24, 933, PCIE_4),
    _with_bfloat16("a40", "A40", "NVIDIA A40 GPU accelerator", 37.4, 48, 696, PCIE_4),
    _with_bfloat16("a100-40g", "A100", "NVIDIA A100 Tensor Core GPU, 40GB SXM", 19.5, 40, 1555, NVLINK_3),
    _with_bfloat16("a100-40g-pcie", "A100", "NVIDIA A100 Tensor Core GPU, 40GB PCIe", 19.5, 40, 1555, PCIE_4),
    _with_bfloat16("a100-80g", "A100", "NVIDIA A100 Tensor Core GPU, 80GB SXM", 19.5, 80, 2039, NVLINK_3),
    _with_bfloat16("a100-80g-pcie", "A100", "NVIDIA A100 Tensor Core GPU, 80GB PCIe", 19.5, 80, 1935, PCIE_4),
    _with_bfloat16("l4", "L4", "NVIDIA L4 Tensor Core GPU", 30.3, 24, 300, PCIE_4),
    _with_bfloat16("l40", "L40", "NVIDIA L40 GPU", 90.5, 48, 864, PCIE_4),
    _with_bfloat16("l40s", "L40S", "NVIDIA L40S GPU", 91.6, 48, 864, PCIE_4),
    _with_bfloat16("h100", "H100", "NVIDIA H100 Tensor Core GPU, SXM", 67, 80, 3350, NVLINK_4),
    _with_bfloat16("h100-pcie", "H100 PCIe", "NVIDIA H100 Tensor Core GPU, PCIe", 51, 80, 2000, PCIE_5),
    _with_bfloat16("h100-nvl", "H100 NVL", "NVIDIA H100 Tensor Core GPU, NVL", 60, 94, 3900, PCIE_5),
    _with_bfloat16("h200", "H200", "NVIDIA H200 Tensor Core GPU, SXM", 67, 141, 4800, NVLINK_4),
    _with_bfloat16("h200-nvl", "H200 NVL", "NVIDIA H200 Tensor Core GPU, NVL", 60, 141, 4800, PCIE_5),
    _with_bfloat16("b200", "B200", "NVIDIA DGX B200", 75, 180, 8000, NVLINK_5),
    Accelerator("t4", "NVIDIA T4", None, 65 * TERA, 8.1 * TERA, 16 * GB, 300 * GB, PCIE_3),
    Accelerator(
        "v100-16g", "NVIDIA V100 Tensor Core GPU, SXM2", None, 125 * TERA, 15.7 * TERA, 16 * GB, 900 * GB, NVLINK_2
    ),
    Accelerator(
        "v100-32g", "NVIDIA V100 Tensor Core GPU, SXM2", None, 125 * TERA, 15.7 * TERA, 32 * GB, 900 * GB, NVLINK_2
    ),
)
ACCELERATORS = {each.name: each for each in _ALL}


def accelerator(name: str) -> Accelerator:
    """The GPU of this name.

    Raises:
        ValueError: it is not known; the message lists those that are.
    """
    found = ACCELERATORS.get(name.lower())
    if found is not None:
        return found
    near = [known for known in ACCELERATORS if known.startswith(name.lower())]
    near = near or get_close_matches(name.lower(), ACCELERATORS, n=1)
    guess = f" (did you mean {' or '.join(near)}?)" if name and near else ""
    raise ValueError(f"--gpu {name}: is not known{guess}; choose {CPU} or one of {', '.join(ACCELERATORS)}")


def accelerator_of(device: str, memory_bytes: float) -> Accelerator | None:
    """The GPU that a driver means, by the name of its model and variant in `device` and by its memory.

    Args:
        device: as `torch.cuda.get_device_name` has it, such as NVIDIA A100-SXM4-40GB.
        memory_bytes: that it has in all.

    Returns:
        None: it is none of ACCELERATORS.
    """
    words = re.findall(r"[a-z0-9]+", device.lower())

    def fits(gpu: Accelerator) -> bool:
        near = abs(memory_bytes / gpu.memory_bytes - 1) <= MEMORY_OFF
        return near and gpu.name.split("-")[0] in words and all(each in words for each in _variant(gpu))

    found = sorted(filter(fits, ACCELERATORS.values()), key=lambda gpu: len(_variant(gpu)))
    return found[-1] if found else None


def _variant(gpu: Accelerator) -> list[str]:
    return [part for part in gpu.name.split("-") if part in VARIANTS]
