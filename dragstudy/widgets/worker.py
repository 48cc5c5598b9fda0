"""One thread that works while the user goes on drawing."""

import threading
from collections.abc import Callable, Sequence

Job = Callable[[threading.Event], None]


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
        self._on_error = on_error
        self._running: tuple[str, threading.Event] | None = None
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    @property
    def running(self) -> str | None:
        """The kind of the job that runs."""
        return self._running[0] if self._running else None

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

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until nothing runs or waits; tell whether that came within `timeout` seconds."""
        with self._changed:
            return self._changed.wait_for(
                lambda: not self._running and not any(self._waiting.values()), timeout
            )

    def _cancel(self, kind: str) -> None:
        self._waiting[kind] = None
        if self._running and self._running[0] == kind:
            self._running[1].set()

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: any(self._waiting.values()))
                kind = next(kind for kind, job in self._waiting.items() if job)
                job, self._waiting[kind] = self._waiting[kind], None
                self._running = kind, threading.Event()
            try:
                job(self._running[1])
            except Exception as error:
                self._on_error(error)
            finally:
                with self._changed:
                    self._running = None
                    self._changed.notify_all()
