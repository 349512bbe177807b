"""`python -m book.sweep`: what is stored of each heavy experiment, computing the rest, and tables of results."""

import argparse
import json
import os
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pandas as pd

from book.experiments import experiments
from book.plan import Experiment, Status, duration, status
from lib import check, device
from lib.data.root import DataError
from lib.trials.engine import SweepError, check_arguments, run
from lib.trials.store import DATA, RESULTS, Store, check_record, identity
from lib.trials.trial import CHECKPOINTS, MissingTrials, Place, Trial

Experiments = Mapping[str, Experiment]


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status: 0 where all went well, 1 where trials failed, 2 for a wrong argument."""
    parser = _parser()
    options = parser.parse_args(arguments)
    known = experiments()
    try:
        for name in (*options.experiments, *filter(None, [options.table])):
            check.choice("experiment", name, known)
        cores = os.cpu_count() if options.backend == "local" else None
        check.whole("seeds", 1 if options.seeds is None else options.seeds, 1)
        check.whole("threads", 1 if options.threads is None else options.threads, 1, cores)
        if (options.backend == "dask") != (options.scheduler is not None):
            raise ValueError(
                "scheduler must be an address such as tcp://host:8786 with --backend dask, and is for no other, "
                f"not {options.scheduler!r} with --backend {options.backend}"
            )
        check_arguments(options.jobs, options.scheduler, options.time_limit)
        if options.experiments and options.backend == "local":
            device.pick(options.device)
        if options.adopt:
            adopt(options.adopt, known, options.seeds)
    except ValueError as error:
        parser.error(str(error))
    if options.table:
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # so that `| head` ends it in silence
        table(known[options.table], options.seeds).to_csv(sys.stdout, index=False)
    elif options.orphans:
        print(*orphans(known, options.seeds), sep="\n")
    elif not options.experiments:
        _list(known, options.seeds, options.jobs)
    try:
        for name in options.experiments:
            _run(known[name], options)
    except (SweepError, MissingTrials, DataError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _planned(experiment: Experiment, seeds: int | None) -> tuple[Trial, ...]:
    return experiment.plan(experiment.store, seeds or experiment.seeds).trials


def table(experiment: Experiment, seeds: int | None = None) -> pd.DataFrame:
    """The stored trials of an experiment, one line a net: its settings and its metrics, each in a column."""
    records = (experiment.store.read(trial.configuration) for trial in _planned(experiment, seeds))
    return pd.json_normalize([line for record in records if record for line in _nets(record)]).convert_dtypes()


def _nets(record: dict) -> Iterator[dict]:
    """A record as one line a net: a trial of the toy has one for every setting and seed."""
    metrics, shared = record["metrics"] or {}, dict(record["configuration"])
    kept = {"status": record["status"], "seconds": record["seconds"].get("total")}
    if "settings" not in shared:
        yield shared | kept | metrics
        return
    settings, seeds, common = shared.pop("settings"), shared.pop("seeds"), shared.pop("shared")
    for at, own in enumerate(settings):
        for seed in range(seeds):
            yield shared | common | own | kept | {"seed": shared["first_seed"] + seed} | _at(metrics, at, seed)


def _at(metrics: dict, setting: int, seed: int) -> dict:
    """Metrics of one net, from nested lists (setting, seed)."""
    return {
        name: _at(value, setting, seed) if isinstance(value, dict) else value[setting] and value[setting][seed]
        for name, value in metrics.items()
    }


def orphans(known: Experiments, seeds: int | None = None) -> list[str]:
    """The files of stored records that are in no experiment's plan."""
    served = {trial.identity for experiment in known.values() for trial in _planned(experiment, seeds)}
    store = Store(RESULTS, own=RESULTS)
    found = (record["configuration"] for record in store)
    return [str(store.path(one).relative_to(RESULTS)) for one in found if identity(one) not in served]


def adopt(folder: Path, known: Experiments, seeds: int | None = None) -> None:
    """Store the records of all JSON files under `folder` (of any layout) in their experiments' folders.

    Raises ValueError where there is no folder, a file that is no record, or a record that differs from the stored one.
    """
    if not folder.is_dir():
        raise ValueError(f"adopt must be a folder with records, not {str(folder)!r}")
    stores = {trial.identity: one.store for one in known.values() for trial in _planned(one, seeds)}
    stores |= {name: experiment.store for name, experiment in known.items()}
    records = {}
    for path in sorted(folder.rglob("*.json")):
        if path.name in ("claims.json", DATA):
            continue
        try:
            record = check_record(json.loads(path.read_text(encoding="utf-8")))
        except (ValueError, RecursionError) as error:
            raise ValueError(f"adopt must name a folder of records, and {path} is none: {error}") from error
        found = (stores.get(name) for name in (path.parent.name, identity(record["configuration"])))
        records[path] = record, next(filter(None, found), Store(RESULTS, own=RESULTS))
    for path, (record, store) in records.items():
        stored = store.read(record["configuration"])
        if stored is None:
            print(store.write(record).relative_to(RESULTS))
        elif stored["metrics"] != record["metrics"]:
            raise ValueError(f"{path} differs from {store.path(record['configuration'])}, which stays")


def _list(known: Experiments, seeds: int | None, jobs: int) -> None:
    width = max(map(len, known))
    print(f"{'experiment':<{width}} {'done':>6} {'missing':>8} {'diverged':>9}   {'time left':<10} what it is")
    for name, experiment in known.items():
        now = status(experiment, seeds)
        counts = f"{now.finished:>6} {len(now.missing) + now.later:>8} {now.diverged:>9}"
        print(f"{name:<{width}} {counts}   {_time_left(now, jobs):<10} {experiment.about}")


def _time_left(now: Status, jobs: int) -> str:
    return "unknown" if now.seconds_left is None else duration(now.seconds_left / jobs)


def _run(experiment: Experiment, options: argparse.Namespace) -> None:
    """Compute one experiment; what follows from its results comes in further rounds."""
    place = Place(options.root, options.device, options.threads, options.checkpoints)
    how = {name: getattr(options, name) for name in ("jobs", "scheduler", "time_limit")}
    while True:
        now = status(experiment, options.seeds)
        print(
            f"{experiment.name}: {now.finished} done, {len(now.missing) + now.later} missing, "
            f"{now.diverged} diverged; time left: {_time_left(now, options.jobs)}"
        )
        if options.dry_run:
            print(*(f"  {trial.identity}  {trial.label}" for trial in now.missing), sep="\n")
            print(f"  and {now.later} that follow from these" if now.later else "", end="\n" * bool(now.later))
        if options.dry_run or not now.missing:
            return
        run(now.missing, experiment.store, place, **how)


def _parser() -> argparse.ArgumentParser:
    about = (
        "Without an experiment: list them. With some: compute what the store lacks of them. Each finished trial is "
        "stored at once; a sweep that was stopped goes on where it was."
    )
    parser = argparse.ArgumentParser(prog="python -m book.sweep", description=about)
    add = parser.add_argument
    add("experiments", nargs="*", metavar="experiment", help="what to compute")
    add("--jobs", type=int, default=1, help="trials at once, each in its own process (1)")
    add("--backend", choices=("local", "dask"), default="local", help="where to compute (local)")
    add("--scheduler", help="with --backend dask: its address, as in tcp://host:8786")
    add("--seeds", type=int, help="seeds of a setting (the experiment's own)")
    add("--threads", type=int, help="threads of one trial on the CPU (all)")
    add("--time-limit", type=float, metavar="SECONDS", help="after which a trial on this machine has failed (none)")
    add("--device", default="auto", help="auto, cuda, mps or cpu (auto)")
    add("--root", type=Path, help="folder of the image data (SAM_DATA_ROOT, or data/)")
    add("--checkpoints", type=Path, default=CHECKPOINTS, help="folder of nets (checkpoints)")
    add("--dry-run", action="store_true", help="say what would be computed")
    add("--table", metavar="EXPERIMENT", help="print its settings and metrics as CSV, one line a net")
    add("--orphans", action="store_true", help="name the stored results that no experiment has")
    add("--adopt", type=Path, metavar="FOLDER", help="store the records in this folder, computed elsewhere, here")
    return parser


if __name__ == "__main__":
    sys.exit(main())
