"""What a plan takes for granted: every number that is neither in the config nor on a data sheet, with its reason.

Each has an expected value and one for a good day, so that a plan is a range; a person who knows better sets it
(`--assume encode_mfu=0.5`), and both become that. Nothing is computed here.

MFU, model FLOPs utilisation: the share of a GPU's peak that goes into the matrix products of the model itself.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches


@dataclass(frozen=True)
class Assumption:
    """One number.

    Attributes:
        expected: on most days.
        good: on a good one; the same where it is no matter of luck.
        unit: of both, empty for a share.
        why: what it is, and where it is from.
    """

    expected: float
    good: float
    unit: str
    why: str


Assumptions = Mapping[str, Assumption]

ASSUMED: Assumptions = {
    "tokens_share": Assumption(0.8, 0.8, "", "mean length of a text over data.seq_len; give --tokens if you know it"),
    "bytes_per_token": Assumption(4.5, 4.5, "bytes", "UTF-8 of a token: 4 to 5 in English, 3 to 6 elsewhere"),
    "encode_mfu": Assumption(0.35, 0.50, "", "encoder's forward pass, PyTorch without compilation"),
    "train_mfu": Assumption(0.30, 0.45, "", "training; 0.33 to 0.64 of a plain product on a CPU (docs/LOG.md)"),
    "invert_mfu": Assumption(0.25, 0.40, "", "denoising passes in batches of 128"),
    "bandwidth_share": Assumption(0.75, 0.90, "", "of the memory's bandwidth, where reading weights takes the time"),
    "kernel_us": Assumption(8.0, 5.0, "us", "to start a kernel from Python, which a short pass waits for"),
    "encoder_kernels": Assumption(20, 14, "a layer", "kernels of an encoder's layer, forward"),
    "inverter_kernels": Assumption(35, 25, "a layer", "kernels of an inverter layer, forward; training: 3 times"),
    "compiled_kernels": Assumption(0.4, 0.25, "", "share of a block's kernels left where it is compiled"),
    "align_us": Assumption(0.85, 0.60, "us a character", "tokenising, decoding back and aligning, on one core"),
    "cores_per_gpu": Assumption(8, 12, "cores", "that read and tokenise for one GPU"),
    "gpus_per_node": Assumption(8, 8, "GPUs", "in one machine, joined by their own links"),
    "link_share": Assumption(0.6, 0.8, "", "of a link's one-way rate, that all-reduce reaches"),
    "network_gbit": Assumption(100, 400, "Gbit/s", "between nodes, which all GPUs of a node share"),
    "overlap": Assumption(0.0, 0.5, "", "share of the exchange of gradients that hides behind the backward pass"),
    "storage_mb": Assumption(500, 1000, "MB/s", "of the shared storage, written or read by the whole job"),
    "scaling": Assumption(0.90, 1.00, "", "rate of K devices over K times that of one, where one was measured"),
    "inspect_mb": Assumption(500, 550, "MB/s", "one process reads and checks a dump (docs/LOG.md: 347,000 x 384 x 4)"),
    "encode_start": Assumption(60, 30, "s", "Ray, libraries and the encoder's weights, before the first text"),
    "train_start": Assumption(90, 60, "s", "Ray, libraries, pairs into memory, compiling"),
    "invert_start": Assumption(60, 30, "s", "Ray, libraries and the checkpoint"),
    "text_ratio": Assumption(0.5, 0.33, "", "text on disk over text: zstd in files of data.shard_rows rows"),
    "vector_ratio": Assumption(0.87, 0.86, "", "vectors on disk over vectors: split streams and zstd (docs/LOG.md)"),
    "token_bytes": Assumption(1.7, 1.0, "bytes", "a token id on disk: dictionary and zstd; 1.0 in the demo"),
}


def assumed(overrides: Iterable[str] = (), known: Assumptions = ASSUMED) -> dict[str, Assumption]:
    """The assumptions with a person's own in their place.

    Args:
        overrides: NAME=NUMBER each.
        known: what there is to begin with.

    Raises:
        ValueError: a name that nothing is called, no number above or at 0, or a share above 1.
    """
    found = dict(known)
    for override in overrides:
        name, _, text = override.partition("=")
        if name not in found:
            near = get_close_matches(name, found, n=1)
            guess = f" (did you mean {near[0]}?)" if near else ""
            raise ValueError(f"--assume {override}: nothing is called {name!r}{guess}; known are {', '.join(found)}")
        value = _number(text)
        if value is None:
            raise ValueError(f"--assume {override}: give a number, such as {name}={found[name].expected:g}")
        if value < 0 or (value == 0 and name not in MAY_BE_ZERO):
            raise ValueError(f"--assume {override}: must be above 0, such as {name}={found[name].expected:g}")
        if value > 1 and not found[name].unit:
            raise ValueError(
                f"--assume {override}: is a share, from 0 to 1, such as {name}={found[name].expected:g}; "
                f"for percent give {name}={value / 100:g}"
            )
        found[name] = replace(found[name], expected=value, good=value, why="as you say")
    return found


MAY_BE_ZERO = frozenset({"overlap", "kernel_us", "align_us", "encode_start", "train_start", "invert_start"})


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if value == value and abs(value) != float("inf") else None
