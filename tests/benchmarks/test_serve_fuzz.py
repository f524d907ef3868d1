"""benchmarks/serve_fuzz.py and serve_mutations.py: bodies are of every kind, and what upsets a server is seen."""

import base64
import json
import random
from collections import Counter

import numpy as np

from benchmarks.serve_checkpoints import random_vectors
from benchmarks.serve_fuzz import failed_checks, operations_of, parse_har, tracebacks_logged, upset
from benchmarks.serve_mutations import MUTATIONS, mutated_bodies, packed, valid_body
from embinv.data.vectors import check_embeddings


def test_a_seed_decides_all_bodies_and_each_kind_comes_equally_often():
    bodies = mutated_bodies(300)
    assert bodies == mutated_bodies(300) != mutated_bodies(300, seed=1)
    assert Counter(body.kind for body in bodies) == dict.fromkeys(MUTATIONS, 300 // len(MUTATIONS))
    assert {body.route for body in bodies} == {"invert", "stream", "encode"}
    assert all(isinstance(body.body, bytes) and body.headers["content-type"] is not None for body in bodies)
    assert len({body.body for body in bodies}) > 200


def test_most_bodies_are_no_json_of_the_schema_and_some_still_are():
    def parses(content):
        try:
            json.loads(content)
        except (ValueError, RecursionError):
            return False
        return True

    share = sum(parses(body.body) for body in mutated_bodies(600)) / 600
    assert 0.2 < share < 0.8  # neither all stopped by the parser nor all past it


def test_headers_can_be_sent():
    for body in mutated_bodies(600):
        for value in body.headers.values():
            assert "\r" not in value and "\n" not in value
            value.encode("latin-1")


def test_a_body_is_mutated_from_one_that_is_valid():
    rng, vectors = random.Random(0), random_vectors(2).tolist()
    for _ in range(50):
        body = valid_body(rng, "invert", vectors)
        assert ("embedding" in body) != ("embeddings" in body) and json.dumps(body)
        assert "text" in (encode := valid_body(rng, "encode", vectors)) or "texts" in encode


def test_a_packed_vector_is_the_vector():
    row = random_vectors(1)
    unpacked = np.frombuffer(base64.b64decode(packed(row[0].tolist())), dtype="<f4")[None]
    assert (check_embeddings(unpacked, row.shape[1], "embedding") == row).all()


def har(*responses):
    entries = [
        {
            "request": {"method": "POST", "url": "http://x/invert/minilm", "postData": {"text": "{}"}},
            "response": {"status": status, "content": {"text": text}},
        }
        for status, text in responses
    ]
    return json.dumps({"log": {"entries": entries}})


def test_a_503_is_documented_and_a_500_a_traceback_or_no_answer_is_not():
    seen = parse_har(har((200, "{}"), (503, "starting"), (500, "oops"), (422, 'in File "x.py", line 1'), (0, "")))
    found = upset(seen)
    assert (found["cases"], found["server_errors"], found["tracebacks"], found["unanswered"]) == (5, 1, 1, 1)
    assert found["statuses"] == {"0": 1, "200": 1, "422": 1, "500": 1, "503": 1}
    assert [example["status"] for example in found["examples"]] == [500, 422, 0]


def test_operations_are_counted_without_what_stands_beside_them():
    paths = {"/a": {"get": {}, "post": {}, "parameters": []}, "/b": {"get": {}}}
    assert operations_of({"paths": paths}) == 3 and operations_of({}) == 1


def test_failed_checks_are_those_of_the_report():
    report = {"failures": [{"title": "Undocumented status code", "count": 2}, {"title": "Server error", "count": 1}]}
    assert failed_checks(json.dumps(report)) == {"Undocumented status code": 2, "Server error": 1}


def test_tracebacks_are_found_in_the_logs_of_the_session_and_counted_once(tmp_path):
    logs = tmp_path / "ray" / "session_2026" / "logs" / "serve"
    logs.mkdir(parents=True)
    (tmp_path / "ray" / "session_latest").symlink_to(logs.parents[1])
    (logs / "replica.log").write_text("Traceback (most recent call last):\n" * 2)
    (tmp_path / "serve.log").write_text("Traceback (most recent call last):\n")
    assert tracebacks_logged(tmp_path) == 3
