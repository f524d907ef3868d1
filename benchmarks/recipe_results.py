"""The result files of the recipe comparison, the table of them and their picture."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from math import sqrt
from pathlib import Path
from statistics import stdev, variance
from typing import Any

import numpy as np

from benchmarks.recipe_variants import BASE, VARIANTS
from embinv.metrics.figures import Figure

IDENTITY = ("variant", "overrides", "parts", "seed", "credited", "minutes", "data", "held_out_texts", "threads")
SHARED = ("credited", "minutes", "data", "held_out_texts", "threads")  # by all that are compared
COMPARED = "token_accuracy_8_passes"
PACE = "pace.json"
SURE = 2.0  # standard errors
COLUMNS = "group|variant|changes|seed|steps|samples/s|tokens right|over the base|1 pass|whole texts|NELBO".split("|")
COLORS = {-1: "#a8323e", 0: "#888888", 1: "#1f7a4d"}  # more than SURE standard errors below the base, near it, above it


@dataclass(frozen=True)
class Run:
    """One result file."""

    content: dict[str, Any]

    @property
    def name(self) -> str:
        return self.content["variant"]

    @property
    def seed(self) -> int:
        return self.content["seed"]

    @property
    def group(self) -> str:
        return self.content["group"]

    def figure(self, name: str = COMPARED) -> Figure:
        """A figure with its standard error over texts."""
        shown = self.content["figures"][name]
        return Figure(shown["value"], shown["standard_error"], self.content["held_out_texts"])

    def over(self, base: "Run") -> Figure:
        """How much more of the tokens is right than in `base`, text by text on the same texts.

        Its standard error is that of a ratio estimator over texts; what another seed would have changed is not in it.
        """
        mine, its, lengths = (
            np.array(text.split(), dtype=float)
            for text in (self.content["right"], base.content["right"], self.content["lengths"])
        )
        assert len(mine) == len(its), "runs of one folder are measured on the same texts"
        difference = (mine - its).sum() / lengths.sum()
        residual = ((mine - its - difference * lengths) ** 2).sum() / (len(mine) - 1)
        return Figure(difference, sqrt(residual / len(mine)) / lengths.mean(), len(mine))


def result_file(folder: Path, name: str, seed: int) -> Path:
    """Where a run is kept."""
    return folder / f"{name}-seed{seed}.json"


def is_done(path: Path, wanted: dict[str, Any]) -> bool:
    """Whether a run was made before, and as it is wanted now.

    Raises:
        ValueError: it was made otherwise; the message names the field.
    """
    if not path.is_file():
        return False
    require_made_alike(path, json.loads(path.read_text(encoding="utf-8")), wanted, IDENTITY)
    return True


def require_made_alike(path: Path, found: dict[str, Any], wanted: dict[str, Any], fields: Sequence[str]) -> None:
    """Refuses what was made with other fields or other `settings` than are wanted now.

    Raises:
        ValueError: naming the first that differs, or it does not say.
    """
    if "settings" not in found:
        raise ValueError(
            f"{path}: does not say with which settings it was made; give another --out, or remove the file"
        )
    pairs = [(name, found.get(name), wanted[name]) for name in fields]
    for section, settings in wanted["settings"].items():  # settings that were added since then are passed over
        kept = found["settings"].get(section, {})
        pairs += [(f"{section}.{name}", kept[name], value) for name, value in settings.items() if name in kept]
    for name, was, now in pairs:
        if was != now:
            raise ValueError(f"{path}: made with {name} {was!r}, not {now!r}; give another --out, or remove the file")


def write_result(path: Path, result: dict[str, Any]) -> None:
    """Writes JSON so that a reader never sees half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    partial.replace(path)


def read_results(folder: Path) -> list[Run]:
    """All runs of a folder, by group in the order of the list of variants, then from the best down.

    Raises:
        ValueError: there is none, or two of them cannot be compared.
    """
    files = sorted(folder.glob("*-seed*.json"))
    if not files:
        raise ValueError(f"{folder} holds no results; make them with python benchmarks/recipe.py")
    runs = [Run(json.loads(path.read_text(encoding="utf-8"))) for path in files]
    for path, run in zip(files, runs, strict=True):
        for name in SHARED:
            was, first = run.content[name], runs[0].content[name]
            if was != first:
                raise ValueError(
                    f"{path} was made with {name} {was!r} and {files[0].name} with {first!r}, so they cannot stand in "
                    "one table; move one of them away"
                )
    groups = list(dict.fromkeys([variant.group for variant in VARIANTS] + sorted(run.group for run in runs)))
    return sorted(runs, key=lambda run: (groups.index(run.group), -run.figure().value, run.name, run.seed))


def differences(runs: Sequence[Run]) -> dict[tuple[str, int], Figure]:
    """Each run over the base of its own seed, where there is one.

    What another seed would have changed is known where the base has several: their variance is then added, once for
    each of the two runs.
    """
    bases = {run.seed: run for run in runs if run.name == BASE}
    luck = 2 * variance(base.figure().value for base in bases.values()) if len(bases) > 1 else 0.0
    found = {(r.name, r.seed): r.over(bases[r.seed]) for r in runs if r.name != BASE and r.seed in bases}
    return {key: replace(over, standard_error=sqrt(over.standard_error**2 + luck)) for key, over in found.items()}


def error_of(runs: Sequence[Run]) -> str:
    """What the standard error of a difference holds, for a caption."""
    seeds = sum(run.name == BASE for run in runs)
    return (
        f"over texts, and over the base's {seeds} seeds" if seeds > 1 else "over texts; luck of the seed is not in it"
    )


def table(runs: Sequence[Run]) -> str:
    """A Markdown table of every run; what is more than `SURE` standard errors above the base is bold."""
    first, over = runs[0].content, differences(runs)
    gaps = [name for name in first["figures"] if name.startswith("gap_filling")]
    shares = " ".join(name.split("_")[3] for name in gaps)
    columns = [*COLUMNS, f"gaps filled at {shares}"]
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    for run in runs:
        content, figures = run.content, run.content["figures"]
        difference = over.get((run.name, run.seed))
        right = _percent(run.figure())
        cells = [
            run.group,
            run.name,
            changes(content),
            str(run.seed),
            f"{content['steps']:,}",
            f"{content['samples_per_second']:.0f}",
            f"**{right}**" if difference is not None and _sign(difference) > 0 else right,
            "" if difference is None else f"{100 * difference.value:+.1f} ± {100 * difference.standard_error:.1f}",
            _percent(run.figure("token_accuracy_1_passes")),
            _percent(run.figure("exact_match")),
            f"{figures['nelbo']:.3f}",
            " ".join(f"{figures[name]:.1%}" for name in gaps),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    notes = [
        f"{first['minutes']:g} minutes of training a run ({first['credited']}), {first['data']}, {first['threads']} "
        f"threads; {first['held_out_texts']:,} held-out texts written from a full mask in 8 passes, content tokens; "
        f"± is one standard error over texts, of a difference {error_of(runs)}; bold is more than {SURE:g} above the "
        "base. Filling gaps is no inversion."
    ]
    bases = [run.figure().value for run in runs if run.name == BASE]
    if len(bases) > 1:
        notes.append(
            f"The base with {len(bases)} seeds: {', '.join(f'{value:.1%}' for value in bases)}, standard deviation "
            f"{100 * stdev(bases):.2f} points: so much is luck."
        )
    return "\n".join([*notes, "", *lines])


def changes(content: dict[str, Any]) -> str:
    """What a run changed, in one line."""
    return ", ".join([part.partition(".")[2] for part in content["overrides"]] + content["parts"])


def _percent(figure: Figure) -> str:
    return f"{figure.value:.1%} ± {figure.standard_error:.1%}"


def _sign(difference: Figure) -> int:
    """1 or -1 where it is more than `SURE` standard errors from zero."""
    return int(np.sign(difference.value)) if abs(difference.value) > SURE * difference.standard_error else 0


def draw(runs: Sequence[Run], path: Path) -> None:
    """A dot for each run with its standard error, by group, and a line where the base is."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    over = differences(runs)
    rows: list[Run | str] = []
    for group, members in groupby(runs, lambda run: run.group):
        rows += [group, *members]
    figure, axes = plt.subplots(figsize=(9, 1.2 + 0.21 * len(rows)), constrained_layout=True)
    bases = [100 * run.figure().value for run in runs if run.name == BASE]
    if bases:
        axes.axvline(sum(bases) / len(bases), color="#1f4e8c", linewidth=1)
    names, several = [], len({run.seed for run in runs}) > 1
    for place, row in enumerate(rows):
        if isinstance(row, str):
            names.append(row.upper())
            continue
        names.append(f"{row.name}  ({row.seed})" if several else row.name)
        difference, found = over.get((row.name, row.seed)), row.figure()
        color = "#1f4e8c" if difference is None else COLORS[_sign(difference)]
        axes.errorbar(
            100 * found.value, place, xerr=100 * found.standard_error, fmt="o", color=color, markersize=4, linewidth=1.2
        )
        said = "" if difference is None else f"{100 * difference.value:+.1f}"
        axes.annotate(said, (1.01, place), xycoords=("axes fraction", "data"), fontsize=7, va="center", color=color)
    axes.set_yticks(range(len(names)), names, fontsize=7.5)
    for label, row in zip(axes.get_yticklabels(), rows, strict=True):
        if isinstance(row, str):
            label.set(fontweight="bold", color="#444444", fontsize=7)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", alpha=0.3)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    content = runs[0].content
    axes.set_xlabel(
        f"% of content tokens right from a full mask, 8 passes, {content['held_out_texts']:,} held-out texts "
        "(bars: one standard error over texts)\nright: points over the base (line) of the same seed, which stands in "
        f"brackets\ngreen and red: more than {SURE:g} standard errors ({error_of(runs)})",
        fontsize=8,
    )
    axes.set_title(f"{content['minutes']:g} minutes each, {content['data']}, {content['threads']} threads", fontsize=9)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)
