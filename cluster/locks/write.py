"""Writes cluster/locks/cpu.txt and cuda.txt: every package of an image, by version and sha256 (`make lock`).

uv resolves embinv's dependencies, the extras named on the command line and image.in for Linux on x86-64, under
constraints.txt; packages that constraints.txt does not name keep the version that the lock has. cuda.txt holds PyPI's
torch and the CUDA libraries that it asks for. cpu.txt holds torch's CPU build and its hash alone: were PyPI's files
allowed beside it, pip would take one of those whenever the CPU build lies in a folder. No index and no path is written:
where files come from is pip's own configuration. It installs nothing, and chooses no version of what constraints.txt
names.
"""

import argparse
import hashlib
import logging
import re
import subprocess
import sys
import tempfile
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
ROOT = FOLDER.parents[1]
PYTHON = "3.11"
TORCH_CPU_INDEX = "https://download.pytorch.org/whl/cpu"
HEADER = """\
# Made by `make lock`; do not edit. Packages of an image with {torch}, for Python {python} on Linux, x86-64.
# DeepSpeed comes as source: first what builds it, then all, so that pip fetches nothing else to build it:
#   sed -n -e '/^setuptools==/,/[^\\]$/p' -e '/^torch==/,/[^\\]$/p' cluster/locks/{name}.txt > first.txt
#   pip install --require-hashes --no-deps {index}-r first.txt
#   pip install --require-hashes --no-deps --no-build-isolation {index}-r cluster/locks/{name}.txt
"""

log = logging.getLogger(__name__)


def main() -> None:
    """Resolves twice, and writes both locks once both are known."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--extras", required=True, help="extras of pyproject.toml, by commas")
    extras = parser.parse_args().extras.split(",")
    cuda = resolve(extras, FOLDER / "cuda.txt")
    with tempfile.TemporaryDirectory() as folder:
        wheel = fetch_cpu_torch(pinned(ROOT / "constraints.txt", "torch"), Path(folder))
        cpu = resolve(extras, FOLDER / "cpu.txt", wheel)
        assert hashlib.sha256(wheel.read_bytes()).hexdigest() in cpu, "uv read another torch than was fetched"
    write(FOLDER / "cuda.txt", "torch as PyPI has it (CUDA)", cuda)
    write(FOLDER / "cpu.txt", "torch's CPU build", cpu, f"--extra-index-url {TORCH_CPU_INDEX} ")


def resolve(extras: list[str], lock: Path, torch: Path | None = None) -> str:
    """What uv makes of our dependencies; with `torch`, that wheel is the only torch that it sees."""
    command = [sys.executable, "-m", "uv", "pip", "compile", "--quiet", "--no-config", "--system-certs"]
    command += ["--generate-hashes", "--no-header", "--no-annotate", "--python-version", PYTHON]
    command += ["--python-platform", "x86_64-manylinux_2_28", "--constraints", "constraints.txt"]
    command += [part for extra in extras for part in ("--extra", extra)]
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "lock.txt"
        if lock.exists():  # uv keeps the versions that it finds in its output
            out.write_text(lock.read_text(encoding="utf-8"), encoding="utf-8")
        if torch is not None:
            exact = Path(folder) / "torch.txt"
            exact.write_text(f"torch=={torch.name.split('-')[1]}\n", encoding="utf-8")
            command += ["--constraints", str(exact), "--find-links", str(torch.parent)]
        command += ["--output-file", str(out), "pyproject.toml", str(FOLDER / "image.in")]
        log.info("resolving %s", lock.name)
        if subprocess.run(command, cwd=ROOT, check=False).returncode:
            sys.exit(f"{lock.name} cannot be resolved; uv says above what stands against what. Nothing was written.")
        return out.read_text(encoding="utf-8")


def fetch_cpu_torch(version: str, folder: Path) -> Path:
    """torch's CPU build as pip finds it (its configuration comes first), under the name that its index gives it."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--retries", "0", "--dest", str(folder)]
    command += ["--python-version", PYTHON, "--platform", "manylinux_2_28_x86_64", "--only-binary", ":all:"]
    command += ["--extra-index-url", TORCH_CPU_INDEX, f"torch=={version}+cpu"]
    log.info("fetching torch %s+cpu", version)
    failed = subprocess.run(command, check=False).returncode
    wheel = folder / f"torch-{version}+cpu-cp311-cp311-manylinux_2_28_x86_64.whl"
    if failed or not wheel.exists():
        sys.exit(f"pip found no {wheel.name}; it looks in {TORCH_CPU_INDEX} and where its configuration says.")
    return wheel


def write(lock: Path, torch: str, text: str, index: str = "") -> None:
    """The lock with its header, and a line about it."""
    lock.write_text(HEADER.format(torch=torch, python=PYTHON, index=index, name=lock.stem) + text, encoding="utf-8")
    log.info("%s: %d packages", lock.name, len(re.findall(r"^\S+==", text, re.M)))


def pinned(constraints: Path, name: str) -> str:
    """The version that a file of constraints gives a package."""
    found = re.search(rf"^{name}==(\S+)$", constraints.read_text(encoding="utf-8"), re.M)
    assert found, f"{constraints.name} pins no {name}"
    return found[1]


if __name__ == "__main__":
    main()
