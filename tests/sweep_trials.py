"""Trials for the tests of the sweep engine: quick, deterministic, and as slow or as deadly as a test asks.

As a script it runs a sweep of them, for tests that kill it: ``FOLDER COUNT JOBS BEHAVIOUR [SCHEDULER]``.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from records import whole

from lib.files import replacing
from lib.trials.store import Store
from lib.trials.trial import Place, Trial

STEPS = 5


@dataclass(frozen=True)
class ChainTrial(Trial):
    """A chain of random numbers of `number`; each step is kept, as a training keeps its checkpoints.

    `behaviour`: "finish"; "raise"; "diverge"; "lack"; "die" (the process kills itself, every time) or "die
    once"; "exit" (as a script does); "other" (gives another trial's record); "no record"; "hang"; "hang in C". A step
    takes SWEEP_STEP seconds, from the environment of the process that asks for it, since workers live on from test to
    test. What was computed is logged beside the checkpoints.
    """

    number: int
    behaviour: str = "finish"
    step: float = field(default_factory=lambda: float(os.environ.get("SWEEP_STEP", 0)))

    @property
    def configuration(self) -> dict:
        return {"experiment": "chain", "protocol": 1, "number": self.number, "behaviour": self.behaviour}

    @property
    def label(self) -> str:
        return f"chain {self.number}"

    @property
    def cost(self) -> tuple[str, float]:
        return "chain", 2.0

    def lacks(self, place: Place) -> str | None:
        return "its links are lost" if self.behaviour == "lack" else None

    def run(self, place: Place) -> dict:
        self.log("begin", place)
        kept = place.checkpoint(self)
        done, state = json.loads(kept.read_text()) if kept.exists() else (0, self.number)
        for step in range(done, STEPS):
            time.sleep(self.step)
            state = (6364136223846793005 * state + 1442695040888963407) % 2**64
            with replacing(kept) as file:
                file.write(json.dumps((step + 1, state)).encode())
            if self.behaviour == "die" or self.behaviour == "die once" and step == 0:
                os.kill(os.getpid(), signal.SIGKILL)
        match self.behaviour:
            case "raise":
                raise RuntimeError("a link\nbroke")
            case "exit":
                sys.exit(0)
            case "hang":
                time.sleep(1000)
            case "hang in C":
                sum(range(10**12))  # hears no signal, and lets no other thread run
        self.log("end", place)
        number = self.number + (self.behaviour == "other")
        record = {"configuration": self.configuration | {"number": number}, "seconds": {"total": 3.0}}
        if self.behaviour == "no record":
            return record
        diverged = {"status": "diverged", "metrics": None}
        return whole(record | (diverged if self.behaviour == "diverge" else {"metrics": {"state": state}}))

    def log(self, event: str, place: Place) -> None:
        """One line in the log; O_APPEND keeps lines of several processes whole."""
        place.checkpoints.parent.mkdir(parents=True, exist_ok=True)
        with open(place.checkpoints.parent / "log", "a") as file:
            file.write(f"{event} {self.number} {os.getpid()}\n")


class FailingStore(Store):
    """A store that workers cannot write to: full, or another folder than the sweep's."""

    error: int | None = None

    def write(self, record):
        if self.error is not None:
            raise OSError(self.error, os.strerror(self.error))
        return self.folder / "elsewhere"


if __name__ == "__main__":
    from sweep_trials import ChainTrial as Chain  # not __main__'s, which a cluster's workers could not find

    import book  # noqa: F401  # one line where it is interrupted
    from lib import files
    from lib.trials import SweepError, run

    files.SILENT_SECONDS = 1.0
    folder, count, jobs, behaviour, *scheduler = sys.argv[1:]
    cluster = {"scheduler": scheduler[0]} if scheduler else {}
    place, store = Place(checkpoints=Path(folder) / "checkpoints"), Store(Path(folder) / "store")
    try:
        run([Chain(number, behaviour) for number in range(int(count))], store, place, jobs=int(jobs), **cluster)
    except SweepError as error:
        sys.exit(f"SweepError: {error}")
