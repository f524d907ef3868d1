"""report.html: an evaluation as one page to look at, from report.json and texts.parquet. Nothing is measured here.

The page needs no network and runs no script. A section stands in it only if the report has its data, and what is
missing is left out or said to be missing, never shown as 0. Every text that comes from outside goes through
`embinv.evaluation.markup`, and those of people stand in <bdi>.
"""

from collections.abc import Mapping, Sequence
from random import Random
from typing import Any

import pyarrow as pa

from embinv.evaluation.markup import bdi, marked, visible
from embinv.evaluation.plots import KINDS, Plot, plots, span, svg
from embinv.evaluation.report import LABELS, MORE, NAMES, figure_table, origin, remarks, shown, tables

NOTHING = '<span aria-hidden="true">–</span><span class="unseen">not measured</span>'
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
CSS = """
:root { color-scheme: light; --paper: #ffffff; --ink: #22262b; --muted: #5b626d; --grid: #d5d9df;
  --link: #0b5ea8; --lost: #fdebd3; --found: #dcebf8; }
@media screen and (prefers-color-scheme: dark) {
  :root { color-scheme: dark; --paper: #14171a; --ink: #e6e8eb; --muted: #a3abb5; --grid: #3a4149;
    --link: #7cc0f5; --lost: #4a3413; --found: #143a56; --series-1: #5bb5ee; --series-2: #f2914a;
    --series-3: #35c79f; --series-4: #e39bc8; --series-5: #d9c14a; --series-6: #b9bfc7; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 66rem; padding: 1rem; background: var(--paper); color: var(--ink);
  font: 1rem/1.5 system-ui, sans-serif; overflow-wrap: break-word; }
h1, h2 { line-height: 1.2; overflow-wrap: anywhere; }
h2 { margin-top: 2.5rem; border-top: 1px solid var(--grid); padding-top: 1rem; }
p { max-width: 46rem; }
a { color: var(--link); }
:focus-visible { outline: 3px solid var(--link); outline-offset: 2px; }
nav ul { display: flex; flex-wrap: wrap; gap: 0.25rem 1.25rem; padding: 0; list-style: none; }
nav a { display: inline-block; padding: 0.25rem 0; }
.scroll { position: relative; overflow-x: auto; margin: 1rem 0; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
caption, figcaption { text-align: left; color: var(--muted); font-size: 0.9rem; }
th, td { border-bottom: 1px solid var(--grid); padding: 0.3rem 0.7rem; text-align: right; white-space: nowrap; }
th:first-child { text-align: left; padding-left: 0; white-space: normal; }
th { font-weight: 600; }
tbody th { font-weight: 400; }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 24rem), 1fr)); gap: 1.5rem; }
figure { margin: 0; max-width: 34rem; break-inside: avoid; }
figure svg { display: block; width: 100%; height: auto; }
figure svg * { stroke-linejoin: round; stroke-linecap: butt; }
figure svg text { font-family: system-ui, sans-serif !important; }
summary { cursor: pointer; padding: 0.4rem 0; color: var(--link); }
.examples { padding-left: 2rem; }
.examples > li { margin: 1rem 0; border-top: 1px solid var(--grid); padding-top: 0.75rem; break-inside: avoid; }
dl { display: grid; grid-template-columns: minmax(6rem, max-content) 1fr; gap: 0.2rem 1rem; margin: 0; }
dt { color: var(--muted); }
dd { margin: 0; min-width: 0; }
bdi { white-space: pre-wrap; overflow-wrap: anywhere; }
del, ins { position: relative; }
del { background: var(--lost); text-decoration: underline dashed; text-underline-offset: 0.2em; }
ins { background: var(--found); font-weight: 600; text-decoration: underline solid; text-underline-offset: 0.2em; }
.unseen, del::before, del::after, ins::before, ins::after { position: absolute; width: 1px; height: 1px;
  overflow: hidden; clip-path: inset(50%); white-space: nowrap; }
del::before { content: " [not recovered: "; }
ins::before { content: " [not in the original: "; }
del::after, ins::after { content: "] "; }
@media (max-width: 36rem) { dl { grid-template-columns: 1fr; gap: 0; } dd { margin-bottom: 0.5rem; }
  .examples { padding-left: 1.5rem; } }
@media print { body { max-width: none; padding: 0; font-size: 10pt; } nav { display: none; }
  h2 { break-after: avoid; } .scroll { overflow: visible; } th, td { white-space: normal; padding: 0.2rem 0.4rem; }
  .plots { grid-template-columns: 1fr 1fr; } #examples { break-before: page; }
  del, ins { print-color-adjust: exact; } }
"""


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
    kept = {title.lower().replace(",", "").replace(" ", "-"): (title, body) for title, body in sections.items() if body}
    links = [f'<li><a href="#{name}">{title}</a></li>' for name, (title, _) in kept.items()]
    title = f"{visible(report['name'])}: what its vectors give away"
    lines = [
        "<!doctype html>",
        '<html lang="en">',
        "<head>",
        '<meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{title}</title>",
        f"<style>{CSS}</style>",
        "</head>",
        "<body>",
        f"<header><h1>{title}</h1>{_statement(report)}</header>",
        f'<nav aria-label="Sections"><ul>{"".join(links)}</ul></nav>',
        "<main>",
        *(f'<section id="{name}"><h2>{title}</h2>\n{body}</section>' for name, (title, body) in kept.items()),
        "</main>",
        "</body>",
        "</html>",
        "",
    ]
    return "\n".join(lines)


def _statement(report: Mapping[str, Any]) -> str:
    return (
        f"<p>{report['n']:,} held-out texts of {visible(report['encoder'])}, each {origin(report)} (strategy "
        f"{visible(report['strategy'])}, at most {report['seq_len'] - 1} tokens). Content tokens only: what marks the "
        "beginning, the end and the padding of a text is not counted. ± is the standard error over texts.</p>"
    )


def _table(caption: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Cells are HTML; the first of each row names it."""
    head = "".join(f'<th scope="col">{cell}</th>' if cell else "<td></td>" for cell in header)
    body = "".join(
        f'<tr><th scope="row">{first}</th>{"".join(f"<td>{cell}</td>" for cell in cells)}</tr>\n'
        for first, *cells in rows
    )
    return (
        f'<div class="scroll" role="region" aria-label="{caption}" tabindex="0"><table><caption>{caption}</caption>\n'
        f"<thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody></table></div>\n"
    )


def _numbers(caption: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """The table behind a plot, folded up."""
    return f"<details><summary>Numbers: {caption}</summary>\n{_table(caption, header, rows)}</details>\n"


def _plots(drawn: Mapping[str, Plot], captions: Mapping[str, str]) -> str:
    """Those of the plots that there are."""
    figures = [
        f"<figure>{svg(drawn[name], name)}\n<figcaption>{caption}</figcaption></figure>\n"
        for name, caption in captions.items()
        if name in drawn
    ]
    return f'<div class="plots">{"".join(figures)}</div>\n' if figures else ""


def _accuracy(row: Mapping[str, Any]) -> str:
    """Token accuracy with its standard error, of what these are known."""
    value, error = row.get("token_accuracy"), row.get("token_accuracy_se")
    if value is None:
        return NOTHING
    return shown("token_accuracy", value) + ("" if error is None else f" ± {shown('token_accuracy', error)}")


def _number(value: float | None) -> str:
    """Three digits, or all of a whole number."""
    if value is None:
        return NOTHING
    return f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.3g}"


def _figures(report: Mapping[str, Any]) -> str:
    body = ""
    for caption, names in (("What was recovered, beside baselines", NAMES), ("The other figures", MORE)):
        known = {name: label for name, label in names.items() if name in report}
        if known:
            header, rows = figure_table(dict(report), known)
            cells = [[NOTHING if cell == "-" else visible(cell.strip("*")) for cell in row] for row in rows]
            cells[0][0] = f"<strong>{cells[0][0]}</strong>"
            body += _table(caption, header, cells)
    said = "".join(f"<p>{visible(remark)}</p>\n" for remark in remarks(report))
    return body + said + f"<p>{BASELINES_SAY}</p>\n"


def _sweep(report: Mapping[str, Any], drawn: Mapping[str, Plot]) -> str:
    captions = {
        "passes": "Tokens right by the number of denoising passes. Bars are standard errors.",
        "milliseconds": "The same by the time that a text takes; the axis is logarithmic.",
    }
    body = _plots(drawn, captions)
    for name in ("sweep", "by_strategy_and_language", "remasking"):
        body += _own_table(report, name)
    return body


def _own_table(report: Mapping[str, Any], name: str) -> str:
    """A table as report.md has it; nothing where the report lacks its data."""
    if name not in (known := tables(report)):
        return ""
    title, header, rows = known[name]
    cells = [[NOTHING if cell == "-" else visible(cell) for cell in row] for row in rows]
    return _table(visible(title), list(map(visible, header)), cells)


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
            tables += _numbers(f"reliability of {KINDS[kind]}", ["predicted right", "were right", KINDS[kind]], rows)
    start = (
        "<p>Probabilities that tokens are right, and that at least 90% of a text is, fitted on validation texts.</p>"
    )
    body = errors + _plots(drawn, {"reliability": caption}) + tables
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
        _numbers(
            f"tokens right by {name}",
            [name, "texts", NAMES["token_accuracy"]],
            [[label, _number(row.get("n")), _accuracy(row)] for label, row in rows],
        )
        for name, rows in tables.items()
        if rows
    ]
    return _plots(drawn, captions) + "".join(numbers) + _own_table(report, "entities")


def _milestones(report: Mapping[str, Any], drawn: Mapping[str, Plot]) -> str:
    rows = [[f"{row['step']:,}", _accuracy(row)] for row in report.get("milestones") or ()]
    caption = "Tokens right at the milestones of the run. Bars are standard errors."
    header = ["step", NAMES["token_accuracy"]]
    return _plots(drawn, {"milestones": caption}) + _numbers("tokens right by step", header, rows) if rows else ""


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
    return _list(entries)


def _definitions(report: Mapping[str, Any]) -> str:
    terms = {LABELS.get(name, name): told for name, told in report["definitions"].items() if name in report}
    return _list({visible(name): visible(told) for name, told in (terms | EXAMPLE_TERMS).items()})


def _list(entries: Mapping[str, str]) -> str:
    return f"<dl>{''.join(f'<dt>{name}</dt><dd>{told}</dd>' for name, told in entries.items())}</dl>\n"
