"""Chapter 09: LSAM where the training features are noisy (Appendix H.1): grid, rule of C10, Figure 9."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.pyplot import subplots

from book import style
from book.claims import MARGIN, Check, weakest
from book.toy import spiral_is_hard
from lib import check
from lib.data.toy import NOISY, ToyConstants
from lib.stats import at_choice, choose, whole_seeds
from lib.toy.ensemble import lsam
from lib.trials.toy import ToyTrial, errors

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
Errors = Mapping[str, np.ndarray]  # kind -> (target, level, ..., seed), the first level the clean data
LOOKS = ((style.SGD, "o"), (style.LSAM, "D"), (style.SAM, "s"))  # SGD, fixed rho, chosen rho


def conditions(levels: Levels = LEVELS) -> list[ToyConstants]:
    """The clean data, then every kind, target and level of noise, the level running fastest.

    Raises ValueError for an unknown kind, or a level of 0: that is the clean data.
    """
    found = [ToyConstants()]
    for kind, values in levels.items():
        check.choice("levels", kind, LEVELS)
        values = [check.number(f"levels of {kind}", value, 0, above=True) for value in values]
        found += [ToyConstants(noisy=target, **{kind: level}) for target in NOISY for level in values]
    return found


def plan(
    radii: Sequence[float] = RADII, levels: Levels = LEVELS, seeds: int = SEEDS, first_seed: int = 100
) -> list[ToyTrial]:
    """One trial for every condition and radius, the radius running fastest; 0 among the radii is SGD."""
    settings = [lsam(radius, data=data) for data in conditions(levels) for radius in radii]
    return [ToyTrial((setting,), seeds, first_seed, name=NAME) for setting in settings]


def by_radius(records: Sequence[dict], radii: Sequence[float], feature: str, split: str) -> np.ndarray:
    """Errors (condition, radius, seed) of the records of a plan with these radii, which run fastest.

    A seed of which some net diverged is left out everywhere, so that all that is compared is paired.
    """
    found = whole_seeds(np.stack([errors(record, feature, split)[0] for record in records]))
    return found.reshape(-1, len(radii), found.shape[-1])


def by_condition(
    records: Sequence[dict], radii: Sequence[float], levels: Levels, feature: str, split: str
) -> dict[str, np.ndarray]:
    """Errors of the records of a plan with these radii and levels, as by `by_radius`: kind -> (target, level, radius,
    seed)."""
    found = by_radius(records, radii, feature, split)
    ends = np.cumsum([1, *(len(NOISY) * len(values) for values in levels.values())])
    clean, *noisy = np.split(found, ends[:-1])
    both = (np.split(of_kind, len(NOISY)) for of_kind in noisy)
    return {kind: np.stack([np.concatenate([clean, part]) for part in parts]) for kind, parts in zip(levels, both)}


def compared(
    values: Errors, validation: Errors, radii: Sequence[float], rho: float
) -> dict[str, dict[str, np.ndarray]]:
    """Any errors as `by_condition` gives them, at the radii that are compared: line -> kind -> (target, level, seed).

    The lines are SGD, LSAM at `rho`, and LSAM at the radius above 0 that is best in hard probing error on the
    `validation` data of the other seeds. The first of the radii must be 0.
    """
    one = radii.index(rho)
    return {
        "SGD": {kind: error[..., 0, :] for kind, error in values.items()},
        f"LSAM, ρ = {rho:g}": {kind: error[..., one, :] for kind, error in values.items()},
        "LSAM, chosen ρ": {kind: tuned(error, validation[kind]) for kind, error in values.items()},
    }


def tuned(errors: np.ndarray, validation: np.ndarray) -> np.ndarray:
    """Errors at the radius above 0 that is best on the validation data of the other seeds: (..., seed) of (..., radius,
    seed), the first radius 0."""
    return at_choice(errors[..., 1:, :], choose(validation[..., 1:, :]))


def gains(hard: Mapping[str, Errors]) -> dict[str, dict[str, np.ndarray]]:
    """SGD minus LSAM at the levels above 0, from the lines of `compared`: line -> kind -> (target, level, seed)."""
    (_, sgd), *lines = hard.items()
    return {name: {kind: (sgd[kind] - error)[:, 1:] for kind, error in lsam.items()} for name, lsam in lines}


def judged(hard: Errors, easy: Errors) -> dict[str, np.ndarray]:
    """At which levels above 0 the spiral is the hard feature and C10 is judged: kind -> (target, level), of errors
    (target, level, radius, seed), the first radius 0."""
    return {kind: spiral_is_hard(hard[kind], easy[kind])[:, 1:] for kind in hard}


def checks(hard: Mapping[str, Errors], where: Mapping[str, np.ndarray]) -> list[Check]:
    """C10 from the hard probing errors of `compared`: SGD minus LSAM is above 0, `where` it is judged.

    The main check is of every type of noise, a panel of Figure 9, in the mean over its levels and at the chosen radius;
    the others of every level of one panel at either radius. A panel without a level that is judged is left out.
    """
    found, panels = (
        gains(hard),
        [(t, kind) for t in reversed(range(len(NOISY))) for kind in where if where[kind][t].any()],
    )
    if not panels:
        return []
    *_, chosen = found.values()
    means = np.stack([chosen[kind][t, where[kind][t]].mean(axis=0) for t, kind in panels])
    every = "every type of noise, mean over its levels, chosen ρ: SGD minus LSAM above 0"
    checked = [weakest(every, means, +1, MARGIN, main=True)]
    for (t, kind), (line, gain) in product(panels, found.items()):
        panel = f"{KINDS[kind][0]}, {TARGETS[NOISY[t]]}, {line.removeprefix('LSAM, ')}"
        checked.append(weakest(f"{panel}: SGD minus LSAM above 0", gain[kind][t, where[kind][t]], +1, MARGIN))
    return checked


def against_level(levels: Levels, rows: Mapping[str, Mapping[str, Errors]]) -> Figure:
    """Figure 9: one column a kind of noise, one row an entry of `rows`, its title -> line -> kind -> (level, seed).

    levels: kind -> the levels, 0 first. Lines are mean over seeds with 95 % bands.
    """
    fig, axes = panels_of(rows, [KINDS[kind][0] for kind in levels], sharey="row")
    for panels, lines in zip(axes, rows.values()):
        for panel, kind in zip(panels, levels):
            for (name, of_kind), (colour, marker) in zip(lines.items(), LOOKS):
                style.line(panel, levels[kind], of_kind[kind], colour, marker, label=name)
            style.plain(panel.xaxis)
        _floor_at_zero(panels[0])
    for panel, kind in zip(axes[-1], levels):
        panel.set_xlabel(KINDS[kind][1])
    fig.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=len(LOOKS))
    return fig


def against_radius(radii: Sequence[float], levels: Levels, rows: Mapping[str, Errors]) -> Figure:
    """Every radius: columns as in `against_level`, one row an entry of `rows`, its title -> kind -> (level, radius,
    seed); one line a level, darker for less noise."""
    fig, axes = panels_of(rows, [KINDS[kind][0] for kind in levels], sharey="row")
    for panels, of_kind in zip(axes, rows.values()):
        for panel, kind in zip(panels, levels):
            style.lines(panel, radii, {f"{level:g}": v for level, v in zip(levels[kind], of_kind[kind])})
        _floor_at_zero(panels[0])
    for kind, top, bottom in zip(levels, axes[0], axes[-1]):
        looks = {"columnspacing": 1, "handlelength": 1.3, "fontsize": 7.5, "title_fontsize": 7.5}
        top.legend(title=KINDS[kind][1], ncols=2, loc="upper right", **looks)
        bottom.set_xlabel(style.RADIUS)
    return fig


def panels_of(rows: Iterable[str], columns: Sequence[str], **shared: Any) -> tuple[Figure, np.ndarray]:
    """Panels for every row, its name at the left, and every column, its name on top."""
    rows = list(rows)
    size = style.PAGE_WIDTH, 0.7 + 2.1 * len(rows)
    fig, axes = subplots(len(rows), len(columns), figsize=size, squeeze=False, **shared)
    for panel, title in zip(axes[0], columns):
        panel.set_title(title)
    for panel, title in zip(axes[:, 0], rows):
        panel.set_ylabel(title)
    return fig, axes


def _floor_at_zero(axes: Axes) -> None:
    """An axis of errors that begins just below 0."""
    top = max(axes.get_ylim()[1], 0.02)
    axes.set_ylim(-0.03 * top, top)
