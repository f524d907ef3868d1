"""A recipe that comes with a checkpoint runs no code and sends nothing anywhere unless its user said so."""

import pytest

from embinv.encoders.spec import EncoderSpec
from embinv.encoders.trust import TRUSTED, open_told_encoder, require_trusted

URL = "http://10.1.2.3:8000/v1"


def server(url=URL, **fields):
    return EncoderSpec(kind="openai", model="a/b", dim=8, base_url=url, **fields)


@pytest.mark.parametrize(
    "spec",
    [
        EncoderSpec(model="a/b", dim=8),
        EncoderSpec(kind="hash", model="hash", dim=8),
        server("http://127.0.0.1:8000/v1"),
        server("http://localhost:8000/v1"),
        server("http://[::1]:8000/v1"),
    ],
)
def test_what_stays_on_this_machine_and_runs_nothing_is_opened(spec, monkeypatch):
    monkeypatch.delenv(TRUSTED, raising=False)
    require_trusted(spec)


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        (EncoderSpec(model="a/b", dim=8, trust_remote_code=True), rf"run code from a/b; .* set {TRUSTED}=a/b$"),
        (server(), rf"would send texts to {URL}, with the key in OPENAI_API_KEY; .* {TRUSTED}={URL}$"),
        (
            EncoderSpec(model="a/b", dim=8, trust_remote_code=True, revision="refs/pr/7"),
            rf"run code from a/b@refs/pr/7; .* set {TRUSTED}=a/b@refs/pr/7$",
        ),
        (server("http://127.0.0.1.example.org/v1"), r"would send texts to http://127\.0\.0\.1\.example\.org/v1"),
        (
            server().model_copy(update={"base_url": "http://localhost@10.1.2.3/v1"}),
            r"would send texts to http://localhost@10\.1\.2\.3/v1",
        ),
    ],
)
def test_what_does_more_is_refused_until_it_is_named(spec, told, monkeypatch):
    monkeypatch.setenv(TRUSTED, "another/model, http://10.1.2.3:8000, a/b@main" + (", a/b" if spec.revision else ""))
    with pytest.raises(ValueError, match=told):
        open_told_encoder(spec)
    revision = f"@{spec.revision}" if spec.revision else ""
    monkeypatch.setenv(TRUSTED, f"another/model, {spec.base_url or spec.model}{revision}")
    require_trusted(spec)


def test_no_other_variable_of_the_environment_is_ever_sent(monkeypatch):
    spec = server("http://127.0.0.1:1/v1", api_key_env="AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv(TRUSTED, str(spec.base_url))
    with pytest.raises(ValueError, match=r"would send the variable AWS_SECRET_ACCESS_KEY to http://127"):
        require_trusted(spec)
