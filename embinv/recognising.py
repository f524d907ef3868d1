"""Is this the right inverter for these vectors? Asked before the work, of all inverters at hand.

Of a checkpoint only config.json and the statistics of its training vectors are read. What is compared is in
`embinv.spaces.recognition`.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from embinv.checkpoint import STATISTICS_FILE, CheckpointConfig, read_checkpoint_config, seen_in_training
from embinv.data.dumps.inspection import Inspection
from embinv.spaces.moments import Shape
from embinv.spaces.recognition import Recognition, Seen, recognise

DEPTH = 3  # folders below the one that is searched


@dataclass(frozen=True)
class Candidate:
    """An inverter at hand."""

    folder: Path
    encoder: str
    recognition: Recognition


def recognise_dump(inspection: Inspection, folder: Path) -> Candidate:
    """Compares a dump with what one checkpoint was trained on.

    Raises:
        ValueError: the folder is no checkpoint, or no vector of the dump can be inverted.
    """
    if inspection.seen is None:
        raise ValueError(
            f"--vectors {inspection.address}: no vector can be inverted: {inspection.named[0]}, and so on; export the "
            "dump anew"
        )
    return _candidate(inspection.seen, folder, read_checkpoint_config(folder))


def rank(inspection: Inspection, folders: Iterable[Path]) -> list[Candidate]:
    """All inverters among some folders, the likeliest first; what is no readable checkpoint of one is left out."""
    found = []
    for folder in folders:
        try:
            config = read_checkpoint_config(folder)
            if inspection.seen is not None and not config.corrects:
                found.append(_candidate(inspection.seen, folder, config))
        except ValueError:
            continue
    return sorted(found, key=lambda each: (*_order(each.recognition), str(each.folder)))


def checkpoints_below(folder: Path) -> list[Path]:
    """Folders that look like checkpoints, a few levels down."""
    patterns = ["/".join(["*"] * depth + ["model.safetensors"]) for depth in range(DEPTH + 1)]
    return sorted({file.parent for pattern in patterns for file in folder.glob(pattern) if _visible(file, folder)})


def require_recognised(chosen: Candidate, others: Sequence[Candidate], address: str) -> None:
    """Refuses vectors of another space.

    Args:
        chosen: the inverter that was asked for.
        others: those at hand, ranked.
        address: of the dump, for the message.

    Raises:
        ValueError: they are not its encoder's; the message has the figures, and the inverter that would do.
    """
    if not chosen.recognition.refused:
        return
    better = [each for each in others if each.recognition.verdict in ("alike", "other texts")]
    way_out = (
        f"use --checkpoint {better[0].folder}, whose encoder they look like"
        if better
        else f"none of the {len(others)} inverters at hand fits them: train one for their encoder, or fit a map from "
        "known pairs with `embinv align`"
    )
    found = chosen.recognition
    force = " (--force inverts them all the same)" if found.dim == found.expected_dim else ""
    raise ValueError(
        f"--vectors {address}: these vectors do not look like {chosen.encoder}'s: {chosen.recognition.reason}; "
        f"{way_out}{force}"
    )


def table(candidates: Sequence[Candidate]) -> str:
    """The ranking, as lines to read."""
    rows = [["", "verdict", "agreement", "x chance", "mean cosine", "spectrum apart"]]
    for each in candidates:
        found = each.recognition
        figures = (found.agreement, found.deviations, found.mean_cosine, found.spectrum_distance)
        verdict = found.verdict if found.dim == found.expected_dim else f"takes {found.expected_dim} dimensions"
        rows.append([str(each.folder), verdict, *("-" if value is None else f"{value:.3g}" for value in figures)])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def _candidate(seen: Seen, folder: Path, config: CheckpointConfig) -> Candidate:
    trained = seen_in_training(config, Shape.load(folder / STATISTICS_FILE))
    encoder = config.pairs.encoder
    return Candidate(folder, encoder.model, recognise(seen, trained, encoder.dim, encoder.model))


def _order(found: Recognition) -> tuple[int, float, float]:
    """Smaller is likelier: those of other dimensions last, then by agreement, then by the texts' likeness."""
    verdicts = ("alike", "other texts", "unknown", "unlike")
    place = verdicts.index(found.verdict) + (found.dim != found.expected_dim)
    return place, -(found.agreement or 0.0), found.spectrum_distance or 0.0


def _visible(file: Path, folder: Path) -> bool:
    return not any(part.startswith(".") for part in file.relative_to(folder).parts)
