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


def test_when_to_come_again_follows_from_the_rate_of_answers():
    clock = Clock()
    admission = Admission(100, clock=clock)
    with admission.enter("a", 100):
        assert retry_after(admission) == UNKNOWN_S
    for _ in range(10):  # 20 vectors in 10 s, 2 a second
        clock.now += 1.0
        with admission.enter("a", 2):
            pass
    with admission.enter("a", 100):
        # The 100 answered at 0 s are out of the window; 7 vectors have to go before 7 more fit.
        clock.now += 0.5
        assert retry_after(admission, 7) == 4
        assert retry_after(admission, 1) == 1
        clock.now += 8.0  # only 4 of them in the window now
        assert retry_after(admission, 100) == LONGEST_S
    clock.now += 100.0
    with admission.enter("b", 100), admission.enter("a", 100):
        clock.now += 11.0
        assert retry_after(admission, 99) == UNKNOWN_S


def test_changes_are_told():
    told = []
    admission = Admission(5, lambda name, queued: told.append((name, queued)))
    with admission.enter("a", 2), admission.enter("a", 1):
        pass
    assert told == [("a", 2), ("a", 3), ("a", 2), ("a", 0)]
