from dataclasses import replace

import numpy as np
import pytest

from embinv.decoding.strategies import STRATEGIES
from embinv.evaluation.sweep import RATES, sweep_tables, sweep_tasks
from embinv.inversion import Inversion
from embinv.tasks import Done, Task, Way

VECTORS = np.zeros((4, 8), np.float32)
ORIGINALS = [[3, 4, 5], [3, 4], [5, 6, 7, 8], [9]]
LANGS = ["en", "de", "en", "de"]


def said(*texts):
    return [Inversion("", list(text), [], 1.0) for text in texts]


@pytest.mark.parametrize(
    ("seq_len", "steps", "budgets"),
    [(28, 8, [1, 2, 4, 8, 16, 28]), (16, 8, [1, 2, 4, 8, 16]), (12, 5, [1, 2, 4, 5, 8, 12]), (4, 32, [1, 2, 4])],
)
def test_every_strategy_runs_at_every_budget(seq_len, steps, budgets):
    tasks = sweep_tasks(tuple(STRATEGIES), VECTORS, steps, seq_len, seed=3)
    ways = [task.way for name, task in tasks.items() if name.startswith("sweep ")]
    assert [(way.strategy, way.steps) for way in ways] == [(name, steps) for name in STRATEGIES for steps in budgets]
    rates = [task.way for name, task in tasks.items() if name.startswith("remasking ")]
    expected = [(rate, passes) for rate in RATES for passes in sorted({min(steps, seq_len), seq_len})]
    assert [(way.options.remasking_rate, way.steps) for way in rates] == expected
    assert all(task.seed == 3 and task.vectors is VECTORS for task in tasks.values())
    for way in [*ways, *rates]:
        way.options.read_by(way.strategy)  # raises for an option that does nothing


def test_what_writes_from_left_to_right_has_one_budget():
    tasks = sweep_tasks(("greedy", "beam"), VECTORS, 8, 28, seed=3)
    assert [(task.way.strategy, task.way.steps) for task in tasks.values()] == [("greedy", 28), ("beam", 28)]


def test_tables_of_a_case_made_by_hand():
    tasks = sweep_tasks(tuple(STRATEGIES), VECTORS, 2, 4, seed=0)
    done = {name: Done(said(*ORIGINALS), 2.0) for name in tasks}
    done["sweep euler 2"] = replace(done["sweep euler 2"], inversions=said([3, 4, 5], [0, 0], [5, 6, 7, 8], [9]))
    tables = sweep_tables(tasks | {"test": Task(VECTORS, Way("confidence", 2))}, done, ORIGINALS, LANGS, passes=2)
    rows = {(row["strategy"], row["passes"]): row for row in tables["sweep"]}
    assert len(rows) == len(STRATEGIES) * 3
    assert rows["confidence", 1]["token_accuracy"] == 1.0 and rows["confidence", 1]["milliseconds"] == 500.0
    assert rows["euler", 2]["token_accuracy"] == pytest.approx(0.8) and rows["euler", 2]["exact_match"] == 0.75
    assert rows["euler", 2]["token_accuracy_se"] > 0 and rows["euler", 2]["n"] == 4
    assert [(row["remasking_rate"], row["passes"]) for row in tables["remasking"]] == [
        (rate, passes) for rate in RATES for passes in (2, 4)
    ]
    euler = tables["by_strategy_and_language"]["euler"]
    assert euler["en"]["token_accuracy"] == 1.0 and euler["de"]["token_accuracy"] == pytest.approx(1 / 3, abs=1e-4)
    assert tables["by_strategy_and_language"].keys() == STRATEGIES.keys()


def test_one_language_needs_no_table_of_languages():
    tasks = sweep_tasks(tuple(STRATEGIES), VECTORS, 2, 4, seed=0)
    done = {name: Done(said(*ORIGINALS), 2.0) for name in tasks}
    assert sweep_tables(tasks, done, ORIGINALS, ["en"] * 4, passes=2).keys() == {"sweep", "remasking"}
