"""Where files of texts lie: on this machine, on the Hugging Face hub, in an object store; and what to say when one
cannot be reached.

A store is an fsspec file system. The hub's address is read from HF_ENDPOINT at each call, so that a driver and its
workers agree. What is in a file is `reading`, which files are meant is `sources`.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import fsspec
from fsspec.core import url_to_fs

HUB = "https://huggingface.co"
LOCAL = "file"
EXTRAS = {"s3": "s3fs", "gs": "gcsfs"}  # protocol -> the package that speaks it, which a user installs
_HUB_FORM = "not an address on the hub; write hf://datasets/OWNER/NAME/FILES"
RANGE_BYTES = 4 << 20  # what one request for a part of a remote file asks for

# protocol -> module and names of what its package raises beside OSError
_FAILURES = {
    "hf": (
        ("httpx2", ("HTTPError", "InvalidURL")),
        ("huggingface_hub.errors", ("HFValidationError", "HfUriError")),
        ("json", ("JSONDecodeError",)),  # what answers is no hub
    ),
    "s3": (("botocore.exceptions", ("BotoCoreError", "ClientError")),),
    "gs": (("google.auth.exceptions", ("GoogleAuthError",)), ("gcsfs.retry", ("HttpError",))),
}


def protocol_of(url: str) -> str:
    """The part before `://`, or `file` where there is none."""
    before, separator, _ = url.partition("://")
    return before if separator else LOCAL


def hub_endpoint() -> str:
    """Address of the hub: HF_ENDPOINT as it is now, or the public one."""
    return os.environ.get("HF_ENDPOINT", "").rstrip("/") or HUB


def file_system(url: str) -> tuple[Any, str]:
    """The file system of a path or URI, and the path in it.

    Raises:
        ValueError: the protocol is unknown, or the package that speaks it is not installed.
    """
    protocol = protocol_of(url)
    if protocol == "hf":
        from huggingface_hub import HfFileSystem

        path = url.removeprefix("hf://").rstrip("/")
        if path.count("/") < 2:
            raise ValueError(f"{url}: {_HUB_FORM}")
        return HfFileSystem(endpoint=hub_endpoint()), path
    if protocol not in (LOCAL, *EXTRAS):
        known = ", ".join(f"{name}://" for name in ("hf", *EXTRAS))
        raise ValueError(f"{url}: {protocol}:// is not known; give a local path or one of {known}")
    try:
        return url_to_fs(url)
    except ImportError as error:
        package = EXTRAS[protocol]
        raise ValueError(f"{url}: {protocol}:// needs the package {package}; run `pip install {package}`") from error


@contextmanager
def open_stream(url: str, path: str, size: int | None) -> Iterator[Any]:
    """Opens a file to be read from its beginning on; closing early ends the download.

    Args:
        url: the file, as `SourceFile.url`.
        path: the same in its file system.
        size: bytes, if known.
    """
    store, _ = file_system(url)
    if protocol_of(url) == "hf":
        file = _known_to_hub(url, path, size).open(path, "rb", block_size=0)  # 0: one request, read as it comes
    else:
        file = store.open(path, "rb", block_size=RANGE_BYTES)
    try:
        yield file
    finally:
        response = getattr(file, "response", None)  # the hub's stream leaves its connection open when it is closed
        if response is not None:
            response.close()
        file.close()


@contextmanager
def open_random(url: str, path: str, size: int | None) -> Iterator[Any]:
    """Opens a file to be read in parts in any order; of a remote one only those parts are downloaded."""
    store, _ = file_system(url)
    if protocol_of(url) == "hf":
        store = _known_to_hub(url, path, size)
    with store.open(path, "rb", cache_type="none") as file:
        yield file


def _known_to_hub(url: str, path: str, size: int | None) -> fsspec.AbstractFileSystem:
    """The hub's file system for reading, told that the file exists.

    Otherwise it lists the whole folder before it opens one file in it: 40 requests for the folder of mC4, in each
    worker. The block size makes it another instance than that of `file_system`, whose listings must stay complete.
    """
    from huggingface_hub import HfFileSystem

    store = HfFileSystem(endpoint=hub_endpoint(), block_size=RANGE_BYTES)
    listing = store.dircache.setdefault(path.rpartition("/")[0], [])
    if size is not None and all(entry["name"] != path for entry in listing):
        listing.append({"name": path, "size": size, "type": "file"})
    return store


@contextmanager
def reaching(url: str) -> Iterator[None]:
    """Turns what goes wrong on the way to a file into one sentence.

    Raises:
        ValueError: the store, the repository or the file cannot be reached; the message says how to mend it.
    """
    try:
        yield
    except OSError as error:
        raise ValueError(_sentence(url, error)) from error
    except Exception as error:
        if not isinstance(error, _failures(protocol_of(url))):
            raise
        raise ValueError(_sentence(url, error)) from error


def _failures(protocol: str) -> tuple[type[Exception], ...]:
    return tuple(
        getattr(import_module(module), name) for module, names in _FAILURES.get(protocol, ()) for name in names
    )


def _sentence(url: str, error: Exception) -> str:
    if protocol_of(url) == "hf":
        return f"{url}: {_hub_sentence(url, error)}"
    reason = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, FileNotFoundError):
        return f"{url}: no such file or folder"
    if isinstance(error, PermissionError) or type(error).__name__ == "NoCredentialsError":
        return f"{url}: may not be read ({reason}); check its permissions or your credentials"
    return f"{url}: cannot be reached ({reason})"


def _hub_sentence(url: str, error: BaseException) -> str:
    """What is wrong with a hub address, judged on the error or what caused it."""
    import httpx2
    from huggingface_hub import errors

    hub = hub_endpoint()
    kind, _, rest = url.removeprefix("hf://").partition("/")
    repository = "/".join((rest if kind == "datasets" else f"{kind}/{rest}").split("/")[:2]).partition("@")[0]
    log_in = "log in with `hf auth login` or set HF_TOKEN"
    page = f"{hub}/datasets/{repository}" if kind == "datasets" else f"{hub}/{repository}"
    prefix = "" if kind == "datasets" else "; a dataset's address begins with hf://datasets/"
    sentences: tuple[tuple[type[BaseException], str], ...] = (  # a subclass stands before its class
        (errors.GatedRepoError, f"the dataset is gated; accept its terms at {page}, then {log_in}"),
        (
            errors.RepositoryNotFoundError,
            f"{hub} shows no {repository}{prefix}; check the name (a dataset may have been renamed), and if it is "
            f"private, {log_in}",
        ),
        (errors.RevisionNotFoundError, f"{repository} has no such revision; name a branch, tag or commit of {page}"),
        (errors.EntryNotFoundError, f"no such file or folder; see what there is at {page}/tree/main"),
        (errors.OfflineModeIsEnabled, "HF_HUB_OFFLINE forbids the network; unset it or give a local copy"),
        (errors.HFValidationError, _HUB_FORM),
        (errors.HfUriError, _HUB_FORM),
    )
    chain: list[BaseException] = [error]
    while (cause := chain[-1].__cause__) is not None:
        chain.append(cause)
    for link in reversed(chain):  # the hub's file system wraps what says most in a FileNotFoundError
        for kind_of_error, sentence in sentences:
            if isinstance(link, kind_of_error):
                return sentence
    for link in chain:
        if isinstance(link, errors.HfHubHTTPError):
            return _status_sentence(hub, link.response.status_code, link.response.headers.get("Retry-After"), log_in)
    if isinstance(error, FileNotFoundError):
        return f"no such file or folder; see what there is at {page}/tree/main"
    if isinstance(error, httpx2.RemoteProtocolError | httpx2.ReadError | httpx2.ReadTimeout):
        return f"{hub} stopped answering ({_reason(error)}); run the job again"
    if isinstance(error, ValueError):
        return f"{hub} does not answer as a hub does ({_reason(error)}); check HF_ENDPOINT and your proxy"
    return f"{hub} cannot be reached ({_reason(error)}); check the network and HF_ENDPOINT"


def _status_sentence(hub: str, status: int, retry_after: str | None, log_in: str) -> str:
    wait = f"in {retry_after} s" if retry_after else "in some minutes"
    return {
        401: f"{hub} does not accept your token; {log_in} anew",
        403: f"{hub} refuses access (403); {log_in} with a token that may read it",
        429: f"{hub} limits your requests (429); try again {wait}, or {log_in} for a higher limit",
    }.get(status, f"{hub} answered {status}; try again later")


def _reason(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
