"""Chapter 13: every constant of the toy that the text lost, one at a time and all at once: the designs, at which of
their points C1, C2, C3, C5 and C6 hold by the rules of chapters 03 to 06, what decides it, and figures."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from sklearn.ensemble import RandomForestClassifier
from sklearn.inspection import permutation_importance
from sklearn.model_selection import StratifiedKFold, cross_validate

from book import interventions, mechanism, rebalancing, style, toy
from book.claims import Outcome, Verdict, verdict_of
from book.plan import Plan, space_filling
from book.toy_trial import KEPT, ToyTrial, errors, kept
from lib.data.toy import ToyConstants
from lib.stats import FEW, Estimate, estimate, mean_interval, spread, wilson_interval
from lib.toy.ensemble import ToySetting, intervention, lsam
from lib.trials.store import Store

RADII = (0.0, 0.4, 0.7, 1.0, 1.4)  # of LSAM; 0 is SGD
RATIOS = (0.5, 2.0, 8.0)  # c of the interventions
EFFECTS = tuple(interventions.NAMES)
POINTS, SEEDS, FIRST_SEED = 200, 10, 100
TRACE_EVERY = 10  # steps between two records of the head
NAME, MAP_NAME = "open-choices", "open-choices-map"
MAP_POINTS, MAP_SEEDS, MAP_FIRST_SEED = 512, FEW, 7000  # of seeds that no chapter and no trial had used
PARTS_OF_RADIUS = (0.0, 0.5, 0.75, 1.0)  # of a point's own radius; 0 is SGD
TIMES_OWN = (0.5, 1.0, 2.0, 4.0)  # c of the interventions over the head's own ratio at the start
PITCH = 360.0  # degrees a unit of |z_h|, where the spiral's pitch is constant
PARTS = {  # of each claim, in the order of its checks; the first is the main one
    "C1": ("LSAM lowers the hard error", "it falls as ρ grows", "both fit the labels"),
    "C2": ("the phantom ratio grows with ρ", "it is larger", "the real ratio hardly moves"),
    "C3": ("more even at the phantom", "from SGD's real weights to LSAM's phantom ones"),
    "C5": ("hard rate above 1", "easy rate below 1"),
    "C6": ("both match LSAM", "importance weighting alone", "learning rate alone", "comparable gains"),
}
TO_GAIN = 0.05  # hard probing error of SGD from which there is something to gain
LEARNED, HIGH, UNLEARNED = 0.02, 1.03, 0.1  # of the frontier: a hard training error, a rate, an error
TREES, LEAF, FOLDS, SCORE = 100, 5, 10, "roc_auc"  # of the forest that explains


@dataclass(frozen=True)
class Choice:
    """One lost constant: what is chosen elsewhere in the book, the values that it takes alone, and its range in the
    design of long trainings and in the map; None where another constant stands for it."""

    name: str
    symbol: str
    ours: float
    alone: tuple[float, ...] = ()
    long: tuple[float, float] | None = None
    wide: tuple[float, float] | None = None
    scale: str = "linear"  # of the ranges, see `space_filling`


CHOICES = (
    Choice("gap", "$a/b$", 0.1, (0.0, 0.2, 0.4), (0.0, 0.4), (0.0, 0.4)),
    Choice("outer", "$b$", 1.0, (0.5, 2.0), (0.5, 2.0), scale="log"),
    Choice("easy_scale", r"$\gamma_e$", 1.0, (0.5, 2.0), (0.5, 2.0), scale="log"),
    Choice("hard_scale", r"$\gamma_h$", 3.0, (1.0, 2.0, 6.0), (1.0, 6.0), (1.0, 20.0), "log"),
    Choice("noise", r"noise$\,/\,\gamma_h b$", 0.0, (0.05, 0.1), (0.0, 0.1), (0.0, 0.1)),
    Choice("complexity", r"$\kappa$", 360.0, (180.0, 270.0, 450.0, 540.0), (180.0, 540.0), (180.0, 540.0)),
    Choice("learning_rate", r"$\eta$", 0.05, (0.01, 0.1), (0.01, 0.1), (0.005, 0.1), "log"),
    Choice("width", "width", 64, (16, 32, 128), (16, 96), (16, 96), "whole"),
    Choice("epochs", "epochs", 200, (50, 100, 400), (40, 200), (5, 200), "whole"),
    Choice("head_easy", "$w_e$", 1.0, (0.5, 2.0), (0.5, 2.0), (0.5, 16.0), "log"),
    Choice("head_hard", "$w_h$", 1.0, (0.5, 2.0), (0.5, 2.0), (0.5, 16.0), "log"),
    Choice("batch_size", "$B$", 5, wide=(2, 20), scale="whole"),
    Choice("gain", "gain", 1.0, wide=(0.2, 4.0), scale="log"),
    Choice("easy_gap", "$a_e/b_e$", 0.1, wide=(0.0, 0.95)),
    Choice("easy_outer", "$b_e$", 1.0, wide=(0.4, 2.0), scale="log"),
    Choice("constant_pitch", "constant pitch", 0, wide=(0, 1), scale="either"),
    Choice("radius", r"$\rho/\Vert w\Vert$", 1.0, wide=(0.1, 1.5), scale="log"),
)
OURS = {choice.name: choice.ours for choice in CHOICES if choice.long}
TOGETHER = tuple({"head_easy": weight, "head_hard": weight} for weight in (0.5, 2.0))  # of the head also both at once


def common(values: Mapping[str, float]) -> dict:
    """What the settings of one point share, as keywords of `ToySetting`; a choice without a value is as ours."""
    v = {choice.name: choice.ours for choice in CHOICES} | dict(values)
    outer = v["complexity"] / PITCH if v["constant_pitch"] else v["outer"]
    products = {"inner": v["gap"] * outer, "uniform_noise": v["noise"] * v["hard_scale"] * outer}
    easy = (v["easy_gap"] * v["easy_outer"], v["easy_outer"]) if "easy_outer" in values else None
    data = ToyConstants(
        **{name: v[name] for name in ("complexity", "easy_scale", "hard_scale")},
        **{name: _digits(value) for name, value in products.items()},
        outer=_digits(outer),
        easy_interval=easy and (_digits(easy[0]), easy[1]),
    )
    whole = {name: int(v[name]) for name in ("width", "epochs", "batch_size")}
    rest = {name: v[name] for name in ("learning_rate", "gain")}
    return {"data": data, **whole, **rest, "head": (v["head_easy"], v["head_hard"])}


def _digits(value: float) -> float:
    """Four digits, so that a product is the same on every machine."""
    return float(f"{value:.4g}")


def _settings(shared: dict, radii: Sequence[float], ratios: Sequence[float]) -> tuple[ToySetting, ...]:
    """SGD, LSAM at the radii above 0, then each of `EFFECTS` at the ratios."""
    fixed = [intervention(effect, _digits(ratio), **shared) for effect in EFFECTS for ratio in ratios]
    return (*(lsam(_digits(radius), **shared) for radius in radii), *fixed)


def trial(values: Mapping[str, float], seeds: int = SEEDS, first_seed: int = FIRST_SEED) -> ToyTrial:
    """One point of long training, at `RADII` and `RATIOS`."""
    return ToyTrial(_settings(common(values), RADII, RATIOS), seeds, first_seed, NAME, TRACE_EVERY)


def map_trial(values: Mapping[str, float], seeds: int = MAP_SEEDS, first_seed: int = MAP_FIRST_SEED) -> ToyTrial:
    """One point of the map: `PARTS_OF_RADIUS` of its own radius, `TIMES_OWN` times the head's ratio at the start; every
    step of the head is recorded, and importance is weighed at the whole radius."""
    shared = common(values)
    easy, hard = shared["head"]
    rho = _digits(values["radius"] * np.hypot(easy, hard))
    radii, ratios = rho * np.array(PARTS_OF_RADIUS), hard / easy * np.array(TIMES_OWN)
    return ToyTrial(_settings(shared, radii, ratios), seeds, first_seed, MAP_NAME, 1, rho)


def sample(points: int, seed: int = 0, wide: bool = False) -> list[dict[str, float]]:
    """Points over the ranges of the design, or of the map, see `space_filling`."""
    ranges = {one.name: (*ends, one.scale) for one in CHOICES if (ends := one.wide if wide else one.long)}
    return space_filling(ranges, points, seed)


def map_plan(store: Store, seeds: int = MAP_SEEDS) -> Plan:
    """The trials of the map."""
    return Plan(tuple(map_trial(values, seeds) for values in sample(MAP_POINTS, wide=True)))


def alone() -> list[dict[str, float]]:
    """Our choice, then every change of one constant (of the head also of both weights), the rest as ours."""
    changes = [{choice.name: value} for choice in CHOICES for value in choice.alone]
    return [OURS | change for change in ({}, *changes, *TOGETHER)]


def at_radius(trials: Sequence[ToyTrial], rho: float) -> list[ToyTrial]:
    """The trials with which others are completed by one radius: LSAM alone; none where they have it."""
    missing = [] if rho in RADII else trials
    return [replace(one, settings=(replace(one.settings[1], rho=rho),)) for one in missing]


def plan(store: Store, seeds: int = SEEDS) -> Plan:
    """The trials of the design and of `alone`."""
    return Plan(tuple(trial(values, seeds) for values in (*alone(), *sample(POINTS))))


@dataclass(frozen=True)
class Points:
    """What was measured at n points; the first radius is 0, SGD. NaN where a net diverged.

    values: one row a point, one column a choice. rhos, and ratios (c of the interventions over a point's `unit`, (n,)):
    as they were trained, or of the map `PARTS_OF_RADIUS` and `TIMES_OWN`. Arrays (n, rho, seed): hard, easy: probing
    errors, training: the model's error, phantom, real: the hard over the easy mean weight, rates: both features', (2,
    ...), weights: as `book.toy_trial.kept`, (..., 4). interventions: hard probing errors, (n, effect, ratio, seed).
    """

    values: pd.DataFrame
    rhos: tuple[float, ...]
    ratios: tuple[float, ...]
    unit: np.ndarray
    hard: np.ndarray
    easy: np.ndarray
    training: np.ndarray
    phantom: np.ndarray
    real: np.ndarray
    rates: np.ndarray
    interventions: np.ndarray
    weights: np.ndarray | None = None


def read(values: Sequence[Mapping[str, float]], records: Sequence[dict], extra: Sequence[dict] = ()) -> Points:
    """The points with these values, from the records of `trial`, or of `map_trial`; records of `at_radius`, in the same
    order, add a radius."""
    wide = "weighed" in records[0]["configuration"]
    rhos, ratios = (PARTS_OF_RADIUS, TIMES_OWN) if wide else (RADII, RATIOS)
    count = len(rhos)
    rhos += tuple(ToyTrial.from_configuration(one["configuration"]).settings[0].rho for one in extra[:1])
    order = np.argsort(rhos)

    def swept(measure: Callable[..., np.ndarray], *which: str) -> np.ndarray:
        parts = [np.stack([measure(one, *which)[:count] for one in some]) for some in (records, extra) if some]
        return np.concatenate(parts, axis=1)[:, order]

    table = pd.DataFrame(values)
    unit = table["head_hard"] / table["head_easy"] if wide else np.ones(len(table))
    measured = [swept(errors, *which) for which in (("hard",), ("easy",), ("model", "train"))]
    fixed = np.stack([errors(record, "hard")[count:] for record in records])
    fixed = fixed.reshape(len(records), len(EFFECTS), len(ratios), -1)
    mean = dict(zip(KEPT["means"], np.moveaxis(swept(kept, "means"), -1, 0)))
    measured += [mean[f"{kind}_hard"] / mean[f"{kind}_easy"] for kind in ("phantom", "w")]
    measured += [np.stack([mean["rate_easy"], mean["rate_hard"]]), fixed, swept(kept, "weights") if wide else None]
    return Points(table, tuple(sorted(rhos)), ratios, np.asarray(unit), *measured)


def strata(points: Points) -> dict[str, np.ndarray]:
    """The points that a share is taken of, (n,): all; those where the premise holds, that SGD fits the labels and the
    spiral is the hard feature; of these, those where SGD leaves something to gain; of these, in the map, those where
    LSAM at the whole radius gains as much, and by its interval."""
    premise = toy.fits(points.training[:, 0]) & toy.spiral_is_hard(points.hard, points.easy)
    to_gain = premise & (points.hard[:, 0].mean(axis=-1) >= TO_GAIN)
    found = {"all": np.full(len(premise), True), "premise": premise, "to gain": to_gain}
    if points.weights is not None:
        mean, low, _ = mean_interval(gain(points, -1))
        found["gains"] = to_gain & (mean >= TO_GAIN) & (low > 0)
    return found


def gain(points: Points, at: int) -> np.ndarray:
    """Hard probing error of SGD minus that of LSAM at the radius of index `at`, (n, seed)."""
    return points.hard[:, 0] - points.hard[:, at]


def claims(points: Points, at: int) -> dict[str, dict[str, np.ndarray]]:
    """For each claim of `PARTS` at which points it is reproduced, under its own name, and at which each of its parts
    holds, all (n,), by the rules of chapters 03 to 06; LSAM is compared at the radius of index `at`. A net that
    diverged makes the parts that need it fail. C3 is judged where importance was weighed."""
    matched = {n: interventions.checks(one) for n, one in comparable(points)}
    found: dict[str, list[list[bool]]] = {claim: [] for claim in PARTS if claim != "C3" or points.weights is not None}
    for n in range(len(points.hard)):
        only, to = slice(n, n + 1), (points.rhos, at)
        judged = {
            "C1": toy.checks(*to, points.hard[only], points.easy[only], points.training[only])[:3],  # then a premise
            "C2": rebalancing.checks_c2(*to, points.phantom[only], points.real[only]),
            "C5": rebalancing.checks_c5(*to, *points.rates[:, only]),
            "C6": matched.get(n, []),
        }
        if points.weights is not None:
            judged["C3"] = mechanism.checks_c3(np.moveaxis(points.weights[n, [0, at], :, :2], -1, 0))
        for claim, rows in found.items():
            held = [one.outcome is Outcome.HOLDS for one in judged[claim]] or [False] * len(PARTS[claim])
            rows.append([verdict_of(judged[claim]) is Verdict.REPRODUCED, *held])
    return {claim: dict(zip((claim, *PARTS[claim]), np.array(rows).T)) for claim, rows in found.items()}


def comparable(points: Points) -> Iterator[tuple[int, interventions.Compared]]:
    """The points, by index, at which interventions can be compared with LSAM, over the point's unit: a seed in which
    any net diverged is left out, as in chapter 06; at least FEW must remain, and the ratios must be positive, that of
    SGD below the largest c."""
    ratios = points.phantom / points.unit[:, None, None]
    for n, (swept, curves, of_point) in enumerate(zip(points.hard, points.interventions, ratios)):
        whole = ~(np.isnan(swept).any(axis=0) | np.isnan(curves).any(axis=(0, 1)))
        if whole.sum() >= FEW:
            places = of_point[:, whole].mean(axis=1)
            if np.all(places > 0) and places[0] < points.ratios[-1]:
                by_effect = dict(zip(EFFECTS, curves[..., whole]))
                yield n, interventions.Compared(points.ratios, by_effect, swept[:, whole], places)


def frontier(points: Points) -> pd.DataFrame:
    """Of LSAM at the whole radius, one row a point: the hard feature's error on the training points, its mean rate
    w~_h / w_h over all steps and the lower end of the rate's interval."""
    error = points.weights[:, -1, :, KEPT["weights"].index("wrong_hard")].mean(axis=-1)
    rate, low, _ = mean_interval(points.rates[1, :, -1])
    return pd.DataFrame({"error": error, "rate": rate, "low": low})


def exceptions(found: pd.DataFrame) -> dict[str, int]:
    """Of a `frontier`: in how many settings the hard feature is learned, in how many of these its rate lies above 1 by
    its interval, in how many settings the rate is high, and in how many of these the error is below `UNLEARNED`."""
    learned, high = found["error"] < LEARNED, found["rate"] > HIGH
    raised, early = learned & (found["low"] > 1), high & (found["error"] < UNLEARNED)
    return {"learned": learned.sum(), "raised": raised.sum(), "high": high.sum(), "early": early.sum()}


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


def shares(
    claims: Mapping[str, Mapping[str, np.ndarray]], strata: Mapping[str, np.ndarray]
) -> dict[str, dict[str, dict[str, Estimate]]]:
    """Claim -> part -> stratum -> the share of the stratum in which the part holds."""
    return {
        claim: {part: {name: share(held, among) for name, among in strata.items()} for part, held in parts.items()}
        for claim, parts in claims.items()
    }


class Explanation(NamedTuple):
    """What a random forest makes of where a claim holds, on settings that it has not seen, over ten folds, whose
    intervals leave out that they share the settings they were trained on. accuracy: area under the ROC curve, that a
    setting where it holds is ranked above one where it fails; 0.5 is chance. importance: of every constant, by how much
    it falls when its values are shuffled, the largest first."""

    accuracy: Estimate
    importance: dict[str, Estimate]


def explain(values: pd.DataFrame, held: np.ndarray, seed: int = 0) -> Explanation | None:
    """Which constants, the columns of `values` (one row a setting), decide whether something is `held` (n,); None where
    it holds, or fails, in fewer than `FOLDS` settings."""
    if min(held.sum(), (~held).sum()) < FOLDS:
        return None
    forest = RandomForestClassifier(TREES, min_samples_leaf=LEAF, class_weight="balanced", random_state=seed)
    how = {"cv": StratifiedKFold(FOLDS, shuffle=True, random_state=seed), "scoring": SCORE}
    found = cross_validate(forest, values, held, return_estimator=True, return_indices=True, **how)
    folds = zip(found["estimator"], found["indices"]["test"])
    lost = [
        permutation_importance(one, values.iloc[test], held[test], scoring=SCORE, random_state=seed).importances_mean
        for one, test in folds
    ]
    importance = sorted(zip(values.columns, map(estimate, np.transpose(lost))), key=lambda item: -item[1].mean)
    return Explanation(estimate(found["test_score"]), dict(importance))


OUTCOMES = {
    "not asked": {"c": style.GREY, "marker": ".", "s": 9, "linewidths": 0},
    "holds": {"c": style.LSAM, "marker": "o", "s": 18, "linewidths": 0},
    "fails": {"c": style.SGD, "marker": "x", "s": 20, "linewidths": 1.1},
}


def rows_alone(points: Points, at: int) -> dict[str, dict[str, str]]:
    """A line a point of the one-at-a-time study, by what sets it apart from our choice: LSAM's gain at the radius of
    index `at`, how many parts of each claim hold, and whether the claim would be called reproduced."""
    found, held, premise, rows = mean_interval(gain(points, at)), claims(points, at), strata(points)["premise"], {}
    for n, values in enumerate(points.values.to_dict("records")):
        changed = [f"{name.replace('_', ' ')} {values[name]:g}" for name in OURS if values[name] != OURS[name]]
        row = {"gain": "{:.3f} [{:.3f}, {:.3f}]".format(*(one[n] for one in found))}
        row["premise"] = "yes" if premise[n] else "no"
        for claim, (whole, *parts) in ((claim, parts.values()) for claim, parts in held.items()):
            row[claim] = f"{sum(part[n] for part in parts)} of {len(parts)}" + (", holds" if whole[n] else "")
        rows[", ".join(changed) or "our choice"] = row
    return rows


def figure_importance(explained: Mapping[str, Explanation]) -> Figure:
    """One panel a claim: how much of the forest's accuracy is lost when the values of one constant are shuffled, with
    intervals over folds."""
    fig, axes = plt.subplots(1, len(explained), figsize=(style.PAGE_WIDTH, 4.2), sharex=True, sharey=True)
    symbols = {choice.name: choice.symbol for choice in CHOICES if choice.wide}
    for panel, (claim, found) in zip(axes, explained.items()):
        style.rows(panel, list(symbols.values()))
        panel.axvline(0, color="black", linewidth=0.6)
        lost, look = [found.importance[name] for name in symbols], {"markersize": 4, "linewidth": 1.1}
        style.whiskers(panel, lost, range(len(symbols)), style.SAM, "o", **look)
        panel.set_title(f"{claim}\n({found.accuracy.mean:.2f})", fontsize=8.5)
    fig.supxlabel("accuracy lost when the constant is shuffled", fontsize=9)
    return fig


def figure_where(
    values: pd.DataFrame,
    held: Mapping[str, np.ndarray],
    judged: Mapping[str, np.ndarray],
    explained: Mapping[str, Explanation],
) -> Figure:
    """One panel a claim: at which points it is `held` (n,), against the two constants that decide it most; points that
    are not `judged` (n,) for it are small dots."""
    choices = {choice.name: choice for choice in CHOICES}
    fig, axes = style.grid(len(explained), 3, 2.3)
    for panel, (claim, explanation) in zip(axes.flat, explained.items()):
        names, among = list(explanation.importance)[:2], judged[claim]
        for chosen, (label, look) in zip((~among, among & held[claim], among & ~held[claim]), OUTCOMES.items()):
            panel.scatter(*values[names][chosen].to_numpy().T, label=label, **look)
        for axis, choice in zip((panel.xaxis, panel.yaxis), map(choices.get, names)):
            axis.set_label_text(choice.symbol)
            if choice.scale in ("log", "whole"):
                panel.set(**{f"{axis.axis_name}scale": "log"})
                style.plain(axis, ticks=sorted({*choice.wide, choice.ours}))
        panel.set_title(claim, fontsize=9)
    fig.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=3)
    return fig


def figure_frontier(found: pd.DataFrame, among: np.ndarray) -> Figure:
    """Every point's mean hard rate against the hard training error at the end, of those `among` (n,) in colour, with
    the highest rate at any error up to there."""
    fig, axes = plt.subplots(figsize=(style.PAGE_WIDTH, 3.2))
    for chosen, look in zip((~among, among), (OUTCOMES["not asked"], OUTCOMES["holds"])):
        axes.scatter(100 * found["error"][chosen], found["rate"][chosen], **look)
    ordered = found[among].sort_values("error")
    axes.step(100 * ordered["error"], ordered["rate"].cummax(), where="post", color=style.SGD, linewidth=1.2)
    for line, at in ((axes.axhline, 1), (axes.axvline, 100 * LEARNED), (axes.axvline, 100 * UNLEARNED)):
        line(at, color=style.GREY, linewidth=0.9, linestyle=":")
    axes.set(xlabel="hard training error at the end, %", ylabel=r"mean $\tilde w_h / w_h$")
    axes.set(xlim=(-1, 60), ylim=(0, 1.5))
    return fig
