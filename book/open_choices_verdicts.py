"""At which points of chapter 13 the toy's claims hold, by the rules of chapters 03, 04 and 06.

Everything is judged for many points at once: arrays begin with the axis of points.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from book.open_choices import EFFECTS, RATIOS, values_of
from lib.curves import at, distance, mean_height
from lib.selection import at_choice, choose
from lib.stats import bootstrap_band, rank_correlation
from lib.trials.toy import MEANS, ToyTrial, errors, means

FIT = 0.005  # largest mean training error of a net that fits the labels (chapter 03)
TOLERANCE = 0.05  # of a match with LSAM, in probing error (chapter 06)
TO_GAIN = 0.05  # hard probing error of SGD from which there is something to gain
FEWEST_SEEDS = 5  # in which no net diverged, for C6 to be judged


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

    @property
    def phantom_ratio(self) -> np.ndarray:
        """Mean of w~_h over mean of w~_e, (n, rho, seed)."""
        return self._mean("phantom_hard") / self._mean("phantom_easy")

    @property
    def real_ratio(self) -> np.ndarray:
        """Mean of w_h over mean of w_e, (n, rho, seed)."""
        return self._mean("w_hard") / self._mean("w_easy")

    @property
    def rates(self) -> np.ndarray:
        """Means of w~_e / w_e and of w~_h / w_h, (2, n, rho, seed)."""
        return np.stack([self._mean("rate_easy"), self._mean("rate_hard")])

    def _mean(self, name: str) -> np.ndarray:
        return self.means[..., MEANS.index(name)]


def read(records: Sequence[dict], extra: Sequence[dict] = ()) -> Points:
    """The points of the records of `book.open_choices.trial`; those of `at_radius`, in the same
    order, add a radius."""
    together = list(zip(records, extra)) if extra else [(record,) for record in records]
    rows = [_read(parts) for parts in together]
    rhos = tuple(sorted(rows[0][1]))
    kinds = ("hard", "easy", "validation", "training", "means")
    swept = {kind: np.stack([[swept[rho][kind] for rho in rhos] for _, swept, _ in rows]) for kind in kinds}
    return Points(
        pd.DataFrame([values for values, _, _ in rows]),
        rhos,
        **swept,
        interventions=np.stack([fixed for _, _, fixed in rows]),
    )


def _read(parts: Sequence[dict]) -> tuple[dict, dict[float, dict], np.ndarray]:
    """One point: its values, what was measured at each radius, and under the interventions."""
    swept, fixed = {}, {}
    for record in parts:
        settings = ToyTrial.from_configuration(record["configuration"]).settings
        measured = {
            "hard": errors(record, "hard"),
            "easy": errors(record, "easy"),
            "means": means(record),
            "validation": errors(record, "hard", "validation"),
            "training": errors(record, "model", "train"),
        }
        for s, setting in enumerate(settings):
            effect = _effect(setting.importance, setting.effective)
            if effect is None:
                swept[setting.rho] = {kind: values[s] for kind, values in measured.items()}
            else:
                fixed[effect, setting.ratio] = measured["hard"][s]
    interventions = np.stack([[fixed[effect, ratio] for ratio in RATIOS] for effect in EFFECTS])
    values = values_of(ToyTrial.from_configuration(parts[0]["configuration"]).settings[0])
    return values, swept, interventions


def _effect(importance: str, effective: str) -> str | None:
    found = importance == "fixed", effective == "fixed"
    return {(True, False): "importance", (False, True): "learning_rate", (True, True): "both"}.get(found)


def fits(points: Points) -> np.ndarray:
    """Where SGD fits the labels, (n,)."""
    return points.training[:, 0].mean(axis=-1) <= FIT


def spiral_is_hard(points: Points) -> np.ndarray:
    """Where the spiral is the hard feature: the one with the higher mean probing error under SGD, (n,)."""
    return points.hard[:, 0].mean(axis=-1) > points.easy[:, 0].mean(axis=-1)


def strata(points: Points) -> dict[str, np.ndarray]:
    """The points that a share is taken of: all; those where the premise holds; of these, those where SGD
    leaves something to gain."""
    premise = fits(points) & spiral_is_hard(points)
    to_gain = premise & (points.hard[:, 0].mean(axis=-1) >= TO_GAIN)
    return {"all": np.full(len(premise), True), "premise": premise, "to gain": to_gain}


def one_radius(points: Points, rho: float) -> np.ndarray:
    """The index of `rho` for every point and seed, (n, seed). Raises ValueError where it was not trained."""
    if rho not in points.rhos:
        raise ValueError(f"rho must be one of {', '.join(map(str, points.rhos))}, not {rho!r}")
    return np.full(points.hard[:, 0].shape, points.rhos.index(rho))


def best_radius(points: Points) -> np.ndarray:
    """For every point and seed the index of the radius above 0 with the lowest hard probing error on the
    validation data of the other seeds, (n, seed), among those at which LSAM fits the labels."""
    unfit = ~(points.training[:, 1:].mean(axis=-1) <= FIT)  # where a net diverged, too
    worse_than_any_error = 2.0
    return 1 + choose(np.where(unfit[..., None], worse_than_any_error, points.validation[:, 1:]))


def gain(points: Points, compared: np.ndarray) -> np.ndarray:
    """Hard probing error of SGD minus that of LSAM at the radii of index `compared`: both (n, seed)."""
    return points.hard[:, 0] - at_choice(points.hard, compared)


def raises(points: Points, compared: np.ndarray) -> np.ndarray:
    """Where LSAM raises the hard probing error, beyond the interval, (n,)."""
    return _above(-gain(points, compared))


def claims(points: Points, compared: np.ndarray) -> dict[str, dict[str, np.ndarray]]:
    """For C1, C2, C5 and C6, part by part, at which points it holds, each (n,); LSAM is compared at the radii
    of index `compared` (n, seed). A net that diverged makes the parts that need it fail."""
    phantom = at_choice(points.phantom_ratio, compared) - points.phantom_ratio[:, 0]
    real = at_choice(points.real_ratio, compared) - points.real_ratio[:, 0]
    easy, hard = (at_choice(rate, compared) for rate in points.rates)
    return {
        "C1": {
            "both fit the labels": fits(points) & (at_choice(points.training, compared).mean(axis=-1) <= FIT),
            "SGD leaves the hard feature behind": _above(points.hard[:, 0] - points.easy[:, 0]),
            "LSAM lowers the hard error": _above(gain(points, compared)),
            "it falls as ρ grows": _above(-_trend(points.rhos, points.hard)),
        },
        "C2": {
            "the phantom ratio is larger": _above(phantom),
            "it grows with ρ": _above(_trend(points.rhos, points.phantom_ratio)),
            "the real ratio hardly moves": _above(phantom / 3 - real) & _above(phantom / 3 + real),
        },
        "C5": {"easy rate below 1": _above(1 - easy), "hard rate above 1": _above(hard - 1)},
        "C6": _interventions(points),
    }


def effects(points: Points, compared: np.ndarray) -> pd.DataFrame:
    """The means over seeds behind the claims, one row a point: what each constant may change."""
    easy, hard = (at_choice(rate, compared).mean(axis=-1) for rate in points.rates)
    change = {
        name: (at_choice(ratio, compared) - ratio[:, 0]).mean(axis=-1)
        for name, ratio in (("phantom", points.phantom_ratio), ("real", points.real_ratio))
    }
    alone = intervention_gains(points)
    return pd.DataFrame(
        {
            "hard error of SGD": points.hard[:, 0].mean(axis=-1),
            "gain of LSAM": gain(points, compared).mean(axis=-1),
            "change of the phantom ratio": change["phantom"],
            "change of the real ratio": change["real"],
            "easy rate": easy,
            "hard rate": hard,
            "gain of importance weighting": alone[0],
            "gain of the learning rate": alone[1],
            "gain of both together": alone[2],
        }
    )


def sensitivity(values: pd.DataFrame, effects: pd.DataFrame) -> pd.DataFrame:
    """Spearman's correlation over points of every effect (rows) with every choice (columns), less NaN."""
    return pd.DataFrame({name: effects.corrwith(column, method="spearman") for name, column in values.items()})


def _interventions(points: Points) -> dict[str, np.ndarray]:
    """The four parts of C6; where it cannot be judged they fail."""
    names = ("importance weighting alone", "learning rate alone", "comparable gains", "both match LSAM")
    held = np.zeros((len(names), len(points.hard)), dtype=bool)
    for n, swept, curves, places in comparable(points):
        alone = [mean_height(RATIOS, swept[0] - curve, places[0], RATIOS[-1]) for curve in curves[:2]]
        smaller, larger = sorted(alone, key=np.mean)
        apart = distance(at(RATIOS, curves[2], places[1:]), swept[1:])
        held[:, n] = (*_above(np.stack([*alone, 2 * smaller - larger])), apart.high <= TOLERANCE)
    return dict(zip(names, held))


def intervention_gains(points: Points) -> np.ndarray:
    """Mean gain over SGD of each intervention, from SGD's own ratio to the largest c: (effect, n), NaN where
    C6 cannot be judged."""
    out = np.full((len(EFFECTS), len(points.hard)), np.nan)
    for n, swept, curves, places in comparable(points):
        out[:, n] = [mean_height(RATIOS, swept[0] - curve, places[0], RATIOS[-1]).mean() for curve in curves]
    return out


def comparable(points: Points) -> Iterator[tuple[int, np.ndarray, np.ndarray, np.ndarray]]:
    """The points at which interventions can be compared with LSAM: index, hard probing errors of LSAM
    (rho, seed) and of the interventions (effect, ratio, seed), and LSAM's mean ratios (rho,).

    A seed in which any net diverged is left out, as in chapter 06; at least `FEWEST_SEEDS` must remain, and
    the ratios must be positive, that of SGD below the largest c.
    """
    for n, (swept, curves, ratios) in enumerate(zip(points.hard, points.interventions, points.phantom_ratio)):
        kept = ~(np.isnan(swept).any(axis=0) | np.isnan(curves).any(axis=(0, 1)))
        if kept.sum() >= FEWEST_SEEDS:
            places = ratios[:, kept].mean(axis=1)
            if np.all(places > 0) and places[0] < RATIOS[-1]:
                yield n, swept[:, kept], curves[..., kept], places


def _above(values: np.ndarray) -> np.ndarray:
    """Where the 95 % bootstrap interval of the mean over seeds of `values` (n, seed) lies above 0."""
    return bootstrap_band(values)[1] > 0


def _trend(rhos: Sequence[float], values: np.ndarray) -> np.ndarray:
    """Rank correlation of rho with each seed's `values` (n, rho, seed): (n, seed)."""
    return np.stack([rank_correlation(rhos, one) for one in values])
