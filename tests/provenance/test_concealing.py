"""Secrets in command lines and settings are masked, and what only looks like their names is not."""

import pytest

from embinv.provenance.concealing import concealed, concealed_tree, concealed_words

SECRET = "Zx9-qR7/tV"


@pytest.mark.parametrize(
    "text",
    [
        f"postgresql://me:{SECRET}@db/prod",
        f"postgresql://me:p@{SECRET}@db/prod",
        f"https://user:{SECRET}@host:8000/v1",
        f"postgresql://me@db/prod?password={SECRET}",
        f"host=db password={SECRET} user=me",
        f"host=db sslpassword='{SECRET} x' user=me",
        f"encoder.api_key={SECRET}",
        f"--hf-token={SECRET}",
        f"AWS_SECRET_ACCESS_KEY={SECRET}",
        f"https://b.s3.amazonaws.com/x?X-Amz-Date=1&X-Amz-Signature={SECRET}&X-Amz-Expires=9",
        f'{{"token": "{SECRET}"}}',
        f"Authorization: Bearer {SECRET}",
        f"Bearer {SECRET}",
    ],
)
def test_a_secret_is_not_in_what_is_kept(text):
    assert SECRET not in concealed(text) and "***" in concealed(text)
    assert SECRET not in " ".join(concealed_words(["embinv", "invert", text]))


def test_a_token_in_the_place_of_a_users_name_is_masked_on_the_web_alone():
    assert concealed("git+HTTPS://t0k@host/x.git@main") == "git+HTTPS://***@host/x.git@main"
    assert concealed("postgresql://me@db/prod") == "postgresql://me@db/prod"


@pytest.mark.parametrize(
    "token", ["hf_" + "a1B2" * 6, "sk-proj-" + "a1B2" * 5, "AKIA" + "A2B3" * 4, "ghp_" + "a1B2" * 6]
)
def test_the_tokens_of_well_known_services_are_masked_wherever_they_stand(token):
    assert concealed(f"x {token} y") == "x *** y"


def test_what_is_no_secret_stays_around_one():
    assert (
        concealed(f"postgresql://me:{SECRET}@db/prod?sslmode=require") == "postgresql://me:***@db/prod?sslmode=require"
    )
    assert concealed("https://h/x?token=abc&page=2") == "https://h/x?token=***&page=2"


@pytest.mark.parametrize(
    "text",
    [
        "model.pseudo_tokens=8",
        "data.min_tokens=5",
        "encoder.api_key_env=OPENAI_API_KEY",
        "--tokenizer=t5-base",
        "postgresql://me@db/prod",
        "s3://bucket/a:b@c",
        "hf://datasets/allenai/c4@main/en/*.json.gz",
        "http://127.0.0.1:8000/v1",
        "https://host/@someone/v1?of=a@b",
        "/data/token/part-0.parquet",
        "training.seed=7",
    ],
)
def test_what_is_no_secret_is_as_it_was_given(text):
    assert concealed(text) == text


def test_a_value_in_the_word_behind_its_flag_is_masked():
    words = ["embinv", "--api-key", SECRET, "--seed", "3", "--token", "--cosine"]
    assert concealed_words(words) == ["embinv", "--api-key", "***", "--seed", "3", "--token", "--cosine"]


def test_settings_are_masked_by_name_and_by_what_they_hold():
    tree = {
        "encoder": {"api_key": SECRET, "url": f"https://a:{SECRET}@h"},
        "paths": [f"x?sig={SECRET}"],
        "min_tokens": 5,
    }
    assert concealed_tree(tree) == {
        "encoder": {"api_key": "***", "url": "https://a:***@h"},
        "paths": ["x?sig=***"],
        "min_tokens": 5,
    }
