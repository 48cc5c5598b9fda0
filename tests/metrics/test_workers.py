"""Mappers: every job once, wherever it runs, and a worker that dies takes only its job with it."""

import os
import subprocess
import sys

import pytest

from dragstudy.metrics import workers

SCRIPT = """
import os
from dragstudy.metrics import workers

def work(job):
    if job == 3:
        os._exit(9)
    if job == 5:
        raise ValueError("no fives")
    kept = {name: os.environ[name] for name in workers.KEEP_MEMORY}
    assert kept == workers.KEEP_MEMORY, "dask's own settings must give way"
    return job, os.environ["OMP_NUM_THREADS"], os.getpid()

def named(jobs):
    return ((f"job {job}", job) for job in jobs)

if __name__ == "__main__":
    with workers.processes(2, threads=3) as mapper:
        found = dict(mapper(work, named(range(5))))
        assert isinstance(found.pop("job 3"), workers.WorkerDied)
        assert {name: outcome[:2] for name, outcome in found.items()} == {
            f"job {job}": (job, "3") for job in (0, 1, 2, 4)
        }
        assert os.getpid() not in {outcome[2] for outcome in found.values()}
        assert dict(mapper(work, iter(()))) == {}
        try:
            list(mapper(work, named(range(4, 9))))
        except ValueError as error:
            assert str(error) == "no fives"
        else:
            raise AssertionError("an error of the function must end the mapper")
        assert len(dict(mapper(work, named(range(6, 20))))) == 14
"""


def test_here_jobs_are_taken_one_by_one():
    made = []

    def jobs():
        for number in range(3):
            made.append(number)
            yield str(number), number

    for count, (name, outcome) in enumerate(workers.in_this_process(lambda number: number + 1, jobs()), 1):
        assert int(name) + 1 == outcome == count == len(made)


def test_threads_are_set_only_before_numerical_libraries_are_loaded(monkeypatch):
    for name in workers.THREADS:
        monkeypatch.setenv(name, "7")
    workers.set_threads(2)
    assert os.environ["OMP_NUM_THREADS"] == "7"
    monkeypatch.delitem(sys.modules, "numpy")
    workers.set_threads(2)
    assert {os.environ[name] for name in workers.THREADS} == {"2"}


def test_without_dask_there_is_one_process(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(ValueError, match="more than one worker needs dask"), workers.processes(2):
        pass


@pytest.mark.slow
def test_processes_do_every_job_once_and_survive_one_that_kills(tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    done = subprocess.run([sys.executable, tmp_path / "script.py"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
