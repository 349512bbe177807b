"""Chapter 15: when and where SAM and LSAM act, on the paired sets and in the toy: plans, what is kept of a gain and the
rule of it, the border of the hard rate, SAM with a radius for the head and one for the rest, figures."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import product
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from scipy.optimize import brentq

from book import style
from book.claims import MARGIN, Check, Outcome, compared, exact, weakest
from book.image_trial import ImageTrial
from book.open_choices import CHOICES, common
from book.plan import Plan, space_filling
from book.protocols import PAIRED, on_seeds, selected
from book.toy_trial import ToyTrial, errors
from book.variants import best
from lib.data.toy import ToyConstants
from lib.device import threads
from lib.stats import Estimate, estimate, mean_interval
from lib.toy.nets import Model, batch_order
from lib.toy.nets import points as points_of
from lib.toy.setting import ToySetting, lsam, sgd
from lib.toy.stack import errors as stack_errors
from lib.toy.stack import evaluate, initial, unit
from lib.toy.variants import run
from lib.trials.store import Store

Window = tuple[float, float]  # epochs, from the first to before the second, in which the radius holds
HALF = 0.5  # of the gain: what has to be kept
TENTH = 0.1  # of the training
FIRST, LAST, REST = "the first tenth", "the last tenth", "all but the first tenth"
Epochs = Mapping[int, np.ndarray]  # a value of every epoch, by batch size: (seed, epoch)
DOTTED = {"color": style.GREY, "linewidth": 0.9, "linestyle": ":"}
Parts = Mapping[str, np.ndarray]  # what a part of the method leaves, by name: hard probing errors (seed,)

# On images.
SEEDS = 8
METHODS = ("sam", "lsam")
SWITCHES = (1, 2, 5)  # of 20 epochs
Net = tuple[str, Window | None]  # a method and its window; None: the whole training

# In the toy: chapter 03's constants, but for the epochs, on seeds that no chapter and no trial had used.
NAME = "when-toy"
RHO, EPOCHS, TOY_SEEDS, FIRST_SEED = 1.4, 60, 40, 5000
COMMON: dict[str, Any] = {"data": ToyConstants(), "epochs": EPOCHS}
TOY_SWITCHES = (1, 2, 3, 6, 12, 30)
PLAIN, CONSTANT = {"importance": "real", "effective": "real"}, {"importance": "real", "effective": "constant"}
PARTS: dict[str, tuple[dict[str, Any], bool | None]] = {  # of LSAM: what differs, and whether half was to be kept
    "only $w_e$ displaced": ({"displaced": "easy"}, True),
    "only $w_h$ displaced": ({"displaced": "hard"}, False),
    "importance weights alone": ({"effective": "real"}, False),
    "learning rates alone": ({"importance": "real"}, True),
    # Means of w~/w over LSAM's steps, seeds 0 to 7.
    "LSAM's mean rates, constant": ({"rho": 0.0, "rates": (0.54, 0.84), **CONSTANT}, None),
    "the next batch's phantom": ({"phantom_shift": 1}, None),
    "a phantom of 50 points": ({"phantom_points": 50}, None),
    "a phantom of all points": ({"phantom_points": COMMON["data"].training_points}, None),
    "mean of 60 ascents": ({"memory": 60}, None),
    "the same, made $\\rho$ long": ({"memory": 60, "average": "scaled"}, None),
}
# What only slows the easy feature, or keeps logits small, each from weak to where training suffers; and LSAM.
BASELINES: dict[str, tuple[Callable[[float], dict[str, Any]], tuple[float, ...]]] = {
    "LSAM": (lambda rho: {"rho": rho}, (0.7, 1.4, 2.0, 2.8, 4.0)),
    "constant easy rate": (lambda rate: {"rates": (rate, 1.0), **CONSTANT}, (0.03, 0.1, 0.2, 0.3)),
    "spectral decoupling": (lambda strength: {"decoupling": strength, **PLAIN}, (0.03, 0.1, 0.3, 1.0, 3.0)),
    "label smoothing": (lambda share: {"smoothing": share, **PLAIN}, (0.1, 0.4, 0.6, 0.8, 0.9)),
}
# Other constants of the toy: chapter 13's ranges of long trainings, and trainings that are shorter.
RANGES = {one.name: (*one.long, one.scale) for one in CHOICES if one.long and one.name not in ("outer", "noise")}
RANGES["epochs"] = (20, 100, "whole")
POINTS, POINT_SEEDS = 96, 20
# After these had been seen, the first of them once more on other seeds, as long as the main setting: rate x epochs.
LONG, LONG_POINTS, LONG_SEED = 3.0, 50, 6000
TO_GAIN = 0.05  # gain of LSAM from which there is something to keep in a setting of the design


def windows(epochs: float, switches: Sequence[float]) -> list[Window]:
    """Every switch in both directions, then the last tenth of the training."""
    return [window for k in switches for window in ((0, k), (k, epochs))] + [tenths(epochs)[LAST]]


def tenths(epochs: float) -> dict[str, Window]:
    """The windows that are judged; a whole number of epochs as one, a part of an epoch to three digits."""
    ends = (round(TENTH * epochs, 3), round((1 - TENTH) * epochs, 3))
    first, last = (int(end) if end == int(end) else end for end in ends)
    return {FIRST: (0, first), LAST: (last, epochs), REST: (first, epochs)}


def image_nets(dataset: str, store: Store) -> dict[Net, ImageTrial]:
    """SGD, and SAM and LSAM at their selected settings, whole and with the radius in each window only; none while the
    sweep is not complete."""
    settings = selected(PAIRED[dataset], store) or {}
    every = product(windows(PAIRED[dataset].base.epochs, SWITCHES), METHODS if settings else ())
    parts = {(method, window): replace(settings[method], ascent=window) for window, method in every}
    return {(method, None): net for method, net in settings.items()} | parts


def plan(dataset: str, store: Store, seeds: int = SEEDS) -> Plan:
    """The `image_nets` on every seed; they follow the sweep of the set."""
    nets = image_nets(dataset, store).values()
    expected = 0 if nets else seeds * (1 + len(METHODS) * (2 + 2 * len(SWITCHES)))
    return Plan(tuple(on_seeds(nets, seeds)), expected)


def paired(*errors: np.ndarray) -> list[np.ndarray]:
    """The errors, each (seed,), on the seeds that have them all."""
    there = ~np.isnan(errors).any(axis=0)
    return [error[there] for error in errors]


def kept(before: np.ndarray, whole: np.ndarray, part: np.ndarray, share: float = HALF) -> np.ndarray:
    """The gain of a `part` of the method less a `share` of that of the `whole`, (seed,), from errors before and after:
    above 0 where that share is kept."""
    return (before - part) - share * (before - whole)


def share_kept(before: np.ndarray, whole: np.ndarray, part: np.ndarray) -> Estimate:
    """The share of the mean gain that is kept, with those shares that the interval of `kept` does not rule out; no
    spread, as a seed alone may have no gain. Unbounded, the mean NaN, where the whole gain's interval reaches 0."""
    before, whole, part = paired(before, whole, part)
    if not (before.size and (gain := estimate(before - whole)).low > 0):
        return Estimate(len(before), np.nan, np.nan, -np.inf, np.inf)

    def bound(share: float, end: int) -> float:
        return float(mean_interval(kept(before, whole, part, share))[end])

    reach = 10 * (1 + np.abs(before - part).max() / gain.low)  # beyond it either way the interval leaves 0 out
    ends = (brentq(bound, -reach, reach, args=(end,), xtol=1e-3) for end in (1, 2))
    return Estimate(gain.n, float((before - part).mean() / gain.mean), np.nan, *ends)


def keeps(what: str, before: np.ndarray, whole: np.ndarray, part: np.ndarray, main: bool = False) -> Check:
    """Whether half of the gain is kept; not run where no seed has all three errors."""
    return weakest(f"{what} keeps half", kept(*paired(before, whole, part)), +1, main=main)


def checks(where: str, before: np.ndarray, whole: np.ndarray, parts: Parts) -> list[Check]:
    """What is kept of a gain, from hard probing errors (seed,), NaN where there is none; parts: of `tenths`. Shares are
    judged where the whole training has a gain; where it is not known to, they are undecided."""
    premise = weakest(f"{where}: whole gain above 0", np.subtract(*paired(before, whole)), +1, MARGIN)
    found = [keeps(f"{where}: {name}", before, whole, part, name == FIRST) for name, part in parts.items()]
    more = np.subtract(*paired(parts[REST], parts[FIRST]))
    found.append(weakest(f"{where}: {FIRST} keeps more than {REST}", more, +1, MARGIN))
    if premise.outcome is Outcome.CONTRADICTED:
        found = [Check(check.what, main=check.main) for check in found]
    elif premise.outcome is Outcome.UNDECIDED:
        found = [replace(one, outcome=Outcome.UNDECIDED, needs=None) if one.effect else one for one in found]
    return [premise, *found]


def at_best(record: dict) -> dict[str, tuple[pd.DataFrame, float]]:
    """Of the baselines' record: errors at the strength that validation data choose, see `variants.best`, and the
    strength chosen most often."""
    found, start = {}, 0
    for name, (_, strengths) in BASELINES.items():
        row = best(record, slice(start, start := start + len(strengths)))
        found[name] = row, strengths[row.chosen.mode()[0]]
    return found


def points(count: int = POINTS, seed: int = 0) -> list[dict[str, float]]:
    """Points over `RANGES`, see `space_filling`."""
    return space_filling(RANGES, count, seed)


def of_point(values: Mapping[str, float], rho: float = RHO) -> list[ToySetting]:
    """SGD, LSAM, and LSAM in each of the `tenths`, with these constants; the radius is to the head's initial length as
    `rho` is to that of (1, 1)."""
    shared = common(values)
    whole = lsam(float(f"{rho * np.linalg.norm(shared['head']) / 2**0.5:.3g}"), **shared)
    return [sgd(**shared), whole, *(replace(whole, ascent=part) for part in tenths(values["epochs"]).values())]


def toy_trials(rho: float = RHO, seeds: int = TOY_SEEDS, first_seed: int = FIRST_SEED) -> dict[str, ToyTrial]:
    """The main setting: the switches, parts and the baselines, each switch and part after SGD and LSAM."""
    both = [sgd(**COMMON), lsam(rho, **COMMON)]
    settings = {
        "switches": both + [replace(both[1], ascent=window) for window in windows(EPOCHS, TOY_SWITCHES)],
        "parts": both + [ToySetting(**{"rho": rho, **COMMON, **own}) for own, _ in PARTS.values()],
        "baselines": [ToySetting(**make(x), **COMMON) for make, strengths in BASELINES.values() for x in strengths],
    }
    return {name: ToyTrial(tuple(some), seeds, first_seed, name=NAME) for name, some in settings.items()}


def design(
    count: int = POINTS, rho: float = RHO, seeds: int = POINT_SEEDS, first_seed: int = FIRST_SEED, length: float = 0
) -> list[ToyTrial]:
    """One trial for each of the `points`; with a `length` of so many epochs times the learning rate."""
    values = points(count)
    if length:
        values = [one | {"epochs": round(length / one["learning_rate"])} for one in values]
    return [ToyTrial(tuple(of_point(one, rho)), seeds, first_seed, name=NAME) for one in values]


def toy_plan(store: Store, seeds: int = TOY_SEEDS) -> Plan:
    """All stored trials of the toy."""
    few = seeds * POINT_SEEDS // TOY_SEEDS
    longer = design(LONG_POINTS, RHO, few, LONG_SEED, LONG)
    return Plan((*toy_trials(seeds=seeds).values(), *design(seeds=few), *longer))


def judged_points(records: Sequence[dict]) -> dict[str, np.ndarray]:
    """Of every record of the `design`: the gain of LSAM, and outcomes (as text) and shares of what is kept, each
    (point,); empty and NaN where the gain is below `TO_GAIN`, or its interval reaches 0."""
    rows = []
    for before, whole, *parts in (errors(record, "hard") for record in records):
        gains = np.subtract(*paired(before, whole))
        gain = estimate(gains) if gains.size else Estimate(0, *[np.nan] * 4)
        row, judged = {"gain": gain.mean}, gain.low > 0 and gain.mean >= TO_GAIN
        for name, part in zip(tenths(1), parts):
            row[f"outcome of {name}"] = keeps("", before, whole, part).outcome.value if judged else ""
            row[f"share of {name}"] = np.subtract(*paired(before, part)).mean() / gain.mean if judged else np.nan
        rows.append(row)
    return {name: np.array([row[name] for row in rows]) for name in rows[0]}


def least_error(batch: int) -> float:
    """The hard training error e from which on a majority of batches has a point that is wrong, 1 - (1 - e)^B = 1/2."""
    return 1 - 0.5 ** (1 / batch)


def raised(trace: np.ndarray, epochs: int) -> np.ndarray:
    """The share of each epoch's steps at whose phantom the hard weight is larger, w~_h / w_h > 1, (seed, epoch), from a
    trace of every step (seed, step, 4)."""
    return (trace[..., 3] / trace[..., 1] > 1).reshape(len(trace), epochs, -1).mean(axis=-1)


def hard_rate_identity(trace: np.ndarray, rate: float, rho: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Both sides of sum N (w~_h / w_h - 1) = -(rho / eta) log(w_h at the end / at the start), and the mean of w~_h/w_h
    weighted with N, each (seed,); trace (seed, step, 4): of SGD's steps, whose phantom is only watched. N is the norm
    of the head's gradient: SGD's step is `rate` times that."""
    trace = trace.astype(float)
    norms, hard = np.linalg.norm(np.diff(trace[..., :2], axis=1), axis=-1) / rate, trace[..., 1]
    excess = (trace[..., 3] / hard - 1)[:, :-1]
    right = -rho / rate * np.log(hard[:, -1] / hard[:, 0])
    return (norms * excess).sum(axis=1), right, 1 + (norms * excess).sum(axis=1) / norms.sum(axis=1)


def border_checks(error: Epochs, share: Epochs) -> list[Check]:
    """Whether the border moves with the batch, from hard training errors and shares of raised steps, batch size ->
    (seed, epoch), the smallest batch first."""
    small, *larger = error
    low, border = least_error(larger[-1]), least_error(small)
    kept_to = all((share[b].mean(axis=0) <= 1 - (1 - error[b].mean(axis=0)) ** b).all() for b in error)
    found = [exact("share of raised steps at most that of batches with a wrong point", kept_to, trivial=True)]
    inside = {b: np.ma.masked_where((error[b] <= low) | (error[b] >= border), share[b]) for b in error}
    between = {b: of_batch.mean(axis=1).filled(np.nan) for b, of_batch in inside.items()}  # NaN: no epoch is inside
    for batch in larger:
        below = share[batch][:, error[batch].mean(axis=0) < border]
        most = [estimate(max(below.T, key=np.mean))] if below.size else []
        what = f"B = {batch}: an epoch below {border:.1%} in which a majority is raised"
        found.append(compared(what, most, low=HALF))
        what = f"B = {batch}: between {low:.1%} and {border:.1%} more steps raised than with {small}"
        found.append(weakest(what, np.subtract(*paired(between[batch], between[small])), +1))
    return found


@threads(1)  # more only wait for one another: the arrays are small
def two_radii(radii: Sequence[tuple[float, float]], seeds: Sequence[int], epochs: int = EPOCHS) -> np.ndarray:
    """Errors (radii, seed, feature) on test data of SAM whose ascent has one length on the head and another below: with
    (rho, 0) LSAM, with (0, 0) SGD. Width, rate, batch and head are those of `ToySetting`."""
    nets = [(lengths, seed) for lengths in radii for seed in seeds]
    models = [Model(ToySetting(epochs=epochs), seed) for _, seed in nets]
    drawn, evaluation, index = points_of(models)
    theta, training = initial(models), torch.from_numpy(drawn[index])
    on_head, below = torch.tensor([lengths for lengths, _ in nets], dtype=torch.float64).T[..., None, None]
    each = torch.arange(len(nets))[:, None]

    def descent(step: int, theta: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
        x, y = training[each, chosen].split((4, 1), dim=-1)
        ascent = of_two_lengths(evaluate(theta, x, y[..., 0])[1], on_head, below)
        return evaluate(theta + ascent, x, y[..., 0])[1]

    order = np.stack([batch_order(seed, training.shape[1], epochs).ravel() for _, seed in nets])
    theta = run(theta, models, order, descent)
    return stack_errors(theta, evaluation[index][:, 1]).reshape(len(radii), len(seeds), -1)


def of_two_lengths(gradient: torch.Tensor, on_head: torch.Tensor, below: torch.Tensor) -> torch.Tensor:
    """The ascent along gradients (m, 2, size + 1) that is so long, each (m, 1, 1), on the head and below."""
    head = torch.zeros_like(gradient)
    head[..., -1] = gradient[..., -1]
    return unit(head, on_head) + unit(gradient - head, below)


def figure_images(gains: Mapping[str, Mapping[Window | None, np.ndarray]]) -> Figure:
    """What each window gains in hard probing error, in points: panel title -> window -> (seed,), the whole training
    (None) first."""
    looks = {"throughout": (style.GREY, "D"), "first epochs only": (style.LSAM, "o"), "from there on": (style.SGD, "s")}
    fig, axes = style.grid(len(gains), 2, 2.45, sharex=True, sharey=True)
    for panel, (title, of_window) in zip(axes.flat, gains.items()):
        kinds = [0 if window is None else 2 if window[0] else 1 for window in of_window]
        named = ["all epochs" if w is None else f"epochs {w[0] + 1} to {w[1]}" for w in of_window]
        rows = {name: 100 * values for name, values in zip(named, of_window.values())}
        style.effects(panel, rows, [list(looks.values())[kind] for kind in kinds])
        panel.axvline(0, color="black", linewidth=0.6)
        if (half := 100 * HALF * of_window[None].mean()) > 0:
            panel.axvline(half, **DOTTED)
        panel.set_title(title)
    for panel in axes[-1]:
        panel.set_xlabel("fall of the hard probing error, points")
    shown = {name: {"color": colour, "marker": marker, "linestyle": ""} for name, (colour, marker) in looks.items()}
    style.legend(fig, shown, loc="outside upper center", ncols=len(looks))
    return fig


def figure_switch(
    found: Mapping[Window | None, np.ndarray], before: np.ndarray, points: Parts, longer: Parts
) -> Figure:
    """Left: hard probing error (seed,) against the epoch of the switch, by the window of LSAM (None: all of the
    training), and that of SGD. Right: shares of the gain kept by the first tenth and by the rest, of the
    `judged_points` of the design and of longer trainings."""
    fig, (left, right) = plt.subplots(1, 2, figsize=(style.PAGE_WIDTH, 3.3), width_ratios=[1.25, 1])
    first, later = (sorted(w for w in found if w and bool(w[0]) is late) for late in (False, True))
    switches = {"LSAM, then SGD": (first, 1, style.LSAM, "o"), "SGD, then LSAM": (later, 0, style.SGD, "s")}
    for name, (of, end, *look) in switches.items():
        style.line(left, [window[end] for window in of], np.stack([found[window] for window in of]), *look, label=name)
    for values, colour, name in ((before, style.SGD, "SGD throughout"), (found[None], style.LSAM, "LSAM throughout")):
        left.axhline(values.mean(), color=colour, linewidth=1, linestyle=":", label=name)
    left.set(xscale="log", xlabel="epoch of the switch", ylabel="hard probing error", ylim=(0, None))
    style.plain(left.xaxis, ticks=[window[0] for window in later])
    left.legend(fontsize=8.5, loc="center right", bbox_to_anchor=(1.0, 0.6))
    right.axline((0, 0), slope=1, color=style.GREY, linewidth=0.7)
    right.axvline(100 * HALF, **DOTTED)
    right.axhline(100 * HALF, **DOTTED)
    for name, of, colour, look in (("20 to 100 epochs", points, style.GREY, "x"), ("long", longer, style.LSAM, "o")):
        shares = [100 * of[f"share of {part}"] for part in (FIRST, REST)]  # NaN where it is not judged
        right.plot(*shares, look, color=colour, markersize=4, alpha=0.8, label=name)
    right.legend(fontsize=8.5)
    right.set(xlabel=f"kept by {FIRST}", ylabel=f"kept by {REST}", title="other constants")
    for axis in (right.xaxis, right.yaxis):
        axis.set_major_formatter(PercentFormatter(decimals=0))
    return fig


def figure_parts(before: np.ndarray, whole: np.ndarray, parts: Parts, baselines: Parts) -> Figure:
    """The hard probing error, (seed,), that parts of the phantom and plain baselines leave, a row each; dotted, half of
    the way from SGD's to LSAM's."""
    rows = {"SGD": before, "LSAM": whole} | dict(parts) | {f"{name}*": values for name, values in baselines.items()}
    looks = [(style.SGD, "v"), (style.LSAM, "D"), *[(style.HARD, "o")] * len(parts)]
    fig, axes = plt.subplots(figsize=(style.PAGE_WIDTH, 0.8 + 0.26 * len(rows)))
    style.effects(axes, rows, [*looks, *[(style.SAM, "s")] * len(baselines)])
    axes.axvline(before.mean() - HALF * (before - whole).mean(), **DOTTED)
    axes.set(xlabel="hard probing error", xlim=(0, None))
    return fig


def figure_border(found: Mapping[str, tuple[Epochs, Epochs]]) -> Figure:
    """Hard training error e and share of raised steps of every epoch, in the mean over seeds, a row a setting, with the
    bound 1 - (1 - e)^B."""
    batches = next(iter(found.values()))[0]
    rows = [f"{setting} setting:\nsteps with $\\tilde w_h > w_h$" for setting in found]
    fig, axes = style.panels(rows, [f"batches of {batch}" for batch in batches], 2.2, sharex=True, sharey=True)
    grid = np.geomspace(1e-3, 0.6, 200)
    for panels, (error, share) in zip(axes, found.values()):
        for panel, batch in zip(panels, error):
            panel.plot(100 * grid, 1 - (1 - grid) ** batch, color="black", linewidth=1)
            panel.plot(100 * error[batch].mean(axis=0), share[batch].mean(axis=0), "o", color=style.HARD, markersize=3)
            panel.axhline(HALF, **DOTTED)
            panel.axvline(100 * least_error(batch), **DOTTED)
            panel.set(xscale="log", xlim=(0.8, 60), ylim=(-0.02, 1.02))
            style.plain(panel.xaxis, ticks=(1, 3, 10, 30))
    fig.supxlabel("hard training error, %", fontsize=9)
    return fig
