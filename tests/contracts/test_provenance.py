"""Every job's output says how it was made: for each job a test runs it and asks `require_provenance` of its folder."""

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BY_OTHERS = {"jobs/demo.py"}  # runs the others, each of which says it of its own output
COMMANDS = {f"embinv {name}" for name in ("invert", "audit", "align", "import", "upgrade")}  # that leave an output


def jobs():
    return {
        f"jobs/{path.name}"
        for path in (ROOT / "jobs").glob("*.py")
        if '__name__ == "__main__"' in path.read_text(encoding="utf-8")
    }


def asked_for():
    """Second arguments of all calls of `require_provenance` in the tests."""
    found = set()
    for path in (ROOT / "tests").rglob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            called = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id
            if called == "require_provenance" and isinstance(node.args[1], ast.Constant):
                found.add(node.args[1].value)
    return found


def test_a_test_of_each_job_and_command_looks_at_its_provenance():
    assert len(jobs()) >= 8
    assert jobs() - BY_OTHERS - asked_for() == set()
    assert COMMANDS - asked_for() == set()


def test_nothing_decides_by_it():
    """Only what adds to the file or copies it may read it."""
    readers = {
        str(path.relative_to(ROOT))
        for package in ("embinv", "jobs", "serve_app")
        for path in (ROOT / package).rglob("*.py")
        if "read_provenance" in path.read_text(encoding="utf-8")
    }
    assert readers == {"embinv/provenance/sittings.py", "embinv/upgrading.py", "jobs/train_recorder.py"}
