"""docs/*.md do not age: their commands exist and their flags are known, what they quote the programs say, and metrics
have the names that they have. LOG.md is history, and left out.
"""

import ast
import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
from ray.scripts.scripts import cli as ray_cli
from ray.serve.scripts import cli as serve_cli

from tests.contracts import test_readme_commands as readme

ROOT = Path(__file__).resolve().parents[2]
DOCS = sorted(path for path in (ROOT / "docs").glob("*.md") if path.name != "LOG.md")
RUNBOOK = ROOT / "docs" / "RUNBOOK.md"
# Other people's programs, taken as they are.
OTHERS = (("kubectl",), ("df",), ("du",), ("grep",), ("cp",), ("mv",), ("python", "-c"))
KUBECTL = {"apply", "create", "delete", "describe", "exec", "get", "logs", "port-forward", "rollout", "scale"}
LEAST = 12  # letters that a quoted piece must have to be looked for


@pytest.fixture(autouse=True)
def others_are_allowed(monkeypatch):
    monkeypatch.setattr(readme, "ALLOWED", (*readme.ALLOWED, *OTHERS))


@pytest.mark.parametrize("path", DOCS, ids=lambda path: path.name)
def test_every_command_of_the_documents_exists_and_takes_its_flags(path):
    text = path.read_text(encoding="utf-8")
    found = [line.replace("README.md", path.name) for line in readme.lies(text, ROOT)]
    for command in readme.commands(text):
        found += [f"{path.name}:{command.line}: {problem}" for problem in unknown_to_click(command.words)]
    assert not found, "\n" + "\n".join(found)


def unknown_to_click(words):
    """What Ray's and Serve's own command lines do not know of a command, and kubectl's verbs."""
    program, *rest = words
    if program == "kubectl":
        if rest[:1] != ["-n"]:
            return ["kubectl acts in the default namespace; give -n NAMESPACE first"]
        return [] if rest[2:] and rest[2] in KUBECTL else [f"kubectl has no {rest[2:3]}"]
    if program not in ("ray", "serve"):
        return []
    command, rest = {"ray": ray_cli, "serve": serve_cli}[program], rest[: rest.index("--")] if "--" in rest else rest
    while hasattr(command, "commands") and rest and not rest[0].startswith("-"):
        if rest[0] not in command.commands:
            return [] if command.name == "logs" else [f"`{program}` has no {rest[0]}"]  # `ray logs` takes a glob too
        command, rest = command.commands[rest[0]], rest[1:]
    known = {option for parameter in command.params for option in parameter.opts}
    flags = (word.partition("=")[0] for word in rest if word.startswith("-"))
    return [f"`{program} ... {command.name}` knows no {flag}" for flag in flags if flag not in known]


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (("ray", "status", "--wrong", "x"), "knows no --wrong"),
        (("ray", "job", "kill", "ID"), "has no kill"),
        (("serve", "stats"), "has no stats"),
        (("kubectl", "-n", "embinv-minilm", "destroy"), "kubectl has no"),
        (("kubectl", "delete", "secret", "embinv"), "default namespace"),
    ],
)
def test_a_lie_about_a_cluster_s_own_commands_is_found(words, problem):
    assert any(problem in each for each in unknown_to_click(words))
    assert unknown_to_click(("ray", "job", "submit", "--working-dir", ".", "--", "python", "x", "--none")) == []


def part_of_runbook(name):
    [part] = re.findall(rf"^## {name}\n(.*?)(?=^## |\Z)", RUNBOOK.read_text(encoding="utf-8"), re.M | re.S)
    return part


def test_after_the_commands_for_a_leaked_token_another_one_is_in_its_place(tmp_path):
    files = [tmp_path / ".ray" / "auth_token", tmp_path / ".embinv" / "ray-token" / "auth_token"]
    for file in files:
        file.parent.mkdir(parents=True)
        file.write_text("a" * 64)
    blocks = re.findall(r"^```bash\n(.*?)^```", part_of_runbook("A key leaks"), flags=re.M | re.S)
    lines = [
        line for block in blocks for line in block.splitlines() if "auth_token" in line or "get-auth-token" in line
    ]
    assert len(lines) == 3
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    environment |= {"HOME": str(tmp_path), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    subprocess.run(["bash", "-ec", "\n".join(lines)], env=environment, check=True, capture_output=True, timeout=60)
    for file in files:
        assert re.fullmatch(r"[0-9a-f]{64}", file.read_text()) and file.read_text() != "a" * 64


def test_a_driver_that_the_runbook_or_a_cluster_s_file_submits_does_not_land_on_a_head_without_cpus():
    texts = [RUNBOOK.read_text(encoding="utf-8")]
    texts += [path.read_text(encoding="utf-8") for path in (ROOT / "cluster").rglob("*.yaml")]
    found = [each for text in texts for each in re.findall(r"ray job submit --address [^\n]*", text)]
    assert len(found) >= 4
    assert [each for each in found if "--entrypoint-num-cpus 1 -- " not in each] == []


def test_the_runbook_restores_a_backup_by_its_name_and_into_a_new_folder():
    found = re.findall(r"embinv restore [^\n]*", RUNBOOK.read_text(encoding="utf-8"))
    assert len(found) >= 3
    for command in found:
        assert " --name " in command and "--checkpoint /tmp/" not in command, command


# What the runbook quotes


@cache
def said():
    """Every text of the code, with `…` for what is put into it."""
    found = []
    for package in ("embinv", "jobs", "serve_app"):
        for path in (ROOT / package).rglob("*.py"):
            tree = ast.parse(path.read_text(encoding="utf-8"))
            inside = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
            for node in ast.walk(tree):
                if isinstance(node, ast.JoinedStr):
                    found.append("".join(piece(part) for part in node.values))
                elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in inside:
                    found.append(re.sub(r"%[sdr]", "…", node.value))
    return "\n".join(re.sub("…+", "…", " ".join(each.split())) for each in found)


def piece(part):
    return part.value if isinstance(part, ast.Constant) else "…"


def quoted(text):
    """The lines of all ```text blocks."""
    blocks = re.findall(r"^```text\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if line]


def pieces(line):
    return [each.strip() for each in line.split("…") if len(each.strip()) >= LEAST]


def is_said(line):
    """Whether a program says a line: as a whole, or in all its pieces that are long enough to be known."""
    whole = len(line) >= LEAST and line in said()
    return whole or bool(pieces(line) and all(each in said() for each in pieces(line)))


def test_the_runbook_quotes_what_the_programs_say():
    lines = quoted(RUNBOOK.read_text(encoding="utf-8"))
    assert len(lines) > 15
    assert [line for line in lines if not is_said(line)] == []


def test_a_quote_that_nobody_says_is_found():
    assert not is_said("worker … exploded: …") and not is_said("…: exploded for no reason (…)") and not is_said("…")


def test_metrics_of_the_documents_are_those_of_the_server_and_its_dashboard():
    known = set(re.findall(r"\bray_\w+", (ROOT / "cluster" / "grafana" / "embinv.json").read_text(encoding="utf-8")))
    known |= {f"ray_{name}" for name in re.findall(r'"(embinv_\w+)"', (ROOT / "serve_app" / "metrics.py").read_text())}
    for path in DOCS:
        named = set(re.findall(r"\bray_(?:embinv|serve)_\w+", path.read_text(encoding="utf-8")))
        assert named <= known, path.name
    assert "ray_embinv_retries_total" in RUNBOOK.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "incident",
    "A node dies|A disk fills|A replica flaps|A bad checkpoint is rolled back|A key leaks|A job hangs|The head dies|"
    "Object storage is away|An upgrade goes wrong".split("|"),
)
def test_each_incident_says_what_to_do_how_it_ends_and_what_is_lost(incident):
    part = part_of_runbook(incident)
    assert "Shows" in part and "Do:" in part and "Over:" in part and "Lost:" in part
    assert "```bash" in part
