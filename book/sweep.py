"""`python -m book.sweep`: what is stored of each heavy experiment, and computing the rest."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from book.experiments import experiments
from lib.trials.engine import BACKENDS, SweepError, check, run
from lib.trials.plan import Experiment
from lib.trials.status import Status, in_words, status
from lib.trials.trial import CHECKPOINTS, MissingTrials, Place


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status: 0 where all went well, 1 where trials failed, 2 for a wrong argument."""
    parser = _parser()
    options = parser.parse_args(arguments)
    known = experiments()
    for name in options.experiments:
        if name not in known:
            parser.error(f"experiment must be one of {', '.join(known)}, not {name!r}")
    try:
        check(options.jobs, options.backend, options.scheduler)
    except ValueError as error:
        parser.error(str(error))
    if not options.experiments:
        _list(known.values(), options.seeds, options.jobs)
        return 0
    place = Place(options.root, options.device, options.threads, options.checkpoints)
    try:
        for name in options.experiments:
            _run(known[name], options, place)
    except (SweepError, MissingTrials) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _list(known, seeds: int | None, jobs: int) -> None:
    known = list(known)
    width = max(len(experiment.name) for experiment in known)
    print(f"{'experiment':<{width}} {'done':>6} {'missing':>8} {'diverged':>9}   {'time left':<10} what it is")
    for experiment in known:
        now = status(experiment, seeds)
        missing = len(now.missing) + now.later
        print(
            f"{experiment.name:<{width}} {now.finished:>6} {missing:>8} {now.diverged:>9}   "
            f"{_time_left(now, jobs):<10} {experiment.about}"
        )


def _time_left(now: Status, jobs: int) -> str:
    return in_words(None if now.seconds_left is None else now.seconds_left / jobs)


def _run(experiment: Experiment, options: argparse.Namespace, place: Place) -> None:
    """Compute one experiment; what follows from its results comes in further rounds."""
    while True:
        now = status(experiment, options.seeds)
        print(
            f"{experiment.name}: {now.finished} done, {len(now.missing) + now.later} missing, "
            f"{now.diverged} diverged; time left: {_time_left(now, options.jobs)}"
        )
        if options.dry_run:
            for trial in now.missing:
                print(f"  {trial.identity}  {trial.label}")
            if now.later:
                print(f"  and {now.later} that follow from these")
        if options.dry_run or not now.missing:
            return
        run(
            now.missing,
            experiment.store,
            place,
            jobs=options.jobs,
            backend=options.backend,
            scheduler=options.scheduler,
        )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m book.sweep",
        description=(
            "Without an experiment: list them. With some: compute what the store lacks of them. Each finished "
            "trial is stored at once; a sweep that was stopped goes on where it was."
        ),
    )
    parser.add_argument("experiments", nargs="*", metavar="experiment", help="what to compute")
    parser.add_argument("--jobs", type=int, default=1, help="trials at once, each in its own process (1)")
    parser.add_argument("--backend", choices=BACKENDS, default="local", help="where to compute (local)")
    parser.add_argument("--scheduler", help="with --backend dask: its address, as in tcp://host:8786")
    parser.add_argument("--seeds", type=_positive, help="seeds of a setting (the experiment's own)")
    parser.add_argument("--threads", type=_positive, help="threads of one trial on the CPU (all)")
    parser.add_argument("--device", default="auto", help="auto, cuda, mps or cpu (auto)")
    parser.add_argument("--root", type=Path, help="folder of the image data (SAM_DATA_ROOT, or data/)")
    parser.add_argument("--checkpoints", type=Path, default=CHECKPOINTS, help="folder of nets (checkpoints)")
    parser.add_argument("--dry-run", action="store_true", help="say what would be computed")
    return parser


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1, not {text}")
    return value


if __name__ == "__main__":
    sys.exit(main())
