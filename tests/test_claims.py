"""Claims and verdicts."""

from __future__ import annotations

import pytest

from lib.claims import CLAIMS, Check, Verdict, judge
from lib.stats import estimate


def test_every_claim_of_the_paper_is_listed_once():
    assert list(CLAIMS) == [f"C{number}" for number in range(1, 13)]


@pytest.mark.parametrize(
    ("held", "verdict"),
    [
        ([True, True], Verdict.REPRODUCED),
        ([True, False], Verdict.PARTLY),
        ([False, False], Verdict.NOT_REPRODUCED),
        ([], Verdict.NOT_RUN),
    ],
)
def test_verdict_follows_the_checks(held, verdict):
    assert judge("C1", [Check("a part", holds) for holds in held]).verdict is verdict


def test_a_judgement_shows_its_checks_with_effect_and_escapes_html():
    judgement = judge("C2", [Check("error < 1", True, estimate([0.25, 0.25])), Check("other", False)])
    assert "partly reproduced" in repr(judgement) and "0.250 [0.250, 0.250] (n = 2)" in repr(judgement)
    assert "error &lt; 1" in judgement._repr_html_() and "fails" in judgement._repr_html_()


def test_an_unknown_claim_is_refused():
    with pytest.raises(ValueError, match="C13"):
        judge("C13", [])
