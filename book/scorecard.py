"""The scorecard: what the executed chapters recorded about each claim, kept in `results/claims.json`.

The pages are made from that file alone, so that page and file cannot disagree.
"""

import json
import math
import re
import shlex
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import yaml

from book.claims import CLAIMS, JUDGEMENT, Check, Judgement, Outcome, Verdict
from book.make import chapters

RULE = re.compile(r"How the claims? (is|are) judged")  # the heading above a chapter's rule


@dataclass(frozen=True, kw_only=True)
class ClaimRecord(Judgement):
    """What one chapter of the book found about one claim, and how to find it again."""

    chapter: str  # the notebook's name
    title: str
    rule: str  # the section of the chapter that states the rule, by its place in the page; or ""
    parameters: dict[str, Any]  # those of the book, where they are not the notebook's defaults
    seconds: int | None  # of the whole chapter; None where that was not measured
    cores: int | None  # of the machine that ran it

    @property
    def leading(self) -> list[Check]:
        """The checks that stand for all: the main one, else the first with an effect; where it holds, the first
        that is contradicted, or undecided."""
        first = sorted(self.checks, key=lambda check: (not check.counts, not check.main, check.effect is None))[:1]
        failing = [check for check in self.checks if check.outcome in (Outcome.CONTRADICTED, Outcome.UNDECIDED)]
        failing.sort(key=lambda check: check.outcome)  # by their words: contradicted comes first
        return first + (failing[:1] if first and first[0].outcome is Outcome.HOLDS else [])

    @property
    def command(self) -> str:
        """The command that runs the chapter as the book does."""
        words = [".venv/bin/papermill", f"notebooks/{self.chapter}.ipynb", "out.ipynb"]
        plain = {name: value for name, value in self.parameters.items() if isinstance(value, (int, float))}
        words += [word for name, value in plain.items() for word in ("-p", name, str(value))]
        # Lists, and texts, which -p would read as numbers where they look like it.
        if others := {name: value for name, value in self.parameters.items() if name not in plain}:
            words += ["-y", yaml.safe_dump(others, default_flow_style=True, sort_keys=False, width=math.inf).strip()]
        return shlex.join(words)

    def as_json(self) -> dict[str, Any]:
        """The record as plain JSON values, with what follows from them."""
        values = super().as_json() | {"verdict": self.verdict, "command": self.command}
        return {name: value for name, value in values.items() if name != "claim"}

    @classmethod
    def from_json(cls, claim: str, values: dict[str, Any]) -> Self:
        """The record that `as_json` wrote."""
        own = {name: value for name, value in values.items() if name not in ("verdict", "command")}
        return cls(claim=CLAIMS[claim], **own | {"checks": tuple(map(Check.from_json, values["checks"]))})


@dataclass(frozen=True)
class Score(Judgement):
    """One claim with the records of its chapters and the checks of all of them; a chapter that did not judge counts as
    a check that was not run."""

    records: tuple[ClaimRecord, ...] = ()

    @property
    def judged(self) -> list[ClaimRecord]:
        """The records of chapters that did judge it."""
        return [record for record in self.records if record.verdict is not Verdict.NOT_RUN]

    @property
    def not_run(self) -> list[str]:
        """The chapters that are to judge the claim and did not."""
        ran = [record.chapter for record in self.judged]
        return [chapter for chapter in self.claim.notebooks if chapter not in ran]

    @property
    def parts_not_run(self) -> list[str]:
        """The checks that were not run, in words."""
        found = [check for record in self.records for check in record.checks]
        return [check.words for check in found if check.outcome is Outcome.NOT_RUN]

    def as_json(self) -> dict[str, Any]:
        """The score as plain JSON values."""
        stated = {"claim": self.claim.id, "statement": self.claim.statement, "shown_by": self.claim.shown_by}
        ran = [check.outcome for check in self.checks if check.counts]
        counts = {"checks_held": ran.count(Outcome.HOLDS), "checks_run": len(ran), "not_run": self.not_run}
        return {**stated, "verdict": self.verdict, **counts, "records": [record.as_json() for record in self.records]}


def recorded(executed: Path) -> Iterator[ClaimRecord]:
    """The records of an executed chapter, one for each claim that it judges; judgements of one claim are put
    together.

    Raises ValueError where the chapter judges a claim that `book/claims.yml` does not give to it.
    """
    notebook = json.loads(executed.read_text(encoding="utf-8"))
    found: dict[str, list[dict]] = {}
    for cell in notebook["cells"]:
        for output in cell.get("outputs", []):
            if judgement := output.get("metadata", {}).get(JUDGEMENT):
                found.setdefault(judgement["claim"], []).append(judgement)
    headings = chapters.headings(notebook) or [executed.stem]
    rule = next((heading for heading in headings if RULE.match(heading)), "")
    place = re.sub(r"[^a-z0-9]+", "-", rule.lower()).strip("-")
    title, run = headings[0].partition(":")[0], notebook["metadata"]
    told = {name: run.get(name) for name in ("seconds", "cores")} | {"parameters": run.get("parameters", {})}
    for claim, judgements in found.items():
        own = CLAIMS[claim].notebooks
        if executed.stem not in own:
            raise ValueError(f"{executed.stem} judges {claim}, which book/claims.yml gives to {' and '.join(own)}")
        seconds = sum(judgement["stored_seconds"] for judgement in judgements)
        values = {"checks": [check for judgement in judgements for check in judgement["checks"]], **told}
        values |= {"chapter": executed.stem, "title": title, "rule": place, "stored_seconds": seconds}
        yield ClaimRecord.from_json(claim, values)


def collect(executed: Path) -> list[Score]:
    """Every claim of the paper with what the chapters in this folder recorded, in the order of the claims."""
    return _scores([record for path in sorted(executed.glob("*.ipynb")) for record in recorded(path)])


def read(path: Path) -> list[Score]:
    """Every claim of the paper with its records in the file; no file, no records."""
    stored = json.loads(path.read_text(encoding="utf-8"))["claims"] if path.exists() else []
    return _scores([ClaimRecord.from_json(row["claim"], values) for row in stored for values in row["records"]])


def _scores(records: list[ClaimRecord]) -> list[Score]:
    scores = []
    for claim in CLAIMS.values():
        score = Score(claim, (), records=tuple(record for record in records if record.claim is claim))
        checks = [check for record in score.records for check in record.checks]
        unrun = [Check(chapter, main=True) for chapter in score.not_run]
        scores.append(replace(score, checks=(*checks, *unrun)))
    return scores


def write(scores: list[Score], path: Path) -> None:
    """Store the scores in the file, unless it says the same already."""
    content = {"claims": [score.as_json() for score in scores]}
    with suppress(FileNotFoundError, ValueError):  # a damaged file is replaced
        if alike(content, json.loads(path.read_text(encoding="utf-8"))):
            return
    chapters.write(path, (json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode())


def alike(one: Any, other: Any, name: str = "") -> bool:
    """Whether two contents of the file say the same: numbers to six digits, times within a factor of two."""
    if name == "cores":
        return True
    if name == "seconds" and one and other:
        return max(one, other) <= 2 * min(one, other) + 5
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(alike(one[key], other[key], key) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(alike, one, other))
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=1e-6, abs_tol=1e-12)
    return one == other
