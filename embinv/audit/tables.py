"""The tables of a leakage report, as texts: what its page and its Markdown both show. Nothing is measured here."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from embinv.audit.findings import defence_name, percent

DEFINED = {
    "on the front": "on_front",
    "token F1": "token_f1",
    "token F1, not adapted": "leakage",
    "token F1, adapted": "adapted",
    "token F1, worst": "worst",
    "whole texts": "exact_match",
    "entities": "entity_recall",
    "nDCG@10": "ndcg_at_10",
    "recall@10": "recall_at_10",
}
"""Columns of the defences, and the definition of each."""

UNKNOWN = ""
"""A cell without a value."""


class Table(NamedTuple):
    """A table of plain texts, not yet escaped; the first cell of a row names it, and notes stand below."""

    caption: str
    header: list[str]
    rows: list[list[str]]
    notes: tuple[str, ...] = ()


def tables(report: Mapping[str, Any]) -> dict[str, Table]:
    """What the report has data for.

    Returns:
        Those of `leakage`, `thresholds`, `entities`, `personal_data`, `topics`, `defences` and `rotation` that there
        are, in this order.
    """
    made = {
        "leakage": _leakage(report),
        "thresholds": _thresholds(report),
        "entities": _entities(report),
        "personal_data": _personal(report),
        "topics": _topics(report),
        "defences": _defences(report),
        "rotation": _rotation(report),
    }
    return {name: table for name, table in made.items() if table.rows}


def facts(given: Mapping[str, Any]) -> dict[str, str]:
    """What a caller gave, as terms and values: nested ones under their path, numbers as people read them."""
    told: dict[str, str] = {}
    for key, value in given.items():
        name = str(key).replace("_", " ")
        if isinstance(value, Mapping):
            told |= {f"{name}: {inner}": said for inner, said in facts(value).items()}
        elif isinstance(value, bool):
            told[name] = "yes" if value else "no"
        elif isinstance(value, int):
            told[name] = f"{value:,}" if name != "seed" else str(value)
        elif isinstance(value, float):
            told[name] = f"{value:,.4g}"
        elif isinstance(value, list):
            told[name] = ", ".join(str(each) for each in value)
        elif value is not None:
            told[name] = str(value)
    return told


def _leakage(report: Mapping[str, Any]) -> Table:
    rows, leakage = [], report["leakage"]
    if expected := leakage["by_probability"]:
        share = percent(expected["share"], expected["share_se"])
        rows += [
            ["expected to give away at least 90% of their text", f"{expected['n']:,}", share],
            ["probability of 0.5 or more", f"{expected['n']:,}", percent(expected["likely"] / expected["n"], None)],
            [
                "probability of 0.9 or more",
                f"{expected['n']:,}",
                percent(expected["nearly_sure"] / expected["n"], None),
            ],
        ]
    if compared := leakage["by_comparison"]:
        n = f"{compared['n']:,}"
        names = {
            "nearly_right": "at least 90% of the text right",
            "whole_text": "whole text right",
            "token_f1": f"F1 of {report['unit']}, mean",
        }
        rows += [[label, n, percent(compared[name], compared[f"{name}_se"])] for name, label in names.items()]
        if "bleu" in compared:
            rows.append(["BLEU, mean", n, f"{compared['bleu']:.1f} ± {compared['bleu_se']:.1f}"])
    return Table("What the vectors give away", ["", "texts", "value"], rows)


def _thresholds(report: Mapping[str, Any]) -> Table:
    curve = (report["leakage"]["by_probability"] or {}).get("curve") or []
    rows = [[f"{row['threshold']:.0%}", percent(row["share"], None)] for row in curve]
    return Table("share of vectors by probability", ["probability, at least", "share of vectors"], rows)


def _entities(report: Mapping[str, Any]) -> Table:
    entities = report["entities"]
    if not entities:
        return Table("", [], [])
    kinds = sorted(entities["by_kind"].items(), key=lambda item: (-item[1]["recall"], item[0]))
    rows = [
        [kind, f"{row['n']:,}", f"{row['texts']:,}", f"{row['found']:,}", percent(row["recall"], row["recall_se"])]
        for kind, row in [("all kinds", entities), *kinds]
    ]
    header = ["kind", "labelled", "texts with one", "recovered", "share"]
    return Table("Labelled values that stand in the recovered texts", header, rows)


def _personal(report: Mapping[str, Any]) -> Table:
    rows = [
        [
            row["kind"],
            f"{row['found']:,}",
            f"{row['texts']:,}",
            _count(row["confirmed"]),
            _count(row["unconfirmed"]),
            *(
                [f"{row['in_originals']:,}", f"{row['recovered']:,}"]
                if row["confirmed"] is not None or row["in_originals"]
                else [UNKNOWN, UNKNOWN]
            ),
            UNKNOWN if row["recovery"] is None else percent(row["recovery"], row["recovery_se"]),
        ]
        for row in report["personal_data"]
    ]
    header = ["kind", "found", "texts with one", "confirmed", "made up", "in originals", "of these recovered", "share"]
    return Table("Personal data that patterns recognise in the recovered texts", header, rows)


def _topics(report: Mapping[str, Any]) -> Table:
    rows = [
        [
            ", ".join(topic["terms"]) or "(no word that may be shown)",
            f"{topic['n']:,}",
            percent(topic["share"], None),
            UNKNOWN if topic["given_away"] is None else percent(topic["given_away"], topic["given_away_se"]),
        ]
        for topic in report["topics"]
    ]
    return Table("Topics of the recovered texts", ["words", "texts", "share", "give their text away"], rows)


def _defences(report: Mapping[str, Any]) -> Table:
    rows = []
    for row in (report["defences"] or {}).get("rows") or ():
        plain, adapted, worst = row.get("leakage") or {}, row.get("adapted") or {}, row.get("worst") or {}
        rows.append(
            [
                defence_name(row),
                "yes" if row.get("on_front") else "no",
                _share(plain, "token_f1"),
                _share(adapted, "token_f1"),
                _share(worst, "token_f1"),
                _share(plain, "exact_match"),
                _share(plain, "entity_recall"),
                _number(row.get("ndcg_at_10"), ".3f"),
                _number(row.get("recall_at_10"), ".3f"),
                _number(row.get("bytes_per_vector"), ",.0f"),
            ]
        )
    header = ["defence", "on the front", "token F1, not adapted", "token F1, adapted", "token F1, worst"]
    header += ["whole texts", "entities", "nDCG@10", "recall@10", "bytes a vector"]
    notes = (*_measured(report), *_defined(report, DEFINED))
    return Table("Defences: what leaks through them, and what the search is still good for", header, rows, notes)


def _rotation(report: Mapping[str, Any]) -> Table:
    rows = [
        [f"{row['pairs']:,}", _share(row, "token_f1"), _number(row.get("f1_share"), ".1%")]
        for row in (report["defences"] or {}).get("rotation") or ()
    ]
    header = ["known pairs", "token F1", "share of the undefended F1"]
    notes = _defined(report, {"share of the undefended F1": "f1_share"})
    return Table("A secret rotation, by the pairs of text and vector that an attacker knows", header, rows, notes)


def _measured(report: Mapping[str, Any]) -> tuple[str, ...]:
    """What defences were measured on, and where the usual settings did not fit."""
    defences = report["defences"] or {}
    if defences.get("n") is None:
        return ()
    encoder = report["origin"].get("encoder")
    return (
        f"Measured on {defences['n']:,} held-out pairs of text and vector of the encoder"
        f"{f' {encoder}' if encoder else ''}, not on the vectors of this dump; the attackers have "
        f"{defences['known']:,} texts of their own.",
        *(f"{line[:1].upper()}{line[1:]}." for line in defences.get("changed") or ()),
    )


def _defined(report: Mapping[str, Any], columns: Mapping[str, str]) -> tuple[str, ...]:
    """What columns mean, where the sweep says it."""
    meant = (report["defences"] or {}).get("definitions") or {}
    return tuple(f"{column}: {meant[name]}." for column, name in columns.items() if name in meant)


def _share(row: Mapping[str, Any], name: str) -> str:
    value = row.get(name)
    return UNKNOWN if value is None else percent(value, row.get(f"{name}_se"))


def _number(value: float | None, form: str) -> str:
    return UNKNOWN if value is None else format(value, form)


def _count(value: int | None) -> str:
    return UNKNOWN if value is None else f"{value:,}"
