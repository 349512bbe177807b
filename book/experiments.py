"""Every heavy experiment of the book, by name; its results are in the folder of that name."""

from functools import partial

from book import batch_size, domainbed, noise, open_choices, protocols, variants, when
from lib.trials.plan import Experiment, Plan
from lib.trials.store import RESULTS, Store

NAMES = protocols.TITLES | domainbed.TITLES | {"birds_on_scenes": "a stand-in for Waterbirds"}

GRID_SEEDS = 3


def experiments() -> dict[str, Experiment]:
    """The experiments by name, in the book's order."""
    on_images = "SAM's variants on CIFAR-MNIST"
    constants = "Lost constants of the toy, one at a time and all at once"
    short = partial(variants.image_plan, epochs=variants.SHORT_EPOCHS)
    full = partial(variants.image_plan, epochs=protocols.PAIRED["cifar-mnist"].base.epochs)
    known = [
        *_paired(),
        ("cifar-mnist-grid", "the same sweep on more seeds than the one that selects (chapter 7)", _grid, GRID_SEEDS),
        *_when(),
        (
            "when-toy",
            "LSAM's radius in a window, its phantom in parts, plain baselines (chapter 15)",
            when.toy_plan,
            when.TOY_SEEDS,
        ),
        ("noise", "LSAM where the toy's training features are noisy (chapter 9)", _noise, noise.SEEDS),
        ("batch-size", "LSAM by batch size, epochs and steps fixed (chapter 10)", _batch_size, batch_size.SEEDS),
        ("variants", "SAM's variants and re-weightings in the toy (chapter 12)", _variants, variants.SEEDS),
        ("variants-live", "three of them at one radius, short: what chapter 12 trains", _live, 4),
        ("variants-images", f"{on_images}, reduced: few epochs (chapter 12)", short, variants.SHORT_SEEDS),
        ("variants-images-full", "the same with all epochs of the paper's protocol", full, protocols.SEEDS),
        ("open-choices", f"{constants} (chapter 13)", open_choices.plan, open_choices.SEEDS),
        *_natural(),
    ]
    return {
        name: Experiment(name, about, plan, Store(RESULTS, name, own=RESULTS), seeds)
        for name, about, plan, seeds in known
    }


def _noise(store: Store, seeds: int) -> Plan:
    return Plan(tuple(noise.plan(seeds=seeds)))


def _batch_size(store: Store, seeds: int) -> Plan:
    return Plan(tuple(trial for budget in batch_size.BUDGETS for trial in batch_size.plan(budget, seeds=seeds)))


def _variants(store: Store, seeds: int) -> Plan:
    return Plan((*variants.toy_plan(seeds=seeds), *variants.toy_plan(variants.MINORITY_ROWS, seeds)))


def _live(store: Store, seeds: int) -> Plan:
    return Plan(tuple(variants.live_plan(["sgd", "lsam", "sam"], 0.4, seeds, epochs=40)))


def _paired() -> list[tuple]:
    found = []
    for name, protocol in protocols.PAIRED.items():
        about = f"Table 1, {NAMES[name]}: the full sweep, then {protocols.PAIRED_SEEDS} seeds (chapter 7)"
        found.append((name, about, partial(protocols.plan, [protocol]), protocols.PAIRED_SEEDS))
    return found


def _grid(store: Store, seeds: int) -> Plan:
    protocol = protocols.PAIRED["cifar-mnist"]
    return Plan(tuple(trial for seed in range(1, 1 + seeds) for trial in protocols.grid(protocol, seed)))


def _when() -> list[tuple]:
    about = "SAM and LSAM in the first epochs only, or from then on, on {}"
    return [
        (f"when-{name}", about.format(NAMES[name]), partial(when.plan, name), when.SEEDS) for name in protocols.PAIRED
    ]


def _natural() -> list[tuple]:
    """The experiments on natural images, reduced and by the paper's protocol."""
    reduced, full = ", reduced: few epochs, 64 pixels", ": the paper's protocol, on a GPU"
    found = [(name, "1", reduced, [protocol]) for name, protocol in protocols.REDUCED.items()]
    found.append(("pacs", "2", reduced, domainbed.sweeps("pacs").values()))
    found += [(f"{name}-full", "1", full, [protocol]) for name, protocol in protocols.FULL.items()]
    for name in ("pacs", "vlcs", "office_home"):
        found.append((f"{name}-full", "2", full, domainbed.sweeps(name, "full").values()))
    known = []
    for name, table, what, sweeps in found:
        chapter = {"1": "chapter 16", "2": "chapter 8"}[table]
        about = f"Table {table}, {NAMES[name.removesuffix('-full')]}{what} ({chapter})"
        plan = partial(protocols.plan, [*sweeps])
        known.append((protocols.experiment_name(name), about, plan, protocols.NATURAL_SEEDS))
    return known
