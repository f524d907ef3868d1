"""What making a corpus will take, from the listing of its sources and a trial of 200 rows of each (`--dry-run`)."""

import time
from itertools import islice
from typing import Any

import pyarrow as pa

from embinv.data.reading import read_batches
from embinv.data.settings import DataSettings
from embinv.data.sources import SourceFile
from jobs.progress import duration
from jobs.supplies import Supply, open_supplies
from jobs.texts import clean, record_tables

TRIAL_ROWS = 200


def plan_corpus(settings: DataSettings) -> list[dict[str, Any]]:
    """One entry a language: files and their size, the share of good rows in the trial, and what will come of it.

    Raises:
        ValueError: a source cannot be read.
    """
    return [_plan(supply, settings) for supply in open_supplies(settings)]


def _plan(supply: Supply, settings: DataSettings) -> dict[str, Any]:
    sources = list(supply.sources)
    first = sources[0]
    files = isinstance(first, SourceFile)
    began = time.monotonic()
    tables = (
        read_batches(first, settings.text_column, TRIAL_ROWS)
        if isinstance(first, SourceFile)
        else record_tables(first, settings.seed)
    )
    trial = pa.concat_tables(list(islice(tables, 1))).slice(0, TRIAL_ROWS)
    tables.close()  # type: ignore[attr-defined]
    cleaned = clean(trial, settings)
    seconds = time.monotonic() - began
    good = cleaned.filter(cleaned["dropped"].is_null())
    share = len(good) / max(1, len(trial))
    size = sum(source.size or 0 for source in sources if isinstance(source, SourceFile))
    return {
        "lang": supply.lang or "by row",
        "files": len(sources) if files else 0,
        "bytes": size,
        "trial_rows": len(trial),
        "good_share": share,
        "want": supply.want,
        "bytes_per_text": good["text"].nbytes / max(1, len(good)),
        "trial_seconds": seconds,
        "texts_read": None if supply.want is None else round(supply.want / max(share, 1e-3)),
    }


def plan_text(plan: list[dict[str, Any]]) -> str:
    """The plan as lines to read."""
    lines = ["language  files  size         good rows of the trial  wanted      texts to read for it  output"]
    for part in plan:
        size = f"{part['bytes'] / 1e6:,.1f} MB" if part["files"] else "generated"
        want = "all" if part["want"] is None else f"{part['want']:,}"
        read = "all" if part["texts_read"] is None else f"about {part['texts_read']:,}"
        output = "" if part["want"] is None else f"{part['want'] * (part['bytes_per_text'] + 20) / 1e6:,.1f} MB"
        good = f"{part['good_share']:.0%} of {part['trial_rows']}"
        lines.append(
            f"{part['lang']:<9} {part['files']:<6} {size:<12} {good:<23} {want:<11} {read:<21} {output}".rstrip()
        )
    seconds = sum(part["trial_seconds"] for part in plan)
    lines.append(f"the trial took {duration(seconds)}, most of it to reach the sources; nothing was written")
    return "\n".join(lines)
