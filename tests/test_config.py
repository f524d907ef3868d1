from pathlib import Path

import pytest
import yaml
from pydantic import BaseModel

import embinv.data.tokenizer
from embinv.config import Config, _known_keys, build_config, evaluation_settings, load_config
from embinv.data.settings import DataSettings, TextSource
from embinv.training.settings import TrainingSettings


def minimal(**sections):
    """The least that a config says."""
    return {"name": "tiny", "encoder": {"model": "someone/encoder", "dim": 16}} | sections


def file(folder, tree):
    path = folder / "config.yaml"
    path.write_text(tree if isinstance(tree, str) else yaml.safe_dump(tree), encoding="utf-8")
    return path


def refusal(call, *arguments):
    """The one sentence with which a call refuses."""
    with pytest.raises(ValueError, match=r".+") as caught:
        call(*arguments)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    assert "Traceback" not in message
    assert "pydantic" not in message
    return message


@pytest.mark.parametrize(
    ("key", "near"),
    [
        ("encodr", "encoder"),
        ("train", "training"),
        ("encoder.dimm", "encoder.dim"),
        ("data.seqlen", "data.seq_len"),
        ("encoding.worker", "encoding.workers"),
        ("model.pseudo_token", "model.pseudo_tokens"),
        ("training.learning_rat", "training.learning_rate"),
        ("evaluation.row", "evaluation.rows"),
        ("training.zzzz", "training."),  # even a key near nothing gets a suggestion
    ],
)
def test_unknown_key_is_refused_with_its_path_and_the_nearest_known_key(tmp_path, key, near):
    tree = minimal()
    *sections, last = key.split(".")
    place = tree
    for section in sections:
        place = place.setdefault(section, {})
    place[last] = 1
    message = refusal(load_config, file(tmp_path, tree))
    assert f"unknown key {key}; did you mean {near}" in message
    assert str(tmp_path / "config.yaml") in message
    assert f"unknown key {key}; did you mean {near}" in refusal(build_config, minimal(), [f"{key}=1"], "--set")


def test_unknown_key_in_a_source_is_refused_with_its_place(tmp_path):
    tree = minimal(data={"sources": ["a.txt", {"path": "b.txt", "lagn": "de"}]})
    assert "unknown key data.sources.1.lagn; did you mean data.sources.1.lang?" in refusal(
        load_config, file(tmp_path, tree)
    )
    assert "data.sources.0.path is missing" in refusal(build_config, minimal(), ["data.sources=[{lang: de}]"], "here")


class Nested(BaseModel):
    """Models at all the places that a type has for them."""

    maybe: DataSettings | None = None
    either: DataSettings | TrainingSettings | int = 0
    named: dict[str, list[TextSource]] = {}


@pytest.mark.parametrize(
    ("location", "key"),
    [
        ((), "maybe"),
        (("maybe",), "seq_len"),
        (("maybe", "sources", 3), "lang"),
        (("either", "TrainingSettings"), "max_steps"),
        (("named", "some name", 0), "path"),
    ],
)
def test_known_keys_are_found_in_lists_unions_and_mappings(location, key):
    assert key in _known_keys(Nested, location)
    assert _known_keys(Nested, ("named", "x", 0)) == list(TextSource.model_fields)


def test_every_wrong_field_is_named_at_once(tmp_path):
    tree = {"name": "Not A Name", "encoder": {"model": "x"}, "data": {"seq_len": 1}, "training": {"optimizer": "sgd"}}
    message = refusal(load_config, file(tmp_path, tree))
    for part in ("name:", "encoder.dim is missing", "data.seq_len:", "training.optimizer:", "got 'sgd'"):
        assert part in message


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["data.min_chars=600"], "data.min_chars (600) is above data.max_chars (500)"),
        (["data.seq_len=8", "data.min_tokens=8"], "data.min_tokens (8) must be below data.seq_len (8)"),
        (["training.batch_size=7", "training.workers=2"], "training.batch_size (7) must be a multiple"),
        (["training.optimizer=muon", "training.zero_stage=2"], "training.optimizer muon needs"),
    ],
)
def test_settings_that_do_not_fit_together_are_refused_with_their_paths(overrides, sentence):
    assert sentence in refusal(build_config, minimal(), overrides, "here")


def test_missing_section_is_named():
    assert "encoder is missing" in refusal(build_config, {"name": "tiny"}, [], "here")


@pytest.mark.parametrize(
    ("override", "path", "value"),
    [
        ("model.size=small", ("model", "size"), "small"),
        ("data.seq_len=16", ("data", "seq_len"), 16),
        ("training.minutes=null", ("training", "minutes"), None),
        ("training.learning_rate=1e-3", ("training", "learning_rate"), 1e-3),
        (
            "data.sources=[a.txt, {path: b, lang: de}]",
            ("data", "sources"),
            [TextSource(path="a.txt"), TextSource(path="b", lang="de")],
        ),
        ("encoder.prompt='query: '", ("encoder", "prompt"), "query: "),
        ("encoder.prompt=a=b", ("encoder", "prompt"), "a=b"),
        ("model.adaln=false", ("model", "adaln"), False),
        ("name=other", ("name",), "other"),
    ],
)
def test_override_wins_over_the_file(tmp_path, override, path, value):
    tree = minimal(data={"seq_len": 64}, training={"minutes": 3})
    found = load_config(file(tmp_path, tree), [override])
    for name in path:
        found = getattr(found, name)
    assert found == value


def test_last_of_two_overrides_wins_and_others_stay():
    config = build_config(minimal(data={"seq_len": 64, "rows": 5}), ["data.seq_len=16", "data.seq_len=24"], "here")
    assert (config.data.seq_len, config.data.rows) == (24, 5)


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("model.size", "expected section.key=value"),
        ("=5", "expected section.key=value"),
        ("name.first=5", "name is a value, not a section"),
        ("model.size=[a", "not valid YAML"),
        ("model.size=huge", "model.size: "),
        ("data.seq_len=many", "data.seq_len: "),
    ],
)
def test_override_that_cannot_be_applied_is_refused_in_one_sentence(override, sentence):
    tree = minimal()
    assert sentence in refusal(build_config, tree, [override], "here")


def test_override_may_fill_a_section_that_the_file_leaves_empty(tmp_path):
    path = file(tmp_path, "name: tiny\nencoder: {model: someone/encoder, dim: 16}\ndata:\n")
    assert load_config(path, ["data.seq_len=16"]).data.seq_len == 16


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("name: [a", "not valid YAML"),
        ("name: tiny\n\tencoder: 1", "not valid YAML"),
        ("- a\n- b", "expected a mapping of sections, got list"),
        ("", "expected a mapping of sections, got NoneType"),
        ("just words", "expected a mapping of sections, got str"),
        ("name: tiny\nencoder: words", "encoder"),
        ("name: !!python/object/apply:os.getcwd []", "not valid YAML"),
    ],
    ids=["open bracket", "tab", "list", "empty", "words", "section of words", "object"],
)
def test_bad_yaml_is_refused_in_one_sentence_with_the_file(tmp_path, text, sentence):
    path = file(tmp_path, text)
    message = refusal(load_config, path)
    assert sentence in message
    assert str(path) in message


def test_file_that_cannot_be_read_is_refused_with_where_configs_are(tmp_path):
    for path in (tmp_path / "absent.yaml", tmp_path):
        assert "cannot be read" in refusal(load_config, path)


def test_file_that_is_no_text_is_refused_and_named(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_bytes(b"\xff\xfe\x00name")
    assert str(path) in refusal(load_config, path)


def test_config_written_as_yaml_loads_equal(tmp_path):
    overrides = [
        "encoder.prompt='Frage: '",
        "data.sources=[été.txt, 's3://bucket/*.parquet']",
        "training.minutes=1.5",
        "training.learning_rate=1e-3",
        "model.hidden=64",
        "model.heads=2",
    ]
    config = build_config(minimal(), overrides, "here")
    assert load_config(file(tmp_path, config.to_yaml())) == config
    assert load_config(file(tmp_path, Config.model_validate(minimal()).to_yaml())) == Config.model_validate(minimal())


def test_yaml_names_every_setting(tmp_path):
    tree = yaml.safe_load(Config.model_validate(minimal()).to_yaml())
    assert set(tree) == set(Config.model_fields)
    assert set(tree["training"]) == set(Config.model_fields["training"].annotation.model_fields)


def test_tokenizer_is_the_backbones_if_the_model_starts_from_one():
    config = build_config(minimal(), ["model.backbone=some/bert", "model.backbone_revision=v1"], "here")
    assert (config.tokenizer, config.tokenizer_revision) == ("some/bert", "v1")
    other = build_config(config.model_dump(), ["data.tokenizer=other/one"], "here")
    assert (other.tokenizer, other.tokenizer_revision) == ("other/one", None)
    openai = {"kind": "openai", "base_url": "http://127.0.0.1:1/v1", "model": "m", "dim": 4}
    assert build_config(minimal(encoder=openai), ["model.backbone=some/bert"], "here").tokenizer == "some/bert"


def test_tokenizer_is_the_encoders_unless_the_data_name_one():
    assert build_config(minimal(), [], "here").tokenizer == "someone/encoder"
    assert build_config(minimal(), ["data.tokenizer=other/one"], "here").tokenizer == "other/one"


@pytest.mark.parametrize(
    ("overrides", "opened"),
    [
        ([], ("someone/encoder", "v2", True)),
        (["encoder.trust_remote_code=false"], ("someone/encoder", "v2", False)),
        (["data.tokenizer=other/one"], ("other/one", None, False)),
        (["model.backbone=some/bert", "model.backbone_revision=v1"], ("some/bert", "v1", False)),
        (["model.backbone=some/bert"], ("some/bert", None, False)),
    ],
)
def test_tokenizer_is_opened_at_its_own_revision_and_runs_code_only_where_the_encoders_may(
    monkeypatch, overrides, opened
):
    encoder = {"model": "someone/encoder", "dim": 16, "revision": "v2", "trust_remote_code": True}
    monkeypatch.setattr(embinv.data.tokenizer, "TextTokenizer", lambda *arguments: arguments)
    assert build_config(minimal(encoder=encoder), overrides, "here").open_tokenizer() == opened


@pytest.mark.parametrize("setting", ["data.seed", "evaluation.seed"])
def test_seed_below_zero_is_refused(setting):
    assert f"{setting}: " in refusal(build_config, minimal(), [f"{setting}=-1"], "here")


def test_evaluation_alone_can_be_set_for_a_checkpoint():
    settings = evaluation_settings({"rows": 500, "steps": 4}, ["evaluation.steps=16"], "here")
    assert (settings.rows, settings.steps, settings.seed) == (500, 16, 0)
    assert evaluation_settings({}, [], "here").rows == 1000


@pytest.mark.parametrize("override", ["model.size=large", "name=other", "evaluation=5", "data.tokenizer=x"])
def test_other_sections_mean_nothing_for_a_checkpoint_and_are_refused(override):
    message = refusal(evaluation_settings, {}, [override], "here")
    assert message.startswith(f"--set {override}: ") and "set evaluation.KEY=VALUE only" in message


def test_wrong_key_of_an_evaluation_is_named_with_the_nearest():
    message = refusal(evaluation_settings, {"rwos": 5}, [], "_run.json")
    assert message == "_run.json: unknown key evaluation.rwos; did you mean evaluation.rows?"


def test_tree_that_is_given_is_left_as_it_is():
    tree = minimal(data={"seq_len": 64})
    build_config(tree, ["data.seq_len=16", "encoder.prompt=x"], "here")
    assert tree == minimal(data={"seq_len": 64})


@pytest.mark.parametrize("name", ["minilm", "qwen3-0.6b", "a_b.c-1"])
def test_name_that_fits_a_url_is_taken(name):
    assert build_config(minimal(name=name), [], "here").name == name


@pytest.mark.parametrize("name", ["", "A", "a b", "a/b", "../x", "-a", "ä"])
def test_name_that_does_not_fit_a_url_is_refused(name):
    assert "name:" in refusal(build_config, minimal(name=name), [], "here")


def test_loading_reads_nothing_from_the_environment(tmp_path, monkeypatch):
    path = file(tmp_path, minimal())
    before = load_config(path)
    for name in ("SEED", "TRAINING__SEED", "EMBINV_SEED", "DATA_SEQ_LEN"):
        monkeypatch.setenv(name, "77")
    assert load_config(Path(path)) == before
