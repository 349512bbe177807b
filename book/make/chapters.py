"""Runs the chapters: `book/chapters/` holds each notebook as executed with the book's parameters.

    python -m book.make.chapters              run those whose inputs changed
    python -m book.make.chapters --in-place   run every notebook with its default parameters, keep outputs in it

A chapter that fails names its cell; what was there from the last good run stays.
"""

from __future__ import annotations

import argparse
import ast
import json
import logging
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from book.make import fingerprint
from lib.files import READ, replacing

if TYPE_CHECKING:
    from nbformat import NotebookNode

EXECUTED = fingerprint.ROOT / "book" / "chapters"
MARK = "made_from"  # the key of the fingerprint in an executed notebook's metadata
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}


def is_fresh(notebook: Path, parameters: dict) -> bool:
    """Whether the executed chapter is whole, and was made from exactly these inputs."""
    try:
        executed = json.loads((EXECUTED / notebook.name).read_text(encoding="utf-8"))
        mark = executed["metadata"][MARK]
        good = mark["cells"] == of_cells(executed)
        return good and mark["inputs"] == fingerprint.of_run(notebook, parameters, mark["reads"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):  # not there, or damaged: made anew
        return False


def of_cells(executed: dict) -> str:
    """The hash of an executed chapter, as its file has it, but for what its metadata say of it."""
    return fingerprint.digest(json.dumps(executed["cells"], sort_keys=True))


def run_stale() -> bool:
    """Run every chapter whose inputs changed, drop those whose notebook is gone; False where one failed."""
    parameters = fingerprint.book_parameters()
    EXECUTED.mkdir(exist_ok=True)
    for executed in EXECUTED.glob("*.ipynb"):
        if not (fingerprint.NOTEBOOKS / executed.name).exists():
            executed.unlink()
    good = True
    for notebook in fingerprint.chapters():
        given = parameters[notebook.stem]
        if is_fresh(notebook, given):
            continue
        began, before = time.perf_counter(), fingerprint.of_run(notebook, given)
        with tempfile.NamedTemporaryFile("r") as noted:
            os.environ[READ] = noted.name
            result = execute(notebook, given)
            del os.environ[READ]
            reads = sorted(set(noted.read().split("\n")) - {""})
        if result is None:
            good = False
            continue
        for_the_page(result, given)
        changed = fingerprint.of_run(notebook, given) != before  # while it ran: then it is run again
        inputs = "" if changed else fingerprint.of_run(notebook, given, reads)
        made_from = {"inputs": inputs, "reads": reads, "cells": of_cells(json.loads(as_text(result)))}
        made = {"parameters": given, "seconds": round(time.perf_counter() - began), "cores": os.cpu_count()}
        result.metadata.update({MARK: made_from, **made})  # for the scorecard too
        write(EXECUTED / notebook.name, as_text(result))
    return good


def run_in_place() -> bool:
    """Run every notebook with its default parameters and store the outputs in it; False where one failed."""
    from book.drawing import FOR_A_PHONE  # a page's

    good = True
    for notebook in fingerprint.chapters():
        result = execute(notebook, {})
        good = good and result is not None
        if result is not None:
            write(notebook, FOR_A_PHONE.sub("", as_text(result).decode()).encode())
    return good


def execute(notebook: Path, parameters: dict) -> NotebookNode | None:
    """The notebook as run by papermill, less what differs from run to run; None, and a line, if it failed."""
    import papermill
    from jupyter_client.manager import AsyncKernelManager
    from nbclient.exceptions import DeadKernelError
    from papermill.exceptions import PapermillException, PapermillExecutionError

    class QuietKernelManager(AsyncKernelManager):
        """Drops what a kernel writes past its notebook: mostly tracebacks of its own shutdown."""

        async def start_kernel(self, **options: Any) -> None:
            await super().start_kernel(**options, stderr=subprocess.DEVNULL)

    logging.getLogger("papermill").setLevel(logging.ERROR)
    began, problem = time.perf_counter(), ""
    started: list[NotebookNode] = []
    print(f"{notebook.stem}: running", flush=True)
    try:
        options = {"kernel_name": "python3", "kernel_manager_class": QuietKernelManager, "cwd": fingerprint.ROOT}
        options["progress_bar"] = {"desc": notebook.stem, "leave": False} if sys.stderr.isatty() else False
        options["on_cell_start"] = lambda cell, **_: started.append(cell)
        result = papermill.execute_notebook(notebook, None, parameters, **options)
    except PapermillExecutionError as error:
        begins = error.source.strip().splitlines()[0]
        problem = f"cell {error.exec_count}, which begins `{begins}`, failed: {error.ename}: {error.evalue}"
    except DeadKernelError:
        problem = f"the kernel died in the cell which begins `{started[-1].source.strip().splitlines()[0]}`"
    except PapermillException as error:
        problem = str(error)
    if problem:
        print(f"{notebook.stem}: {' '.join(problem.split())}", file=sys.stderr)
        return None
    print(f"{notebook.stem}: done in {time.perf_counter() - began:.0f} s", flush=True)
    return stripped(result)


def headings(notebook: dict) -> list[str]:
    """The headings of an executed notebook, as read from its file; the first is the chapter's title."""
    texts = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "markdown"]
    return [line.lstrip("#").strip() for line in "\n".join(texts).splitlines() if line.startswith("#")]


def stripped(notebook: NotebookNode) -> NotebookNode:
    """`notebook` without times, paths and versions, so that an equal run gives an equal file."""
    notebook.metadata = type(notebook.metadata)(kernelspec=KERNEL, language_info={"name": "python"})
    for cell in notebook.cells:
        for key in ("papermill", "execution"):
            cell.metadata.pop(key, None)
    return notebook


def for_the_page(notebook: NotebookNode, given: dict) -> None:
    """Show parameters, as `given` to the run or else as they are, as a table, fold cells that only show something, and
    hide glued figures where they were made: the page shows each where its caption stands."""
    from nbformat.v4 import new_output
    from papermill.translators import PythonTranslator

    from book.notebook import HIDDEN
    from book.templates import render

    for cell in notebook.cells:
        tags = cell.metadata.setdefault("tags", [])
        if "parameters" in tags:
            names = {name: repr(value) for name, value in given.items()}
            known = [one._replace(default=names.get(one.name, one.default)) for one in PythonTranslator.inspect(cell)]
            table = render("parameters", parameters=known)
            cell.outputs = [new_output("display_data", {"text/html": table})]
            tags.append("remove-input")
        elif "injected-parameters" in tags:
            tags.append("remove-cell")
        elif only_shows(cell):
            tags.append("hide-input")
        for output in cell.get("outputs", []):
            glued = output.get("metadata", {}).get("scrapbook")
            if glued and not glued["mime_prefix"]:
                glued["mime_prefix"] = HIDDEN
                output["data"] = {HIDDEN + mime: content for mime, content in output["data"].items()}


def only_shows(cell: NotebookNode) -> bool:
    """Whether a cell is nothing but calls, of a figure or a table, and makes nothing that a later one needs."""
    try:
        body = ast.parse(cell.source).body if cell.cell_type == "code" else []
    except SyntaxError:
        return False
    inner = [one for line in body for one in (line.body if isinstance(line, ast.For) else [line])]
    return bool(inner) and all(isinstance(line, ast.Expr) for line in inner)


def as_text(notebook: NotebookNode) -> bytes:
    import nbformat

    return (nbformat.writes(notebook) + "\n").encode()


def write(path: Path, content: bytes) -> None:
    """Write whole or not at all."""
    with replacing(path) as file:
        file.write(content)


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--in-place", action="store_true", help="run with default parameters")
    run = run_in_place if options.parse_args().in_place else run_stale
    try:
        return 0 if run() else 1
    except ValueError as error:
        print(f"chapters: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
