"""The paper's claims C1 to C12 and how one is judged: by checks that a chapter states before it looks at
the numbers."""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from enum import Enum
from typing import Any

import numpy as np

from lib.stats import Estimate, estimate

JUDGEMENT = "judgement"  # the key of a displayed judgement, as plain values, in its output's metadata


@dataclass(frozen=True)
class Claim:
    """What the paper says, by which figure or table, and the chapters that judge it."""

    id: str
    statement: str
    shown_by: str
    notebooks: list[str]


_TABLE = {
    "C1": (
        "SGD and LSAM both fit the toy labels perfectly; SGD's hard probing error is high, and "
        "LSAM's falls as rho grows, at every complexity.",
        "Figures 1, 2A",
        "03_toy",
    ),
    "C2": ("The phantom ratio grows with rho, while the real ratio hardly moves.", "Figure 2B", "04_rebalancing"),
    "C3": (
        "Importance weights are spread more evenly at the phantom than at the real parameters, "
        "for a fixed model and between an SGD- and a SAM-trained one.",
        "Figure 3",
        "05_mechanism",
        "07_real_data",
    ),
    "C4": (
        "Points that the easy feature fits badly get less weight, points that the hard feature fits badly get more.",
        "Figure 5",
        "05_mechanism",
        "07_real_data",
    ),
    "C5": (
        "LSAM lowers the easy feature's effective learning rate and raises the hard one's.",
        "Figure 4",
        "04_rebalancing",
    ),
    "C6": (
        "Each intervention alone lowers the hard probing error, by comparable amounts; both together "
        "match LSAM at equal ratio.",
        "Figure 6",
        "06_interventions",
    ),
    "C7": ("SAM lowers the probing error of both features on all four sets.", "Table 1", "07_real_data"),
    "C8": ("SAM wins on all twelve target domains.", "Table 2", "08_domainbed"),
    "C9": ("C3 and C4 hold throughout training.", "Figures 7, 8", "05_mechanism"),
    "C10": (
        "LSAM helps under feature-label noise, Gaussian noise and dropout, on both features or on the hard one only.",
        "Figure 9",
        "09_noise",
    ),
    "C11": (
        "The best rho is much the same across batch sizes, the gain shrinks for very large ones, and "
        "large rho is more sensitive.",
        "Figure 10",
        "10_batch_size",
    ),
    "C12": (
        "The log ratio of phantom to real importance weight is about rho times the gradient norm of the logit.",
        "Appendix D",
        "11_theory",
    ),
}
CLAIMS = {id: Claim(id, statement, shown_by, notebooks) for id, (statement, shown_by, *notebooks) in _TABLE.items()}


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
        effect = self.effect and {
            name: value if math.isfinite(value) else None for name, value in asdict(self.effect).items()
        }
        holds = None if self.holds is None else bool(self.holds)  # NumPy's booleans are no JSON
        return {"what": self.what, "holds": holds, "effect": effect, "main": self.main, "reduced": self.reduced}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Check:
        """The check that `as_json` wrote."""
        effect = values["effect"] and Estimate(
            **{name: math.nan if value is None else value for name, value in values["effect"].items()}
        )
        return cls(
            values["what"], values["holds"], effect, values["main"], values.get("reduced", False)
        )  # a file of an earlier day has no such mark


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
        return {
            "claim": self.claim.id,
            "checks": [check.as_json() for check in self.checks],
            "stored_seconds": round(self.stored_seconds),
        }

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> tuple[dict, dict[str, Any]]:
        """No more to show than text and HTML; in the output's metadata itself, for the scorecard to read."""
        return {}, {JUDGEMENT: self.as_json()}

    def __repr__(self) -> str:
        lines = [f"{self.claim.id}: {verdict_in_words(self.checks)}"]
        lines += [
            f"  {check.outcome}: {check.words}" + (f": {check.effect}" if check.effect else "") for check in self.checks
        ]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td>{html.escape(check.words)}</td><td>{html.escape(str(check.effect or ''))}</td>"
            f"<td>{check.outcome}</td></tr>"
            for check in self.checks
        )
        head = "<tr><th>Check</th><th>Effect (mean, 95 % interval)</th><th></th></tr>"
        table = f"<table><thead>{head}</thead><tbody>{rows}</tbody></table>" if rows else ""
        words = (
            f"<strong>{self.claim.id}: {verdict_in_words(self.checks)}.</strong> {html.escape(self.claim.statement)}"
        )
        return f'<div class="verdict {self.verdict.kind}"><p>{words}</p>{table}</div>'


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
    if claim_id not in CLAIMS:
        raise ValueError(f"claim must be one of {', '.join(CLAIMS)}, not {claim_id!r}")
    if sum(check.main for check in checks) > 1:
        raise ValueError(f"main must mark one check of {claim_id}, not {sum(check.main for check in checks)}")
    return Judgement(CLAIMS[claim_id], tuple(checks), stored_seconds)
