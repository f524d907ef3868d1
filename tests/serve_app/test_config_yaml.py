"""config.yaml: what Serve would ignore without a word is an error here."""

from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from pydantic import BaseModel
from ray.serve.schema import ServeDeploySchema

from serve_app.app import PROJECT_ROOT, AppArgs

CONFIG = Path(__file__).resolve().parents[2] / "serve_app" / "config.yaml"


def unknown_keys(tree: Any, schema: Any, path: str = "") -> list[str]:
    """Keys of `tree` that no field of a pydantic schema reads, at any depth; free dictionaries are not entered."""
    if isinstance(tree, list):
        return [key for row, item in enumerate(tree) for key in unknown_keys(item, schema, f"{path}[{row}]")]
    model = next((part for part in parts_of(schema) if isinstance(part, type) and issubclass(part, BaseModel)), None)
    if not isinstance(tree, dict) or model is None:
        return []
    fields = model.model_fields
    found = [f"{path}.{key}".lstrip(".") for key in tree if key not in fields]
    for key in tree.keys() & fields.keys():
        found += unknown_keys(tree[key], fields[key].annotation, f"{path}.{key}".lstrip("."))
    return found


def parts_of(annotation: Any) -> list[Any]:
    """An annotation and everything inside it: Optional[List[X]] holds X."""
    return [annotation, *(part for inner in get_args(annotation) for part in parts_of(inner))]


@pytest.fixture(scope="module")
def tree():
    return yaml.safe_load(CONFIG.read_text(encoding="utf-8"))


def test_serve_accepts_it(tree):
    ServeDeploySchema.model_validate(tree)


def test_no_key_is_ignored(tree):
    assert unknown_keys(tree, ServeDeploySchema) == []


def test_every_application_serves_its_encoder_under_its_name(tree):
    for application in tree["applications"]:
        args = AppArgs.model_validate(application["args"])
        assert application["route_prefix"] == f"/invert/{args.encoder}"
        assert application["name"] == args.encoder
        assert application["import_path"] == "serve_app.app:build_app"


def test_it_listens_on_this_machine_only(tree):
    assert tree["http_options"]["host"] == "127.0.0.1"


def test_it_serves_what_the_demo_trains(tree):
    (application,) = tree["applications"]
    assert application["args"]["checkpoint"] == "runs/demo/checkpoint"
    assert CONFIG.parents[1] == PROJECT_ROOT


def test_the_example_in_the_comments_is_valid_too(tree):
    lines = [line.removeprefix("#").strip("\n") for line in CONFIG.read_text(encoding="utf-8").splitlines()]
    start = next(row for row, line in enumerate(lines) if line.startswith("   - name:"))
    end = next(row for row in range(start, len(lines)) if not lines[row].strip())
    example = yaml.safe_load("\n".join(lines[start:end]))
    added = {**tree, "applications": tree["applications"] + example}
    ServeDeploySchema.model_validate(added)
    assert unknown_keys(added, ServeDeploySchema) == []
    AppArgs.model_validate(example[0]["args"])


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"http_option": {}}, "http_option"),
        ({"http_options": {"hots": "127.0.0.1"}}, "http_options.hots"),
        ({"applications": [{"arg": {}}]}, "applications[0].arg"),
        (
            {"applications": [{"deployments": [{"autoscaling_config": {"max_ongoing_requests": 2}}]}]},
            "applications[0].deployments[0].autoscaling_config.max_ongoing_requests",
        ),
    ],
)
def test_an_ignored_key_is_found(change, key):
    assert unknown_keys(change, ServeDeploySchema) == [key]
