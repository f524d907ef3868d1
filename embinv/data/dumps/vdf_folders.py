"""Vectors in a folder that vector-io wrote: VDF_META.json names indexes, and for each its namespaces' Parquet files.

`name` picks the index where there are several. Namespaces come in the order of the file, each vector's namespace is
metadata where it has a name. The vectors' column is what the settings say, else the first of `vector_columns`; the
ids' is what they say, else `id_column`, else `id`.
Source: https://github.com/AI-Northstar-Tech/vector-io, "Universal Vector Dataset Format (VDF) specification".
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from embinv.data.dumps.base import BrokenDump
from embinv.data.dumps.columns import DEFAULT_ID, choose_name
from embinv.data.dumps.parquet_files import ParquetDump, ParquetPart, parquet_parts
from embinv.data.dumps.settings import DumpSettings

META_FILE = "VDF_META.json"
_NAMESPACE = "namespace"


class _Namespace(BaseModel):
    """What is read of a namespace's entry; others write more into it."""

    data_path: str
    namespace: str = ""
    vector_columns: list[str] = []


class _Meta(BaseModel):
    indexes: dict[str, list[_Namespace]]
    id_column: str | None = None


@dataclass(frozen=True)
class VdfDump:
    """A folder of vector-io's."""

    address: str
    settings: DumpSettings

    def parts(self) -> list[ParquetPart]:
        """See `Dump`; reads VDF_META.json and the files' footers.

        Raises:
            BrokenDump: VDF_META.json or a Parquet file cannot be read.
            ValueError: the index or the vectors' column cannot be told.
        """
        meta = self._meta()
        index = choose_name(self.settings.name, list(meta.indexes), self.address, "index")
        dumps = [self._dump(each, meta.id_column) for each in meta.indexes[index]]
        return parquet_parts(dumps)

    def _meta(self) -> _Meta:
        path = Path(self.address) / META_FILE
        try:
            found: Any = json.loads(path.read_text(encoding="utf-8"))
            return _Meta.model_validate(found)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            raise BrokenDump(f"--vectors {path}: {where}: {first['msg']}; export the folder anew") from error
        except (OSError, ValueError) as error:
            raise BrokenDump(f"--vectors {path}: cannot be read ({error}); export the folder anew") from error

    def _dump(self, entry: _Namespace, id_column: str | None) -> ParquetDump:
        settings = self.settings
        if settings.column is None and entry.vector_columns:
            settings = settings.model_copy(update={"column": entry.vector_columns[0]})
        added = {_NAMESPACE: entry.namespace} if entry.namespace else {}
        return ParquetDump(self._place(entry.data_path), settings, id_column or DEFAULT_ID, added)

    def _place(self, data_path: str) -> str:
        """Where the files lie: some exports begin their paths with the folder's own name."""
        root = Path(self.address).resolve()
        given = Path(data_path)
        if given.is_absolute() or ".." in given.parts:
            raise ValueError(
                f"--vectors {self.address}: data_path {data_path!r} leads out of the folder; move the files into it "
                f"and mend {META_FILE}"
            )
        places = [root / given]
        if given.parts[:1] == (root.name,):
            places.append(root.parent / given)
        found = next((place for place in places if place.exists()), None)
        if found is None:
            raise ValueError(
                f"--vectors {self.address}: data_path {data_path!r} is not there; fetch the folder anew, with all files"
            )
        return str(found)
