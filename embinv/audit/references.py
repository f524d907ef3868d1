"""What a leakage report refers to, and what it cannot say: plain sentences, no figures."""

from typing import Any

REFERENCES = (
    {
        "name": "OWASP LLM08:2025 Vector and Embedding Weaknesses",
        "url": "https://genai.owasp.org/llmrisk/llm082025-vector-and-embedding-weaknesses/",
        "says": "lists embedding inversion among the risks of vector stores",
    },
    {
        "name": "OWASP LLM02:2025 Sensitive Information Disclosure",
        "url": "https://genai.owasp.org/llmrisk/llm022025-sensitive-information-disclosure/",
        "says": "what the recovered personal data is a case of",
    },
    {
        "name": "MITRE ATLAS AML.T0024 Exfiltration via AI Inference API, AML.T0024.001 Invert AI Model",
        "url": "https://atlas.mitre.org/techniques/AML.T0024.001",
        "says": "the technique nearest to this one: what went into a model is rebuilt from what came out of it",
    },
    {
        "name": "MITRE ATLAS AML.T0035 AI Artifact Collection",
        "url": "https://atlas.mitre.org/techniques/AML.T0035",
        "says": "a vector store, its snapshots and backups are such artifacts",
    },
    {
        "name": "MITRE ATLAS AML.T0025 Exfiltration via Cyber Means",
        "url": "https://atlas.mitre.org/techniques/AML.T0025",
        "says": "how a dump of vectors leaves a network",
    },
    {
        "name": "Song and Raghunathan 2020, Information Leakage in Embedding Models",
        "url": "https://arxiv.org/abs/2004.00053",
        "says": "words and attributes recovered from sentence embeddings",
    },
    {
        "name": "Morris et al. 2023, Text Embeddings Reveal (Almost) As Much As Text",
        "url": "https://arxiv.org/abs/2310.06816",
        "says": "whole texts recovered by correcting guesses with the encoder at hand",
    },
)
"""Frameworks and papers, by what they say about this."""

LIMITS = (
    "The figures are what this checkpoint recovered in this way. An attacker with more training texts, more passes or "
    "the encoder at hand may recover more, so they are no upper bound of what the vectors give away.",
    "A text counts as given away from 90% of its tokens on. A text of which less is right can give away a name or an "
    "amount all the same; the entities tell.",
    "Probabilities were fitted on validation texts of the checkpoint. They hold for texts of that kind; their standard "
    "error here is that of chance alone.",
    "A text longer than the checkpoint can write cannot be right at its end, and counts as it was recovered.",
    "Personal data is recognised by its form, with patterns and checksums. Names, places and employers have none: "
    "unlabelled names are not counted.",
    "Letters may have lost their case and spaces may stand around signs: a wallet address in lower case fails its "
    "checksum, and a web address that begins with neither http nor www and has spaces in it is missed.",
    "A find in a recovered text may be made up by the checkpoint; only where originals are there is it confirmed.",
    "Standard errors are over texts, and take the rows for a random sample of the store. One of 0 says that all of "
    "them were alike, not that the next one will be.",
)
"""What holds for every report."""

REDACTED = (
    "Examples are redacted: labels, patterns, digits and rare words. This errs towards hiding, and is no proof: a name "
    "that enough texts hold and nobody labelled stays."
)
IN_CLEAR = "The recovered files and entities.parquet hold personal data in clear; guard them as you guard the texts."
DEFENDED = (
    "A defence is as good as the attackers that it was measured against: one who knows of it and trains anew can do "
    "better than one who does not."
)


def limits(report: dict[str, Any]) -> list[str]:
    """The limits of one report."""
    said = [*LIMITS]
    if report["sampled"] < report["rows"]:
        said.append(
            f"Topics, BLEU and examples are of {report['sampled']:,} of {report['rows']:,} rows, drawn with seed "
            f"{report['settings']['seed']}; everything else is over all rows."
        )
    if report["unit"] == "words":
        said.append("The checkpoint's tokenizer was not at hand: texts are compared by words, whatever their case.")
    if not report["revealed"] and report["examples"]:
        said.append(REDACTED)
    if report["defences"]:
        said.append(DEFENDED)
    return [*said, IN_CLEAR]
