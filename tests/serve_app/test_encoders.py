"""Discovery of encoders and calls that are made again, over handles and a status that need no Serve."""

import asyncio
from types import SimpleNamespace

import numpy as np
import pytest
from ray.exceptions import ActorDiedError, ActorUnavailableError
from ray.serve.exceptions import DeploymentUnavailableError

import serve_app.encoders
from embinv.decoding.options import Choices
from serve_app.answers import Answer, EncoderUnavailable, Seen, UnknownEncoder
from serve_app.encoders import PART, TRIES, ServedEncoders
from serve_app.schemas import Refinement
from tests.serve_app.fakes import description

DEAD = ActorDiedError()


class Response:
    """What a handle gives: awaitable, or a stream."""

    def __init__(self, what, cancelled):
        self.what, self._cancelled = what, cancelled

    def __await__(self):
        async def give():
            if isinstance(self.what, Exception):
                raise self.what
            return self.what

        return give().__await__()

    async def __aiter__(self):
        for event in self.what:
            if isinstance(event, Exception):
                raise event
            yield event

    def cancel(self):
        self._cancelled.append(self)


class Handle:
    """Gives what it was made with, call by call; the last one again and again."""

    def __init__(self, *gives):
        self.gives, self.calls, self.cancelled = list(gives), [], []
        self.invert = self.watch = self.encode = self.describe = SimpleNamespace(remote=self._remote)

    def options(self, stream):
        return self

    def _remote(self, *given):
        self.calls.append(given)
        what = self.gives.pop(0) if len(self.gives) > 1 else self.gives[0]
        return Response(what(*given) if callable(what) else what, self.cancelled)


def encoders_over(handle, retries=None):
    encoders = ServedEncoders((retries if retries is not None else []).append)
    encoders._handle = lambda deployment, name: handle
    return encoders


def run(coroutine):
    return asyncio.run(asyncio.wait_for(coroutine, 20))


def vectors(rows):
    return np.arange(rows * 3, dtype=np.float32).reshape(rows, 3)


def test_a_call_whose_replica_dies_is_made_again():
    retries, answer = [], Answer([b"{}"], "v", 0.1)
    handle = Handle(DEAD, ActorUnavailableError("gone", b"x" * 16), answer)
    assert run(encoders_over(handle, retries).invert("a", vectors(1), Choices(), False)) == [answer]
    assert len(handle.calls) == 3 and retries == ["a", "a"]
    assert all(call is not None and (call[0] == handle.calls[0][0]).all() for call in handle.calls)


def test_one_that_dies_again_and_again_is_unavailable():
    handle, retries = Handle(DEAD), []
    with pytest.raises(EncoderUnavailable, match="keep dying"):
        run(encoders_over(handle, retries).invert("a", vectors(1), Choices(), False))
    assert len(handle.calls) == TRIES and len(retries) == TRIES - 1


def test_a_fault_of_the_model_is_not_asked_for_again():
    handle = Handle(ZeroDivisionError())
    with pytest.raises(ZeroDivisionError):
        run(encoders_over(handle).invert("a", vectors(1), Choices(), False))
    assert len(handle.calls) == 1


def test_a_deployment_that_is_not_there_is_unavailable():
    handle = Handle(DeploymentUnavailableError("x"))
    with pytest.raises(EncoderUnavailable, match="cannot be reached"):
        run(encoders_over(handle).encode("a", ["text"]))


def test_a_stream_of_a_deployment_that_is_not_there_is_unavailable():
    async def watch():
        handle = Handle([DeploymentUnavailableError("x")])
        return [event async for event in encoders_over(handle).watch("a", vectors(1), Choices(), False)]

    with pytest.raises(EncoderUnavailable, match="cannot be reached"):
        run(watch())


def test_a_large_request_goes_out_in_parts_and_comes_back_in_order():
    handle = Handle(lambda part, choices, refine: Answer([b"%d" % row[0] for row in part], "v", 0.1))
    answers = run(encoders_over(handle).invert("a", vectors(2 * PART + 3), Choices(), False))
    assert [len(call[0]) for call in handle.calls] == [PART, PART, 3]
    assert [result for answer in answers for result in answer.results] == [b"%d" % (3 * n) for n in range(2 * PART + 3)]


def test_a_stream_goes_on_where_the_dead_replica_left_it():
    retries, answer = [], Answer([b"{}"], "v", 0.1)
    seen = [Seen(row, step, b"%d.%d" % (row, step)) for step in (1, 2, 3) for row in (0, 1)]
    handle = Handle([*seen[:3], DEAD], [*seen, answer])

    async def collect():
        return [event async for event in encoders_over(handle, retries).watch("a", vectors(2), Choices(), False)]

    assert run(collect()) == [*seen, answer] and retries == ["a"]


def test_corrections_go_on_there_too():
    answer = Answer([b"{}"], "v", 0.1)
    seen = [Seen(0, 1, b"1"), Seen(0, 2, b"0", "correction"), Seen(0, 3, b"1", "correction")]
    handle = Handle([*seen[:2], DEAD], [*seen, answer])

    async def collect():
        return [event async for event in encoders_over(handle).watch("a", vectors(1), Choices(), Refinement())]

    assert run(collect()) == [*seen, answer]
    assert [call[2] for call in handle.calls] == [Refinement()] * 2


def test_a_caller_that_goes_away_cancels_its_call():
    class Never(Handle):
        def _remote(self, *given):
            response = Response(None, self.cancelled)

            async def wait():
                await asyncio.sleep(60)

            response.__class__ = type("Slow", (Response,), {"__await__": lambda self: wait().__await__()})
            return response

    async def scene():
        handle = Never(None)
        call = asyncio.create_task(encoders_over(handle).invert("a", vectors(1), Choices(), False))
        await asyncio.sleep(0.05)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await asyncio.sleep(0)
        return handle.cancelled

    assert len(run(scene())) == 1


# Which encoders there are


def application(status="RUNNING", deployed=1.0, deployments=("InverterDeployment",), running=1):
    each = SimpleNamespace(replica_states={"RUNNING": running} if running else {"STARTING": 1})
    return SimpleNamespace(
        status=SimpleNamespace(value=status),
        last_deployed_time_s=deployed,
        deployments=dict.fromkeys(deployments, each),
    )


@pytest.fixture
def applications(monkeypatch):
    there = {"gateway": application(deployments=("Gateway",)), "minilm": application()}
    monkeypatch.setattr(serve_app.encoders, "REFRESH_S", 0.02)
    monkeypatch.setattr(serve_app.encoders, "AWAITED_S", 0.0)
    monkeypatch.setattr(serve_app.encoders.serve, "status", lambda: SimpleNamespace(applications=there))
    return there


async def settled(encoders):
    known = {}
    for _ in range(5):
        known = await encoders.known()
        await asyncio.sleep(0.03)
    return known


def test_applications_with_an_inverter_are_encoders_and_describe_themselves_once(applications):
    async def scene():
        handle = Handle(description())
        encoders = encoders_over(handle)
        known = await settled(encoders)
        assert list(known) == ["minilm"] and known["minilm"].description == description()
        assert await encoders.describe("minilm") == description()
        assert len(handle.calls) == 1
        applications["minilm"] = application(deployed=2.0)  # another checkpoint
        await settled(encoders)
        assert len(handle.calls) == 2

    run(scene())


def test_one_that_is_added_or_removed_is_noticed(applications):
    async def scene():
        encoders = encoders_over(Handle(description()))
        await settled(encoders)
        with pytest.raises(UnknownEncoder, match="no encoder 'jina'; served are minilm"):
            await encoders.describe("jina")
        applications["jina"] = application()
        await settled(encoders)
        assert await encoders.describe("jina") == description()
        del applications["minilm"]
        assert list(await settled(encoders)) == ["jina"]

    run(scene())


@pytest.mark.parametrize(
    ("status", "message"), [("DEPLOYING", "is starting"), ("DEPLOY_FAILED", "is DEPLOY_FAILED; `serve status`")]
)
def test_one_that_does_not_run_is_unavailable_and_says_so(applications, status, message):
    applications["minilm"] = application(status)
    with pytest.raises(EncoderUnavailable, match=message):
        run(encoders_over(Handle(description())).describe("minilm"))


@pytest.mark.parametrize(
    "failed",
    [
        application("DEPLOY_FAILED", 2.0, deployments=()),  # it could not be built, and the replicas of before stay
        application("DEPLOY_FAILED", 2.0, running=1),
    ],
)
def test_a_deployment_that_failed_does_not_end_the_one_before_it(applications, failed):
    async def scene():
        encoders = encoders_over(Handle(description()))
        await settled(encoders)
        applications["minilm"] = failed
        await settled(encoders)
        return await encoders.describe("minilm")

    assert run(scene()) == description()


def test_one_whose_replicas_are_gone_since_is_unavailable(applications):
    async def scene():
        encoders = encoders_over(Handle(description()))
        await settled(encoders)
        applications["minilm"] = application("DEPLOY_FAILED", 2.0, running=0)
        await settled(encoders)
        return await encoders.describe("minilm")

    with pytest.raises(EncoderUnavailable, match="is DEPLOY_FAILED"):
        run(scene())


def test_it_looks_again_without_being_asked_what_there_is(applications):
    async def scene():
        applications["minilm"] = application("DEPLOYING")
        encoders = encoders_over(Handle(description()))
        with pytest.raises(EncoderUnavailable):
            await encoders.describe("minilm")
        applications["minilm"] = application("RUNNING")
        await asyncio.sleep(0.2)
        return await encoders.describe("minilm")

    assert run(scene()) == description()


def test_one_that_is_built_anew_is_the_encoder_that_it_was(applications):
    async def scene():
        encoders = encoders_over(Handle(description()))
        await settled(encoders)
        applications["minilm"] = application("DEPLOYING", 2.0, deployments=())
        await settled(encoders)
        return await encoders.describe("minilm")

    assert run(scene()) == description()


def test_while_another_checkpoint_is_deployed_the_old_one_answers_for_itself(applications):
    async def scene():
        encoders = encoders_over(Handle(description()))
        await settled(encoders)
        applications["minilm"] = application("DEPLOYING", 2.0)
        await settled(encoders)
        return await encoders.describe("minilm")

    assert run(scene()) == description()
