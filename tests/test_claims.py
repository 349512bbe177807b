"""Claims and verdicts."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from IPython.core.formatters import DisplayFormatter

from book.claims import CLAIMS, JUDGEMENT, Check, Verdict, judge, verdict_of, weakest
from lib.stats import Estimate, estimate

CHECKS = [
    Check("error < 1", np.bool_(True), estimate([0.25, 0.5])),
    Check("spread unknown", False, Estimate(3, 1.0, math.nan, 0.5, math.inf), main=True),
    Check("a data set that is not there", None),
]


def test_every_claim_of_the_paper_is_listed_once():
    assert list(CLAIMS) == [f"C{number}" for number in range(1, 13)]


@pytest.mark.parametrize(
    ("held", "verdict"),
    [
        ([True, True], Verdict.REPRODUCED),
        ([True, False], Verdict.PARTLY),
        ([True, None], Verdict.PARTLY),
        ([True, False, None], Verdict.PARTLY),
        ([False, False], Verdict.NOT_REPRODUCED),
        ([False, None], Verdict.NOT_REPRODUCED),
        ([None, None], Verdict.NOT_RUN),
        ([], Verdict.NOT_RUN),
    ],
)
def test_verdict_follows_the_checks(held, verdict):
    checks = [Check("a part", holds) for holds in held]
    assert judge("C1", checks).verdict is verdict
    assert verdict_of(checks[::-1]) is verdict


def test_a_judgement_shows_its_checks_with_effect_and_escapes_html():
    judgement = judge("C2", CHECKS)
    assert "partly reproduced" in repr(judgement) and "0.375 [0.250, 0.500] (n = 2)" in repr(judgement)
    html = judgement._repr_html_()
    assert "error &lt; 1" in html and "fails" in html and "not run" in html
    assert 'class="verdict partly"' in html


@pytest.mark.parametrize(
    ("marks", "words"),
    [
        ([(True, True), (True, True)], "reproduced, in reduced runs only"),
        ([(False, True), (None, False)], "not reproduced, in reduced runs only"),
        ([(True, False), (True, True)], "reproduced"),
        ([(None, True)], "not run here"),
    ],
)
def test_a_verdict_of_reduced_runs_alone_says_so(marks, words):
    checks = [Check("a part", holds, reduced=reduced) for holds, reduced in marks]
    judgement = judge("C8", checks)
    assert f"C8: {words}\n" in repr(judgement) and f"C8: {words}.<" in judgement._repr_html_()
    assert ("a part (reduced)" in repr(judgement)) == any(check.reduced for check in checks)


def test_a_displayed_judgement_carries_itself_as_json_beside_what_is_shown():
    data, metadata = DisplayFormatter().format(judge("C2", CHECKS, stored_seconds=12.4))
    assert data.keys() == {"text/plain", "text/html"}
    stored = json.loads(json.dumps(metadata[JUDGEMENT], allow_nan=False))
    assert stored["claim"] == "C2" and stored["stored_seconds"] == 12
    assert [values["holds"] for values in stored["checks"]] == [True, False, None]
    assert stored["checks"][1]["effect"] == {"n": 3, "mean": 1.0, "spread": None, "low": 0.5, "high": None}


@pytest.mark.parametrize("check", [*CHECKS, Check("short", True, reduced=True)], ids=lambda check: check.what)
def test_a_check_read_back_from_json_says_the_same(check):
    read = Check.from_json(json.loads(json.dumps(check.as_json())))
    assert (read.words, read.holds, read.main) == (check.words, check.holds, check.main)
    if check.effect is None:
        assert read.effect is None
    else:
        assert (read.effect.n, read.effect.mean, read.effect.low) == (
            check.effect.n,
            check.effect.mean,
            check.effect.low,
        )
        assert math.isnan(read.effect.spread) == math.isnan(check.effect.spread)


def test_the_weakest_effect_can_be_the_main_one():
    values = np.array([[1.0, 1.0], [0.5, 0.5]])
    assert weakest("above 0", values, 1, main=True).main and not weakest("above 0", values, 1).main


def test_an_unknown_claim_is_refused():
    with pytest.raises(ValueError, match="C13"):
        judge("C13", [])


def test_two_main_checks_are_refused():
    with pytest.raises(ValueError, match="main must mark one check of C1, not 2"):
        judge("C1", [Check("one", True, main=True), Check("other", True, main=True)])
