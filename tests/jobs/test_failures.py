"""A worker's failure becomes the one sentence that helps, and anything else passes as it is."""

import errno

import pytest
import ray

from jobs.failures import root_cause, told_plainly


@pytest.fixture
def failing(ray_cluster):
    """Returns a function that raises an error in a Ray task, or in an actor, and gets it back."""

    def fail(error, in_actor=False):
        class Worker:
            def work(self):
                raise error

        @ray.remote(max_retries=0)
        def work():
            raise error

        ray.get(ray.remote(Worker).remote().work.remote() if in_actor else work.remote())

    return fail


@pytest.mark.parametrize("in_actor", [False, True])
def test_a_worker_s_mistake_is_told_as_it_was_raised(failing, in_actor):
    with pytest.raises(ValueError, match=r"^encoder\.dim is 9; lower encoder\.dim$"), told_plainly("/out"):
        failing(ValueError("encoder.dim is 9; lower encoder.dim\nand much about retries"), in_actor)


@pytest.mark.parametrize("in_actor", [False, True])
def test_a_full_disk_names_the_folder_and_says_that_nothing_is_lost(failing, in_actor):
    with (
        pytest.raises(
            ValueError,
            match=r"^/out: cannot be written \(.*No space left.*\); free some space and run the same command again",
        ),
        told_plainly("/out"),
    ):
        failing(OSError(errno.ENOSPC, "No space left on device"), in_actor)


def test_pyarrow_s_words_for_a_full_disk_are_understood(failing):
    with pytest.raises(ValueError, match="free some space"), told_plainly("/out"):
        failing(OSError("Error writing bytes to file. Detail: [errno 28] No space left on device"))


def test_other_failures_of_the_disk_name_the_folder(failing):
    with (
        pytest.raises(
            ValueError, match=r"^/out: cannot be written \(.*Permission denied.*\); check the disk and its permissions"
        ),
        told_plainly("/out"),
    ):
        failing(PermissionError(errno.EACCES, "Permission denied", "/out/a.parquet"))


def test_the_driver_s_own_failure_of_the_disk_is_told_likewise():
    with pytest.raises(ValueError, match="cannot be written"), told_plainly("/out"):
        raise OSError(errno.EROFS, "Read-only file system")


def test_what_no_user_can_mend_keeps_its_type_and_stack(failing):
    with pytest.raises(ZeroDivisionError) as caught, told_plainly("/out"):
        failing(ZeroDivisionError("by zero"))
    assert isinstance(caught.value, ray.exceptions.RayTaskError)


@pytest.mark.parametrize("error", [ValueError("one\ntwo"), KeyboardInterrupt(), AssertionError("ours")])
def test_the_driver_s_own_errors_pass_as_they_are(error):
    with pytest.raises(type(error)) as caught, told_plainly("/out"):
        raise error
    assert caught.value is error


def test_what_a_mistake_was_raised_from_is_not_told_in_its_place(failing):
    mistake = ValueError("the server gave no answer; raise encoding.retries")
    mistake.__cause__ = TimeoutError("timed out")
    with pytest.raises(ValueError, match=r"^the server gave no answer; raise encoding\.retries$"), told_plainly("/out"):
        failing(mistake)
    assert root_cause(mistake) is mistake


def test_the_root_cause_is_found_below_any_number_of_ray_s_own_errors():
    inner, outer = ValueError("inner"), ray.exceptions.RayError("outer")
    outer.__cause__ = ray.exceptions.RayError("middle")
    outer.__cause__.__cause__ = inner
    assert root_cause(outer) is inner
    alone = ray.exceptions.RayError("alone")
    assert root_cause(alone) is alone
