import asyncio
import logging
import pickle
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import httpx
import numpy as np
import pytest

from benchmarks.ports import free_ports
from embinv.encoders import openai
from embinv.encoders.base import open_encoder
from embinv.encoders.hashing import HashEncoder
from embinv.encoders.openai import OpenAIEncoder, RefusedTexts
from embinv.encoders.openai_answers import PassingFailure, failure, read_vectors, retry_after_s
from embinv.encoders.settings import EncodingSettings
from embinv.encoders.spec import EncoderSpec
from tests.encoders import embeddings_server as fault
from tests.encoders.embeddings_server import EmbeddingsServer, Fault, minilm, status

KEY_VARIABLE = "EMBINV_TEST_KEY"
KEY = "sk-do-not-show-1f9a"
HASH = HashEncoder(EncoderSpec(kind="hash", model="hash", dim=32))
TEXTS = [f"text number {i}" for i in range(40)]


@pytest.fixture(autouse=True)
def nothing_from_outside(monkeypatch):
    """No proxy for loopback, no key of the person who runs the tests, no long waits."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    monkeypatch.setattr(openai, "FIRST_WAIT_S", 0.005)


@pytest.fixture
def opened():
    """Closes at the end what a test enters."""
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def serve(opened):
    """Returns a function that starts a server; its vectors are those of HASH unless told otherwise."""
    return lambda **options: opened.enter_context(EmbeddingsServer(**{"embed": HASH.encode} | options))


@pytest.fixture
def connect(opened):
    """Returns a function that opens an encoder for a server: 10 texts a request, 4 requests in flight, 3 retries."""

    def connect(server, recipe=None, **settings):
        given = {"kind": "openai", "model": "minilm", "dim": 32, "base_url": server.base_url}
        spec = EncoderSpec(**given | {"api_key_env": KEY_VARIABLE} | (recipe or {}))
        encoder = OpenAIEncoder(spec, EncodingSettings(**{"request_rows": 10, "requests": 4, "retries": 3} | settings))
        opened.callback(encoder.close)
        return encoder

    return connect


def by_hand(vectors, dim):
    return vectors[:, :dim] / np.linalg.norm(vectors[:, :dim], axis=1, keepdims=True)


# Which vectors come back


@pytest.mark.parametrize("in_base64", [True, False], ids=["base64", "numbers"])
def test_vectors_equal_minilms_own(serve, connect, in_base64):
    texts = ["Dr. Weber moved the appointment to May 4.", "Anna Müller wohnt in Köln; 的信 🙂", "ok", "a b " * 300]
    server = serve(embed=minilm, base64=in_base64)
    vectors = connect(server, {"dim": 384}, request_rows=3).encode(texts)
    assert vectors.dtype == np.float32
    assert np.abs(vectors - minilm(texts)).max() < 1e-5
    assert [request.body["encoding_format"] for request in server.requests] == ["base64", "base64"]


def test_rows_keep_their_order_over_many_requests_that_end_in_any_order(serve, connect):
    texts = [f"text {i}" for i in range(997)]

    def embed_late(texts):
        time.sleep(0.02 + 0.02 * float(HASH.encode(texts[:1])[0, 0]))  # some requests overtake others
        return HASH.encode(texts)

    server = serve(embed=embed_late)
    vectors = connect(server, request_rows=7, requests=16).encode(texts)
    assert np.abs(vectors - HASH.encode(texts)).max() < 1e-6
    assert len(server.requests) == 143
    assert sorted(text for request in server.requests for text in request.texts) == sorted(texts)


def test_an_array_of_texts_is_as_good_as_a_list(serve, connect):
    encoder = connect(serve())
    assert np.array_equal(encoder.encode(np.array(TEXTS, dtype=object)), encoder.encode(TEXTS))
    assert np.array_equal(encoder.encode(np.array(TEXTS)), encoder.encode(TEXTS))


def test_no_text_gives_no_row_and_asks_nothing(serve, connect):
    server = serve()
    assert connect(server).encode([]).shape == (0, 32)
    assert server.requests == []


def test_the_prompt_stands_before_every_text(serve, connect):
    server = serve()
    vectors = connect(server, {"prompt": "query: "}).encode(TEXTS)
    assert np.abs(vectors - HASH.encode([f"query: {text}" for text in TEXTS])).max() < 1e-6


def test_longer_vectors_are_truncated_and_then_scaled_to_unit_length(serve, connect):
    vectors = connect(serve(), {"dim": 8}).encode(TEXTS)
    assert np.abs(vectors - by_hand(HASH.encode(TEXTS), 8)).max() < 1e-6


def test_truncated_vectors_are_left_as_they_are_if_the_recipe_says_so(serve, connect):
    vectors = connect(serve(), {"dim": 8, "normalized": False}).encode(TEXTS)
    assert np.array_equal(vectors, HASH.encode(TEXTS)[:, :8])


def test_vectors_that_are_not_of_unit_length_become_so_only_if_the_recipe_says_so(serve, connect):
    server = serve(embed=lambda texts: 5 * HASH.encode(texts))
    assert np.abs(connect(server).encode(TEXTS) - HASH.encode(TEXTS)).max() < 1e-6
    assert np.array_equal(connect(server, {"normalized": False}).encode(TEXTS), 5 * HASH.encode(TEXTS))


def test_dimensions_are_asked_for_only_if_the_recipe_has_them(serve, connect):
    server = serve()
    vectors = connect(server, {"dim": 16, "dimensions": 16}).encode(TEXTS[:1])
    assert np.abs(vectors - by_hand(HASH.encode(TEXTS[:1]), 16)).max() < 1e-6
    connect(server).encode(TEXTS[:1])
    assert [request.body.get("dimensions", "absent") for request in server.requests] == [16, "absent"]


def test_a_recipe_of_kind_openai_opens_it(serve):
    spec = EncoderSpec(kind="openai", model="minilm", dim=32, base_url=serve().base_url, api_key_env=KEY_VARIABLE)
    encoder = open_encoder(spec)
    assert isinstance(encoder, OpenAIEncoder)
    assert np.abs(encoder.encode(["ok"]) - HASH.encode(["ok"])).max() < 1e-6
    encoder.close()


# How it asks


@pytest.mark.parametrize("requests", [1, 3])
def test_as_many_requests_are_in_flight_as_allowed_and_never_more(serve, connect, requests):
    server = serve(wait_s=0.05)
    began = time.monotonic()
    connect(server, requests=requests, request_rows=2).encode(TEXTS[:24])
    assert server.most_in_flight == requests
    assert time.monotonic() - began >= 12 / requests * 0.05


def test_the_limit_holds_for_calls_from_several_threads_together(serve, connect):
    server = serve(wait_s=0.02)
    encoder = connect(server, requests=3, request_rows=2)
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(encoder.encode, [TEXTS[start : start + 10] for start in range(0, 40, 10)]))
    assert np.abs(np.concatenate(found) - HASH.encode(TEXTS)).max() < 1e-6
    assert server.most_in_flight == 3


def test_connections_are_kept_from_one_call_to_the_next(serve, connect):
    server = serve()
    encoder = connect(server, requests=2)
    for _ in range(5):
        encoder.encode(TEXTS)
    assert len(server.requests) == 20
    assert server.connections <= 2


def test_it_works_where_an_event_loop_already_runs(serve, connect):
    encoder = connect(serve())

    async def caller():
        return encoder.encode(TEXTS)

    assert np.abs(asyncio.run(caller()) - HASH.encode(TEXTS)).max() < 1e-6


def test_waiting_for_a_free_place_is_not_lateness(serve, connect):
    server = serve(wait_s=0.1)
    connect(server, requests=1, request_rows=1, timeout_s=3.0, retries=0).encode(TEXTS)  # 4 s in all
    assert len(server.requests) == 40


def test_a_request_that_waits_for_its_next_try_keeps_its_place(serve, connect):
    server = serve()
    server.faults.append(status(429, retry_after=0.3))
    connect(server, requests=1, request_rows=10).encode(TEXTS)
    assert [request.texts[0] for request in server.requests] == [TEXTS[row] for row in (0, 0, 10, 20, 30)]


PROGRAM = """
import os, signal, sys, threading
from embinv.encoders.openai import OpenAIEncoder
from embinv.encoders.settings import EncodingSettings
from embinv.encoders.spec import EncoderSpec
encoder = OpenAIEncoder(EncoderSpec(kind="openai", model="minilm", dim=32, base_url=sys.argv[1]), EncodingSettings())
print(encoder.encode(["ok"]).shape, flush=True)
if sys.argv[2] == "interrupted":
    threading.Timer(0.5, os.kill, [os.getpid(), signal.SIGINT]).start()
    encoder.encode(["waits"])
"""


@pytest.mark.parametrize("end", ["unclosed", "interrupted"])
def test_a_program_ends_at_once_though_the_encoder_was_not_closed(serve, end):
    server = serve()
    server.faults.extend([Fault(), status(429, retry_after=50)])  # the second request waits for its next try
    arguments = [sys.executable, "-c", PROGRAM, server.base_url, end]
    ended = subprocess.run(arguments, capture_output=True, text=True, timeout=40, check=False)
    assert ended.stdout == "(1, 32)\n"
    assert ("KeyboardInterrupt" in ended.stderr) is (end == "interrupted"), ended.stderr
    assert (ended.returncode == 0) is (end == "unclosed")


def test_closing_ends_its_thread(serve, connect):
    before = set(threading.enumerate())
    encoder = connect(serve())
    encoder.encode(TEXTS[:1])
    [thread] = [thread for thread in set(threading.enumerate()) - before if thread.name == "embeddings"]
    encoder.close()
    assert not thread.is_alive()


# The key


def test_the_key_is_sent_as_bearer(serve, connect, monkeypatch):
    monkeypatch.setenv(KEY_VARIABLE, KEY + "\n")  # as `$(cat key)` in some shells, or a mounted secret, leaves it
    server = serve(key=KEY)
    connect(server).encode(TEXTS)
    assert {request.headers["authorization"] for request in server.requests} == {f"Bearer {KEY}"}


def test_no_key_sends_no_header(serve, connect):
    server = serve()
    connect(server).encode(TEXTS[:1])
    assert "authorization" not in server.requests[0].headers


def test_a_wrong_key_is_reported_by_its_variable_and_never_shown(serve, connect, monkeypatch, caplog):
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv(KEY_VARIABLE, KEY)
    server = serve(key="another")
    server.faults.append(status(500, f"no luck with {KEY}"))  # goes into the log
    encoder = connect(server, requests=1)
    with pytest.raises(
        ValueError, match=rf"base_url.*401 Incorrect API key provided: \*\*\*; .*{KEY_VARIABLE}"
    ) as raised:
        encoder.encode(TEXTS)
    shown = [repr(raised.value), repr(encoder), repr(encoder.spec), caplog.text, str(raised.getrepr(showlocals=False))]
    assert "no luck with ***" in caplog.text
    assert not [text for text in shown if KEY in text]
    assert len(server.requests) == 2


def test_a_missing_key_is_reported_by_its_variable(serve, connect):
    server = serve(key=KEY)
    with pytest.raises(ValueError, match=f"401 .*{KEY_VARIABLE} .*is not set and must hold its key"):
        connect(server, requests=1).encode(TEXTS)
    assert len(server.requests) == 1


@pytest.mark.parametrize("key", ["two words", "li\nne", "schlüssel"])
def test_a_key_that_cannot_stand_in_a_header_is_refused_and_not_shown(serve, connect, monkeypatch, key):
    monkeypatch.setenv(KEY_VARIABLE, key)
    with pytest.raises(ValueError, match=KEY_VARIABLE) as raised:
        connect(serve())
    assert key not in str(raised.value)


# Failures that pass


PASSING = {
    "429": status(429),
    "500": status(500),
    "503": status(503),
    "408": status(408),
    "cut": fault.CUT,
    "not json": fault.NOT_JSON,
    "no data": fault.NO_DATA,
    "item missing": fault.ITEM_MISSING,
    "item twice": fault.ITEM_TWICE,
    "index twice": fault.INDEX_TWICE,
    "index missing": fault.INDEX_MISSING,
    "vector short": fault.VECTOR_SHORT,
    "not a number": fault.NOT_A_NUMBER,
    "zeros": fault.ZEROS,
    "not base64": fault.NOT_BASE64,
}


@pytest.mark.parametrize("name", PASSING)
def test_a_failure_that_passes_leaves_no_trace_in_the_vectors(serve, connect, name):
    server = serve()
    server.faults.extend([PASSING[name]] * 3)
    vectors = connect(server).encode(TEXTS)
    assert np.abs(vectors - HASH.encode(TEXTS)).max() < 1e-6
    assert len(server.requests) == 4 + 3


def test_a_failure_amid_good_answers_leaves_no_trace_either(serve, connect):
    server = serve()
    encoder = connect(server)
    encoder.encode(TEXTS)
    server.faults.extend([*PASSING.values(), fault.VECTORS_SHORT])
    assert np.abs(connect(server, retries=16).encode(TEXTS) - HASH.encode(TEXTS)).max() < 1e-6
    server.faults.append(fault.VECTORS_SHORT)
    assert np.abs(encoder.encode(TEXTS) - HASH.encode(TEXTS)).max() < 1e-6
    assert not server.faults


def test_an_answer_that_is_late_is_asked_for_again(serve, connect):
    server = serve()
    server.faults.append(fault.SLOW)
    began = time.monotonic()
    vectors = connect(server, timeout_s=0.3).encode(TEXTS)
    assert np.abs(vectors - HASH.encode(TEXTS)).max() < 1e-6
    assert 0.3 < time.monotonic() - began < fault.SLOW.wait_s
    assert len(server.requests) == 5


def test_a_server_that_comes_up_late_is_waited_for(connect, opened):
    server = EmbeddingsServer(embed=HASH.encode)
    url, port = server.base_url, server.port
    server.start()
    server.close()
    late = threading.Timer(0.3, lambda: opened.enter_context(EmbeddingsServer(embed=HASH.encode, port=port)))
    late.start()
    vectors = connect(server, {"base_url": url}, retries=12).encode(TEXTS)
    late.join()
    assert np.abs(vectors - HASH.encode(TEXTS)).max() < 1e-6


@pytest.mark.parametrize(
    "asked", ["0.4", lambda: format_datetime(datetime.now(UTC) + timedelta(seconds=2), usegmt=True)]
)
def test_the_wait_that_the_server_asks_for_is_kept(serve, connect, asked):
    server = serve()
    server.faults.append(status(429, retry_after=asked if isinstance(asked, str) else asked()))
    began = time.monotonic()
    connect(server).encode(TEXTS[:1])
    assert time.monotonic() - began > (0.4 if asked == "0.4" else 0.9)  # a date has whole seconds
    assert len(server.requests) == 2


def test_the_wait_that_the_server_asks_for_has_a_limit(serve, connect, monkeypatch):
    monkeypatch.setattr(openai, "LONGEST_WAIT_S", 0.1)
    server = serve()
    server.faults.append(status(503, retry_after=3600))
    began = time.monotonic()
    connect(server).encode(TEXTS[:1])
    assert 0.1 < time.monotonic() - began < 5


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None),
        ("2", 2.0),
        ("1.5", 1.5),
        ("-3", 0.0),
        ("soon", None),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0.0),
        ("Wed, 21 Oct 2015 07:28:00 -0000", 0.0),
    ],
)
def test_retry_after_is_read_as_seconds_or_as_a_date(header, seconds):
    assert retry_after_s(header) == seconds


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("503", "503 out of order"),
        ("429", "429 out of order"),
        ("cut", "RemoteProtocolError"),
        ("not json", "malformed answer"),
        ("item missing", "9 items for 10 texts"),
        ("item twice", "11 items for 10 texts"),
        ("index twice", "index fields are not 0 to 9"),
        ("index missing", "KeyError: 'index'"),
        ("vector short", r"shapes \[\(31,\), \(32,\)\]"),
        ("not base64", "malformed answer"),
    ],
)
def test_a_failure_that_does_not_pass_is_reported_with_the_url_and_what_was_wrong(serve, connect, name, said):
    server = serve()
    server.faults.extend([PASSING[name]] * 100)
    with pytest.raises(
        ValueError, match=f"encoder.base_url: {server.base_url}/embeddings gave no .* in 4 tries.*{said}"
    ):
        connect(server).encode(TEXTS[:10])
    assert len(server.requests) == 4


def test_an_address_where_nobody_listens_is_reported(serve, connect):
    [port] = free_ports(1)
    with pytest.raises(
        ValueError, match=f"127.0.0.1:{port}/v1/embeddings gave no usable answer in 2 tries.*ConnectErr"
    ):
        connect(serve(), {"base_url": f"http://127.0.0.1:{port}/v1"}, retries=1).encode(TEXTS)


def test_answers_that_are_always_late_are_reported_by_the_setting(serve, connect):
    with pytest.raises(ValueError, match=r"2 tries.*no answer within encoding.timeout_s, 0.1 s"):
        connect(serve(wait_s=5), timeout_s=0.1, retries=1).encode(TEXTS[:1])


def test_the_first_failure_ends_the_other_requests(serve, connect):
    server = serve(wait_s=0.05)
    server.faults.append(status(402))
    with pytest.raises(ValueError, match="402 out of order"):
        connect(server, request_rows=1).encode(TEXTS)
    time.sleep(1.0)  # those under way arrive, on a slow machine too
    asked = len(server.requests)
    assert asked < 12
    time.sleep(0.5)
    assert len(server.requests) == asked


# Mistakes of the user


@pytest.mark.parametrize("code", [402, 403, 404, 405, 410])
def test_other_answers_are_not_asked_for_again(serve, connect, code):
    server = serve()
    server.faults.append(status(code, "never"))
    with pytest.raises(ValueError, match=f"encoder.base_url: {server.base_url}/embeddings answers {code} never; "):
        connect(server).encode(TEXTS[:1])
    assert len(server.requests) == 1


def test_an_unknown_model_is_reported_by_its_field(serve, connect):
    with pytest.raises(
        ValueError, match=r"404 The model `no` does not exist.; check encoder.model 'no' and .*base_url"
    ):
        connect(serve(), {"model": "no"}).encode(TEXTS)


def test_a_url_without_v1_is_reported_by_its_field(serve, connect):
    server = serve()
    with pytest.raises(ValueError, match=r"404 Not Found; check encoder.model .* and encoder.base_url"):
        connect(server, {"base_url": server.base_url.removesuffix("/v1")}).encode(TEXTS)


@pytest.mark.parametrize("url", ["localhost:8000/v1", "ftp://host/v1", "http://", "http://host:port/v1", ""])
def test_what_is_no_url_is_refused_before_anything_is_sent(serve, connect, url):
    with pytest.raises(ValueError, match=r"encoder.base_url .* is no URL of a server"):
        connect(serve(), {"base_url": url})


def test_vectors_shorter_than_the_recipe_are_refused_with_both(serve, connect):
    with pytest.raises(
        ValueError, match=r"encoder.dim is 64, but .* gives 32 dimensions for minilm; lower encoder.dim"
    ):
        connect(serve(), {"dim": 64}).encode(TEXTS)


def test_a_server_that_passes_over_dimensions_is_refused(serve, connect):
    server = serve(embed=lambda texts: HASH.encode(texts)[:, :20])
    with pytest.raises(ValueError, match=r"encoder.dimensions is 24, but .* gives 20"):
        connect(server, {"dim": 8, "dimensions": 24}).encode(TEXTS)


def test_a_server_that_refuses_every_request_is_reported_at_once(serve, connect):
    server = serve(takes_dimensions=False)
    with pytest.raises(ValueError, match=r"refuses any text, even 'text': 400 Model does not .*; check .*dimensions"):
        connect(server, {"dim": 8, "dimensions": 8}).encode(TEXTS)
    assert len(server.requests) <= 4 + 4  # the first ones and their probes; nothing is halved


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b'{"error": {"message": "one", "type": "x"}}', "one"),
        (b'{"error": "two", "error_type": "Validation"}', "two"),
        (b'{"object": "error", "message": "three"}', "three"),
        (b'{"detail": "four"}', "four"),
        (b"<html>\n five </html>", "<html> five </html>"),
        (b"[6]", "[6]"),
        (b"", "Payment Required"),
    ],
)
def test_the_servers_own_words_are_found_where_its_family_puts_them(body, said):
    response = httpx.Response(402, content=body, request=httpx.Request("POST", "http://host/v1/embeddings"))
    spec = EncoderSpec(kind="openai", model="m", dim=4, base_url="http://host/v1")
    assert f"answers 402 {said}; see whether" in str(failure(response, spec, ""))


@pytest.mark.parametrize("data", ["null", "{}", "[1]", '[{"index": 0, "embedding": [[1.0]]}]', "[]"])
def test_an_answer_of_another_form_is_malformed(data):
    with pytest.raises(PassingFailure):
        read_vectors(f'{{"data": {data}}}'.encode(), 1)


# Texts that have no vector


def rejected(found):
    return [(rejection.row, rejection.reason) for rejection in found]


@pytest.mark.parametrize("bad", [[0], [17], [39], [3, 4, 5], [0, 9, 10, 39], list(range(10, 20))], ids=str)
def test_texts_that_the_server_refuses_do_not_lose_the_others(serve, connect, bad, caplog):
    texts = [f"{text} REFUSE" if row in bad else text for row, text in enumerate(TEXTS)]
    good = [row for row in range(40) if row not in bad]
    vectors, good_rows, rejections = connect(serve(refuses="REFUSE")).encode_or_reject(texts)
    assert rejected(rejections) == [(row, "400 This input is not for me.") for row in bad]
    assert good_rows.tolist() == good
    assert np.abs(vectors - HASH.encode(TEXTS)[good]).max() < 1e-6
    assert "encoding.request_rows" not in caplog.text  # the batches were not too large


def test_one_refused_text_is_found_with_few_requests(serve, connect):
    server = serve(refuses="REFUSE")
    texts = [f"text {i}" for i in range(64)]
    texts[37] = "REFUSE"
    connect(server, request_rows=64).encode_or_reject(texts)
    assert len(server.requests) == 1 + 1 + 2 * 6  # the batch, one probe, two halves at each level


def test_encode_raises_with_all_that_was_had(serve, connect):
    texts = [*TEXTS, "REFUSE"]
    with pytest.raises(RefusedTexts, match=r"no vector for 1 of 41 texts, row 40 for one: 400 This input") as raised:
        connect(serve(refuses="REFUSE")).encode(texts)
    for error in (raised.value, pickle.loads(pickle.dumps(raised.value))):  # noqa: S301
        assert [rejection.row for rejection in error.rejections] == [40]
        assert error.good_rows.tolist() == list(range(40))
        assert np.abs(error.vectors - HASH.encode(TEXTS)).max() < 1e-6


def test_all_texts_may_be_refused(serve, connect):
    vectors, good_rows, rejections = connect(serve(refuses="number")).encode_or_reject(TEXTS)
    assert vectors.shape == (0, 32)
    assert good_rows.shape == (0,)
    assert [rejection.row for rejection in rejections] == list(range(40))


def test_half_a_surrogate_pair_is_one_refused_text(serve, connect):
    texts = [*TEXTS[:12], "\ud800", *TEXTS[12:]]
    vectors, _, rejections = connect(serve()).encode_or_reject(texts)
    assert rejected(rejections) == [(12, "not a text in Unicode: surrogates not allowed")]
    assert np.abs(vectors - HASH.encode(TEXTS)).max() < 1e-6


def test_a_text_whose_vector_is_never_finite_does_not_lose_the_others(serve, connect):
    server = serve(nan_for="number 7")
    vectors, good_rows, rejections = connect(server).encode_or_reject(TEXTS)
    assert rejected(rejections) == [(7, "a vector with NaN, infinity or zeros only in 4 tries")]
    assert np.abs(vectors - HASH.encode(TEXTS)[good_rows]).max() < 1e-6
    assert len(server.requests) == 4 + 3


def test_a_server_that_gives_nothing_finite_is_reported(serve, connect):
    with pytest.raises(ValueError, match=r"gave no usable answer in 4 tries, .*no finite vector at all"):
        connect(serve(nan_for="text")).encode(TEXTS)


def test_batches_above_the_servers_limit_are_halved_and_the_setting_is_named_once(serve, connect, caplog):
    server = serve(most_texts=8)
    vectors = connect(server, request_rows=10).encode(TEXTS)
    assert np.abs(vectors - HASH.encode(TEXTS)).max() < 1e-6
    said = [record.getMessage() for record in caplog.records if "encoding.request_rows" in record.getMessage()]
    assert len(said) == 1
    assert "refuses 10 texts in one request (413 batch size 10 > maximum allowed batch size 8)" in said[0]
