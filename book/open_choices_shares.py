"""In what share of settings something holds, and which of their constants decide it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from sklearn.inspection import permutation_importance
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.tree import DecisionTreeClassifier

from lib.probes import wilson_interval

LEAF, DEPTH = 10, 3  # settings in a leaf of the tree that explains, and questions asked in a row


@dataclass(frozen=True)
class Share:
    """In how many of n settings something holds, with Wilson's 95 % interval."""

    held: int
    n: int

    @property
    def interval(self) -> tuple[float, float]:
        """NaN where there is no setting."""
        return wilson_interval(self.held, self.n) if self.n else (float("nan"), float("nan"))

    @property
    def share(self) -> float:
        """NaN where there is no setting."""
        return self.held / self.n if self.n else float("nan")

    def __str__(self) -> str:
        low, high = self.interval
        return f"{self.share:.0%} [{low:.0%}, {high:.0%}]"


def share(held: np.ndarray, among: np.ndarray) -> Share:
    """In what share of the settings `among` (n,) something is `held` (n,); both are boolean."""
    return Share(int((held & among).sum()), int(among.sum()))


def whole(parts: dict[str, np.ndarray]) -> np.ndarray:
    """Where all parts of a claim, each (n,), hold."""
    return np.logical_and.reduce(list(parts.values()))


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
    answers = cross_val_predict(tree, values, held, cv=folds)
    accuracy = np.mean([(answers[held == kind] == kind).mean() for kind in (True, False)])
    lost = permutation_importance(
        tree.fit(values, held), values, held, n_repeats=10, random_state=seed, scoring="balanced_accuracy"
    ).importances_mean
    ranked = pd.Series(lost, index=values.columns).sort_values(ascending=False, kind="stable")
    return Explanation(ranked, float(accuracy))
