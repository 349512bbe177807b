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
from threadpoolctl import threadpool_limits
from torch import Tensor

from lib.stats import wilson_interval

STRENGTHS = tuple(10.0**power for power in range(-5, 2))  # of C, the inverse of the L2 penalty, to begin with
WIDEST = 1e-7, 1e3  # how far the grid is widened where the best is at its end
HELD_OUT = 0.25  # share of each combination of attributes that chooses the strength
ITERATIONS = 2000  # at most, of L-BFGS

Array: TypeAlias = np.ndarray | Tensor
Attributes: TypeAlias = Mapping[str, Array]  # one integer array (n,) for each attribute


@dataclass(frozen=True, eq=False)
class Probe:
    """A linear probe and its error on held-out examples, with a 95 % Wilson interval.

    The interval takes the probe as given and the test examples as independent. `weights` and `bias` act on
    the features as they come, not standardised: one row a class, but for two classes one row in all, positive
    for the second class; that row is then the vector v of equation (1).
    """

    attribute: str
    error: float
    low: float
    high: float
    regularisation: float  # the chosen C, on standardised features
    chosen_on: int  # examples that chose it
    at_end: bool  # whether it is the least or the greatest of those tried
    classes: np.ndarray  # (k,): values of the attribute
    weights: np.ndarray  # float64 (1 or k, d)
    bias: np.ndarray  # float64 (1 or k,)

    def predict(self, features: Array) -> np.ndarray:
        """Predicted values of the attribute, (n,), from features (n, d)."""
        return _predict(_matrix("features", features), self.classes, self.weights, self.bias)


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
    seed: int = 0,
) -> Probe:
    """Train a probe of `attribute` on one set and measure it on another, equation (1).

    `features` have shapes (n, d) and (m, d). The probe is a logistic regression (multinomial) with an L2
    penalty on standardised features. A quarter of every combination of attributes, drawn by `seed`, is held
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
    if features.shape[1] != test_features.shape[1]:
        raise ValueError(
            f"test_features must have {features.shape[1]} columns as features have, not {test_features.shape[1]}"
        )
    if attribute not in attributes or set(attributes) != set(test_attributes):
        raise ValueError(
            f"attribute {attribute!r} must be named by both sets, which must agree: "
            f"{', '.join(attributes)} against {', '.join(test_attributes)}"
        )
    grid = sorted(map(float, STRENGTHS if strengths is None else strengths))
    if not grid or not 0 < grid[0] <= grid[-1] < np.inf:
        raise ValueError(f"strengths must be positive numbers, not {strengths!r}")
    cells = [len(rows) for rows in _cells(attributes).values()]
    weighted = weighted and min(cells) != max(cells)
    if not allow_unbalanced:
        check_balance(attributes, equal=not weighted)
        check_balance(test_attributes)
    target, held = attributes[attribute], _held_out(attributes, seed)
    if len(np.unique(target)) < 2 or not held.any():
        raise ValueError(f"attribute {attribute!r} must take two values, and some combination two examples")
    for name in attributes:
        values, others = (np.unique(one[name]).tolist() for one in (attributes, test_attributes))
        if values != others:
            raise ValueError(
                f"test_attributes must hold the values of attributes: {name} has {others} against {values}"
            )

    # One thread: the order of the sums, and so the result, must not depend on the machine's cores; and where
    # other processes share them, the threads of small products wait for each other far longer than they work.
    with threadpool_limits(1), warnings.catch_warnings():
        # Under the strongest penalties the line search ends at the precision of numbers: that is the minimum.
        warnings.filterwarnings("ignore", "(?s)lbfgs failed to converge.*ABNORMAL")
        scaler, classifier, at_end = _fit(
            features, target, _weights(attributes) if weighted else None, held, grid, widen=strengths is None
        )
        weights = classifier.coef_.astype(np.float64) / scaler.scale_
        bias = classifier.intercept_ - weights @ scaler.mean_
        wrong = _predict(test_features, classifier.classes_, weights, bias) != test_attributes[attribute]
    low, high = wilson_interval(int(wrong.sum()), len(wrong))
    choice = classifier.C, int(held.sum()), at_end
    return Probe(attribute, float(wrong.mean()), low, high, *choice, classifier.classes_, weights, bias)


def balanced_indices(attributes: Attributes, per_cell: int | None = None, seed: int = 0) -> np.ndarray:
    """Indices (int64, shuffled by `seed`) of `per_cell` examples of every combination of attributes.

    None takes as many as the rarest combination has. Raises ValueError naming combinations that lack some.
    """
    cells = _cells(_columns("attributes", attributes))
    if per_cell is None:
        per_cell = max(1, min(map(len, cells.values())))
    if per_cell < 1:
        raise ValueError(f"per_cell must be at least 1, not {per_cell}")
    if short := [f"{name} has {len(rows)}" for name, rows in cells.items() if len(rows) < per_cell]:
        raise ValueError(f"attributes must hold {per_cell} of every combination; {'; '.join(short)}")
    random = np.random.default_rng(seed)
    chosen = [random.permutation(rows)[:per_cell] for rows in cells.values()]
    return random.permutation(np.concatenate(chosen))


def check_balance(attributes: Attributes, equal: bool = True) -> None:
    """Raise ValueError, naming combinations, unless every combination of attributes occurs, and (`equal`) as often as
    any other."""
    counts = {name: len(rows) for name, rows in _cells(_columns("attributes", attributes)).items()}
    if missing := [name for name, count in counts.items() if not count]:
        raise ValueError(f"attributes must come in every combination; missing: {'; '.join(missing)}")
    rare, frequent = min(counts, key=counts.__getitem__), max(counts, key=counts.__getitem__)
    if equal and counts[rare] != counts[frequent]:
        raise ValueError(
            f"attributes must be balanced (see balanced_indices): {rare} occurs "
            f"{counts[rare]} times, {frequent} {counts[frequent]} times"
        )


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
        probabilities = model.set_params(C=strength).fit(inputs, target[~held], others).predict_proba(held_inputs)
        wrong = np.average(model.classes_[probabilities.argmax(1)] != target[held], weights=of_held)
        true_class = np.searchsorted(model.classes_, target[held])[:, None]
        losses = -np.log(np.maximum(np.take_along_axis(probabilities, true_class, 1)[:, 0], 1e-30))
        loss = np.average(losses, weights=of_held)
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


def _held_out(attributes: Attributes, seed: int) -> np.ndarray:
    """Mask of a quarter of every combination, and of at least one example where a combination has two."""
    random = np.random.default_rng(seed)
    mask = np.zeros(len(next(iter(attributes.values()))), dtype=bool)
    for rows in _cells(attributes).values():
        if len(rows) > 1:
            mask[random.permutation(rows)[: max(1, round(HELD_OUT * len(rows)))]] = True
    return mask


def _weights(attributes: Attributes) -> np.ndarray:
    """A weight for each example, 1 in the mean, with which all combinations of attributes have the same sum."""
    cells = _cells(attributes).values()
    weights = np.empty(sum(map(len, cells)))
    for rows in cells:
        weights[rows] = len(weights) / (len(cells) * len(rows))
    return weights


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


def _columns(name: str, attributes: Attributes, n: int | None = None) -> dict[str, np.ndarray]:
    columns = {
        key: np.asarray(column.cpu() if isinstance(column, Tensor) else column) for key, column in attributes.items()
    }
    if n is None:
        n = max((column.size for column in columns.values()), default=0)
    if not n or any(column.shape != (n,) for column in columns.values()) or not columns:
        shapes = ", ".join(f"{key} {column.shape}" for key, column in columns.items())
        raise ValueError(
            f"{name} must hold one array of shape ({n or 'n'},) for each attribute, not {shapes or 'none'}"
        )
    if any(column.dtype.kind not in "iub" for column in columns.values()):
        raise ValueError(f"{name} must be integers")
    return columns
