"""Computes the trials that a store lacks, each stored as soon as it is finished.

A sweep may be killed at any moment and started again: it loses at most the trials in flight, and those that
keep checkpoints go on from them. Several sweeps may share one store, from any machines that see its folder: a
trial is computed under a lock, which the system takes from a process that dies. Workers end with their sweep, and
what waits for more than some seconds says for what.
"""

from __future__ import annotations

import errno
import gc
import logging
import math
import os
import signal
import sys
import threading
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, CancelledError, Executor, Future, wait
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import joblib
from filelock import Timeout
from joblib.externals.loky import get_reusable_executor
from joblib.externals.loky.process_executor import BrokenProcessPool, ShutdownExecutorError
from tqdm import tqdm

from lib import check, files
from lib.trials.store import Store
from lib.trials.trial import MissingTrials, Place, Trial, fingerprints

RETRIES = 1  # of a trial whose worker died
POLL_SECONDS = 0.5  # between looks at trials that another sweep is computing, and at the parent of a worker
SEEN_SECONDS = 10.0  # until a file that another machine wrote is seen here
CONNECT_SECONDS = 10.0  # to a cluster's scheduler
IDLE_SECONDS = 300.0  # after which a worker without a trial ends
NO_WORKERS = "waiting for workers: the cluster has none"
NAMED = 3  # trials that failed for one reason, in its line
STORAGE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)  # no later trial could be stored either
HELD, DIED, ENDED = "held", "died", "ended"  # of a trial: by another sweep; its worker, by itself or by this sweep


class SweepError(RuntimeError):
    """Trials that could not be computed or stored; the message has a line for each reason."""


def run(
    trials: Iterable[Trial],
    store: Store,
    place: Place = Place(),
    *,
    jobs: int = 1,
    scheduler: str | None = None,
    time_limit: float | None = None,
    progress: bool = True,
) -> list[dict]:
    """The trials' records, in order: read from the store, or computed and stored one by one.

    jobs: trials computed at once on this machine, each in a process of its own; 1: in this process, where nothing
    guards it. scheduler: the address of a Dask cluster, as in ``tcp://host:8786``, on whose workers (of one thread
    each) they are computed instead; the store's folder, the images, this library and the trials' code must be there.
    time_limit: seconds, from when a trial is given to a process of its own (with jobs 1 too), until it has failed and
    that process is killed, whatever it sits in; not on a cluster.

    A worker that dies costs its trial one retry, alone in a fresh worker (on a cluster: those that Dask's
    ``allowed-failures`` grants). A trial that raises or loses its worker again does not keep the others from being
    computed: SweepError then names it. One that cannot be stored ends the sweep at once. Raises MissingTrials, before
    any work, where a trial lacks its data or has others than its experiment, ValueError for an argument not allowed.
    """
    trials = list(trials)
    check_arguments(jobs, scheduler, time_limit)
    unique = {trial.identity: trial for trial in trials}
    records = {name: store.read(trial.configuration) for name, trial in unique.items()}
    missing = [trial for name, trial in unique.items() if records[name] is None]
    worker = _Worker(store, place)
    lacking = Counter(reason for trial in missing if (reason := worker.data(trial)[1]))
    for reason, count in lacking.items():
        raise MissingTrials(f"{count} of {len(trials)} trials are not stored, and {reason}")
    if missing:
        packages = sorted({"lib", *(type(trial).__module__.partition(".")[0] for trial in missing)})
        bar = tqdm(total=len(missing), unit="trial", disable=None if progress else True)
        with _workers(0 if jobs == 1 and time_limit is None else jobs, scheduler, packages) as workers, bar:
            failures = _compute(missing, records, worker, *workers, time_limit or math.inf, bar)
        if failures:
            raise SweepError("\n".join(map(_line, failures, failures.values())))
    return [record for trial in trials if (record := records[trial.identity]) is not None]


def _line(reason: str, labels: Sequence[str]) -> str:
    more = f" and {len(labels) - NAMED} more" if len(labels) > NAMED else ""
    return f"{', '.join(labels[:NAMED])}{more}: {reason}"


def check_arguments(jobs: int, scheduler: str | None, time_limit: float | None) -> None:
    """Raise ValueError for jobs, a scheduler or a time limit that are not allowed."""
    check.whole("jobs", jobs, 1)
    if time_limit is not None and check.number("time_limit", time_limit, 0, above=True) and scheduler is not None:
        raise ValueError(f"time_limit must be None where a cluster computes, not {time_limit!r}")


@dataclass(frozen=True)
class _Worker:
    """What a worker does with one trial."""

    store: Store
    place: Place

    def __call__(self, trial: Trial) -> str | None:
        """Compute and store the trial: None, HELD, or why it failed. SweepError where nothing can be stored."""
        try:
            with files.locked(self.lock(trial), wait=False):
                if self.store.read(trial.configuration) is None:  # else another sweep was faster
                    try:
                        record = self._computed(trial)
                    except (Exception, SystemExit) as error:  # told as text: not every error can be sent
                        if isinstance(error, OSError) and error.errno in STORAGE:
                            raise
                        return _reason(error)
                    self.store.write(record)
        except Timeout:
            return HELD
        except OSError as error:
            raise SweepError(f"{trial.label} cannot be stored, nor what comes after it: {error}") from None
        return None

    def _computed(self, trial: Trial) -> dict:
        data, problem = self.data(trial)
        if problem:
            raise MissingTrials(problem)
        # By name, so that a sweep without torch starts at once.
        alone = self.place.threads and import_module("lib.device").threads(self.place.threads)
        with alone or nullcontext():
            record = trial.run(self.place) | ({"data": data} if data else {})
        if record.get("configuration") != trial.configuration:
            raise ValueError("its record is that of another configuration")
        return record

    def data(self, trial: Trial) -> tuple[dict[str, str], str | None]:
        """The fingerprints of the trial's data, by their names; in one line why it cannot be computed here."""
        if problem := trial.lacks(self.place):
            return {}, problem
        data = fingerprints(trial, self.place)
        return data, self.store.other_data(data)

    def lock(self, trial: Trial) -> Path:
        """What is held while the trial is computed."""
        return self.store.own / ".locks" / trial.identity


def _reason(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())


def _compute(
    missing: Sequence[Trial],
    records: dict[str, dict | None],
    worker: _Worker,
    executor: Callable[[], Executor],
    size: Callable[[], int],
    time_limit: float,
    bar: tqdm,
) -> dict[str, list[str]]:
    """Compute the trials until each is stored, and in `records`, or failed; the labels of these by their reason."""
    queue, flying = deque(missing), dict[Future, tuple[Trial, float]]()
    failures, deaths = defaultdict[str, list[str]](list), Counter[str]()
    since, told = time.monotonic(), set[str]()
    while queue or flying:
        # Alone, a trial whose worker died is known to be the cause, and can harm no other.
        next_ones = [*(trial for trial, _ in flying.values()), *list(queue)[:1]]
        there = size()
        room = min(there, 1) if any(deaths[trial.identity] for trial in next_ones) else there
        while queue and len(flying) < room:
            trial = queue.popleft()
            flying[executor().submit(worker, trial)] = trial, time.monotonic()
        held: Trial | None = None
        for future in wait(flying, POLL_SECONDS, FIRST_COMPLETED).done:
            trial, begun = flying.pop(future)
            outcome = _outcome(future)
            deaths[trial.identity] += outcome == DIED
            if deaths[trial.identity] > RETRIES:
                outcome = f"its worker died {deaths[trial.identity]} times"
            elif outcome == ENDED and time.monotonic() - begun > time_limit:
                outcome = f"it took more than {time_limit:g} s"
            if outcome == HELD:
                queue.append(held := trial)
            elif outcome in (DIED, ENDED):
                queue.appendleft(trial)
            if outcome in (HELD, DIED, ENDED):
                continue
            since = time.monotonic()
            told.clear()
            bar.update()
            bar.set_postfix_str(trial.label)
            if outcome is None:
                records[trial.identity] = _read_back(trial, worker.store)
            else:
                failures[outcome].append(trial.label)
        if any(time.monotonic() - begun > time_limit for _, begun in flying.values()):
            executor().shutdown(kill_workers=True)  # type: ignore[call-arg]  # loky
        line = NO_WORKERS
        if there:
            told.discard(NO_WORKERS)
            line = f"waiting for {held.label}, held by {files.holder(worker.lock(held))}" if held else ""
        if line and line not in told and time.monotonic() - since > files.SILENT_SECONDS:
            told.add(line)
            tqdm.write(line, file=sys.stderr)
        if held or not (flying or there):
            time.sleep(POLL_SECONDS)
    return failures


def _outcome(future: Future) -> str | None:
    """What `_Worker` returned, DIED, ENDED, or why it did not come to it."""
    try:
        return future.result()
    except BrokenProcessPool:
        return DIED
    except ShutdownExecutorError:
        return ENDED
    except SweepError:
        raise
    except CancelledError:
        raise SweepError("the cluster is lost; run again to go on") from None
    except Exception as error:  # of a worker that could not make anything of the trial, or of a record that is none
        return _reason(error)


def _read_back(trial: Trial, store: Store) -> dict:
    """The record of a trial that a worker says to have stored."""
    end = time.monotonic() + SEEN_SECONDS
    while (record := store.read(trial.configuration)) is None:
        if time.monotonic() > end:
            where = f"{trial.label} was computed, and is not in {store.own}"
            raise SweepError(f"{where}: do the workers see that folder?")
        time.sleep(POLL_SECONDS)
    return record


@contextmanager
def _workers(
    jobs: int, scheduler: str | None, packages: Sequence[str]
) -> Iterator[tuple[Callable[[], Executor], Callable[[], int]]]:
    """The executor as it is now, of `jobs` processes (0: this one), and how many trials it can compute at once now."""
    if scheduler is not None:
        with _cluster(scheduler, packages) as cluster:
            yield cluster
    elif not jobs:
        yield _Here, lambda: 1
    else:
        threads = {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(max(1, joblib.cpu_count() // jobs)))}
        options = {"timeout": IDLE_SECONDS, "initializer": _end_with, "initargs": (os.getpid(),), "env": threads}
        executor = partial(get_reusable_executor, jobs, **options)  # a new one where the last one broke
        try:
            yield executor, lambda: jobs
        except BaseException:
            executor().shutdown(kill_workers=True)
            raise


class _Here(Executor):
    """Computes in this process, at once."""

    def submit(self, function: Callable, /, *given: Any, **named: Any) -> Future:
        future: Future = Future()
        try:
            future.set_result(function(*given, **named))
        except Exception as error:
            future.set_exception(error)
        return future


def _end_with(parent: int) -> None:
    """End this process, a worker, soon after its parent, however that ends; what interrupts is told by the parent."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(POLL_SECONDS)
        os._exit(1)

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=watch, daemon=True).start()


@contextmanager
def _cluster(scheduler: str, packages: Sequence[str]) -> Iterator[tuple[Callable[[], Executor], Callable[[], int]]]:
    """As `_workers`, of a Dask cluster. SweepError where there is none, or where a worker has another library."""
    for name in ("distributed", "tornado", "asyncio"):  # what they have to say is said here in one line
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        from distributed import Client

        # A client that failed is closed where it is collected; within the start of another that waits for itself.
        gc.disable()
        client = Client(scheduler, timeout=CONNECT_SECONDS)
    except Exception as error:  # by kind of address
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise SweepError(f"no scheduler could be reached at {scheduler!r}: {reason}") from None
    finally:
        gc.enable()
    checked: set[str] = set()

    def size() -> int:
        there = set(client.scheduler_info(n_workers=-1)["workers"])
        if new := list(there - checked):
            own = code_version(packages)
            for address, version in client.run(code_version, packages, workers=new, on_error="return").items():
                if version != own and not isinstance(version, OSError):
                    raise SweepError(f"the worker {address} lacks this version of the library; install it there")
            checked.update(new)
        return len(there)

    with client:
        executor = client.get_executor()
        yield lambda: executor, size


def code_version(packages: Iterable[str]) -> str:
    """A hash of the code of these packages: that of a cluster's workers must be the same."""
    folders = [Path(str(import_module(package).__file__)).parent for package in packages]
    return joblib.hash([{str(p.relative_to(of)): p.read_bytes() for p in of.rglob("*.py")} for of in folders])
