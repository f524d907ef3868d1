import contextlib

import pytest

from serve_app.measuring import GONE, Measure
from tests.serve_app.fakes import Tally


async def call(app, kind="http"):
    async def nothing(*given):
        return {}

    measures = Tally()
    with contextlib.suppress(KeyError):
        await Measure(app, measures)({"type": kind}, nothing, nothing)
    return measures.answers


def run(coroutine):
    try:
        coroutine.send(None)
    except StopIteration as done:
        return done.value
    raise AssertionError("it waits for something")


def test_a_request_that_ends_without_an_answer_is_one_whose_client_has_gone():
    async def silent(scope, receive, send):
        pass

    assert run(call(silent)) == [("", "other", GONE)]


def test_a_request_is_counted_when_the_application_fails_too():
    async def failing(scope, receive, send):
        await send({"type": "http.response.start", "status": 200})
        raise KeyError

    assert run(call(failing)) == [("", "other", 200)]


@pytest.mark.parametrize("kind", ["lifespan", "websocket"])
def test_only_requests_are_counted(kind):
    async def anything(scope, receive, send):
        pass

    assert run(call(anything, kind)) == []
