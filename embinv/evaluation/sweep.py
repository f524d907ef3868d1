"""What each way of decoding recovers, at each budget, on the same texts: the tables behind the choice of a way.

Each strategy runs at its defaults; `remasking` at several rates too. Times are those of one worker at work, in batches
as the inverter takes them, and only comparable within one report.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from embinv.decoding.autoregressive import WRITERS
from embinv.decoding.options import DecodingOptions
from embinv.evaluation.generation import accuracy_by_language
from embinv.inversion import Inversion
from embinv.metrics.figures import Figure, rounded
from embinv.metrics.tokens import exact_match, token_accuracy, token_f1
from embinv.tasks import Done, Task, Way

BUDGETS = (1, 2, 4, 8, 16)  # passes, and L
RATES = (0.0, 0.05, 0.1, 0.2)  # probability that a token that is known is hidden again
_PASSES, _RATE = "sweep", "remasking"


def sweep_tasks(strategies: Sequence[str], vectors: np.ndarray, steps: int, seq_len: int, seed: int) -> dict[str, Task]:
    """Every strategy at every budget up to L and at `steps`, and the rates of remasking at `steps` and L.

    One that writes from left to right has one budget, a pass for each token.

    Args:
        strategies: the inverter's.
        vectors: [N, D] of the texts that the tables are measured on.
        steps: passes of the report's own figures.
        seq_len: L.
        seed: for decoders that sample.
    """
    tasks = {}
    for strategy in strategies:
        budgets = {*(budget for budget in BUDGETS if budget < seq_len), min(steps, seq_len), seq_len}
        for passes in [seq_len] if strategy in WRITERS else sorted(budgets):
            tasks[f"{_PASSES} {strategy} {passes}"] = Task(vectors, Way(strategy, passes), seed)
    for rate in RATES if "remasking" in strategies else ():
        options = DecodingOptions(remasking="probability", remasking_rate=rate)
        for passes in sorted({min(steps, seq_len), seq_len}):
            tasks[f"{_RATE} {rate} {passes}"] = Task(vectors, Way("remasking", passes, options), seed)
    return tasks


def sweep_tables(
    tasks: Mapping[str, Task],
    done: Mapping[str, Done],
    originals: Sequence[list[int]],
    langs: Sequence[str],
    passes: int,
) -> dict[str, Any]:
    """`sweep`, `remasking` and `by_strategy_and_language` of a report; the last only of several languages.

    Args:
        tasks: of `sweep_tasks`; others are passed over.
        done: what came of them.
        originals: content ids of the N texts.
        langs: their languages.
        passes: of `by_strategy_and_language`.
    """
    found: dict[str, list[dict[str, Any]]] = {_PASSES: [], _RATE: []}
    by_language: dict[str, dict[str, Any]] = {}
    for name, task in tasks.items():
        table = name.partition(" ")[0]
        if table not in found:
            continue
        way, inversions = task.way, done[name].inversions
        row = {
            "strategy": way.strategy,
            "passes": way.steps,
            "n": len(inversions),
            **_figures(originals, inversions),
            "milliseconds": round(1000 * done[name].seconds / len(inversions), 3),
        }
        if table == _RATE:
            row["remasking_rate"] = way.options.remasking_rate
        elif way.steps == passes:
            by_language[way.strategy] = accuracy_by_language(langs, originals, inversions)
        found[table].append(row)
    languages = {lang for row in by_language.values() for lang in row}
    tables = {name: rows for name, rows in found.items() if rows}
    return tables | ({"by_strategy_and_language": by_language} if len(languages) > 1 else {})


def _figures(originals: Sequence[list[int]], inversions: Sequence[Inversion]) -> dict[str, float]:
    ids = [inversion.token_ids for inversion in inversions]
    figures: dict[str, Figure] = {
        "token_accuracy": token_accuracy(originals, ids),
        "token_f1": token_f1(originals, ids),
        "exact_match": exact_match(originals, ids),
    }
    return rounded(figures)
