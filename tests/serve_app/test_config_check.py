"""Reading a Serve YAML strictly: each mistake is one sentence with file, application and key."""

import copy

import pytest
import yaml
from ray.serve.schema import ServeDeploySchema

from serve_app.config_check import is_loopback, read_config, require_keys, unknown_keys

GATEWAY = {"name": "gateway", "route_prefix": "/", "import_path": "serve_app.gateway:build_gateway"}
SMALL = {
    "name": "small",
    "route_prefix": "/small",
    "import_path": "tests.serve_app.small_app:build_app",
    "args": {"text": "hello"},
}
TREE = {"proxy_location": "HeadOnly", "http_options": {"host": "127.0.0.1", "port": 8000}, "applications": [SMALL]}


@pytest.fixture
def tree():
    return copy.deepcopy(TREE)


@pytest.fixture
def read(tmp_path):
    def read(tree):
        file = tmp_path / "config.yaml"
        file.write_text(tree if isinstance(tree, str) else yaml.safe_dump(tree), encoding="utf-8")
        return read_config(file)

    return read


def test_a_right_one_comes_out_as_it_is(read, tree):
    assert read(tree) == TREE


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
        ({"logging_config": {"encode": "JSON"}}, "logging_config.encode"),
    ],
)
def test_an_ignored_key_is_found(change, key, read, tree):
    assert unknown_keys(change, ServeDeploySchema) == [key]
    with pytest.raises(ValueError, match=r"config.yaml: .* is no setting of Serve") as caught:
        read(tree | change)
    assert key in str(caught.value)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"args": {}}, "application 'small', args.text: Field required"),
        ({"args": None}, "application 'small', args.text: Field required"),
        ({"args": {"text": ""}}, "application 'small', args.text: String should have at least 1 character, not ''"),
        ({"args": {"text": "a", "starts": 1}}, "application 'small', args.starts: there is no such setting"),
        ({"import_path": "tests.serve_app.small_app:build"}, "application 'small', import_path: tests.serve_app.small"),
        ({"import_path": "no_such.module:build"}, "No module named 'no_such'"),
        ({"import_path": "a:b:c"}, "applications.0.import_path: "),
        ({"runtime_env": {"working_dir": "/here"}}, "applications.0.runtime_env: "),
        ({"import_path": "serve_app.app:build_app", "args": {"encoder": "UPPER"}}, "application 'small', args."),
    ],
)
def test_a_wrong_application_is_named_with_its_field(change, said, read, tree):
    tree["applications"][0] |= change
    if change.get("args", 1) is None:
        tree["applications"][0].pop("args")
    with pytest.raises(ValueError, match="config.yaml: ") as caught:
        read(tree)
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_an_encoder_with_a_route_of_its_own_is_refused(read, tree):
    encoder = {"encoder": "minilm", "checkpoint": "runs/demo/checkpoint"}
    tree["applications"] = [{"name": "minilm", "import_path": "serve_app.app:build_app", "args": encoder}]
    for prefix in ({}, {"route_prefix": "/invert/minilm"}):
        tree["applications"][0] |= prefix
        with pytest.raises(ValueError, match="application 'minilm', route_prefix: give null"):
            read(tree)
    tree["applications"][0]["route_prefix"] = None
    assert read(tree) == tree


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "not a mapping"),
        ("- 1", "not a mapping"),
        ("a: [", "not YAML"),
        ("{}", "applications: Field required"),
        ("applications: 3", "applications: Input should be a valid list, not 3"),
        ("applications: []\nhttp_options: {port: x}", "http_options.port: "),
        ("applications: []\nhttp_options: {ssl_certfile: c.pem}", "http_options"),
    ],
)
def test_what_is_no_config_is_said_plainly(text, said, read):
    with pytest.raises(ValueError, match="config.yaml: ") as caught:
        read(text)
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"none.yaml: No such file"):
        read_config(tmp_path / "none.yaml")


# Who may reach it


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True),
        ("127.8.9.1", True),
        ("::1", True),
        ("[::1]", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("10.0.0.1", False),
        ("localhost.example.org", False),
        ("", False),
    ],
)
def test_loopback(host, expected):
    assert is_loopback(host) is expected


OPEN = {"http_options": {"host": "0.0.0.0"}}


@pytest.mark.parametrize(
    "gateway",
    [
        {},
        {"args": {"keys_file": None}},
        {"args": {"insecure": False}},
        {"runtime_env": {"env_vars": {"EMBINV_API_KEYS": ""}}},
    ],
)
@pytest.mark.parametrize("options", [OPEN, {"http_options": {}}, {"http_options": {"host": "box.example.org"}}])
def test_an_open_address_without_keys_is_refused_and_named(tree, gateway, options):
    tree |= options | {"applications": [GATEWAY | gateway, SMALL]}
    with pytest.raises(ValueError, match=r"http_options.host: .*keys_file.*EMBINV_API_KEYS.*--insecure"):
        require_keys(tree, insecure=False)


def test_serves_default_address_is_open(tree):
    del tree["http_options"]
    with pytest.raises(ValueError, match=r"0\.0\.0\.0"):
        require_keys(tree, insecure=False)


@pytest.mark.parametrize(
    "gateway",
    [
        {"args": {"keys_file": "keys.txt"}},
        {"args": {"insecure": True}},
        {"runtime_env": {"env_vars": {"EMBINV_API_KEYS": f"ann:{'a' * 64}"}}},
    ],
)
def test_with_keys_or_the_word_for_it_an_open_address_passes(tree, gateway):
    tree |= OPEN | {"applications": [GATEWAY | gateway, SMALL]}
    before = copy.deepcopy(tree)
    require_keys(tree, insecure=False)
    assert tree == before


def test_an_open_address_without_a_gateway_is_refused(tree):
    with pytest.raises(ValueError, match="no API key is asked for"):
        require_keys(tree | OPEN, insecure=False)


def test_insecure_tells_the_gateway_and_nobody_else(tree):
    tree |= OPEN | {"applications": [GATEWAY | {"args": {"max_vectors": 3}}, SMALL]}
    require_keys(tree, insecure=True)
    assert tree["applications"] == [GATEWAY | {"args": {"max_vectors": 3, "insecure": True}}, SMALL]


def test_loopback_needs_nothing(tree):
    require_keys(tree, insecure=False)
    assert tree == TREE
