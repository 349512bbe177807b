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
    pair, pairs = protocols.PAIRED["cifar-mnist"], protocols.PAIRED.items()
    sweep = f"Table 1, {{}}: the full sweep, then {protocols.PAIRED_SEEDS} seeds (chapter 7)"
    short, full = (partial(variants.image_plan, epochs=n) for n in (variants.SHORT_EPOCHS, pair.base.epochs))
    ascents = "LSAM's radius in a window, its phantom in parts, plain baselines (chapter 15)"
    first = "SAM and LSAM in the first epochs only, or from then on, on"
    grids = _of(lambda seeds: (one for seed in range(1, 1 + seeds) for one in protocols.grid(pair, seed)))
    budgets = _of(lambda seeds: (one for of in batch_size.BUDGETS for one in batch_size.plan(of, seeds=seeds)))
    rows = variants.ROWS, variants.MINORITY_ROWS
    ranked = _of(lambda seeds: (one for of in rows for one in variants.toy_plan(of, seeds)))
    live = _of(lambda seeds: variants.live_plan(["sgd", "lsam", "sam"], 0.4, seeds, epochs=40))
    known = [
        *(
            (name, sweep.format(NAMES[name]), partial(protocols.plan, [one]), protocols.PAIRED_SEEDS)
            for name, one in pairs
        ),
        ("cifar-mnist-grid", "the same sweep on more seeds than the one that selects (chapter 7)", grids, GRID_SEEDS),
        *(
            (f"when-{name}", f"{first} {NAMES[name]}", partial(when.plan, name), when.SEEDS)
            for name in protocols.PAIRED
        ),
        ("when-toy", ascents, when.toy_plan, when.TOY_SEEDS),
        ("noise", "LSAM where the toy's training features are noisy (chapter 9)", _of(noise.plan), noise.SEEDS),
        ("batch-size", "LSAM by batch size, epochs and steps fixed (chapter 10)", budgets, batch_size.SEEDS),
        ("variants", "SAM's variants and re-weightings in the toy (chapter 12)", ranked, variants.SEEDS),
        ("variants-live", "three of them at one radius, short: what chapter 12 trains", live, 4),
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


def _natural() -> list[tuple]:
    """The experiments on natural images, reduced and by the paper's protocol."""
    known = []
    for kind, what in (("reduced", ", reduced: few epochs, 64 pixels"), ("full", ": the paper's protocol, on a GPU")):
        found = [(name, "1", 16, [protocol]) for name, protocol in protocols.NATURAL[kind].items()]
        benchmarks = ("pacs",) if kind == "reduced" else ("pacs", "vlcs", "office_home")
        found += [(name, "2", 8, [*domainbed.sweeps(name, kind).values()]) for name in benchmarks]
        for name, table, chapter, sweeps in found:
            about = f"Table {table}, {NAMES[name]}{what} (chapter {chapter})"
            full = "-full" * (kind == "full")
            plan = partial(protocols.plan, sweeps)
            known.append((protocols.experiment_name(name) + full, about, plan, protocols.NATURAL_SEEDS))
    return known
