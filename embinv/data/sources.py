"""Which files a source of texts means: a file, a folder or a glob, here or far away, in a seeded order.

The order is that of a hash of each file's URL and the seed: the same on every machine, so the first k files are a fair
draw of them all. A corpus's own division into train and validation is the business of the user's glob.
What it does not do: it opens no file (that is `reading`).
"""

import hashlib
import logging
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from glob import has_magic
from typing import Any

from embinv.data.settings import TextSource
from embinv.data.stores import LOCAL, file_system, protocol_of, reaching

logger = logging.getLogger(__name__)

COMPRESSIONS = ("", ".gz", ".zst")
KINDS = (*(kind + packed for kind in (".jsonl", ".json", ".csv", ".txt") for packed in COMPRESSIONS), ".parquet")
NAMES_SHOWN = 12  # of what is there, when nothing matches
_LANGUAGE = r"([a-z]{2,3}(?:-[A-Z][a-z]{3})?)"  # de, or zh-Latn


@dataclass(frozen=True)
class SourceFile:
    """One file of texts.

    Attributes:
        url: what its user would call it: an absolute path, or a URI.
        path: the same in its file system.
        lang: language of all its texts, or None if it is not known.
        kind: one of KINDS.
        size: bytes, or None if the store does not say.
    """

    url: str
    path: str
    lang: str | None
    kind: str
    size: int | None


def list_files(source: TextSource, seed: int) -> list[SourceFile]:
    """The files of a source, in an order drawn by the seed.

    Args:
        source: one whose `{lang}` has been put in. In a folder or glob, names that begin with `.` or `_` are
            skipped, and in a folder files of other kinds too, which is logged.
        seed: another seed, another order.

    Returns:
        At least one file.

    Raises:
        ValueError: nothing is there, a file is of no known kind, or the place cannot be reached; the message names
            the URL and the way out.
    """
    store, path = file_system(source.path)
    with reaching(source.path):
        literal = not has_magic(path) or (protocol_of(source.path) == LOCAL and os.path.exists(path))
        found = _below(store, path, source.path) if literal else _matches(store, path)
        if not found:
            raise ValueError(_nothing_there(store, path, source))
    files = [_source_file(store, entry, source) for entry in found]
    return sorted(files, key=lambda file: hashlib.blake2b(f"{seed}\0{file.url}".encode(), digest_size=16).digest())


def kind_of(name: str) -> str | None:
    """Which of KINDS a file name ends in, or None."""
    return next((kind for kind in KINDS if name.lower().endswith(kind)), None)


def _below(store: Any, path: str, url: str) -> list[dict[str, Any]]:
    """The file itself, or the known files in a folder."""
    entry = store.info(path)
    if entry["type"] == "file":
        return [entry]
    entries = _files(store.find(path, detail=True), skip_below=path)
    known = [entry for entry in entries if kind_of(entry["name"])]
    others = sorted(_base(entry["name"]) for entry in entries if not kind_of(entry["name"]))
    if others:
        logger.warning("%s: files of other kinds are left out: %s", url, _some(others))
    return known


def _matches(store: Any, pattern: str) -> list[dict[str, Any]]:
    """The files that a glob matches; hidden ones only if it names a hidden part itself."""
    root = _literal_part(pattern)
    asks_for_hidden = any(part[:1] in (".", "_") for part in pattern[len(root) :].split("/"))
    return _files(store.glob(pattern, detail=True), skip_below=None if asks_for_hidden else root)


def _files(entries: dict[str, dict[str, Any]], skip_below: str | None) -> list[dict[str, Any]]:
    files = [entry for entry in entries.values() if entry["type"] == "file"]
    if skip_below is None:
        return files
    below = len(skip_below.rstrip("/")) + 1
    return [file for file in files if not any(part[:1] in (".", "_") for part in file["name"][below:].split("/"))]


def _source_file(store: Any, entry: dict[str, Any], source: TextSource) -> SourceFile:
    path = entry["name"]
    kind = kind_of(path)
    if kind is None:
        raise ValueError(f"{source.path}: {_base(path)} is of no known kind; known are {', '.join(KINDS)}")
    url = path if protocol_of(source.path) == LOCAL else store.unstrip_protocol(path)
    return SourceFile(url, path, source.lang, kind, entry.get("size"))


def _nothing_there(store: Any, pattern: str, source: TextSource) -> str:
    """Says that nothing matches, and what is there instead: other languages, or else some names."""
    if not has_magic(pattern):
        return f"{source.path}: the folder holds no file of a known kind; known are {', '.join(KINDS)}"
    if source.lang is not None:
        folder, languages = _languages_there(store, pattern, source.lang)
        if languages:
            return f"{source.path}: matches no file; {folder} has files for {_some(languages)}; mend data.languages"
    folder, names = _listing(store, _literal_part(pattern))
    return f"{source.path}: matches no file; {folder} holds {_some(names) if names else 'nothing'}"


def _languages_there(store: Any, pattern: str, lang: str) -> tuple[str, list[str]]:
    """The folder where the path's language stands, and the languages that files or folders there are named by."""
    spots = list(re.finditer(rf"(?<![^\W_]){re.escape(lang)}(?![^\W_])", pattern))
    if not spots:
        return "", []
    start, end = spots[-1].span()
    parent, _, before = pattern[:start].rpartition("/")
    after = "" if end == len(pattern) or pattern[end] in "*?[/" else re.escape(pattern[end])
    if has_magic(parent + before):
        return "", []
    folder, names = _listing(store, parent)
    named = (re.match(re.escape(before) + _LANGUAGE + (after or "$"), name) for name in names)
    return folder, sorted({match[1] for match in named if match})


def _listing(store: Any, folder: str) -> tuple[str, list[str]]:
    """The names in a folder, or in the nearest one above it that exists."""
    while True:
        try:
            return folder or ".", sorted(_base(path) for path in store.ls(folder, detail=False))
        except FileNotFoundError:
            above = folder.rpartition("/")[0]
            if not above:
                return folder, []
            folder = above


def _literal_part(pattern: str) -> str:
    """The folders of a glob before its first wildcard."""
    parts = pattern.split("/")
    return "/".join(parts[: next(i for i, part in enumerate(parts) if has_magic(part))])


def _base(path: str) -> str:
    return path.rstrip("/").rpartition("/")[2]


def _some(names: Iterable[str]) -> str:
    names = list(names)
    more = f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
    return ", ".join(names[:NAMES_SHOWN]) + more
