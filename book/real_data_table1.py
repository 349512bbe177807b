"""Table 1's two paired sets by the protocol of Appendix B: the sweep, the selection, the four seeds."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from lib.selection import best_record
from lib.trials.images import ImageTrial, paired
from lib.trials.plan import Plan
from lib.trials.store import Store
from lib.trials.trial import MissingTrials, Trial
from lib.trials.weights import WeightTrial

LEARNING_RATES = (0.01, 0.05, 0.1)
RADII = (0.01, 0.03, 0.05, 0.07, 0.1, 0.2)  # rho; 0 is SGD
EPOCHS = 20
SEEDS = 4


def grid(dataset: str, seed: int = 0) -> list[ImageTrial]:
    """The paper's sweep of one data set: every learning rate with SGD and with SAM at every radius."""
    base = paired(dataset, "sgd", epochs=EPOCHS, seed=seed)
    return [
        replace(base, lr=lr, rho=rho, method="sam" if rho else "sgd") for lr in LEARNING_RATES for rho in (0.0, *RADII)
    ]


def select(records: Iterable[dict], method: str) -> ImageTrial:
    """The trial of `method` that validation data select, see `best_record`.

    Raises ValueError where no trial of the method finished.
    """
    best = best_record(record for record in records if record["configuration"]["method"] == method)
    if best is None:
        raise ValueError(f"records must hold a finished trial of {method}")
    return from_configuration(best["configuration"])


def from_configuration(configuration: dict) -> ImageTrial:
    """The image trial of a stored configuration."""
    return ImageTrial.from_configuration(configuration)


def selected(dataset: str, store: Store) -> dict[str, ImageTrial] | None:
    """The setting chosen for each method on seed 0; None while the sweep is not complete.

    SGD and SAM are chosen separately, as in the paper. LSAM (beyond the paper) takes SAM's setting.
    """
    records = stored_sweep(dataset, store)
    if len(records) < len(grid(dataset)):
        return None
    sgd, sam = (select(records, method) for method in ("sgd", "sam"))
    return {"sgd": sgd, "sam": sam, "lsam": replace(sam, method="lsam")}


def settings_of(
    dataset: str, store: Store, *, lr: float = 0.0, rho: float = 0.0, epochs: int = EPOCHS, batch_size: int = 100
) -> dict[str, ImageTrial] | None:
    """The selected settings with another learning rate, rho, number of epochs or batch size; 0: as selected.

    None where something has to be selected and the sweep is not complete.
    """
    chosen = selected(dataset, store)
    if chosen is None:
        own = dict(lr=lr, rho=rho, epochs=epochs, batch_size=batch_size)
        return one_setting(dataset, **own) if lr and rho else None
    return {
        name: replace(
            trial, lr=lr or trial.lr, rho=trial.rho and (rho or trial.rho), epochs=epochs, batch_size=batch_size
        )
        for name, trial in chosen.items()
    }


def require(settings: dict[str, dict[str, ImageTrial] | None], store: Store) -> list[str]:
    """The data sets whose settings are known. Raises MissingTrials, with the command, where there is none."""
    ready = [dataset for dataset, chosen in settings.items() if chosen is not None]
    if not ready:
        raise MissingTrials("; ".join(standing(dataset, None, store) for dataset in settings))
    return ready


def standing(dataset: str, lacking: list[str] | None, store: Store) -> str:
    """How far a data set's trials follow the paper's protocol, in words; `lacking` are its shortfalls, None
    where the sweep is not complete."""
    if lacking is None:
        there, all_of_them = len(stored_sweep(dataset, store)), len(grid(dataset))
        return (
            f"not run here: {there} of {all_of_them} settings of the sweep are stored; the rest: "
            f"python -m book.sweep {dataset}"
        )
    return f"reduced, not judged: {' and '.join(lacking)}" if lacking else "the whole protocol"


def comparison(settings: dict[str, ImageTrial], seeds: int) -> list[ImageTrial]:
    """The untrained net and every method at its setting, each with seeds 0, 1, ...: paired by seed."""
    untrained = paired(settings["sgd"].data, "sgd", epochs=0, lr=0.05)
    return [replace(trial, seed=seed) for seed in range(seeds) for trial in (untrained, *settings.values())]


def one_setting(dataset: str, *, lr: float, rho: float, epochs: int, batch_size: int = 100) -> dict[str, ImageTrial]:
    """The same setting for every method, as `comparison` takes it."""
    base = paired(dataset, "sgd", lr=lr, epochs=epochs, batch_size=batch_size)
    return {"sgd": base, **{name: replace(base, method=name, rho=rho) for name in ("sam", "lsam")}}


def weight_trials(settings: dict[str, ImageTrial], seeds: int) -> list[WeightTrial]:
    """Importance weights of the nets of SGD and SAM, at SAM's radius (Figure 3 for the paired sets)."""
    return [
        WeightTrial(replace(settings[method], seed=seed), settings["sam"].rho)
        for seed in range(seeds)
        for method in ("sgd", "sam")
    ]


def plan(dataset: str, store: Store, seeds: int = SEEDS) -> Plan:
    """All trials of one row of the table that are known by now: seeds follow the selection on the sweep."""
    sweep: list[Trial] = [*grid(dataset)]
    settings = selected(dataset, store)
    if settings is None:
        # Untrained, SGD, SAM, LSAM and two measurements a seed; the sweep has SGD and SAM of seed 0.
        return Plan(tuple(sweep), later=6 * seeds - 2)
    return Plan((*sweep, *comparison(settings, seeds), *weight_trials(settings, seeds)))


def stored_sweep(dataset: str, store: Store) -> list[dict]:
    """What the store has of the sweep of one data set."""
    records = [store.read(trial.configuration) for trial in grid(dataset)]
    return [record for record in records if record is not None]


def shortfalls(trials: Iterable[ImageTrial], store: Store) -> list[str]:
    """What stands between these trials and the paper's protocol, in words; empty where C7 may be judged."""
    trials = [trial for trial in trials if trial.epochs]
    dataset, found = trials[0].data.name, []
    sweep = grid(dataset)
    stored = len(stored_sweep(dataset, store))
    epochs, seeds = min(trial.epochs for trial in trials), len({trial.seed for trial in trials})
    for there, needed, what in (
        (epochs, EPOCHS, "epochs"),
        (seeds, SEEDS, "seeds"),
        (stored, len(sweep), "settings of the sweep"),
    ):
        if there < needed:
            found.append(f"{there} of {needed} {what}")
    for name in ("batch_size", "momentum", "weight_decay", "train_limit"):
        if others := {getattr(trial, name) for trial in trials} - {getattr(sweep[0], name)}:
            found.append(f"{name} {', '.join(map(str, others))}")
    settings = selected(dataset, store)
    if settings and any(replace(trial, seed=0) != settings.get(trial.method) for trial in trials):
        found.append("another setting than the selected one")
    return found
