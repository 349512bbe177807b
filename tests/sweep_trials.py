"""Trials for the tests of the sweep engine: quick, deterministic, and as slow or as deadly as a test asks.

As a script it runs a sweep of them, for tests that kill it: ``FOLDER COUNT JOBS [SCHEDULER]``.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from lib.trials.store import Store, identity
from lib.trials.trial import Place

STEPS = 5


@dataclass(frozen=True)
class ChainTrial:
    """A chain of random numbers of `number`; each step is kept, as a training keeps its checkpoints.

    `behaviour`: "finish"; "raise"; "diverge"; "lack"; "die" (the process kills itself, every time) or "die
    once". A step takes SWEEP_STEP seconds, from the environment. What was computed is logged beside the
    checkpoints.
    """

    number: int
    behaviour: str = "finish"

    @property
    def configuration(self) -> dict:
        return {"experiment": "chain", "protocol": 1, "number": self.number, "behaviour": self.behaviour}

    @property
    def identity(self) -> str:
        return identity(self.configuration)

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
            time.sleep(float(os.environ.get("SWEEP_STEP", 0)))
            state = (6364136223846793005 * state + 1442695040888963407) % 2**64
            kept.parent.mkdir(parents=True, exist_ok=True)
            temporary = kept.with_suffix(f".{os.getpid()}")
            temporary.write_text(json.dumps((step + 1, state)))
            os.replace(temporary, kept)
            if self.behaviour == "die" or self.behaviour == "die once" and step == 0:
                os.kill(os.getpid(), signal.SIGKILL)
        if self.behaviour == "raise":
            raise RuntimeError("a link\nbroke")
        self.log("end", place)
        return {
            "configuration": self.configuration,
            "seconds": {"total": 3.0},
            "status": "diverged" if self.behaviour == "diverge" else "finished",
            "metrics": None if self.behaviour == "diverge" else {"state": state},
        }

    def log(self, event: str, place: Place) -> None:
        """One line in the log; O_APPEND keeps lines of several processes whole."""
        place.checkpoints.parent.mkdir(parents=True, exist_ok=True)
        with open(place.checkpoints.parent / "log", "a") as file:
            file.write(f"{event} {self.number} {os.getpid()}\n")


if __name__ == "__main__":
    from sweep_trials import ChainTrial as Trial  # not __main__'s, which a cluster's workers could not find

    from lib.trials import run

    folder, count, jobs, *scheduler = sys.argv[1:]
    cluster = {"backend": "dask", "scheduler": scheduler[0]} if scheduler else {}
    run(
        [Trial(number) for number in range(int(count))],
        Store(Path(folder) / "store"),
        Place(checkpoints=Path(folder) / "checkpoints"),
        jobs=int(jobs),
        **cluster,
    )
