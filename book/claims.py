"""The paper's claims C1 to C12 and how one is judged: by checks that a chapter states before it looks at
the numbers."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, Self

import numpy as np
import yaml
from scipy.stats import t as student

from lib import check
from lib.stats import FEW, LEVEL, Estimate, estimate

MOST = 10_000  # seeds that `seeds_needed` thinks of
MARGIN = 0.005  # half a point, of probing error or of all importance: an effect within it is too small to matter
JUDGEMENT = "judgement"  # the key of a displayed judgement, as plain values, in its output's metadata


@dataclass(frozen=True)
class Claim:
    """What the paper says, by which figure or table, the chapters that judge it, and what was found, in plain words for
    one verdict."""

    id: str
    statement: str
    shown_by: str
    notebooks: list[str]
    verdict: str
    found: str


_STATED = yaml.safe_load(Path(__file__).with_suffix(".yml").read_text(encoding="utf-8"))
CLAIMS = {id: Claim(id, **stated) for id, stated in _STATED.items()}


class Kind(StrEnum):
    """What came out."""

    @property
    def kind(self) -> str:
        """The class that its card or mark has on a page."""
        return self.name.lower().replace("_", "-")


class Verdict(Kind):
    """What may be concluded about a claim."""

    REPRODUCED = "reproduced"
    MIXED = "mixed"
    UNDECIDED = "undecided"
    CONTRADICTED = "contradicted"
    NOT_RUN = "not run here"


class Outcome(Kind):
    """What became of a check."""

    HOLDS = "holds"
    UNDECIDED = "undecided"
    CONTRADICTED = "contradicted"
    NOT_RUN = "not run"


@dataclass(frozen=True)
class Check:
    """One part of a claim: what has to hold, what became of it, and the effect behind it.

    `main` marks the check that the claim stands or falls with, named before the numbers were looked at; `reduced` one
    of runs that are shorter, smaller or fewer than the paper's; `trivial` an identity, or what could hardly fail: it is
    shown, and counts for nothing. `needs` are the seeds that would decide an undecided check at the effect seen.
    """

    what: str
    outcome: Outcome = Outcome.NOT_RUN
    effect: Estimate | None = None
    main: bool = False
    reduced: bool = False
    trivial: bool = False
    needs: int | None = None

    @property
    def words(self) -> str:
        """What has to hold, and whether that was looked at in reduced runs only."""
        return f"{self.what} (reduced)" if self.reduced else self.what

    @property
    def counts(self) -> bool:
        """Whether the verdict rests on it."""
        return self.outcome is not Outcome.NOT_RUN and not self.trivial

    @property
    def found(self) -> str:
        """Its outcome in words, with the seeds that would decide it."""
        if self.outcome is not Outcome.UNDECIDED:
            return self.outcome + (", counts for nothing" if self.trivial else "")
        return "undecided" + (f", n = {self.needs:,} would decide" if self.needs else "")

    def as_json(self) -> dict[str, Any]:
        """The check as plain JSON values; a number that is none (NaN, infinity) is null."""
        effect = self.effect and {name: x if math.isfinite(x) else None for name, x in vars(self.effect).items()}
        return vars(self) | {"effect": effect}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Self:
        """The check that `as_json` wrote."""
        stored = values["effect"]
        effect = stored and Estimate(**{name: math.nan if x is None else x for name, x in stored.items()})
        return cls(**values | {"effect": effect, "outcome": Outcome(values["outcome"])})


def verdict_of(checks: Iterable[Check]) -> Verdict:
    """Of checks that are not trivial: mixed where some hold and others are contradicted; contradicted where none holds
    and one is; reproduced where every main check was run and holds (of a claim without one, every check); undecided
    otherwise. Not run here where none was run."""
    found = [check for check in checks if not check.trivial]
    outcomes = {check.outcome for check in found}
    if outcomes <= {Outcome.NOT_RUN}:
        return Verdict.NOT_RUN
    if Outcome.CONTRADICTED in outcomes:
        return Verdict.MIXED if Outcome.HOLDS in outcomes else Verdict.CONTRADICTED
    leading = [check for check in found if check.main] or found
    held = all(check.outcome is Outcome.HOLDS for check in leading)
    return Verdict.REPRODUCED if held else Verdict.UNDECIDED


def by_chance(checks: Iterable[Check]) -> float:
    """How many of the checks that count would hold by chance alone, were there no effect at all: an interval lies
    wholly above 0, or wholly below, in half of what its level leaves."""
    return (1 - LEVEL) / 2 * sum(check.counts for check in checks)


@dataclass(frozen=True)
class Judgement:
    """A claim's verdict with the checks behind it."""

    claim: Claim
    checks: tuple[Check, ...]
    stored_seconds: float = 0.0  # what the stored results behind the checks took to compute

    @property
    def verdict(self) -> Verdict:
        """The verdict of these checks, see `verdict_of`."""
        return verdict_of(self.checks)

    @property
    def words(self) -> str:
        """The verdict as a page says it: with a word where all that ran are of reduced runs."""
        reduced = {check.reduced for check in self.checks if check.counts} == {True}
        return self.verdict + (", in reduced runs only" if reduced else "")

    def as_json(self) -> dict[str, Any]:
        """The judgement as plain JSON values."""
        plain = {"claim": self.claim.id, "stored_seconds": round(self.stored_seconds)}
        return vars(self) | plain | {"checks": [check.as_json() for check in self.checks]}

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> tuple[dict, dict[str, Any]]:
        """No more to show than text and HTML; in the output's metadata itself, for the scorecard to read."""
        return {}, {JUDGEMENT: self.as_json()}

    def __repr__(self) -> str:
        lines = [f"  {one.found}: {one.words}" + (f": {one.effect}" if one.effect else "") for one in self.checks]
        return "\n".join([f"{self.claim.id}: {self.words}", *lines])

    def _repr_html_(self) -> str:
        from book.templates import render  # here: a kernel that judges nothing starts without it

        return render("judgement", judgement=self)


def compared(
    what: str,
    effects: Sequence[Estimate],
    low: float = -math.inf,
    high: float = math.inf,
    margin: float = 0.0,
    main: bool = False,
    reduced: bool = False,
) -> Check:
    """Whether every one of `effects` lies between `low` and `high`, by its whole interval.

    One that lies wholly outside, or wholly within `margin` around 0, where it is too small to matter, contradicts the
    check; any other leaves it undecided, and so do fewer than FEW seeds. The check carries the effect that is furthest
    from holding and, where there are several, how many of them hold. Without an effect it was not run.
    """
    if not effects:
        return Check(what, main=main, reduced=reduced)
    found = [_outcome(effect, low, high, margin) for effect in effects]
    room = [np.nan_to_num(min(effect.low - low, high - effect.high), nan=-math.inf) for effect in effects]
    order = [Outcome.CONTRADICTED, Outcome.UNDECIDED, Outcome.HOLDS]
    worst = min(range(len(effects)), key=lambda i: (order.index(found[i]), room[i]))
    held = found.count(Outcome.HOLDS)
    count = f" ({held} of {len(effects)})" if len(effects) > 1 else ""
    needs = None
    if found[worst] is Outcome.UNDECIDED and math.isfinite(effects[worst].mean):
        nearest = min((low, high), key=lambda border: abs(effects[worst].mean - border))
        needs = seeds_needed(effects[worst], nearest, margin)
    return Check(what + count, found[worst], effects[worst], main, reduced, needs=needs)


def seeds_needed(effect: Estimate, border: float, margin: float = 0.0) -> int | None:
    """The least number of paired seeds, FEW or more, whose interval leaves `border` out, or lies within `margin` around
    0, if the mean stays as it is and the interval shrinks as Student's; None where that would be more than MOST."""
    n = np.arange(FEW, MOST + 1)
    wide = student.ppf((1 + LEVEL) / 2, n - 1) / student.ppf((1 + LEVEL) / 2, max(effect.n - 1, 1))
    low, high = (effect.mean + (end - effect.mean) * np.sqrt(effect.n / n) * wide for end in (effect.low, effect.high))
    enough = (low > border) | (high < border) | ((margin > 0) & (-margin <= low) & (high <= margin))
    return int(n[enough][0]) if enough.any() else None


def _outcome(effect: Estimate, low: float, high: float, margin: float) -> Outcome:
    if effect.n < FEW:
        return Outcome.UNDECIDED
    if effect.high < low or effect.low > high or (margin and -margin <= effect.low and effect.high <= margin):
        return Outcome.CONTRADICTED
    return Outcome.HOLDS if low < effect.low and effect.high < high else Outcome.UNDECIDED


def weakest(
    what: str, values: np.ndarray, sign: int, margin: float = 0.0, main: bool = False, reduced: bool = False
) -> Check:
    """Whether the mean over seeds of `values` (..., seed) has this sign everywhere on the leading axes, as by
    `compared`; not run where there are none."""
    effects = [estimate(seeds) for seeds in np.reshape(values, (-1, np.shape(values)[-1]))] if np.size(values) else []
    low, high = (0.0, math.inf) if sign > 0 else (-math.inf, 0.0)
    return compared(what, effects, low, high, margin, main, reduced)


def exact(what: str, holds: bool, effect: Estimate | None = None, main: bool = False, trivial: bool = False) -> Check:
    """A check that no chance decides: it holds, or is contradicted."""
    return Check(what, Outcome.HOLDS if holds else Outcome.CONTRADICTED, effect, main, trivial=trivial)


def beside(checks: Iterable[Check], where: str = "simple setting") -> list[Check]:
    """The checks at a setting that does not decide: shown, its name before them, and counting for nothing."""
    return [replace(one, what=f"{where}: {one.what}", main=False, trivial=True) for one in checks]


def judge(claim_id: str, checks: Sequence[Check], stored_seconds: float = 0.0) -> Judgement:
    """The judgement of a claim from its checks; without any the claim is not run here.

    A part of the claim that is not run, for want of data say, is `Check(what)`. `stored_seconds` is what the stored
    results that were read took to compute. Raises ValueError for an unknown claim.
    """
    check.choice("claim", claim_id, CLAIMS)
    return Judgement(CLAIMS[claim_id], tuple(checks), stored_seconds)
