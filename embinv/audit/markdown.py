"""audit.md: a leakage report as Markdown, from the dict of audit.json. Nothing is measured here.

What comes from outside cannot become markup: signs that Markdown or HTML would read are escaped.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import regex

from embinv.audit.page import BLOCKS, revealed, trust
from embinv.audit.tables import Table, facts, tables
from embinv.evaluation.markup import printable

SIGNS = regex.compile(r"([\\`*_{}\[\]<>#|~!])")
TITLES = {
    "leakage": "How many vectors give their text away",
    "entities": "Labelled values",
    "personal_data": "Personal data",
    "topics": "Topics",
    "defences": "Defences",
    "rotation": "A secret rotation",
}


def markdown(report: Mapping[str, Any]) -> str:
    """The report, the same bytes for the same dict."""
    made = tables(report)
    name = report["origin"].get("dump") or report["origin"].get("name") or "a dump of vectors"
    lines = [f"# Leakage report: {plain_text(name)}", ""]
    if report["revealed"]:
        lines += [f"> **{plain_text(revealed(report))}**", ""]
    lines += [f"- recovered texts: {report['rows']:,}", *_facts(report["origin"]), ""]
    lines += ["## Summary", "", *_sentences(report["summary"]), ""]
    if report["recognition"]:
        lines += ["## Which encoder made the vectors", "", *_facts(report["recognition"]), ""]
    for key in ("leakage", "entities", "personal_data", "topics"):
        lines += _section(made, key)
    lines += _examples(report)
    for key in ("defences", "rotation"):
        lines += _section(made, key)
    lines += ["## What to do", "", *_sentences(report["recommendations"]), ""]
    lines += ["## Limits", "", *_sentences(report["limits"]), ""]
    lines += ["## References", ""]
    lines += [
        f"- [{plain_text(each['name'])}]({each['url']}): {plain_text(each['says'])}" for each in report["references"]
    ]
    lines += ["", "## Settings", "", *_facts(report["settings"]), ""]
    return "\n".join(lines)


def plain_text(value: object) -> str:
    """A text on one line, in which Markdown and HTML find nothing to read."""
    return SIGNS.sub(r"\\\1", " ".join(printable(value).split())).replace("&", "&amp;").replace("\\<", "&lt;")


def _section(made: Mapping[str, Table], key: str) -> list[str]:
    if key not in made:
        return []
    caption, header, rows, notes = made[key]
    return [
        f"## {TITLES[key]}",
        "",
        f"{plain_text(caption)}.",
        "",
        f"| {' | '.join(map(plain_text, header))} |",
        f"|{'---|' * len(header)}",
        *(f"| {' | '.join(plain_text(cell) or '-' for cell in row)} |" for row in rows),
        *(["", *_sentences(notes)] if notes else []),
        "",
    ]


def _sentences(said: Sequence[str]) -> list[str]:
    return [f"- {plain_text(each)}" for each in said]


def _facts(given: Mapping[str, Any]) -> list[str]:
    return [f"- {plain_text(term)}: {plain_text(said)}" for term, said in facts(given).items()]


def _examples(report: Mapping[str, Any]) -> list[str]:
    if not report["examples"]:
        return []
    said = "The texts that are given away most." + ("" if report["revealed"] else f" {BLOCKS}")
    lines = ["## Examples", "", said, ""]
    for number, row in enumerate(report["examples"], start=1):
        told = ({} if row["id"] is None else {"id": str(row["id"])}) | trust(row)
        known = ", ".join(f"{name} {plain_text(value)}" for name, value in told.items())
        lines.append(f"{number}. recovered: {plain_text(row['recovered'])}")
        if row["original"] is not None:
            lines.append(f"   - original: {plain_text(row['original'])}")
        lines.append(f"   - {known}")
    return [*lines, ""]
