"""report.html: an evaluation as one page to look at, from report.json and texts.parquet. Nothing is measured here.

The page needs no network and runs no script. A section stands in it only if the report has its data, and what is
missing is left out or said to be missing, never shown as 0. Every text that comes from outside goes through
`embinv.evaluation.markup`, and those of people stand in <bdi>.
"""

from collections.abc import Mapping
from random import Random
from typing import Any

import pyarrow as pa

from embinv.evaluation.document import NOTHING, document, figures, folded_table, listing, number, table
from embinv.evaluation.drawing import Plot
from embinv.evaluation.markup import bdi, marked, visible
from embinv.evaluation.plots import KINDS, plots, span
from embinv.evaluation.report import LABELS, MORE, NAMES, figure_table, origin, remarks, shown, tables

BASELINES_SAY = (
    "The zero embedding shows what the text model knows by itself, somebody else's embedding what any text of this "
    "kind would score, the nearest training text what retrieval alone gives, and the fixed text what one answer to all "
    "vectors would."
)
CHOSEN = (
    "Words that differ are marked on both sides: in the original with a dashed underline those that were not "
    "recovered, in the recovered text in bold with a solid underline those that the original does not have there. "
    "Case, width and spaces make no difference."
)
EXAMPLE_TERMS = {
    "confidence": "geometric mean of the model's probabilities of the tokens that it chose; it orders texts and is no "
    "probability of being right",
    "probability": "probability that at least 90% of the text is right, fitted on validation texts",
}


def page(report: Mapping[str, Any], scores: pa.Table, examples: int = 20, seed: int = 0) -> str:
    """The page, the same bytes for the same input.

    Args:
        report: of report.json; sweep, refinement, by_position, by_length and milestones may be missing.
        scores: of texts.parquet, a row for each text; see `embinv.evaluation.scores`.
        examples: how many texts are shown, at most.
        seed: of their choice, by which alone it is made among the texts' ids.

    Raises:
        KeyError: the report lacks what makes it honest: how it was measured, or the baselines.
    """
    drawn = plots(report)
    sections = {
        "Figures": _figures(report),
        "Quality, passes and time": _sweep(report, drawn),
        "With the encoder at hand": _own_table(report, "refinement"),
        "What its confidence is worth": _confidence(report, drawn),
        "Where it is right": _parts(report, drawn),
        "While it was learning": _milestones(report, drawn),
        "Examples": _examples(scores, examples, seed),
        "Definitions": _definitions(report),
    }
    title = f"{visible(report['name'])}: what its vectors give away"
    return document(title, _statement(report), sections)


def _statement(report: Mapping[str, Any]) -> str:
    return (
        f"<p>{report['n']:,} held-out texts of {visible(report['encoder'])}, each {origin(report)} (strategy "
        f"{visible(report['strategy'])}, at most {report['seq_len'] - 1} tokens). Content tokens only: what marks the "
        "beginning, the end and the padding of a text is not counted. ± is the standard error over texts.</p>"
    )


def _accuracy(row: Mapping[str, Any]) -> str:
    """Token accuracy with its standard error, of what these are known."""
    value, error = row.get("token_accuracy"), row.get("token_accuracy_se")
    if value is None:
        return NOTHING
    return shown("token_accuracy", value) + ("" if error is None else f" ± {shown('token_accuracy', error)}")


def _figures(report: Mapping[str, Any]) -> str:
    body = ""
    for caption, names in (("What was recovered, beside baselines", NAMES), ("The other figures", MORE)):
        known = {name: label for name, label in names.items() if name in report}
        if known:
            header, rows = figure_table(dict(report), known)
            cells = [[NOTHING if cell == "-" else visible(cell.strip("*")) for cell in row] for row in rows]
            cells[0][0] = f"<strong>{cells[0][0]}</strong>"
            body += table(caption, header, cells)
    said = "".join(f"<p>{visible(remark)}</p>\n" for remark in remarks(report))
    return body + said + f"<p>{BASELINES_SAY}</p>\n"


def _sweep(report: Mapping[str, Any], drawn: Mapping[str, Plot]) -> str:
    captions = {
        "passes": "Tokens right by the number of denoising passes. Bars are standard errors.",
        "milliseconds": "The same by the time that a text takes; the axis is logarithmic.",
    }
    body = figures(drawn, captions)
    for name in ("sweep", "by_strategy_and_language", "remasking"):
        body += _own_table(report, name)
    return body


def _own_table(report: Mapping[str, Any], name: str) -> str:
    """A table as report.md has it; nothing where the report lacks its data."""
    if name not in (known := tables(report)):
        return ""
    title, header, rows = known[name]
    cells = [[NOTHING if cell == "-" else visible(cell) for cell in row] for row in rows]
    return table(visible(title), list(map(visible, header)), cells)


def _confidence(report: Mapping[str, Any], drawn: Mapping[str, Plot]) -> str:
    """What was predicted of tokens and texts against what came true."""
    curves = report.get("reliability") or {}
    caption = (
        "Above, the share of tokens and of texts that was right (of a text: at least 90% of it) by the probability "
        "that was predicted, in bins of about the same probability; on the dotted line both are equal. Below, the "
        "share of all tokens and all texts that is in each bin (texts are hollow)."
    )
    errors, tables = "", ""
    for kind, name in {"token": "calibration_error", "text": "text_calibration_error"}.items():
        if name in report:
            errors += f"<p>Of {KINDS[kind]}: {LABELS[name]} {report[name]:.3f} ± {report[f'{name}_se']:.3f}.</p>\n"
        rows = [[f"{b['predicted']:.1%}", f"{b['observed']:.1%}", f"{b['n']:,}"] for b in curves.get(kind) or ()]
        if rows:
            tables += folded_table(
                f"reliability of {KINDS[kind]}", ["predicted right", "were right", KINDS[kind]], rows
            )
    start = (
        "<p>Probabilities that tokens are right, and that at least 90% of a text is, fitted on validation texts.</p>"
    )
    body = errors + figures(drawn, {"reliability": caption}) + tables
    return f"{start}\n{body}" if body else ""


def _parts(report: Mapping[str, Any], drawn: Mapping[str, Plot]) -> str:
    captions = {
        "position": "Tokens right by their position in the text, in content tokens, among the originals that reach it.",
        "language": "Tokens right by language.",
        "length": "Tokens right by the length of the original.",
    }
    languages = report.get("languages") or {}
    tables = {
        "position": [(str(row["position"]), row) for row in report.get("by_position") or ()],
        "language": [(visible(lang), row) for lang, row in languages.items()] if len(languages) > 1 else [],
        "length": [(span(row), row) for row in report.get("by_length") or ()],
    }
    numbers = [
        folded_table(
            f"tokens right by {name}",
            [name, "texts", NAMES["token_accuracy"]],
            [[label, number(row.get("n")), _accuracy(row)] for label, row in rows],
        )
        for name, rows in tables.items()
        if rows
    ]
    return figures(drawn, captions) + "".join(numbers) + _own_table(report, "entities")


def _milestones(report: Mapping[str, Any], drawn: Mapping[str, Plot]) -> str:
    rows = [[f"{row['step']:,}", _accuracy(row)] for row in report.get("milestones") or ()]
    caption = "Tokens right at the milestones of the run. Bars are standard errors."
    header = ["step", NAMES["token_accuracy"]]
    return figures(drawn, {"milestones": caption}) + folded_table("tokens right by step", header, rows) if rows else ""


def _examples(scores: pa.Table, count: int, seed: int) -> str:
    ids = scores["id"].to_pylist()
    order = sorted(range(len(ids)), key=ids.__getitem__)  # so that the order of rows decides nothing
    chosen = Random(seed).sample(order, min(count, len(order)))
    if not chosen:
        return ""
    items = "\n".join(f"<li>{_example(row)}</li>" for row in scores.take(chosen).to_pylist())
    return (
        f"<p>{len(chosen):,} of {len(ids):,} texts, chosen at random with seed {seed} and in random order, not picked. "
        f'{CHOSEN}</p>\n<ol class="examples">\n{items}\n</ol>\n'
    )


def _example(row: Mapping[str, Any]) -> str:
    original, recovered = marked(row["original"], row["recovered"])
    lang = row.get("lang")
    entries = {"original": bdi(original, lang), "recovered": bdi(recovered, lang) if recovered else "(an empty text)"}
    entries |= {name: f"{row[name]:.2f}" for name in EXAMPLE_TERMS if row.get(name) is not None}
    right, of = row.get("token_accuracy.part"), row.get("token_accuracy.whole")
    if right is not None and of:
        entries["tokens right"] = f"{right:g} of {of:g} ({right / of:.1%})"
    return listing(entries)


def _definitions(report: Mapping[str, Any]) -> str:
    terms = {LABELS.get(name, name): told for name, told in report["definitions"].items() if name in report}
    return listing({visible(name): visible(told) for name, told in (terms | EXAMPLE_TERMS).items()})
