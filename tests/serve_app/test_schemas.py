import json

import numpy as np
import pytest

from embinv.decoding.options import Choices, DecodingOptions
from serve_app.schemas import MAX_STEPS, InvertRequest, Refinement, parse_request
from serve_app.vectors import to_base64, vectors_of

DIM = 3


def read(body):
    """What the ingress does with a body."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return vectors_of(parse_request(InvertRequest, raw, DIM), DIM, most=99)


def test_one_vector_is_a_matrix_of_one_row():
    np.testing.assert_array_equal(read({"embedding": [1, 2.5, -3]}), np.float32([[1, 2.5, -3]]))


def test_several_vectors_keep_their_order():
    np.testing.assert_array_equal(read({"embeddings": [[1, 2, 3], [4, 5, 6]]}), np.float32([[1, 2, 3], [4, 5, 6]]))


def test_base64_gives_the_float32_that_went_in():
    vector = np.float32([1e-30, -2.5, 3.4e38])
    np.testing.assert_array_equal(read({"embedding": to_base64(vector)}), vector[None])
    np.testing.assert_array_equal(read({"embeddings": [to_base64(vector), [1, 2, 3]]}), [vector, [1, 2, 3]])


def test_the_defaults_are_eight_steps_in_the_encoders_first_strategy():
    request = parse_request(InvertRequest, b'{"embedding": [1, 2, 3]}', DIM)
    assert request.choices(["confidence", "euler"]) == Choices("confidence", 8, 0)
    assert request.choices(["greedy", "beam"]) == Choices("greedy", 8, 0)


def test_an_explicit_null_counts_as_absent():
    assert read({"embedding": None, "embeddings": [[1, 2, 3]]}).shape == (1, DIM)


@pytest.mark.parametrize("steps", [1, MAX_STEPS])
def test_the_bounds_of_steps_are_allowed(steps):
    assert (
        parse_request(InvertRequest, json.dumps({"embedding": [1, 2, 3], "steps": steps}).encode(), DIM).steps == steps
    )


VECTOR = [1, 2, 3]
WRONG = {
    "no body": (b"", "the body is empty; send {"),
    "blanks": (b" \n", "the body is empty; send {"),
    "no JSON": (b"embedding=1", "the body is not JSON (expected value at line 1 column 1); send {"),
    "cut JSON": (b'{"embedding": [1, 2', "the body is not JSON (EOF"),
    "no UTF-8": (b'{"embedding": "\xff"}', "the body is not JSON ("),
    "a deep nest": (b"[" * 100_000, "the body is not JSON (recursion limit exceeded"),
    "a number of 5000 digits": (b'{"embedding": [' + b"9" * 5000 + b"]}", "out of range"),
    "a bare list": (b"[1, 2, 3]", 'the body is not a JSON object; send {"embedding": [3 numbers]}'),
    "null": (b"null", "the body is not a JSON object; send {"),
    "an empty object": ({}, "the body holds neither of 'embedding' and 'embeddings'; send {"),
    "both": ({"embedding": VECTOR, "embeddings": [VECTOR]}, "the body holds both of"),
    "an unknown key": ({"embed": VECTOR}, "unknown key \"embed\"; send 'embedding' instead"),
    "a key beside": ({"embedding": VECTOR, "step": 3}, "unknown key \"step\"; send 'steps' instead"),
    "a huge key": ({"x" * 100_000: 1}, "unknown key"),
    "a short vector": ({"embedding": [1, 2]}, "embedding has 2 dimensions, but this inverter takes 3; send"),
    "a long vector": ({"embedding": [1, 2, 3, 4]}, "embedding has 4 dimensions"),
    "an empty vector": ({"embedding": []}, "embedding has 0 dimensions"),
    "ragged vectors": ({"embeddings": [VECTOR, [1]]}, "embeddings[1] has 1 dimensions"),
    "no vectors": ({"embeddings": []}, "embeddings is empty; send"),
    "a flat list of vectors": ({"embeddings": VECTOR}, "embeddings[0] is 1; send a list of vectors"),
    "a nested vector": ({"embedding": [VECTOR]}, "embedding[0] is a list; send a list of 3 finite numbers"),
    "a NaN": (b'{"embedding": [1, NaN, 3]}', "embedding[1] is NaN; send a list of 3 finite numbers"),
    "an infinity": (b'{"embeddings": [[1, 2, 3], [1, -Infinity, 3]]}', "embeddings[1][1] is -Infinity; send"),
    "an overflow": (b'{"embedding": [1, 1e999, 3]}', "embedding[1] is Infinity; send"),
    "an overflow of float32": ({"embedding": [1, 1e39, 3]}, "overflows float32"),
    "a zero vector": ({"embeddings": [VECTOR, [0, 0, 0]]}, "row 1 is a zero vector"),
    "null in a vector": ({"embedding": [1, None, 3]}, "embedding[1] is null; send"),
    "true in a vector": ({"embedding": [1, True, 3]}, "embedding[1] is true; send"),
    "text in a vector": ({"embedding": [1, "2", 3]}, 'embedding[1] is "2"; send'),
    "text for a vector": (
        {"embedding": "x" * 9999},
        "embedding is text, but not base64; send 3",
    ),
    "no steps": ({"embedding": VECTOR, "steps": 0}, "steps is 0; send a whole number from 1 to 512"),
    "too many steps": ({"embedding": VECTOR, "steps": 513}, "steps is 513; send"),
    "half a step": ({"embedding": VECTOR, "steps": 1.5}, "steps is 1.5; send"),
    "steps as text": ({"embedding": VECTOR, "steps": "8"}, 'steps is "8"; send'),
    "an unknown strategy": (
        {"embedding": VECTOR, "strategy": "beams"},
        'strategy is "beams"; send one of confidence',
    ),
    "refine as text": (
        {"embedding": VECTOR, "refine": "true"},
        'refine is "true"; send true, false, or an object of steps and beam',
    ),
    "refine as a list": ({"embedding": VECTOR, "refine": [5, 4]}, "refine is a list; send true, false, or an object"),
    "refine of null": ({"embedding": VECTOR, "refine": None}, "refine is null; send true, false, or an object"),
    "too many corrections": (
        {"embedding": VECTOR, "refine": {"steps": 21}},
        "refine.steps is 21; send a whole number from 0 to 20",
    ),
    "no beam": ({"embedding": VECTOR, "refine": {"beam": 0}}, "refine.beam is 0; send a whole number from 1 to 8"),
    "a wide beam": ({"embedding": VECTOR, "refine": {"beam": 9}}, "refine.beam is 9; send"),
    "half a correction": ({"embedding": VECTOR, "refine": {"steps": 2.5}}, "refine.steps is 2.5; send a whole number"),
    "true corrections": ({"embedding": VECTOR, "refine": {"steps": True}}, "refine.steps is true; send"),
    "an unknown key of refine": (
        {"embedding": VECTOR, "refine": {"step": 3}},
        "unknown key \"step\" in refine; send 'steps' instead (the keys are steps, beam)",
    ),
    "a negative seed": ({"embedding": VECTOR, "seed": -1}, "seed is -1; send a whole number from 0"),
}


@pytest.mark.parametrize(("body", "sentence"), WRONG.values(), ids=WRONG.keys())
def test_a_wrong_body_is_answered_with_what_to_send(body, sentence):
    with pytest.raises(ValueError) as caught:
        read(body)
    message = str(caught.value)
    assert sentence in message
    assert "\n" not in message and len(message) < 400


def test_only_the_first_of_many_bad_numbers_is_collected():
    with pytest.raises(ValueError) as caught:
        parse_request(
            InvertRequest, b'{"embeddings": [' + b",".join([b"[" + b",".join([b"NaN"] * 999) + b"]"] * 99) + b"]}", DIM
        )
    assert caught.value.__cause__.error_count() == 1


def test_the_schema_names_the_strategies():
    named, _ = InvertRequest.model_json_schema()["properties"]["strategy"]["anyOf"]
    assert {"confidence", "beam"} <= set(named["enum"])


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"strategy": "beam"}, "strategy beam is none of this encoder's; send one of confidence, candidates"),
        ({"beams": 2}, "beams does nothing for strategy confidence; leave it out"),
        ({"candidates": 2}, "candidates does nothing for strategy confidence; send strategy 'candidates'"),
        ({"strategy": "candidates", "beams": 2}, "beams does nothing for strategy candidates; leave it out"),
        ({"refine": True}, "refine true does nothing for strategy confidence; send strategy 'candidates'"),
    ],
)
def test_what_an_encoder_has_no_use_for_is_refused(body, message):
    request = parse_request(InvertRequest, json.dumps({"embedding": VECTOR} | body).encode(), DIM)
    with pytest.raises(ValueError, match=message):
        request.choices(["confidence", "candidates"])


def test_beams_and_candidates_reach_the_decoder():
    def options(**body):
        request = parse_request(InvertRequest, json.dumps({"embedding": VECTOR} | body).encode(), DIM)
        return request.choices(["greedy", "beam", "candidates"]).options

    assert options(strategy="beam", beams=7) == DecodingOptions(beams=7)
    assert options(strategy="candidates", candidates=3) == DecodingOptions(candidates=3)


def refinement(refine, **body):
    request = parse_request(InvertRequest, json.dumps({"embedding": VECTOR, "refine": refine} | body).encode(), DIM)
    request.choices(["confidence", "candidates"])  # it goes with any strategy
    return request.refine


def test_refine_is_a_choice_or_a_loop_of_steps_and_beam():
    assert refinement(True, strategy="candidates") is True and refinement(False) is False
    assert refinement({}) == Refinement(steps=5, beam=4)
    assert refinement({"steps": 0, "beam": 8}) == Refinement(steps=0, beam=8)
    assert refinement({"beam": 1}, strategy="candidates") == Refinement(steps=5, beam=1)


def test_a_refinement_counts_what_it_may_write():
    assert Refinement(steps=5, beam=4).proposals == 80
    assert Refinement(steps=0, beam=4).proposals == 0
