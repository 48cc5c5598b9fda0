import gc
import subprocess
import sys
import threading
import time
import weakref

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
    assert not worker.busy("edit")


def test_the_newest_of_a_kind_wins_and_the_urgent_kind_goes_first(worker):
    done = []
    first, begun, release = blocker(done, "first")
    worker.submit("preview", first)
    assert begun.wait(5) and worker.busy("preview")
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


def test_whoever_listens_to_errors_may_fail_himself(capsys):
    def on_error(error):
        raise RuntimeError("of the listener") from error

    worker, done = Worker(["edit"], on_error), []
    worker.submit("edit", lambda _: 1 / 0)
    assert worker.wait(5) and "of the listener" in capsys.readouterr().err
    worker.submit("edit", lambda _: done.append("next"))
    assert worker.wait(5) and done == ["next"]


def test_a_long_job_lets_a_short_one_in_and_can_be_cancelled_meanwhile(worker, errors):
    done, begun, waits = [], threading.Event(), threading.Event()

    def long(cancelled):
        begun.set()
        assert waits.wait(5)
        worker.let_in("preview")
        worker.let_in("preview")  # nothing waits any more
        done.append(("edit", cancelled.is_set()))

    def short(_):
        done.append(("preview", worker.busy("edit")))
        worker.cancel("edit")
        raise ValueError("of the preview")

    worker.submit("edit", long)
    assert begun.wait(5)
    worker.submit("preview", short)
    waits.set()
    assert worker.wait(5) and done == [("preview", True), ("edit", True)]
    assert [str(error) for error in errors] == ["of the preview"] and not worker.busy("preview")


def test_the_thread_of_an_idle_worker_ends_and_keeps_nothing_alive(monkeypatch):
    monkeypatch.setattr("dragstudy.widgets.worker.IDLE", 0.02)

    class Owner:
        def __init__(self):
            self.worker, self.done = Worker(["edit"], print), []

        def job(self, _):
            self.done.append(1)

    owner = Owner()
    for _ in range(2):  # a new thread takes the second one
        owner.worker.submit("edit", owner.job)
        assert owner.worker.wait(5)
        for thread in threading.enumerate():
            if thread.name == "dragstudy" and thread is owner.worker._thread:
                thread.join(5)
    assert len(owner.done) == 2
    gone, owner = weakref.ref(owner), None
    end = time.monotonic() + 5
    while gone() is not None and time.monotonic() < end:
        gc.collect()
    assert gone() is None


def test_python_does_not_leave_a_job_in_its_middle():
    code = """
import threading, time
from dragstudy.widgets.worker import Worker
begun, worker = threading.Event(), Worker(["edit", "preview"], print)
def job(cancelled):
    begun.set()
    cancelled.wait(30)
    time.sleep(0.2)
    print("ended", flush=True)
worker.submit("edit", job)
worker.submit("preview", lambda _: print("never"))
assert begun.wait(5)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout) == (0, "ended\n"), done.stderr
