"""Claims and verdicts."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from IPython.core.formatters import DisplayFormatter

from book.claims import (
    CLAIMS,
    JUDGEMENT,
    MARGIN,
    Check,
    Outcome,
    Verdict,
    beside,
    by_chance,
    compared,
    exact,
    judge,
    seeds_needed,
    verdict_of,
    weakest,
)
from lib.stats import FEW, Estimate, estimate

HOLDS, UNDECIDED, CONTRADICTED, NOT_RUN = Outcome
LETTERS = {"h": HOLDS, "u": UNDECIDED, "c": CONTRADICTED, "-": NOT_RUN, "_": NOT_RUN}
CHECKS = [
    Check("error < 1", HOLDS, estimate([0.25, 0.5])),
    Check("spread unknown", CONTRADICTED, Estimate(3, 1.0, math.nan, 0.5, math.nan), main=True),
    Check("a data set that is not there"),
    Check("an identity", HOLDS, trivial=True),
    Check("too few", UNDECIDED, estimate([0.25, 0.5]), reduced=True, needs=14),
]


def of(outcomes: str) -> list[Check]:
    """Checks by letters: h(olds), u(ndecided), c(ontradicted), - (not run); main in capitals or _, trivial after !."""
    found, marks = [], iter(outcomes)
    for mark in marks:
        trivial = mark == "!"
        mark = next(marks) if trivial else mark
        found.append(Check("a part", LETTERS[mark.lower()], main=mark.isupper() or mark == "_", trivial=trivial))
    return found


def test_every_claim_of_the_paper_is_listed_once():
    assert list(CLAIMS) == [f"C{number}" for number in range(1, 13)]


VERDICTS = {  # the main check decides where nothing is contradicted, without one all have to hold; two chapters may
    # have two main checks; one that was not run (_) leaves a claim undecided; what is trivial (!) counts for nothing
    Verdict.REPRODUCED: ["hh", "Hu", "H-", "!ch"],
    Verdict.UNDECIDED: ["hU", "hu", "HU", "u", "H_", "h-", "u-", "!hu"],
    Verdict.MIXED: ["Hc", "hC"],
    Verdict.CONTRADICTED: ["uC", "cc", "!hc"],
    Verdict.NOT_RUN: ["!h", "--", ""],
}


@pytest.mark.parametrize("verdict", VERDICTS)
def test_verdict_follows_the_checks(verdict):
    for outcomes in VERDICTS[verdict]:
        assert judge("C1", of(outcomes)).verdict is verdict_of(of(outcomes)[::-1]) is verdict, outcomes


def test_one_check_in_forty_that_counts_would_hold_by_chance():
    assert by_chance(of("hucHUC" * 10 + "-" * 5 + "!h")) == pytest.approx(60 / 40)


UP = np.linspace(0.9, 1.1, FEW)  # mean 1 and a little spread


@pytest.mark.parametrize(
    ("values", "options", "outcome"),
    [
        (UP, {}, HOLDS),
        (-UP, {}, CONTRADICTED),
        (UP - 1, {}, UNDECIDED),
        (UP[1:], {}, UNDECIDED),  # seven seeds decide nothing
        (-UP[1:], {}, UNDECIDED),
        (UP, {"margin": 1.2}, CONTRADICTED),  # wholly within what is too small to matter
        (-UP, {"margin": 1.2}, CONTRADICTED),
        (UP, {"margin": 1.01}, HOLDS),  # half within
        (UP - 1, {"margin": 0.01}, UNDECIDED),
        (np.full(FEW, 1.0), {"margin": 1.0}, CONTRADICTED),
        (np.full(FEW, 0.0050), {"margin": MARGIN}, CONTRADICTED),  # half a point is too small to matter
        (np.full(FEW, 0.0051), {"margin": MARGIN}, HOLDS),
        (np.zeros(FEW), {}, UNDECIDED),  # 0 is not above 0
        (np.r_[UP, math.nan], {}, UNDECIDED),
    ],
)
def test_a_sign_holds_is_contradicted_or_undecided_by_the_whole_interval(values, options, outcome):
    assert weakest("above 0", values, +1, **options).outcome is outcome
    assert weakest("below 0", -values, -1, **options).outcome is outcome


@pytest.mark.parametrize(
    ("low", "high", "outcome"),
    [(0.1, 0.2, HOLDS), (0, 0.2, UNDECIDED), (0.1, 0.3, UNDECIDED), (-0.2, -0.01, CONTRADICTED), (-0.2, 0, UNDECIDED)]
    + [(0.31, 0.4, CONTRADICTED), (0.3, 0.4, UNDECIDED), (-1, 1, UNDECIDED)],
)
def test_an_effect_is_compared_with_both_ends_of_what_is_claimed(low, high, outcome):
    effect = Estimate(FEW, (low + high) / 2, 0.1, low, high)
    assert compared("between", [effect], 0, 0.3).outcome is outcome
    few = Estimate(FEW - 1, effect.mean, 0.1, low, high)
    assert compared("between", [few], 0, 0.3).outcome is UNDECIDED


@pytest.mark.parametrize(
    ("means", "outcome", "shown", "held"),
    [
        ((1, 2), HOLDS, 1, 2),
        ((1, 0), UNDECIDED, 0, 1),
        ((0, -1), CONTRADICTED, -1, 0),
        ((2, -1, -2), CONTRADICTED, -2, 1),
    ],
)
def test_of_several_effects_the_one_furthest_from_holding_speaks(means, outcome, shown, held):
    check = weakest("above 0", np.array(means)[:, None] + (UP - 1), +1, main=True)
    assert check.outcome is outcome and check.effect.mean == pytest.approx(shown) and check.main
    assert check.what == f"above 0 ({held} of {len(means)})"


def test_an_undecided_check_says_how_many_seeds_would_decide_it():
    values = np.tile([1.0, -0.5], FEW)[: FEW + 2]
    check = weakest("above 0", values, +1)
    assert check.needs == seeds_needed(check.effect, 0) > len(values)
    assert check.found == f"undecided, n = {check.needs} would decide"
    assert compared("at most 1", [check.effect], high=0.3).needs == seeds_needed(check.effect, 0.3)
    near = Estimate(FEW, 0.001, 0.01, -0.007, 0.009)
    assert weakest("above 0", UP - 1, +1, margin=1).needs is None, "decided by its margin"
    assert compared("above 0", [near], low=0, margin=MARGIN).needs == seeds_needed(near, 0, MARGIN) == 25
    assert seeds_needed(near, 0) > 25 < seeds_needed(near, 0, 0.004), "first within the margin"
    for end in (MARGIN, -MARGIN):
        assert seeds_needed(Estimate(3, end, 0.0, end, end), border=end, margin=MARGIN) == FEW, "the margin's ends"
    assert seeds_needed(Estimate(FEW, -0.006, 0.01, -0.008, -0.004), border=-0.006, margin=MARGIN) is None
    assert weakest("above 0", np.zeros(FEW), +1).found == "undecided"
    assert weakest("above 0", UP, +1).needs is None and weakest("above 0", UP[:3], +1).needs == FEW


def test_without_an_effect_a_check_was_not_run_and_beside_another_setting_it_counts_for_nothing():
    for one in (compared("it", [], main=True, reduced=True), weakest("it", np.empty((2, 0)), +1, 0.1, True, True)):
        assert one == Check("it", NOT_RUN, main=True, reduced=True)
    (there,) = beside([exact("it", True, main=True)])
    assert there == Check("simple setting: it", HOLDS, trivial=True) and not there.counts


def test_an_exact_check_holds_or_is_contradicted():
    assert exact("an identity", True, trivial=True) == Check("an identity", HOLDS, trivial=True)
    assert exact("a fit", np.bool_(False), main=True) == Check("a fit", CONTRADICTED, main=True)


def test_a_judgement_shows_its_checks_with_effect_and_escapes_html():
    judgement = judge("C2", CHECKS)
    assert "mixed" in repr(judgement) and "0.375 [" in repr(judgement) and "(n = 2)" in repr(judgement)
    words = ["error &lt; 1", "contradicted", "not run", "counts for nothing", "n = 14 would decide", "the main check"]
    for part in [*words, 'class="verdict mixed"']:
        assert part in judgement._repr_html_()


@pytest.mark.parametrize(
    ("marks", "words"),
    [
        ([(HOLDS, True), (HOLDS, True)], "reproduced, in reduced runs only"),
        ([(CONTRADICTED, True), (NOT_RUN, False)], "contradicted, in reduced runs only"),
        ([(HOLDS, False), (HOLDS, True)], "reproduced"),
        ([(NOT_RUN, True)], "not run here"),
    ],
)
def test_a_verdict_of_reduced_runs_alone_says_so(marks, words):
    judgement = judge("C8", [Check("a part", outcome, reduced=reduced) for outcome, reduced in marks])
    assert f"C8: {words}\n" in repr(judgement) and f"C8: {words}.<" in judgement._repr_html_()
    assert ("a part (reduced)" in repr(judgement)) == any(reduced for _, reduced in marks)


def test_a_displayed_judgement_carries_itself_as_json_beside_what_is_shown():
    data, metadata = DisplayFormatter().format(judge("C2", CHECKS, stored_seconds=12.4))
    assert data.keys() == {"text/plain", "text/html"}
    stored = json.loads(json.dumps(metadata[JUDGEMENT], allow_nan=False))
    assert stored["claim"] == "C2" and stored["stored_seconds"] == 12
    assert stored["checks"][1]["effect"] == {"n": 3, "mean": 1.0, "spread": None, "low": 0.5, "high": None}
    assert repr(list(map(Check.from_json, stored["checks"]))) == repr(CHECKS), "and is read back"


def test_an_unknown_claim_is_refused():
    with pytest.raises(ValueError, match="C13"):
        judge("C13", [])
