"""The claims' records: what chapters leave, the file made from them, and the pages made from the file."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from bs4 import BeautifulSoup
from papermill.cli import _resolve_type
from sphinx.application import Sphinx
from sphinx.util.docutils import docutils_namespace

from book import scorecard
from book.claims import CLAIMS, JUDGEMENT, Check, Judgement, Outcome, Verdict, judge
from book.make import fingerprint
from book.scorecard import ClaimRecord, Score
from lib.stats import estimate

GAIN = Check("gain of SGD < LSAM's | at ρ = 1.4", Outcome.HOLDS, estimate([0.25, 0.5]))
LOSS = Check("*no* loss_of_anything_", Outcome.CONTRADICTED, estimate([-0.5, -0.25]))
MAYBE = Check("a gain", Outcome.UNDECIDED, estimate([-0.5, 0.5]), needs=99)
BOOK = {"seeds": 20, "fast": True, "rhos": [0.0, 0.5], "dataset": "cifar-mnist", "version": "10", "lr": 1e-5}


def execute(folder: Path, name: str, *judgements: Judgement, parameters: dict = BOOK) -> None:
    """Write a chapter as if it had been run: a title, a rule, and these judgements displayed."""
    cells = [
        {"cell_type": "markdown", "source": [f"# Chapter {name}: a subtitle\n", "\n", "*A claim.*"]},
        {"cell_type": "markdown", "source": "## How the claims are judged\n\nBy a rule."},
        {"cell_type": "code", "outputs": [{"metadata": {JUDGEMENT: shown.as_json()}} for shown in judgements]},
    ]
    folder.mkdir(exist_ok=True)
    metadata = {"parameters": parameters, "seconds": 14, "cores": 2}
    (folder / f"{name}.ipynb").write_text(json.dumps({"cells": cells, "metadata": metadata}))


def small_book(folder: Path) -> Path:
    """Executed chapters that judge some of the claims."""
    execute(folder, "03_toy", judge("C1", [LOSS, replace(GAIN, main=True)]))
    execute(folder, "04_rebalancing", judge("C2", [GAIN]), judge("C5", [LOSS]), parameters={})
    execute(folder, "05_mechanism", judge("C3", [GAIN]), judge("C4", [GAIN, Check("CelebA")]))
    execute(folder, "16_natural_images", judge("C7", []), judge("C3", [GAIN], 7000), judge("C3", [GAIN], 300))
    return folder


@pytest.fixture
def executed(tmp_path) -> Path:
    return small_book(tmp_path / "chapters")


def by_claim(scores: list[Score]) -> dict[str, Score]:
    return {score.claim.id: score for score in scores}


def test_every_claim_has_a_score_and_a_record_says_where_how_and_in_what_time(executed):
    scores = by_claim(scorecard.collect(executed))
    assert list(scores) == list(CLAIMS)
    assert scores["C8"].verdict is Verdict.NOT_RUN and scores["C8"].not_run == ["08_domainbed"]
    assert scores["C7"].verdict is Verdict.NOT_RUN and scores["C7"].not_run == ["07_real_data", "16_natural_images"]
    (record,) = scores["C1"].records
    assert (record.chapter, record.title) == ("03_toy", "Chapter 03_toy")
    assert record.rule == "how-the-claims-are-judged"
    assert record.checks == (LOSS, replace(GAIN, main=True))
    assert (record.parameters, record.seconds, record.cores) == (BOOK, 14, 2)


def record_of(*checks: Check) -> ClaimRecord:
    told = {"chapter": "03_toy", "title": "", "rule": "", "parameters": BOOK, "seconds": 1, "cores": 1}
    return ClaimRecord(claim=CLAIMS["C1"], checks=checks, **told)


def test_the_command_gives_papermill_the_parameters_of_the_book():
    record = record_of()
    words = shlex.split(record.command)
    assert words[:3] == [".venv/bin/papermill", "notebooks/03_toy.ipynb", "out.ipynb"]
    given: dict = {}
    rest = iter(words[3:])
    for option in rest:  # as papermill reads them
        given |= {next(rest): _resolve_type(next(rest))} if option == "-p" else yaml.safe_load(next(rest))
    assert given == BOOK and type(given["version"]) is str and given["fast"] is True
    assert "\n" not in record.command
    assert replace(record, parameters={}).command.endswith("out.ipynb")


@pytest.mark.parametrize(
    ("first", "second", "verdict"),
    [
        ([GAIN], [GAIN], Verdict.REPRODUCED),
        ([GAIN], [LOSS], Verdict.MIXED),
        ([LOSS], [LOSS], Verdict.CONTRADICTED),
        ([GAIN], [], Verdict.UNDECIDED),  # never reproduced before all of it was tried
        ([replace(GAIN, main=True)], None, Verdict.UNDECIDED),
        ([LOSS], None, Verdict.CONTRADICTED),
        ([], None, Verdict.NOT_RUN),
    ],
)
def test_chapters_of_one_claim_are_judged_by_all_their_checks_together(tmp_path, first, second, verdict):
    execute(tmp_path, "05_mechanism", judge("C3", first))
    if second is not None:
        execute(tmp_path, "16_natural_images", judge("C3", second))
    score = by_claim(scorecard.collect(tmp_path))["C3"]
    assert score.verdict is verdict
    judged = ("05_mechanism", first), ("16_natural_images", second)
    assert score.not_run == [name for name, checks in judged if not checks]


def test_a_chapter_that_judges_another_ones_claim_is_named(tmp_path):
    execute(tmp_path, "03_toy", judge("C12", [GAIN]))
    with pytest.raises(ValueError, match="03_toy judges C12, which book/claims.yml gives to 11_theory"):
        scorecard.collect(tmp_path)


@pytest.mark.parametrize(
    ("checks", "shown"),
    [
        ([Check("bare", Outcome.HOLDS), GAIN, LOSS], [GAIN, LOSS]),
        ([LOSS, GAIN], [LOSS]),
        ([LOSS, replace(GAIN, main=True)], [replace(GAIN, main=True), LOSS]),
        ([Check("unrun", main=True), GAIN], [GAIN]),
        ([GAIN, MAYBE], [GAIN, MAYBE]),
        ([GAIN, MAYBE, replace(LOSS, what="nothing")], [GAIN, replace(LOSS, what="nothing")]),
        ([Check("bare", Outcome.HOLDS)], [Check("bare", Outcome.HOLDS)]),
        ([], []),
    ],
)
def test_the_main_check_leads_and_a_failing_one_is_not_hidden(checks, shown):
    assert record_of(*checks).leading == shown


def test_scores_are_read_back_from_a_file_that_is_replaced_whole_where_it_says_something_else(executed, tmp_path):
    path, scores = tmp_path / "results" / "claims.json", scorecard.collect(executed)
    assert {score.verdict for score in scorecard.read(path)} == {Verdict.NOT_RUN}, "no file"
    scorecard.write(scores, path)
    assert scorecard.read(path) == scores and [file.name for file in path.parent.iterdir()] == ["claims.json"]
    (first, *rest), written = scores, path.read_bytes()
    for seconds, same in ((15, True), (33, True), (34, False)):
        records = tuple(replace(record, seconds=seconds, cores=64) for record in first.records)
        scorecard.write([replace(first, records=records), *rest], path)
        assert (path.read_bytes() == written) is same
    path.write_text('{"claims": [')
    scorecard.write(scores, path)
    assert path.read_bytes() == written


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ({"cores": 2}, {"cores": 64}, True),
        ({"seconds": 20}, {"seconds": 46}, False),
        ({"seconds": 20}, {"seconds": 45}, True),
        ({"seconds": None}, {"seconds": 1}, False),
        ({"stored_seconds": 20}, {"stored_seconds": 21}, False),
        ([0.1, "a"], [0.1 * (1 + 1e-7), "a"], True),
        ([0.1], [0.1 * (1 + 2e-6)], False),
        ([0.1], [0.1, 0.1], False),
        ({"a": 1}, {"b": 1}, False),
    ],
)
def test_what_is_alike_is_not_written_again(one, other, same):
    assert scorecard.alike(one, other) is scorecard.alike(other, one) is same


def test_the_stored_file_holds_every_claim_with_the_verdict_of_its_checks():
    rows = json.loads(fingerprint.CLAIMS.read_text(encoding="utf-8"))["claims"]
    assert [row["claim"] for row in rows] == list(CLAIMS)
    scores = scorecard.read(fingerprint.CLAIMS)
    assert rows == [score.as_json() for score in scores]
    written_for = {score.claim.id: score.claim.verdict for score in scores}
    assert {score.claim.id: score.verdict.value for score in scores} == written_for, "book/claims.yml: found"


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> tuple[Path, list[Score]]:
    """The pages of the small book with the directives, and the scores in the file that they were made from."""
    folder = tmp_path_factory.mktemp("small")
    (source := folder / "book").mkdir()
    for chapter in small_book(source / "chapters").glob("*.ipynb"):
        chapter.with_suffix(".md").write_text("# Chapter\n\n## How the claims are judged\n\nBy a rule.\n")
    (source / "intro.md").write_text("# Book\n\n```{claims-table}\n```\n\n```{not-run}\n```\n")
    (source / "scorecard.md").write_text("# Scorecard\n\n```{scorecard}\n```\n")
    (source / "index.md").write_text("# Index\n\n```{toctree}\n:glob:\n*\nchapters/*\n```\n")
    own = {"extensions": ["myst_parser", "result_tables"], "html_theme": "basic"}
    with pytest.MonkeyPatch.context() as patch, docutils_namespace():
        patch.setattr(fingerprint, "CLAIMS", folder / "claims.json")
        scorecard.write(scorecard.collect(source / "chapters"), fingerprint.CLAIMS)
        where = source, None, folder / "html", folder / "doctrees", "html"
        Sphinx(*where, status=None, warningiserror=True, confoverrides=own).build()
        return folder / "html", scorecard.read(fingerprint.CLAIMS)


def soup(page: Path) -> BeautifulSoup:
    return BeautifulSoup(page.read_text(encoding="utf-8"), "html.parser")


def texts(part: BeautifulSoup, selector: str) -> list[str]:
    return [found.get_text() for found in part.select(selector)]


def test_scorecard_and_file_agree(small):
    html, scores = small
    cards = soup(html / "scorecard.html").select(".claim")
    assert [card["data-claim"] for card in cards] == list(CLAIMS) == list(by_claim(scores))
    counting = [check for score in scores for check in score.checks if check.counts]
    held = sum(check.outcome is Outcome.HOLDS for check in counting)
    by_chance = f"about {len(counting) / 40:.0f} of as many would hold by chance"
    said = soup(html / "scorecard.html").select_one(".chance").get_text()
    assert said.startswith(f"{held} of the {len(counting)} checks that count hold.") and by_chance in said
    for card, score in zip(cards, scores):
        claim, ran = score.claim, score.judged
        assert texts(card, "strong")[0] == f"{claim.id}: {score.words}."
        assert score.verdict.kind in card["class"]
        assert claim.statement in card.get_text() and claim.shown_by in card.get_text()
        assert texts(card, "pre") == [record.command for record in ran]
        assert len(card.select(".record")) == len(ran)
        for part, record in zip(card.select(".record"), ran):
            leading = record.leading
            shown = list(zip(texts(part, ".what"), texts(part, ".effect"), texts(part, ".held")))
            told = [
                (check.words + ", the main check" * check.main, str(check.effect or ""), check.found)
                for check in (*leading, *record.checks)
            ]
            assert shown == (told if len(leading) < len(record.checks) else told[: len(leading)])
            assert record.words in part.select_one("p").get_text()
        assert all(chapter in card.get_text() for chapter in score.not_run)


def test_landing_page_and_file_agree(small):
    html, scores = small
    landing = soup(html / "intro.html")
    rows = landing.select("table.claims tr[data-claim]")
    assert [row["data-claim"] for row in rows] == list(CLAIMS)
    for row, score in zip(rows, scores):
        assert texts(row, ".outcome") == [score.words]
        assert row.select_one(".outcome a")["href"] == f"scorecard.html#claim-{score.claim.id.lower()}"
        assert score.claim.statement in row.get_text()
        assert (score.claim.found in row.get_text()) == (score.verdict.value == score.claim.verdict)
    for page in (landing, soup(html / "scorecard.html")):
        told = [sum(score.verdict is verdict for score in scores) for verdict in Verdict]
        assert texts(page, ".tally .outcome") == [f"{n} {verdict.value}" for n, verdict in zip(told, Verdict)]
    assert texts(landing, "li strong") == ["C4", "C6", "C7", "C8", "C9", "C10", "C11", "C12"], "not run"


def test_scorecard_tells_what_was_not_run_and_what_it_took_and_its_links_lead_to_something(small):
    html, scores = small
    page = soup(html / "scorecard.html")
    cards = {card["data-claim"]: card.get_text() for card in page.select(".claim")}
    assert "C8: not run here." in cards["C8"] and "Not run here: 08_domainbed." in cards["C8"]
    assert [mark["class"][1] for mark in page.select("#claim-c4 .marks .mark")] == ["holds", "not-run"]
    assert "Not run here: 16_natural_images; CelebA." in cards["C4"]
    assert "The chapter ran for 14 s on 2 cores and reads results that took 2.0 h to compute." in cards["C3"]
    links = [link["href"] for link in (*page.select(".claim a"), *soup(html / "intro.html").select("table.claims a"))]
    assert sum("#how-the-claim" in link for link in links) == sum(len(score.judged) for score in scores)
    for to, _, place in (link.partition("#") for link in set(links)):
        assert soup(html / to).find(id=place or True), (to, place)
