"""GPUs by name: figures of their data sheets, and a sentence for names that are none."""

import pytest

from embinv.planning.accelerators import ACCELERATORS, accelerator, accelerator_of
from embinv.training.flops import DATA_SHEET_PEAKS, data_sheet_peak


@pytest.mark.parametrize("name", ["t4", "v100-16g", "v100-32g"])
def test_gpus_before_bfloat16_do_that_work_in_float32(name):
    gpu = accelerator(name)
    assert gpu.bfloat16 is None and gpu.peak("bfloat16-mixed") == gpu.peak("float32") == gpu.float32
    assert gpu.peak("float16") > 5 * gpu.float32


def test_all_others_have_the_peak_that_utilisation_is_measured_against():
    known = {*DATA_SHEET_PEAKS.values(), accelerator("a10g").bfloat16}
    for gpu in ACCELERATORS.values():
        if gpu.bfloat16 is not None:
            assert gpu.peak("bfloat16") == gpu.peak("bfloat16-mixed") == gpu.bfloat16 and gpu.bfloat16 in known
            assert gpu.float32 < gpu.bfloat16


def test_figures_have_the_size_of_their_unit():
    for gpu in ACCELERATORS.values():
        assert 1e10 < gpu.memory_bytes < 1e12 and 1e11 < gpu.memory_bytes_per_second < 1e13
        assert 1e10 <= gpu.link_bytes_per_second < gpu.memory_bytes_per_second


def test_a10g_is_no_a10():
    assert accelerator("a10g").peak("bfloat16") < accelerator("a10").peak("bfloat16") == data_sheet_peak("NVIDIA A10")


def test_unknown_name_is_told_those_that_are_known():
    with pytest.raises(
        ValueError, match=r"^--gpu a100: .*did you mean a100-.*choose cpu or one of a10, .*a100-40g, .*t4"
    ):
        accelerator("a100")
    assert accelerator("A100-40G").name == "a100-40g"


@pytest.mark.parametrize(
    ("device", "gib", "name"),
    [
        ("NVIDIA A100-SXM4-40GB", 39.4, "a100-40g"),
        ("NVIDIA A100-SXM4-80GB", 79.2, "a100-80g"),
        ("NVIDIA A100-PCIE-40GB", 39.4, "a100-40g-pcie"),
        ("NVIDIA A100 80GB PCIe", 79.2, "a100-80g-pcie"),
        ("NVIDIA H100 80GB HBM3", 79.1, "h100"),
        ("NVIDIA H100 PCIe", 79.1, "h100-pcie"),
        ("NVIDIA H100 NVL", 93.1, "h100-nvl"),
        ("NVIDIA H200", 139.8, "h200"),
        ("NVIDIA A10", 22.2, "a10"),
        ("NVIDIA A10G", 22.1, "a10g"),
        ("NVIDIA L4", 22.0, "l4"),
        ("NVIDIA L40S", 44.4, "l40s"),
        ("Tesla T4", 14.6, "t4"),
        ("Tesla V100-SXM2-16GB", 15.8, "v100-16g"),
        ("Tesla V100-PCIE-32GB", 31.7, "v100-32g"),
        ("NVIDIA GeForce RTX 4090", 23.6, None),
        ("NVIDIA A100-SXM4-40GB MIG 1g.5gb", 4.8, None),
    ],
)
def test_a_gpu_is_known_by_what_its_driver_says(device, gib, name):
    found = accelerator_of(device, gib * 2**30)
    assert (found and found.name) == name
