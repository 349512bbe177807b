"""Sphinx extension: `{claims-table}`, `{scorecard}` and `{not-run}` show the claims and their verdicts, short, in
full, and those without one, all from `results/claims.json`; `{computing-time}` and `{chapter-times}` what results and
chapters took; `{paper-index}` where the paper's figures and equations are. What each looks like stands in
`book/_templates`."""

import json
import re
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import yaml
from docutils import nodes
from markupsafe import Markup
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from book import scorecard
from book.claims import Verdict, by_chance
from book.compute import efforts, joined
from book.make import chapters, fingerprint
from book.plan import duration
from book.templates import render

CLAIMS = ("claims-table", "scorecard", "not-run")


def computing_time(found: pd.DataFrame) -> str:
    """A line for each kind of stored trials, and their sum."""
    lines = []
    if len(found):
        places = joined(found["on"].str.split("; ").explode())
        found.loc[len(found)] = {"experiment": "together", **found.sum(numeric_only=True), "on": places}
    for name, trials, nets, diverged, seconds, on in found.itertuples(index=False):
        lines.append([name, *(f"{int(count):,}" for count in (trials, nets, diverged)), duration(seconds), on])
    return render("times", head=["experiment", "trials", "nets", "diverged", "time", "on"], lines=lines)


def numbered(index: dict[str, dict[str, dict]]) -> dict[str, str]:
    """By its name and number, "equation 5" and "equation (5)", the place of each entry in the paper's index."""
    found = {}
    for kind, entries in index.items():
        for numbers in entries:
            first, _, last = numbers.partition("-")
            for number in range(int(first), int(last or first) + 1):
                for name in (f"{kind[:-1]} {number}", f"{kind[:-1]} ({number})"):
                    found[name] = f"paper-{kind}-{numbers}"
    return found


def line_of(name: str) -> str:
    """Where ``module:name`` is defined, as file:line."""
    module, _, wanted = name.partition(":")
    path = Path(*module.split(".")).with_suffix(".py")
    source = (fingerprint.ROOT / path).read_text(encoding="utf-8")
    above, _ = re.split(rf"^(?:def |class )?{wanted}\b", source, maxsplit=1, flags=re.M)
    return f"{path.as_posix()}:{above.count(chr(10)) + 1}"


def chapter_times(executed: Sequence[Path]) -> str:
    """A line for each executed chapter: its title, and the time that it ran for in this book."""
    lines, total = [], 0
    for path in sorted(executed):
        notebook = json.loads(path.read_text(encoding="utf-8"))
        seconds, cores = (notebook["metadata"].get(name) for name in ("seconds", "cores"))
        total += seconds or 0
        time = "–" if seconds is None else duration(seconds)
        lines.append([chapters.headings(notebook)[0].partition(":")[0], time, cores or "–"])
    return render("times", head=["chapter", "time", "cores"], lines=[*lines, ["together", duration(total), ""]])


class Table(SphinxDirective):
    """Any of the directives, told apart by name."""

    def run(self) -> list[nodes.Node]:
        self.env.note_reread()  # results may come while the page's source stays as it is
        found: dict[str, str] = {}  # what the search finds by its number -> its place
        if self.name in CLAIMS:
            scores = scorecard.read(fingerprint.CLAIMS)
            ran = [check for score in scores for check in score.checks if check.counts]
            told = {"link": self.link, "verdicts": list(Verdict), "ran": ran, "by_chance": by_chance(ran)}
            html = render(self.name, scores=scores, **told)
            if self.name == "scorecard":
                found = {score.claim.id: f"claim-{score.claim.id.lower()}" for score in scores}
        elif self.name == "paper-index":
            index = yaml.safe_load((fingerprint.ROOT / "book" / "paper.yml").read_text(encoding="utf-8"))
            html, found = render("paper-index", index=index, link=self.link, line_of=line_of), numbered(index)
        elif self.name == "computing-time":
            html = computing_time(efforts(fingerprint.RESULTS))
        else:
            html = chapter_times(list((Path(self.env.srcdir) / "chapters").glob("*.ipynb")))
        index = addnodes.index(entries=[("single", name, place, "", None) for name, place in found.items()])
        return [index, nodes.raw("", html, format="html")]

    def link(self, page: str, place: str, words: str) -> str:
        """A link to `place` in `page`, or the words alone where the book has no such page."""
        source = Path(self.env.srcdir) / page
        if not any(source.with_name(source.name + suffix).exists() for suffix in (".md", ".ipynb")):
            return words
        address = self.env.app.builder.get_relative_uri(self.env.docname, page)
        address += "#" + place if place else ""
        return Markup('<a class="reference internal" href="{}">{}</a>').format(address, words)


def setup(app: Sphinx) -> dict[str, bool]:
    for name in (*CLAIMS, "computing-time", "chapter-times", "paper-index"):
        app.add_directive(name, Table)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
