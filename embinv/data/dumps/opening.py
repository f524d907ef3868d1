"""From an address to a dump: which kind of store it is, told by a file's suffix or by what lies in a folder.

What it does not do: look at a vector, or fetch anything; a store far away is read by its own protocol or not at all.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from embinv.data.dumps import (
    arrow_files,
    chroma_store,
    csv_files,
    faiss_files,
    json_lines,
    lance_tables,
    numpy_files,
    parquet_files,
    postgres,
    qdrant_store,
    vdf_folders,
)
from embinv.data.dumps.base import Dump
from embinv.data.dumps.settings import DumpSettings

_ALL = frozenset({"column", "id_column", "name", "metadata"})
_OF_A_TABLE = _ALL - {"name"}


@dataclass(frozen=True)
class _Kind:
    """A kind of store.

    Attributes:
        what: for a list of what is known.
        is_it: whether an address is of this kind.
        open: makes the dump.
        settings: which it uses.
    """

    what: str
    is_it: Callable[[str], bool]
    open: Callable[[str, DumpSettings], Dump]
    settings: frozenset[str]


def _file(*suffixes: str) -> Callable[[str], bool]:
    return lambda address: address.lower().endswith(suffixes) and not os.path.isdir(address)


def _folder_with(*names: str) -> Callable[[str], bool]:
    return lambda address: all(os.path.exists(os.path.join(address, name)) for name in names)


def _lance(address: str) -> bool:
    folder = Path(address)
    return folder.is_dir() and (folder.suffix == lance_tables.SUFFIX or any(folder.glob("*" + lance_tables.SUFFIX)))


def _parquet(address: str) -> bool:
    suffixes = parquet_files.SUFFIXES
    if not os.path.isdir(address):
        return address.lower().endswith(suffixes)
    return any(name.lower().endswith(suffixes) for _, _, names in os.walk(address) for name in names)


_KINDS = (  # a folder is what the first line says that fits
    _Kind(
        "postgresql://USER@HOST/DATABASE with pgvector",
        lambda address: address.partition("://")[0] in postgres.SCHEMES,
        postgres.PostgresDump,
        _ALL,
    ),
    _Kind(".npy", _file(".npy"), numpy_files.NumpyDump, frozenset()),
    _Kind(".npz", _file(".npz"), numpy_files.NumpyDump, _ALL),
    _Kind(", ".join(arrow_files.SUFFIXES), _file(*arrow_files.SUFFIXES), arrow_files.ArrowDump, _OF_A_TABLE),
    _Kind(".jsonl, .ndjson (.gz, .zst)", _file(*json_lines.SUFFIXES), json_lines.JsonLinesDump, _OF_A_TABLE),
    _Kind(", ".join(csv_files.DELIMITERS), _file(*csv_files.DELIMITERS), csv_files.CsvDump, _OF_A_TABLE),
    _Kind(", ".join(faiss_files.SUFFIXES), _file(*faiss_files.SUFFIXES), faiss_files.FaissDump, frozenset()),
    _Kind("a folder of vector-io", _folder_with(vdf_folders.META_FILE), vdf_folders.VdfDump, _ALL),
    _Kind(
        "a folder of Chroma",
        _folder_with(chroma_store.DATABASE),
        chroma_store.ChromaDump,
        frozenset({"name", "metadata"}),
    ),
    _Kind(
        "a folder of Qdrant's local mode",
        _folder_with(qdrant_store.META_FILE, "collection"),
        qdrant_store.QdrantDump,
        _ALL - {"id_column"},
    ),
    _Kind("a folder of LanceDB", _lance, lance_tables.LanceDump, _ALL),
    _Kind("a folder with index.faiss", _folder_with(faiss_files.LANGCHAIN_FILE), faiss_files.FaissDump, frozenset()),
    _Kind(".parquet, or a folder of them", _parquet, parquet_files.ParquetDump, _OF_A_TABLE),
)


def open_dump(address: str, settings: DumpSettings = DumpSettings()) -> Dump:  # noqa: B008 -- frozen
    """Tells what an address is; `parts` of what is returned then opens it.

    Args:
        address: a file, a folder, or a URL of PostgreSQL.
        settings: names inside the dump.

    Raises:
        ValueError: nothing is there, it is of no known kind, its address holds a password, or a setting means nothing
            for its kind.
    """
    shown = postgres.without_secrets(address) if "://" in address else address
    if address.partition("://")[0] in postgres.SCHEMES:
        postgres.refuse_secrets(address)
    elif "://" in address:
        raise ValueError(f"--vectors {shown}: cannot be read from there; copy it here, or give {_known()}")
    elif not os.path.exists(address):
        raise ValueError(f"--vectors {address}: no such file or folder; check the path")
    kind = next((each for each in _KINDS if each.is_it(address)), None)
    if kind is None:
        raise ValueError(f"--vectors {address}: is of no known kind; known are {_known()}")
    for name, value in settings:
        if value and name not in kind.settings:
            raise ValueError(f"--vectors {shown}: {name} is {value!r}, but means nothing for {kind.what}; leave it out")
    return kind.open(address, settings)


def _known() -> str:
    return "; ".join(kind.what for kind in _KINDS)
