"""What an image is made of: the locks are whole, agree with constraints.txt, and pin every file by its hash.

Completeness is read off the packages that are installed here: whatever a locked package asks for on Linux must be
locked too. The second half checks the audit of advisories against a service on loopback. No test here leaves the
machine, and none resolves anything: `make lock` does.
"""

import functools
import importlib.metadata
import importlib.util
import json
import logging
import re
import subprocess
import threading
import tomllib
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[2]
LOCKS = ROOT / "cluster" / "locks"
NAMES = ("cpu", "cuda")
# What only an image holds, so that constraints.txt, which is of the development environment, need not know it:
# torch's CUDA libraries, and Google's clients (storage, and starting machines).
CUDA_ONLY = re.compile(r"nvidia-|cuda-|triton$")
IMAGE_ONLY = re.compile(
    r"(gcsfs|decorator|uritemplate|httplib2|google-(api-python-client|auth-httplib2|auth-oauthlib|crc32c)"
    r"|google-(cloud-(core|storage|storage-control)|resumable-media)|grpc-google-iam-v1|grpcio-status)$"
)
# The one place that a lock names, in a comment: PyPI has no CPU build of torch for Linux.
TORCH_INDEX = "--extra-index-url https://download.pytorch.org/whl/cpu"
LINUX = {"sys_platform": "linux", "platform_system": "Linux", "platform_machine": "x86_64", "os_name": "posix"}


@dataclass(frozen=True)
class Pin:
    """One package of a lock."""

    version: str
    hashes: tuple[str, ...]


def read_lock(text: str) -> tuple[dict[str, Pin], list[str]]:
    """The pins of a lock, and what it says beside them, comments aside."""
    pins, strange = {}, []
    for line in text.replace("\\\n", " ").splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        found = re.fullmatch(r"([a-z0-9-]+)==(\S+)((?: +--hash=sha256:[0-9a-f]{64})*) *", line)
        if found is None or found[1] in pins:
            strange.append(f"a line that is no new pin with sha256 hashes: {line[:80]}")
        else:
            pins[found[1]] = Pin(found[2], tuple(re.findall(r"sha256:(\w+)", found[3])))
    return pins, strange


def read_constraints() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = (line.split("==") for line in lines if line and not line.startswith("#"))
    return {canonicalize_name(name): version for name, version in pins}


def roots() -> list[Requirement]:
    """What an image is asked to hold: the dependencies, the extras that the Makefile names, and image.in."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = re.search(r"^LOCK_EXTRAS := (\S+)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M)
    assert extras, "the Makefile names no LOCK_EXTRAS"
    image = (LOCKS / "image.in").read_text(encoding="utf-8").splitlines()
    asked = [*project["dependencies"], *(line for line in image if not line.startswith("#"))]
    for extra in extras[1].split(","):
        asked += project["optional-dependencies"][extra]
    return [Requirement(line) for line in asked]


def unmet(pins: dict[str, Pin]) -> list[str]:
    """What `roots`, and all that they lead to among installed packages, ask for and the lock does not give."""
    found, seen, waiting = [], set(), [(requirement, "embinv") for requirement in roots()]
    while waiting:
        requirement, asker = waiting.pop()
        name = canonicalize_name(requirement.name)
        for extra in ("", *sorted(requirement.extras)):
            if (name, extra) in seen:
                continue
            seen.add((name, extra))
            waiting += [(needed, name) for needed in needs(name, extra)]
        if name not in pins:
            found.append(f"{asker} needs {requirement}, which is not locked")
        elif not requirement.specifier.contains(pins[name].version, prereleases=True):
            found.append(f"{asker} needs {requirement}; locked is {pins[name].version}")
    return sorted(set(found))


@functools.cache
def needs(name: str, extra: str) -> tuple[Requirement, ...]:
    """What an installed package asks for on Linux under one of its extras; nothing is known of others."""
    try:
        asked = importlib.metadata.requires(name) or []
    except importlib.metadata.PackageNotFoundError:
        return ()
    environment = {**LINUX, "extra": extra}
    return tuple(r for r in map(Requirement, asked) if r.marker is None or r.marker.evaluate(environment))


@functools.cache
def installed(name: str) -> str | None:
    """The public version of a package here (torch's CPU build is the version that it is a build of)."""
    try:
        return Version(importlib.metadata.version(name)).public
    except importlib.metadata.PackageNotFoundError:
        return None


def faults(text: str, name: str) -> list[str]:
    """All that is wrong with the text of one lock."""
    pins, strange = read_lock(text)
    constraints, found = read_constraints(), []
    for package, pin in pins.items():
        if not pin.hashes:
            found.append(f"{package} has no hash")
        if package in constraints:
            if Version(pin.version).public != constraints[package]:
                found.append(f"{package} is {pin.version}; constraints.txt has {constraints[package]}")
        elif not IMAGE_ONLY.match(package) and not (name == "cuda" and CUDA_ONLY.match(package)):
            found.append(f"{package} is in no constraints.txt, and nobody said why an image needs it")
        if installed(package) not in {None, Version(pin.version).public}:
            found.append(f"{package} is {pin.version}; installed here is {installed(package)}")
    unsaid = text.replace(f"--no-deps {TORCH_INDEX} -r first.txt", "", 1) if name == "cpu" else text
    unsaid = unsaid.replace(f"--no-build-isolation {TORCH_INDEX} -r cluster", "", 1) if name == "cpu" else unsaid
    if leak := re.search(r"https?:|file:|/opt|/home|/work|/tmp|--(extra-)?index|--find-links", unsaid):
        found.append(f"it names a place: {leak[0]}")
    return strange + found + unmet(pins)


@pytest.fixture(params=NAMES)
def name(request):
    return request.param


@pytest.fixture
def lock(name):
    return (LOCKS / f"{name}.txt").read_text(encoding="utf-8")


def test_a_lock_is_whole_and_agrees_with_the_constraints_and_this_environment(lock, name):
    assert faults(lock, name) == []


def test_a_lock_says_how_it_is_installed_so_that_nothing_unpinned_builds_what_is_source(lock, name):
    commands = re.findall(r"^#   (.*)$", lock, re.M)
    assert len(commands) == 3 and "--no-build-isolation" in commands[-1]
    assert all("--require-hashes --no-deps" in command for command in commands[1:])
    selected = subprocess.run(
        ["bash", "-c", commands[0].partition(" > ")[0]], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    pins, strange = read_lock(selected)
    assert pins.keys() == {"setuptools", "torch"} and strange == [] and all(pin.hashes for pin in pins.values())


def test_what_an_image_is_asked_for_is_locked_by_its_own_name(lock):
    pins, _ = read_lock(lock)
    assert {canonicalize_name(requirement.name) for requirement in roots()} <= pins.keys()
    assert {"deepspeed", "ray", "torch", "s3fs", "gcsfs", "boto3", "google-api-python-client"} <= pins.keys()


def test_no_test_tool_is_in_an_image(lock):
    assert not {"pytest", "moto", "playwright", "ruff", "pyright", "pip-audit", "uv"} & read_lock(lock)[0].keys()


def test_the_two_differ_in_torch_alone():
    cpu, cuda = (read_lock((LOCKS / f"{name}.txt").read_text(encoding="utf-8"))[0] for name in NAMES)
    assert all(CUDA_ONLY.match(package) for package in cuda.keys() - cpu.keys())
    assert {"triton", "nvidia-nccl-cu13"} <= cuda.keys() - cpu.keys() and not cpu.keys() - cuda.keys()
    assert {package for package in cpu if cpu[package] != cuda[package]} == {"torch"}
    assert cpu["torch"].version == f"{cuda['torch'].version}+cpu"


def test_pip_is_given_no_choice_between_two_builds_of_torch():
    cpu, cuda = (read_lock((LOCKS / f"{name}.txt").read_text(encoding="utf-8"))[0] for name in NAMES)
    assert len(cpu["torch"].hashes) == 1 and not {*cpu["torch"].hashes} & {*cuda["torch"].hashes}


HASH = r" \\\n    --hash=sha256:[0-9a-f]{64}"
BREAKS = {
    "a dependency of a dependency is gone": (rf"^msgpack==\S+({HASH})+\n", "", "needs msgpack"),
    "a dependency is gone": (rf"^deepspeed==\S+({HASH})+\n", "", "embinv needs deepspeed"),
    "an extra's package is gone": (rf"^peft==\S+({HASH})+\n", "", "embinv needs peft"),
    "a version is another one": (
        r"^numpy==\S+",
        "numpy==0.0.1",
        f"numpy is 0.0.1; constraints.txt has {read_constraints()['numpy']}",
    ),
    "a package has no hash": (rf"^idna==(\S+)({HASH})+", r"idna==\1", "idna has no hash"),
    "a hash is of another kind": (
        r"(^idna==\S+ \\\n    --hash=)sha256",
        r"\1md5",
        "no new pin with sha256 hashes: idna",
    ),
    "a hash is cut": (r"(^idna==\S+ \\\n    --hash=sha256:\w{63})\w", r"\1", "no new pin with sha256 hashes: idna"),
    "a version is open": (r"^idna==", "idna>=", "no new pin with sha256 hashes: idna"),
    "an index stands in it": (r"\A", "--index-url https://example.org/simple\n", "no new pin"),
    "a comment names a place": (r"\A", "# from file:///opt/wheels\n", "it names a place: file:"),
    "a package nobody asked for": (r"\A", "leftpad==1.0 --hash=sha256:" + "0" * 64 + "\n", "leftpad is in no"),
    "a package stands twice": (r"\A", "idna==3.20 --hash=sha256:" + "0" * 64 + "\n", "no new pin"),
}


@pytest.mark.parametrize("broken", BREAKS)
def test_a_broken_lock_is_seen(broken):
    pattern, replacement, said = BREAKS[broken]
    lock = (LOCKS / "cpu.txt").read_text(encoding="utf-8")
    text, times = re.subn(pattern, replacement, lock, count=1, flags=re.M)
    assert times == 1 and any(said in fault for fault in faults(text, "cpu")), faults(text, "cpu")


def test_cuda_libraries_in_the_cpu_lock_are_seen():
    text = (LOCKS / "cpu.txt").read_text(encoding="utf-8") + "triton==3.7.1 --hash=sha256:" + "0" * 64 + "\n"
    assert any("triton is in no constraints.txt" in fault for fault in faults(text, "cpu"))


# The audit of advisories


class Advisories(BaseHTTPRequestHandler):
    """An OSV service that knows one advisory, about idna 3.20, and breaks as it is told."""

    known, asked, breaks_at, status = True, [], None, 200
    raw = None  # bytes to answer with, headers and all, in place of an answer

    def do_POST(self):
        question = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        name = question["package"]["name"]
        type(self).asked.append((name, question["version"]))
        if self.raw is not None:
            self.wfile.write(self.raw)
            self.close_connection = True
            return
        if name == self.breaks_at:
            type(self).status = 503
        answer = {}
        if name == "idna" and question["version"] == "3.20" and self.known:
            events = [{"introduced": "0"}, {"fixed": "3.21"}]
            ranges = [{"type": "ECOSYSTEM", "events": events}]
            affected = [{"package": {"name": "idna", "ecosystem": "PyPI"}, "ranges": ranges}]
            answer = {"vulns": [{"id": "PYSEC-2026-1", "summary": "it hangs on a long name", "affected": affected}]}
        body = json.dumps(answer).encode()
        self.send_response(self.status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture(autouse=True)
def direct(monkeypatch):
    """No proxy that the environment names stands between a test and this machine."""
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(name, "127.0.0.1")


@pytest.fixture
def advisories():
    """A service of its own for each test: its handler, and where it listens."""
    handler = type("Service", (Advisories,), {"asked": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield handler, f"http://127.0.0.1:{server.server_port}/v1/query"
    server.shutdown()
    server.server_close()


def audited(tmp_path, caplog, url, pins="idna==3.20\nsix==1.17.0\n", accepted=""):
    """Exit status and words of the script for one file of pins."""
    (tmp_path / "pins.txt").write_text(pins, encoding="utf-8")
    (tmp_path / "accepted.toml").write_text(accepted, encoding="utf-8")
    spec = importlib.util.spec_from_file_location("audit_dependencies", ROOT / ".ci" / "audit_dependencies.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    with caplog.at_level(logging.INFO):
        given = [str(tmp_path / "pins.txt"), "--osv-url", url, "--accepted", str(tmp_path / "accepted.toml")]
        return script.main(given), "".join(f"{line}\n" for line in caplog.messages)


def test_an_advisory_fails_the_audit_and_is_named(advisories, tmp_path, caplog):
    handler, url = advisories
    status, said = audited(tmp_path, caplog, url)
    assert status == 1 and "idna 3.20: PYSEC-2026-1 (3.21 mends it) it hangs on a long name" in said
    assert {("idna", "3.20"), ("six", "1.17.0")} <= set(handler.asked)


def test_an_audit_without_advisories_passes(advisories, tmp_path, caplog):
    handler, url = advisories
    handler.known = False
    status, said = audited(tmp_path, caplog, url)
    assert status == 0 and "2 packages, 0 advisories" in said


def test_an_accepted_advisory_is_passed_over_and_counted(advisories, tmp_path, caplog):
    accepted = '[[advisory]]\nid = "PYSEC-2026-1"\nreason = "names are short here"\ndate = 2026-11-22\n'
    status, said = audited(tmp_path, caplog, advisories[1], accepted=accepted)
    assert status == 0 and "0 advisories, 1 accepted left out" in said


def test_a_service_that_goes_away_during_the_audit_is_no_pass(advisories, tmp_path, caplog):
    handler, url = advisories
    handler.breaks_at = "six"
    assert audited(tmp_path, caplog, url) == (
        3,
        "not audited: the advisory service cannot be reached (it answers 503)\n",
    )


def test_an_absent_service_has_a_status_of_its_own(tmp_path, caplog, unused_address):
    status, said = audited(tmp_path, caplog, unused_address)
    assert status == 3 and said.startswith("not audited: the advisory service cannot be reached (")


@pytest.fixture
def unused_address():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Advisories)
    server.server_close()
    return f"http://127.0.0.1:{server.server_port}/v1/query"


@pytest.mark.parametrize("raw", [b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{", b"220 ftp\r\n\r\n"])
def test_an_answer_that_is_cut_off_or_no_http_is_no_advisory(advisories, tmp_path, caplog, raw):
    handler, url = advisories
    handler.raw = raw
    status, said = audited(tmp_path, caplog, url)
    assert status == 3 and said.startswith("not audited: the advisory service cannot be reached (")


def test_a_service_that_refuses_the_question_is_a_failure(advisories, tmp_path, caplog):
    handler, url = advisories
    handler.status = 404
    status, said = audited(tmp_path, caplog, url)
    assert status == 2 and "refuses a question: 404" in said


@pytest.mark.parametrize(
    ("pins", "accepted", "said"),
    [
        ("idna>=3\n", "", "'idna>=3' is no pin"),
        ("# nothing\n", "", "no pin stands in"),
        ("idna==3.20+cpu\nIdna==3.19\n", "", "pins idna to 3.19, another file to 3.20"),
        ("idna==3.20\n", '[[advisory]]\nid = "X"\ndate = 2026-11-22\n', "has an id, a reason and a date"),
        ("idna==3.20\n", '[[advisory]]\nid = "X"\nreason = ""\ndate = 2026-11-22\n', "has an id, a reason and a date"),
        ("idna==3.20\n", '[[advisory]]\nid = "X"\nreason = "y"\ndate = "soon"\n', "without quotes"),
        ("idna==3.20\n", '[[advisories]]\nid = "X"\n', "entries are written [[advisory]]"),
    ],
)
def test_a_mistake_in_what_is_given_fails_before_anything_is_asked(advisories, tmp_path, caplog, pins, accepted, said):
    handler, url = advisories
    status, words = audited(tmp_path, caplog, url, pins, accepted)
    assert status == 2 and said in words and handler.asked == []


def test_what_make_audits_is_what_is_pinned():
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    line = re.search(r"\.ci/audit_dependencies\.py (.+)", text)
    assert line and line[1].split() == ["constraints.txt", "cluster/locks/cpu.txt", "cluster/locks/cuda.txt"]


def test_no_advisory_is_accepted_without_a_word():
    entries = tomllib.loads((ROOT / ".ci" / "accepted_advisories.toml").read_text(encoding="utf-8"))
    assert all(entry.keys() == {"id", "reason", "date"} for entry in entries.get("advisory", []))
