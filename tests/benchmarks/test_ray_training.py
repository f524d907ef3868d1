import pytest

from benchmarks.ray_training import threads_told


@pytest.mark.parametrize(
    ("log", "threads"),
    [
        ("1 worker(s) on cpu, ZeRO-0, float32, 1 thread(s) each", 1),
        ("1 worker(s) on cpu, ZeRO-0, float32, 11 thread(s) each", 11),
        ("nothing of the kind", None),
    ],
)
def test_the_threads_of_a_worker_are_read_whole(log, threads):
    assert threads_told(log) == threads
