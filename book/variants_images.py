"""Chapter 12's trials of CIFAR-MNIST: every variant of SAM at the setting that the sweep chose for SAM."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from book import real_data
from book.variants import DECAY
from lib.stats import estimate
from lib.trials.images import ImageTrial, paired
from lib.trials.plan import Plan
from lib.trials.store import Store

DATASET = "cifar-mnist"
SHORT_EPOCHS, SHORT_SEEDS = 5, 3  # of the trials that the book reads; the paper's are `real_data`'s
WITHOUT_ASCENT = ("SGD", "SGD, weight decay", "Adam")
ADAM_RATE = 1e-3  # Adam's learning rate (its paper's)
ASAM_TIMES = 10.0  # ASAM's radius over SAM's: its paper's 0.5 against SAM's 0.05


def rows(lr: float, rho: float, epochs: int, sgd_lr: float | None = None) -> dict[str, ImageTrial]:
    """CIFAR-MNIST, every variant at one setting: SAM's, chosen by the sweep; `sgd_lr`: SGD's, if another.

    ASAM's radius is `ASAM_TIMES` times SAM's, its norm being another; Adam has its own learning rate.
    """
    base = paired(DATASET, "sgd", lr=lr, epochs=epochs)
    sgd = replace(base, lr=lr if sgd_lr is None else sgd_lr)

    def at(method: str, radius: float = rho, **others: float) -> ImageTrial:
        return replace(base, method=method, rho=radius, **others)

    return {
        "SGD": sgd,
        "LSAM": at("lsam"),
        "SAM": at("sam"),
        "ASAM": at("asam", ASAM_TIMES * rho),
        "GSAM": at("gsam"),
        "ESAM": at("esam"),
        "LookSAM": at("looksam"),
        "Friendly SAM": at("friendly"),
        "SGD, weight decay": replace(sgd, weight_decay=DECAY),
        "SAM, decay outside": at("sam", weight_decay=DECAY),
        "SAM, decay inside": at("sam_decay_inside", weight_decay=DECAY),
        "Adam": at("adam", 0.0, lr=ADAM_RATE),
        "SAM around Adam": at("sam_adam", lr=ADAM_RATE),
    }


def chosen_rows(store: Store, epochs: int) -> dict[str, ImageTrial]:
    """`rows` at the settings that the sweep chose; none while the sweep is not complete."""
    settings = real_data.selected(real_data.PAIRED[DATASET], store)
    return rows(settings["sam"].lr, settings["sam"].rho, epochs, settings["sgd"].lr) if settings else {}


def plan(store: Store, seeds: int, epochs: int) -> Plan:
    """The image trials of all rows, each with seeds 0, 1, ...: paired by seed. They follow the sweep."""
    chosen = chosen_rows(store, epochs).values()
    later = 0 if chosen else seeds * len(rows(0.01, 0.1, epochs))
    return Plan(tuple(replace(trial, seed=seed) for seed in range(seeds) for trial in chosen), later)


@dataclass(frozen=True, eq=False)
class Gain:
    """How far a row's probing errors lie below SGD's with the same seed: (2, seed), of the hard and of the
    easy feature, or None where nothing is stored or a net diverged; and how many nets diverged."""

    values: np.ndarray | None
    diverged: int = 0


def gains(rows: Mapping[str, ImageTrial], seeds: int, store: Store) -> tuple[str, dict[str, Gain]]:
    """The hard feature by the paper's rule, that of the higher probing error under SGD, and all rows' gains,
    at the seeds that the row shares with SGD.

    Where SGD itself is not stored, nothing is known: "" and no gain.
    """
    found = {name: _probing(trial, seeds, store) for name, trial in rows.items()}
    sgd = found["SGD"][0] if rows else {}
    if not sgd:
        return "", {name: Gain(None, diverged) for name, (_, diverged) in found.items()}
    features = list(next(iter(sgd.values())))
    hard = max(features, key=lambda feature: np.mean([errors[feature] for errors in sgd.values()]))
    order = [hard, *(feature for feature in features if feature != hard)]
    found_gains = {}
    for name, (by_seed, diverged) in found.items():
        both = sorted(by_seed.keys() & sgd.keys())
        values = np.array([[sgd[seed][feature] - by_seed[seed][feature] for seed in both] for feature in order])
        # A mean over the seeds that were left would flatter a method that fails on others.
        found_gains[name] = Gain(values if both and not diverged else None, diverged)
    return hard, found_gains


def _probing(trial: ImageTrial, seeds: int, store: Store) -> tuple[dict[int, dict[str, float]], int]:
    """Probing errors of the finished trials among seeds 0, 1, ..., as seed -> attribute -> error; and how
    many diverged."""
    found, diverged = {}, 0
    for seed in range(seeds):
        record = store.read(replace(trial, seed=seed).configuration)
        if record is not None and record["metrics"] is None:
            diverged += 1
        elif record is not None:
            errors = record["metrics"]["probing_error"]
            found[seed] = {name: rate["error"] for name, rate in errors.items()}
    return found, diverged


def note(rows: Mapping[str, ImageTrial], gains: Mapping[str, Gain]) -> str:
    """What is read, in a sentence, and by how much it is reduced from the paper's protocol."""
    if not rows:
        return f"Not run here: the sweep that chooses the setting is not complete ({DATASET})."
    counts = [gain.values.shape[1] for gain in gains.values() if gain.values is not None]
    epochs = rows["SAM"].epochs
    if not counts:
        return f"Not run here: no trial of {epochs} epochs is stored (python -m book.sweep variants-images)."
    sam, sgd = rows["SAM"], rows["SGD"]
    seeds = f"{min(counts)}" if min(counts) == max(counts) else f"{min(counts)} to {max(counts)}"
    run = (
        f"SAM at learning rate {sam.lr:g}, ρ = {sam.rho:g}, SGD at learning rate {sgd.lr:g}; "
        f"n = {seeds} seeds, {epochs} epochs"
    )
    whole = real_data.PAIRED[DATASET].base.epochs
    return f"Reduced: {run} of {whole}." if epochs < whole else f"{run}."


def label(name: str, gain: Gain) -> str:
    """A row's name, with the number of its seeds where it was run, and of those that diverged."""
    if gain.diverged:
        return f"{name} ({gain.diverged} diverged)"
    return name if gain.values is None else f"{name} (n = {gain.values.shape[1]})"


def in_words(gains: Mapping[str, Gain]) -> str:
    """What the rows with an ascent gain on the hard feature, in a sentence or two."""
    effects = [
        estimate(gain.values[0])
        for name, gain in gains.items()
        if gain.values is not None and name not in WITHOUT_ASCENT
    ]
    if not effects:
        return "On CIFAR-MNIST nothing was run here."
    means = [100 * effect.mean for effect in effects]
    above = sum(effect.low > 0 for effect in effects)
    return (
        f"On CIFAR-MNIST, {max(effect.n for effect in effects)} seeds, the {len(effects)} rows with an "
        f"ascent lower the hard probing error by {min(means):.1f} to {max(means):.1f} points in the "
        f"mean; {above} of the intervals lie above 0."
    )
