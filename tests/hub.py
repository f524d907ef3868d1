"""A hub of datasets on loopback: it speaks what huggingface_hub's HfFileSystem asks of huggingface.co.

A folder `root/OWNER/NAME/...` is the dataset `OWNER/NAME`, with one revision `main`. Use it so:

    write_c4(tmp_path / "hub" / "allenai" / "c4", english=[...], multilingual={"de": [...]})
    with HubServer(tmp_path / "hub") as hub:
        hub.become_the_hub(monkeypatch, tmp_path / "home")  # this process; for others, give them hub.environment(home)
        ...  # hf://datasets/allenai/c4/en/*.json.gz
    assert hub.bytes_sent("/resolve/") < 1_000_000

As on the real hub, a gated dataset can be listed by everybody and read by nobody without its token, and a private one
looks like one that does not exist. Models' files are served too. What it does not do: writing, listing models, commits,
redirects to a CDN.
"""

import gzip
import hashlib
import json
import random
import socket
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from pathlib import Path
from urllib.parse import parse_qs, quote, unquote, urlsplit

REVISION = "main"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
PIECE = 16 << 10  # bytes of a body that are written at once, and counted
SEND_BUFFER = 64 << 10  # small, so that what was sent is about what was read


@dataclass
class Failure:
    """What happens to the next `count` requests whose path holds `path`.

    Attributes:
        status: answer with this status and no more (429, 500, ...).
        headers: of that answer, such as Retry-After.
        body: of that answer, instead of the hub's JSON.
        delay: seconds before the answer.
        cut_after: bytes of the body after which the connection is closed.
    """

    path: str = ""
    count: int = 1
    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None
    delay: float = 0.0
    cut_after: int | None = None


@dataclass
class Request:
    """One request as it was answered; `sent` counts the bytes of the body that were handed to the socket."""

    method: str
    path: str
    range: str | None
    status: int = 0
    sent: int = 0


class HubServer:
    """Serves `root` while its context is open.

    Args:
        root: folder of folders OWNER/NAME.
        gated: datasets (`OWNER/NAME`) whose files need `token`.
        private: datasets that are not even seen without `token`.
        token: what HF_TOKEN must be for those.
        page_size: entries in one page of a listing (1000 on the real hub).

    Attributes:
        url: address for HF_ENDPOINT.
        requests: every Request so far.
    """

    def __init__(self, root, gated=(), private=(), token="hf_test", page_size=1000):
        self.root, self.gated, self.private = Path(root), set(gated), set(private)
        self.token, self.page_size = token, page_size
        self.requests: list[Request] = []
        self._failures: list[Failure] = []
        self._connections: set[socket.socket] = set()
        self._lock = threading.Lock()

    def __enter__(self):
        handler = type("Handler", (_Handler,), {"hub": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._server.server_close()
        with self._lock:
            for connection in self._connections:  # a client keeps them open, and would still be answered
                connection.shutdown(socket.SHUT_RDWR)
        self._thread.join()

    def fail(self, failure: Failure) -> None:
        """Lets the next fitting requests fail; failures are tried in the order they were given in."""
        with self._lock:
            self._failures.append(failure)

    def bytes_sent(self, path: str = "") -> int:
        """Bytes of the bodies sent for paths that hold `path`."""
        return sum(request.sent for request in self.requests if path in request.path)

    def environment(self, home) -> dict[str, str]:
        """Variables for another process that shall use this hub; they must be set before it imports huggingface_hub."""
        return {
            "HF_ENDPOINT": self.url,
            "HF_HOME": str(home),
            "HF_HUB_DISABLE_TELEMETRY": "1",  # the client asks for /api/agent-harnesses otherwise
            "HF_HUB_OFFLINE": "0",
            "TRANSFORMERS_OFFLINE": "0",
        }

    def become_the_hub(self, monkeypatch, home) -> None:
        """Makes this process use the hub, without a token; `home` stands for the user's ~/.cache/huggingface.

        The client has read its variables when it was imported, so its constants are set as well.
        """
        from huggingface_hub import constants

        for name, value in self.environment(home).items():
            monkeypatch.setenv(name, value)
        monkeypatch.delenv("HF_TOKEN", raising=False)
        monkeypatch.delenv("HUGGING_FACE_HUB_TOKEN", raising=False)
        home = Path(home)
        for name, value in {
            "HF_HOME": str(home),
            "HF_HUB_CACHE": str(home / "hub"),
            "HF_TOKEN_PATH": str(home / "token"),
            "HF_STORED_TOKENS_PATH": str(home / "stored_tokens"),
            "AGENT_HARNESSES_PATH": str(home / ".agent_harnesses.json"),
            "HF_HUB_DISABLE_TELEMETRY": True,
            "HF_HUB_OFFLINE": False,
        }.items():
            monkeypatch.setattr(constants, name, value)

    def _failure(self, path: str) -> Failure | None:
        with self._lock:
            for failure in self._failures:
                if failure.count > 0 and failure.path in path:
                    failure.count -= 1
                    return failure
        return None


class _Handler(BaseHTTPRequestHandler):
    hub: HubServer
    protocol_version = "HTTP/1.1"

    def setup(self):
        self.request.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
        with self.hub._lock:
            self.hub._connections.add(self.request)
        super().setup()

    def finish(self):
        with self.hub._lock:
            self.hub._connections.discard(self.request)
        super().finish()

    def log_message(self, *_):
        pass

    def do_GET(self):
        self._answer()

    do_HEAD = do_POST = do_GET

    def _answer(self):
        self.record = Request(self.command, unquote(self.path), self.headers.get("Range"))
        self.hub.requests.append(self.record)
        self.sent_in = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.failure = self.hub._failure(self.record.path) or Failure()
        time.sleep(self.failure.delay)
        try:
            if self.failure.status is not None:
                return self._refuse(self.failure.status, "Injected", self.failure.headers, self.failure.body)
            return self._route(urlsplit(self.path))
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def _route(self, url):
        parts = url.path.strip("/").split("/")
        if parts[0] == "api" and parts[1] in ("models", "spaces"):
            return self._refuse(404 if "Authorization" in self.headers else 401, "RepoNotFound")
        if parts[:2] == ["api", "datasets"] and len(parts) >= 4:
            repo, rest = "/".join(parts[2:4]), parts[4:]
            routes = {"tree": self._tree, "paths-info": self._paths_info}
        elif parts[:1] == ["datasets"] and parts[3:4] == ["resolve"]:
            repo, rest, routes = "/".join(parts[1:3]), parts[3:], {"resolve": self._file}
        elif parts[2:3] == ["resolve"]:  # of a model
            repo, rest, routes = "/".join(parts[:2]), parts[2:], {"resolve": self._file}
        else:
            return self._refuse(404, None)
        folder = self.hub.root / repo
        allowed = self.headers.get("Authorization") == f"Bearer {self.hub.token}"
        if not folder.is_dir() or (repo in self.hub.private and not allowed):
            return self._refuse(404 if "Authorization" in self.headers else 401, "RepoNotFound")
        if rest[1:2] and unquote(rest[1]) not in (REVISION, COMMIT):
            return self._refuse(404, "RevisionNotFound")
        if not rest or rest[0] == "revision":
            return self._json(self._info(repo, folder))
        if rest[0] not in routes:
            return self._refuse(404, None)
        if rest[0] == "resolve" and repo in self.hub.gated and not allowed:
            return self._refuse(403 if "Authorization" in self.headers else 401, "GatedRepo")
        return routes[rest[0]](folder, unquote("/".join(rest[2:])), parse_qs(url.query))

    def _info(self, repo, folder):
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        return {
            "id": repo,
            "sha": COMMIT,
            "private": repo in self.hub.private,
            "gated": "manual" if repo in self.hub.gated else False,
            "tags": [],
            "siblings": [{"rfilename": path.relative_to(folder).as_posix()} for path in files],
        }

    def _tree(self, folder, path, query):
        top = folder / path
        if not top.is_dir():
            return self._refuse(404, "EntryNotFound")
        recursive = query.get("recursive", ["false"])[0].lower() == "true"
        found = sorted(top.rglob("*") if recursive else top.iterdir())
        start = int(query.get("cursor", ["0"])[0])
        page = found[start : start + self.hub.page_size]
        headers = {}
        if start + len(page) < len(found):
            where = f"{self.hub.url}{quote(urlsplit(self.path).path, safe='/%')}"
            options = f"recursive={recursive}&expand={query.get('expand', ['false'])[0]}"
            headers["Link"] = f'<{where}?{options}&cursor={start + len(page)}>; rel="next"'
        return self._json([_entry(folder, item) for item in page], headers)

    def _paths_info(self, folder, _path, _query):
        asked = parse_qs(self.sent_in.decode()).get("paths", [])
        return self._json([_entry(folder, folder / path) for path in asked if (folder / path).exists()])

    def _file(self, folder, path, _query):
        file = folder / path
        if not file.is_file():
            return self._refuse(404, "EntryNotFound")
        size = file.stat().st_size
        start, end, status = 0, size, 200
        if self.record.range:
            first, _, last = self.record.range.removeprefix("bytes=").partition("-")
            start, end = int(first), min(size, int(last) + 1 if last else size)
            status = 206
            if start >= size:
                return self._refuse(416, None, {"Content-Range": f"bytes */{size}"})
        etag = f'"{_oid(file)}"'
        headers = {
            "Content-Type": "application/octet-stream",
            "Accept-Ranges": "bytes",
            "ETag": etag,
            "X-Repo-Commit": COMMIT,
            "X-Linked-Size": str(size),
            "X-Linked-Etag": etag,
        }
        if status == 206:
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
        self._begin(status, headers, end - start)
        if self.command != "HEAD":
            with file.open("rb") as stream:
                stream.seek(start)
                self._send(iter(lambda: stream.read(min(PIECE, end - stream.tell())), b""))

    def _json(self, value, headers=()):
        body = json.dumps(value).encode()
        self._begin(200, {"Content-Type": "application/json", **dict(headers)}, len(body))
        self._send([body])

    def _refuse(self, status, code, headers=(), body=None):
        body = json.dumps({"error": code or "Not Found"}).encode() if body is None else body
        said = {"X-Error-Code": code, "X-Error-Message": f"{code} (loopback hub)"} if code else {}
        self._begin(status, {"Content-Type": "application/json", **said, **dict(headers)}, len(body))
        self._send([body])

    def _begin(self, status, headers, length):
        self.record.status = status
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(length))
        self.end_headers()

    def _send(self, pieces):
        if self.command == "HEAD":
            return
        left = self.failure.cut_after
        for piece in pieces:
            piece = piece if left is None else piece[:left]
            self.wfile.write(piece)
            self.record.sent += len(piece)
            if left is not None:
                left -= len(piece)
                if left <= 0:
                    self.close_connection = True
                    return


def _oid(path):
    """A name for a file's contents, without reading all of a large one twice."""
    status = path.stat()
    return hashlib.sha1(f"{path.name} {status.st_size} {status.st_mtime_ns}".encode()).hexdigest()


def _entry(folder, path):
    name = path.relative_to(folder).as_posix()
    if path.is_dir():
        return {"type": "directory", "path": name, "oid": hashlib.sha1(name.encode()).hexdigest(), "size": 0}
    return {"type": "file", "path": name, "oid": _oid(path), "size": path.stat().st_size}


def write_jsonl_gz(path, rows) -> Path:
    """Writes dictionaries as one gzipped JSON file, one a line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with gzip.open(path, "wt", encoding="utf-8", compresslevel=1) as stream:
        stream.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    return path


def write_c4(
    folder, english: Sequence[str] = (), multilingual: Mapping[str, Sequence[str]] | None = None, shards: int = 2
) -> list[Path]:
    """Writes texts as the dataset allenai/c4 lays them out, validation files (with other texts) and a README included.

    Args:
        folder: the dataset's, such as `root/allenai/c4`.
        english: texts of en/c4-train.
        multilingual: texts of multilingual/c4-LANG, by language.
        shards: files that each language's texts are dealt out to in turn.

    Returns:
        The training files.
    """
    folder = Path(folder)
    named = {"en/c4-train.{:05d}-of-{:05d}.json.gz": english} if english else {}
    held_out = {"en/c4-validation.00000-of-00001.json.gz": "en"} if english else {}
    for lang, texts in (multilingual or {}).items():
        named[f"multilingual/c4-{lang}.tfrecord-" + "{:05d}-of-{:05d}.json.gz"] = texts
        held_out[f"multilingual/c4-{lang}-validation.tfrecord-00000-of-00001.json.gz"] = lang
    for name, lang in held_out.items():
        write_jsonl_gz(folder / name, [c4_row(f"held-out text {i} of {lang}", i) for i in range(3)])
    (folder / "README.md").write_text("# C4\n", encoding="utf-8")
    (folder / ".gitattributes").write_text("*.gz filter=lfs\n", encoding="utf-8")
    return [
        write_jsonl_gz(folder / name.format(shard, shards), map(c4_row, texts[shard::shards], count()))
        for name, texts in named.items()
        for shard in range(shards)
    ]


def c4_row(text: str, number: int = 0) -> dict[str, str]:
    """A row with C4's keys."""
    return {"text": text, "timestamp": "2019-04-25T12:57:54Z", "url": f"https://example.org/{number}"}


def noise(rows: int, chars: int = 400, seed: int = 0) -> list[str]:
    """Texts that gzip cannot make much smaller than half: what a large shard is made of."""
    generator = random.Random(seed)
    return [generator.randbytes(chars // 2).hex() for _ in range(rows)]
