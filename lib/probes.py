"""Linear probes: how well a representation holds an attribute, equation (1).

The probing error of an attribute is the error of the best linear classifier on the features phi, trained to
predict that attribute on a *balanced* set (every combination of attributes equally often, so that no other
attribute tells anything about it) and measured on another balanced set.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import TypeAlias

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from sklearn.utils.class_weight import compute_sample_weight
from threadpoolctl import threadpool_limits
from torch import Tensor

from lib import check
from lib.stats import rate

STRENGTHS = tuple(10.0**power for power in range(-5, 2))  # of C, the inverse of the L2 penalty, to begin with
WIDEST = 1e-7, 1e3  # how far the grid is widened where the best is at its end
HELD_OUT = 0.25  # share of each combination of attributes that chooses the strength
ITERATIONS = 2000  # at most, of L-BFGS

Array: TypeAlias = np.ndarray | Tensor
Attributes: TypeAlias = Mapping[str, Array]  # one integer array (n,) for each attribute


@dataclass(frozen=True, eq=False)
class Probe:
    """A linear probe and its error on held-out examples, with a 95 % Wilson interval.

    `weights` and `bias` act on the features as they come, not standardised: one row a class, but for two classes one
    row in all, positive for the second class; that row is then the vector v of equation (1).
    """

    error: float
    low: float
    high: float
    examples: int  # of the test
    regularisation: float  # the chosen C, on standardised features
    chosen_on: int  # examples that chose it
    at_end: bool  # whether it is the least or the greatest of those tried
    classes: np.ndarray  # (k,): values of the attribute
    weights: np.ndarray  # float64 (1 or k, d)
    bias: np.ndarray  # float64 (1 or k,)

    def predict(self, features: Array) -> np.ndarray:
        """Predicted values of the attribute, (n,), from features (n, d)."""
        return _predict(_matrix("features", features), self.classes, self.weights, self.bias)

    def contributions(self, features: np.ndarray, attribute: np.ndarray) -> np.ndarray:
        """Signed contribution of the feature that the probe reads, (n,): y (v . phi + b) for two classes, positive
        where the probe is right; for more, the true class's score less the best of the others.

        features (n, d), attribute (n,). Raises ValueError for an attribute that the probe was not trained on.
        """
        for value in np.unique(attribute):
            check.choice("attribute", value, self.classes)
        scores = np.asarray(features, dtype=float) @ self.weights.T + self.bias
        if len(self.classes) == 2:
            return np.where(attribute == self.classes[1], 1, -1) * scores[:, 0]
        true = np.asarray(attribute)[:, None] == self.classes
        return scores[true] - np.where(true, -np.inf, scores).max(axis=1)


def linear_probe(
    features: Array,
    attributes: Attributes,
    test_features: Array,
    test_attributes: Attributes,
    attribute: str,
    *,
    allow_unbalanced: bool = False,
    weighted: bool = False,
    strengths: Sequence[float] | None = None,
) -> Probe:
    """Train a probe of `attribute` on one set and measure it on another, equation (1).

    `features` have shapes (n, d) and (m, d). The probe is a logistic regression (multinomial) with an L2
    penalty on standardised features. A quarter of every combination of attributes, always the same, is held
    out of the training set; the strength with the lowest error there is taken (ties: the lower log loss), and
    standardisation and probe are fitted again on the whole training set. `strengths` None are STRENGTHS, and as many
    decades more as the best is at an end, within WIDEST. With `weighted` the training set need not be balanced: every
    combination of attributes weighs the same in all, however many examples it has.

    Raises ValueError where names, values or shapes do not fit, features are not finite, or either set is not balanced
    (unless `allow_unbalanced`: to show what goes wrong, and for sets that have one attribute only).
    """
    features, test_features = _matrix("features", features), _matrix("test_features", test_features)
    attributes = _columns("attributes", attributes, len(features))
    test_attributes = _columns("test_attributes", test_attributes, len(test_features))
    if (columns := features.shape[1]) != test_features.shape[1]:
        raise ValueError(f"test_features must have {columns} columns as features have, not {test_features.shape[1]}")
    check.choice("attribute", attribute, attributes)
    values, others = ({name: np.unique(one[name]).tolist() for name in one} for one in (attributes, test_attributes))
    if values != others:
        raise ValueError(f"test_attributes must have the values of attributes, {values}, not {others}")
    grid = sorted(map(float, STRENGTHS if strengths is None else strengths))
    if not grid or not 0 < grid[0] <= grid[-1] < np.inf:
        raise ValueError(f"strengths must be positive numbers, not {strengths!r}")
    cells = [len(rows) for rows in _cells(attributes).values()]
    weighted = weighted and min(cells) != max(cells)
    if not allow_unbalanced:
        check_balance(attributes, equal=not weighted)
        check_balance(test_attributes)
    target, held = attributes[attribute], _held_out(attributes)
    if len(values[attribute]) < 2 or not held.any():
        raise ValueError(f"attribute {attribute!r} must take two values, and some combination two examples")

    # One thread: the order of the sums, and so the result, must not depend on the machine's cores; and where
    # other processes share them, the threads of small products wait for each other far longer than they work.
    with threadpool_limits(1), warnings.catch_warnings():
        # Under the strongest penalties the line search ends at the precision of numbers: that is the minimum.
        warnings.filterwarnings("ignore", "(?s)lbfgs failed to converge.*ABNORMAL")
        of_cell = np.unique(np.stack(list(attributes.values())), axis=1, return_inverse=True)[1]
        balancing = compute_sample_weight("balanced", of_cell) if weighted else None
        scaler, classifier, at_end = _fit(features, target, balancing, held, grid, widen=strengths is None)
        weights = classifier.coef_.astype(np.float64) / scaler.scale_
        bias = classifier.intercept_ - weights @ scaler.mean_
        wrong = _predict(test_features, classifier.classes_, weights, bias) != test_attributes[attribute]
    choice = {"regularisation": classifier.C, "chosen_on": int(held.sum()), "at_end": at_end}
    return Probe(**rate(wrong), **choice, classes=classifier.classes_, weights=weights, bias=bias)


def check_balance(attributes: Attributes, equal: bool = True) -> None:
    """Raise ValueError, naming combinations, unless every combination of attributes occurs, and (`equal`) as often as
    any other."""
    counts = {name: len(rows) for name, rows in _cells(attributes).items()}
    rare, frequent = min(counts, key=counts.__getitem__), max(counts, key=counts.__getitem__)
    if not counts[rare] or (equal and counts[rare] != counts[frequent]):
        often = f"{rare} occurs {counts[rare]} times, {frequent} {counts[frequent]} times"
        raise ValueError(f"attributes must come in every combination{', equally often' * equal}: {often}")


def _fit(
    features: np.ndarray,
    target: np.ndarray,
    weights: np.ndarray | None,
    held: np.ndarray,
    grid: list[float],
    widen: bool,
) -> tuple[StandardScaler, LogisticRegression, bool]:
    """Fitted on all rows, with the strength that does best on the `held` rows when fitted on the others; whether that
    is at an end of the `grid`, widened."""
    scaler = StandardScaler().fit(features[~held])
    inputs, held_inputs = scaler.transform(features[~held]), scaler.transform(features[held])
    others, of_held = (None, None) if weights is None else (weights[~held], weights[held])
    # Each fit starts where the one before ended: from the strongest penalty down, a few steps each.
    model = LogisticRegression(max_iter=ITERATIONS, warm_start=True)

    def score(strength: float) -> tuple[float, float, float]:
        model.set_params(C=strength).fit(inputs, target[~held], others)
        probabilities, true = model.predict_proba(held_inputs), target[held, None] == model.classes_
        wrong = np.average(~true[np.arange(len(true)), probabilities.argmax(1)], weights=of_held)
        loss = np.average(-np.log(np.maximum((probabilities * true).sum(1), 1e-30)), weights=of_held)
        return float(wrong), float(loss), strength

    scores = [score(strength) for strength in grid]
    model.set_params(warm_start=False)  # the last end is far from the other
    for end, factor in ((0, 0.1), (-1, 10.0)):
        while widen and min(scores)[-1] == grid[end] and WIDEST[0] * 0.99 < grid[end] * factor < WIDEST[1] * 1.01:
            grid = sorted([*grid, grid[end] * factor])
            scores.append(score(grid[end]))
    scaler, best = StandardScaler().fit(features), min(scores)[-1]
    model = LogisticRegression(C=best, max_iter=ITERATIONS)
    return scaler, model.fit(scaler.transform(features), target, weights), best in (grid[0], grid[-1])


def _predict(features: np.ndarray, classes: np.ndarray, weights: np.ndarray, bias: np.ndarray) -> np.ndarray:
    logits = features @ weights.T + bias
    return classes[(logits[:, 0] > 0).astype(int) if len(weights) == 1 else logits.argmax(1)]


def _held_out(attributes: Attributes) -> np.ndarray:
    """Mask of a quarter of every combination, and of at least one example where a combination has two."""
    random = np.random.default_rng(0)
    mask = np.zeros(len(next(iter(attributes.values()))), dtype=bool)
    for rows in _cells(attributes).values():
        if len(rows) > 1:
            mask[random.permutation(rows)[: max(1, round(HELD_OUT * len(rows)))]] = True
    return mask


def _cells(attributes: Attributes) -> dict[str, np.ndarray]:
    """Rows of every combination of the values that each attribute takes, by the combination's name."""
    cells = {}
    for combination in product(*(np.unique(column) for column in attributes.values())):
        name = ", ".join(f"{attribute} = {value}" for attribute, value in zip(attributes, combination))
        matches = [column == value for column, value in zip(attributes.values(), combination)]
        cells[name] = np.flatnonzero(np.logical_and.reduce(matches))
    return cells


def _matrix(name: str, features: Array) -> np.ndarray:
    features = features.detach().cpu().float().numpy() if isinstance(features, Tensor) else features
    features = np.asarray(features, dtype=np.float32)
    if features.ndim != 2 or not features.size:
        raise ValueError(f"{name} must have shape (n, d), not {features.shape}")
    if not np.isfinite(features).all():
        raise ValueError(f"{name} must be finite, but {(~np.isfinite(features)).sum()} entries are not")
    return features


def _columns(name: str, attributes: Attributes, n: int) -> dict[str, np.ndarray]:
    columns = {key: np.asarray(one.cpu() if isinstance(one, Tensor) else one) for key, one in attributes.items()}
    if not columns or any(column.shape != (n,) for column in columns.values()):
        shapes = ", ".join(f"{key} {column.shape}" for key, column in columns.items()) or "none"
        raise ValueError(f"{name} must hold one array of shape ({n},) for each attribute, not {shapes}")
    if any(column.dtype.kind not in "iub" for column in columns.values()):
        raise ValueError(f"{name} must be integers")
    return columns
