import threading

import pytest

from dragstudy.widgets.worker import Worker


@pytest.fixture
def errors():
    return []


@pytest.fixture
def worker(errors):
    return Worker(["edit", "preview"], errors.append)


def blocker(done, name):
    """A job that says when it has begun, and one that runs until it is in vain or released."""
    begun, release = threading.Event(), threading.Event()

    def job(cancelled):
        begun.set()
        while not (cancelled.is_set() or release.is_set()):
            release.wait(0.002)
        done.append((name, cancelled.is_set()))

    return job, begun, release


def test_jobs_run_in_another_thread_and_one_at_a_time(worker):
    threads = []
    worker.submit("edit", lambda _: threads.append(threading.current_thread()))
    assert worker.wait(5) and threads[0] is not threading.current_thread()
    assert worker.running is None


def test_the_newest_of_a_kind_wins_and_the_urgent_kind_goes_first(worker):
    done = []
    first, begun, release = blocker(done, "first")
    worker.submit("preview", first)
    assert begun.wait(5) and worker.running == "preview"
    for number in range(5):
        worker.submit("edit", lambda _, n=number: done.append(f"edit {n}"))
    worker.submit("preview", lambda _: done.append("preview"))
    release.set()
    assert worker.wait(5)
    assert done == [("first", True), "edit 4", "preview"], "the running preview was told that a newer waits"


def test_a_newer_job_ends_the_running_one_of_its_kind(worker):
    done = []
    first, begun, _ = blocker(done, "first")
    worker.submit("edit", first)
    assert begun.wait(5)
    worker.submit("edit", lambda cancelled: done.append(("second", cancelled.is_set())))
    assert worker.wait(5) and done == [("first", True), ("second", False)]


def test_cancel_ends_the_running_job_and_forgets_the_waiting_one_of_that_kind_alone(worker):
    done = []
    first, begun, _ = blocker(done, "first")
    worker.submit("edit", first)
    assert begun.wait(5)
    worker.submit("preview", lambda _: done.append("preview"))
    worker.cancel("edit")
    assert worker.wait(5) and done == [("first", True), "preview"]


def test_a_job_that_fails_is_reported_and_the_next_one_runs(worker, errors):
    done = []
    worker.submit("edit", lambda _: 1 / 0)
    assert worker.wait(5) and isinstance(errors[0], ZeroDivisionError)
    worker.submit("edit", lambda _: done.append("next"))
    assert worker.wait(5) and done == ["next"]


def test_waiting_takes_no_longer_than_asked(worker):
    job, begun, release = blocker([], "long")
    worker.submit("edit", job)
    assert begun.wait(5) and not worker.wait(0.01)
    release.set()
    assert worker.wait(5)
