"""align.json, align.md and align.png: an alignment for programs, for people, and at a glance. Nothing is measured here.

The JSON holds every figure with its standard error, the Markdown is written from the JSON's values, and the plot shows
token F1 by known pairs between its references.
"""

import json
import re
from collections.abc import Mapping, Sequence
from html import escape
from math import inf
from pathlib import Path
from typing import Any, cast

from embinv.aligning import Alignment, KnownPairs, Leakage
from embinv.data.folders import whole_file
from embinv.evaluation.drawing import INK, MUTED, SERIES, STYLE
from embinv.metrics.figures import rounded

JSON, MARKDOWN, PLOT = "align.json", "align.md", "align.png"
FIGURES = {"token_f1": "token F1", "exact_match": "whole texts right", "bleu": "BLEU", "cosine": "cosine"}
FORMATS = {"bleu": ".1f", "cosine": ".3f"}
REFERENCES = {
    "own": "the encoder's own vectors",
    "unmapped": "without the map",
    "mean": "the mean of the known texts' vectors",
    "other": "the encoder's vectors of other texts",
}
"""Names of the references, in the order of the table."""

EXAMPLES = 10
TICKS_APART = 1.25  # numbers of known pairs that are nearer to each other have one label


def report_of(alignment: Alignment, pairs: KnownPairs, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Everything that is reported, as JSON takes it.

    Args:
        alignment: what was measured.
        pairs: all usable pairs.
        facts: what else is said: name, encoder, known, longest, steps, seed.
    """
    last = alignment.by_known[-1]
    return {
        **facts,
        "dimensions": {"unknown": pairs.unknown.shape[1], "encoder": pairs.own.shape[1]},
        "usable_pairs": len(pairs),
        "left_out": pairs.dropped,
        "held_out": len(alignment.held_out),
        "held_out_like_known": alignment.copies,
        "held_out_longer_than_can_be_written": alignment.beyond,
        "by_known_pairs": [figures_of(each) for each in alignment.by_known],
        "references": {
            name: figures_of(alignment.references[name]) for name in REFERENCES if name in alignment.references
        },
        "examples": [
            {"original": text, "recovered": inversion.text}
            for text, inversion in zip(alignment.held_out.texts[:EXAMPLES], last.inversions, strict=False)
        ],
    }


def figures_of(leakage: Leakage) -> dict[str, Any]:
    """Figures with standard errors; of a map also the known pairs, its kind and its cross-validation."""
    figures = {"n": leakage.figures["token_f1"].n, **rounded(leakage.figures)}
    if leakage.chosen is None:
        return figures
    chosen = leakage.chosen
    scores = {"folds": chosen.folds, "cross_validation": rounded(chosen.scores)}
    return {"known_pairs": leakage.known, "map": chosen.name, **figures, **scores}


def write_report(folder: Path, report: Mapping[str, Any]) -> None:
    """Writes the three files into a folder, which is made.

    Raises:
        ValueError: the folder cannot be made or written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with whole_file(folder / JSON) as partial:
            partial.write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        with whole_file(folder / MARKDOWN) as partial:
            partial.write_text(render(report), encoding="utf-8")
        with whole_file(folder / PLOT) as partial:
            draw(partial, report)
    except OSError as error:
        raise ValueError(f"--report {folder}: cannot be written ({error.strerror}); give another folder") from error


def table(report: Mapping[str, Any]) -> list[list[str]]:
    """Header and rows: by known pairs, then the references; ± is the standard error."""
    rows = [["vectors inverted", "map", *FIGURES.values()]]
    for each in report["by_known_pairs"]:
        rows.append([f"mapped by {each['known_pairs']:,} known pairs", each["map"], *_cells(each)])
    rows += [[REFERENCES[name], "-", *_cells(each)] for name, each in report["references"].items()]
    return rows


def markdown_table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a Markdown table whose first row is its header."""
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return [lines[0], f"|{'---|' * len(rows[0])}", *lines[1:]]


def render(report: Mapping[str, Any]) -> str:
    """The report as Markdown."""
    dimensions, left_out = report["dimensions"], {why: n for why, n in report["left_out"].items() if n}
    lines = [
        f"# {_escape(report['name'])}: what an unknown space gives away through a map",
        "",
        f"Vectors of {dimensions['unknown']} dimensions ({_escape(report['known'])}) are mapped to those of "
        f"{_escape(report['encoder']['model'])} ({dimensions['encoder']}) and inverted in at most {report['steps']} "
        f"passes. The map is linear, fitted on texts whose vectors are known in both spaces, and its kind is chosen by "
        f"cross-validation among these alone.",
        "",
        f"Measured on {report['held_out']:,} pairs that no fit has seen, of {report['usable_pairs']:,}; ± is the "
        "standard error over texts.",
        "",
        *markdown_table(table(report)),
        "",
        "- token F1: between the bags of tokens of original and recovered text, mean over texts.",
        "- cosine: between the vector that was inverted and the encoder's own of the same text.",
        "- the encoder's own vectors show what the inverter recovers where no map is needed; the mean of the known "
        "texts' vectors, what a map scores that has learned nothing; vectors of other texts, what the inverter "
        "scores by writing texts of this kind without knowing which.",
        "",
        f"![token F1 by known pairs]({PLOT})",
        "",
    ]
    if left_out:
        lines += [f"Rows left out: {', '.join(f'{count:,} ({why})' for why, count in left_out.items())}.", ""]
    if report["held_out_like_known"]:
        lines += [
            f"{report['held_out_like_known']:,} more were held out and not measured on, since a known text is nearly "
            "the same.",
            "",
        ]
    if report["held_out_longer_than_can_be_written"]:
        lines += [
            f"{report['held_out_longer_than_can_be_written']:,} of the held-out texts are longer than the "
            f"{report['longest']} tokens that the inverter writes at most, and are measured whole.",
            "",
        ]
    lines += ["## Cross-validation", "", "Mean cosine of mapped and true vectors over pairs outside the fold.", ""]
    kinds = list(report["by_known_pairs"][0]["cross_validation"])
    rows = [["map", *(f"{each['known_pairs']:,} pairs" for each in report["by_known_pairs"])]]
    for kind in kinds:
        scores = [(each["cross_validation"], each["map"]) for each in report["by_known_pairs"]]
        rows.append(
            [kind, *(f"**{found[kind]:.3f}**" if kind == best else f"{found[kind]:.3f}" for found, best in scores)]
        )
    lines += [*markdown_table(rows), "", "## Examples", ""]
    lines += [f"The first held-out texts, not chosen; {report['by_known_pairs'][-1]['known_pairs']:,} known pairs.", ""]
    examples = [[_escape(each["original"]), _escape(each["recovered"])] for each in report["examples"]]
    return "\n".join([*lines, *markdown_table([["original", "recovered from its mapped vector"], *examples]), ""])


def draw(path: Path, report: Mapping[str, Any]) -> None:
    """Draws token F1 by known pairs, with standard errors, and the references as lines across, into a PNG."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # no pyplot: which backend a program has is its own
    from matplotlib.figure import Figure

    rows = report["by_known_pairs"]
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(cast(Any, STYLE))
        matplotlib.rcParams.update(cast(Any, dict.fromkeys(("figure.facecolor", "axes.facecolor"), "white")))
        figure = Figure(figsize=(7, 5), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        known = [row["known_pairs"] for row in rows]
        axes.errorbar(
            known,
            [row["token_f1"] for row in rows],
            yerr=[row["token_f1_se"] for row in rows],
            color=SERIES[0],
            marker="o",
            capsize=3,
            label="through the map",
        )
        looks = dict(zip(REFERENCES, ("--", "-.", (0, (5, 1, 1, 1, 1, 1)), ":"), strict=True))
        for name, each in report["references"].items():
            axes.axhline(each["token_f1"], color=MUTED, linestyle=looks[name], label=REFERENCES[name])
        axes.set_xscale("log")
        apart = [k for k, after in zip(known, [*known[1:], inf], strict=True) if after > TICKS_APART * k]
        axes.set_xticks(apart, [f"{each:,}" for each in apart])
        axes.minorticks_off()
        axes.set(xlabel="known pairs", ylabel="token F1", ylim=(0, 1))
        axes.set_title(f"{report['held_out']:,} held-out texts", color=INK, fontsize=12)
        figure.legend(loc="outside lower center", ncols=2)
        figure.savefig(path, format="png", dpi=120, metadata={"Software": None})


def _cells(figures: Mapping[str, Any]) -> list[str]:
    return [_cell(figures, name) for name in FIGURES]


def _cell(figures: Mapping[str, Any], name: str) -> str:
    if name not in figures:
        return "-"
    value, error = (format(figures[each], FORMATS.get(name, ".1%")) for each in (name, f"{name}_se"))
    return f"{value} ± {error}"


def _escape(text: str) -> str:
    """Text inside a cell, where it can be neither markup, nor a link, nor a column."""
    return re.sub(r"([\\`*_\[\]|])", r"\\\1", escape(" ".join(text.split()), quote=False))
