"""Which trials on natural images are run: the paper's protocol for each data set, and reduced ones that two
cores of a CPU can do.

Lost in the text, and chosen here: the size of the images, the weight decay, and for DomainBed's sets all but
the radii. Both kinds of plan are the same functions at other constants.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from lib import resnet
from lib.data import domains, groups
from lib.selection import best_record
from lib.trials.images import ImageTrial, domain, grouped
from lib.trials.plan import Plan
from lib.trials.store import Store
from lib.trials.trial import Trial
from lib.trials.weights import WeightTrial

# Reduced: few epochs, a coarse sweep, 64 pixels, and ImageNet's weights up to layer3 only.
REDUCED_EPOCHS = {"celeba": 2, "birds_on_scenes": 4, "pacs": 2}
REDUCED_MOMENTS = {"celeba": (1,), "birds_on_scenes": (1,)}  # epochs of Figures 7 and 8, beside the last
REDUCED_RATES, REDUCED_RADII = (0.001, 0.01), (0.02, 0.07)
REDUCED_DOMAIN_RATE, REDUCED_DOMAIN_RADIUS = 0.01, 0.05
REDUCED_SIZE = 64
REDUCED_BATCHES = 8  # of 128 training images, whose weights are measured
REDUCED_WEIGHTS = "resnet18_imagenet_to_layer3.pt"
REDUCED_DOMAIN_SEEDS = 3

# The paper's (Appendices B and F).
EPOCHS = {"celeba": 20, "waterbirds": 100}
RATES, RADII = (0.0005, 0.001, 0.005, 0.01), (0.01, 0.02, 0.05, 0.07)
DOMAIN_RADII = (0.03, 0.05, 0.1)  # by a second-hand source
SEEDS = 4
# Chosen here, as the text is silent.
SIZE = {"celeba": 112, "waterbirds": 224}
DOMAIN_SIZE, DOMAIN_EPOCHS = 224, 20
MOMENTS = {"celeba": (1, 5, 10), "waterbirds": (1, 10, 50)}


@dataclass(frozen=True)
class Protocol:
    """A sweep, from whose trials on seed 0 one setting of SGD and one of SAM are chosen for all seeds."""

    base: ImageTrial  # of SGD, seed 0
    rates: tuple[float, ...]
    radii: tuple[float, ...]  # of SAM
    moments: tuple[int, ...] = ()  # epochs after which weights are measured, beside the last
    batches: int | None = None  # how many of them; None: all


def groups_reduced(dataset: str) -> Protocol:
    """The reduced protocol of CelebA or of the stand-in for Waterbirds."""
    base = grouped(dataset, "sgd", epochs=REDUCED_EPOCHS[dataset], size=REDUCED_SIZE, weights=REDUCED_WEIGHTS)
    return Protocol(base, REDUCED_RATES, REDUCED_RADII, REDUCED_MOMENTS[dataset], REDUCED_BATCHES)


def groups_full(dataset: str) -> Protocol:
    """The paper's protocol of CelebA or Waterbirds."""
    base = grouped(dataset, "sgd", epochs=EPOCHS[dataset], size=SIZE[dataset], weights=resnet.IMAGENET)
    return Protocol(base, RATES, RADII, MOMENTS[dataset])


def domains_reduced(benchmark: str) -> list[Protocol]:
    """The reduced protocol of a benchmark, one for each target."""
    base = dict(method="sgd", epochs=REDUCED_EPOCHS[benchmark], size=REDUCED_SIZE, weights=REDUCED_WEIGHTS)
    return [
        Protocol(domain(benchmark, target, **base), (REDUCED_DOMAIN_RATE,), (REDUCED_DOMAIN_RADIUS,))
        for target in domains.BENCHMARKS[benchmark].domains
    ]


def domains_full(benchmark: str) -> list[Protocol]:
    """The paper's protocol of a benchmark, one for each target."""
    base = dict(method="sgd", epochs=DOMAIN_EPOCHS, size=DOMAIN_SIZE, weights=resnet.IMAGENET)
    return [
        Protocol(domain(benchmark, target, **base), RATES, DOMAIN_RADII)
        for target in domains.BENCHMARKS[benchmark].domains
    ]


def grid(protocol: Protocol) -> list[ImageTrial]:
    """The sweep: every learning rate with SGD and with SAM at every radius, on seed 0."""
    return [
        replace(protocol.base, lr=lr, rho=rho, method="sam" if rho else "sgd")
        for lr in protocol.rates
        for rho in (0.0, *protocol.radii)
    ]


def select(sweep: Sequence[ImageTrial], store: Store) -> ImageTrial | None:
    """The trial of `sweep` that validation data select, see `best_record`; the validation error of sets of
    groups is the one weighted by the shares in training.

    A single trial needs no record. None while one of several is not stored; raises ValueError where all of
    them diverged.
    """
    if len(sweep) == 1:
        return sweep[0]
    records = [store.read(trial.configuration) for trial in sweep]
    if None in records:
        return None
    best = best_record(records)
    if best is None:
        raise ValueError(
            f"sweep must hold a trial that finished, but all {len(sweep)} of {sweep[0].data.name} "
            f"with {sweep[0].method} diverged"
        )
    return sweep[records.index(best)]


def selected(protocol: Protocol, store: Store) -> dict[str, ImageTrial] | None:
    """The setting chosen for each method on seed 0, separately; None while the sweep is not complete."""
    chosen = {
        method: select([trial for trial in grid(protocol) if trial.method == method], store)
        for method in ("sgd", "sam")
    }
    return None if None in chosen.values() else chosen


def weight_trials(protocol: Protocol, settings: dict[str, ImageTrial], seeds: int) -> list[WeightTrial]:
    """Importance weights of the nets of SGD and SAM on each seed, at SAM's radius, at the protocol's moments
    and at the end; none for DomainBed's sets."""
    if not isinstance(protocol.base.data, groups.Groups):
        return []
    return [
        WeightTrial(replace(settings[method], seed=seed), settings["sam"].rho, epoch, batches=protocol.batches)
        for seed in range(seeds)
        for method in settings
        for epoch in (*protocol.moments, None)
    ]


def untrained(protocol: Protocol, seeds: int) -> list[ImageTrial]:
    """The nets of seeds 0, 1, ... as they begin."""
    return [replace(protocol.base, epochs=0, seed=seed) for seed in range(seeds)]


def comparison(protocol: Protocol, settings: dict[str, ImageTrial], seeds: int) -> list[ImageTrial]:
    """The untrained net and both methods at their settings, with seeds 0, 1, ...: paired by seed."""
    return [
        *untrained(protocol, seeds),
        *(replace(trial, seed=seed) for seed in range(seeds) for trial in settings.values()),
    ]


def training_images(configuration: Mapping) -> int:
    """How many images for training the complete set of a trial's configuration has."""
    if configuration["experiment"] == "groups":
        return sum(groups.COUNTS[configuration["dataset"]][0])
    benchmark = domains.BENCHMARKS[configuration["benchmark"]]
    target = list(benchmark.domains).index(configuration["target"])
    sources = sum(benchmark.counts) - benchmark.counts[target]
    return sources - round(sources * domains.VALIDATION_SHARE)


def on_part(records: Iterable[dict]) -> bool:
    """Whether any of these trials was run on fewer images than the complete set has."""
    return any(record["images"]["train"] < training_images(record["configuration"]) for record in records)


def plan(protocols: Sequence[Protocol], store: Store, seeds: int = SEEDS) -> Plan:
    """All trials that are known by now: every sweep, and with seeds 0, 1, ... the settings chosen on it,
    paired by seed, and the importance weights of their nets."""
    trials: list[Trial] = []
    later = 0
    for protocol in protocols:
        trials += grid(protocol)
        settings = selected(protocol, store)
        if settings is None:
            measured = len(protocol.moments) + 1 if isinstance(protocol.base.data, groups.Groups) else 0
            # The sweep has both methods' nets of seed 0.
            later += 2 * seeds * (1 + measured) - 2 + len(untrained(protocol, seeds))
            continue
        measured = weight_trials(protocol, settings, seeds)
        # A net's weights within its training come first: the whole training then goes on from there.
        trials += [trial for trial in measured if trial.epoch is not None]
        trials += comparison(protocol, settings, seeds)
        trials += [trial for trial in measured if trial.epoch is None]
    return Plan(tuple(dict.fromkeys(trials)), later)
