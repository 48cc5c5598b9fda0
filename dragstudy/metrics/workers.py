"""Where jobs run: in this process, in processes of their own, or on a cluster, each as a `Mapper`.

A mapper takes a function of a job, and pairs of a name and a job. It yields each name with what the function
gave for its job, as they end, in no particular order. It asks for jobs as it can use them, so they need not
all exist at once; an exception of the function ends it.
"""

import logging
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import islice
from typing import Any, TypeVar

from dragstudy._environment import environment_variables

Name, Job, Outcome = TypeVar("Name"), TypeVar("Job"), TypeVar("Outcome")
Mapper = Callable[
    [Callable[[Job], Outcome], Iterable[tuple[Name, Job]]], Iterator[tuple[Name, "Outcome | WorkerDied"]]
]
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
# Of the C library: dask has freed memory given back at once, and a training then spends half its time on
# asking for it again.
KEEP_MEMORY = {
    "MALLOC_TRIM_THRESHOLD_": str(2**30),
    "MALLOC_MMAP_THRESHOLD_": str(2**30),
    "MALLOC_ARENA_MAX": "1",
}


class WorkerDied(RuntimeError):
    """A job took its worker down, again and again."""


def in_this_process(
    function: Callable[[Job], Outcome], jobs: Iterable[tuple[Name, Job]]
) -> Iterator[tuple[Name, Outcome]]:
    """Run one job after the other, here."""
    for name, job in jobs:
        yield name, function(job)


def place(workers: int, address: str | None, threads: int) -> AbstractContextManager[Mapper]:
    """The mapper that a command's options ask for: a cluster if it has an address, processes, or this one.

    Raises:
        ValueError: If there are to be fewer than one worker or thread, or as `processes` and `scheduler` do.
    """
    for name, count in (("workers", workers), ("threads", threads)):
        if count < 1:
            raise ValueError(f"--{name} must be at least 1, got {count}")
    if address:
        return scheduler(address)
    return processes(workers, threads) if workers > 1 else nullcontext(in_this_process)


def set_threads(count: int) -> None:
    """Set the number of threads of numerical libraries, unless this process has loaded them already.

    They read it as they are loaded. Later torch and OpenCV can still be told, as each job does, but not the
    linear algebra of numpy and scipy.
    """
    if "numpy" not in sys.modules:
        os.environ.update(dict.fromkeys(THREADS, str(count)))


@contextmanager
def processes(workers: int, threads: int = 1) -> Iterator[Mapper]:
    """A mapper over processes of this machine; within it they live.

    Args:
        workers: How many.
        threads: Threads of the numerical libraries of each.

    Raises:
        ValueError: If dask is not installed.
    """
    Client, LocalCluster = _dask()
    # by the environment that workers inherit: dask's own setting gives way to what the user has set
    environment = dict.fromkeys(THREADS, str(threads)) | KEEP_MEMORY
    environment |= {"DASK_LOGGING__DISTRIBUTED": "critical"}
    quiet = {"dashboard_address": None, "silence_logs": logging.CRITICAL, "memory_limit": None}
    with (
        environment_variables(environment),
        LocalCluster(n_workers=workers, threads_per_worker=1, processes=True, **quiet) as cluster,
        Client(cluster) as client,
    ):
        yield _mapper(client)


@contextmanager
def scheduler(address: str) -> Iterator[Mapper]:
    """A mapper over the workers of a running dask scheduler; they need dragstudy and its assets, no folder.

    Start them with the environment variables in `THREADS` set, for the same bits as elsewhere.

    Args:
        address: Such as `tcp://10.0.0.1:8786`.

    Raises:
        ValueError: If nobody answers there, or dask is not installed.
    """
    Client, _ = _dask()
    try:
        client = Client(address, timeout=10)
    except (OSError, ValueError) as error:
        raise ValueError(f"no scheduler answers at {address}: {error}") from None
    with client:
        yield _mapper(client)


def _dask() -> tuple[Any, Any]:
    """Its classes `Client` and `LocalCluster`."""
    try:
        from distributed import Client, LocalCluster
    except ImportError as error:
        raise ValueError("more than one worker needs dask: pip install 'dask[distributed]'") from error
    return Client, LocalCluster


def _mapper(client: Any) -> Mapper:
    from distributed import KilledWorker, as_completed

    def run(
        function: Callable[[Job], Outcome], jobs: Iterable[tuple[Name, Job]]
    ) -> Iterator[tuple[Name, Outcome | WorkerDied]]:
        waiting, names = iter(jobs), {}

        def submit(count: int) -> list:
            # not pure: equal jobs are not one
            new = {client.submit(function, job, pure=False): name for name, job in islice(waiting, count)}
            names.update(new)
            return list(new)

        # one a worker: where one dies, dask blames all that wait there
        ended = as_completed(submit(max(1, len(client.scheduler_info()["workers"]))))
        try:
            for future in ended:
                try:
                    outcome = future.result()
                except KilledWorker:
                    outcome = WorkerDied("it took its worker down, each time anew")
                ended.update(submit(1))
                yield names.pop(future), outcome
        finally:
            client.cancel(list(names))

    return run
