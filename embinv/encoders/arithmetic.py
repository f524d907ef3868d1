"""Whether a device multiplies in bfloat16.

A CPU without bfloat16 instructions emulates them, several times slower than float32; one with them, or a GPU, is
faster by a half to many times (docs/LOG.md).
"""

import torch


def multiplies_in_bfloat16(device: str) -> bool:
    """Whether bfloat16 is worth choosing on `cpu`, `cuda` or `cuda:N`."""
    if device.startswith("cuda"):
        return torch.cuda.is_bf16_supported(including_emulation=False)
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16") or capabilities.get("bf16"))
