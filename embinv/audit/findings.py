"""audit.json: what was measured and what follows from it, as one dict of plain values. Nothing is measured here.

It holds no time of its own making: the same recovered texts, settings and origin give the same dict. What the caller
knows (where the dump came from, whether its vectors look like the encoder's, what defences cost) goes in as given.
"""

from collections.abc import Mapping, Sequence
from math import isfinite
from pathlib import PurePath
from typing import Any

import numpy as np

from embinv.audit.references import REFERENCES, limits

FORMAT = 1
UNDEFENDED = "none"
"""How a sweep calls the vectors as they are."""

WHO = {
    "leakage": "an attacker who does not adapt",
    "adapted": "an attacker who adapts",
    "rotation": "an attacker who knows pairs of text and vector",
}
"""The attackers of a sweep, as its rows call the one who reads most."""

SAID_OF_KINDS = 4  # kinds of entities that a sentence names


def findings(
    *,
    origin: Mapping[str, Any],
    settings: Mapping[str, Any],
    rows: int,
    without_text: int,
    sampled: int,
    unit: str,
    leakage: Mapping[str, Any],
    entities: Mapping[str, Any] | None,
    personal_data: Sequence[Mapping[str, Any]],
    topics: Sequence[Mapping[str, Any]],
    examples: Sequence[Mapping[str, Any]],
    recognition: Mapping[str, Any] | None = None,
    defences: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The report.

    Args:
        origin: where the texts come from: dump, checkpoint, encoder, strategy, steps, seed, code version, date, by.
        settings: of the report.
        rows: recovered texts.
        without_text: vectors that could not be inverted; nothing else counts them.
        sampled: how many of them topics, BLEU and examples are of.
        unit: what texts were compared by: tokens or words.
        leakage: by_probability, by_comparison and agreement of `embinv.audit.leakage`, each of which may be None.
        entities: of `embinv.audit.entities`; None where nothing is labelled.
        personal_data: of `embinv.audit.personal_counts`.
        topics: of `embinv.audit.topics`.
        examples: id, recovered, original, and what is known of each.
        recognition: whether the vectors look like the encoder's.
        defences: rows (defences, what they cost, and what leaks through them) and rotation.
    """
    report: dict[str, Any] = {
        "format": FORMAT,
        "revealed": bool(settings["reveal"]),
        "origin": plain(origin),
        "settings": plain(settings),
        "rows": rows,
        "without_text": without_text,
        "sampled": sampled,
        "unit": unit,
        "recognition": plain(recognition),
        "leakage": plain(leakage),
        "entities": plain(entities),
        "personal_data": plain(personal_data),
        "topics": plain(topics),
        "examples": plain(examples),
        "defences": plain(defences),
    }
    report["summary"] = summary(report)
    report["recommendations"] = recommendations(report)
    report["limits"] = limits(report)
    report["references"] = [dict(each) for each in REFERENCES]
    return report


def plain(value: Any) -> Any:
    """A value as JSON has it: numbers of NumPy as Python's, what is not finite as None, anything unknown as text."""
    if isinstance(value, Mapping):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, float):
        return value if isfinite(value) else None
    if value is None or isinstance(value, bool | int | str):
        return value
    return value.as_posix() if isinstance(value, PurePath) else str(value)


def percent(value: float, error: float | None) -> str:
    """A share with its standard error, where that is known."""
    return f"{value:.1%}" + ("" if error is None else f" ± {error:.1%}")


def summary(report: Mapping[str, Any]) -> list[str]:
    """What was found, in sentences, the weightiest first."""
    said, leakage = [], report["leakage"]
    if expected := leakage["by_probability"]:
        said.append(
            f"Of {expected['n']:,} vectors, {expected['expected']:,.1f} ± {expected['expected_se']:,.1f} are expected "
            f"to give away at least 90% of their text ({percent(expected['share'], expected['share_se'])}); "
            f"{expected['likely']:,} more likely than not, {expected['nearly_sure']:,} with a probability of 0.9 or "
            "more."
        )
    elif report["origin"].get("refine_steps"):
        said.append(
            "The texts were refined, and probabilities are calibrated only for texts that the checkpoint writes by "
            "itself; so how many vectors give their text away is not predicted. Invert without --refine-steps to have "
            "it predicted."
        )
    else:
        said.append(
            "The checkpoint gave no calibrated probabilities, so how many vectors give their text away is not "
            "predicted; calibrate it with jobs/evaluate.py."
        )
    if compared := leakage["by_comparison"]:
        said.append(
            f"Beside their originals, {compared['nearly_right_count']:,} of {compared['n']:,} texts are right to at "
            f"least 90% ({percent(compared['nearly_right'], compared['nearly_right_se'])}), and "
            f"{percent(compared['whole_text'], compared['whole_text_se'])} to the last {report['unit'][:-1]}."
        )
    if agreed := leakage["agreement"]:
        said.append(
            f"The probabilities expected {agreed['expected']:,.1f} ± {agreed['expected_se']:,.1f} of these "
            f"{agreed['n']:,}, and {agreed['found']:,} were found: "
            + ("they agree." if agreed["agrees"] else "they do not agree, so do not rely on the expected number.")
        )
    if entities := report["entities"]:
        worst = sorted(entities["by_kind"].items(), key=lambda item: (-item[1]["recall"], item[0]))[:SAID_OF_KINDS]
        kinds = ", ".join(f"{kind} {row['recall']:.0%} of {row['n']:,}" for kind, row in worst if row["found"])
        said.append(
            f"Of {entities['n']:,} labelled values, {entities['found']:,} stand in the recovered texts "
            f"({percent(entities['recall'], entities['recall_se'])})" + (f"; most of {kinds}." if kinds else ".")
        )
    if personal := report["personal_data"]:
        judged = [row for row in personal if row["confirmed"] is not None]
        confirmed = sum(row["confirmed"] for row in judged)
        of_these = confirmed + sum(row["unconfirmed"] for row in judged)
        said.append(
            f"Recovered texts hold {sum(row['found'] for row in personal):,} pieces of personal data that patterns "
            "recognise"
            + (
                f"; of the {of_these:,} in texts with an original, {confirmed:,} stand in the originals too."
                if judged
                else "."
            )
        )
    if report["without_text"]:
        said.append(
            f"{report['without_text']:,} vectors could not be inverted and have no text; nothing else counts them."
        )
    return said


def recommendations(report: Mapping[str, Any]) -> list[str]:
    """What to do about it."""
    said = [
        "Treat the vectors as the texts themselves: the same classification, the same people with access, the same "
        "retention, and deleted when the text is.",
        "Control access to the store: authentication, a partition for each tenant, encryption at rest and of backups, "
        "and an alarm on bulk reads and exports. Do not hand vectors out where an id or a score will do.",
        "Take out of a text what the search does not need before it is embedded, personal data first.",
    ]
    rows = (report["defences"] or {}).get("rows") or []
    front = [row for row in rows if row.get("on_front") and row.get("defence") != UNDEFENDED]
    for row in front:
        said.append(
            f"Consider a defence that no other one beats in both leakage and use: {defence_name(row)} ({_cost(row)})."
        )
    if front and any(not row.get("adapted") for row in front):
        said.append(
            "Of a defence that was not measured against an attacker who adapts to it, expect less than its figure says."
        )
    if (report["defences"] or {}).get("rotation"):
        said.append(
            "A secret rotation lasts as long as no pairs of text and vector are known; do not count on it where an "
            "attacker can have texts of their own embedded."
        )
    if not rows:
        said.append("No defence was measured on this store; measure what noise, truncation and quantisation cost it.")
    return said


def defence_name(row: Mapping[str, Any]) -> str:
    """A defence with its setting."""
    setting = row.get("setting")
    if isinstance(setting, Mapping):
        setting = ", ".join(f"{key} {value}" for key, value in setting.items())
    return str(row.get("defence")) + (f" ({setting})" if setting not in (None, "") else "")


def _cost(row: Mapping[str, Any]) -> str:
    parts = []
    if worst := row.get("worst"):
        who = WHO.get(worst["attacker"], worst["attacker"])
        parts.append(f"token F1 {percent(worst['token_f1'], worst.get('token_f1_se'))} to {who}")
    if row.get("ndcg_at_10") is not None:
        parts.append(f"nDCG@10 {row['ndcg_at_10']:.3f}")
    if row.get("bytes_per_vector") is not None:
        parts.append(f"{row['bytes_per_vector']:,.0f} bytes a vector")
    return ", ".join(parts) or "not measured"
