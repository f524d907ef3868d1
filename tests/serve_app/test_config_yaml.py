"""config.yaml: what Serve would ignore without a word is an error here."""

from pathlib import Path

import pytest
import yaml

from serve_app.app import PROJECT_ROOT, AppArgs
from serve_app.config_check import read_config, require_valid

CONFIG = Path(__file__).resolve().parents[2] / "serve_app" / "config.yaml"


@pytest.fixture(scope="module")
def tree():
    return yaml.safe_load(CONFIG.read_text(encoding="utf-8"))


def test_nothing_in_it_is_ignored_or_refused():
    read_config(CONFIG)


def test_it_has_a_gateway_and_encoders_behind_it_under_their_names(tree):
    gateway, *encoders = tree["applications"]
    assert (gateway["import_path"], gateway["route_prefix"]) == ("serve_app.gateway:build_gateway", "/")
    assert encoders
    for application in encoders:
        assert application["name"] == AppArgs.model_validate(application["args"]).encoder
        assert application["import_path"] == "serve_app.app:build_app" and application["route_prefix"] is None


def test_it_listens_on_this_machine_only(tree):
    assert tree["http_options"]["host"] == "127.0.0.1"


def test_it_serves_what_the_demo_trains(tree):
    _, application = tree["applications"]
    assert application["args"]["checkpoint"] == "runs/demo/checkpoint"
    assert CONFIG.parents[1] == PROJECT_ROOT


def test_the_example_in_the_comments_is_valid_too(tree):
    lines = [line.removeprefix("#").strip("\n") for line in CONFIG.read_text(encoding="utf-8").splitlines()]
    start = next(row for row, line in enumerate(lines) if line.startswith("   - name:"))
    end = next(row for row in range(start, len(lines)) if not lines[row].strip())
    example = yaml.safe_load("\n".join(lines[start:end]))
    assert end - start == 5  # as it is promised
    require_valid({**tree, "applications": tree["applications"] + example})
