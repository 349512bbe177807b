"""The paper's claims C1 to C12 and how one is judged: by checks that a chapter states before it looks at
the numbers."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np

from lib.stats import Estimate, estimate


@dataclass(frozen=True)
class Claim:
    """What the paper says, by which figure or table, and the chapter that judges it."""

    id: str
    statement: str
    shown_by: str
    notebooks: list[str]


_TABLE = {
    "C1": ("SGD and LSAM both fit the toy labels perfectly; SGD's hard probing error is high, and "
           "LSAM's falls as rho grows, at every complexity.", "Figures 1, 2A", "03_toy"),
    "C2": ("The phantom ratio grows with rho, while the real ratio hardly moves.", "Figure 2B",
           "04_rebalancing"),
    "C3": ("Importance weights are spread more evenly at the phantom than at the real parameters, "
           "for a fixed model and between an SGD- and a SAM-trained one.", "Figure 3",
           "05_mechanism", "07_real_data"),
    "C4": ("Points that the easy feature fits badly get less weight, points that the hard feature fits "
           "badly get more.", "Figure 5", "05_mechanism", "07_real_data"),
    "C5": ("LSAM lowers the easy feature's effective learning rate and raises the hard one's.", "Figure 4",
           "04_rebalancing"),
    "C6": ("Each intervention alone lowers the hard probing error, by comparable amounts; both together "
           "match LSAM at equal ratio.", "Figure 6", "06_interventions"),
    "C7": ("SAM lowers the probing error of both features on all four sets.", "Table 1", "07_real_data"),
    "C8": ("SAM wins on all twelve target domains.", "Table 2", "08_domainbed"),
    "C9": ("C3 and C4 hold throughout training.", "Figures 7, 8", "05_mechanism"),
    "C10": ("LSAM helps under feature-label noise, Gaussian noise and dropout, on both features or on the "
            "hard one only.", "Figure 9", "09_noise"),
    "C11": ("The best rho is much the same across batch sizes, the gain shrinks for very large ones, and "
            "large rho is more sensitive.", "Figure 10", "10_batch_size"),
    "C12": ("The log ratio of phantom to real importance weight is about rho times the gradient norm of "
            "the logit.", "Appendix D", "11_theory"),
}
CLAIMS = {id: Claim(id, statement, shown_by, notebooks)
          for id, (statement, shown_by, *notebooks) in _TABLE.items()}


class Verdict(Enum):
    """What a chapter may conclude."""

    REPRODUCED = "reproduced"
    PARTLY = "partly reproduced"
    NOT_REPRODUCED = "not reproduced"
    NOT_RUN = "not run here"


@dataclass(frozen=True)
class Check:
    """One part of a claim: what has to hold, whether it does, and the effect that decided it."""

    what: str
    holds: bool
    effect: Estimate | None = None


@dataclass(frozen=True)
class Judgement:
    """A claim's verdict with the checks behind it."""

    claim: Claim
    checks: tuple[Check, ...]

    @property
    def verdict(self) -> Verdict:
        """Reproduced where every check holds, not reproduced where none does, partly otherwise; no check:
        not run here."""
        held = [check.holds for check in self.checks]
        if not held:
            return Verdict.NOT_RUN
        return Verdict.REPRODUCED if all(held) else Verdict.PARTLY if any(held) else Verdict.NOT_REPRODUCED

    def __repr__(self) -> str:
        lines = [f"{self.claim.id}: {self.verdict.value}"]
        lines += [
            f"  {'holds' if check.holds else 'fails'}: {check.what}"
            + (f": {check.effect}" if check.effect else "")
            for check in self.checks
        ]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td>{html.escape(check.what)}</td><td>{html.escape(str(check.effect or ''))}</td>"
            f"<td>{'holds' if check.holds else 'fails'}</td></tr>" for check in self.checks)
        head = "<tr><th>Check</th><th>Effect (mean, 95 % interval)</th><th></th></tr>"
        table = f"<table><thead>{head}</thead><tbody>{rows}</tbody></table>" if rows else ""
        kind = self.verdict.name.lower().replace("_", "-")
        return (f'<div class="verdict {kind}"><p><strong>{self.claim.id}: {self.verdict.value}.</strong> '
                f"{html.escape(self.claim.statement)}</p>{table}</div>")


def weakest(what: str, values: np.ndarray, sign: int) -> Check:
    """Whether the mean over seeds of `values` (..., seed) has this sign, beyond its interval, everywhere on
    the leading axes.

    The check carries the weakest effect and, where there are several, how many of them hold.
    """
    effects = [estimate(seeds) for seeds in np.reshape(values, (-1, np.shape(values)[-1]))]
    margins = [effect.low if sign > 0 else -effect.high for effect in effects]
    held = sum(margin > 0 for margin in margins)
    count = f" ({held} of {len(effects)})" if len(effects) > 1 else ""
    return Check(what + count, held == len(effects), effects[int(np.argmin(margins))])


def judge(claim_id: str, checks: Sequence[Check]) -> Judgement:
    """The judgement of a claim from its checks. Raises ValueError for an unknown claim."""
    if claim_id not in CLAIMS:
        raise ValueError(f"claim must be one of {', '.join(CLAIMS)}, not {claim_id!r}")
    return Judgement(CLAIMS[claim_id], tuple(checks))
