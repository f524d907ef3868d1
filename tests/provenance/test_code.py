"""Which commit runs: git says it of a checkout, the environment or pip elsewhere; it is unknown where nobody knows."""

import subprocess

import pytest

from embinv.provenance.code import code, commit, files_digest


def git(folder, *arguments):
    own = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    done = subprocess.run(["git", "-C", str(folder), *own, *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture
def checkout(tmp_path):
    (tmp_path / "embinv").mkdir()
    (tmp_path / "embinv" / "a.py").write_text("A = 1\n")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-q", "-m", "first")
    return tmp_path


@pytest.fixture(autouse=True)
def no_commit_in_the_environment(monkeypatch):
    monkeypatch.delenv("EMBINV_COMMIT", raising=False)


def test_a_clean_checkout_says_its_commit(checkout):
    assert commit(checkout) == {"commit": git(checkout, "rev-parse", "HEAD"), "changed": False, "from": "git"}


def test_a_changed_file_is_told(checkout):
    (checkout / "embinv" / "a.py").write_text("A = 2\n")
    assert commit(checkout)["changed"] is True


def test_a_new_file_of_the_packages_is_a_change_and_an_output_is_none(checkout):
    (checkout / "runs").mkdir()
    (checkout / "runs" / "report.md").write_text("x")
    assert commit(checkout)["changed"] is False
    (checkout / "embinv" / "b.py").write_text("B = 1\n")
    assert commit(checkout)["changed"] is True


def test_a_hook_s_git_variables_do_not_name_another_repository(checkout, monkeypatch, tmp_path_factory):
    monkeypatch.setenv("GIT_DIR", str(tmp_path_factory.mktemp("other")))
    assert commit(checkout)["from"] == "git"


def test_a_copy_without_git_takes_the_image_s_word(tmp_path, monkeypatch):
    monkeypatch.setenv("EMBINV_COMMIT", "abc123")
    assert commit(tmp_path) == {"commit": "abc123", "changed": None, "from": "EMBINV_COMMIT"}


def test_a_checkout_knows_better_than_the_environment(checkout, monkeypatch):
    monkeypatch.setenv("EMBINV_COMMIT", "abc123")
    assert commit(checkout)["commit"] == git(checkout, "rev-parse", "HEAD")


@pytest.mark.parametrize("named", ["", "unknown"])
def test_where_nobody_knows_the_commit_is_unknown_and_why_is_said(tmp_path, monkeypatch, named):
    monkeypatch.setenv("EMBINV_COMMIT", named)
    assert commit(tmp_path) == {"commit": "unknown", "changed": None, "from": "no .git, no EMBINV_COMMIT"}


def test_a_checkout_that_git_cannot_read_says_so(tmp_path):
    (tmp_path / ".git").write_text("gitdir: /nowhere\n")
    found = commit(tmp_path)
    assert found["commit"] == "unknown" and found["from"].startswith("git failed: ")


def test_an_empty_path_without_git_does_no_harm(checkout, monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert commit(checkout)["commit"] == "unknown"


def test_the_checksum_tells_two_copies_apart(tmp_path):
    digests = set()
    for number, source in enumerate(("A = 1\n", "A = 2\n", "A = 1\n")):
        folder = tmp_path / str(number)
        (folder / "embinv").mkdir(parents=True)
        (folder / "embinv" / "a.py").write_text(source)
        digests.add(files_digest(folder))
    assert len(digests) == 2


def test_this_code_says_what_it_is():
    found = code()
    assert set(found) == {"release", "commit", "changed", "from", "files"} and len(found["files"]) == 16
