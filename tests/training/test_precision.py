"""embinv/training/precision.py: what `auto` stands for."""

import pytest
import torch

from embinv.training.precision import resolve_precision


@pytest.mark.parametrize("precision", ["float32", "bfloat16-mixed", "bfloat16"])
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_what_is_named_stays(precision, device):
    assert resolve_precision(precision, device) == precision


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        ({"avx2": True}, "float32"),
        ({"avx512_bf16": False, "amx_bf16": False}, "float32"),
        ({"avx512_bf16": True}, "bfloat16-mixed"),
        ({"amx_bf16": True}, "bfloat16-mixed"),
        ({"bf16": True}, "bfloat16-mixed"),
    ],
)
def test_auto_follows_the_cpus_instructions(monkeypatch, capabilities, expected):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert resolve_precision("auto", "cpu") == expected
