"""Every heavy experiment of the book, by name."""

from __future__ import annotations

from functools import partial

from book import batch_size, natural_plans, noise, open_choices, variants
from book import real_data_table1 as table1
from book import variants_images as variant_images
from lib.data import domains
from lib.trials.plan import Experiment, Plan
from lib.trials.store import RESULTS, Store


def experiments() -> dict[str, Experiment]:
    """The experiments by name, in the book's order."""
    images, toy = Store(RESULTS / "images"), Store(RESULTS / "toy")
    known = [
        Experiment(
            "cifar-mnist",
            "Table 1, CIFAR-MNIST: the full sweep, then four seeds (chapter 7)",
            partial(table1.plan, "cifar-mnist"),
            images,
            table1.SEEDS,
        ),
        Experiment(
            "fmnist-mnist",
            "Table 1, FMNIST-MNIST: the full sweep, then four seeds (chapter 7)",
            partial(table1.plan, "fmnist-mnist"),
            images,
            table1.SEEDS,
        ),
        Experiment(
            "noise",
            "LSAM where the toy's training features are noisy (chapter 9)",
            lambda store, seeds: Plan(tuple(noise.plan(seeds=seeds))),
            toy,
            noise.SEEDS,
        ),
        Experiment(
            "batch-size",
            "LSAM by batch size, with epochs and with steps fixed (chapter 10)",
            lambda store, seeds: Plan(
                tuple(trial for budget in ("epochs", "steps") for trial in batch_size.plan(budget, seeds=seeds))
            ),
            toy,
            batch_size.SEEDS,
        ),
        Experiment(
            "variants",
            "SAM's variants and explicit re-weightings in the toy (chapter 12)",
            lambda store, seeds: Plan(
                tuple(
                    trial
                    for rows in (variants.ROWS, variants.MINORITY_ROWS)
                    for trial in variants.toy_plan(rows, seeds)
                )
            ),
            toy,
            variants.SEEDS,
        ),
        Experiment(
            "variants-images",
            "SAM's variants on CIFAR-MNIST, reduced: few epochs (chapter 12)",
            partial(variant_images.plan, epochs=variant_images.SHORT_EPOCHS),
            images,
            variant_images.SHORT_SEEDS,
        ),
        Experiment(
            "variants-images-full",
            "the same with all epochs of the paper's protocol",
            partial(variant_images.plan, epochs=table1.EPOCHS),
            images,
            table1.SEEDS,
        ),
        Experiment(
            "open-choices",
            "Lost constants of the toy, one at a time and all at once (chapter 13)",
            open_choices.plan,
            toy,
            open_choices.SEEDS,
        ),
        *_natural(),
    ]
    return {experiment.name: experiment for experiment in known}


def _natural() -> list[Experiment]:
    """The experiments on natural images, reduced and by the paper's protocol."""
    store, seeds = Store(RESULTS / "natural"), natural_plans.SEEDS
    names = {
        "celeba": "CelebA",
        "birds_on_scenes": "a stand-in for Waterbirds",
        "waterbirds": "Waterbirds",
        "pacs": "PACS",
        "vlcs": "VLCS",
        "office_home": "OfficeHome",
    }
    reduced = [
        Experiment(
            dataset.replace("_", "-"),
            f"Table 1, {names[dataset]}, reduced: few epochs, a coarse sweep, 64 pixels (chapter 7)",
            partial(natural_plans.plan, [natural_plans.groups_reduced(dataset)]),
            store,
            seeds,
        )
        for dataset in ("celeba", "birds_on_scenes")
    ]
    reduced.append(
        Experiment(
            "pacs",
            "Table 2, PACS, reduced: few epochs, no sweep, 64 pixels (chapter 8)",
            partial(natural_plans.plan, natural_plans.domains_reduced("pacs")),
            store,
            natural_plans.REDUCED_DOMAIN_SEEDS,
        )
    )
    full = [
        Experiment(
            f"{dataset}-full",
            f"Table 1, {names[dataset]}: the paper's protocol, on a GPU (chapter 7)",
            partial(natural_plans.plan, [natural_plans.groups_full(dataset)]),
            store,
            seeds,
        )
        for dataset in natural_plans.EPOCHS
    ]
    full += [
        Experiment(
            f"{benchmark.replace('_', '-')}-full",
            f"Table 2, {names[benchmark]}: the paper's protocol, on a GPU (chapter 8)",
            partial(natural_plans.plan, natural_plans.domains_full(benchmark)),
            store,
            seeds,
        )
        for benchmark in domains.NAMES
    ]
    return reduced + full
