"""Vectors given to the page in a real browser: NumPy's files and JSON, dropped, chosen, pasted; and wrong ones."""

import base64
import io
import json

import numpy as np
import pytest
from playwright.sync_api import expect

from tests.serve_app.conftest import random_vectors
from tests.serve_app.page_window import ask, drop, finished, sent_vector

pytest_plugins = ["tests.serve_app.page_window"]
pytestmark = [pytest.mark.browser, pytest.mark.timeout(240)]

ROWS = random_vectors(3, seed=7)


def npy(array, version=(1, 0)):
    file = io.BytesIO()
    np.lib.format.write_array(file, array, version=version)
    return file.getvalue()


NPY = {
    "one f4": (npy(ROWS[0]), ROWS[0]),
    "one f8 of version 2": (npy(ROWS[0].astype("<f8"), (2, 0)), ROWS[0]),
    "one f2 of version 3": (npy(ROWS[0].astype("<f2"), (3, 0)), ROWS[0].astype("<f2").astype("<f4")),
    "f2 at its edges": (
        npy(np.float16([6e-8, -65504, 1e-4] * 128)),
        np.float16([6e-8, -65504, 1e-4] * 128).astype("<f4"),
    ),
}


@pytest.mark.parametrize(("content", "expected"), NPY.values(), ids=NPY.keys())
def test_a_dropped_npy_file_is_read_bit_by_bit(page, content, expected):
    drop(page, "vector.npy", content)
    expect(page.locator("#vector-source")).to_have_text("vector.npy: 384 numbers.")
    np.testing.assert_array_equal(sent_vector(page), expected)


def test_a_row_of_a_dropped_matrix_is_inverted(page, base_url):
    drop(page, "dump.npy", npy(ROWS))
    page.fill("#row", "2")
    expect(page.locator("#vector-source")).to_have_text("dump.npy: row 2 of 3, 384 numbers.")
    np.testing.assert_array_equal(sent_vector(page), ROWS[2])
    page.fill("#original", "who knows")
    page.click("#invert")
    finished(page)
    (expected,) = ask(base_url, "/invert/minilm", {"embedding": ROWS[2].tolist()})["results"]
    assert page.locator("#recovered-text").text_content() == expected["text"]
    expect(page.locator("#original-text")).to_have_text("who knows")
    page.fill("#row", "3")
    expect(page.locator("#vector-error")).to_have_text("There is no row 3; give one from 0 to 2.")


JSON = {
    "a list": ROWS[0].tolist(),
    "an object": {"embedding": ROWS[0].tolist()},
    "nested lists": [[ROWS[0].tolist()]],
    "an answer of an embeddings API": {"data": [{"embedding": ROWS[0].tolist(), "index": 0}], "model": "x"},
    "base64": {"embedding": base64.b64encode(ROWS[0].tobytes()).decode()},
}


@pytest.mark.parametrize("value", JSON.values(), ids=JSON.keys())
def test_json_is_read_from_a_drop_a_choice_and_a_paste(page, value):
    for way in ("drop", "choice", "paste"):
        if way == "drop":
            drop(page, "vector.json", json.dumps(value).encode())
        elif way == "choice":
            page.set_input_files("#file", {"name": "v.json", "mimeType": "", "buffer": json.dumps(value).encode()})
        else:
            page.fill("#paste", json.dumps(value))
        expect(page.locator("#vector-source")).to_contain_text("384 numbers.")
        np.testing.assert_array_equal(sent_vector(page), ROWS[0])


WRONG = {
    "a wrong dimension": ("v.json", b"[1, 2, 3]", "This vector has 3 dimensions, but minilm takes 384."),
    "a picture": ("v.png", b"\x89PNG", "v.png is neither .npy nor .json."),
    "no npy": ("v.npy", b"PK\x03\x04" + b"0" * 30, "This is not a .npy file"),
    "an empty file": ("v.npy", b"", "v.npy is empty."),
    "a cut file": ("v.npy", npy(ROWS)[:-1], "This .npy file is cut off"),
    "whole numbers": ("v.npy", npy(np.arange(384)), "type <i8; send floats"),
    "big-endian": ("v.npy", npy(ROWS[0].astype(">f4")), "type >f4; send floats"),
    "three axes": ("v.npy", npy(ROWS[None]), "This array has 3 axes"),
    "Fortran order": ("v.npy", npy(np.asfortranarray(ROWS)), "save np.ascontiguousarray"),
    "NaN": ("v.npy", npy(np.full(384, np.nan, "<f4")), "Component 0 is NaN"),
    "zeros": ("v.npy", npy(np.zeros(384, "<f4")), "This is a zero vector"),
    "words": ("v.json", b'["a", 1]', "send a list of numbers"),
    "no JSON": ("v.json", b"[0.1, NaN]", "NaN and Infinity cannot be inverted"),
    "ragged rows": ("v.json", b"[[1, 2], [3]]", "Row 1 has 1 numbers, and row 0 has 2."),
    "cut base64": ("v.json", b'"AAAAAAA="', "no whole number of float32"),
}


@pytest.mark.parametrize(("name", "content", "sentence"), WRONG.values(), ids=WRONG.keys())
def test_a_wrong_vector_is_named_and_nothing_is_sent(page, name, content, sentence):
    sent = []
    page.on("request", lambda request: sent.append(request.url))
    drop(page, name, content)
    expect(page.locator("#vector-error")).to_contain_text(sentence)
    page.click("#invert")
    expect(page.locator("#file")).to_be_focused()
    assert sent == []
