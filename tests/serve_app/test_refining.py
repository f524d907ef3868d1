"""Refinement beside the event loop and the model's thread: who runs where, whose turn it is, and how it ends."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest

import serve_app.refining
from embinv.correcting import refined
from embinv.encoders.hashing import HashEncoder
from embinv.inversion import Inversion
from embinv.inverter import load_inverter
from serve_app.refining import Refiner
from serve_app.schemas import Refinement
from tests.fakes import hash_spec, sentences
from tests.serve_app.conftest import DIM

SPEC = hash_spec(DIM)
ENCODER = HashEncoder(SPEC)


def inversion(text):
    return Inversion(text, [1], [0.5], 0.5, probability=0.9)


class CountingCorrector:
    """Proposes texts that were never seen; `gate`, if closed, holds it in the thread of the model."""

    def __init__(self):
        self.asked, self.threads, self.made = [], set(), 0
        self.gate, self.began = threading.Event(), threading.Event()
        self.gate.set()

    def propose(self, targets, texts, own, count):
        self.asked.append(len(texts) * count)
        self.threads.add(threading.current_thread().name)
        self.began.set()
        assert self.gate.wait(10)
        self.made += len(texts) * count
        return [[inversion(f"proposal {self.made + row * count + place}") for place in range(count)]
                for row in range(len(texts))]  # fmt: skip


async def encode(texts):
    return ENCODER.encode(texts)


@pytest.fixture
def thread():
    with ThreadPoolExecutor(1, thread_name_prefix="model") as pool:
        yield pool


@pytest.fixture
def corrector():
    corrector = CountingCorrector()
    yield corrector
    corrector.gate.set()


def refiner_over(corrector, thread, encode=encode, batch_size=8, **options):
    inverter: Any = SimpleNamespace(config=SimpleNamespace(pairs=SimpleNamespace(encoder=SPEC)), batch_size=batch_size)
    return Refiner(inverter, thread, encode, corrector=lambda seed: corrector, **options)


def run(coroutine):
    return asyncio.run(asyncio.wait_for(coroutine, 20))


def first_texts(rows):
    return [[inversion(f"first {row}")] for row in range(rows)]


def targets(rows):
    return ENCODER.encode(sentences(rows))


async def until(event):
    assert await asyncio.to_thread(event.wait, 10)


def test_texts_are_refined_as_by_the_library_and_each_step_is_told(tiny_checkpoint, vectors, thread):
    inverter = load_inverter(tiny_checkpoint, batch_size=8)
    first = [list(some) for some in zip(inverter.invert(vectors[:3]), inverter.invert(vectors[3:6]), strict=True)]
    expected, told = [], []
    wanted = refined(inverter, vectors[:3], first, ENCODER, 2, 3, seed=5, on_step=lambda *step: expected.append(step))

    async def scene():
        refiner = Refiner(inverter, thread, encode)
        return await refiner.run(vectors[:3], first, Refinement(steps=2, beam=3), 5, lambda *step: told.append(step))

    found = run(scene())
    assert [each.text for each in found.inversions] == [each.text for each in wanted]
    assert [each.cosine for each in found.inversions] == pytest.approx([each.cosine for each in wanted])
    assert [each.encoder_calls for each in found.inversions] == [each.encoder_calls for each in wanted]
    assert all(each.probability is None for each in found.inversions) and found.model_s > 0
    assert [(row, best.text) for row, best in told] == [(row, best.text) for row, best in expected]
    assert len(told) == 9


def test_proposals_are_made_in_the_thread_of_the_model_a_batch_at_a_time(corrector, thread):
    reports = []
    refiner = refiner_over(corrector, thread, batch_size=8, on_batch=reports.append)
    found = run(refiner.run(targets(5), first_texts(5), Refinement(steps=1, beam=3), 0))
    assert corrector.asked == [6, 6, 3]  # of 5 hypotheses, three proposals each
    assert all(name.startswith("model") for name in corrector.threads) and len(corrector.threads) == 1
    assert [report.rows for report in reports] == corrector.asked
    assert found.model_s == pytest.approx(sum(report.model_s for report in reports))
    assert [each.encoder_calls for each in found.inversions] == [4] * 5


def test_a_beam_wider_than_a_batch_goes_a_hypothesis_at_a_time(corrector, thread):
    run(refiner_over(corrector, thread, batch_size=2).run(targets(2), first_texts(2), Refinement(steps=1, beam=4), 0))
    assert corrector.asked == [4, 4]


def test_other_work_of_the_model_waits_for_one_batch_of_proposals_however_many_refine(corrector, thread):
    async def scene():
        corrector.gate.clear()
        refiner = refiner_over(corrector, thread, batch_size=4)
        calls = [
            asyncio.create_task(refiner.run(targets(3), first_texts(3), Refinement(steps=2, beam=2), seed))
            for seed in range(3)
        ]
        await until(corrector.began)
        other = asyncio.get_running_loop().run_in_executor(thread, lambda: list(corrector.asked))
        corrector.gate.set()
        seen = await other
        await asyncio.gather(*calls)
        return seen

    assert run(scene()) == [4] and len(corrector.asked) > 1


def test_the_event_loop_is_free_while_the_model_proposes(corrector, thread):
    async def scene():
        corrector.gate.clear()
        refiner = refiner_over(corrector, thread)
        call = asyncio.create_task(refiner.run(targets(1), first_texts(1), Refinement(steps=1, beam=1), 0))
        await until(corrector.began)
        for _ in range(5):
            await asyncio.sleep(0)
        assert not call.done()
        corrector.gate.set()
        return await call

    assert len(run(scene()).inversions) == 1


def test_a_call_that_is_given_up_ends_with_the_batch_at_work(corrector, thread, monkeypatch):
    monkeypatch.setattr(serve_app.refining, "AT_ONCE", 1)  # another call runs only once this one has ended

    async def scene():
        corrector.gate.clear()
        refiner = refiner_over(corrector, thread, batch_size=4)
        call = asyncio.create_task(refiner.run(targets(8), first_texts(8), Refinement(steps=20, beam=2), 0))
        await until(corrector.began)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert corrector.asked == [4]
        corrector.gate.set()
        return await refiner.run(targets(1), first_texts(1), Refinement(steps=1, beam=1), 0)

    assert len(run(scene()).inversions) == 1
    assert corrector.asked == [4, 1]


def test_the_encoder_is_not_waited_for_by_a_call_that_is_given_up(corrector, thread, monkeypatch):
    monkeypatch.setattr(serve_app.refining, "AT_ONCE", 1)

    async def scene():
        asked, cancelled = asyncio.Event(), asyncio.Event()

        async def never(texts):
            asked.set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cancelled.set()
                raise
            raise AssertionError("nobody sets it")

        refiner = refiner_over(corrector, thread, encode=never)
        call = asyncio.create_task(refiner.run(targets(1), first_texts(1), Refinement(), 0))
        await asked.wait()
        waiting = asyncio.create_task(refiner.run(targets(1), first_texts(1), Refinement(), 0))
        asked.clear()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await cancelled.wait()
        await asked.wait()  # by the one that waited for the thread
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    run(scene())
    assert corrector.asked == []


def test_one_that_is_given_up_before_it_began_never_begins(corrector, thread, monkeypatch):
    monkeypatch.setattr(serve_app.refining, "AT_ONCE", 1)
    sent = []

    async def noted(texts):
        sent.extend(texts)
        return ENCODER.encode(texts)

    async def scene():
        corrector.gate.clear()
        refiner = refiner_over(corrector, thread, encode=noted)
        held = asyncio.create_task(refiner.run(targets(1), first_texts(1), Refinement(steps=1, beam=1), 0))
        await until(corrector.began)
        late = asyncio.create_task(refiner.run(targets(1), [[inversion("late")]], Refinement(), 0))
        await asyncio.sleep(0)
        late.cancel()
        with pytest.raises(asyncio.CancelledError):
            await late
        corrector.gate.set()
        await held
        await refiner.run(targets(1), first_texts(1), Refinement(steps=0), 0)

    run(scene())
    assert "late" not in sent


@pytest.mark.parametrize("place", ["encoder", "corrector"])
def test_a_fault_reaches_the_caller_and_the_next_call_is_served(place, corrector, thread):
    broken = [True]

    async def scene():
        async def encode_or_fail(texts):
            if place == "encoder" and broken:
                raise ConnectionError("the encoder is gone")
            return ENCODER.encode(texts)

        def propose_or_fail(*given):
            if broken:
                raise ConnectionError("the corrector is gone")
            return corrector.propose(*given)

        refiner = refiner_over(SimpleNamespace(propose=propose_or_fail), thread, encode=encode_or_fail)
        with pytest.raises(ConnectionError, match=f"the {place} is gone"):
            await refiner.run(targets(1), first_texts(1), Refinement(), 0)
        broken.clear()
        return await refiner.run(targets(1), first_texts(1), Refinement(steps=1), 0)

    assert run(scene()).inversions[0].encoder_calls == 5


def test_no_steps_only_measure(corrector, thread):
    texts = sentences(2)
    vectors = ENCODER.encode(texts)
    found = run(
        refiner_over(corrector, thread).run(vectors, [[inversion(text)] for text in texts], Refinement(steps=0), 0)
    )
    assert [each.cosine for each in found.inversions] == pytest.approx([1.0, 1.0])
    assert corrector.asked == [] and found.model_s == 0.0
