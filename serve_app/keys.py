"""API keys: whose key is it, and `python -m serve_app.keys` that makes, lists and revokes them.

A key is 256 random bits, so its plain SHA-256 is all that a server stores: there is nothing to guess that a slow
hash would protect. The file holds one `name sha256-hex` a line and is read again when it changes, so that a line
taken out is a key revoked. No HTTP and no Ray here.
"""

import argparse
import hashlib
import hmac
import logging
import re
import secrets
import stat
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from serve_app.keys_file import changed_lines

ENVIRONMENT = "EMBINV_API_KEYS"
PREFIX = "embinv_"
STAT_EVERY_S = 1.0
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
HASH = re.compile(r"[0-9a-fA-F]{64}")

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Entry:
    """One key as it is stored, and where that was read: `keys.txt:3`."""

    name: str
    digest: bytes
    place: str


class KeyRing:
    """The keys that may enter, made by `KeyRing.open`."""

    def __init__(self, file: Path | None, fixed: list[Entry], clock: Callable[[], float]) -> None:
        self._file, self._fixed, self._clock = file, fixed, clock
        self._entries, self._signature = fixed, None
        if file is not None:
            self._signature = _signature(file)
            self._entries = _without_doubles([*read_keys(file), *fixed])
        self._looked_at = clock()

    @classmethod
    def open(
        cls, keys_file: str | None, environment: Mapping[str, str], clock: Callable[[], float] = time.monotonic
    ) -> "KeyRing":
        """Reads the keys of a file and of the environment.

        Args:
            keys_file: path of lines `name sha256-hex`; null for none.
            environment: where EMBINV_API_KEYS may stand: `name:sha256hex`, comma-separated.
            clock: seconds; the file is looked at once a second at most.

        Raises:
            ValueError: a key is not in the form described; the message names its place and the fix.
        """
        fixed = [] if environment.get(ENVIRONMENT) is None else read_environment(environment[ENVIRONMENT])
        ring = cls(None if keys_file is None else Path(keys_file).expanduser(), fixed, clock)
        if ring.required and not ring._entries:
            logger.warning("%s holds no key, so nobody is let in; add one: %s", keys_file, _how_to_add(keys_file))
        return ring

    @property
    def required(self) -> bool:
        """Whether a key is asked for: it is as soon as a file was named, even when its last line is taken out."""
        return self._file is not None or bool(self._fixed)

    def match(self, key: str) -> str | None:
        """The name of a key, or None. It takes as long whether and wherever one matches."""
        self._read_again()
        digest = _digest(key)
        found = None
        for entry in self._entries:
            if hmac.compare_digest(entry.digest, digest):
                found = entry.name
        return found

    def _read_again(self) -> None:
        now = self._clock()
        if self._file is None or now - self._looked_at < STAT_EVERY_S:
            return
        self._looked_at = now
        signature = _signature(self._file)
        if signature == self._signature:
            return
        self._signature = signature  # of a bad file too: it is complained about once
        try:
            entries = _without_doubles([*read_keys(self._file), *self._fixed])
        except ValueError as error:
            logger.warning("%s; until then the keys read last stay valid", error)
            return
        self._entries = entries
        logger.info("%s was read again: %d keys", self._file, len(entries))


def new_key() -> str:
    """A key that nobody has."""
    return PREFIX + secrets.token_urlsafe(32)


def key_hash(key: str) -> str:
    """What is stored of a key: 64 hexadecimal digits."""
    return _digest(key).hex()


def read_keys(file: Path) -> list[Entry]:
    """The keys of a file.

    Raises:
        ValueError: it cannot be read, or a line is wrong.
    """
    try:
        if not stat.S_ISREG(file.stat().st_mode):  # a pipe would be waited for
            raise ValueError(f"{file}: this is not a file; name one with lines `name sha256-hex`")
        text = file.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ValueError(f"{file}: {error.strerror}; mend that, or make it: {_how_to_add(file)}") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{file}: not text in UTF-8; write lines `name sha256-hex`") from error
    return read_lines(text.splitlines(), str(file))


def read_lines(lines: Iterable[str], file: str) -> list[Entry]:
    """The keys of the lines of a file called `file`; empty lines and `#` comments are none.

    Raises:
        ValueError: a line is wrong.
    """
    entries = []
    for number, line in enumerate(lines, start=1):
        words = line.partition("#")[0].split()
        if words:
            entries.append(_entry(words, f"{file}:{number}", "name sha256-hex"))
    return _without_doubles(entries)


def read_environment(value: str) -> list[Entry]:
    """The keys of EMBINV_API_KEYS.

    Raises:
        ValueError: it is blank, which would let everybody in, or an entry is wrong.
    """
    if not value.strip():
        raise ValueError(f"{ENVIRONMENT}: set, but empty; unset it, or give name:sha256hex, comma-separated")
    parts = [part.strip() for part in value.split(",")]
    return _without_doubles(
        [
            _entry(part.split(":"), f"{ENVIRONMENT}, entry {number}", "name:sha256hex")
            for number, part in enumerate(parts, start=1)
        ]
    )


def _entry(words: list[str], place: str, form: str) -> Entry:
    # No value is quoted here: a line in the wrong form may well hold a key, and this is logged.
    if any(word.startswith(PREFIX) for word in words):
        raise ValueError(f"{place}: this holds a key itself; write its SHA-256 instead (`{form}`), and make a new key")
    if len(words) != 2:
        raise ValueError(f"{place}: {len(words)} parts instead of 2; write `{form}`")
    name, digest = words
    if not NAME.fullmatch(name):
        raise ValueError(f"{place}: not a name; use up to 64 letters, digits and ._@-, beginning with one of the first")
    if not HASH.fullmatch(digest):
        raise ValueError(f"{place}: the hash of {name!r} is not 64 hexadecimal digits; write the key's SHA-256")
    return Entry(name, bytes.fromhex(digest), place)


def _without_doubles(entries: list[Entry]) -> list[Entry]:
    names: dict[str, Entry] = {}
    digests: dict[bytes, Entry] = {}
    for entry in entries:
        first = names.setdefault(entry.name, entry)
        if first is not entry:
            raise ValueError(f"{entry.place}: the name {entry.name!r} stands at {first.place} already; remove one")
        first = digests.setdefault(entry.digest, entry)
        if first is not entry:  # revoking one of the names would not revoke the key
            raise ValueError(f"{entry.place}: the key of {first.name!r} ({first.place}) again; remove one of the two")
    return entries


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()


def _signature(file: Path) -> tuple[int, ...]:
    try:
        found = file.stat()
    except OSError as error:
        return (error.errno or -1,)
    # A change of mode may make it readable; the change of mtime, size or inode is that of its content.
    return (found.st_mtime_ns, found.st_size, found.st_ino, found.st_mode)


def _how_to_add(file: str | Path | None) -> str:
    return f"python -m serve_app.keys add NAME --file {file}"


# The command


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    options = _parser().parse_args(arguments)
    try:
        options.run(options)
    except (ValueError, OSError) as error:
        sys.stderr.write(f"serve_app.keys: {error}\n")
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m serve_app.keys", description="Makes, lists and revokes API keys.")
    commands = parser.add_subparsers(required=True, metavar="add|list|revoke")
    for name, run, described in (
        ("add", _add, "make a key: it is printed once, the file gets its hash"),
        ("list", _list, "names of the keys"),
        ("revoke", _revoke, "remove a key; a running server follows within seconds"),
    ):
        command = commands.add_parser(name, help=described, description=described)
        if name != "list":
            command.add_argument("name", metavar="NAME", help="whose key it is: shown in the access log")
        command.add_argument("--file", required=True, type=Path, help="the keys_file of the gateway")
        command.set_defaults(run=run)
    return parser


def _add(options: argparse.Namespace) -> None:
    if not NAME.fullmatch(options.name):
        raise ValueError(f"{options.name!r} is no name; use up to 64 letters, digits and ._@-")
    key = new_key()
    with changed_lines(options.file, create=True) as lines:
        lines.append(f"{options.name} {key_hash(key)}")
        read_lines(lines, str(options.file))  # nothing is written into a file that the server would refuse
    sys.stdout.write(f"{key}\n")
    sys.stderr.write(f"The key of {options.name}; it is not stored, so keep it. Its hash is in {options.file}.\n")


def _list(options: argparse.Namespace) -> None:
    sys.stdout.writelines(f"{entry.name}\n" for entry in read_keys(options.file))


def _revoke(options: argparse.Namespace) -> None:
    with changed_lines(options.file) as lines:
        names = [entry.name for entry in read_lines(lines, str(options.file))]
        if options.name not in names:
            known = ", ".join(names) or "none"
            raise ValueError(f"{options.file} has no key of {options.name!r}; it has: {known}")
        lines[:] = [line for line in lines if line.partition("#")[0].split()[:1] != [options.name]]
    sys.stderr.write(f"Revoked the key of {options.name}.\n")


if __name__ == "__main__":
    sys.exit(main())
