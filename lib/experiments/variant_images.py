"""Chapter 12's trials of CIFAR-MNIST: every variant of SAM at the setting that the sweep chose for SAM."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from lib.experiments import table1
from lib.experiments.images import ImageTrial
from lib.experiments.plan import Plan
from lib.experiments.variants import DECAY
from lib.store import Store

DATASET = "cifar-mnist"
REDUCED = 5  # epochs of the trials that the book reads; the paper's are `table1.EPOCHS`
ADAM_RATE = 1e-3  # Adam's learning rate (its paper's)
LARGER = 10.0  # ASAM's radius over SAM's: its paper's 0.5 against SAM's 0.05


def rows(lr: float, rho: float, epochs: int, sgd_lr: float | None = None) -> dict[str, ImageTrial]:
    """CIFAR-MNIST, every variant at one setting: SAM's, chosen by the sweep; `sgd_lr`: SGD's, if another.

    ASAM's radius is `LARGER` times SAM's, its norm being another; Adam has its own learning rate.
    """
    base = ImageTrial(DATASET, "sgd", lr=lr, epochs=epochs)
    sgd = replace(base, lr=lr if sgd_lr is None else sgd_lr)

    def at(method: str, radius: float = rho, **others: float) -> ImageTrial:
        return replace(base, method=method, rho=radius, **others)

    return {
        "SGD": sgd, "LSAM": at("lsam"), "SAM": at("sam"), "ASAM": at("asam", LARGER * rho),
        "GSAM": at("gsam"), "ESAM": at("esam"), "LookSAM": at("looksam"), "Friendly SAM": at("friendly"),
        "SGD, weight decay": replace(sgd, weight_decay=DECAY),
        "SAM, decay outside": at("sam", weight_decay=DECAY),
        "SAM, decay inside": at("sam_decay_inside", weight_decay=DECAY),
        "Adam": at("adam", 0.0, lr=ADAM_RATE), "SAM around Adam": at("sam_adam", lr=ADAM_RATE),
    }


def chosen_rows(store: Store, epochs: int) -> dict[str, ImageTrial]:
    """`rows` at the settings that the sweep chose; none while the sweep is not complete."""
    settings = table1.selected(DATASET, store)
    return rows(settings["sam"].lr, settings["sam"].rho, epochs, settings["sgd"].lr) if settings else {}


def plan(store: Store, seeds: int, epochs: int) -> Plan:
    """The image trials of all rows, each with seeds 0, 1, ...: paired by seed. They follow the sweep."""
    chosen = chosen_rows(store, epochs).values()
    later = 0 if chosen else seeds * len(rows(0.01, 0.1, epochs))
    return Plan(tuple(replace(trial, seed=seed) for seed in range(seeds) for trial in chosen), later)


def gains(
    rows: Mapping[str, ImageTrial], seeds: int, store: Store
) -> tuple[str, dict[str, np.ndarray | None]]:
    """The hard feature by the paper's rule, that of the higher probing error under SGD, and all rows' gains.

    Gains (2, seed) are the falls of the hard and of the easy probing error from SGD's, at the seeds that the
    row shares with it; None where there is none. Where SGD itself is not stored, nothing is known: "" and no
    gain.
    """
    found = {name: _probing(trial, seeds, store) for name, trial in rows.items()}
    sgd = found.get("SGD")
    if not sgd:
        return "", dict.fromkeys(rows)
    features = list(next(iter(sgd.values())))
    hard = max(features, key=lambda feature: np.mean([errors[feature] for errors in sgd.values()]))
    order = [hard, *(feature for feature in features if feature != hard)]
    found_gains = {}
    for name, by_seed in found.items():
        both = sorted(by_seed.keys() & sgd.keys())
        found_gains[name] = np.array([[sgd[seed][feature] - by_seed[seed][feature] for seed in both]
                                      for feature in order]) if both else None
    return hard, found_gains


def _probing(trial: ImageTrial, seeds: int, store: Store) -> dict[int, dict[str, float]]:
    """Probing errors of the finished trials among seeds 0, 1, ...: seed -> attribute -> error."""
    found = {}
    for seed in range(seeds):
        record = store.read(replace(trial, seed=seed).configuration)
        if record is not None and record["metrics"] is not None:
            errors = record["metrics"]["probing_error"]
            found[seed] = {name: rate["error"] for name, rate in errors.items()}
    return found


def note(rows: Mapping[str, ImageTrial], seeds: int) -> str:
    """What is read, in a sentence, and by how much it is reduced from the paper's protocol."""
    if not rows:
        return f"Not run here: the sweep that chooses the setting is not complete ({DATASET})."
    sam, sgd = rows["SAM"], rows["SGD"]
    run = (f"SAM at learning rate {sam.lr:g}, ρ = {sam.rho:g}, SGD at learning rate {sgd.lr:g}; "
           f"up to {seeds} seeds, {sam.epochs} epochs")
    return f"Reduced: {run} of {table1.EPOCHS}." if sam.epochs < table1.EPOCHS else f"{run}."


def label(name: str, gain: np.ndarray | None) -> str:
    """A row's name with the number of its seeds, where it was run."""
    return name if gain is None else f"{name} (n = {gain.shape[1]})"
