"""jobs/train_disk.py: a full disk is called so, whoever noticed it."""

import errno
from collections import namedtuple

import pytest
from safetensors import SafetensorError

from jobs import train_disk, train_universal
from jobs.train_disk import disk_errors_by_name
from jobs.train_universal import make_universal

Usage = namedtuple("Usage", "total used free")
TORCH_S = RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 64 vs 0")
WORDS = [
    TORCH_S,
    RuntimeError("PytorchStreamWriter failed writing file data/0: file write failed"),
    SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
]


@pytest.fixture
def free(monkeypatch):
    """Returns a function that says how many bytes are free."""
    return lambda size: monkeypatch.setattr(train_disk.shutil, "disk_usage", lambda folder: Usage(10**9, 0, size))


@pytest.mark.parametrize("error", WORDS, ids=repr)
def test_a_writer_s_words_become_the_error_of_the_disk(free, tmp_path, error):
    for size, number in ((1000, errno.ENOSPC), (10**8, errno.EIO)):
        free(size)
        with pytest.raises(OSError) as caught, disk_errors_by_name(tmp_path):
            raise error
        assert caught.value.errno == number and caught.value.__cause__ is error


@pytest.mark.parametrize("error", [RuntimeError("size mismatch"), OSError(errno.EDQUOT, "quota"), ValueError("no")])
def test_other_errors_pass_as_they_are(free, tmp_path, error):
    free(1000)
    with pytest.raises(type(error)) as caught, disk_errors_by_name(tmp_path):
        raise error
    assert caught.value is error


def test_a_disk_that_fills_up_during_a_conversion_is_told_so(free, tmp_path, monkeypatch):
    from deepspeed.checkpoint import ds_to_universal

    def full(arguments):
        raise TORCH_S

    free(1000)
    monkeypatch.setattr(ds_to_universal, "main", full)
    with pytest.raises(OSError) as caught:
        make_universal(tmp_path / "save", tmp_path, "cpu")
    assert caught.value.errno == errno.ENOSPC
    assert train_universal.UNIVERSAL in {path.name for path in tmp_path.iterdir()}
    train_universal.forget_universal(tmp_path)
    assert not list(tmp_path.iterdir())
