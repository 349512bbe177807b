"""Every heavy experiment of the book, by name; its results are in the folder of that name."""

from functools import partial

from book import batch_size, natural_plans, noise, open_choices, variants
from book import real_data_table1 as table1
from book import variants_images as variant_images
from lib.data import domains
from lib.trials.plan import Experiment, Plan
from lib.trials.store import RESULTS, Store

NATURAL = {
    "celeba": "CelebA",
    "birds_on_scenes": "a stand-in for Waterbirds",
    "waterbirds": "Waterbirds",
    "pacs": "PACS",
    "vlcs": "VLCS",
    "office_home": "OfficeHome",
}


def experiments() -> dict[str, Experiment]:
    """The experiments by name, in the book's order."""
    table = "the full sweep, then four seeds (chapter 7)"
    known = [
        ("cifar-mnist", f"Table 1, CIFAR-MNIST: {table}", partial(table1.plan, "cifar-mnist"), table1.SEEDS),
        ("fmnist-mnist", f"Table 1, FMNIST-MNIST: {table}", partial(table1.plan, "fmnist-mnist"), table1.SEEDS),
        ("noise", "LSAM where the toy's training features are noisy (chapter 9)", _noise, noise.SEEDS),
        ("batch-size", "LSAM by batch size, epochs and steps fixed (chapter 10)", _batch_size, batch_size.SEEDS),
        ("variants", "SAM's variants and re-weightings in the toy (chapter 12)", _variants, variants.SEEDS),
        ("variants-live", "three of them at one radius, short: what chapter 12 trains", _live, 4),
        (
            "variants-images",
            "SAM's variants on CIFAR-MNIST, reduced: few epochs (chapter 12)",
            partial(variant_images.plan, epochs=variant_images.SHORT_EPOCHS),
            variant_images.SHORT_SEEDS,
        ),
        (
            "variants-images-full",
            "the same with all epochs of the paper's protocol",
            partial(variant_images.plan, epochs=table1.EPOCHS),
            table1.SEEDS,
        ),
        (
            "open-choices",
            "Lost constants of the toy, one at a time and all at once (chapter 13)",
            open_choices.plan,
            open_choices.SEEDS,
        ),
        *_natural(),
    ]
    return {name: Experiment(name, about, plan, Store(RESULTS, name), seeds) for name, about, plan, seeds in known}


def _noise(store: Store, seeds: int) -> Plan:
    return Plan(tuple(noise.plan(seeds=seeds)))


def _batch_size(store: Store, seeds: int) -> Plan:
    return Plan(tuple(trial for budget in batch_size.BUDGETS for trial in batch_size.plan(budget, seeds=seeds)))


def _variants(store: Store, seeds: int) -> Plan:
    return Plan((*variants.toy_plan(seeds=seeds), *variants.toy_plan(variants.MINORITY_ROWS, seeds)))


def _live(store: Store, seeds: int) -> Plan:
    return Plan(tuple(variants.live_plan(["sgd", "lsam", "sam"], 0.4, seeds, epochs=40)))


def _natural() -> list[tuple]:
    """The experiments on natural images, reduced and by the paper's protocol."""
    plans, full = natural_plans, "the paper's protocol, on a GPU"
    reduced, seeds = "reduced: few epochs, {}, 64 pixels", plans.SEEDS
    found = []
    for name in ("celeba", "birds_on_scenes"):
        about = f"Table 1, {NATURAL[name]}, {reduced.format('a coarse sweep')} (chapter 7)"
        found.append((name, about, [plans.groups_reduced(name)], seeds))
    about = f"Table 2, PACS, {reduced.format('no sweep')} (chapter 8)"
    found.append(("pacs", about, plans.domains_reduced("pacs"), plans.REDUCED_DOMAIN_SEEDS))
    for name in plans.EPOCHS:
        found.append(
            (f"{name}-full", f"Table 1, {NATURAL[name]}: {full} (chapter 7)", [plans.groups_full(name)], seeds)
        )
    for name in domains.NAMES:
        found.append((f"{name}-full", f"Table 2, {NATURAL[name]}: {full} (chapter 8)", plans.domains_full(name), seeds))
    return [
        (name.replace("_", "-"), about, partial(plans.plan, protocols), seeds)
        for name, about, protocols, seeds in found
    ]
