"""What every trial has in common: a configuration that names it, a place to run at, and a stamped record."""

from __future__ import annotations

import platform
import re
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from lib.trials.store import ROOT, identity

if TYPE_CHECKING:
    from lib.data.dataset import Source

CHECKPOINTS = ROOT / "checkpoints"
PACKAGES = ("torch", "numpy", "scikit-learn")


@dataclass(frozen=True)
class Place:
    """Where trials are computed; nothing of it changes a result beyond rounding, so it is in no record's name."""

    root: Path | None = None  # of the image data; None: SAM_DATA_ROOT, or data/
    device: str = "auto"  # auto, cuda, mps or cpu
    threads: int | None = None  # of one trial on the CPU; None: as many as torch takes
    checkpoints: Path | None = CHECKPOINTS  # folder of unfinished and of trained nets; None: none are kept

    def checkpoint(self, trial: Trial) -> Path | None:
        """The file of this trial's net."""
        return None if self.checkpoints is None else Path(self.checkpoints) / f"{trial.identity}.pt"


class Trial(Protocol):
    """One computation: a frozen dataclass, which can be sent to another process.

    Its `configuration` is plain JSON with the keys ``experiment`` and ``protocol`` (raised when the same
    values come to mean something else); the record is stored under its hash.
    """

    @property
    def configuration(self) -> dict:
        """Everything that decides the result."""

    @property
    def identity(self) -> str:
        """The trial's name in the store."""
        return identity(self.configuration)

    @property
    def label(self) -> str:
        """A short name for progress bars and messages."""

    @property
    def cost(self) -> tuple[str, float]:
        """A kind of computation, and how much of it this is: one kind's seconds grow in proportion."""

    @property
    def sources(self) -> tuple[Source, ...]:
        """The data that the trial reads; none where they are drawn."""
        return ()

    def lacks(self, place: Place) -> str | None:
        """In one line what this trial lacks at `place`, and how to get it; None: nothing, as where data are drawn."""
        return None

    def run(self, place: Place) -> dict:
        """Compute the record: see `record`."""


def fingerprints(trial: Trial, place: Place) -> dict[str, str]:
    """The fingerprint of each set of data that the trial reads at `place`, by its name."""
    return {source.name: source.fingerprint(place.root) for source in trial.sources}


class MissingTrials(RuntimeError):
    """Trials that are neither stored nor can be computed here; shown in a notebook as one line."""

    def _render_traceback_(self) -> list[str]:  # IPython asks for this name
        return [f"MissingTrials: {self}"]


def record(
    trial: Trial,
    *,
    metrics: dict | None,
    seconds: dict[str, float],
    device: str,
    diverged_at: int | None = None,
    **more: object,
) -> dict:
    """A trial's record, of plain values: `metrics` (None where it diverged, at step `diverged_at`),
    `seconds` (with the key ``total``), what computed it, and `more`."""
    return {
        "configuration": trial.configuration,
        "status": "diverged" if metrics is None else "finished",
        "diverged_at": diverged_at,
        "metrics": metrics,
        **more,
        "seconds": {name: round(value, 2) for name, value in seconds.items()},
        "versions": {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
        "hardware": hardware(device),
    }


def hardware(device: str) -> dict:
    """What the numbers were computed on: kind of device, its model, threads of torch."""
    import torch  # here, so that the sweep's own process starts without it

    cpuinfo = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    name = re.search(r"^model name\s*:\s*(.+)$", cpuinfo, re.MULTILINE)
    model = torch.cuda.get_device_name() if device == "cuda" else name.group(1) if name else platform.machine()
    return {"device": device, "model": model, "threads": torch.get_num_threads()}
