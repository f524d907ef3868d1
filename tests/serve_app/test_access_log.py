"""The access log: what a line holds and what it never holds, and that no failure of it reaches a caller."""

import asyncio
import json
import logging
import re
import uuid

import pytest

from serve_app.access_log import AccessLog


def http_scope(path="/invert/minilm", headers=(), **changes):
    scope = {
        "type": "http",
        "method": "POST",
        "path": path,
        "root_path": "",
        "query_string": b"secret=1",
        "headers": [(name.encode(), value.encode("latin-1")) for name, value in headers],
        "client": ("192.0.2.7", 51000),
        "scheme": "http",
    }
    return scope | changes


async def answering(scope, receive, send):
    """Reads the body and answers with two pieces."""
    while (await receive())["more_body"]:
        pass
    await send({"type": "http.response.start", "status": 200, "headers": [(b"x-request-id", b"own")]})
    await send({"type": "http.response.body", "body": b"recovered ", "more_body": True})
    await send({"type": "http.response.body", "body": b"text"})


def ask(log, scope, body=(b"the text", b""), after=(), send=None):
    """Passes one request through; returns what the server would have sent."""
    sent = []
    pieces = [
        {"type": "http.request", "body": piece, "more_body": row + 1 < len(body)} for row, piece in enumerate(body)
    ]
    messages = iter([*pieces, *after])

    async def receive():
        return next(messages)

    async def keep(message):
        sent.append(message)

    asyncio.run(log(scope, receive, send or keep))
    return sent


@pytest.fixture
def file(tmp_path):
    return tmp_path / "access.log"


def lines(file):
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def line_of(file, app=answering, scope=None, log_bodies=False, **given):
    ask(AccessLog(app, str(file), log_bodies), scope or http_scope(), **given)
    (line,) = lines(file)
    return line


# What a line holds


def test_a_line_says_who_asked_for_what_and_how_it_ended(file):
    line = line_of(file, scope=http_scope(headers=[("x-request-id", "abc-1.2_3")]))
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line.pop("time"))
    assert 0 <= line.pop("milliseconds") < 5000
    assert line == {
        "request_id": "abc-1.2_3",
        "client": "192.0.2.7",
        "key": None,
        "method": "POST",
        "path": "/invert/minilm",
        "encoder": "minilm",
        "status": 200,
        "bytes_in": 8,
        "bytes_out": 14,
    }


@pytest.mark.parametrize(
    ("path", "encoder"),
    [
        ("/invert/minilm/stream", "minilm"),
        ("/encode/jina-v3", "jina-v3"),
        ("/encoders", None),
        ("/invert/", None),
        ("/invert/" + "a" * 65, None),
        ("/invert/a b", None),
        ("/x/invert/minilm", None),
    ],
)
def test_the_encoder_is_read_from_the_path(file, path, encoder):
    assert line_of(file, scope=http_scope(path))["encoder"] == encoder


def test_a_prefix_is_left_out_of_the_path(file):
    line = line_of(file, scope=http_scope("/at/invert/minilm", root_path="/at"))
    assert (line["path"], line["encoder"]) == ("/invert/minilm", "minilm")


def test_what_the_application_adds_is_merged_but_overwrites_nothing(file):
    async def app(scope, receive, send):
        scope["state"] |= {"key": "ann", "log": {"vectors": 3, "queued": 7, "status": 1, "key": "bob"}}
        await answering(scope, receive, send)

    line = line_of(file, app)
    assert (line["key"], line["status"], line["vectors"], line["queued"]) == ("ann", 200, 3, 7)


@pytest.mark.parametrize("added", [{"x": float("nan")}, {"x": object()}, {"x": {1, 2}}, "no dict", None, [1]])
def test_what_is_no_json_still_leaves_a_line_of_json(file, added):
    async def app(scope, receive, send):
        scope["state"]["log"] = added
        await answering(scope, receive, send)

    assert line_of(file, app)["status"] == 200


def test_a_client_without_address_is_null(file):
    assert line_of(file, scope=http_scope(client=None))["client"] is None


# What it never holds


def test_no_text_and_no_query_is_logged(file):
    line_of(file)
    text = file.read_text()
    assert not any(word in text for word in ("the text", "recovered", "secret"))


def test_bodies_are_logged_when_asked_for_and_cut(file):
    line = line_of(file, log_bodies=True, body=("é".encode() * 3000, b"a" * 3000))
    assert line["body"] == "é" * 3000 + "a" * 1000
    assert line["answer"] == "recovered text"
    assert line["bytes_in"] == 9000


def test_a_body_that_is_no_text_is_logged_as_far_as_it_is(file):
    assert line_of(file, log_bodies=True, body=(b"\xff\x00a",))["body"] == "\ufffd\x00a"


def test_no_line_can_be_forged(file):
    forged = '/invert/x\n{"status": 200}\r\u2028\x1b[31m"\\'
    ask(AccessLog(answering, str(file)), http_scope(forged, [("x-request-id", 'a\n{"b":1}')]))
    text = file.read_bytes()
    assert text.count(b"\n") == 1 and text.isascii() and not re.search(rb"[\x00-\x09\x0b-\x1f\x7f]", text)
    (line,) = lines(file)
    assert line["path"] == forged and re.fullmatch("[0-9a-f]{32}", line["request_id"])


def test_an_endless_path_is_cut(file):
    assert len(line_of(file, scope=http_scope("/" + "a" * 9000))["path"]) == 1000


# The request's id


@pytest.mark.parametrize("given", ["a", "A.b_c-9", "x" * 64])
def test_a_sane_id_is_taken_and_answered(file, given):
    scope = http_scope(headers=[("x-request-id", given)])
    start = ask(AccessLog(answering, None), scope)[0]
    assert scope["state"]["request_id"] == given
    assert [value for name, value in start["headers"] if name == b"x-request-id"] == [given.encode()]


@pytest.mark.parametrize("given", ["", "x" * 65, "a b", "a/b", "a\n", "é", "<script>"])
def test_any_other_is_replaced_by_a_new_one(given):
    scope = http_scope(headers=[("x-request-id", given)])
    start = ask(AccessLog(answering, None), scope)[0]
    assert uuid.UUID(hex=scope["state"]["request_id"]).version == 4
    assert (b"x-request-id", scope["state"]["request_id"].encode()) in start["headers"]


# How requests end


def test_a_client_that_hung_up_is_499(file):
    async def app(scope, receive, send):
        assert (await receive())["type"] == "http.request"
        assert (await receive())["type"] == "http.disconnect"

    line = line_of(file, app, body=(b"x",), after=[{"type": "http.disconnect"}])
    assert line["status"] == 499


def test_a_disconnect_after_the_whole_answer_is_none(file):
    async def app(scope, receive, send):
        await answering(scope, receive, send)
        await receive()

    assert line_of(file, app, body=(b"x",), after=[{"type": "http.disconnect"}])["status"] == 200


def test_a_cancelled_request_is_499_and_stays_cancelled(file):
    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        ask(AccessLog(app, str(file)), http_scope())
    assert lines(file)[0]["status"] == 499


def test_a_send_that_fails_is_499(file):
    async def gone(message):
        raise OSError("client disconnected")

    with pytest.raises(OSError, match="client disconnected"):
        ask(AccessLog(answering, str(file)), http_scope(), send=gone)
    assert lines(file)[0]["status"] == 499


@pytest.mark.parametrize("error", [RuntimeError, FileNotFoundError])
def test_an_application_that_fails_is_500_and_its_error_passes_on(file, error):
    async def app(scope, receive, send):
        raise error("bad")

    with pytest.raises(error, match="bad"):
        ask(AccessLog(app, str(file)), http_scope())
    assert lines(file)[0]["status"] == 500


def test_other_than_http_passes_untouched(file):
    scope = {"type": "lifespan"}

    async def app(given, receive, send):
        assert given is scope

    asyncio.run(AccessLog(app, str(file))(scope, None, None))
    assert scope == {"type": "lifespan"} and file.read_text() == ""


# Where lines go


def test_standard_error_and_nowhere(capsys):
    ask(AccessLog(answering, "-"), http_scope())
    shown = capsys.readouterr()
    assert json.loads(shown.err)["status"] == 200 and shown.out == ""
    ask(AccessLog(answering, None), http_scope())
    assert capsys.readouterr().err == ""


def test_a_file_is_appended_to_and_may_be_rotated(file):
    file.write_text("{}\n")
    log = AccessLog(answering, str(file))
    ask(log, http_scope())
    file.rename(file.with_suffix(".1"))
    ask(log, http_scope("/encoders"))
    assert len(lines(file.with_suffix(".1"))) == 2
    assert [line["path"] for line in lines(file)] == ["/encoders"]


def test_a_file_that_cannot_be_opened_is_refused_at_the_start(tmp_path):
    with pytest.raises(ValueError, match=r"access_log: .*none/access.log: No such file.*name a file"):
        AccessLog(answering, str(tmp_path / "none" / "access.log"))


def test_a_full_disk_fails_no_request_and_is_said_once(caplog):
    log = AccessLog(answering, "/dev/full")
    with caplog.at_level(logging.WARNING):
        for _ in range(5):
            assert ask(log, http_scope())[0]["status"] == 200
    (record,) = caplog.records
    assert "losing lines" in record.getMessage() and "No space left" in record.getMessage()


def test_a_folder_that_vanishes_fails_no_request_and_lines_come_back_with_it(tmp_path, caplog):
    folder = tmp_path / "logs"
    folder.mkdir()
    log = AccessLog(answering, str(folder / "access.log"))
    (folder / "access.log").unlink()
    folder.rmdir()
    with caplog.at_level(logging.WARNING):
        assert ask(log, http_scope())[0]["status"] == 200
        assert ask(log, http_scope())[0]["status"] == 200
    assert len(caplog.records) == 1
    folder.mkdir()
    assert ask(log, http_scope())[0]["status"] == 200
    assert len(lines(folder / "access.log")) == 1
