"""Looks every pinned package up among known advisories: `make audit-dependencies`.

It hands all pins of the files that it is given, once each, to pip-audit, which asks an OSV service about them. Nothing
is installed or resolved. The exit status says what came of it:
  0  no advisory is known for any pin, those of accepted_advisories.toml aside
  1  at least one is, and is named
  2  the audit failed: a file is missing or holds something else than pins, or the service refuses what it is asked
  3  not audited: the service cannot be reached, so nothing is known; who runs this decides whether to go on
"""

import argparse
import datetime
import http.client
import json
import logging
import re
import subprocess
import sys
import tempfile
import tomllib
import urllib.error
import urllib.request
from pathlib import Path

CLEAN, FOUND, FAILED, UNREACHED = 0, 1, 2, 3
OSV_URL = "https://api.osv.dev/v1/query"
ACCEPTED = Path(__file__).with_name("accepted_advisories.toml")
# A requirement file's lines, continued ones joined: a pin and perhaps its hashes.
PIN = re.compile(
    r"(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)==(?P<version>[A-Za-z0-9.!+_-]+)(\s+--hash=sha256:[0-9a-f]{64})*"
)
TIMEOUT_S = 15

log = logging.getLogger(__name__)


def main(arguments: list[str] | None = None) -> int:
    """Reads the pins, asks, says what was found, and gives the exit status."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path, help="requirement files of pins: name==version")
    parser.add_argument("--osv-url", default=OSV_URL, help=f"the service that is asked ({OSV_URL})")
    parser.add_argument("--accepted", type=Path, default=ACCEPTED, help="the advisories that are passed over")
    given = parser.parse_args(arguments)
    try:
        pins = read_pins(given.files)
        accepted = read_accepted(given.accepted)
        refusal = probe(given.osv_url)
        advisories = [] if refusal else audit(pins, accepted, given.osv_url)
    except ValueError as error:
        log.info("the audit failed: %s", error)
        return FAILED
    except ConnectionError as error:
        refusal = str(error)
    if refusal:
        log.info("not audited: the advisory service cannot be reached (%s)", refusal)
        return UNREACHED
    for line in advisories:
        log.info("%s", line)
    left_out = f", {len(accepted)} accepted left out" if accepted else ""
    log.info("%d packages, %d advisories%s", len(pins), len(advisories), left_out)
    return FOUND if advisories else CLEAN


def read_pins(files: list[Path]) -> dict[str, str]:
    """All pins of `files`, by normalised name; a build (torch 2.13.0+cpu) counts as the version that it is a build of.

    Raises:
        ValueError: a file is missing, a line is no pin, or two files pin one package differently.
    """
    pins: dict[str, str] = {}
    for file in files:
        if not file.is_file():
            raise ValueError(f"there is no file {file}")
        for line in file.read_text(encoding="utf-8").replace("\\\n", " ").splitlines():
            line = line.partition("#")[0].strip()
            if not line:
                continue
            pin = PIN.fullmatch(line)
            if pin is None:
                raise ValueError(f"{file}: {line[:60]!r} is no pin (name==version)")
            name = re.sub(r"[-_.]+", "-", pin["name"]).lower()
            version = pin["version"].partition("+")[0]
            if pins.setdefault(name, version) != version:
                raise ValueError(f"{file} pins {name} to {version}, another file to {pins[name]}")
    if not pins:
        raise ValueError(f"no pin stands in {', '.join(map(str, files))}")
    return pins


def read_accepted(file: Path) -> list[str]:
    """The ids that are passed over.

    Raises:
        ValueError: the file is missing or no TOML, or an entry has other fields than id, reason and date.
    """
    if not file.is_file():
        raise ValueError(f"there is no file {file}")
    try:
        entries = tomllib.loads(file.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{file}: {error}") from None
    if entries.keys() - {"advisory"}:
        raise ValueError(f"{file}: entries are written [[advisory]]")
    for entry in (advisories := entries.get("advisory", [])):
        if entry.keys() != {"id", "reason", "date"} or not all(entry.values()):
            raise ValueError(f"{file}: an entry has an id, a reason and a date, and no more: {entry}")
        if not isinstance(entry["date"], datetime.date):
            raise ValueError(f"{file}: the date of {entry['id']} is written without quotes: 2026-11-22")
    return [entry["id"] for entry in advisories]


def probe(url: str) -> str | None:
    """Why the service cannot be reached now; None when it answers one question as OSV does.

    Raises:
        ValueError: something answers, and it is no OSV service.
    """
    question = json.dumps({"package": {"name": "pip", "ecosystem": "PyPI"}, "version": "0"}).encode()
    request = urllib.request.Request(url, question, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
            said = json.load(answer)
    except urllib.error.HTTPError as error:
        if error.code == 429 or error.code >= 500:
            return f"it answers {error.code}"
        raise ValueError(f"{url} refuses a question: {error.code} {error.reason}") from None
    except json.JSONDecodeError:
        raise ValueError(f"{url} is no OSV service: its answer is no JSON") from None
    except (OSError, http.client.HTTPException) as error:  # URLError, a time-out; an answer that is cut off, or no HTTP
        return str(getattr(error, "reason", error)) or type(error).__name__
    if not isinstance(said, dict):
        raise ValueError(f"{url} is no OSV service: its answer is no JSON object")
    return None


def audit(pins: dict[str, str], accepted: list[str], url: str) -> list[str]:
    """One line for each advisory that pip-audit finds.

    Raises:
        ConnectionError: the service went away meanwhile.
        ValueError: pip-audit failed, or passed a package over.
    """
    with tempfile.TemporaryDirectory() as folder:
        requirements, report = Path(folder) / "pins.txt", Path(folder) / "report.json"
        requirements.write_text("".join(f"{name}=={pins[name]}\n" for name in sorted(pins)), encoding="utf-8")
        command = [sys.executable, "-m", "pip_audit", "--requirement", str(requirements), "--no-deps", "--disable-pip"]
        command += ["--vulnerability-service", "osv", "--osv-url", url, "--timeout", str(TIMEOUT_S)]
        command += ["--cache-dir", folder, "--progress-spinner", "off", "--format", "json", "--output", str(report)]
        command += [f"--ignore-vuln={advisory}" for advisory in accepted]
        ran = subprocess.run(command, capture_output=True, text=True, check=False)
        if not report.is_file():
            if refusal := probe(url):
                raise ConnectionError(refusal)
            raise ValueError(f"pip-audit: {(ran.stderr.strip().splitlines() or ['it said nothing'])[-1]}")
        dependencies = json.loads(report.read_text(encoding="utf-8"))["dependencies"]
    passed_over = pins.keys() - {found["name"] for found in dependencies if "skip_reason" not in found}
    if passed_over:
        raise ValueError(f"pip-audit passed over {', '.join(sorted(passed_over))}")
    return [
        f"{found['name']} {found['version']}: {advisory['id']} "
        f"({', '.join(advisory['fix_versions']) or 'no release'} mends it) {advisory['description'][:160]}"
        for found in dependencies
        for advisory in found["vulns"]
    ]


if __name__ == "__main__":
    sys.exit(main())
