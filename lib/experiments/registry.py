"""Every heavy experiment of the book, by name."""

from __future__ import annotations

from functools import partial

from lib.experiments import open_choices, table1
from lib.experiments.plan import Experiment
from lib.store import RESULTS, Store


def experiments() -> dict[str, Experiment]:
    """The experiments by name, in the book's order."""
    images = Store(RESULTS / "images")
    known = [
        Experiment("cifar-mnist", "Table 1, CIFAR-MNIST: the full sweep, then four seeds (chapter 7)",
                   partial(table1.plan, "cifar-mnist"), images, table1.SEEDS),
        Experiment("fmnist-mnist", "Table 1, FMNIST-MNIST: the full sweep, then four seeds (chapter 7)",
                   partial(table1.plan, "fmnist-mnist"), images, table1.SEEDS),
        Experiment("open-choices", "Lost constants of the toy, one at a time and all at once (chapter 13)",
                   open_choices.plan, Store(RESULTS / "toy"), open_choices.SEEDS),
    ]
    return {experiment.name: experiment for experiment in known}
