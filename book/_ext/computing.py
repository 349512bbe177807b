"""Sphinx extension: `{computing-time}` and `{chapter-times}` list what results and chapters took."""

from __future__ import annotations

import json
from collections.abc import Sequence
from html import escape
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from book.compute import Effort, efforts
from book.make import chapters, fingerprint
from lib.trials.status import duration


def computing_time(found: Sequence[Effort]) -> str:
    """A row for each kind of stored trials, and their sum."""
    if not found:
        return "<p>No result of a long run is stored.</p>"
    sums = map(sum, zip(*((kind.trials, kind.nets, kind.diverged, kind.seconds) for kind in found)))
    devices = tuple(sorted({device for kind in found for device in kind.hardware}))
    together = Effort("together", *sums, devices)
    rows = [
        [
            kind.experiment,
            f"{kind.trials:,}",
            f"{kind.nets:,}",
            f"{kind.diverged:,}",
            duration(kind.seconds),
            "; ".join(kind.hardware),
        ]
        for kind in [*found, together]
    ]
    return _table(["experiment", "trials", "nets", "diverged", "time", "on"], rows)


def chapter_times(executed: Sequence[Path]) -> str:
    """A row for each executed chapter: its title, and the time that it ran for in this book."""
    rows, total = [], 0
    for path in sorted(executed):
        notebook = json.loads(path.read_text(encoding="utf-8"))
        seconds, cores = (notebook["metadata"].get(name) for name in ("seconds", "cores"))
        total += seconds or 0
        rows.append(
            [
                chapters.headings(notebook)[0].partition(":")[0],
                "–" if seconds is None else duration(seconds),
                str(cores or "–"),
            ]
        )
    return _table(["chapter", "time", "cores"], [*rows, ["together", duration(total), ""]])


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    def line(cells: Sequence[str], kind: str) -> str:
        return "<tr>" + "".join(f"<{kind}>{escape(cell)}</{kind}>" for cell in cells) + "</tr>"

    body = "".join(line(row, "td") for row in rows)
    return f'<table class="table times"><thead>{line(head, "th")}</thead><tbody>{body}</tbody></table>'


class ComputingTime(SphinxDirective):
    def run(self) -> list[nodes.Node]:
        self.env.note_reread()  # results may come while the page's source stays as it is
        return [nodes.raw("", computing_time(efforts(fingerprint.RESULTS)), format="html")]


class ChapterTimes(SphinxDirective):
    def run(self) -> list[nodes.Node]:
        self.env.note_reread()
        executed = (Path(self.env.srcdir) / "chapters").glob("*.ipynb")
        return [nodes.raw("", chapter_times(list(executed)), format="html")]


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("computing-time", ComputingTime)
    app.add_directive("chapter-times", ChapterTimes)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
