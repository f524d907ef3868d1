"""Recovered texts, labelled corpora and reports for the tests of leakage reports."""

import json

import pyarrow as pa
import pyarrow.parquet as pq

from embinv.audit.findings import findings
from embinv.audit.leakage import by_probability
from embinv.audit.settings import AuditSettings
from embinv.audit.sweep import DEFINITIONS

SPANS = pa.list_(pa.struct([("start", pa.int32()), ("end", pa.int32()), ("label", pa.string())]))


def write_recovered(path, texts, *, ids=None, probabilities=None, metadata=None, confidences=None):
    """A file as the inversion job writes it; metadata are dicts."""
    n = len(texts)
    ids = list(range(n)) if ids is None else ids
    columns = {
        "id": pa.array(ids),
        "text": pa.array(texts, pa.string()),
        "confidence": pa.array(confidences or [0.5] * n, pa.float32()),
        "probability": pa.array(probabilities or [None] * n, pa.float32()),
        "cosine": pa.nulls(n, pa.float32()),
        "encoder_calls": pa.nulls(n, pa.int32()),
        "metadata": pa.array(
            [None if each is None else json.dumps(each) for each in metadata or [None] * n], pa.string()
        ),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path)
    return path


def write_corpus(folder, ids, texts, labelled):
    """A corpus as jobs/corpus.py writes it; labelled are (label, surface) that stand in the texts in this order."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for text, own in zip(texts, labelled, strict=True):
        spans, place = [], 0
        for label, surface in own:
            start = text.index(surface, place)
            place = start + len(surface)
            spans.append({"start": start, "end": place, "label": label})
        rows.append(spans)
    table = {"id": pa.array(ids, pa.int64()), "text": texts, "lang": ["en"] * len(ids), "spans": pa.array(rows, SPANS)}
    pq.write_table(pa.table(table), folder / "part-00000.parquet")
    return folder


DEFENCES = {
    "rows": [
        {"defence": "none", "setting": None, "bytes_per_vector": 1536, "adapted": None, "ndcg_at_10": 0.81}
        | {"leakage": {"token_f1": 0.66, "token_f1_se": 0.01, "exact_match": 0.03}, "recall_at_10": 0.9}
        | {"on_front": True, "worst": {"attacker": "leakage", "token_f1": 0.66, "token_f1_se": 0.01}},
        {"defence": "noise", "setting": {"sigma": 0.1}, "bytes_per_vector": 1536, "ndcg_at_10": 0.74}
        | {"leakage": {"token_f1": 0.3, "token_f1_se": 0.01}, "adapted": {"token_f1": 0.45, "token_f1_se": 0.02}}
        | {"recall_at_10": 0.8, "on_front": True}
        | {"worst": {"attacker": "adapted", "token_f1": 0.45, "token_f1_se": 0.02}},
        {"defence": "int8", "setting": "", "bytes_per_vector": 384, "leakage": {"token_f1": 0.65}, "adapted": None}
        | {"ndcg_at_10": 0.80, "recall_at_10": 0.89, "on_front": False}
        | {"worst": {"attacker": "leakage", "token_f1": 0.65}},
    ],
    "rotation": [
        {"pairs": 1000, "token_f1": 0.6, "token_f1_se": 0.01, "f1_share": 0.9},
        {"pairs": 100, "token_f1": 0.15, "token_f1_se": 0.01, "f1_share": 0.2},
    ],
    "n": 300,
    "known": 5000,
    "changed": ["product 16 is left out: no divisor of 24 dimensions"],
    "definitions": DEFINITIONS,
}
RATE = {"n": 3, "texts": 3, "found": 1, "recall": 1 / 3, "recall_se": 0.2}


def parts(**changes):
    """What `findings` takes, all of it there."""
    import numpy as np

    return {
        "origin": {"dump": "store.parquet", "encoder": "minilm", "date": "2026-01-02", "by": "Ann"},
        "settings": AuditSettings(text_column="body").model_dump(mode="json"),
        "rows": 1234,
        "without_text": 0,
        "sampled": 1234,
        "unit": "tokens",
        "leakage": {
            "by_probability": by_probability(np.array([0.2, 0.9, 0.95, np.nan])),
            "by_comparison": {"n": 4, "nearly_right": 0.5, "nearly_right_se": 0.25, "nearly_right_count": 2}
            | {
                "whole_text": 0.25,
                "whole_text_se": 0.2,
                "token_f1": 0.6,
                "token_f1_se": 0.1,
                "bleu": 31.2,
                "bleu_se": 4.0,
            },
            "agreement": {"n": 3, "expected": 2.05, "expected_se": 0.5, "found": 2, "deviation": -0.1, "agrees": True},
        },
        "entities": RATE | {"by_kind": {"PERSON": RATE, "CITY": {**RATE, "recall_se": None, "texts": 1}}},
        "personal_data": [
            {"kind": "EMAIL", "found": 7, "texts": 6, "confirmed": 2, "unconfirmed": 5, "in_originals": 9}
            | {"recovered": 3, "recovery": 1 / 3, "recovery_se": 0.1}
        ],
        "topics": [{"terms": ["pay", "bank"], "n": 40, "share": 0.5, "given_away": 0.25, "given_away_se": 0.1}],
        "examples": [example()],
        "recognition": {"verdict": "the encoder's", "typical": True},
        "defences": DEFENCES,
    } | changes


def example(**changes):
    return {
        "id": 17,
        "lang": "en",
        "recovered": "ann owes ben",
        "original": "ann owes carl",
        "probability": 0.91,
        "confidence": 0.7,
        "token_f1": 0.67,
        "nearly_right": False,
        "entities_found": 1,
        "entities": 2,
    } | changes


def report(**changes):
    """A report with everything in it."""
    return findings(**parts(**changes))


def bare_report():
    """A report of texts of which nothing else is known."""
    nothing = {"by_probability": None, "by_comparison": None, "agreement": None}
    return report(
        leakage=nothing, entities=None, personal_data=[], topics=[], examples=[], recognition=None, defences=None
    )
