"""What a process runs on: versions of the libraries that decide results, processor, GPUs. No library is loaded."""

import os
import platform
import shutil
import subprocess
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

LIBRARIES = (
    "torch ray deepspeed transformers tokenizers sentence-transformers safetensors pyarrow numpy pydantic"
).split()
ASK_SECONDS = 10.0


def versions(libraries: Sequence[str] = LIBRARIES) -> dict[str, str | None]:
    """`python` and each library; null where one is not installed."""
    return {"python": platform.python_version(), **{name: _version(name) for name in libraries}}


def machine() -> dict[str, Any]:
    """`system`, `cpu`, `cores` that this process may use, and `gpus` by name; those of one host."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "cpu": cpu_name(),
        "cores": usable,
        "gpus": gpu_names(),
    }


def cpu_name(info: Path = Path("/proc/cpuinfo")) -> str:
    """The processor's name, as Linux or else Python has it."""
    try:
        lines = info.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.lower().startswith("model name"))
    return next(named, "") or platform.processor() or platform.machine()


def gpu_names() -> list[str]:
    """NVIDIA's GPUs as its driver names them, none where it has none; asking torch would take memory on the first."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    asked = [program, "--query-gpu=name", "--format=csv,noheader"]
    try:
        done = subprocess.run(asked, capture_output=True, text=True, timeout=ASK_SECONDS, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return [line.strip() for line in done.stdout.splitlines() if line.strip()]


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
