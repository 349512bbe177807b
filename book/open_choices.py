"""Chapter 13: every constant of the toy that the text lost, one at a time and all at once: the design, at which of its
points C1, C2, C5 and C6 hold by the rules of chapters 03, 04 and 06, in what share of them, and figures."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from scipy.stats import qmc
from sklearn.inspection import permutation_importance
from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.tree import DecisionTreeClassifier

from book import interventions, rebalancing, style, toy
from book.claims import Check, Outcome, Verdict, verdict_of
from book.plan import Plan
from book.selection import at_choice, choose
from lib import check
from lib.data.toy import ToyConstants
from lib.stats import FEW, Estimate, mean_interval, spread, wilson_interval
from lib.toy.ensemble import ToySetting, intervention, lsam
from lib.trials.store import Store
from lib.trials.toy import MEANS, ToyTrial, errors, means

RADII = (0.0, 0.4, 0.7, 1.0, 1.4)  # of LSAM; 0 is SGD
RATIOS = (0.5, 2.0, 8.0)  # c of the interventions
EFFECTS = tuple(interventions.NAMES)
POINTS, SEEDS, FIRST_SEED = 200, 10, 100
TRACE_EVERY = 10  # steps between two records of the head
NAME = "open-choices"
PARTS = {  # of each claim, in the order of its checks; the first is the main one
    "C1": ("LSAM lowers the hard error", "it falls as ρ grows", "both fit the labels"),
    "C2": ("the phantom ratio grows with ρ", "it is larger", "the real ratio hardly moves"),
    "C5": ("hard rate above 1", "easy rate below 1"),
    "C6": ("both match LSAM", "importance weighting alone", "learning rate alone", "comparable gains"),
}
TO_GAIN = 0.05  # hard probing error of SGD from which there is something to gain
LEAF, DEPTH = 10, 3  # settings in a leaf of the tree that explains, and questions asked in a row


@dataclass(frozen=True)
class Choice:
    """One lost constant: what is chosen elsewhere in the book, the range of the design, and the values that it takes
    alone."""

    name: str
    symbol: str
    ours: float
    low: float
    high: float
    alone: tuple[float, ...]
    scale: str = "linear"  # or "log", or "whole" (a whole number, evenly spread on a logarithmic axis)

    def at(self, share: float) -> float:
        """The value at a share of the range, in [0, 1], to three digits."""
        if self.scale == "linear":
            return float(f"{self.low + share * (self.high - self.low):.3g}")
        value = self.low * (self.high / self.low) ** share
        return round(value) if self.scale == "whole" else float(f"{value:.3g}")


CHOICES = (
    Choice("gap", "$a/b$", 0.1, 0.0, 0.4, (0.0, 0.2, 0.4)),
    Choice("outer", "$b$", 1.0, 0.5, 2.0, (0.5, 2.0), "log"),
    Choice("easy_scale", r"$\gamma_e$", 1.0, 0.5, 2.0, (0.5, 2.0), "log"),
    Choice("hard_scale", r"$\gamma_h$", 3.0, 1.0, 6.0, (1.0, 2.0, 6.0), "log"),
    Choice("noise", r"noise$\,/\,\gamma_h b$", 0.0, 0.0, 0.1, (0.05, 0.1)),
    Choice("complexity", r"$\kappa$", 360.0, 180.0, 540.0, (180.0, 270.0, 450.0, 540.0)),
    Choice("learning_rate", r"$\eta$", 0.05, 0.01, 0.1, (0.01, 0.1), "log"),
    Choice("width", "width", 64, 16, 96, (16, 32, 128), "whole"),
    Choice("epochs", "epochs", 200, 40, 200, (50, 100, 400), "whole"),
    Choice("head_easy", "$w_e$", 1.0, 0.5, 2.0, (0.5, 2.0), "log"),
    Choice("head_hard", "$w_h$", 1.0, 0.5, 2.0, (0.5, 2.0), "log"),
)
OURS = {choice.name: choice.ours for choice in CHOICES}
TOGETHER = tuple({"head_easy": weight, "head_hard": weight} for weight in (0.5, 2.0))  # of the head also both at once


def common(values: Mapping[str, float]) -> dict:
    """What the settings of one point share, as keywords of `ToySetting`, from a value for every choice.

    Raises ValueError where a choice is missing or unknown.
    """
    if values.keys() != OURS.keys():
        raise ValueError(f"values must be of {', '.join(OURS)}, not of {', '.join(values)}")
    v = dict(values)
    products = {"inner": v["gap"] * v["outer"], "uniform_noise": v["noise"] * v["hard_scale"] * v["outer"]}
    as_they_are = {name: v[name] for name in ("complexity", "outer", "easy_scale", "hard_scale")}
    data = ToyConstants(**as_they_are, **{name: _digits(value) for name, value in products.items()})
    whole = {name: int(v[name]) for name in ("width", "epochs")}
    return {"data": data, **whole, "learning_rate": v["learning_rate"], "head": (v["head_easy"], v["head_hard"])}


def _digits(value: float) -> float:
    """Four digits, so that a product is the same on every machine."""
    return float(f"{value:.4g}")


def values_of(setting: ToySetting) -> dict[str, float]:
    """The value of every choice, back from any setting of a point."""
    data, head = setting.data, dict(zip(("head_easy", "head_hard"), setting.head))
    ratios = {"gap": data.inner / data.outer, "noise": data.uniform_noise / data.hard_scale / data.outer}
    found = vars(data) | vars(setting) | ratios | head
    return {name: found[name] for name in OURS}


def trial(values: Mapping[str, float], seeds: int = SEEDS, first_seed: int = FIRST_SEED) -> ToyTrial:
    """One point: SGD, LSAM at `RADII`, then each of `EFFECTS` at `RATIOS`, all with these constants."""
    shared = common(values)
    swept = [lsam(radius, **shared) for radius in RADII]
    fixed = [intervention(effect, ratio, **shared) for effect in EFFECTS for ratio in RATIOS]
    return ToyTrial((*swept, *fixed), seeds, first_seed, NAME, TRACE_EVERY)


def sample(points: int, seed: int = 0) -> list[dict[str, float]]:
    """The first points of a scrambled Sobol sequence over the ranges of all `CHOICES`.

    Fewer points are the first of more. Raises ValueError for less than one point.
    """
    doublings = int(np.ceil(np.log2(check.whole("points", points, 1))))
    shares = qmc.Sobol(len(CHOICES), seed=seed).random_base2(doublings)[:points]
    return [{choice.name: choice.at(share) for choice, share in zip(CHOICES, row)} for row in shares]


def design(points: int = POINTS, seed: int = 0, seeds: int = SEEDS, first_seed: int = FIRST_SEED) -> list[ToyTrial]:
    """The space-filling design: one trial a point, `seeds` seeds each."""
    return [trial(values, seeds, first_seed) for values in sample(points, seed)]


def alone() -> list[dict[str, float]]:
    """Our choice, then every change of one constant (of the head also of both weights), the rest as ours."""
    changes = [{choice.name: value} for choice in CHOICES for value in choice.alone]
    return [OURS | change for change in ({}, *changes, *TOGETHER)]


def one_at_a_time(seeds: int = SEEDS, first_seed: int = FIRST_SEED) -> list[ToyTrial]:
    """The trials of `alone`."""
    return [trial(values, seeds, first_seed) for values in alone()]


def at_radius(trials: Sequence[ToyTrial], rho: float) -> list[ToyTrial]:
    """The trials with which others are completed by one radius: LSAM alone; none where they have it."""
    missing = [] if rho in RADII else trials
    return [replace(one, settings=(replace(one.settings[1], rho=rho),)) for one in missing]


def plan(store: Store, seeds: int = SEEDS) -> Plan:
    """All trials of the chapter."""
    return Plan((*one_at_a_time(seeds), *design(seeds=seeds)))


@dataclass(frozen=True)
class Points:
    """What was measured at n points; the first radius is 0, SGD. NaN where a net diverged.

    values: one row a point, one column a choice. hard, easy: probing errors on test data, validation: the
    hard one on validation data, training: the model's error, each (n, rho, seed). means: (n, rho, seed, 6),
    see `lib.trials.toy.means`. interventions: hard probing errors, (n, effect, ratio, seed).
    """

    values: pd.DataFrame
    rhos: tuple[float, ...]
    hard: np.ndarray
    easy: np.ndarray
    validation: np.ndarray
    training: np.ndarray
    means: np.ndarray
    interventions: np.ndarray

    def mean(self, name: str) -> np.ndarray:
        """One of `MEANS`, (n, rho, seed)."""
        return self.means[..., MEANS.index(name)]

    def ratio(self, kind: str) -> np.ndarray:
        """The hard over the easy mean weight, of the kind "w", real, or "phantom", (n, rho, seed)."""
        return self.mean(f"{kind}_hard") / self.mean(f"{kind}_easy")

    def change(self, kind: str, compared: np.ndarray) -> np.ndarray:
        """Of a `ratio`, from SGD to LSAM at the radii of index `compared`: both (n, seed)."""
        return at_choice(self.ratio(kind), compared) - self.ratio(kind)[:, 0]


def read(records: Sequence[dict], extra: Sequence[dict] = ()) -> Points:
    """The points of the records of `trial`; those of `at_radius`, in the same order, add a radius."""
    first = [ToyTrial.from_configuration(one["configuration"]).settings[0] for one in (*records, *extra)]
    rhos = (*RADII, first[-1].rho) if extra else RADII
    order = np.argsort(rhos)

    def swept(measure: Callable[..., np.ndarray], *which: str) -> np.ndarray:
        parts = [np.stack([measure(one, *which) for one in some]) for some in (records, extra) if some]
        return np.concatenate([part[:, : len(RADII)] for part in parts], axis=1)[:, order]

    values = pd.DataFrame([values_of(setting) for setting in first[: len(records)]])
    measured = [swept(errors, *which) for which in (("hard",), ("easy",), ("hard", "validation"), ("model", "train"))]
    fixed = np.stack([errors(record, "hard")[len(RADII) :] for record in records])
    fixed = fixed.reshape(len(records), len(EFFECTS), len(RATIOS), -1)
    return Points(values, tuple(np.take(rhos, order).tolist()), *measured, swept(means), fixed)


def strata(points: Points) -> dict[str, np.ndarray]:
    """The points that a share is taken of, (n,): all; those where the premise holds, that SGD fits the labels and the
    spiral is the hard feature; of these, those where SGD leaves something to gain."""
    premise = toy.fits(points.training[:, 0]) & toy.spiral_is_hard(points.hard, points.easy)
    to_gain = premise & (points.hard[:, 0].mean(axis=-1) >= TO_GAIN)
    return {"all": np.full(len(premise), True), "premise": premise, "to gain": to_gain}


def one_radius(points: Points, rho: float) -> np.ndarray:
    """The index of `rho` for every point and seed, (n, seed). Raises ValueError where it was not trained."""
    return np.full(points.hard[:, 0].shape, points.rhos.index(check.choice("rho", rho, points.rhos)))


def best_radius(points: Points) -> np.ndarray:
    """For every point and seed the index of the radius above 0 with the lowest hard probing error on the
    validation data of the other seeds, (n, seed), among those at which LSAM fits the labels."""
    fit = toy.fits(points.training[:, 1:])  # not where a net diverged
    worse_than_any_error = 2.0
    return 1 + choose(np.where(fit[..., None], points.validation[:, 1:], worse_than_any_error))


def gain(points: Points, compared: np.ndarray) -> np.ndarray:
    """Hard probing error of SGD minus that of LSAM at the radii of index `compared`: both (n, seed)."""
    return points.hard[:, 0] - at_choice(points.hard, compared)


def raises(points: Points, compared: np.ndarray) -> np.ndarray:
    """Where LSAM raises the hard probing error, beyond the interval, (n,)."""
    return mean_interval(gain(points, compared))[2] < 0


def claims(points: Points, compared: np.ndarray) -> dict[str, dict[str, np.ndarray]]:
    """For each claim of `PARTS` at which points it is reproduced, under its own name, and at which each of its parts
    holds, all (n,), by the rules of chapters 03, 04 and 06; LSAM is compared at the radii of index `compared` (n,
    seed). A net that diverged makes the parts that need it fail."""
    ratios = points.ratio("phantom"), points.ratio("w")
    rates = points.mean("rate_easy"), points.mean("rate_hard")
    errors = points.hard, points.easy, points.training
    matched = {n: interventions.checks(RATIOS, curves, *of_lsam) for n, curves, *of_lsam in comparable(points)}
    held = {claim: np.zeros((1 + len(parts), len(points.hard)), dtype=bool) for claim, parts in PARTS.items()}
    for n in range(len(points.hard)):

        def of(rule: Callable[..., list[Check]], measured: Iterable[np.ndarray], n: int = n) -> list[Check]:
            return rule(points.rhos, compared[n : n + 1], *(one[n : n + 1] for one in measured))

        judged = {
            "C1": of(toy.checks, errors)[:3],  # the fourth is a premise
            "C2": of(rebalancing.checks_c2, ratios),
            "C5": of(rebalancing.checks_c5, rates),
            "C6": matched.get(n, []),
        }
        for claim, checks in judged.items():
            if checks:
                parts = [check.outcome is Outcome.HOLDS for check in checks]
                held[claim][:, n] = [verdict_of(checks) is Verdict.REPRODUCED, *parts]
    return {claim: dict(zip((claim, *PARTS[claim]), rows)) for claim, rows in held.items()}


def comparable(points: Points) -> Iterator[tuple[int, dict[str, np.ndarray], np.ndarray, np.ndarray]]:
    """The points at which interventions can be compared with LSAM: index, hard probing errors of the interventions,
    effect -> (ratio, seed), and of LSAM (rho, seed), and LSAM's mean ratios (rho,).

    A seed in which any net diverged is left out, as in chapter 06; at least FEW must remain, and
    the ratios must be positive, that of SGD below the largest c.
    """
    for n, (swept, curves, ratios) in enumerate(zip(points.hard, points.interventions, points.ratio("phantom"))):
        kept = ~(np.isnan(swept).any(axis=0) | np.isnan(curves).any(axis=(0, 1)))
        if kept.sum() >= FEW:
            places = ratios[:, kept].mean(axis=1)
            if np.all(places > 0) and places[0] < RATIOS[-1]:
                yield n, dict(zip(EFFECTS, curves[..., kept])), swept[:, kept], places


def effects(points: Points, compared: np.ndarray) -> pd.DataFrame:
    """The means over seeds behind the claims, one row a point: what each constant may change. The gain of an
    intervention is NaN where C6 cannot be judged."""
    alone = np.full((len(EFFECTS), len(points.hard)), np.nan)
    for n, curves, swept, places in comparable(points):
        gains = interventions.gains(RATIOS, curves, swept[0], places[0])
        alone[:, n] = [gains[effect].mean() for effect in EFFECTS]
    over_seeds = {
        "hard error of SGD": points.hard[:, 0],
        "gain of LSAM": gain(points, compared),
        "change of the phantom ratio": points.change("phantom", compared),
        "change of the real ratio": points.change("w", compared),
        "easy rate": at_choice(points.mean("rate_easy"), compared),
        "hard rate": at_choice(points.mean("rate_hard"), compared),
    }
    words = ("importance weighting", "the learning rate", "both together")
    of_alone = {f"gain of {effect}": values for effect, values in zip(words, alone)}
    return pd.DataFrame({name: values.mean(axis=-1) for name, values in over_seeds.items()} | of_alone)


def share(held: np.ndarray, among: np.ndarray) -> Estimate:
    """In what share of the settings `among` (n,) something is `held` (n,), both boolean, with Wilson's 95 % interval;
    NaN where there is no such setting."""
    n, kept = int(among.sum()), int((held & among).sum())
    if not n:
        return Estimate(0, *[float("nan")] * 4)
    return Estimate(n, kept / n, spread(held[among]), *wilson_interval(kept, n))


def percent(one: Estimate) -> str:
    """A share in words."""
    return f"{one.mean:.0%} [{one.low:.0%}, {one.high:.0%}]"


Shares = dict[str, dict[str, Estimate]]  # part of a claim -> stratum -> share


def shares(claims: Mapping[str, Mapping[str, np.ndarray]], strata: Mapping[str, np.ndarray]) -> dict[str, Shares]:
    """Of every claim and of each of its parts the share that it holds in of each stratum."""
    return {
        claim: {part: {name: share(held, among) for name, among in strata.items()} for part, held in parts.items()}
        for claim, parts in claims.items()
    }


@dataclass(frozen=True)
class Explanation:
    """What a small decision tree makes of where a claim holds.

    importance: of every constant, how much of the tree's balanced accuracy is lost when its values are
    shuffled, the largest first. accuracy: balanced, on settings that the tree has not seen (ten folds); 0.5
    is chance.
    """

    importance: pd.Series
    accuracy: float


def explain(values: pd.DataFrame, held: np.ndarray, seed: int = 0) -> Explanation | None:
    """Which constants, the columns of `values` (one row a setting), decide whether something is `held` (n,).

    None where it holds, or fails, in fewer than `LEAF` settings.
    """
    if min(held.sum(), (~held).sum()) < LEAF:
        return None
    tree = DecisionTreeClassifier(max_depth=DEPTH, min_samples_leaf=LEAF, class_weight="balanced", random_state=seed)
    folds = StratifiedKFold(10, shuffle=True, random_state=seed)
    accuracy = balanced_accuracy_score(held, cross_val_predict(tree, values, held, cv=folds))
    shuffled = {"n_repeats": 10, "random_state": seed, "scoring": "balanced_accuracy"}
    lost = permutation_importance(tree.fit(values, held), values, held, **shuffled).importances_mean
    ranked = pd.Series(lost, index=values.columns).sort_values(ascending=False, kind="stable")
    return Explanation(ranked, float(accuracy))


STRATA = {
    "all": ("all settings", style.GREY, "o"),
    "premise": ("the premise holds", style.SAM, "s"),
    "to gain": ("and there is something to gain", style.LSAM, "D"),
}
OUTCOMES = {
    "no premise": {"c": style.GREY, "marker": ".", "s": 12, "linewidths": 0},
    "holds": {"c": style.LSAM, "marker": "o", "s": 18, "linewidths": 0},
    "fails": {"c": style.SGD, "marker": "x", "s": 24, "linewidths": 1.1},
}
FINE = {"markersize": 4, "linewidth": 1.1}


def figure_shares(found: Mapping[str, Shares]) -> Figure:
    """Shares of settings with their 95 % intervals, by claim as of `shares`; the whole claims are bold."""
    rows = [(claim, part, by_stratum) for claim, parts in found.items() for part, by_stratum in parts.items()]
    fig, axes = plt.subplots(figsize=(style.PAGE_WIDTH, 0.8 + 0.33 * len(rows)))
    for (stratum, (label, colour, marker)), shift in zip(STRATA.items(), (-0.25, 0, 0.25)):
        places = np.arange(len(rows)) + shift
        style.whiskers(axes, [one[stratum] for *_, one in rows], places, colour, marker, label=label, **FINE)
    style.rows(axes, [part for _, part, _ in rows])
    for label, (claim, part, _) in zip(axes.get_yticklabels(), rows):
        label.set_fontweight("bold" if part == claim else "normal")
    axes.set(xlabel="share of settings in which it holds", xlim=(-0.02, 1.02), ylim=(len(rows) - 0.5, -0.5))
    axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    fig.legend(*axes.get_legend_handles_labels(), loc="outside upper center", ncols=len(STRATA))
    return fig


def change(values: Mapping[str, float]) -> str:
    """What sets a point of the one-at-a-time study apart from our choice, in symbols."""
    changed = [choice for choice in CHOICES if not np.isclose(values[choice.name], choice.ours)]
    words = [f"{one.symbol} = {values[one.name]:g}" + "°" * (one.name == "complexity") for one in changed]
    return ", ".join(words) or "our choice"


def figure_alone(
    names: Sequence[str], gains: Sequence[Estimate], premise: np.ndarray, claims: Mapping[str, Mapping[str, np.ndarray]]
) -> Figure:
    """One row a point, the first our choice: LSAM's gain over SGD, grey where the premise (n,) fails, and how many
    parts of each claim hold, of `claims`."""
    size = style.PAGE_WIDTH, 0.9 + 0.25 * len(names)
    fig, (left, right) = plt.subplots(1, 2, figsize=size, sharey=True, width_ratios=[1.7, 1])
    rows = np.arange(len(names))
    left.axvspan(gains[0].low, gains[0].high, color=style.LSAM, alpha=0.12, linewidth=0)
    for chosen, colour, marker in ((premise, style.LSAM, "D"), (~premise, style.GREY, "x")):
        if chosen.any():
            style.whiskers(left, [gains[row] for row in rows[chosen]], rows[chosen], colour, marker, **FINE)
    left.axvline(0, color="black", linewidth=0.6)
    for column, parts in enumerate(claims.values()):
        whole, *held = parts.values()
        for row, count in enumerate(np.sum(held, axis=0)):
            colour = style.LSAM if whole[row] else "black" if premise[row] else style.GREY
            look = {"ha": "center", "va": "center", "fontsize": 8, "fontweight": "bold" if whole[row] else "normal"}
            right.text(column, row, f"{count}/{len(held)}", color=colour, **look)
    style.rows(left, names)
    for row in rows[::2]:
        right.axhspan(row - 0.5, row + 0.5, color="black", alpha=0.04, linewidth=0)
    ticks = {"xlim": (-0.5, len(claims) - 0.5), "xticks": range(len(claims)), "xticklabels": list(claims)}
    right.set(title="parts that hold", **ticks)
    right.tick_params(length=0)
    right.spines[:].set_visible(False)
    left.set(title="gain of LSAM over SGD", xlabel="fall of the hard probing error", ylim=(len(names) - 0.5, -0.5))
    return fig


def figure_where(
    values: pd.DataFrame,
    held: Mapping[str, np.ndarray],
    judged: np.ndarray,
    explained: Mapping[str, Explanation | None],
) -> Figure:
    """One panel a claim: at which points it is `held`, against the two constants that decide it most (the
    first two where nothing explains it); points that are not `judged` (n,) are small dots."""
    rows = -(-len(held) // 2)
    fig, axes = plt.subplots(rows, 2, figsize=(style.PAGE_WIDTH, 0.4 + 2.7 * rows), squeeze=False)
    for panel, (claim, holds) in zip(axes.flat, held.items()):
        explanation = explained[claim]
        across, up = values.columns[:2] if explanation is None else explanation.importance.index[:2]
        for chosen, (label, look) in zip((~judged, judged & holds, judged & ~holds), OUTCOMES.items()):
            panel.scatter(values[across][chosen], values[up][chosen], label=label, **look)
        _choice_axis(panel.xaxis, across)
        _choice_axis(panel.yaxis, up)
        panel.set_title(claim + ("" if explanation is None else f" (tree: {explanation.accuracy:.2f})"))
    for panel in axes.flat[len(held) :]:
        panel.set_visible(False)
    fig.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=3)
    return fig


def _choice_axis(axis: Axis, name: str) -> None:
    """Named by the choice's symbol; logarithmic, with the ends and our value, where the design is so."""
    choice = next(choice for choice in CHOICES if choice.name == name)
    axis.set_label_text(choice.symbol)
    if choice.scale != "linear":
        axis.axes.set(**{f"{axis.axis_name}scale": "log"})
        style.plain(axis, ticks=sorted({choice.low, choice.ours, choice.high}))
