"""Chapter 09: LSAM where the training features are noisy (Appendix H.1): grid, rule of C10, Figure 9."""

from collections.abc import Mapping, Sequence
from itertools import islice, product

import numpy as np
from matplotlib.figure import Figure

from book import style, toy
from book.claims import MARGIN, Check, weakest
from book.toy_trial import ToyTrial
from lib.data.toy import NOISY, ToyConstants
from lib.toy.ensemble import lsam

LEVELS = {  # of each kind of noise, above 0 (the ranges are the paper's)
    "label_noise": (0.025, 0.05, 0.075, 0.1),
    "gaussian_noise": (0.25, 0.5, 0.75, 1.0),
    "dropout": (0.1, 0.2, 0.3, 0.4),
}
RADII = (0.0, 0.4, 0.7, 1.0, 1.4, 2.0, 2.8)  # 0 is SGD
SEEDS = 20
NAME = "noise"
KINDS = {  # in words, and what its level is
    "label_noise": ("feature-label noise", "probability $p$ of a flip"),
    "gaussian_noise": ("Gaussian noise", "standard deviation $s$"),
    "dropout": ("dropout", "probability $q$ of a zero"),
}
TARGETS = {"both": "both features", "hard": "hard feature only"}
Levels = Mapping[str, Sequence[float]]  # kind -> levels
Panels = Mapping[tuple[str, str], np.ndarray]  # kind, target -> (level, ..., seed), the first level the clean data
LOOKS = ((style.SGD, "o"), (style.LSAM, "D"), (style.SAM, "s"))  # SGD, fixed rho, chosen rho


def plan(
    radii: Sequence[float] = RADII, levels: Levels = LEVELS, seeds: int = SEEDS, first_seed: int = 100
) -> list[ToyTrial]:
    """The clean data, then every kind, target and level of noise, each with every radius; the last runs fastest, and 0
    among the radii is SGD."""
    noisy = [(kind, target, level) for kind, of in levels.items() for target in NOISY for level in of]
    conditions = [ToyConstants(), *(ToyConstants(noisy=target, **{kind: level}) for kind, target, level in noisy)]
    settings = [lsam(radius, data=data) for data in conditions for radius in radii]
    return [ToyTrial((setting,), seeds, first_seed, name=NAME) for setting in settings]


def by_panel(records: Sequence[dict], radii: Sequence[float], levels: Levels, feature: str, split: str) -> Panels:
    """Errors (level, radius, seed) of the records of a plan with these radii and levels, as by `toy.by_radius`."""
    clean, *noisy = toy.by_radius(records, radii, feature, split)
    rest = iter(noisy)
    return {(kind, to): np.stack([clean, *islice(rest, len(of))]) for kind, of in levels.items() for to in NOISY}


def lines(values: Panels, validation: Panels, radii: Sequence[float], rho: float) -> dict[str, Panels]:
    """Any errors as `by_panel` gives them, the first radius 0, of SGD, of LSAM at `rho`, and of LSAM at the radius
    that is best in hard probing error on `validation` data, see `toy.tuned`: line -> panel -> (level, seed)."""
    return {
        "SGD": {panel: error[:, 0] for panel, error in values.items()},
        f"LSAM, ρ = {rho:g}": {panel: error[:, radii.index(rho)] for panel, error in values.items()},
        "LSAM, chosen ρ": {panel: toy.tuned(error, validation[panel]) for panel, error in values.items()},
    }


def gains(hard: Mapping[str, Panels]) -> dict[str, Panels]:
    """SGD minus LSAM at the levels above 0, of `lines`: line -> panel -> (level, seed)."""
    (_, sgd), *others = hard.items()
    return {name: {panel: (sgd[panel] - error)[1:] for panel, error in lsam.items()} for name, lsam in others}


def judged(hard: Panels, easy: Panels) -> Panels:
    """At which levels above 0 the spiral is the hard feature and C10 is judged: panel -> (level,), of errors
    (level, radius, seed), the first radius 0."""
    return {panel: toy.spiral_is_hard(error, easy[panel])[1:] for panel, error in hard.items()}


def checks(hard: Mapping[str, Panels], where: Panels) -> list[Check]:
    """C10 from the hard probing errors of `lines`: SGD minus LSAM is above 0, `where` it is judged. The main check is
    of every type of noise, a panel of Figure 9, in the mean over its levels and at the chosen radius; the others of
    every level of one panel at either radius. A panel without a level that is judged is left out."""
    found = gains(hard)
    panels = [panel for panel in sorted(where, key=lambda panel: -NOISY.index(panel[1])) if where[panel].any()]
    if not panels:
        return []
    *_, chosen = found.values()
    means = np.stack([chosen[panel][where[panel]].mean(axis=0) for panel in panels])
    every = "every type of noise, mean over its levels, chosen ρ: SGD minus LSAM above 0"
    checked = [weakest(every, means, +1, MARGIN, main=True)]
    for (kind, target), (line, gain) in product(panels, found.items()):
        name = f"{KINDS[kind][0]}, {TARGETS[target]}, {line.removeprefix('LSAM, ')}: SGD minus LSAM above 0"
        checked.append(weakest(name, gain[kind, target][where[kind, target]], +1, MARGIN))
    return checked


def against_level(levels: Levels, rows: Mapping[str, tuple[Mapping[str, Panels], str]]) -> Figure:
    """Figure 9: one column a kind of noise, one row an entry of `rows`, its title -> `lines` and target. Mean over
    seeds with 95 % bands."""
    fig, axes = style.panels(list(rows), [KINDS[kind][0] for kind in levels], sharey="row")
    for row, (found, target) in zip(axes, rows.values()):
        for panel, (kind, values) in zip(row, levels.items()):
            style.lines(panel, (0, *values), {name: of[kind, target] for name, of in found.items()}, LOOKS)
            style.plain(panel.xaxis)
        row[0].set_ylim(bottom=-0.01)
    for panel, kind in zip(axes[-1], levels):
        panel.set_xlabel(KINDS[kind][1])
    fig.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=len(LOOKS))
    return fig
