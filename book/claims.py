"""The paper's claims C1 to C12 and how one is judged: by checks that a chapter states before it looks at
the numbers."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from enum import Enum
from pathlib import Path
from typing import Any, Self

import numpy as np
import yaml

from lib import check
from lib.stats import Estimate, estimate

JUDGEMENT = "judgement"  # the key of a displayed judgement, as plain values, in its output's metadata


@dataclass(frozen=True)
class Claim:
    """What the paper says, by which figure or table, and the chapters that judge it."""

    id: str
    statement: str
    shown_by: str
    notebooks: list[str]


_STATED = yaml.safe_load(Path(__file__).with_suffix(".yml").read_text(encoding="utf-8"))
CLAIMS = {id: Claim(id, **stated) for id, stated in _STATED.items()}


class Verdict(Enum):
    """What a chapter may conclude."""

    REPRODUCED = "reproduced"
    PARTLY = "partly reproduced"
    NOT_REPRODUCED = "not reproduced"
    NOT_RUN = "not run here"

    @property
    def kind(self) -> str:
        """The class of its card on a page."""
        return self.name.lower().replace("_", "-")


@dataclass(frozen=True)
class Check:
    """One part of a claim: what has to hold, whether it does (None: not run here), and the effect behind it.

    `main` marks the check whose effect stands for the claim where there is room for one, `reduced` one of
    runs that are shorter, smaller or fewer than the paper's.
    """

    what: str
    holds: bool | None
    effect: Estimate | None = None
    main: bool = False
    reduced: bool = False

    @property
    def words(self) -> str:
        """What has to hold, and whether that was looked at in reduced runs only."""
        return f"{self.what} (reduced)" if self.reduced else self.what

    @property
    def outcome(self) -> str:
        """What became of it, in a word or three."""
        return "not run" if self.holds is None else "holds" if self.holds else "fails"

    def as_json(self) -> dict[str, Any]:
        """The check as plain JSON values; a number that is none (NaN, infinity) is null."""
        holds = None if self.holds is None else bool(self.holds)  # NumPy's booleans are no JSON
        values = asdict(self) | {"holds": holds}
        if self.effect:
            values["effect"] = {name: x if math.isfinite(x) else None for name, x in values["effect"].items()}
        return values

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Self:
        """The check that `as_json` wrote."""
        stored = (values["effect"] or {}).items()
        effect = Estimate(**{name: math.nan if value is None else value for name, value in stored}) if stored else None
        return cls(**values | {"effect": effect})


def verdict_of(checks: Iterable[Check]) -> Verdict:
    """Reproduced where every check holds; not reproduced where none of those that ran does; partly where some
    do, or where some were not run; not run here where none was."""
    found = [check.holds for check in checks]
    if all(holds is None for holds in found):
        return Verdict.NOT_RUN
    return Verdict.REPRODUCED if all(found) else Verdict.PARTLY if any(found) else Verdict.NOT_REPRODUCED


def verdict_in_words(checks: Iterable[Check]) -> str:
    """The verdict of these checks as a page says it: with a word where all that ran are of reduced runs."""
    checks = list(checks)
    reduced = {check.reduced for check in checks if check.holds is not None} == {True}
    return verdict_of(checks).value + (", in reduced runs only" if reduced else "")


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

    def as_json(self) -> dict[str, Any]:
        """The judgement as plain JSON values."""
        checks = [check.as_json() for check in self.checks]
        return {"claim": self.claim.id, "checks": checks, "stored_seconds": round(self.stored_seconds)}

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> tuple[dict, dict[str, Any]]:
        """No more to show than text and HTML; in the output's metadata itself, for the scorecard to read."""
        return {}, {JUDGEMENT: self.as_json()}

    def __repr__(self) -> str:
        effects = (f": {check.effect}" if check.effect else "" for check in self.checks)
        lines = [f"  {check.outcome}: {check.words}{effect}" for check, effect in zip(self.checks, effects)]
        return "\n".join([f"{self.claim.id}: {verdict_in_words(self.checks)}", *lines])

    def _repr_html_(self) -> str:
        from book.templates import render  # here: a kernel that judges nothing starts without it

        return render("judgement", judgement=self, words=verdict_in_words(self.checks))


def weakest(what: str, values: np.ndarray, sign: int, main: bool = False, reduced: bool = False) -> Check:
    """Whether the mean over seeds of `values` (..., seed) has this sign, beyond its interval, everywhere on
    the leading axes.

    The check carries the weakest effect and, where there are several, how many of them hold.
    """
    effects = [estimate(seeds) for seeds in np.reshape(values, (-1, np.shape(values)[-1]))]
    margins = [effect.low if sign > 0 else -effect.high for effect in effects]
    held = sum(margin > 0 for margin in margins)
    count = f" ({held} of {len(effects)})" if len(effects) > 1 else ""
    return Check(what + count, held == len(effects), effects[int(np.argmin(margins))], main, reduced)


def judge(claim_id: str, checks: Sequence[Check], stored_seconds: float = 0.0) -> Judgement:
    """The judgement of a claim from its checks; without any the claim is not run here.

    A part of the claim that is not run, for want of data say, is a check that neither holds nor fails:
    `Check(what, None)`. `stored_seconds` is what the stored results that were read took to compute.

    Raises ValueError for an unknown claim, or where several checks are marked as the main one.
    """
    check.choice("claim", claim_id, CLAIMS)
    if sum(check.main for check in checks) > 1:
        raise ValueError(f"main must mark one check of {claim_id}, not {sum(check.main for check in checks)}")
    return Judgement(CLAIMS[claim_id], tuple(checks), stored_seconds)
