"""Sphinx extension: `{claims-table}` lists the claims of the paper, each with the verdict of its chapter."""

from __future__ import annotations

import json
import re
from pathlib import Path

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from lib.claims import CLAIMS, Verdict

VERDICT = re.compile(r'<div class="verdict [\w-]+"><p><strong>(C\d+): ([\w ]+)\.</strong>')


def verdicts(executed: Path) -> dict[str, str]:
    """The verdicts that an executed chapter shows, by claim."""
    found: dict[str, str] = {}
    for cell in json.loads(executed.read_text(encoding="utf-8"))["cells"]:
        for output in cell.get("outputs", []):
            found |= dict(VERDICT.findall("".join(output.get("data", {}).get("text/html", ""))))
    return found


class ClaimsTable(SphinxDirective):
    """A table of the claims; each verdict leads to the chapter that reached it."""

    def run(self) -> list[nodes.Node]:
        lines = ["| | claim | in the paper | verdict |", "|---|---|---|---|"]
        for claim in CLAIMS.values():
            cells = [self._verdict(claim.id, notebook) for notebook in claim.notebooks]
            cell = ", ".join(filter(None, cells)) or Verdict.NOT_RUN.value
            lines.append(f"| {claim.id} | {claim.statement} | {claim.shown_by} | {cell} |")
        table = nodes.container()
        self.state.nested_parse(StringList(lines, self.get_source_info()[0]), self.content_offset, table)
        return table.children

    def _verdict(self, claim: str, notebook: str) -> str | None:
        executed = Path(self.env.srcdir) / "chapters" / f"{notebook}.ipynb"
        self.env.note_dependency(str(executed))
        found = verdicts(executed).get(claim) if executed.exists() else None
        return found and f"{{doc}}`{found} <chapters/{notebook}>`"


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("claims-table", ClaimsTable)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
