"""API keys: what opens, what is refused with place and fix, and that a removed line is a revoked key."""

import logging
import os
import subprocess
import sys
import threading

import pytest

from serve_app import keys
from serve_app.keys import KeyRing, key_hash, main, new_key, read_keys


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def file(tmp_path):
    return tmp_path / "keys.txt"


def written(file, **named):
    file.write_text("".join(f"{name} {key_hash(key)}\n" for name, key in named.items()))


def opened(file, clock, environment=None):
    return KeyRing.open(str(file), environment or {}, clock)


# What opens


def test_without_file_and_environment_no_key_is_asked_for():
    ring = KeyRing.open(None, {})
    assert not ring.required and ring.match("anything") is None


def test_a_key_opens_under_its_own_name_and_others_do_not(file, clock):
    ann, bob = new_key(), new_key()
    written(file, ann=ann, bob=bob)
    ring = opened(file, clock)
    assert ring.required
    assert (ring.match(ann), ring.match(bob)) == ("ann", "bob")
    for wrong in ("", ann[:-1], ann + "x", ann.upper(), key_hash(ann), "ann", "\udce4", new_key()):
        assert ring.match(wrong) is None


def test_keys_are_long_random_and_stored_as_their_sha256():
    made = {new_key() for _ in range(50)}
    assert len(made) == 50 and all(key.startswith("embinv_") and len(key) == 50 for key in made)
    assert key_hash("abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-2


def test_comments_empty_lines_and_upper_case_hashes_are_read(file, clock):
    key = new_key()
    file.write_text(f"# who may enter\n\n  ann\t{key_hash(key).upper()}   # until May\n", encoding="utf-8-sig")
    assert opened(file, clock).match(key) == "ann"


def test_the_environment_gives_keys_too(file, clock):
    ann, bob = new_key(), new_key()
    environment = {"EMBINV_API_KEYS": f"bob:{key_hash(bob)}"}
    alone = KeyRing.open(None, environment)
    assert alone.required and alone.match(bob) == "bob"
    written(file, ann=ann)
    both = opened(file, clock, environment)
    assert (both.match(ann), both.match(bob)) == ("ann", "bob")


def test_every_key_is_compared_wherever_the_first_match_stands(file, clock, monkeypatch):
    given = {f"k{number}": new_key() for number in range(5)}
    written(file, **given)
    ring = opened(file, clock)
    compared = []
    monkeypatch.setattr(keys.hmac, "compare_digest", lambda a, b: compared.append(a) or a == b)
    for key in (*given.values(), "wrong"):
        compared.clear()
        ring.match(key)
        assert len(compared) == 5


# What is refused


HASH = "a" * 64


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("ann", ":1: 1 parts instead of 2"),
        (f"ann {HASH} x", ":1: 3 parts instead of 2"),
        (f"# x\n\nann {HASH[:-1]}", ":3: the hash of 'ann' is not 64"),
        (f"ann {HASH[:-1]}g", ":1: the hash of 'ann' is not 64"),
        (f"ann {HASH}\nann {'b' * 64}", "keys.txt:1 already; remove one"),
        (f"ann {HASH}\nbob {HASH}", ":2: the key of 'ann'"),
        (f"-ann {HASH}", ":1: not a name"),
        (f"a/b {HASH}", ":1: not a name"),
        (f"ann:{HASH}", ":1: 1 parts"),
    ],
)
def test_a_wrong_line_is_refused_with_its_place(file, text, said):
    file.write_text(text)
    with pytest.raises(ValueError) as caught:
        KeyRing.open(str(file), {})
    assert said in str(caught.value) and str(file) in str(caught.value)


@pytest.mark.parametrize("line", ["ann {key}", "{key}", "ann {key} x", "{key} ann"])
def test_a_key_where_its_hash_belongs_is_refused_and_not_repeated(file, line):
    key = new_key()
    file.write_text(line.format(key=key))
    with pytest.raises(ValueError, match=r"keys.txt:1: this holds a key itself; write its SHA-256") as caught:
        KeyRing.open(str(file), {})
    assert key not in str(caught.value)


def test_an_unlike_hash_is_not_repeated_either(file):
    file.write_text("ann my-own-password")
    with pytest.raises(ValueError) as caught:
        KeyRing.open(str(file), {})
    assert "password" not in str(caught.value)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("", "set, but empty; unset it"),
        (" ", "set, but empty; unset it"),
        ("ann", "entry 1: 1 parts"),
        (f"ann:{HASH},", "entry 2: 1 parts"),
        (f"ann:{HASH}, bob:{HASH[:9]}", "entry 2: the hash of 'bob'"),
        (f"ann:{HASH},ann:{'b' * 64}", "entry 2: the name 'ann' stands at EMBINV_API_KEYS, entry 1"),
        ("ann:embinv_x", "entry 1: this holds a key itself"),
    ],
)
def test_a_wrong_environment_is_refused_with_its_entry(value, said):
    with pytest.raises(ValueError, match="EMBINV_API_KEYS") as caught:
        KeyRing.open(None, {"EMBINV_API_KEYS": value})
    assert said in str(caught.value)


def test_a_name_in_both_places_is_refused(file):
    written(file, ann=new_key())
    with pytest.raises(ValueError, match="the name 'ann' stands at"):
        KeyRing.open(str(file), {"EMBINV_API_KEYS": f"ann:{HASH}"})


def test_a_file_that_cannot_be_read_at_the_start_is_refused_with_the_fix(file, tmp_path):
    with pytest.raises(ValueError, match=r"keys.txt: No such file.*python -m serve_app.keys add NAME --file"):
        KeyRing.open(str(file), {})
    with pytest.raises(ValueError, match="not a file"):
        KeyRing.open(str(tmp_path), {})
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match="not a file"):
        KeyRing.open(str(tmp_path / "pipe"), {})
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match="UTF-8"):
        KeyRing.open(str(file), {})


# Changes while the server runs


def test_a_removed_line_is_revoked_and_an_added_one_opens(file, clock):
    ann, bob = new_key(), new_key()
    written(file, ann=ann)
    ring = opened(file, clock)
    written(file, bob=bob)
    clock.now += 1.1
    assert (ring.match(ann), ring.match(bob)) == (None, "bob")


def test_an_emptied_file_lets_nobody_in(file, clock, caplog):
    ann = new_key()
    written(file, ann=ann)
    ring = opened(file, clock)
    file.write_text("")
    clock.now += 1.1
    assert ring.match(ann) is None and ring.required
    again = opened(file, clock)
    assert again.required and "holds no key" in caplog.text


def test_the_file_is_looked_at_once_a_second_at_most_and_read_only_when_it_changed(file, clock, monkeypatch):
    ann = new_key()
    written(file, ann=ann)
    ring = opened(file, clock)
    looks, reads = [], []
    look, read = keys._signature, keys.read_keys
    monkeypatch.setattr(keys, "_signature", lambda file: looks.append(1) or look(file))
    monkeypatch.setattr(keys, "read_keys", lambda file: reads.append(1) or read(file))
    for _ in range(30):
        clock.now += 0.1
        assert ring.match(ann) == "ann"
    assert 2 <= len(looks) <= 3 and not reads


def test_a_file_of_the_same_size_and_time_is_seen_by_its_inode(file, clock, tmp_path):
    ann, bob = new_key(), new_key()
    written(file, ann=ann)
    ring = opened(file, clock)
    times = file.stat()
    other = tmp_path / "other"
    written(other, bob=bob)
    os.utime(other, ns=(times.st_atime_ns, times.st_mtime_ns))
    other.replace(file)
    clock.now += 1.1
    assert ring.match(ann) is None and ring.match(bob) == "bob"


@pytest.mark.parametrize("spoil", [lambda file: file.unlink(), lambda file: file.write_text("ann\n# oops")])
def test_a_spoilt_file_keeps_the_last_good_keys_and_is_complained_about_once(file, clock, caplog, spoil):
    ann, bob = new_key(), new_key()
    written(file, ann=ann)
    ring = opened(file, clock)
    spoil(file)
    with caplog.at_level(logging.WARNING):
        for _ in range(5):
            clock.now += 1.1
            assert ring.match(ann) == "ann"
    (record,) = caplog.records
    assert str(file) in record.getMessage() and "stay valid" in record.getMessage()
    written(file, bob=bob)
    clock.now += 1.1
    assert ring.match(ann) is None and ring.match(bob) == "bob"


# The command


def test_add_prints_the_key_once_and_stores_its_hash_for_the_owner_only(file, capsys):
    assert main(["add", "ann", "--file", str(file)]) == 0
    key = capsys.readouterr().out.strip()
    assert key.startswith("embinv_") and key not in file.read_text()
    assert file.read_text() == f"ann {key_hash(key)}\n"
    assert file.stat().st_mode & 0o777 == 0o600
    assert KeyRing.open(str(file), {}).match(key) == "ann"
    assert [path.name for path in file.parent.iterdir()] == ["keys.txt"]


def test_add_keeps_what_is_there_and_list_names_it(file, capsys):
    file.write_text("# ours\nbob " + HASH)  # no newline at the end
    assert main(["add", "ann", "--file", str(file)]) == 0
    assert file.read_text().startswith(f"# ours\nbob {HASH}\nann ")
    capsys.readouterr()
    assert main(["list", "--file", str(file)]) == 0
    assert capsys.readouterr().out == "bob\nann\n"


def test_revoke_takes_out_one_line(file):
    written(file, ann=new_key(), bob=new_key(), annie=new_key())
    assert main(["revoke", "ann", "--file", str(file)]) == 0
    assert [entry.name for entry in read_keys(file)] == ["bob", "annie"]


def test_a_link_stays_a_link(file, tmp_path):
    written(file, ann=new_key())
    link = tmp_path / "link"
    link.symlink_to(file)
    assert main(["add", "bob", "--file", str(link)]) == 0
    assert link.is_symlink() and len(read_keys(file)) == 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["add", "ann"], "stands at"),
        (["add", "no name"], "no name"),
        (["revoke", "carl"], "it has: ann"),
        (["revoke", "ann", "--file", "/nowhere/keys.txt"], "no folder /nowhere"),
        (["revoke", "ann", "--file", "{tmp}/none"], "no file"),
        (["list", "--file", "{tmp}/none"], "No such file"),
        (["list", "--file", "{tmp}"], "not a file"),
    ],
)
def test_a_mistake_is_one_sentence_and_changes_nothing(file, tmp_path, capsys, arguments, said):
    written(file, ann=new_key())
    before = file.read_text()
    arguments = [argument.format(tmp=tmp_path) for argument in arguments]
    assert main([*arguments, *([] if "--file" in arguments else ["--file", str(file)])]) == 1
    shown = capsys.readouterr()
    assert said in shown.err and shown.err.count("\n") == 1 and shown.out == ""
    assert file.read_text() == before


def test_adding_at_once_loses_none(file):
    threads = [threading.Thread(target=main, args=(["add", f"k{n}", "--file", str(file)],)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(entry.name for entry in read_keys(file)) == [f"k{n}" for n in range(8)]


def test_the_module_runs_as_a_command_without_ray(file):
    code = "import sys, serve_app.keys; print({'ray', 'torch'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"
    command = [sys.executable, "-m", "serve_app.keys", "add", "ann", "--file", str(file)]
    made = subprocess.run(command, capture_output=True, text=True, check=True)
    assert KeyRing.open(str(file), {}).match(made.stdout.strip()) == "ann"
    refused = subprocess.run(command, capture_output=True, text=True)
    assert refused.returncode == 1 and "Traceback" not in refused.stderr
