"""One thread that works while the user goes on drawing."""

import atexit
import threading
import traceback
from collections.abc import Callable, Sequence
from weakref import WeakSet

Job = Callable[[threading.Event], None]
IDLE = 10.0  # seconds after which the thread ends: it would keep for ever all that its owner holds
AT_EXIT = 10.0  # seconds that a job may take to end: Python aborts if it exits in the middle of torch


class Worker:
    """Runs one job at a time, away from the caller; of each kind only the newest waits.

    A new job takes the place of the one of its kind that waits, and sets the event of the one that runs. A
    job that is in vain once there is a newer one looks at its event and ends early; others take no notice.

    Args:
        kinds: What kinds of jobs there are, the most urgent first.
        on_error: Gets what a job raises; the thread goes on.
    """

    def __init__(self, kinds: Sequence[str], on_error: Callable[[Exception], None]):
        self._waiting: dict[str, Job | None] = dict.fromkeys(kinds)
        self._running: dict[str, threading.Event] = {}  # more than one where a job has let another one in
        self._on_error = on_error
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        _workers.add(self)

    def busy(self, kind: str) -> bool:
        """Whether a job of this kind runs or waits."""
        with self._changed:
            return kind in self._running or self._waiting[kind] is not None

    def submit(self, kind: str, job: Job) -> None:
        """Have a job done as soon as possible; it is called with an event that says that it is in vain."""
        with self._changed:
            self._cancel(kind)
            self._waiting[kind] = job
            self._changed.notify_all()
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="dragstudy", daemon=True)
                self._thread.start()

    def cancel(self, kind: str) -> None:
        """Forget the job of this kind that waits, and tell the one that runs to end."""
        with self._changed:
            self._cancel(kind)
            self._changed.notify_all()

    def let_in(self, kind: str) -> None:
        """Do the job of this kind that waits, if one does. A long job of another kind calls it at times."""
        with self._changed:
            job, self._waiting[kind] = self._waiting[kind], None
            if job is None:
                return
            event = self._running[kind] = threading.Event()
        try:
            job(event)
        except Exception as error:
            self._report(error)
        finally:
            with self._changed:
                del self._running[kind]
                self._changed.notify_all()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until nothing runs or waits; tell whether that came within `timeout` seconds."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._running and not self._next(), timeout)

    def _next(self) -> str | None:
        return next((kind for kind, job in self._waiting.items() if job), None)

    def _cancel(self, kind: str) -> None:
        self._waiting[kind] = None
        if kind in self._running:
            self._running[kind].set()

    def _report(self, error: Exception) -> None:
        try:
            self._on_error(error)
        except Exception:  # of whoever listens; the next job has a right to run
            traceback.print_exc()

    def _work(self) -> None:
        while True:
            with self._changed:
                if not (kind := self._changed.wait_for(self._next, IDLE)):
                    self._thread = None
                    return
            self.let_in(kind)


_workers: WeakSet[Worker] = WeakSet()


@atexit.register
def _end_all() -> None:
    for worker in list(_workers):
        for kind in worker._waiting:
            worker.cancel(kind)
        worker.wait(AT_EXIT)
