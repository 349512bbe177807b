"""Every notebook has the shape that the book and its regression test rely on."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbformat import NotebookNode

from book.claims import CLAIMS
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
    body = ast.parse(tagged(notebook, "parameters")[0].source).body
    return {line.target.id: line for line in body if isinstance(line, ast.AnnAssign)}


def test_parameters_cell_is_one_typed_with_rho_and_a_help_comment_for_each(notebook):
    assert len(tagged(notebook, "parameters")) == 1
    source = tagged(notebook, "parameters")[0].source
    assert len(declared(notebook)) == len(ast.parse(source).body), "a parameter lacks its type"
    assert ast.unparse(declared(notebook)["rho"].annotation) == "float"
    for name, line in declared(notebook).items():
        assert "  # " in source.splitlines()[line.value.end_lineno - 1], f"{name} lacks its comment"


def test_every_parameter_is_checked(notebook):
    sources = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    calls = [
        node
        for source in sources
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("check_parameters")
    ]
    assert len(calls) == 1
    assert {keyword.arg for keyword in calls[0].keywords} == declared(notebook).keys()


def test_no_cell_was_injected(notebook):
    assert not tagged(notebook, "injected-parameters")


def test_key_numbers_are_stored_to_compare_with(notebook):
    checked = tagged(notebook, "nbval-check-output")
    assert checked
    for cell in checked:
        assert cell.execution_count and cell.outputs, "nbval compares nothing where no output is stored"


def test_notebook_judges_only_claims_that_are_its_own(path, notebook):
    sources = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    judged = [
        node.args[0].value
        for source in sources
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "judge"
    ]
    assert set(judged) <= {claim.id for claim in CLAIMS.values() if path.stem in claim.notebooks}


def test_cells_have_ids_of_their_own(notebook):
    ids = [cell.get("id") for cell in notebook.cells]
    assert all(ids) and len(set(ids)) == len(ids)


def test_outputs_hold_no_error_no_warning_and_no_path_of_a_machine(notebook):
    for output in outputs(notebook):
        assert output.output_type != "error"
        assert output.get("name") != "stderr", f"a page would not show this: {output.get('text')}"
        text = output.get("text", "") + output.get("data", {}).get("text/plain", "")
        assert not MACHINE.search(text), text
    assert str(fingerprint.ROOT) not in json.dumps(outputs(notebook))


def test_metadata_hold_nothing_of_one_run(notebook):
    assert notebook.metadata.keys() == {"kernelspec", "language_info"}
    assert notebook.metadata.language_info == {"name": "python"}
    assert not [cell.metadata for cell in notebook.cells if {"papermill", "execution"} & cell.metadata.keys()]


def test_notebook_is_in_the_book(path):
    assert f"chapters/{path.stem}" in pages.contents(), "no line in book/_toc.yml"
    assert path.stem in PARAMETERS, "no entry in book/parameters.yml"


def test_book_parameters_are_known(path, notebook):
    assert (PARAMETERS[path.stem] or {}).keys() <= declared(notebook).keys()


def test_book_names_no_chapter_that_is_not_there():
    names = {path.stem for path in NOTEBOOKS}
    assert PARAMETERS.keys() == names
    assert {Path(page).name for page in pages.contents() if page.startswith("chapters/")} == names


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["-p", "nonsense", "1"], "ParameterError: unknown parameter nonsense; this notebook takes "),
        (["-p", "rho", "high"], "ParameterError: parameter rho must be a number"),
        (["-p", "rho", "-1"], "ParameterError: parameter rho must be a number"),
    ],
)
def test_bad_parameter_ends_a_run_with_one_line(arguments, line, tmp_path):
    if not NOTEBOOKS:
        pytest.skip("there is no notebook yet")
    command = [sys.executable, "-m", "papermill", NOTEBOOKS[0], tmp_path / "out.ipynb", "--no-progress-bar"]
    run = subprocess.run([*command, *arguments], capture_output=True, text=True)
    assert run.returncode != 0
    shown = [shown for shown in run.stderr.splitlines() if shown.startswith("ParameterError")]
    assert len(shown) == 1 and shown[0].startswith(line)
