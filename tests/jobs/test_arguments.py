import argparse
import importlib
import json
import logging
import threading
from pathlib import Path

import pytest

from embinv.config import load_config
from jobs.arguments import (
    add_config_arguments,
    announce,
    config_from,
    job_parser,
    keep_settings,
    output_folder,
    run_job,
    write_json,
    write_whole,
)

CONFIG = "configs/minilm.yaml"


@pytest.fixture(autouse=True)
def same_logging():
    """`run_job` sets levels and a handler of the whole process."""
    root, loggers = logging.getLogger(), {name: logging.getLogger(name) for name in ("httpx", "transformers", "faker")}
    handlers, level = list(root.handlers), root.level
    levels = {name: logger.level for name, logger in loggers.items()}
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    for name, logger in loggers.items():
        logger.setLevel(levels[name])


def parse(*arguments):
    parser = job_parser("what", "how")
    add_config_arguments(parser)
    return parser.parse_args(arguments)


def test_overrides_apply_in_their_order_and_flags_come_last():
    arguments = parse("--config", CONFIG, "--set", "data.rows=5", "--set", "data.rows=6", "--set", "model.size=base")
    assert config_from(arguments).data.rows == 6
    config = config_from(arguments, ["data.rows=7"])
    assert (config.data.rows, config.model.size) == (7, "base")


def test_an_override_of_no_setting_names_the_nearest():
    with pytest.raises(ValueError, match=r"unknown key model\.sise; did you mean model\.size"):
        config_from(parse("--config", CONFIG, "--set", "model.sise=small"))


def test_a_config_is_required(capsys):
    with pytest.raises(SystemExit) as caught:
        parse()
    assert caught.value.code == 2 and "--config" in capsys.readouterr().err


def test_settings_that_are_kept_are_a_config_that_loads(tmp_path):
    config = config_from(parse("--config", CONFIG, "--set", "data.seq_len=64"))
    keep_settings(config, tmp_path / "deep" / "er", "encode")
    assert load_config(tmp_path / "deep" / "er" / "settings.yaml") == config


def test_settings_are_shown_with_the_paths(capsys):
    config = load_config(CONFIG)
    announce(config, "train", data="/a", out="/b")
    shown = capsys.readouterr().out
    assert shown.startswith("# train: data=/a, out=/b\n") and config.to_yaml() in shown


def test_a_reader_of_json_never_sees_half_of_it(tmp_path):
    path, ended, trees = tmp_path / "a.json", threading.Event(), [list(range(n)) for n in (10, 50_000)]
    write_json(path, trees[0])
    seen = []

    def read():
        while not ended.is_set():
            seen.append(json.loads(path.read_text()) in trees)

    reader = threading.Thread(target=read)
    reader.start()
    for n in range(20):
        write_json(path, trees[n % 2])
    ended.set()
    reader.join()
    assert seen and all(seen)
    assert [file.name for file in tmp_path.iterdir()] == ["a.json"]


def test_a_file_stays_as_it_was_where_a_new_one_cannot_be_written(tmp_path, monkeypatch):
    path = tmp_path / "report.md"
    write_whole(path, "old")

    def full(partial, text, **options):
        partial.write_bytes(text[:1].encode())
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space left"):
        patch.setattr(Path, "write_text", full)
        write_whole(path, "new")
    assert path.read_text() == "old"
    write_whole(path, "new")
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("report.md", "new")]


def test_json_keeps_every_script(tmp_path):
    write_json(tmp_path / "a.json", {"text": "東京 é"})
    assert "東京 é" in (tmp_path / "a.json").read_text(encoding="utf-8")


def test_an_output_folder_is_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert output_folder("a/../b") == tmp_path / "b"
    assert output_folder("~/b") == tmp_path / "b"
    assert not (tmp_path / "b").exists()


def test_an_output_folder_is_no_file_and_no_uri(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"--out .*: is a file; give a folder"):
        output_folder(str(tmp_path / "file"))
    with pytest.raises(ValueError, match="--data s3://bucket/a: give a path"):
        output_folder("s3://bucket/a", "--data")


def test_a_folder_that_may_not_be_looked_at_is_told_in_a_sentence(tmp_path, monkeypatch):
    def forbidden(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "exists", forbidden)
    with pytest.raises(ValueError, match=r"^--data /closed/a: cannot be looked at \(Permission denied\); check"):
        output_folder("/closed/a", "--data")


def test_a_path_that_leads_nowhere_is_told_in_a_sentence(tmp_path):
    (tmp_path / "round").symlink_to(tmp_path / "round")
    for given in (str(tmp_path / "round" / "out"), "~nobody-has-this-name/out"):
        with pytest.raises(ValueError, match=r"^--out .*: cannot be looked at \(.+\); check the path"):
            output_folder(given)


def ending(error):
    def main():
        raise error

    with pytest.raises(SystemExit) as caught:
        run_job(main)
    return caught.value.code


def test_a_mistake_is_told_in_one_sentence(capsys):
    assert ending(ValueError("--rows 0: give at least 1")) == 2
    assert capsys.readouterr().err == "error: --rows 0: give at least 1\n"


def test_an_interrupt_says_how_to_go_on(capsys):
    assert ending(KeyboardInterrupt()) == 130
    assert "run the same command again" in capsys.readouterr().err


def test_a_fault_of_ours_is_not_hidden():
    with pytest.raises(ZeroDivisionError):
        run_job(lambda: 1 // 0)


@pytest.mark.parametrize("job", ["corpus", "encode", "train", "evaluate", "demo"])
def test_every_job_explains_itself(job, capsys):
    main = importlib.import_module(f"jobs.{job}").main
    with pytest.raises(SystemExit) as caught:
        main(["--help"])
    shown = capsys.readouterr().out
    assert caught.value.code == 0
    assert "--out" in shown and "--set SECTION.KEY=VALUE" in shown and f"jobs/{job}.py" in shown


def test_a_parser_leaves_the_example_as_it_is_written():
    assert "a\n  b" in job_parser("what", "a\n  b").format_help()
    assert isinstance(job_parser("what", "how"), argparse.ArgumentParser)
