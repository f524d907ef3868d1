"""Which arithmetic `precision: auto` stands for: bfloat16 over float32 weights where the hardware multiplies in it."""

from embinv.encoders.arithmetic import multiplies_in_bfloat16


def resolve_precision(precision: str, device: str) -> str:
    """Turns `auto` into `bfloat16-mixed` or `float32` for this machine; leaves anything else as it is."""
    if precision != "auto":
        return precision
    return "bfloat16-mixed" if multiplies_in_bfloat16(device) else "float32"
