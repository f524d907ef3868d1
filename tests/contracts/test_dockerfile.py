"""cluster/Dockerfile: pinned, without rights or what is not needed; and .dockerignore, which lets nothing slip in.

It is read, not built. The second half feeds the checks Dockerfiles that break each of them.
"""

import fnmatch
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.contracts.manifest_rules import PINNED, ROOT, VERSION

TEXT = (ROOT / "cluster" / "Dockerfile").read_text(encoding="utf-8")
IGNORED = (ROOT / ".dockerignore").read_text(encoding="utf-8")
TARGETS = ("cpu", "cuda")
COMPILERS = {"gcc", "g++", "build-essential", "clang", "make", "cmake", "ninja-build"}
NEEDED = {"wget", "rsync", "openssh-client", "ca-certificates", "libgomp1"}  # by KubeRay, `ray up`, torch
UID = "1000:1000"  # as the pods of cluster/kuberay run, and as cluster/aws.yaml and gcp.yaml ask for


@dataclass(frozen=True)
class Stage:
    """One stage: its name, what it is made from, and its instructions."""

    name: str
    base: str
    instructions: tuple[tuple[str, str], ...]

    def all(self, *words: str) -> list[str]:
        return [text for word, text in self.instructions if word in words]


def stages(text: str) -> dict[str, Stage]:
    """The stages of a Dockerfile by name; what stands before the first is the stage ""."""
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    found, name, base, instructions = {}, "", "", []
    for line in re.split(r"(?<!\\)\n", "\n".join(lines)):
        word, _, rest = re.sub(r"\\\n\s*", " ", line).partition(" ")
        if word == "FROM":
            found[name] = Stage(name, base, tuple(instructions))
            base, _, name = (part.strip() for part in rest.partition(" AS "))
            instructions = []
        else:
            instructions.append((word, rest))
    return {**found, name: Stage(name, base, tuple(instructions))}


def lineage(found: dict[str, Stage], target: str) -> Iterator[Stage]:
    """A target and the stages under it, top first."""
    while target in found:
        yield found[target]
        target = found[target].base


def parts_of(run: str) -> list[str]:
    """The shell commands of a RUN."""
    return [part.strip() for part in re.sub(r"--mount=\S+", "", run).split("&&")]


def pip_installs(run: str) -> list[str]:
    return [part for part in parts_of(run) if part.startswith("pip install")]


def commands(found: dict[str, Stage], target: str) -> list[str]:
    """The shell commands that made a target's own files."""
    return [part for stage in lineage(found, target) for run in stage.all("RUN") for part in parts_of(run)]


def packages(found: dict[str, Stage], target: str) -> set[str]:
    """The Debian packages of a target."""
    installs = [part for part in commands(found, target) if "apt-get install" in part]
    return {word for part in installs for word in part.partition(" install ")[2].split() if not word.startswith("-")}


def breaches(text: str) -> Iterator[str]:
    """What is wrong with a Dockerfile, a sentence each."""
    found = stages(text)
    for target in TARGETS:
        if target not in found:
            yield f"there is no target {target}"
            continue
        users = [text for stage in lineage(found, target) for text in stage.all("USER")]
        if users[:1] != [UID] or found[target].instructions[-1] != ("USER", UID):
            yield f"{target}: its user is not {UID}, by number, so that Kubernetes sees that it is not root"
        there = packages(found, target)
        if missing := NEEDED - there:
            yield f"{target}: has no {sorted(missing)[0]}"
        allowed = {"gcc"} if target == "cuda" else set()  # Triton compiles when torch.compile does
        if more := (there & COMPILERS) - allowed:
            yield f"{target}: {sorted(more)[0]} is left in it"
        if target == "cuda" and not {"gcc", "libc6-dev"} <= there:
            yield "cuda: torch.compile has no compiler"
        if not any("useradd" in part and "--uid 1000" in part for part in commands(found, target)):
            yield f"{target}: its user is not made"
        if not any("/opt/venv/bin" in text for stage in lineage(found, target) for text in stage.all("ENV")):
            yield f"{target}: ray is not on the PATH"
        if not any("/etc/profile.d/" in part and "/opt/venv/bin" in part for part in commands(found, target)):
            yield f"{target}: ray is not on the PATH of a login shell"
        if ("COPY", f"--from=packages-{target} /opt/venv /opt/venv") not in found[target].instructions:
            yield f"{target}: its packages are another's"
        runs = [run for stage in lineage(found, f"packages-{target}") for run in stage.all("RUN")]
        for part in (part for run in runs for part in pip_installs(run)):
            if "--no-deps" not in part or not ("--require-hashes" in part or part.split()[-1] == "."):
                yield f"{target}: not pinned by hash: {part}"
            if part.split()[-1] in {".", f"locks/{target}.txt"} and "--no-build-isolation" not in part:
                yield f"{target}: fetches what it builds with: {part}"
        order = [part.split()[-1] for run in found[f"packages-{target}"].all("RUN") for part in pip_installs(run)]
        if order != ["torch.txt", f"locks/{target}.txt", "."]:
            yield f"{target}: not torch first, then {target}.txt, then embinv"
        if not any(part == "pip check" for part in commands(found, f"packages-{target}")):
            yield f"{target}: nobody looks whether the packages fit together"
    for stage in found.values():
        for run in stage.all("RUN"):
            if "apt-get install" in run and not (
                "--no-install-recommends" in run and "rm -rf /var/lib/apt/lists" in run
            ):
                yield f"{stage.name}: apt-get leaves more behind than asked for"
            if "pip install" in run and " . " not in f"{run} " and "--mount=type=cache" not in run:
                yield f"{stage.name}: pip's downloads stay in the image"
        if stage.all("ADD"):
            yield f"{stage.name}: ADD fetches what nobody checks; use COPY"
        for text in stage.all("ARG", "ENV"):
            if re.search(r"TOKEN|SECRET|PASSWORD|_KEY", text):
                yield f"{stage.name}: a secret would stay in the image's history: {text.partition('=')[0]}"
    base = next((text.removeprefix("BASE=") for text in found[""].all("ARG") if text.startswith("BASE=")), "")
    if not re.fullmatch(r"[\w./-]+:3\.11\.\d+-\w+-\w+|[\w./-]+@sha256:[0-9a-f]{64}", base):
        yield f"BASE is {base!r}, which is not one image of Python 3.11 for good"
    labels = " ".join(label for stage in lineage(found, "cpu") for label in stage.all("LABEL"))
    for label in ("title", "description", "revision", "licenses"):
        if f"org.opencontainers.image.{label}=" not in labels:
            yield f"no label {label}"
    if f'org.opencontainers.image.version="{VERSION}"' not in labels:
        yield f"the label version is not {VERSION}"
    if not any("EMBINV_COMMIT=${COMMIT}" in text for stage in lineage(found, "cpu") for text in stage.all("ENV")):
        yield "runs would not know of which commit they are"


def test_it_keeps_all_of_them():
    assert list(breaches(TEXT)) == []


def test_tags_in_its_comments_are_those_of_the_manifests():
    tags = re.findall(r"embinv:(\S+)", TEXT)
    assert tags == [f"{VERSION}-ray{PINNED['ray']}-{target}" for target in TARGETS]


def test_files_that_it_copies_are_there_and_not_ignored():
    for stage in stages(TEXT).values():
        for text in stage.all("COPY"):
            *sources, _ = (word for word in text.split() if not word.startswith("--"))
            for source in sources if "--from" not in text else []:
                assert (ROOT / source).exists(), source
                sample = (
                    next((ROOT / source).rglob("*.*"), ROOT / source) if (ROOT / source).is_dir() else ROOT / source
                )
                assert source == "." or kept(str(sample.relative_to(ROOT))), source


# .dockerignore


def kept(path: str, rules: str = IGNORED) -> bool:
    """Whether docker sends a file: the last rule that means it, or a folder that it is in, decides."""
    sent = True
    parts = path.split("/")
    above = ["/".join(parts[: depth + 1]) for depth in range(len(parts))]
    for rule in rules.splitlines():
        pattern = rule.strip().removeprefix("!")
        if not pattern or pattern.startswith("#"):
            continue
        forms = [pattern, pattern.removeprefix("**/")]
        if any(
            fnmatch.fnmatchcase(name, form) and name.count("/") >= form.count("/") for name in above for form in forms
        ):
            sent = rule.startswith("!")
    return sent


@pytest.mark.parametrize(
    "path",
    [
        ".git/config",
        ".env",
        ".venv/bin/python",
        "runs/demo/checkpoint/model.safetensors",
        "data/texts.parquet",
        "keys.txt",
        "embinv/__pycache__/cli.cpython-311.pyc",
        "jobs/train.pyc",
        "tests/contracts/test_dockerfile.py",
        "docs/LOG.md",
        "cluster/aws.yaml",
        "cluster/locks/write.py",
    ],
)
def test_what_does_not_belong_into_an_image_is_not_sent(path):
    assert not kept(path)


def test_every_file_of_the_packages_is_sent():
    listed = subprocess.run(
        ["git", "ls-files", "embinv", "jobs", "serve_app", "configs"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    paths = [*listed.stdout.split(), "pyproject.toml", "README.md", "LICENSE", "cluster/locks/cpu.txt"]
    assert len(paths) > 100
    assert [path for path in paths if not kept(path)] == []


# A Dockerfile that is broken in one way


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        ("FROM runtime AS cpu", "FROM runtime AS processor", "no target cpu"),
        ("USER 1000:1000\n\n", "\n\n", "its user is not"),
        ("USER 1000:1000", "USER embinv", "its user is not"),
        ("USER 1000:1000\n", "USER 0\n", "its user is not"),
        ("useradd --uid 1000", "useradd --uid 1001", "its user is not made"),
        (" wget \\\n", " \\\n", "has no wget"),
        ("rsync", "curl", "has no rsync"),
        ("wget \\\n", "wget gcc \\\n", "cpu: gcc is left"),
        ("gcc libc6-dev", "libc6-dev", "no compiler"),
        ("gcc libc6-dev", "gcc g++ libc6-dev", "cuda: g++ is left"),
        ("ENV PATH=/opt/venv/bin:$PATH \\", "ENV \\", "not on the PATH"),
        ("/etc/profile.d/embinv.sh", "/etc/embinv.sh", "login shell"),
        ("--from=packages-cuda", "--from=packages-cpu", "another's"),
        (
            "--require-hashes --no-deps --no-build-isolation -r locks/cpu.txt",
            "-r constraints.txt",
            "not pinned by hash",
        ),
        ("--require-hashes --no-deps -r setuptools.txt", "setuptools", "not pinned by hash"),
        ("--no-deps --no-build-isolation --no-compile .", "--no-build-isolation .", "not pinned by hash"),
        ("--no-deps --no-build-isolation -r locks/cuda.txt", "--no-deps -r locks/cuda.txt", "fetches what it builds"),
        (" && pip check", "", "fit together"),
        ("-r torch.txt", "-r setuptools.txt", "not torch first"),
        ("--no-install-recommends", "", "leaves more behind"),
        ("rm -rf /var/lib/apt/lists/*", "true", "leaves more behind"),
        ("RUN --mount=type=cache,target=/root/.cache/pip \\\n    pip", "RUN pip", "downloads stay"),
        ("COPY configs/", "ADD configs/", "ADD fetches"),
        ("ARG COMMIT", "ARG HF_TOKEN\nARG COMMIT", "secret"),
        ("python:3.11.13-slim-bookworm", "python:3.11", "BASE is"),
        ("python:3.11.13-slim-bookworm", "python:latest", "BASE is"),
        ("python:3.11.13-slim-bookworm", "python:3.12.4-slim-bookworm", "BASE is"),
        ("image.licenses", "image.license", "no label licenses"),
        (f'version="{VERSION}"', 'version="0.0.9"', "label version"),
        ("EMBINV_COMMIT=${COMMIT}", "COMMIT=${COMMIT}", "of which commit"),
    ],
)
def test_a_dockerfile_that_breaks_one_is_seen(before, after, told):
    assert before in TEXT
    assert any(told in breach for breach in breaches(TEXT.replace(before, after)))


def test_a_base_named_by_its_digest_is_one_for_good():
    digest = "python@sha256:" + "0" * 64
    assert list(breaches(TEXT.replace("python:3.11.13-slim-bookworm", digest))) == []
