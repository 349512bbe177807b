"""Computes the trials that a store lacks, each stored as soon as it is finished.

A sweep may be killed at any moment and started again: it loses at most the trials in flight, and those that
keep checkpoints go on from them. Several sweeps may share one store, from any machines that see its folder: a
trial is computed under a lock, which the system takes from a process that dies. Workers end with their sweep, and
what waits for more than some seconds says for what.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import secrets
import signal
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cache, partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import Timeout
from joblib import Parallel, delayed
from joblib.externals.loky.process_executor import BrokenProcessPool  # TerminatedWorkerError is one
from tqdm import tqdm

from lib import check, files
from lib.trials.store import Store
from lib.trials.trial import MissingTrials, Place, Trial, fingerprints

if TYPE_CHECKING:
    from distributed import Client

BACKENDS = ("local", "dask")
RETRIES = 1  # of a trial whose worker died
POLL_SECONDS = 0.5  # between looks at trials that another sweep is computing, and at the parent of a worker
SEEN_SECONDS = 10.0  # until a file that another machine wrote is seen here
CONNECT_SECONDS = 10.0  # to a cluster's scheduler
NAMED = 3  # trials that failed for one reason, in its line
STORAGE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)  # no later trial could be stored either
HELD = "held"  # by another sweep, which is computing it
Outcome = tuple[str, str | Exception | None]  # of a trial: its identity with None, HELD, why it failed, or why all do


class SweepError(RuntimeError):
    """Trials that could not be computed or stored; the message has a line for each reason."""


def run(
    trials: Iterable[Trial],
    store: Store,
    place: Place = Place(),
    *,
    jobs: int = 1,
    backend: str = "local",
    scheduler: str | None = None,
    time_limit: float | None = None,
    progress: bool = True,
) -> list[dict]:
    """The trials' records, in order: read from the store, or computed and stored one by one.

    jobs: trials computed at once on this machine, each in a process of its own; 1: in this process, where
    nothing guards it. backend "dask": on the workers (of one thread each) of the cluster at `scheduler`, as
    in ``tcp://host:8786``; the store's folder, the images and this library must be there on every worker.
    time_limit: seconds after which a trial on this machine has failed.

    A worker that dies costs its trial one retry, alone in a fresh worker (on a cluster: those that Dask's
    ``allowed-failures`` grants). A trial that raises or loses its worker again does not keep the others from
    being computed: SweepError then names it. One that cannot be stored ends the sweep at once with a SweepError.
    Raises MissingTrials, before any work, where a trial lacks its data or has others than its experiment, and
    ValueError for an argument that is not allowed.
    """
    trials = list(trials)
    check_backend(jobs, backend, scheduler, time_limit)
    unique = {trial.identity: trial for trial in trials}
    records = {name: store.read(trial.configuration) for name, trial in unique.items()}
    missing = {name: trial for name, trial in unique.items() if records[name] is None}
    lacking = Counter(reason for trial in missing.values() if (reason := _lacks(trial, store, place, backend)))
    for reason, count in lacking.items():
        raise MissingTrials(f"{count} of {len(trials)} trials are not stored, and {reason}")
    if missing:
        parent = None if backend == "dask" else os.getpid()
        worker = _Worker(store, place, secrets.token_hex(8), parent, time_limit)
        bar = tqdm(total=len(missing), unit="trial", disable=None if progress else True)
        with _workers(jobs, backend, scheduler) as compute, bar:
            failures = _all(missing, records, worker, compute, bar)
        if failures:
            raise SweepError("\n".join(map(_line, failures, failures.values())))
    return [record for trial in trials if (record := records[trial.identity]) is not None]


def _lacks(trial: Trial, store: Store, place: Place, backend: str) -> str | None:
    """In one line why the trial cannot be computed; data of a cluster are looked at by its workers."""
    if backend == "dask":
        return trial.lacks(place)
    return trial.lacks(place) or store.other_data(fingerprints(trial, place))


def _line(reason: str, labels: Sequence[str]) -> str:
    more = f" and {len(labels) - NAMED} more" if len(labels) > NAMED else ""
    return f"{', '.join(labels[:NAMED])}{more}: {reason}"


def check_backend(jobs: int, backend: str, scheduler: str | None, time_limit: float | None = None) -> None:
    """Raise ValueError for a backend, a scheduler, jobs or a time limit that are not allowed."""
    check.choice("backend", backend, BACKENDS)
    check.whole("jobs", jobs, 1)
    if (backend == "dask") != (scheduler is not None):
        raise ValueError(
            "scheduler must be an address such as tcp://host:8786 where backend is 'dask', and "
            f"None elsewhere, not {scheduler!r} where backend is {backend!r}"
        )
    if time_limit is not None:
        check.number("time_limit", time_limit, 0, above=True)
        check.choice("backend (with a time_limit)", backend, BACKENDS[:1])


@dataclass(frozen=True)
class _Worker:
    """What a worker does with one trial; `token` tells this sweep's traces from those of others."""

    store: Store
    place: Place
    token: str
    parent: int | None  # the process of the sweep, with which this one ends; None: on a cluster
    time_limit: float | None

    def __call__(self, trial: Trial) -> Outcome:
        """Compute and store the trial."""
        if self.parent is not None and self.parent != os.getpid():
            _end_with(self.parent)
        begun = self._begun(trial)
        try:
            with files.locked(self.lock(trial), wait=False):
                if self.store.read(trial.configuration) is not None:
                    return trial.identity, None  # another sweep was faster
                begun.write_text(self.token)
                try:
                    record = self._computed(trial)
                    try:
                        self.store.write(record)
                    except OSError as error:
                        return trial.identity, error
                except (Exception, SystemExit) as error:  # a failure must not keep the others from being computed
                    if isinstance(error, OSError) and error.errno in STORAGE:
                        raise
                    return trial.identity, " ".join(f"{type(error).__name__}: {error}".split())
                finally:
                    begun.unlink()
                return trial.identity, None
        except Timeout:
            return trial.identity, HELD
        except OSError as error:
            return trial.identity, error

    def _computed(self, trial: Trial) -> dict:
        data = fingerprints(trial, self.place)
        if problem := self.store.other_data(data):
            raise MissingTrials(problem)
        with self._threads(), _within(self.time_limit):
            record = trial.run(self.place) | ({"data": data} if data else {})
        if record.get("configuration") != trial.configuration:
            raise ValueError("its record is that of another configuration")
        return record

    def left_behind(self, trial: Trial) -> bool:
        """Whether a worker of this sweep began the trial and never came to its end."""
        try:
            return self._begun(trial).read_text() == self.token
        except FileNotFoundError:  # it came to its end, or never began
            return False

    def lock(self, trial: Trial) -> Path:
        """What is held while the trial is computed."""
        return self.store.own / ".locks" / trial.identity

    def _begun(self, trial: Trial) -> Path:
        return self.lock(trial).with_suffix(".begun")

    def _threads(self):
        if self.place.threads is None:
            return nullcontext()
        from lib import device  # here, so that a sweep without torch starts at once

        return device.threads(self.place.threads)


@contextmanager
def _within(seconds: float | None) -> Iterator[None]:
    """Raises TimeoutError in the block after that many seconds."""

    def end(*_: object) -> None:
        raise TimeoutError(f"took more than {seconds:g} s")

    if seconds is None:
        yield
        return
    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@cache
def _end_with(parent: int) -> None:
    """End this process, a worker, soon after its parent, however that ends; what interrupts is told by the parent."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(POLL_SECONDS)
        os._exit(1)

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=watch, daemon=True).start()


Compute = Callable[[_Worker, Iterable[Trial]], Iterator[Outcome]]


def _all(
    missing: dict[str, Trial], records: dict[str, dict | None], worker: _Worker, compute: Compute, bar: tqdm
) -> dict[str, list[str]]:
    """Compute the trials until each is stored, and in `records`, or failed; the labels of these by their reason."""
    missing = dict(missing)
    failures: dict[str, list[str]] = defaultdict(list)
    deaths: Counter[str] = Counter()
    idle, told, since = 0, set(), time.monotonic()
    while missing:
        # Alone, a trial whose worker died is known to be the cause, and can harm no other.
        suspects = [trial for name, trial in missing.items() if deaths[name]]
        batch, before = suspects[:1] or list(missing.values()), (len(missing), deaths.total())
        held: list[Trial] = []
        problem: list[str] = []  # that ends the sweep: no other trial is begun
        try:
            for name, outcome in compute(worker, (trial for trial in batch if not problem)):
                if outcome == HELD or problem:
                    held.append(missing[name])
                    continue
                trial, since = missing.pop(name), time.monotonic()
                bar.update()
                bar.set_postfix_str(trial.label)
                if isinstance(outcome, Exception):
                    problem.append(f"{trial.label} cannot be stored, nor what comes after it: {outcome}")
                elif outcome is not None:
                    failures[outcome].append(trial.label)
                elif (record := _read_back(trial, worker.store)) is not None:
                    records[name] = record
                else:
                    where = f"{trial.label} was computed, and is not in {worker.store.own}"
                    problem.append(f"{where}: do the workers see that folder?")
        except BrokenProcessPool as death:
            for trial in batch:
                name = trial.identity
                if name not in missing or not worker.left_behind(trial):
                    continue
                deaths[name] += 1
                if deaths[name] > RETRIES:
                    failures[f"its worker died {deaths[name]} times"].append(missing.pop(name).label)
            idle = idle + 1 if (len(missing), deaths.total()) == before else 0
            if idle > RETRIES:
                raise SweepError(f"workers die before they begin a trial: {' '.join(str(death).split())}") from death
        if problem:
            raise SweepError(problem[0])
        if held:
            time.sleep(POLL_SECONDS)
            line = f"waiting for {held[0].label}, held by {files.holder(worker.lock(held[0]))}"
            if time.monotonic() - since > files.SILENT_SECONDS and line not in told:
                told.add(line)
                tqdm.write(line, file=sys.stderr)
    return failures


def _read_back(trial: Trial, store: Store) -> dict | None:
    """The record of a trial that a worker says to have stored; None where it does not appear."""
    end = time.monotonic() + SEEN_SECONDS
    while (record := store.read(trial.configuration)) is None and time.monotonic() < end:
        time.sleep(POLL_SECONDS)
    return record


@contextmanager
def _workers(jobs: int, backend: str, scheduler: str | None) -> Iterator[Compute]:
    """A function that computes trials at once and yields their outcomes as they come."""
    if backend == "dask":
        with _cluster(scheduler) as client:
            yield partial(_on_cluster, client, scheduler)
    elif jobs == 1:
        yield map
    else:
        parallel = Parallel(jobs, backend="loky", batch_size=1, return_as="generator_unordered")
        yield lambda worker, batch: parallel(delayed(worker)(trial) for trial in batch)


@contextmanager
def _cluster(scheduler: str | None) -> Iterator[Client]:
    """The Dask cluster at `scheduler`; SweepError, in one line, where there is none."""
    for name in ("distributed", "tornado", "asyncio"):  # what they have to say is said here in one line
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        from distributed import Client

        client = Client(scheduler, timeout=CONNECT_SECONDS)
    except Exception as error:  # by kind of address
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise SweepError(f"no scheduler could be reached at {scheduler!r}: {reason}") from None
    with client:
        yield client


def library_version() -> str:
    """A hash of this library's code: that of a cluster's workers must be the same."""
    folder, digest = Path(files.__file__).parent, hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        digest.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def _on_cluster(client: Client, address: str | None, worker: _Worker, batch: Iterable[Trial]) -> Iterator[Outcome]:
    """The outcomes of trials on the Dask cluster at `address`.

    Not through joblib's Dask backend: that never tells a generator of a task whose workers died, and waits.
    """
    from distributed import CancelledError, KilledWorker, wait

    def theirs() -> str | None:  # sent as it stands, to where there may be no library
        try:
            from lib.trials.engine import library_version
        except ImportError:
            return None
        return library_version()

    def workers() -> int:
        return len(client.scheduler_info(n_workers=-1)["workers"])

    end, told = time.monotonic() + files.SILENT_SECONDS, False
    while not workers():
        if time.monotonic() > end and not told:
            told = True
            tqdm.write(f"waiting for workers: there is none at {address}", file=sys.stderr)
        time.sleep(POLL_SECONDS)
    if odd := [address for address, version in client.run(theirs).items() if version != library_version()]:
        raise SweepError(f"the worker {odd[0]} lacks this version of the library; install it there")
    trials, futures, told = iter(batch), dict[Any, Trial](), False
    while True:
        for trial in islice(trials, max(0, 2 * workers() - len(futures))):
            futures[client.submit(worker, trial, pure=False)] = trial
        if not futures:
            return  # what no worker is left for comes in the next round
        try:
            done, _ = wait(list(futures), files.SILENT_SECONDS, "FIRST_COMPLETED")
            told = False
        except TimeoutError:
            if not told and not workers():
                told = True
                tqdm.write(f"waiting for workers: none is left at {address}", file=sys.stderr)
            continue
        for future in done:
            trial = futures.pop(future)
            try:
                yield future.result()
            except KilledWorker as death:
                yield trial.identity, f"its worker died {death.allowed_failures + 1} times"
            except CancelledError:
                raise SweepError(f"the cluster at {address} is lost; run again to go on") from None
            except Exception as error:  # of a worker that could not make anything of the trial
                yield trial.identity, " ".join(f"{type(error).__name__}: {error}".split())
