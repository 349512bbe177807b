"""Every notebook has the shape that the book and its regression test rely on."""

from __future__ import annotations

import ast
import json
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbformat import NotebookNode

from book.make import fingerprint, pages

NOTEBOOKS = fingerprint.chapters()
PARAMETERS = fingerprint.yaml.safe_load(fingerprint.PARAMETERS.read_text(encoding="utf-8"))
MACHINE = re.compile(r"(^|[\s'\"(=])(/home/|/root/|/tmp/|/Users/|[A-Z]:\\)|site-packages")


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def path(request) -> Path:
    return request.param


@pytest.fixture
def notebook(path) -> NotebookNode:
    return nbformat.read(path, as_version=4)


def tagged(notebook: NotebookNode, tag: str) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if tag in cell.metadata.get("tags", [])]


def outputs(notebook: NotebookNode) -> list[NotebookNode]:
    return [output for cell in notebook.cells for output in cell.get("outputs", [])]


def declared(notebook: NotebookNode) -> dict[str, ast.AnnAssign]:
    """The annotated assignments of the parameters cell, by name."""
    return fingerprint.annotated(tagged(notebook, "parameters")[0].source)


def test_parameters_cell_is_one_typed_with_rho_and_a_help_comment_for_each(notebook):
    assert len(tagged(notebook, "parameters")) == 1
    source = tagged(notebook, "parameters")[0].source
    assert len(declared(notebook)) == len(ast.parse(source).body), "a parameter lacks its type"
    assert ast.unparse(declared(notebook)["rho"].annotation) == "float"
    for name, line in declared(notebook).items():
        assert "  # " in source.splitlines()[line.value.end_lineno - 1], f"{name} lacks its comment"


def test_key_numbers_are_stored_to_compare_with_and_no_cell_was_injected(notebook):
    assert tagged(notebook, "nbval-check-output") and not tagged(notebook, "injected-parameters")
    for cell in tagged(notebook, "nbval-check-output"):
        assert cell.execution_count and cell.outputs, "nbval compares nothing where no output is stored"


def test_notebook_holds_no_error_no_warning_and_nothing_of_one_run_or_machine(notebook):
    for output in outputs(notebook):
        assert output.output_type != "error"
        assert output.get("name") != "stderr", f"a page would not show this: {output.get('text')}"
        text = output.get("text", "") + output.get("data", {}).get("text/plain", "")
        assert not MACHINE.search(text), text
    assert str(fingerprint.ROOT) not in json.dumps(outputs(notebook))
    assert notebook.metadata.keys() == {"kernelspec", "language_info"}
    assert notebook.metadata.language_info == {"name": "python"}
    assert not [cell.metadata for cell in notebook.cells if {"papermill", "execution"} & cell.metadata.keys()]
    assert len({cell.get("id") or None for cell in notebook.cells} - {None}) == len(notebook.cells)


def test_every_figure_is_on_the_page_with_a_caption_and_words_for_those_who_do_not_see_it(path, notebook):
    glued = [output.metadata.scrapbook for output in outputs(notebook) if "scrapbook" in output.get("metadata", {})]
    figures = {one.name for one in glued if not one.mime_prefix}
    if path.stem == pages.HEADLINE[0]:
        figures.remove(pages.HEADLINE[1])  # of README and landing page
    words = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    shown = re.findall(r"^`+\{glue:figure\} (\S+)\n((?::.*\n)+)\n?([^`\s].*)", words, re.MULTILINE)
    assert {name for name, options, _ in shown if f":name: {name}\n" in options and ":alt: " in options} == figures


def test_book_has_every_chapter_with_parameters_that_it_knows_and_names_none_that_is_not_there():
    names = {path.stem for path in NOTEBOOKS}
    assert PARAMETERS.keys() == names
    assert {Path(page).name for page in pages.contents() if page.startswith("chapters/")} == names
    for path in NOTEBOOKS:
        assert PARAMETERS[path.stem].keys() <= declared(nbformat.read(path, as_version=4)).keys(), path.stem


def test_bad_parameter_ends_papermill_with_one_line(tmp_path):
    command = [sys.executable, "-m", "papermill", NOTEBOOKS[0], tmp_path / "out.ipynb", "--no-progress-bar"]
    run = subprocess.run([*command, "-p", "nonsense", "1"], capture_output=True, text=True)
    (shown,) = [line for line in run.stderr.splitlines() if line.startswith("ParameterError")]
    assert run.returncode and shown.startswith("ParameterError: unknown parameter nonsense; this notebook takes ")


PAGES = "README.md", "CONTRIBUTING.md", "results/README.md"
WORDS = [*NOTEBOOKS, *(fingerprint.ROOT / "book").glob("*.md"), *(fingerprint.ROOT / name for name in PAGES)]


@pytest.mark.parametrize("path", WORDS, ids=lambda path: path.name)
def test_code_that_prose_names_is_there(path):
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".ipynb":
        cells = nbformat.reads(text, as_version=4).cells
        text = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    for name in re.findall(r"`((?:lib|book)(?:\.\w+)+)", text):
        pkgutil.resolve_name(name)
    for file in re.findall(r"`((?:lib|book|tests|notebooks)/[\w/]+\.\w+)`", text):
        assert (fingerprint.ROOT / file).exists() or "name" in file.lower(), file  # NN_name.ipynb: of any chapter
