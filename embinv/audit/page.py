"""audit.html: a leakage report as one page, from the dict of audit.json. Nothing is measured here.

It opens without a network and runs no script. A section stands in it only if the report has its data. Every text that
comes from outside goes through `embinv.evaluation.markup`, and those of people stand in <bdi>.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from embinv.audit.plots import plots
from embinv.audit.tables import Table, facts, tables
from embinv.evaluation.document import NOTHING, document, figures, folded_table, listing, table
from embinv.evaluation.drawing import Plot
from embinv.evaluation.markup import bdi, marked, visible

REVEALED = "Revealed: the examples below show recovered texts and originals in clear."
CHOSEN = (
    "The texts that are given away most. Words that differ are marked on both sides: in the original those that were "
    "not recovered, in the recovered text those that the original does not have there."
)
BLOCKS = "Blocks hide what may name somebody; equal numbers in one example hide the same words."
STYLE = """
.alert { border: 2px solid #b3261e; border-left-width: 0.6rem; padding: 0.5rem 1rem; font-weight: 600; }
@media screen and (prefers-color-scheme: dark) { .alert { border-color: #f2b8b5; } }
.summary li { margin: 0.4rem 0; max-width: 46rem; }
td.words, .words td { white-space: normal; }
"""


def page(report: Mapping[str, Any]) -> str:
    """The page, the same bytes for the same report."""
    drawn, made = plots(report), tables(report)
    sections = {
        "Summary": _sentences(report["summary"]),
        "Which encoder made the vectors": _facts(report["recognition"]),
        "How many vectors give their text away": _leakage(drawn, made),
        "Labelled values": _plotted(
            drawn, made, "entities", "Labelled values recovered, by kind. Bars are standard errors."
        ),
        "Personal data": _table(made.get("personal_data")),
        "Topics": _plotted(drawn, made, "topics", "Topics. Bars are standard errors."),
        "Examples": _examples(report),
        "Defences": _defences(drawn, made),
        "What to do": _sentences(report["recommendations"]),
        "Limits": _sentences(report["limits"]),
        "References": _references(report["references"]),
        "Settings": _facts(report["settings"]),
    }
    name = report["origin"].get("dump") or report["origin"].get("name") or "a dump of vectors"
    return document(f"Leakage report: {visible(name)}", _header(report), sections, STYLE)


def _header(report: Mapping[str, Any]) -> str:
    alert = f'<p class="alert" role="note">{visible(revealed(report))}</p>\n' if report["revealed"] else ""
    entries = {"recovered texts": f"{report['rows']:,}"} | facts(report["origin"])
    return alert + listing({visible(term): visible(said) for term, said in entries.items()})


def revealed(report: Mapping[str, Any]) -> str:
    """That examples are shown in clear, and if it is known, on which day and by whom."""
    date, who = report["origin"].get("date"), report["origin"].get("by")
    return REVEALED + (f" On {date}." if date else "") + (f" By {who}." if who else "")


def _sentences(said: Sequence[str]) -> str:
    return f'<ul class="summary">{"".join(f"<li>{visible(each)}</li>" for each in said)}</ul>\n' if said else ""


def _facts(given: Mapping[str, Any] | None) -> str:
    return listing({visible(term): visible(said) for term, said in facts(given).items()}) if given else ""


def _table(made: Table | None) -> str:
    if made is None:
        return ""
    return table(visible(made.caption), [visible(cell) for cell in made.header], _cells(made)) + _sentences(made.notes)


def _cells(made: Table) -> list[list[str]]:
    return [[visible(cell) if cell else NOTHING for cell in row] for row in made.rows]


def _plotted(drawn: Mapping[str, Plot], made: Mapping[str, Table], name: str, caption: str) -> str:
    return figures(drawn, {name: caption}) + _table(made.get(name))


def _leakage(drawn: Mapping[str, Plot], made: Mapping[str, Table]) -> str:
    body = _table(made.get("leakage"))
    body += figures(drawn, {"probability": "Vectors whose text is at least 90% right with this probability or more."})
    if curve := made.get("thresholds"):
        body += folded_table(visible(curve.caption), [visible(cell) for cell in curve.header], _cells(curve))
    return body


def _defences(drawn: Mapping[str, Plot], made: Mapping[str, Table]) -> str:
    captions = {
        "defences": "Each point is a defence: to the right the search is better, further down less leaks. Bars are "
        "standard errors; the front joins the defences that no other one beats in both, at their worst attacker.",
        "rotation": "A secret rotation against an attacker who knows some pairs. Bars are standard errors.",
    }
    return figures(drawn, captions) + _table(made.get("defences")) + _table(made.get("rotation"))


def _references(references: Sequence[Mapping[str, str]]) -> str:
    items = "".join(
        f'<li><a href="{visible(each["url"])}">{visible(each["name"])}</a>: {visible(each["says"])}</li>'
        for each in references
    )
    return f'<ul class="summary">{items}</ul>\n'


def _examples(report: Mapping[str, Any]) -> str:
    if not report["examples"]:
        return ""
    items = "\n".join(f"<li>{_example(each)}</li>" for each in report["examples"])
    said = f"<p>{visible(CHOSEN)}{'' if report['revealed'] else ' ' + visible(BLOCKS)}</p>\n"
    return f'{said}<ol class="examples">\n{items}\n</ol>\n'


def _example(row: Mapping[str, Any]) -> str:
    lang, entries = row["lang"], {}
    if row["id"] is not None:
        entries["id"] = visible(row["id"])
    if row["original"] is None:
        entries["recovered"] = bdi(visible(row["recovered"]), lang)
    else:
        original, recovered = marked(row["original"], row["recovered"])
        entries |= {"original": bdi(original, lang), "recovered": bdi(recovered, lang)}
    return listing(entries | {name: visible(said) for name, said in trust(row).items()})


def trust(row: Mapping[str, Any]) -> dict[str, str]:
    """What is known of how right an example is."""
    said = {}
    if row["probability"] is not None:
        said["probability of 90% right"] = f"{row['probability']:.2f}"
    if row["token_f1"] is not None:
        said["F1"] = f"{row['token_f1']:.2f}"
    if row["nearly_right"] is not None:
        said["90% right"] = "yes" if row["nearly_right"] else "no"
    if row["entities"]:
        said["labelled values recovered"] = f"{row['entities_found']} of {row['entities']}"
    return said
