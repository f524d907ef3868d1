"""The gateway's routes over HTTP in this process, in front of encoders that need no model."""

import asyncio
import base64
import json

import httpx
import numpy as np
import pytest
from fastapi.testclient import TestClient

from serve_app.ingress import build_ingress
from serve_app.keys import KeyRing, key_hash, new_key
from serve_app.settings import GatewayArgs
from tests.serve_app.fakes import PASSES, EchoBackend, Tally

URL = "/invert/fake"
ONE = {"embedding": [1, 2, 3]}


def api_for(backend=None, keys=None, measures=None, local_only=False, **settings):
    ring = KeyRing.open(None, keys or {})
    args = GatewayArgs(**({"access_log": None} | settings))
    return build_ingress(backend or EchoBackend(), args, ring, measures or Tally(), local_only)


def client_for(*given, **settings):
    return TestClient(api_for(*given, **settings), follow_redirects=False, raise_server_exceptions=False)


@pytest.fixture(scope="module")
def client():
    return client_for()


def texts(response):
    assert response.status_code == 200, response.text
    return [result["text"] for result in response.json()["results"]]


# What is answered


@pytest.mark.parametrize("path", [URL, URL + "/"])
def test_both_spellings_of_the_path_are_answered_without_a_redirect(client, path):
    response = client.post(path, json={"embedding": [1, 2, 3], "steps": 2, "seed": 5})
    assert texts(response) == ["[1.0, 2.0, 3.0] confidence 2 5 4 False"]
    body = response.json()
    assert (body["model"], body["version"], body["encoder"]) == ("fake", "abc123", "a fake encoder")
    assert body["milliseconds"] >= 0 and body["model_milliseconds"] == 1.0


def test_several_vectors_have_their_texts_in_order(client):
    found = texts(client.post(URL, json={"embeddings": [[1, 2, 3], [4, 5, 6]]}))
    assert [text.split(" conf")[0] for text in found] == ["[1.0, 2.0, 3.0]", "[4.0, 5.0, 6.0]"]


def test_base64_of_little_endian_float32_is_a_vector_too(client):
    vector = np.array([1.5, -2.25, 3e-5], dtype="<f4")
    as_text = base64.b64encode(vector.tobytes()).decode()
    by_numbers = texts(client.post(URL, json={"embedding": vector.astype(float).tolist()}))
    assert texts(client.post(URL, json={"embedding": as_text})) == by_numbers
    assert texts(client.post(URL, json={"embeddings": [as_text, [1, 2, 3]]}))[0] == by_numbers[0]


def test_the_content_type_is_not_asked_for(client):
    headers = {"content-type": "application/x-www-form-urlencoded"}  # what `curl -d` sends
    assert client.post(URL, content=b'{"embedding": [1, 2, 3]}', headers=headers).status_code == 200


def test_candidates_and_refine_reach_the_encoder(client):
    body = {**ONE, "strategy": "candidates", "candidates": 7, "refine": True}
    assert texts(client.post(URL, json=body)) == ["[1.0, 2.0, 3.0] candidates 8 0 7 True"]


def test_a_refinement_reaches_the_encoder_with_any_strategy(client):
    for strategy in ("confidence", "candidates"):
        body = {**ONE, "strategy": strategy, "refine": {"steps": 2, "beam": 3}}
        assert texts(client.post(URL, json=body)) == [f"[1.0, 2.0, 3.0] {strategy} 8 0 4 steps=2 beam=3"]


def events_of(response):
    assert response.status_code == 200, response.text
    blocks = [dict(line.split(": ", 1) for line in block.splitlines()) for block in response.text.split("\n\n")[:-1]]
    return [(block["event"], json.loads(block["data"])) for block in blocks]


def test_a_stream_shows_corrections_behind_the_passes(client):
    found = events_of(client.post(URL + "/stream", json={**ONE, "refine": {"steps": 1}}))
    assert [name for name, _ in found] == ["pass"] * PASSES + ["correction"] * 2 + ["result"]
    corrections = [data for name, data in found if name == "correction"]
    assert [(data["step"], data["cosine"]) for data in corrections] == [(0, 0.5), (1, 0.6)]


def test_a_stream_shows_each_pass_and_then_the_answer(client):
    response = client.post(URL + "/stream", json={"embeddings": [[1, 2, 3], [4, 5, 6]], "steps": 3})
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/event-stream")
    events = [dict(line.split(": ", 1) for line in block.splitlines()) for block in response.text.split("\n\n")[:-1]]
    seen = [json.loads(event["data"]) for event in events if event["event"] == "pass"]
    assert [(event["step"], event["index"]) for event in seen] == [
        (step, row) for step in range(1, PASSES + 1) for row in range(2)
    ]
    assert events[-1]["event"] == "result" and len(events) == len(seen) + 1
    assert len(json.loads(events[-1]["data"])["results"]) == 2


def test_texts_are_encoded_where_an_encoder_is_served(client):
    body = client.post("/encode/fake", json={"texts": ["abc", "de"]}).json()
    assert body["embeddings"] == [[3.0, 1.0, 2.0], [2.0, 1.0, 2.0]]
    assert body["encoder"] == "a fake encoder"
    encoded = client.post("/encode/fake", json={"text": "abc", "encoding_format": "base64"}).json()["embeddings"][0]
    assert np.frombuffer(base64.b64decode(encoded), "<f4").tolist() == [3.0, 1.0, 2.0]


def test_where_none_is_served_encode_says_how_to_have_one_and_refine_is_refused():
    client = client_for(EchoBackend(encode=False))
    response = client.post("/encode/fake", json={"text": "abc"})
    assert response.status_code == 404 and "encode: true" in response.json()["detail"]
    response = client.post(URL, json={**ONE, "strategy": "candidates", "refine": True})
    assert response.status_code == 422 and "send refine false" in response.json()["detail"]
    response = client.post(URL, json={**ONE, "refine": {"steps": 0}})
    assert response.status_code == 422 and "send refine false" in response.json()["detail"]
    assert client.get("/encoders").json()["encoders"][0]["defaults"]["refine"] is None


def test_the_encoders_are_listed_with_what_is_known_of_them(client):
    listed = client.get("/encoders").json()
    assert listed["key_required"] is False
    fake, starting = listed["encoders"]
    assert (fake["name"], fake["dim"], fake["languages"], fake["encode"]) == ("fake", 3, ["en", "de"], True)
    assert fake["figures"] == {"validation_token_accuracy": 0.5} and fake["limits"]["vectors"] == 256
    assert (fake["limits"]["refine_steps"], fake["limits"]["refine_beam"]) == (20, 8)
    assert fake["defaults"] == {"strategy": "confidence", "steps": 8, "refine": {"steps": 5, "beam": 4}}
    assert (starting["name"], starting["status"], starting["dim"]) == ("starting", "DEPLOYING", None)


def test_it_is_ready_once_every_encoder_is():
    backend = EchoBackend()
    client = client_for(backend)
    assert client.get("/healthz").json() == {"status": "ok"}
    response = client.get("/readyz")
    assert response.status_code == 503
    assert response.json() == {"status": "not ready", "encoders": {"fake": "RUNNING", "starting": "DEPLOYING"}}
    del backend.served["starting"]
    assert client.get("/readyz").status_code == 200
    backend.served.clear()
    assert client.get("/readyz").status_code == 503


# What is refused

WRONG = {
    "an empty body": (b"", "the body is empty; send"),
    "NaN": (b'{"embedding": [1, NaN, 3]}', "embedding[1] is NaN"),
    "too short": (b'{"embedding": [1, 2]}', "embedding has 2 dimensions, but this inverter takes 3"),
    "an unknown key": (b'{"vector": 1}', "unknown key"),
    "no base64": (
        b'{"embedding": "%%%"}',
        "embedding is text, but not base64; send 3 little-endian float32 (12 bytes)",
    ),
    "too few bytes": (b'{"embedding": "AAAAAAA="}', "base64 of 5 bytes"),
    "base64 of another dimension": (b'{"embedding": "AACAPw=="}', "embedding has 1 dimensions"),
    "base64 of NaN": (b'{"embedding": "AADAfwAAgD8AAIA/"}', "NaN or infinity"),
    "candidates of no use": (b'{"embedding": [1, 2, 3], "candidates": 2}', "candidates does nothing for strategy"),
    "refine of no use": (
        b'{"embedding": [1, 2, 3], "refine": true}',
        "refine true does nothing for strategy confidence",
    ),
    "a long refinement": (
        b'{"embedding": [1, 2, 3], "refine": {"steps": 20}}',
        "embeddings x (candidates + refine's steps x beam x beam) are 321 texts; send at most 256 in one request",
    ),
    "an unknown key of refine": (b'{"embedding": [1, 2, 3], "refine": {"width": 1}}', 'unknown key "width" in refine'),
    "65 candidates": (b'{"embedding": [1, 2, 3], "candidates": 65}', "send a whole number from 1 to 64"),
    "513 steps": (b'{"embedding": [1, 2, 3], "steps": 513}', "steps is 513; send a whole number from 1 to 512"),
    "deep nesting": (b'{"embedding": ' + b"[" * 5000, "not JSON"),
    "no UTF-8": (b'{"embedding": "\xff"}', "not JSON"),
}


@pytest.mark.parametrize(("body", "sentence"), WRONG.values(), ids=WRONG.keys())
@pytest.mark.parametrize("path", [URL, URL + "/stream"])
def test_a_wrong_body_is_422_with_a_sentence(client, path, body, sentence):
    response = client.post(path, content=body)
    assert response.status_code == 422
    assert list(response.json()) == ["detail"]
    assert sentence in response.json()["detail"] and len(response.json()["detail"]) < 400


ENCODE_WRONG = {
    "neither": (b"{}", "the body holds neither of 'text' and 'texts'"),
    "both": (b'{"text": "a", "texts": ["b"]}', "both"),
    "an empty text": (b'{"texts": ["a", " "]}', "a text is empty"),
    "no texts": (b'{"texts": []}', "a text is empty, or there is none"),
    "a number": (b'{"text": 3}', "text is 3; send a text"),
    "a long text": (json.dumps({"text": "a" * 20_001}).encode(), "text is too long"),
    "many texts": (json.dumps({"texts": ["a"] * 257}).encode(), "texts is too long; send a list of at most 256"),
    "another format": (b'{"text": "a", "encoding_format": "hex"}', "'float' or 'base64'"),
}


@pytest.mark.parametrize(("body", "sentence"), ENCODE_WRONG.values(), ids=ENCODE_WRONG.keys())
def test_a_wrong_body_of_encode_is_422_with_a_sentence(client, body, sentence):
    response = client.post("/encode/fake", content=body)
    assert response.status_code == 422 and sentence in response.json()["detail"]


@pytest.mark.parametrize("path", ["/invert/other", "/invert/other/stream", "/encode/other", "/invert/" + "x" * 500])
def test_an_unknown_encoder_is_404_with_those_that_there_are(client, path):
    response = client.post(path, json=ONE)
    assert response.status_code == 404
    assert "served are fake, starting" in response.json()["detail"] and len(response.json()["detail"]) < 120


def test_one_that_starts_is_503_with_when_to_come_again(client):
    response = client.post("/invert/starting", json=ONE)
    assert response.status_code == 503 and response.headers["retry-after"] == "5"
    assert "is starting" in response.json()["detail"]


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/nope", 404), ("GET", URL, 405), ("PUT", URL, 405)])
def test_other_paths_and_methods_are_refused_in_a_sentence(client, method, path, status):
    response = client.request(method, path)
    assert response.status_code == status and "/docs lists what there is" in response.json()["detail"]


def test_a_body_over_the_limit_is_413_whether_it_says_its_length_or_not():
    measures = Tally()
    client = client_for(measures=measures, max_body_bytes=100)
    large = b'{"embedding": [' + b"1, " * 100 + b"1]}"
    assert client.post(URL, content=large).status_code == 413
    response = client.post(URL, content=iter([large[:60], large[60:]]))
    assert response.status_code == 413 and "larger than 100 bytes" in response.json()["detail"]
    assert client.post(URL, json=ONE).status_code == 200
    assert measures.rejections == [("", "body")] * 2


def test_more_vectors_than_the_limit_are_refused_candidates_counted():
    client = client_for(max_vectors=4)
    response = client.post(URL, json={"embeddings": [[1, 2, 3]] * 5})
    assert response.status_code == 422 and "5 vectors; send at most 4" in response.json()["detail"]
    many = {"embeddings": [[1, 2, 3]] * 2, "strategy": "candidates", "candidates": 3}
    response = client.post(URL, json=many)
    assert response.status_code == 422 and "6 texts; send at most 4" in response.json()["detail"]
    assert client.post(URL, json={"embeddings": [[1, 2, 3]] * 4}).status_code == 200


def test_a_refined_vector_counts_for_what_may_be_written_for_it():
    measures = Tally()
    client = client_for(measures=measures, max_vectors=20)
    body = {"embeddings": [[1, 2, 3]] * 2, "refine": {"steps": 2, "beam": 2}}
    for path in (URL, URL + "/stream"):
        assert client.post(path, json=body).status_code == 200
    assert measures.queue == [("fake", 18), ("fake", 0)] * 2
    response = client.post(URL, json={**body, "strategy": "candidates", "candidates": 3})
    assert response.status_code == 422 and "are 22 texts; send at most 20" in response.json()["detail"]
    assert client.post(URL, json={**body, "refine": {"steps": 0}}).status_code == 200
    assert measures.queue[-2:] == [("fake", 2), ("fake", 0)]


def test_a_fault_of_ours_is_500_without_its_traceback():
    class Broken(EchoBackend):
        async def invert(self, *given):
            raise ValueError("a bug at line 7")

    response = client_for(Broken()).post(URL, json=ONE)
    assert response.status_code == 500
    assert "a bug" not in response.text
    assert f"under request {response.headers['x-request-id']}" in response.json()["detail"]
    assert response.headers["x-content-type-options"] == "nosniff"


def test_a_fault_in_a_stream_is_an_event():
    class Broken(EchoBackend):
        async def watch(self, *given):
            raise ValueError("a bug at line 7")
            yield

    response = client_for(Broken()).post(URL + "/stream", json=ONE)
    assert response.status_code == 200 and response.text.startswith("event: error\n")
    assert json.loads(response.text.split("data: ")[1])["status"] == 500 and "a bug" not in response.text


# Who may ask


def test_with_keys_only_their_bearers_may_ask():
    key, other, measures = new_key(), new_key(), Tally()
    client = client_for(keys={"EMBINV_API_KEYS": f"ci:{key_hash(key)}"}, measures=measures)
    for headers in ({}, {"authorization": f"Bearer {other}"}, {"authorization": key}, {"authorization": "Basic abc"}):
        response = client.post(URL, content=b"not even read", headers=headers)
        assert response.status_code == 401 and response.headers["www-authenticate"] == "Bearer"
    assert measures.rejections == [("", "key")] * 4
    assert client.get("/encoders").status_code == 401
    bearer = {"authorization": f"Bearer {key}"}
    assert client.post(URL, json=ONE, headers=bearer).status_code == 200
    assert client.post(URL + "/stream", json=ONE, headers=bearer).status_code == 200
    assert client.get("/encoders", headers=bearer).json()["key_required"] is True
    assert all(client.get(path).status_code == 200 for path in ("/", "/docs", "/healthz", "/openapi.json"))
    operation = client.get("/openapi.json").json()["paths"]["/invert/{encoder}"]["post"]
    assert operation["security"] == [{"key": []}]


def test_another_origin_may_ask_only_if_it_is_named():
    asking = {"origin": "https://a.example", "access-control-request-method": "POST"}
    closed = client_for()
    assert "access-control-allow-origin" not in closed.options(URL, headers=asking).headers
    assert "access-control-allow-origin" not in closed.post(URL, json=ONE, headers=asking).headers
    opened = client_for(cors_origins=["https://a.example"])
    assert opened.options(URL, headers=asking).headers["access-control-allow-origin"] == "https://a.example"
    assert opened.post(URL, json=ONE, headers=asking).headers["access-control-allow-origin"] == "https://a.example"
    stranger = {**asking, "origin": "https://b.example"}
    assert "access-control-allow-origin" not in opened.post(URL, json=ONE, headers=stranger).headers


@pytest.mark.parametrize(("host", "status"), [("127.0.0.1:8000", 200), ("localhost", 200), ("[::1]:8000", 200)])
def test_without_keys_a_server_of_this_machine_answers_to_its_names(host, status):
    client = client_for(local_only=True)
    assert client.post(URL, json=ONE, headers={"host": host}).status_code == status


def test_and_to_no_other_name():
    response = client_for(local_only=True).post(URL, json=ONE, headers={"host": "rebound.example:8000"})
    assert response.status_code == 400


# How much at a time


async def settle():
    for _ in range(10):
        await asyncio.sleep(0.005)


def connected(api):
    return httpx.AsyncClient(transport=httpx.ASGITransport(api, raise_app_exceptions=False), base_url="http://test")


def run(scene):
    asyncio.run(asyncio.wait_for(scene, 20))


@pytest.mark.parametrize("path", [URL, URL + "/stream"])
def test_what_does_not_fit_into_the_queue_is_429_with_when_to_come_again(path):
    async def scene():
        backend, measures = EchoBackend(), Tally()
        backend.gate.clear()
        async with connected(api_for(backend, measures=measures, max_vectors=3, max_queued_vectors=3)) as client:
            held = asyncio.create_task(client.post(path, json={"embeddings": [[1, 2, 3]] * 2}))
            await settle()
            refused = await client.post(path, json={"embeddings": [[1, 2, 3]] * 2})
            assert refused.status_code == 429 and int(refused.headers["retry-after"]) >= 1
            assert "2 vectors are under way" in refused.json()["detail"]
            fits = asyncio.create_task(client.post(path, json=ONE))
            await settle()
            assert not fits.done()
            backend.gate.set()
            assert (await held).status_code == (await fits).status_code == 200
            assert (await client.post(path, json={"embeddings": [[1, 2, 3]] * 3})).status_code == 200
        assert measures.rejections == [("fake", "queue")]
        assert measures.queue[-1] == ("fake", 0) and max(measures.queue) == ("fake", 3)

    run(scene())


def test_what_takes_too_long_is_503_and_is_given_up():
    async def scene():
        backend = EchoBackend()
        backend.gate.clear()
        async with connected(api_for(backend, request_timeout_s=0.05, max_queued_vectors=256)) as client:
            response = await client.post(URL, json=ONE)
            assert response.status_code == 503 and response.headers["retry-after"] == "5"
            assert "no answer within 0.05 s" in response.json()["detail"]
            await settle()
            assert (backend.running, backend.cancelled) == (0, 1)
            streamed = await client.post(URL + "/stream", json=ONE)
            assert "event: error" in streamed.text and json.loads(streamed.text.split("data: ")[1])["status"] == 503

    run(scene())


def disconnecting(body, after):
    """A client that sends a body and hangs up once `after` is set."""
    messages = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive():
        if messages:
            return messages.pop()
        await after.wait()
        return {"type": "http.disconnect"}

    return receive


@pytest.mark.parametrize("path", [URL, URL + "/stream"])
def test_a_client_that_hangs_up_frees_its_place(path):
    async def scene():
        backend, measures, gone, sent = EchoBackend(), Tally(), asyncio.Event(), []
        backend.gate.clear()
        api = api_for(backend, measures=measures)
        scope = {
            "type": "http", "method": "POST", "path": path, "raw_path": path.encode(), "query_string": b"",
            "headers": [], "scheme": "http", "server": ("test", 80), "client": ("test", 1), "asgi": {"version": "3.0"},
            "http_version": "1.1", "root_path": "",
        }  # fmt: skip

        async def send(message):
            sent.append(message)

        call = asyncio.create_task(api(scope, disconnecting(json.dumps(ONE).encode(), gone), send))
        await settle()
        assert backend.running == 1 and measures.queue[-1] == ("fake", 1)
        gone.set()
        await asyncio.wait_for(call, 5)
        assert (backend.running, backend.cancelled) == (0, 1)
        assert measures.queue[-1] == ("fake", 0)
        assert not any(message.get("body") for message in sent)

    run(scene())


def test_a_client_that_sends_slowly_is_408_and_holds_up_nobody():
    async def scene():
        measures = Tally()

        async def dribble():
            yield b'{"embedding": '
            await asyncio.sleep(5)
            yield b"[1, 2, 3]}"

        async with connected(api_for(measures=measures, body_timeout_s=0.2)) as client:
            slow = asyncio.create_task(client.post(URL, content=dribble()))
            await settle()
            assert (await client.post(URL, json=ONE)).status_code == 200
            assert not slow.done()
            response = await asyncio.wait_for(slow, 3)
            assert response.status_code == 408 and "not there after 0.2 s" in response.json()["detail"]
        assert measures.rejections == [("", "body")]

    run(scene())


# What is said of it


def test_requests_are_counted_by_route_encoder_and_status():
    measures = Tally()
    client = client_for(measures=measures)
    for path, body in ((URL, ONE), (URL, {}), ("/invert/other", ONE), (URL + "/stream", ONE)):
        client.post(path, json=body)
    client.get("/secret-path")
    client.get("/healthz")
    assert measures.answers == [
        ("fake", "/invert/{encoder}", 200),
        ("fake", "/invert/{encoder}", 422),
        ("", "/invert/{encoder}", 404),
        ("fake", "/invert/{encoder}/stream", 200),
        ("", "other", 404),
        ("", "/healthz", 200),
    ]
    assert measures.texts == [("fake", 1), ("fake", 1)]


def test_an_answer_carries_its_request_id_and_security_headers(client):
    response = client.post(URL, json=ONE, headers={"x-request-id": "abc-1"})
    assert response.headers["x-request-id"] == "abc-1"
    for answer in (response, client.get("/"), client.get("/nope"), client.post(URL, content=b"")):
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["x-request-id"]
    assert "script-src 'self'" in client.get("/").headers["content-security-policy"]


def test_the_documentation_describes_bodies_and_problems(client):
    document = client.get("/openapi.json").json()
    operation = document["paths"]["/invert/{encoder}"]["post"]
    schema = operation["requestBody"]["content"]["application/json"]["schema"]
    assert {"embedding", "embeddings", "strategy", "steps", "candidates", "beams", "seed", "refine"} == set(
        schema["properties"]
    )
    choice, loop = schema["properties"]["refine"]["oneOf"]
    assert choice == {"type": "boolean"} and loop == {"$ref": "#/components/schemas/Refinement"}
    assert set(document["components"]["schemas"]["Refinement"]["properties"]) == {"steps", "beam"}
    assert {"200", "401", "404", "408", "413", "422", "429", "503"} <= set(operation["responses"])
    assert set(document["paths"]) == {
        "/healthz", "/readyz", "/encoders", "/invert/{encoder}", "/invert/{encoder}/stream", "/encode/{encoder}",
    }  # fmt: skip


def test_the_page_and_its_files_are_there_and_nothing_else_of_the_disk(client):
    assert client.get("/").headers["content-type"].startswith("text/html")
    assert client.get("/page/app.js").headers["content-type"].startswith("text/javascript")
    assert client.get("/page/style.css").status_code == 200
    for name in ("..%2fapp.py", "nope.js", "%2e%2e/config.yaml"):
        assert client.get(f"/page/{name}").status_code == 404


def test_a_limit_that_no_request_could_keep_is_refused():
    with pytest.raises(ValueError, match="max_queued_vectors is 5, below max_vectors, 10"):
        GatewayArgs(max_vectors=10, max_queued_vectors=5)
