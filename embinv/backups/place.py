"""Where backups lie: a folder on this machine or in an object store, with a folder for each backup.

A backup is whole once its backup.json is there, which is written last and deleted first. Who is allowed to read and
write there is the store's matter: credentials come from the environment, as for any other store.
"""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from embinv.backups.manifest import MANIFEST_FILE, READ_BYTES, File, Manifest
from embinv.data.schema import reasons
from embinv.data.stores import LOCAL, file_system, protocol_of, reaching


class Damaged(ValueError):
    """A backup is not what its manifest says."""


class Place:
    """A folder of backups.

    Args:
        url: a path, or an s3:// or gs:// URI.

    Raises:
        ValueError: the protocol is unknown, reads only, or its package is not installed.
    """

    def __init__(self, url: str) -> None:
        if protocol_of(url) == "hf":
            raise ValueError(f"{url}: backups lie in a folder, or under s3:// or gs://; give one of those")
        self.is_local = protocol_of(url) == LOCAL
        if self.is_local:
            url = str(Path(url.removeprefix("file://")).expanduser().absolute())
        self.url = url.rstrip("/")
        self._store, root = file_system(self.url)
        self._root = root.rstrip("/")

    def names(self) -> list[str]:
        """Of all folders there, whole backups or not; none where the place does not exist yet."""
        with reaching(self.url):
            self._store.invalidate_cache()  # others write there too
            try:
                listed = self._store.ls(self._root, detail=True)
            except FileNotFoundError:
                return []
        return sorted(each["name"].rstrip("/").rpartition("/")[2] for each in listed if each["type"] == "directory")

    def manifest(self, name: str) -> Manifest | None:
        """What a backup says that it holds; None where there is no whole one of this name.

        Raises:
            Damaged: its backup.json cannot be read.
        """
        with reaching(self.url):
            try:
                text = self._store.cat_file(self._path(name, MANIFEST_FILE))
            except FileNotFoundError:
                return None
        try:
            found = Manifest.model_validate_json(text)
        except ValidationError as error:
            raise Damaged(f"{self.url}/{name}: {MANIFEST_FILE} cannot be read ({reasons(error)})") from error
        return found

    def holds_one(self) -> bool:
        """Whether the place is a backup itself, and no folder of them."""
        with reaching(self.url):
            return self._store.exists(f"{self._root}/{MANIFEST_FILE}")

    def manifests(self) -> list[Manifest]:
        """Of all backups that are whole, the newest first; a folder whose manifest is damaged is left out."""
        found: list[Manifest] = []
        for name in self.names():
            try:
                manifest = self.manifest(name)
            except Damaged:
                continue
            if manifest is not None and manifest.name == name:
                found.append(manifest)
        return sorted(found, key=lambda each: (each.made, each.name), reverse=True)

    def put(self, name: str, inside: str, source: Path) -> File:
        """Copies a file into a backup; returns what was read of it on the way."""
        digest, size = hashlib.sha256(), 0
        with source.open("rb") as file, self._writing(name, inside) as target:
            while block := file.read(READ_BYTES):
                digest.update(block)
                size += len(block)
                target.write(block)
        return File(bytes=size, sha256=digest.hexdigest())

    def finish(self, manifest: Manifest) -> None:
        """Writes the manifest: from now on it is a backup."""
        with self._writing(manifest.name, MANIFEST_FILE) as target:
            target.write((manifest.model_dump_json(indent=1) + "\n").encode())

    def blocks(self, name: str, inside: str) -> Iterator[bytes]:
        """The content of a file of a backup.

        Raises:
            Damaged: there is none.
        """
        with reaching(self.url):  # here, and not around what the blocks are for
            try:
                file = self._store.open(self._path(name, inside), "rb")
            except FileNotFoundError as error:
                raise Damaged(f"{inside} is missing") from error
            with file:
                while block := file.read(READ_BYTES):
                    yield block

    def check(self, name: str, inside: str, wanted: File, target: Path | None = None) -> str | None:
        """Reads a file of a backup to its end, and writes it to `target` if that is given.

        Returns:
            What is wrong with it; None if it is what the manifest says.
        """
        digest, size = hashlib.sha256(), 0
        try:
            with nullcontext() if target is None else target.open("wb") as out:
                for block in self.blocks(name, inside):
                    digest.update(block)
                    size += len(block)
                    if out is not None:
                        out.write(block)
        except Damaged as error:
            return str(error)
        if size != wanted.bytes:
            return f"{inside} has {size:,} bytes, not {wanted.bytes:,}"
        return None if digest.hexdigest() == wanted.sha256 else f"{inside} has another content"

    def delete(self, name: str) -> None:
        """Deletes a backup, its manifest first: killed in between, no half of it passes for the whole."""
        with reaching(self.url):
            manifest = self._path(name, MANIFEST_FILE)
            if self._store.exists(manifest):
                self._store.rm_file(manifest)
            if self._store.exists(f"{self._root}/{name}"):
                self._store.rm(f"{self._root}/{name}", recursive=True)

    def _path(self, name: str, inside: str) -> str:
        return f"{self._root}/{name}/{inside}"

    @contextmanager
    def _writing(self, name: str, inside: str) -> Iterator[Any]:
        path = self._path(name, inside)
        with reaching(self.url):
            if self.is_local:
                Path(path).parent.mkdir(parents=True, exist_ok=True)
                with Path(path).open("wb") as file:
                    yield file
                    file.flush()
                    os.fsync(file.fileno())  # else a power cut could leave a manifest of files that are not there
            else:
                with self._store.open(path, "wb") as file:
                    yield file
