"""What every job's command line shares: config and overrides, settings shown and kept, mistakes told in a sentence."""

import argparse
import json
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from embinv.config import Config, load_config
from embinv.data.folders import whole_file
from jobs.provenance import keep_provenance

SETTINGS_FILE = "settings.yaml"


class RunStopped(Exception):
    """A run that went wrong, and not its settings: exit code 1."""


def job_parser(description: str, epilog: str) -> argparse.ArgumentParser:
    """A parser whose --help reads as a page."""
    return argparse.ArgumentParser(
        description=description, epilog=epilog, formatter_class=argparse.RawDescriptionHelpFormatter
    )


def add_config_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds --config and --set."""
    parser.add_argument("--config", required=True, metavar="C", help="YAML of one encoder, see configs/")
    parser.add_argument(
        "--set",
        dest="overrides",
        action="append",
        default=[],
        metavar="SECTION.KEY=VALUE",
        help="override one setting of the config, e.g. model.size=small or data.seq_len=64; repeatable",
    )


def add_accelerator(parser: argparse.ArgumentParser) -> None:
    """Adds --accelerator, beside the --device of a job without a config."""
    parser.add_argument(
        "--accelerator", metavar="KIND", help="kind of GPU, as Ray names it: A100, H100, L4 (default: any)"
    )


def require_gpu(arguments: argparse.Namespace) -> None:
    """Refuses a kind of GPU where none is used.

    Raises:
        ValueError: --accelerator without --device cuda.
    """
    if arguments.accelerator is not None and arguments.device != "cuda":
        raise ValueError(f"--accelerator {arguments.accelerator}: names a GPU; give --device cuda with it")


def config_from(arguments: argparse.Namespace, extra: list[str] | None = None) -> Config:
    """Loads the config with its overrides; flags of the job come last."""
    return load_config(arguments.config, [*arguments.overrides, *(extra or [])])


def announce(config: Config, job: str, **paths: object) -> None:
    """Prints a job's settings."""
    print(f"# {job}: " + ", ".join(f"{name}={value}" for name, value in paths.items()))
    print(config.to_yaml(), flush=True)


def keep_settings(config: Config, out: Path, job: str) -> None:
    """Writes a job's settings into its output, and how it is made."""
    out.mkdir(parents=True, exist_ok=True)
    (out / SETTINGS_FILE).write_text(f"# written by jobs/{job}.py\n{config.to_yaml()}", encoding="utf-8")
    keep_provenance(out, job, config.model_dump(mode="json"))


def write_json(path: Path, tree: Any) -> None:
    """Writes JSON so that a reader never sees half of it."""
    write_whole(path, json.dumps(tree, indent=2, ensure_ascii=False) + "\n")


def write_whole(path: Path, text: str) -> None:
    """Writes a text so that a reader never sees half of it, and an error leaves what was there."""
    with whole_file(path) as partial:
        partial.write_text(text, encoding="utf-8")


def output_folder(given: str, flag: str = "--out") -> Path:
    """The absolute path of an output folder, which every worker must see under the same name.

    Raises:
        ValueError: it is a URI, a file, or nothing that may be looked at.
    """
    if "://" in given:
        raise ValueError(f"{flag} {given}: give a path on a file system that all workers share, not a URI")
    try:
        path = Path(given).expanduser().resolve()
        is_file = path.exists() and not path.is_dir()
    except (OSError, RuntimeError) as error:  # RuntimeError: links in a circle, or a home that is nobody's
        why = getattr(error, "strerror", None) or str(error)
        raise ValueError(f"{flag} {given}: cannot be looked at ({why}); check the path and its permissions") from error
    if is_file:
        raise ValueError(f"{flag} {given}: is a file; give a folder")
    return path


def run_job(main: Callable[[], None]) -> None:
    """Runs a job's main; a user's mistake ends it with one sentence and exit code 2, a run gone wrong with 1."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    for noisy in ("httpx", "sentence_transformers", "transformers", "faker"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    try:
        main()
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from error
    except RunStopped as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(1) from error
    except KeyboardInterrupt:
        print("stopped; run the same command again", file=sys.stderr)
        raise SystemExit(130) from None
