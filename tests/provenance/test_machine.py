"""What a process runs on is told without loading a library, and nothing fails where something is absent."""

from embinv.provenance.machine import cpu_name, gpu_names, versions


def test_a_library_that_is_absent_has_no_version():
    assert versions(["torch", "no-such-library"])["no-such-library"] is None


def test_the_processor_has_a_name_with_and_without_linux_s_file(tmp_path):
    info = tmp_path / "cpuinfo"
    info.write_text("processor: 0\nmodel name\t: Some CPU @ 2 GHz\nmodel name\t: Another\n")
    assert cpu_name(info) == "Some CPU @ 2 GHz"
    assert cpu_name(tmp_path / "none")


def test_gpus_are_those_that_the_driver_names(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert gpu_names() == []
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 'NVIDIA A100-SXM4-40GB'\necho 'NVIDIA A100-SXM4-40GB'\n")
    program.chmod(0o755)
    assert gpu_names() == ["NVIDIA A100-SXM4-40GB"] * 2
    program.write_text("#!/bin/sh\nexit 9\n")
    assert gpu_names() == []
