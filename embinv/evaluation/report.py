"""report.md: an evaluation for people, from the same values as report.json. Nothing is measured here."""

from collections.abc import Mapping, Sequence
from html import escape
from types import MappingProxyType
from typing import Any

from embinv.decoding.autoregressive import WRITERS
from embinv.decoding.options import DecodingOptions

NAMES = {
    "token_accuracy": "tokens right",
    "exact_match": "whole texts right",
    "token_f1": "token F1",
    "bleu": "BLEU",
    "entity_recall": "entities found",
    "cosine": "cosine",
}
MORE = {
    "rouge_1": "ROUGE-1",
    "rouge_l": "ROUGE-L",
    "character_error_rate": "character error rate",
    "length_error": "length error",
    "length_bias": "length bias",
}
PERPLEXITIES = {"perplexity": "perplexity", "perplexity_of_originals": "perplexity of the originals"}
TRUST = {"calibration_error": "calibration error", "text_calibration_error": "calibration error of texts"}
GAPS = {f"accuracy_at_{share}_mask": f"accuracy at {share} mask" for share in ("10%", "50%", "100%")}
LABELS = NAMES | MORE | PERPLEXITIES | TRUST | GAPS
BASELINES = {
    "zero": "zero embedding",
    "shuffled": "somebody else's embedding",
    "nearest": "nearest training text",
    "unconditional": "one fixed text, without a vector",
}


def by_validation(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What a run's fixed texts were recovered as at each of its validations.

    Args:
        rows: of examples.jsonl: step, id, original, recovered.

    Returns:
        {"step", "texts": [{"id", "original", "recovered"}]} of each validation, by step.
    """
    fields = ("id", "original", "recovered")
    return [
        {"step": step, "texts": [{key: row[key] for key in fields} for row in rows if row["step"] == step]}
        for step in sorted({row["step"] for row in rows})
    ]


def figure_table(
    report: dict[str, Any], names: Mapping[str, str] = MappingProxyType(NAMES)
) -> tuple[list[str], list[list[str]]]:
    """Header and rows: the inverter first, then each baseline; entities stand there only if any are labelled."""
    names = {name: label for name, label in names.items() if name != "entity_recall" or name in report}
    rows = [["**recovered from the vector**", *(_cell(report, name) for name in names)]]
    for key, figures in report["baselines"].items():
        rows.append([f"baseline: {BASELINES.get(key, key)}", *(_cell(figures, name) for name in names)])
    return ["", *names.values()], rows


FORMATS = {"bleu": ".1f", "cosine": ".3f", "length_error": ".2f", "length_bias": "+.2f"}


def shown(name: str, value: float) -> str:
    """A figure as people read it: a share as a percentage, any other in its own unit."""
    return format(value, FORMATS.get(name, ".1%"))


def _cell(figures: Mapping[str, Any], name: str) -> str:
    if name not in figures:
        return "-"
    return f"{shown(name, figures[name])} ± {shown(name, figures[f'{name}_se']).removeprefix('+')}"


def render(report: dict[str, Any]) -> str:
    """The report as Markdown."""
    header, rows = figure_table(report)
    speed = ", ".join(f"{name} {value:,.0f}/s" for name, value in report["samples_per_second"].items())
    seconds = ", ".join(f"{name} {value:,.0f} s" for name, value in report["seconds"].items())
    lines = [
        f"# {report['name']}: what its vectors give away",
        "",
        f"{report['n']:,} held-out texts of {report['encoder']}, each {origin(report)} (strategy {_way(report)}; at "
        f"most {report['seq_len'] - 1} tokens). Content tokens only; ± is the standard error over texts.",
        "",
        *_markdown_table(header, rows),
        "",
        *_markdown_table(*figure_table(report, MORE)),
        "",
        *(f"- {LABELS[name]}: {meaning}" for name, meaning in report["definitions"].items() if name in report),
        "",
    ]
    for remark in remarks(report):
        lines += [remark, ""]
    if len(report["languages"]) > 1:
        rows = [[lang, str(v["n"]), _cell(v, "token_accuracy")] for lang, v in report["languages"].items()]
        lines += ["## By language", "", *_markdown_table(["language", "n", NAMES["token_accuracy"]], rows), ""]
    for title, header, rows in tables(report).values():
        lines += [f"## {title}", "", *_markdown_table(header, rows), ""]
    lines += _confidence(report)
    examples = [[_escape(e["original"]), _escape(e["recovered"]), *_trust(e)] for e in report["examples"]]
    lines += ["## Examples", "", "The first of the held-out texts, not chosen.", ""]
    lines += _markdown_table(
        ["original", "recovered from its vector alone", "confidence", "90% right with probability"], examples
    )
    lines += ["", *_growth(report.get("recoveries") or []), f"Samples per second: {speed}. Time: {seconds}.", ""]
    return "\n".join(lines)


def tables(report: Mapping[str, Any]) -> dict[str, tuple[str, list[str], list[list[str]]]]:
    """Title, header and rows of the other tables, by the part of the report that has their data, where it is there."""
    found = {}
    if sweep := report.get("sweep"):
        passes = sorted({row["passes"] for row in sweep})
        cells = {(row["strategy"], row["passes"]): _way_cell(row) for row in sweep}
        strategies = dict.fromkeys(row["strategy"] for row in sweep)
        rows = [[strategy, *(cells.get((strategy, each), "-") for each in passes)] for strategy in strategies]
        title = f"Tokens right by strategy and passes, and ms a text ({sweep[0]['n']:,} texts)"
        found["sweep"] = (title, ["strategy", *(f"{each} pass{'es' * (each > 1)}" for each in passes)], rows)
    if by_language := report.get("by_strategy_and_language"):
        languages = sorted({lang for row in by_language.values() for lang in row})
        rows = [
            [strategy, *(_cell(row.get(lang, {}), "token_accuracy") for lang in languages)]
            for strategy, row in by_language.items()
        ]
        found["by_strategy_and_language"] = ("Tokens right by strategy and language", ["strategy", *languages], rows)
    if remasking := report.get("remasking"):
        rows = [[f"{row['remasking_rate']:g}", str(row["passes"]), _way_cell(row)] for row in remasking]
        header = ["probability of hiding again", "passes", f"{NAMES['token_accuracy']}, ms a text"]
        found["remasking"] = ("Remasking", header, rows)
    if refinement := report.get("refinement"):
        names = ("token_f1", "bleu", "exact_match", "cosine")
        rows = [
            [
                f"+ {row['by']} {row['steps']} x {row['beam']}" if row["beam"] else report["strategy"],
                *(_cell(row, name) for name in names),
                f"{row['encoder_calls']:,.1f}",
                f"{row['milliseconds']:,.3g} ms",
            ]
            for row in refinement
        ]
        header = ["steps x beam", *(NAMES[name] for name in names), "encoder calls a text", "time a text"]
        title = f"Refinement with the encoder at hand ({refinement[0]['n']:,} texts)"
        found["refinement"] = (title, header, rows)
    if by_length := report.get("by_length"):
        rows = [
            [f"{row['shortest']} to {row['longest']}", f"{row['n']:,}", _cell(row, "token_accuracy")]
            for row in by_length
        ]
        found["by_length"] = ("By length", ["content tokens", "texts", NAMES["token_accuracy"]], rows)
    if entities := report.get("entities"):
        rows = [[kind, f"{row['n']:,}", _cell(row, "entity_recall")] for kind, row in entities.items()]
        found["entities"] = ("Entities", ["kind", "texts with one", NAMES["entity_recall"]], rows)
    if milestones := report.get("milestones"):
        rows = [[f"{row['step']:,}", f"{row['n']:,}", shown("", row["token_accuracy"])] for row in milestones]
        found["milestones"] = ("Milestones of training", ["step", "validation texts", NAMES["token_accuracy"]], rows)
    return found


def _way_cell(row: Mapping[str, Any]) -> str:
    return f"{_cell(row, 'token_accuracy')}, {row['milliseconds']:.3g} ms"


def remarks(report: Mapping[str, Any]) -> list[str]:
    """What is left out and why, and figures that stand in no table."""
    said = []
    if "cosine" not in report:
        said.append("The cosine is left out: the encoder was not at hand.")
    if "rouge_1" not in report:
        said.append("ROUGE is left out: an original has no word.")
    if held_out := report.get("held_out"):
        said.append(
            f"Of {held_out['sampled']:,} held-out texts, {held_out['same']:,} were left out since a training text is "
            f"the same, and {held_out['alike']:,} since one is nearly the same (estimated Jaccard similarity of their "
            f"character n-grams {held_out['threshold']:g} or more)."
        )
    gaps = [f"{shown(name, report[name])} ({label})" for name, label in GAPS.items() if name in report]
    if gaps:
        said.append(f"Filling gaps with the rest of a text in sight, which is no inversion: {', '.join(gaps)}.")
    found = [
        f"{label} {report[name]:,.1f} ± {report[f'{name}_se']:,.1f}"
        for name, label in PERPLEXITIES.items()
        if name in report
    ]
    if found:
        said.append(f"Under {report['settings']['language_model']}: {', '.join(found)}.")
    return said


def origin(report: Mapping[str, Any]) -> str:
    """How a text came of its vector."""
    if report["strategy"] in WRITERS:
        return "written from its vector, from left to right"
    return f"generated from its vector and a full mask in {report['steps']} pass{'' if report['steps'] == 1 else 'es'}"


def _way(report: Mapping[str, Any]) -> str:
    """The strategy with the options that it reads."""
    options = DecodingOptions.model_validate(report["decoding"]).read_by(report["strategy"])
    return ", ".join([report["strategy"], *(f"{name} {value}" for name, value in options.items())])


def _trust(example: Mapping[str, Any]) -> list[str]:
    probability = example["probability"]
    return [f"{example['confidence']:.2f}", "-" if probability is None else f"{probability:.2f}"]


def _confidence(report: Mapping[str, Any]) -> list[str]:
    """What was predicted of tokens and texts against what came true; nothing where nothing was predicted."""
    kinds = {"token": ("calibration_error", "tokens"), "text": ("text_calibration_error", "texts")}
    lines = []
    for kind, (name, things) in kinds.items():
        if name not in report:
            continue
        rows = [[f"{b['n']:,}", f"{b['predicted']:.1%}", f"{b['observed']:.1%}"] for b in report["reliability"][kind]]
        lines += [f"Of {things}: {LABELS[name]} {report[name]:.3f} ± {report[f'{name}_se']:.3f}.", ""]
        lines += [*_markdown_table([things, "predicted right", "were right"], rows), ""]
    if not lines:
        return []
    start = "Probabilities that tokens are right, and that at least 90% of a text is, fitted on validation texts."
    return ["## What its confidence is worth", "", start, "", *lines]


def _growth(recoveries: Sequence[Mapping[str, Any]]) -> list[str]:
    """Validation texts as they were recovered at the run's last validation, and folded up, each at all of them."""
    if not recoveries:
        return []
    last = recoveries[-1]
    lines = [
        "## While it was learning",
        "",
        "Validation texts, fixed before the run, recovered from a full mask at each of its validations; the last one "
        "may come after the checkpoint that is measured above.",
        "",
    ]
    final = [[_escape(text["original"]), _escape(text["recovered"])] for text in last["texts"]]
    lines += [*_markdown_table(["original", f"recovered at step {last['step']:,}"], final), ""]
    if len(recoveries) == 1:
        return lines
    for text in last["texts"]:
        rows = [
            [f"{moment['step']:,}", _escape(then["recovered"])]
            for moment in recoveries
            for then in moment["texts"]
            if then["id"] == text["id"]
        ]
        summary = escape(" ".join(text["original"].split()), quote=False)
        lines += ["<details>", f"<summary>{summary}</summary>", "", *_markdown_table(["step", "recovered"], rows), ""]
        lines += ["</details>", ""]
    return lines


def _markdown_table(header: list[str], rows: list[list[str]]) -> list[str]:
    return [
        f"| {' | '.join(header)} |",
        f"|{'---|' * len(header)}",
        *(f"| {' | '.join(row)} |" for row in rows),
    ]


def _escape(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
