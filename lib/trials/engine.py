"""Computes the trials that a store lacks, each stored as soon as it is finished.

A sweep may be killed at any moment and started again: it loses at most the trials in flight, and those that
keep checkpoints go on from them. Several sweeps may share one store, from any machines that see its folder: a
trial is computed under a lock, which the system takes from a process that dies.
"""

from __future__ import annotations

import secrets
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout
from joblib import Parallel, delayed
from joblib.externals.loky.process_executor import BrokenProcessPool  # TerminatedWorkerError is one
from tqdm import tqdm

from lib import check
from lib.trials.store import Store
from lib.trials.trial import MissingTrials, Place, Trial

if TYPE_CHECKING:
    from distributed import Client

BACKENDS = ("local", "dask")
RETRIES = 1  # of a trial whose worker died
POLL_SECONDS = 0.5  # between looks at trials that another sweep is computing
HELD = "held"  # by another sweep, which is computing it
Outcome = tuple[str, str | None]  # of a trial: its identity with None, HELD, or in one line why it failed


class SweepError(RuntimeError):
    """Trials that could not be computed; the message names each with the reason, one a line."""


def run(
    trials: Iterable[Trial],
    store: Store,
    place: Place = Place(),
    *,
    jobs: int = 1,
    backend: str = "local",
    scheduler: str | None = None,
    progress: bool = True,
) -> list[dict]:
    """The trials' records, in order: read from the store, or computed and stored one by one.

    jobs: trials computed at once on this machine, each in a process of its own; 1: in this process, where
    nothing guards it. backend "dask": on the workers (of one thread each) of the cluster at `scheduler`, as
    in ``tcp://host:8786``; the store's folder, the images and this library must be there on every worker.

    A worker that dies costs its trial one retry, alone in a fresh worker (on a cluster: those that Dask's
    ``allowed-failures`` grants). A trial that raises or loses its worker again does not keep the others from
    being computed: SweepError then names it. Raises MissingTrials, before any work, where a trial lacks its
    data, and ValueError for a backend, a scheduler or jobs that are not allowed.
    """
    trials = list(trials)
    check_backend(jobs, backend, scheduler)
    unique = {trial.identity: trial for trial in trials}
    stored = {name: store.read(trial.configuration) for name, trial in unique.items()}
    missing = {name: trial for name, trial in unique.items() if stored[name] is None}
    lacking = Counter(reason for trial in missing.values() if (reason := trial.lacks(place)))
    for reason, count in lacking.items():
        raise MissingTrials(f"{count} of {len(trials)} trials are not stored, and {reason}")
    if missing:
        worker = _Worker(store, place, secrets.token_hex(8))
        bar = tqdm(total=len(missing), unit="trial", disable=None if progress else True)
        with _workers(jobs, backend, scheduler) as compute, bar:
            failures = _all(dict(missing), worker, compute, bar)
        if failures:
            raise SweepError("\n".join(failures))
        stored |= {name: store.read(trial.configuration) for name, trial in missing.items()}
    if lost := [trial.label for trial in trials if stored[trial.identity] is None]:
        raise SweepError(f"{lost[0]} was computed, and is not in {store.folder}: do the workers see that folder?")
    return [record for trial in trials if (record := stored[trial.identity]) is not None]


def check_backend(jobs: int, backend: str, scheduler: str | None) -> None:
    """Raise ValueError for a backend, a scheduler or jobs that are not allowed."""
    check.choice("backend", backend, BACKENDS)
    check.whole("jobs", jobs, 1)
    if (backend == "dask") != (scheduler is not None):
        raise ValueError(
            "scheduler must be an address such as tcp://host:8786 where backend is 'dask', and "
            f"None elsewhere, not {scheduler!r} where backend is {backend!r}"
        )


@dataclass(frozen=True)
class _Worker:
    """What a worker does with one trial; `token` tells this sweep's traces from those of others."""

    store: Store
    place: Place
    token: str

    def __call__(self, trial: Trial) -> Outcome:
        """Compute and store the trial."""
        begun = self._begun(trial)
        begun.parent.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(begun.with_suffix(".lock"), timeout=0):
                if self.store.read(trial.configuration) is not None:
                    return trial.identity, None  # another sweep was faster
                begun.write_text(self.token)
                try:
                    with self._threads():
                        self.store.write(trial.run(self.place))
                except Exception as error:  # one trial's failure must not keep the others from being computed
                    return trial.identity, " ".join(f"{trial.label}: {type(error).__name__}: {error}".split())
                finally:
                    begun.unlink()
                return trial.identity, None
        except Timeout:
            return trial.identity, HELD

    def left_behind(self, trial: Trial) -> bool:
        """Whether a worker of this sweep began the trial and never came to its end."""
        try:
            return self._begun(trial).read_text() == self.token
        except FileNotFoundError:  # it came to its end, or never began
            return False

    def _begun(self, trial: Trial) -> Path:
        return self.store.folder / ".locks" / f"{trial.identity}.begun"

    def _threads(self):
        if self.place.threads is None:
            return nullcontext()
        from lib import device  # here, so that a sweep without torch starts at once

        return device.threads(self.place.threads)


Compute = Callable[[_Worker, Sequence[Trial]], Iterator[Outcome]]


def _all(missing: dict[str, Trial], worker: _Worker, compute: Compute, bar: tqdm) -> list[str]:
    """Compute the trials until each is stored or failed and none is missing; the failures, one line each."""
    failures: list[str] = []
    deaths: Counter[str] = Counter()
    while missing:
        # Alone, a trial whose worker died is known to be the cause, and can harm no other.
        suspects = [trial for name, trial in missing.items() if deaths[name]]
        batch, before, held = suspects[:1] or list(missing.values()), (len(missing), deaths.total()), False
        try:
            for name, outcome in compute(worker, batch):
                if outcome == HELD:
                    held = True
                    continue
                bar.update()
                bar.set_postfix_str(missing.pop(name).label)
                failures += [outcome] if outcome else []
        except BrokenProcessPool as death:
            for trial in batch:
                name = trial.identity
                if name not in missing or not worker.left_behind(trial):
                    continue
                deaths[name] += 1
                if deaths[name] > RETRIES:
                    failures.append(f"{missing.pop(name).label}: its worker died {deaths[name]} times")
            if (len(missing), deaths.total()) == before:
                raise SweepError(f"workers die before they begin a trial: {death}") from death
        if held:
            time.sleep(POLL_SECONDS)
    return failures


@contextmanager
def _workers(jobs: int, backend: str, scheduler: str | None) -> Iterator[Compute]:
    """A function that computes trials at once and yields their outcomes as they come."""
    if backend == "dask":
        from distributed import Client

        with Client(scheduler) as client:
            yield lambda worker, batch: _on_cluster(client, worker, batch)
    elif jobs == 1:
        yield map
    else:
        parallel = Parallel(jobs, backend="loky", batch_size=1, pre_dispatch="all", return_as="generator_unordered")
        yield lambda worker, batch: parallel(delayed(worker)(trial) for trial in batch)


def _on_cluster(client: Client, worker: _Worker, batch: Sequence[Trial]) -> Iterator[Outcome]:
    """The outcomes of trials on a Dask cluster.

    Not through joblib's Dask backend: that never tells a generator of a task whose workers died, and waits.
    """
    from distributed import KilledWorker, as_completed

    futures = {client.submit(worker, trial, pure=False): trial for trial in batch}
    for future in as_completed(futures):
        trial = futures[future]
        try:
            yield future.result()
        except KilledWorker as death:
            yield trial.identity, f"{trial.label}: its worker died {death.allowed_failures + 1} times"
