"""The scheduler, over a model that says what it was given."""

import asyncio
import threading
import time

import numpy as np
import pytest

from serve_app.batching import Batcher, Step


class Recorder:
    """A model that answers with the numbers it got; `gate`, if closed, holds it before its first pass."""

    def __init__(self, passes=2):
        self.batches, self.ways, self.passes = [], [], passes
        self.gate = threading.Event()
        self.gate.set()
        self.made = 0

    def __call__(self, vectors, way, watched):
        self.batches.append(vectors[:, 0].astype(int).tolist())
        self.ways.append(way)
        assert self.gate.wait(10)
        for number in range(1, self.passes + 1):
            self.made += 1
            shown = [f"{number}:{int(value)}" for value in vectors[:, 0]] if any(watched) else []
            results = [f"{way}{int(value)}" for value in vectors[:, 0]] if number == self.passes else []
            yield Step(shown, results)


def numbers(*values):
    return np.array(values, dtype=np.float32)[:, None]


def run(coroutine):
    return asyncio.run(asyncio.wait_for(coroutine, 20))


async def settle():
    for _ in range(5):
        await asyncio.sleep(0.01)


def results(done):
    return [each.result for each in done]


def test_results_come_in_the_order_of_the_vectors():
    batcher = Batcher(Recorder(), lambda way: 4)
    done = run(batcher.run(numbers(*range(10)), "a"))
    assert results(done) == [f"a{n}" for n in range(10)]
    assert all(each.queued_s >= 0 and each.model_s > 0 for each in done)


def test_a_lone_request_is_not_made_to_wait_for_others():
    model = Recorder()
    run(Batcher(model, lambda way: 32).run(numbers(1), "a"))
    assert model.batches == [[1]]


def test_what_gathers_while_the_model_works_goes_together():
    async def scene():
        model = Recorder()
        model.gate.clear()
        batcher = Batcher(model, lambda way: 8)
        calls = [asyncio.create_task(batcher.run(numbers(0), "a"))]
        await settle()
        calls += [asyncio.create_task(batcher.run(numbers(n), "a")) for n in range(1, 6)]
        await settle()
        assert batcher.waiting == 5
        model.gate.set()
        return model.batches, [results(done) for done in await asyncio.gather(*calls)]

    batches, found = run(scene())
    assert batches == [[0], [1, 2, 3, 4, 5]]
    assert found == [[f"a{n}"] for n in range(6)]


class Lasting(Recorder):
    """A model whose batches take a while, so that a share of it is time enough."""

    def __call__(self, vectors, way, watched):
        time.sleep(0.1)
        yield from super().__call__(vectors, way, watched)


async def ask_again_and_again(batcher, clients, times, pause):
    """Clients that each ask again soon after they were answered; the first one begins alone."""

    async def client(number):
        await asyncio.sleep(0.02 * (number > 0))
        for _ in range(times):
            await batcher.run(numbers(number), "a")
            await asyncio.sleep(pause)

    await asyncio.gather(*map(client, range(clients)))


def test_those_who_ask_again_at_once_do_not_take_turns_in_two_groups():
    model = Lasting()
    run(ask_again_and_again(Batcher(model, lambda way: 8, patience=5.0), clients=6, times=4, pause=0.005))
    assert [len(batch) for batch in model.batches] == [1, 6, 6, 6, 5]


def test_without_patience_they_do():
    model = Lasting()
    run(ask_again_and_again(Batcher(model, lambda way: 8, patience=0.0), clients=6, times=4, pause=0.005))
    assert all(len(batch) < 6 for batch in model.batches)


def test_a_batch_that_is_full_waits_for_nobody_else():
    model = Lasting()
    run(ask_again_and_again(Batcher(model, lambda way: 3, patience=5.0), clients=6, times=2, pause=0.0))
    assert [len(batch) for batch in model.batches][1:4] == [3, 3, 3]


def test_patience_ends():
    async def scene():
        batcher = Batcher(Lasting(), lambda way: 8, patience=3.0)
        await asyncio.gather(*(batcher.run(numbers(n), "a") for n in range(4)))
        (alone,) = await batcher.run(numbers(9), "a")
        (later,) = await batcher.run(numbers(9), "a")
        return alone.queued_s, later.queued_s

    alone, later = run(scene())
    assert 0.25 < alone < 2.0 and later < 0.2


def test_who_leaves_while_a_batch_gathers_leaves_nothing_behind():
    async def scene():
        model = Lasting()
        batcher = Batcher(model, lambda way: 8, patience=5.0)
        await asyncio.gather(*(batcher.run(numbers(n), "a") for n in range(4)))
        leaving = asyncio.create_task(batcher.run(numbers(7), "a"))
        await asyncio.sleep(0.01)
        leaving.cancel()
        await settle()
        await batcher.run(numbers(8), "a")
        return model.batches

    assert run(scene()) == [[0, 1, 2, 3], [8]]


def test_a_large_request_lets_small_ones_in_between():
    async def scene():
        model = Recorder()
        model.gate.clear()
        batcher = Batcher(model, lambda way: 4)
        large = asyncio.create_task(batcher.run(numbers(*range(100, 120)), "a"))
        await settle()
        small = [asyncio.create_task(batcher.run(numbers(n), "a")) for n in (1, 2)]
        await settle()
        model.gate.set()
        await asyncio.gather(large, *small)
        return model.batches

    batches = run(scene())
    assert batches[0] == [100, 101, 102, 103]
    assert batches[1] == [104, 105, 1, 2]


def test_each_way_of_decoding_has_its_own_batches_the_oldest_first():
    async def scene():
        model = Recorder()
        model.gate.clear()
        batcher = Batcher(model, {"a": 4, "b": 1}.get)
        first = asyncio.create_task(batcher.run(numbers(0), "a"))
        await settle()
        rest = [asyncio.create_task(batcher.run(numbers(n), way)) for n, way in ((1, "b"), (2, "a"), (3, "b"))]
        await settle()
        model.gate.set()
        await asyncio.gather(first, *rest)
        return list(zip(model.ways, model.batches, strict=True))

    assert run(scene()) == [("a", [0]), ("b", [1]), ("a", [2]), ("b", [3])]


def test_a_request_that_was_given_up_leaves_the_queue():
    async def scene():
        model = Recorder()
        model.gate.clear()
        batcher = Batcher(model, lambda way: 1)
        held = asyncio.create_task(batcher.run(numbers(0), "a"))
        await settle()
        given_up = asyncio.create_task(batcher.run(numbers(1), "a"))
        kept = asyncio.create_task(batcher.run(numbers(2), "a"))
        await settle()
        assert batcher.waiting == 2
        given_up.cancel()
        await settle()
        assert batcher.waiting == 1
        model.gate.set()
        await asyncio.gather(held, kept)
        with pytest.raises(asyncio.CancelledError):
            await given_up
        return model.batches

    assert run(scene()) == [[0], [2]]


def test_a_batch_that_nobody_waits_for_ends_at_its_next_pass():
    async def scene():
        model = Recorder(passes=100)
        model.gate.clear()
        batcher = Batcher(model, lambda way: 4)
        alone = asyncio.create_task(batcher.run(numbers(0, 1), "a"))
        await settle()
        alone.cancel()
        await settle()
        model.gate.set()
        done = await batcher.run(numbers(7), "a")
        return model.made, results(done)

    made, found = run(scene())
    assert made == 1 + 100 and found == ["a7"]


def test_a_watcher_is_told_of_each_pass_of_its_own_rows_only():
    async def scene():
        model, seen = Recorder(passes=3), []
        model.gate.clear()
        batcher = Batcher(model, lambda way: 8)
        calls = [
            asyncio.create_task(batcher.run(numbers(9), "a")),
            asyncio.create_task(batcher.run(numbers(4, 5), "a", lambda row, what: seen.append((row, what)))),
        ]
        model.gate.set()
        await asyncio.gather(*calls)
        return seen

    assert run(scene()) == [(0, "1:4"), (1, "1:5"), (0, "2:4"), (1, "2:5"), (0, "3:4"), (1, "3:5")]


def test_an_error_of_the_model_reaches_the_callers_of_that_batch_alone():
    class Touchy(Recorder):
        def __call__(self, vectors, way, watched):
            if way == "bad":
                raise RuntimeError("out of memory")
            yield from super().__call__(vectors, way, watched)

    async def scene():
        batcher = Batcher(Touchy(), lambda way: 4)
        bad = asyncio.create_task(batcher.run(numbers(1), "bad"))
        good = asyncio.create_task(batcher.run(numbers(2), "a"))
        found = await good
        with pytest.raises(RuntimeError, match="out of memory"):
            await bad
        again = await batcher.run(numbers(3), "a")
        return results(found) + results(again)

    assert run(scene()) == ["a2", "a3"]


def test_the_event_loop_is_free_while_the_model_works():
    class Slow(Recorder):
        def __call__(self, vectors, way, watched):
            time.sleep(0.3)
            yield from super().__call__(vectors, way, watched)

    async def scene():
        call = asyncio.create_task(Batcher(Slow(), lambda way: 4).run(numbers(1), "a"))
        ticks = 0
        while not call.done():
            await asyncio.sleep(0.01)
            ticks += 1
        return ticks

    assert run(scene()) > 5


def test_batches_are_reported():
    reports = []
    run(Batcher(Recorder(), lambda way: 3, reports.append).run(numbers(*range(5)), "a"))
    assert [report.rows for report in reports] == [3, 2]
    assert all(len(report.queued_s) == report.rows and report.model_s > 0 for report in reports)
