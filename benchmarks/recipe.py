"""Which recipe trains best: variants of one base, each trained for the same time on the same real text.

    python benchmarks/recipe.py --list                            the variants by group, and what is done
    python benchmarks/recipe.py --minutes 4 --pace                all of them, 4 minutes each at their measured pace
    python benchmarks/recipe.py --minutes 4 --only batch muon-0.02     a group and a variant; the base goes first
    python benchmarks/recipe.py --minutes 10 --combine both batch-64 ema-share-0.3     two changes together
    python benchmarks/recipe.py --minutes 4 --table               every run as Markdown; --draw writes recipe.png

A run trains for so many minutes of its own training, and is measured once at the end. With --pace the step of each
kind of variant is timed first, in turn with the base's, and a run makes as many steps as fit into the minutes at that
pace: a disturbed machine then changes how long a run takes and not what it is credited with. Time the steps while the
machine is quiet. A run that is done (its result file is there) is not made again. One JSON line a run on stdout.
"""

import argparse
import json
import os
import sys
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # its neighbours are benchmarks.*, however it is run

import torch

from benchmarks.english import english_pairs
from benchmarks.processes import in_a_fresh_process
from benchmarks.recipe_results import (
    PACE,
    draw,
    is_done,
    read_results,
    require_made_alike,
    result_file,
    table,
    write_result,
)
from benchmarks.recipe_run import ROUNDS, STEPS, measure_pace, read_data, train_and_measure
from benchmarks.recipe_variants import BASE, SETTINGS, Variant, choose
from embinv.config import Config, load_config

ROOT = Path(__file__).resolve().parents[1]
CONFIG = ROOT / "configs" / "minilm.yaml"
MEASURING = 40.0  # seconds of a run that are not training, until one has been made
LINE_EVERY = 20.0  # seconds, where no terminal is there


@dataclass(frozen=True)
class Plan:
    """What all runs of a call share; plain values, so that it travels to their processes."""

    pairs: Path
    minutes: float
    seq_len: int
    texts: int
    threads: int
    paced: bool

    def config(self, variant: Variant, seed: int) -> Config:
        """A run's settings."""
        extra = (f"data.seq_len={self.seq_len}", f"training.seed={seed}", f"training.minutes={self.minutes}")
        return load_config(CONFIG, [*SETTINGS, *variant.overrides, *extra])

    def identity(self, variant: Variant, seed: int) -> dict[str, Any]:
        """What a result file says of how it was made."""
        config = self.config(variant, seed)
        return {
            "benchmark": "recipe",
            "variant": variant.name,
            "group": variant.group,
            "overrides": list(variant.overrides),
            "parts": list(variant.parts),
            "seed": seed,
            "credited": "equal time at measured pace" if self.paced else "wall clock",
            "minutes": self.minutes,
            "data": f"{self.pairs.parent.name}/{self.pairs.name}",
            "held_out_texts": self.texts,
            "threads": self.threads,
            "settings": config.model_dump(mode="json", include={"model", "training"}),
        }


def run_task(plan: Plan, variant: Variant, seed: int, steps: int | None, label: str, later: float) -> dict[str, Any]:
    """One run, in a process of its own; `later` is how many seconds the runs after it will take."""
    torch.set_num_threads(plan.threads)
    config = plan.config(variant, seed)
    data = read_data(plan.pairs, plan.texts)
    spent = train_and_measure(variant, config, data, steps, Teller(label, later))
    return plan.identity(variant, seed) | spent


def pace_task(plan: Plan, variant: Variant, base: Variant) -> dict[str, Any]:
    """One calibration, in a process of its own."""
    torch.set_num_threads(plan.threads)
    data = read_data(plan.pairs, plan.texts)
    return measure_pace(variant, plan.config(variant, 0), base, plan.config(base, 0), data)


class Teller:
    """Says on stderr how far a run and the whole list are: one line that changes on a terminal, else now and then."""

    def __init__(self, label: str, later: float) -> None:
        self.label, self.later = label, later
        self.on_terminal = sys.stderr.isatty()
        self.told = time.monotonic() - LINE_EVERY

    def __call__(self, share: float, left: float, what: str) -> None:
        now = time.monotonic()
        if share < 1.0 and now - self.told < (0.5 if self.on_terminal else LINE_EVERY):
            return
        self.told = now
        line = f"{self.label}  {share:>4.0%}  {what}, {left:.0f} s left of it, {shown(left + self.later)} of all"
        print(f"\r\033[K{line}" if self.on_terminal else line, end="" if self.on_terminal else "\n", file=sys.stderr)
        sys.stderr.flush()


def shown(seconds: float) -> str:
    """Hours and minutes."""
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min"


def calibrate(plan: Plan, variants: list[Variant], path: Path) -> dict[str, Any]:
    """Times the step of every kind of variant that was not timed before; keeps what it found in `path`.

    Raises:
        ValueError: what is kept there was timed with another number of threads, other pairs or another base.
    """
    [base] = (variant for variant in variants if variant.name == BASE)
    own = plan.config(base, 0).model_dump(mode="json", include={"model", "training"})
    for name in ("minutes", "seed"):  # no step costs more for them
        del own["training"][name]
    same = {"threads": plan.threads, "data": f"{plan.pairs.parent.name}/{plan.pairs.name}", "settings": own}
    pace = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {**same, "kinds": {}}
    require_made_alike(path, pace, same, ("threads", "data"))
    kinds = {variant.cost_key: variant for variant in reversed(variants)}
    missing = [key for key in dict.fromkeys((BASE, *kinds)) if key not in pace["kinds"]]
    for number, key in enumerate(missing, start=1):
        found = in_a_fresh_process(pace_task, plan, kinds[key], base)
        if key == BASE:
            found |= {"seconds": found["base_seconds"], "ratio": 1.0}
        pace["kinds"][key] = found
        write_result(path, pace)
        print(
            f"timed {number} of {len(missing)} ({ROUNDS} x {STEPS} steps): {key}: {1000 * found['seconds']:.0f} ms, "
            f"{found['ratio']:.2f} of the base's",
            file=sys.stderr,
        )
    return pace


def steps_of(variant: Variant, minutes: float, pace: dict[str, Any]) -> int:
    """How many steps fit into the minutes: the base's pace, by the ratio that was measured side by side."""
    kinds = pace["kinds"]
    return max(1, round(60 * minutes / (kinds[BASE]["seconds"] * kinds[variant.cost_key]["ratio"])))


def run_all(plan: Plan, variants: list[Variant], seeds: list[int], folder: Path) -> None:
    """Makes the runs that are missing, one after the other."""
    runs = [(variant, seed) for seed in seeds for variant in variants]
    todo = [(v, s) for v, s in runs if not is_done(result_file(folder, v.name, s), plan.identity(v, s))]
    done, other = len(runs) - len(todo), MEASURING
    print(f"{len(todo)} runs to make, {done} done before: {folder}", file=sys.stderr)
    pace = calibrate(plan, variants, folder / PACE) if plan.paced and todo else None
    for number, (variant, seed) in enumerate(todo, start=1):
        later = (len(todo) - number) * (60 * plan.minutes + other)
        steps = steps_of(variant, plan.minutes, pace) if pace else None
        label = f"{number}/{len(todo)} {variant.name} seed {seed}"
        began = time.monotonic()
        result = in_a_fresh_process(run_task, plan, variant, seed, steps, label, later)
        other = max(0.0, time.monotonic() - began - 60 * plan.minutes)
        result |= {
            "pace": pace and pace["kinds"][variant.cost_key] | {"base": pace["kinds"][BASE]["seconds"]},
            "versions": {"embinv": version("embinv"), "torch": torch.__version__, "python": sys.version.split()[0]},
            "cores": os.cpu_count(),
            "date": time.strftime("%Y-%m-%d"),
        }
        write_result(result_file(folder, variant.name, seed), result)
        if sys.stderr.isatty():
            print(file=sys.stderr)
        print(
            json.dumps({name: value for name, value in result.items() if name not in ("right", "lengths")}), flush=True
        )


def list_variants(variants: list[Variant], seeds: list[int], folder: Path, minutes: float) -> str:
    """The variants by group, which runs are done, and how long the others take."""
    lines, missing = [], 0
    for variant in variants:
        done = [seed for seed in seeds if result_file(folder, variant.name, seed).is_file()]
        missing += len(seeds) - len(done)
        what = ", ".join([*variant.overrides, *variant.parts])
        lines.append(f"{variant.group:<18} {variant.name:<24} {'done' if len(done) == len(seeds) else '':<5} {what}")
    return "\n".join([*lines, f"{missing} runs to make, about {shown(missing * (60 * minutes + MEASURING))}: {folder}"])


def main(argv: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=4.0, help="training time of a run (default 4)")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="groups and variants")
    parser.add_argument(
        "--combine",
        nargs="+",
        action="append",
        default=[],
        metavar="NAME",
        help="a new name, then variants",
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=[0], metavar="K", help="default 0")
    parser.add_argument("--pace", action="store_true", help="runs of as many steps as fit at the measured pace")
    parser.add_argument("--seq-len", type=int, default=16, help="L (default 16)")
    parser.add_argument("--rows", type=int, default=100_000, help="texts (default 100,000)")
    parser.add_argument("--texts", type=int, default=1000, help="held-out texts to measure on (default 1,000)")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of a run (default: all cores)")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "recipe", help="results (default docs/recipe)")
    parser.add_argument("--pairs", type=Path, help="pairs of your own in place of the English ones")
    show = parser.add_mutually_exclusive_group()
    show.add_argument("--list", action="store_true", help="list variants and what is done, and run nothing")
    show.add_argument("--table", action="store_true", help="print the results as Markdown, and run nothing")
    show.add_argument("--draw", action="store_true", help="draw the results into OUT/recipe.png, and run nothing")
    arguments = parser.parse_args(argv)
    folder = arguments.out / f"{arguments.minutes:g}min-L{arguments.seq_len}"
    try:
        variants = choose(arguments.only, arguments.combine)
        if arguments.table:
            print(table(read_results(folder)))
        elif arguments.draw:
            draw(read_results(folder), arguments.out / "recipe.png")
            print(arguments.out / "recipe.png")
        elif arguments.list:
            print(list_variants(variants, arguments.seeds, folder, arguments.minutes))
        else:
            pairs = arguments.pairs.resolve() if arguments.pairs else english_pairs(arguments.seq_len, arguments.rows)
            plan = Plan(pairs, arguments.minutes, arguments.seq_len, arguments.texts, arguments.threads, arguments.pace)
            run_all(plan, variants, arguments.seeds, folder)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from error
    except KeyboardInterrupt:
        raise SystemExit("stopped; run the same command again to go on") from None


if __name__ == "__main__":
    main()
