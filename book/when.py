"""When SAM acts on the paired sets: its radius in the first epochs only, or from then on."""

from dataclasses import replace

from book.protocols import PAIRED, selected
from lib.trials.plan import Plan
from lib.trials.store import Store

SWITCHES = (1, 2, 5)  # of 20 epochs
SEEDS = 8
METHODS = ("sam", "lsam")


def plan(dataset: str, store: Store, seeds: int = SEEDS) -> Plan:
    """SAM and LSAM at their selected settings, with the radius before or after each switch, and the whole trainings of
    SGD, SAM and LSAM beside them; they follow the sweep of the set."""
    settings = selected(PAIRED[dataset], store)
    if settings is None:
        return Plan((), seeds * (1 + len(METHODS) * (1 + 2 * len(SWITCHES))))
    epochs = PAIRED[dataset].base.epochs
    nets = [*settings.values()]
    for switch in SWITCHES:
        for ascent in ((0, switch), (switch, epochs)):
            nets += [replace(settings[method], ascent=ascent) for method in METHODS]
    return Plan(tuple(replace(net, seed=seed) for seed in range(seeds) for net in nets))
