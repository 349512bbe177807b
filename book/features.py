"""What goes wrong with a probe, where the truth is known: made representations, and toy nets (chapter 02)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from statistics import NormalDist

import numpy as np

from lib.data.pairs import PairedSet
from lib.data.toy import ToyConstants, ToySample, sample
from lib.probes import linear_probe
from lib.toy.ensemble import ToyResult, features

TEST_EXAMPLES = 2000
Attributes = dict[str, np.ndarray]


@dataclass(frozen=True)
class Representation:
    """`width` Gaussian units of unit variance that hold two binary attributes, one unit each.

    `easy` and `hard`: distance between the means of an attribute's two values, in standard deviations.
    """

    easy: float
    hard: float
    width: int = 16

    @property
    def hard_error(self) -> float:
        """The hard attribute's true probing error, Phi(-distance / 2): that of the best linear probe."""
        return NormalDist().cdf(-self.hard / 2)

    def draw(self, attributes: Attributes, random: np.random.Generator) -> np.ndarray:
        """Features (n, width) of examples that have these attributes, each 0 or 1."""
        units = random.normal(size=(len(attributes["easy"]), self.width))
        units[:, 0] += self.easy * (attributes["easy"] - 0.5)
        units[:, 1] += self.hard * (attributes["hard"] - 0.5)
        return units


def agreeing(examples: int, agreement: float, random: np.random.Generator) -> Attributes:
    """An easy and a hard attribute, each 0 in half of the examples, equal in the share `agreement` of them.

    0.5 is a balanced set, 1 a perfectly correlated one. Raises ValueError unless `examples` divides by 4.
    """
    if examples < 4 or examples % 4 or not 0.5 <= agreement <= 1:
        raise ValueError(
            f"examples must be a multiple of 4 and agreement between 0.5 and 1, not {examples} and {agreement}"
        )
    easy = np.arange(examples) % 2
    differs = np.arange(examples) // 2 >= round(agreement * examples / 2)
    order = random.permutation(examples)
    return {"easy": easy[order], "hard": np.where(differs, 1 - easy, easy)[order]}


def against_agreement(
    representations: Sequence[Representation], agreements: Sequence[float], examples: int, seeds: Sequence[int]
) -> np.ndarray:
    """Errors (representation, agreement, seed, 2) of a probe of the hard attribute, trained on `examples`.

    The first is measured on more data of the training set's agreement, the second on a balanced set.
    """
    errors = np.empty((len(representations), len(agreements), len(seeds), 2))
    for r, a, s in np.ndindex(errors.shape[:3]):
        random = np.random.default_rng(seeds[s])
        kinds = (examples, agreements[a]), (TEST_EXAMPLES, agreements[a]), (TEST_EXAMPLES, 0.5)
        train, alike, balanced = (agreeing(*kind, random) for kind in kinds)
        phi, phi_alike, phi_balanced = (representations[r].draw(x, random) for x in (train, alike, balanced))
        probe = linear_probe(phi, train, phi_alike, alike, "hard", allow_unbalanced=True)
        errors[r, a, s] = probe.error, np.mean(probe.predict(phi_balanced) != balanced["hard"])
    return errors


def against_size(representations: Sequence[Representation], sizes: Sequence[int], seeds: Sequence[int]) -> np.ndarray:
    """Errors (representation, size, seed) of a probe of the hard attribute, trained on balanced sets."""
    errors = np.empty((len(representations), len(sizes), len(seeds)))
    for r, n, s in np.ndindex(errors.shape):
        random = np.random.default_rng(seeds[s])
        train, test = agreeing(sizes[n], 0.5, random), agreeing(TEST_EXAMPLES, 0.5, random)
        phi, phi_test = (representations[r].draw(x, random) for x in (train, test))
        errors[r, n, s] = linear_probe(phi, train, phi_test, test, "hard").error
    return errors


def of_toy_inputs(spirals: Sequence[ToyConstants], seed: int) -> list[float]:
    """Error of the best line on the toy's easy plane, and on the hard plane of each of `spirals`."""
    errors = []
    for constants, plane in ((spirals[0], slice(0, 2)), *((spiral, slice(2, 4)) for spiral in spirals)):
        points = [sample(constants, seed, split) for split in ("train", "test")]
        sets = [(part.x[:, plane], {"label": (part.y > 0).astype(int)}) for part in points]
        # Nothing to balance the label against; and it alternates, so that an odd set is one point off.
        errors.append(linear_probe(*sets[0], *sets[1], "label", allow_unbalanced=True).error)
    return errors


def of_toy_nets(result: ToyResult) -> dict[str, np.ndarray]:
    """Hard probing errors (setting, seed) of trained toy nets, whose representation is phi = (f_e, f_h).

    "correlated": of a probe trained and measured on points like the training data; "balanced": on balanced
    ones.
    Raises ValueError where the nets were not kept.
    """
    if result.nets is None:
        raise ValueError("result must hold the nets: train(..., keep_nets=True)")
    count = len(result.settings), len(result.seeds)
    errors = {kind: np.empty(count) for kind in ("correlated", "balanced")}
    for i, j, kind in product(*map(range, count), errors):
        points = (sample(result.settings[i].data, result.seeds[j], split) for split in ("validation", "test"))
        sets = [_represented(result.nets[i][j, -1], part, kind == "balanced") for part in points]
        probe = linear_probe(*sets[0], *sets[1], "hard", allow_unbalanced=kind == "correlated")
        errors[kind][i, j] = probe.error
    return errors


def _represented(net: np.ndarray, points: ToySample, balanced: bool) -> tuple[np.ndarray, Attributes]:
    """phi (n, 2), n a multiple of 4, and the points' attributes, `balanced` by exchanging hard parts."""
    rows = np.arange(len(points.y) // 4 * 4)
    # Labels alternate: exchanging the hard parts of neighbours in one half balances the attributes.
    partner = np.where(balanced & (rows < len(rows) // 2), rows ^ 1, rows)
    labels = (points.y > 0).astype(int)
    phi = features(net[0], points.x[rows, :2]), features(net[1], points.x[partner, 2:])
    return np.stack(phi, axis=1), {"easy": labels[rows], "hard": labels[partner]}


def of_pixels(paired: PairedSet) -> dict[str, dict[str, float]]:
    """Errors of an attribute's probe on raw pixels, without a net, on "correlated" and "balanced" pairs."""
    kinds = {"correlated": (paired.validation, paired.test), "balanced": (paired.probe_train, paired.probe_test)}
    errors = {name: {} for name in paired.attributes}
    for name, (kind, splits) in product(errors, kinds.items()):
        sets = [(split.images.flatten(1), split.attributes) for split in splits]
        probe = linear_probe(*sets[0], *sets[1], name, allow_unbalanced=kind == "correlated")
        errors[name][kind] = probe.error
    return errors
