"""A checkpoint of some files, and places to keep it: a folder, and a bucket of a server on loopback."""

import json
import os

import pytest

from embinv.backups.place import Place
from tests.object_store import object_store

WEIGHTS = os.urandom(300_000)


@pytest.fixture
def checkpoint(tmp_path):
    """A folder that looks like a checkpoint; a backup does not read what is in it."""
    folder = tmp_path / "run" / "checkpoint"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"name": "tiny", "format_version": 1}))
    (folder / "model.safetensors").write_bytes(WEIGHTS)
    (folder / "deeper").mkdir()
    (folder / "deeper" / "notes.txt").write_text("x")
    (folder / ".config.json.partial").write_text("half of it")
    return folder


@pytest.fixture(scope="session")
def s3():
    """A server of object storage on loopback; gives the variables of the environment that lead to it."""
    with object_store() as variables:
        yield variables


@pytest.fixture
def s3_environment(s3, monkeypatch):
    """The credentials of that server in the environment, and a bucket of one's own: gives its URI."""
    import boto3
    import s3fs

    for name, value in s3.items():
        monkeypatch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()  # one of another server
    bucket = f"b{os.urandom(6).hex()}"
    boto3.client("s3").create_bucket(Bucket=bucket)
    yield f"s3://{bucket}/backups"
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.fixture(params=["folder", "s3"])
def place(request, tmp_path):
    """Each kind of place."""
    return Place(str(tmp_path / "backups") if request.param == "folder" else request.getfixturevalue("s3_environment"))
