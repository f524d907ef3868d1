"""A replica killed under load: no request may be lost or answered with another text, and a new one takes its place.

Expected texts are what the idle server answered before. Which vectors share a batch changes confidences in their last
digits, and where two tokens are all but equal, so does the text of random weights: only vectors are sent whose text is
the same alone and in each of several batches.
"""

import asyncio
import sys
import time
from argparse import Namespace
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from benchmarks.serve_checkpoints import random_vectors
from benchmarks.serve_load import HANGS_S, Answer, body_of, closed_loop, counted, failures, in_sequence
from benchmarks.serve_server import Server, serve_run

CLIENTS, DISTINCT, LEAST = 16, 96, 16
BATCH, SHUFFLES = 16, 4  # of the batches that a text is tried in
BEFORE_S, AFTER_S = 5.0, 5.0  # of load before a kill, and after all is back
BACK_S = 60.0  # at most
REPLICAS = (1, 2)


def measure_killed_replica(checkpoint: Path, arguments: Namespace) -> dict[str, Any]:
    """Lost and wrong answers with each number of replicas, and seconds until the first answer after the kill."""
    variants = {}
    for replicas in REPLICAS:
        counts = {"min_replicas": replicas, "max_replicas": replicas}
        with serve_run(checkpoint, arguments.proxy, threads=arguments.threads, **counts) as server:
            variants[str(replicas)] = asyncio.run(_kill_one(server, replicas))
        print(f"{replicas} replicas: {variants[str(replicas)]}", file=sys.stderr, flush=True)
    back = [found["back_s"] for found in variants.values()]
    return {
        "killed_replica": {
            "lost": sum(found["lost"] for found in variants.values()),
            "wrong": sum(found["wrong"] for found in variants.values()),
            "back_s": None if None in back else max(back),
            "variants": variants,
        }
    }


async def _kill_one(server: Server, replicas: int) -> dict[str, Any]:
    async with under_load(server, CLIENTS, DISTINCT) as (answers, expected):
        running = await asyncio.to_thread(server.replicas)
        if len(running) != replicas:
            raise RuntimeError(f"{len(running)} replicas run instead of {replicas}")
        victim = running[0]
        victim.kill()
        killed = time.monotonic()
        replaced = None
        while time.monotonic() - killed < BACK_S:
            others = [process for process in await asyncio.to_thread(server.replicas) if process != victim]
            if replaced is None and len(others) == replicas:
                replaced = time.monotonic() - killed
            if replaced is not None and first_answer_after(answers, killed) is not None:
                break
            await asyncio.sleep(0.2)
    back = first_answer_after(answers, killed)
    return {
        **lost_and_wrong(answers, expected),
        "back_s": None if back is None else round(back, 2),
        "process_replaced_s": None if replaced is None else round(replaced, 2),
        "longest_s": round(max(answer.took for answer in answers), 2),
        "vectors": len(expected),
        "distinct_texts": len(set(expected)),
        "statuses": counted(answers),
        "failures": failures(answers),
    }


@asynccontextmanager
async def under_load(server: Server, clients: int, distinct: int) -> AsyncIterator[tuple[list[Answer], list[str]]]:
    """Clients ask while the block runs, BEFORE_S before it and AFTER_S after it: their answers, and the texts expected.

    All answers are there once the block is left.

    Raises:
        RuntimeError: see `known_texts`.
    """
    vectors = random_vectors(distinct)
    known = await asyncio.to_thread(known_texts, server, vectors)
    bodies, expected = [body_of(vectors[row]) for row in known], list(known.values())
    answers: list[Answer] = []
    over = asyncio.Event()
    load = asyncio.create_task(closed_loop(server.invert, bodies, clients, over.is_set, answers))
    try:
        await asyncio.sleep(BEFORE_S)
        yield answers, expected
        await asyncio.sleep(AFTER_S)
    finally:
        over.set()
        await load


def known_texts(server: Server, vectors: np.ndarray) -> dict[int, str]:
    """Texts of the vectors [N, D] that have the same one alone and in each batch, by row.

    Raises:
        RuntimeError: the idle server does not answer, or there are fewer than LEAST.
    """
    alone = in_sequence(server.invert, [body_of(vector) for vector in vectors], len(vectors))
    if any(answer.status != 200 for answer in alone):
        raise RuntimeError(f"an idle server does not invert each vector ({counted(alone)}):\n{server.last_lines()}")
    texts = {row: {str(answer.text)} for row, answer in enumerate(alone)}
    rng = np.random.default_rng(0)
    with httpx.Client(trust_env=False, timeout=HANGS_S) as client:
        for _ in range(SHUFFLES):
            order = rng.permutation(len(vectors))
            for rows in np.split(order, range(BATCH, len(order), BATCH)):
                answer = client.post(server.invert, json={"embeddings": vectors[rows].tolist()}).raise_for_status()
                for row, result in zip(rows.tolist(), answer.json()["results"], strict=True):
                    texts[row].add(result["text"])
    known = {row: found.pop() for row, found in texts.items() if len(found) == 1}
    if len(known) < LEAST:
        raise RuntimeError(f"{len(known)} of {len(vectors)} texts do not depend on their batch; take another --size")
    return known


def first_answer_after(answers: Sequence[Answer], killed: float) -> float | None:
    """Seconds from the kill to the first 200 for a request that was sent after it; None: there is none.

    An answer to one that was sent before may have been on its way already.
    """
    ends = [answer.ended for answer in answers if answer.status == 200 and answer.sent > killed]
    return min(ends) - killed if ends else None


def lost_and_wrong(answers: Sequence[Answer], expected: Sequence[str]) -> dict[str, int]:
    """Requests that were not answered with 200, and 200s with another text than expected."""
    right = [answer for answer in answers if answer.status == 200]
    return {
        "requests": len(answers),
        "lost": len(answers) - len(right),
        "wrong": sum(answer.text != expected[answer.body] for answer in right),
    }


def tables(result: dict[str, Any]) -> str:
    """One line a number of replicas."""
    lines = ["| replicas | requests | lost | wrong | first answer after | longest |", "|---|---|---|---|---|---|"]
    for replicas, found in result["killed_replica"]["variants"].items():
        back = "never" if found["back_s"] is None else f"{found['back_s']:.1f} s"
        lines.append(
            f"| {replicas} | {found['requests']:,} | {found['lost']} | {found['wrong']} | {back} "
            f"| {found['longest_s']:.1f} s |"
        )
    return "\n".join(lines)
