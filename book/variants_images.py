"""Chapter 12's trials of CIFAR-MNIST: every variant of SAM at the setting that the sweep chose for SAM."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from book import protocols
from book.variants import DECAY
from lib.stats import estimate
from lib.trials.images import ImageTrial, paired
from lib.trials.plan import Plan
from lib.trials.store import Store

DATASET = "cifar-mnist"
SHORT_EPOCHS, SHORT_SEEDS = 5, 3  # of the trials that the book reads; the paper's are `protocols`'
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
    settings = protocols.selected(protocols.PAIRED[DATASET], store)
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
    """The hard feature by the paper's rule, that of the higher probing error under SGD, and all rows' gains, at the
    seeds that the row shares with SGD.

    Where SGD itself is not stored, nothing is known: "" and no gain. A row of which a net diverged has none: a mean
    over the seeds that were left would flatter a method that fails on others.
    """
    errors, lost, features = {}, {}, ["cifar", "mnist"]
    for name, trial in rows.items():
        records = [store.read(replace(trial, seed=seed).configuration) for seed in range(seeds)]
        found = [record for record in records if record is not None]
        lost[name] = sum(record["status"] == "diverged" for record in found)
        table = protocols.table(found).pivot(index="seed", columns="measure", values="error")
        errors[name] = table.reindex(columns=features)
    if not rows or errors["SGD"].empty:
        return "", {name: Gain(None, count) for name, count in lost.items()}
    features.sort(key=lambda feature: -errors["SGD"][feature].mean())
    gained = {name: (errors["SGD"] - table).dropna()[features].to_numpy().T for name, table in errors.items()}
    kept = {name: values if values.size and not lost[name] else None for name, values in gained.items()}
    return features[0], {name: Gain(values, lost[name]) for name, values in kept.items()}


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
    whole = protocols.PAIRED[DATASET].base.epochs
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
