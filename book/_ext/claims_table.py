"""Sphinx extension: `{claims-table}` and `{scorecard}` show the claims and their verdicts, short and in full;
`{not-run}` lists the claims without one.

All are made from `results/claims.json` and nothing else.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from html import escape
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from book import scorecard
from book.claims import Check, Verdict, verdict_in_words
from book.scorecard import ClaimRecord, Score
from lib.trials.status import duration

Link = Callable[[str, str, str], str]  # (page, place in it or "", words) to a link, or the words alone


def tally(scores: list[Score]) -> str:
    """How many claims have each verdict."""
    counts = Counter(score.verdict for score in scores)
    return (
        '<p class="tally">'
        + "".join(_outcome(verdict, f"{counts[verdict]} {verdict.value}") for verdict in Verdict)
        + "</p>"
    )


def _outcome(verdict: Verdict, words: str) -> str:
    return f'<span class="outcome {verdict.kind}">{words}</span> '


def table(scores: list[Score], link: Link) -> str:
    """One row a claim: what it says, its verdict, the chapters that judged it."""
    rows = []
    for score in scores:
        verdict = link("scorecard", f"claim-{score.claim.id.lower()}", verdict_in_words(score.checks))
        judged = ", ".join(
            link(f"chapters/{record.chapter}", "", escape(record.title))
            for record in score.records
            if record.verdict is not Verdict.NOT_RUN
        )
        rows.append(
            f'<tr data-claim="{score.claim.id}"><th>{score.claim.id}</th><td>{_said(score)}</td>'
            f'<td>{_outcome(score.verdict, verdict)}<span class="source">{judged}</span></td></tr>'
        )
    head = "<tr><th></th><th>The paper says</th><th>Verdict</th></tr>"
    return f'<table class="table claims"><thead>{head}</thead><tbody>{"".join(rows)}</tbody></table>'


def _said(score: Score) -> str:
    return f'{escape(score.claim.statement)} <span class="source">{escape(score.claim.shown_by)}</span>'


def card(score: Score, link: Link) -> str:
    """All that is recorded about one claim."""
    name, verdict = score.claim.id, score.verdict
    ran = [record for record in score.records if record.verdict is not Verdict.NOT_RUN]
    missing = f'<p class="missing">{_missing(score, link)}</p>' if _missing(score, link) else ""
    return (
        f'<div class="verdict claim {verdict.kind}" id="claim-{name.lower()}" data-claim="{name}">'
        f"<p><strong>{name}: {verdict_in_words(score.checks)}.</strong> {_said(score)}</p>"
        f"{''.join(_record(record, link) for record in ran)}{missing}</div>"
    )


def not_run(scores: list[Score], link: Link) -> str:
    """The claims that were not judged, or not in all of their parts."""
    items = "".join(
        f"<li><strong>{score.claim.id}</strong>{'' if score.verdict is Verdict.NOT_RUN else ' in part'}: "
        f"{_said(score)} {_missing(score, link)}</li>"
        for score in scores
        if _missing(score, link)
    )
    return f"<ul>{items}</ul>" if items else "<p>All claims were judged, in all their parts.</p>"


def _missing(score: Score, link: Link) -> str:
    parts = [link(f"chapters/{chapter}", "", chapter) for chapter in score.not_run]
    parts += [escape(check.words) for record in score.records for check in record.checks if check.holds is None]
    return f"Not run here: {'; '.join(parts)}." if parts else ""


def _record(record: ClaimRecord, link: Link) -> str:
    page, leading = f"chapters/{record.chapter}", scorecard.leading(record.checks)
    counts = Counter(check.outcome for check in record.checks)
    unrun = f", {counts['not run']} not run" if counts["not run"] else ""
    more = (
        ""
        if len(leading) == len(record.checks)
        else (f"<details><summary>All {len(record.checks)} checks</summary>{_checks(record.checks)}</details>")
    )
    return (
        f'<div class="record"><p>{link(page, "", escape(record.title))}, '
        f"{link(page, record.rule, 'by its rule')}: {verdict_in_words(record.checks)}, {counts['holds']} of "
        f"{counts['holds'] + counts['fails']} checks hold{unrun}.</p>{_checks(leading)}{more}"
        f'<div class="highlight"><pre>{escape(record.command)}</pre></div>'
        f'<p class="time">{_time(record)}</p></div>'
    )


def _checks(checks: Iterable[Check]) -> str:
    return (
        '<ul class="checks">'
        + "".join(
            f'<li class="{check.outcome.replace(" ", "-")}"><span class="what">{escape(check.words)}</span>'
            f'<span class="effect">{escape(str(check.effect or ""))}</span>'
            f'<span class="held">{check.outcome}</span></li>'
            for check in checks
        )
        + "</ul>"
    )


def _time(record: ClaimRecord) -> str:
    parts = []
    if record.seconds is not None:
        cores = f" on {record.cores} core{'s' * (record.cores != 1)}" if record.cores else ""
        parts.append(f"ran for {duration(record.seconds)}{cores}")
    if record.stored_seconds:
        parts.append(f"reads results that took {duration(record.stored_seconds)} to compute")
    return f"The chapter {' and '.join(parts)}." if parts else ""


class _Claims(SphinxDirective):
    """What the directives share: the scores, and links to the pages there are."""

    def run(self) -> list[nodes.Node]:
        self.env.note_reread()  # the file may change while the page's source does not
        return [nodes.raw("", self.html(scorecard.read()), format="html")]

    def html(self, scores: list[Score]) -> str:
        raise NotImplementedError

    def link(self, page: str, place: str, words: str) -> str:
        """A link to `place` in `page`, or the words alone where the book has no such page."""
        source = Path(self.env.srcdir) / page
        if not any(source.with_name(source.name + suffix).exists() for suffix in (".md", ".ipynb")):
            return words
        address = self.env.app.builder.get_relative_uri(self.env.docname, page)
        return f'<a class="reference internal" href="{address}{place and "#"}{place}">{words}</a>'


class ClaimsTable(_Claims):
    def html(self, scores: list[Score]) -> str:
        return tally(scores) + table(scores, self.link)


class Scorecard(_Claims):
    def html(self, scores: list[Score]) -> str:
        return tally(scores) + "".join(card(score, self.link) for score in scores)


class NotRun(_Claims):
    def html(self, scores: list[Score]) -> str:
        return not_run(scores, self.link)


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("claims-table", ClaimsTable)
    app.add_directive("scorecard", Scorecard)
    app.add_directive("not-run", NotRun)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
