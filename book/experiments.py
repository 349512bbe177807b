"""Every heavy experiment of the book, by name; its results are in the folder of that name."""

from collections.abc import Callable, Iterable
from functools import partial

from book import batch_size, domainbed, noise, open_choices, protocols, variants, when
from book.plan import Experiment, Plan
from lib.stats import FEW
from lib.trials.store import RESULTS, Store
from lib.trials.trial import Trial

NAMES = protocols.TITLES | domainbed.TITLES | {"birds_on_scenes": "a stand-in for Waterbirds"}

GRID_SEEDS = 3


def experiments() -> dict[str, Experiment]:
    """The experiments by name, in the book's order."""
    on_images, toy = "SAM's variants on CIFAR-MNIST", "of the toy, one at a time and all at once"
    short = partial(variants.image_plan, epochs=variants.SHORT_EPOCHS)
    full = partial(variants.image_plan, epochs=protocols.PAIRED["cifar-mnist"].base.epochs)
    ascents = "LSAM's radius in a window, its phantom in parts, plain baselines (chapter 15)"
    known = [
        *_paired(),
        ("when-toy", ascents, when.toy_plan, when.TOY_SEEDS),
        ("noise", "LSAM where the toy's training features are noisy (chapter 9)", _of(noise.plan), noise.SEEDS),
        ("batch-size", "LSAM by batch size, epochs and steps fixed (chapter 10)", _of(_budgets), batch_size.SEEDS),
        ("variants", "SAM's variants and re-weightings in the toy (chapter 12)", _of(_variants), variants.SEEDS),
        ("variants-live", "three of them at one radius, short: what chapter 12 trains", _of(_live), 4),
        ("variants-images", f"{on_images}, reduced: few epochs (chapter 12)", short, variants.SHORT_SEEDS),
        ("variants-images-full", "the same with all epochs of the paper's protocol", full, protocols.SEEDS),
        ("open-choices", f"Lost constants {toy} (chapter 13)", open_choices.plan, open_choices.SEEDS),
        ("open-choices-map", "all of them at once, in wide ranges (chapter 13)", open_choices.map_plan, FEW),
        *_natural(),
    ]
    return {
        name: Experiment(name, about, plan, Store(RESULTS, name, own=RESULTS), seeds)
        for name, about, plan, seeds in known
    }


def _of(trials: Callable[..., Iterable[Trial]]) -> Callable[[Store, int], Plan]:
    """A plan of trials that follow from no result."""
    return lambda store, seeds: Plan(tuple(trials(seeds=seeds)))


def _budgets(seeds: int) -> list[Trial]:
    return [trial for budget in batch_size.BUDGETS for trial in batch_size.plan(budget, seeds=seeds)]


def _variants(seeds: int) -> list[Trial]:
    return [*variants.toy_plan(seeds=seeds), *variants.toy_plan(variants.MINORITY_ROWS, seeds)]


def _live(seeds: int) -> list[Trial]:
    return variants.live_plan(["sgd", "lsam", "sam"], 0.4, seeds, epochs=40)


def _grid(seeds: int) -> list[Trial]:
    protocol = protocols.PAIRED["cifar-mnist"]
    return [trial for seed in range(1, 1 + seeds) for trial in protocols.grid(protocol, seed)]


def _paired() -> list[tuple]:
    """The experiments on paired sets."""
    sweep = f"Table 1, {{}}: the full sweep, then {protocols.PAIRED_SEEDS} seeds (chapter 7)"
    first = "SAM and LSAM in the first epochs only, or from then on, on {}"
    found = [
        (name, sweep.format(NAMES[name]), partial(protocols.plan, [protocol]), protocols.PAIRED_SEEDS)
        for name, protocol in protocols.PAIRED.items()
    ]
    more = "the same sweep on more seeds than the one that selects (chapter 7)"
    found.append(("cifar-mnist-grid", more, _of(_grid), GRID_SEEDS))
    return found + [
        (f"when-{name}", first.format(NAMES[name]), partial(when.plan, name), when.SEEDS) for name in protocols.PAIRED
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
