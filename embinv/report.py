"""report.md: an evaluation for people, from the same values as report.json. Nothing is measured here."""

from collections.abc import Mapping, Sequence
from typing import Any

NAMES = {
    "token_accuracy": "tokens right",
    "exact_match": "whole texts right",
    "token_f1": "token F1",
    "bleu": "BLEU",
    "cosine": "cosine",
}
BASELINES = {
    "zero": "zero embedding",
    "shuffled": "somebody else's embedding",
    "nearest": "nearest training text",
}


GROWN = 3  # texts whose recoveries are shown over the run


def milestones(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What a run's fixed texts were recovered as at its first, middle and last validation.

    Args:
        rows: of examples.jsonl: step, id, original, recovered.

    Returns:
        At most three of {"step", "texts": [{"id", "original", "recovered"}]}, by step; none if there are no rows.
    """
    steps = sorted({row["step"] for row in rows})
    chosen = sorted({steps[0], steps[(len(steps) - 1) // 2], steps[-1]}) if steps else []
    fields = ("id", "original", "recovered")
    return [
        {"step": step, "texts": [{key: row[key] for key in fields} for row in rows if row["step"] == step]}
        for step in chosen
    ]


def figure_table(report: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Header and rows: the inverter first, then each baseline."""
    rows = [["**recovered from the vector**", *(_cell(report, name) for name in NAMES)]]
    for key, label in BASELINES.items():
        rows.append([f"baseline: {label}", *(_cell(report["baselines"][key], name) for name in NAMES)])
    return ["", *NAMES.values()], rows


def _cell(figures: dict[str, Any], name: str) -> str:
    if name not in figures:
        return "-"
    value, error = figures[name], figures[f"{name}_se"]
    if name == "bleu":
        return f"{value:.1f} ± {error:.1f}"
    if name == "cosine":
        return f"{value:.3f} ± {error:.3f}"
    return f"{value:.1%} ± {error:.1%}"


def render(report: dict[str, Any]) -> str:
    """The report as Markdown."""
    header, rows = figure_table(report)
    speed = ", ".join(f"{name} {value:,.0f}/s" for name, value in report["samples_per_second"].items())
    seconds = ", ".join(f"{name} {value:,.0f} s" for name, value in report["seconds"].items())
    lines = [
        f"# {report['name']}: what its vectors give away",
        "",
        f"{report['n']:,} held-out texts of {report['encoder']}, each generated from a full mask in {report['steps']} "
        f"passes ({report['strategy']} order, at most {report['seq_len'] - 1} tokens). Content tokens only; ± is the "
        "standard error over texts.",
        "",
        *_markdown_table(header, rows),
        "",
        *(f"- {NAMES[name]}: {meaning}" for name, meaning in report["definitions"].items() if name in report),
        "",
    ]
    if "cosine" not in report:
        lines += ["The cosine is left out: the encoder was not at hand.", ""]
    if len(report["languages"]) > 1:
        rows = [[lang, str(v["n"]), _cell(v, "token_accuracy")] for lang, v in report["languages"].items()]
        lines += ["## By language", "", *_markdown_table(["language", "n", NAMES["token_accuracy"]], rows), ""]
    examples = [[_escape(e["original"]), _escape(e["recovered"]), f"{e['confidence']:.2f}"] for e in report["examples"]]
    lines += ["## Examples", "", "The first of the held-out texts, not chosen.", ""]
    lines += _markdown_table(["original", "recovered from its vector alone", "confidence"], examples)
    lines += ["", *_growth(report.get("recoveries") or []), f"Samples per second: {speed}. Time: {seconds}.", ""]
    return "\n".join(lines)


def _growth(recoveries: Sequence[Mapping[str, Any]]) -> list[str]:
    """How the recoveries of a few validation texts grew over the run, and all of them at its last validation."""
    if not recoveries:
        return []
    last = recoveries[-1]
    lines = [
        "## While it was learning",
        "",
        "Validation texts, fixed before the run, recovered from a full mask at some of its validations; the last one "
        "may come after the checkpoint that is measured above.",
        "",
    ]
    if len(recoveries) > 1:
        said = [{text["id"]: text["recovered"] for text in moment["texts"]} for moment in recoveries]
        header = ["original", *(f"step {moment['step']:,}" for moment in recoveries)]
        rows = [
            [_escape(text["original"]), *(_escape(texts[text["id"]]) for texts in said)]
            for text in last["texts"][:GROWN]
        ]
        lines += [*_markdown_table(header, rows), ""]
    rows = [[_escape(text["original"]), _escape(text["recovered"])] for text in last["texts"]]
    return [*lines, *_markdown_table(["original", f"recovered at step {last['step']:,}"], rows), ""]


def _markdown_table(header: list[str], rows: list[list[str]]) -> list[str]:
    return [
        f"| {' | '.join(header)} |",
        f"|{'---|' * len(header)}",
        *(f"| {' | '.join(row)} |" for row in rows),
    ]


def _escape(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
