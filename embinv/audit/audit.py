"""A leakage report: from recovered texts to audit.json, audit.md, audit.html and entities.parquet.

Nothing is inverted here: the rows are what the inversion job wrote. Each file is written whole or not at all, and the
same rows, settings and origin give the same bytes.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from embinv.audit import entities as labelled
from embinv.audit.examples import worst_examples
from embinv.audit.findings import findings
from embinv.audit.gathered import Gathered
from embinv.audit.leakage import Tokenize, by_words
from embinv.audit.markdown import markdown
from embinv.audit.masking import Shown
from embinv.audit.page import page
from embinv.audit.rows import count_rows, read_rows, recovered_files
from embinv.audit.settings import AuditSettings
from embinv.audit.topics import find_topics
from embinv.data.folders import whole_file

JSON, MARKDOWN, HTML = "audit.json", "audit.md", "audit.html"

OnProgress = Callable[[int, int], None]


def write_report(
    recovered: Sequence[Path],
    out: Path,
    settings: AuditSettings,
    *,
    origin: Mapping[str, Any],
    recognition: Mapping[str, Any] | None = None,
    labels: Path | None = None,
    tokenize: Tokenize | None = None,
    defences: Mapping[str, Any] | None = None,
    on_progress: OnProgress | None = None,
) -> dict[str, Any]:
    """Writes a report into a folder, which is made if need be.

    Args:
        recovered: Parquet files of the inversion job, or folders of them.
        out: the folder.
        settings: what is looked at and shown.
        origin: dump, rows, checkpoint, encoder, strategy, steps, seed, version, date, by: what is known of these.
        recognition: whether the vectors look like the encoder's.
        labels: folder of the corpus that the rows' ids are of, with its spans.
        tokenize: the decoder's tokenizer; None compares texts by words.
        defences: of a sweep over defences.
        on_progress: called with the rows done and their total after each block.

    Returns:
        The report, as audit.json has it.

    Raises:
        MissingLibrary: Presidio is not installed.
        ValueError: rows that cannot be read, none with a text, a text column that no row has, or labels of another
            corpus.
    """
    files = recovered_files(recovered)
    total = count_rows(files)
    if not total:
        raise ValueError(
            f"--recovered {files[0]}: holds no rows; run the inversion job on vectors that can be inverted"
        )
    gathered = Gathered(total, settings.seed, settings.languages, tokenize or by_words())
    out.mkdir(parents=True, exist_ok=True)
    with _entities_file(out / labelled.FILE, labels is not None) as write:
        for rows in read_rows(files, settings.text_column, labels):
            write(rows.ids, gathered.add(rows))
            if on_progress is not None:
                on_progress(gathered.rows + gathered.without_text, total)
        if not gathered.rows:
            raise ValueError(
                f"--recovered {files[0]}: none of its {total:,} rows has a text; run the inversion job on vectors that "
                "can be inverted"
            )
        if settings.text_column is not None and not gathered.originals:
            raise ValueError(
                f"--text-column {settings.text_column}: no row's metadata has a text in it; name the store's column "
                "that holds the original, or leave it out"
            )
    report = _report(gathered, settings, origin, recognition, defences, "tokens" if tokenize else "words")
    for name, text in {HTML: page(report), MARKDOWN: markdown(report), JSON: _json(report)}.items():
        with whole_file(out / name) as partial:
            partial.write_text(text, encoding="utf-8")
    return report


def _report(
    gathered: Gathered,
    settings: AuditSettings,
    origin: Mapping[str, Any],
    recognition: Mapping[str, Any] | None,
    defences: Mapping[str, Any] | None,
    unit: str,
) -> dict[str, Any]:
    sample, given = gathered.sample, gathered.given_away()
    may_show = _may_show(gathered.words.shown(settings.k), settings.reveal)
    texts = [each["text"] for each in sample]
    away = given[[each["row"] for each in sample]]
    return findings(
        origin=origin,
        settings=settings.model_dump(mode="json"),
        rows=gathered.rows,
        without_text=gathered.without_text,
        sampled=len(sample),
        unit=unit,
        leakage=gathered.leakage(),
        entities=gathered.entities(),
        personal_data=gathered.personal_data(),
        topics=find_topics(texts, away, settings.topics, settings.k, settings.seed, may_show),
        examples=worst_examples(gathered, settings),
        recognition=recognition,
        defences=defences,
    )


def _may_show(shown: Shown, reveal: bool) -> Callable[[str], bool]:
    return lambda word: reveal or not shown.names_somebody(word)


def _json(report: Mapping[str, Any]) -> str:
    return json.dumps(report, ensure_ascii=False, indent=1, allow_nan=False) + "\n"


@contextmanager
def _entities_file(path: Path, wanted: bool) -> Iterator[Callable[[Sequence[Any], Sequence[Any]], None]]:
    """Gives what writes the entities of a block; without labels there is no file, and none of an earlier report."""
    if not wanted:
        path.unlink(missing_ok=True)
        yield lambda ids, hits: None
        return
    schema = labelled.entities_schema(pa.int64())
    with whole_file(path) as partial, pq.ParquetWriter(partial, schema) as writer:

        def write(ids: Iterable[Any], hits: Sequence[Any]) -> None:
            writer.write_table(labelled.entities_table([int(number) for number in ids], hits, schema))

        yield write
