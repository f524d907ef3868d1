import pytest

from serve_app.admission import LONGEST_S, UNKNOWN_S, Admission, QueueFull


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def retry_after(admission, vectors=1, name="a"):
    with pytest.raises(QueueFull) as caught, admission.enter(name, vectors):
        pass
    return caught.value.retry_after_s


def test_room_is_given_back_however_the_block_ends():
    admission = Admission(3)
    with admission.enter("a", 2):
        assert admission.queued("a") == 2
    with pytest.raises(KeyError), admission.enter("a", 3):
        raise KeyError
    assert admission.queued("a") == 0


def test_exactly_the_limit_fits_and_one_more_does_not():
    admission = Admission(3)
    with admission.enter("a", 3):
        retry_after(admission)
        assert admission.queued("a") == 3  # who is turned away takes no room
    with admission.enter("a", 3):
        pass


def test_encoders_have_queues_of_their_own():
    admission = Admission(1)
    with admission.enter("a", 1), admission.enter("b", 1):
        retry_after(admission, name="a")
        retry_after(admission, name="b")


def answered(admission, clock, vectors, seconds):
    """So many vectors, one request, take so long."""
    with admission.enter("a", vectors):
        clock.now += seconds


def test_when_to_come_again_follows_from_the_rate_of_answers():
    clock = Clock()
    admission = Admission(100, clock=clock)
    with admission.enter("a", 100):
        assert retry_after(admission) == UNKNOWN_S
    for _ in range(11):
        answered(admission, clock, 2, 1.0)  # 2 a second
    with admission.enter("a", 100):
        assert retry_after(admission, 7) == 4
        assert retry_after(admission, 1) == 1
        assert retry_after(admission, 100) == 50
        clock.now += 11.0  # nothing was answered lately
        assert retry_after(admission, 7) == UNKNOWN_S


def test_a_slow_model_gets_whole_batches_all_the_same():
    clock = Clock()
    admission = Admission(1000, longest_wait_s=8.0, least=32, clock=clock)
    for _ in range(3):
        answered(admission, clock, 1, 2.0)  # one in 2 s: 4 in 8 s
    with admission.enter("a", 31):
        with admission.enter("a", 1):
            assert retry_after(admission, 1) == 2  # the 33rd
        with admission.enter("a", 1):
            pass


def test_what_would_wait_too_long_is_turned_away():
    clock = Clock()
    admission = Admission(1000, longest_wait_s=8.0, clock=clock)
    with admission.enter("a", 900):  # as long as nothing is known of the rate
        pass
    for _ in range(11):
        answered(admission, clock, 2, 1.0)  # 2 a second: 16 in 8 s
    with admission.enter("a", 16):
        with admission.enter("a", 1):
            assert retry_after(admission, 1) == 1  # 17 wait
        with admission.enter("a", 500):  # however large, it may come when what is before it takes 8 s at most
            assert retry_after(admission, 1) == LONGEST_S


def test_the_rate_is_that_of_busy_seconds():
    clock = Clock()
    admission = Admission(1000, longest_wait_s=8.0, clock=clock)
    for _ in range(40):
        answered(admission, clock, 1, 0.1)  # 10 a second when asked
        clock.now += 0.9  # but one asks a second
    with admission.enter("a", 79), admission.enter("a", 1):
        retry_after(admission, 1)


def test_changes_are_told():
    told = []
    admission = Admission(5, on_change=lambda name, queued: told.append((name, queued)))
    with admission.enter("a", 2), admission.enter("a", 1):
        pass
    assert told == [("a", 2), ("a", 3), ("a", 2), ("a", 0)]
