"""Which arithmetic `precision: auto` stands for: bfloat16 over float32 weights where the hardware multiplies in it.

A CPU without bfloat16 instructions emulates them, several times slower than float32; one with them, or a GPU, is
faster by a half to many times (docs/LOG.md).
"""

import torch


def resolve_precision(precision: str, device: str) -> str:
    """Turns `auto` into `bfloat16-mixed` or `float32` for this machine; leaves anything else as it is."""
    if precision != "auto":
        return precision
    native = torch.cuda.is_bf16_supported() if device == "cuda" else _cpu_multiplies_in_bfloat16()
    return "bfloat16-mixed" if native else "float32"


def _cpu_multiplies_in_bfloat16() -> bool:
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16") or capabilities.get("bf16"))
