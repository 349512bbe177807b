"""Chapter 10: LSAM at every batch size (Appendix H.2): grid, rule of C11, Figure 10."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from book import style
from book.claims import MARGIN, Check, compared, weakest
from book.interventions import of_means
from book.notebook import ParameterError
from book.selection import at_choice, choose
from book.toy import tuned
from book.toy_trial import ToyTrial
from lib.data.toy import ToyConstants
from lib.stats import LEVEL, Estimate, bootstrap_means, estimate, mean_interval
from lib.toy.ensemble import lsam

SIZES = (1, 2, 5, 10, 20, 50, 100, 300)  # 300 is the whole training set: gradient descent
PAPER = 5  # the paper's size of a batch
RADII = (0.0, 0.7, 1.4, 2.0, 2.8, 4.0)  # 0 is SGD
BUDGETS = {"epochs": 200, "steps": 12_000}  # the book's epochs, and the steps that they are at the paper's size
SEEDS = 20
NAME = "batch-size"
SPREAD = 2  # best radii are much the same where the largest is at most so many times the smallest,
TOLERANCE = 0.05  # and one for all costs less than this in hard probing error
Errors = Mapping[str, np.ndarray]  # title of a budget -> (size, radius, seed)


def epochs_of(budget: str, size: int, amount: int) -> int:
    """How many epochs `amount` of a budget is at one batch size. Raises ParameterError where that many steps are no
    whole number of epochs."""
    if budget == "epochs":
        return amount
    epochs, rest = divmod(amount, steps := -(-ToyConstants().training_points // size))
    if rest or not epochs:
        needs = f"a multiple of the {steps} of an epoch at batch size {size}"
        raise ParameterError(f"steps must be {needs}, not {amount}")
    return epochs


def plan(
    budget: str,
    amount: int | None = None,
    radii: Sequence[float] = RADII,
    sizes: Sequence[int] = SIZES,
    seeds: int = SEEDS,
    first_seed: int = 100,
) -> list[ToyTrial]:
    """One trial for every batch size and radius, the radius running fastest; `amount` of epochs or steps."""
    of_sizes = ({"batch_size": size, "epochs": epochs_of(budget, size, amount or BUDGETS[budget])} for size in sizes)
    settings = [lsam(radius, **of_size) for of_size in of_sizes for radius in radii]
    return [ToyTrial((setting,), seeds, first_seed, name=NAME) for setting in settings]


def has_gain(gain: np.ndarray) -> np.ndarray:
    """At which sizes LSAM gains over SGD, beyond the interval, and so has a best radius: (size,) of (size, seed)."""
    return mean_interval(gain)[1] > 0


def best(means: np.ndarray) -> np.ndarray:
    """The radius of the lowest validation error, by its index: (size, ...) of mean errors (size, radius, ...)."""
    return np.round(means, 9).argmin(axis=1)  # rounded: of a tie the first, whatever the order of the sum


def largest_over_smallest(radii: Sequence[float], validation: np.ndarray) -> Estimate:
    """The largest of the sizes' best radii over the smallest; radii (radius,), above 0, validation (size, radius,
    seed)."""
    found = np.asarray(radii)
    return of_means(lambda means: found[best(means)].max(axis=0) / found[best(means)].min(axis=0), validation)


def price_of_one(hard: np.ndarray, validation: np.ndarray) -> Estimate:
    """What one radius for all costs at the size where it costs most, by the interval: hard probing error at the
    radius that is best in the mean over sizes, less that of `tuned`. Both (size, radius, seed), the first radius 0."""
    one = choose(validation[:, 1:].mean(axis=0))
    costs = at_choice(hard[:, 1:], np.tile(one, (len(hard), 1))) - tuned(hard, validation)
    return max(map(estimate, costs), key=lambda effect: effect.high)


def sensitivity(means: np.ndarray) -> np.ndarray:
    """How far the batch size moves the error: standard deviation over sizes of mean errors (size, ...)."""
    return np.std(means, axis=0, ddof=1)


def more_sensitive(hard: np.ndarray, large: Sequence[bool]) -> Estimate:
    """Mean sensitivity at the `large` radii (radius,) less that at the others, of errors (size, radius, seed)."""
    chosen = np.asarray(large, dtype=bool)
    weights = chosen / chosen.sum() - ~chosen / (~chosen).sum()
    return of_means(lambda means: np.tensordot(weights, sensitivity(means), 1), hard)


def checks(sizes: Sequence[int], radii: Sequence[float], rho: float, hard: Errors, validation: Errors) -> list[Check]:
    """C11 from hard probing errors on test and on validation data, the first radius 0; those above `rho` are large.
    That best radii are alike, under the first budget the main check, is not run where LSAM gains at no size."""
    found = []
    for budget, errors in hard.items():
        known, main = validation[budget], budget == next(iter(hard))
        gain = errors[:, 0] - tuned(errors, known)
        gains, alike = has_gain(gain), f"{budget}: largest best radius over the smallest at most {SPREAD}"
        ratio = [largest_over_smallest(radii[1:], known[gains, 1:])] if gains.any() else []
        price = [price_of_one(errors[gains], known[gains])] if gains.any() else []
        found.append(compared(alike, ratio, high=SPREAD + 1e-9, main=main))  # the border itself holds
        one = f"{budget}: one radius for all costs less than {TOLERANCE:g} (largest)"
        found.append(compared(one, price, high=TOLERANCE))
        shrinks = f"{budget}: gain at batch {PAPER} minus gain at full batch above 0"
        moves = f"{budget}: sensitivity at large radii minus that at small ones above 0"
        found.append(weakest(shrinks, gain[sizes.index(PAPER)] - gain[-1], +1, MARGIN))
        found.append(compared(moves, [more_sensitive(errors, np.asarray(radii) > rho)], low=0, margin=MARGIN))
    return found


def against_radius(radii: Sequence[float], sizes: Sequence[int], rows: Mapping[str, Errors]) -> Figure:
    """Figure 10: one row an entry of `rows`, its title -> column title -> (size, radius, seed); a line a batch size,
    darker for smaller ones: mean over seeds with 95 % band."""
    fig, axes = style.panels(list(rows), list(next(iter(rows.values()))), 2.3, sharex=True, sharey="row")
    for row, of_budget in zip(axes, rows.values()):
        for panel, errors in zip(row, of_budget.values()):
            style.lines(panel, radii, dict(zip(map(str, sizes), errors)))
        row[0].set_ylim(-0.015, 0.53)
    for panel in axes[-1]:
        panel.set_xlabel(style.RADIUS)
    fig.legend(*axes[0, 0].get_legend_handles_labels(), title="batch size", loc="outside right upper")
    return fig


def summary(radii: Sequence[float], sizes: Sequence[int], rho: float, hard: Errors, validation: Errors) -> Figure:
    """One row a budget: best radius, hollow where LSAM has no gain, and gain against the batch size; standard deviation
    of the error over batch sizes, with its bootstrap band, and over seeds, against the radius. Arguments as of
    `checks`; some radius must be above `rho`, and these are shaded."""
    columns = "best radius", "gain over SGD", "standard deviation"
    fig, axes = style.panels(list(hard), columns, 2.5, sharey="col", sharex="col")
    beyond = [radius for radius in radii if radius > rho]
    for (of_best, gain, sensitive), errors, seen in zip(axes, hard.values(), validation.values()):
        gained = errors[:, 0] - tuned(errors, seen)
        chosen = np.asarray(radii)[1 + best(seen[:, 1:].mean(axis=-1))]
        of_best.set_yscale("log")
        of_best.plot(sizes, chosen, color=style.SAM, linewidth=0.8)
        faces = np.where(has_gain(gained), style.SAM, "white")
        of_best.scatter(sizes, chosen, s=30, edgecolors=style.SAM, facecolors=faces, zorder=3)
        style.plain(of_best.yaxis, ticks=radii[1:])
        at_rho = errors[:, 0] - errors[:, list(radii).index(rho)]
        style.lines(gain, sizes, {"chosen ρ": gained, f"ρ = {rho:g}": at_rho}, [(style.SAM, "s"), (style.LSAM, "D")])
        gain.axhline(0, color="black", linewidth=0.6)
        band = np.quantile(sensitivity(bootstrap_means(errors)), [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=-1)
        style.band(sensitive, radii, *band, style.HARD)
        spreads = {"batch sizes": sensitivity(errors.mean(axis=-1)), "seeds": errors.std(axis=-1, ddof=1).mean(axis=0)}
        for (label, values), look, colour in zip(spreads.items(), ("o-", "v--"), (style.HARD, style.GREY)):
            sensitive.plot(radii, values, look, markersize=4, color=colour, label=label)
        sensitive.axvspan((rho + beyond[0]) / 2, beyond[-1] * 1.03, color="black", alpha=0.05, linewidth=0)
        sensitive.set_ylim(bottom=0)
    for panel in axes[:, :2].flat:
        panel.set_xscale("log")
        style.plain(panel.xaxis, ticks=sizes)
        panel.tick_params(axis="x", labelsize=7.5)
    for panel, label in zip(axes[-1], ("batch size", "batch size", style.RADIUS)):
        panel.set_xlabel(label)
    small = {"fontsize": 8, "title_fontsize": 8}
    axes[-1, 1].legend(title="LSAM", loc=(0.08, 0.22), **small)
    axes[-1, 2].legend(title="over", loc="upper left", handlelength=1.5, **small)
    return fig
