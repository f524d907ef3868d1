"""benchmarks/processes.py: sides take turns in alternating order, and what needs no Ray is imported without it."""

import os
import subprocess
import sys
from pathlib import Path

from benchmarks import processes
from benchmarks.processes import in_a_fresh_process, in_turns, job_environment, own_ray_environment

ROOT = Path(__file__).resolve().parents[2]


def test_the_order_of_the_sides_is_turned_round_from_round_to_round(monkeypatch):
    made = []

    def here(function, *arguments):
        made.append(arguments[0])
        return function(*arguments)

    monkeypatch.setattr(processes, "in_a_fresh_process", here)
    sides = {"one": (str.upper, "a"), "two": (str.upper, "b"), "three": (str.upper, "c")}
    assert in_turns(sides, 3) == {"one": ["A"] * 3, "two": ["B"] * 3, "three": ["C"] * 3}
    assert made == [*"abc", *"cba", *"abc"]
    made.clear()
    in_turns(sides, 1, first=1)
    assert made == [*"cba"]


def test_a_call_runs_in_another_process():
    assert in_a_fresh_process(os.getpid) != os.getpid()


def test_a_job_finds_this_python_and_a_cluster_without_a_token(monkeypatch):
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    assert job_environment()["RAY_AUTH_MODE"] == "disabled"
    assert job_environment()["PATH"].startswith(f"{Path(sys.executable).parent}:")
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    assert job_environment()["RAY_AUTH_MODE"] == "token"


def test_scripts_of_training_are_imported_without_ray_and_deepspeed():
    blocked = "import sys; sys.modules['ray'] = sys.modules['deepspeed'] = None; "
    imports = "import benchmarks.train, benchmarks.recipe, benchmarks.gpu_train"
    done = subprocess.run(
        [sys.executable, "-c", blocked + imports], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_a_ray_of_its_own_hears_nothing_of_another_one(monkeypatch, tmp_path):
    monkeypatch.setenv("RAY_ADDRESS", "ray://elsewhere:10001")
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    environment = own_ray_environment(tmp_path)
    assert "RAY_ADDRESS" not in environment and environment["RAY_AUTH_MODE"] == "disabled"
    assert environment["RAY_TMPDIR"] == str(tmp_path) and environment["PATH"] == job_environment()["PATH"]
