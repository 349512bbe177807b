"""`python -m book run`: a bad parameter is one line before a kernel starts, whatever notebook, parameter and value."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from book import __main__ as command
from book.make import chapters, fingerprint
from book.notebook import ParameterError

ROOT = Path(__file__).resolve().parents[1]
HUGE = "9" * 400
NO_NUMBERS = f"""nan NaN Infinity -Infinity inf -inf 1e999 -1e999 1e400 -1 {HUGE} -{HUGE} {"9" * 5000} True False None
null [0.1] [1] [] {{}} {{"a":1}} "0.1" "1" 0.1.2 1,5 1_0 0x10 --1 ρ ½ 1j 1e 1+1 lambda:1 __import__('os') high
[ {"[" * 5000}""".split()
BAD = {  # by the kind of parameter: texts that no notebook takes for one
    "float": [*NO_NUMBERS, "", "\n", "1 + 1", "-1e-3"],
    "int": [*NO_NUMBERS, "", "\n", "2.5", "1.0", "1e3", "-0.0", "99999999999"],
    "str": f'3 0.1 True False null [] ["a"] {{}} NaN {HUGE} -1 1e5'.split(),
    "list": [
        *f"""a 0.1 1 [] {{}} null True None [null] [{{}}] [[0.1]] [NaN] [Infinity] [-Infinity] [1e999] [{HUGE}]
        [-{HUGE}] [true] [0.1,"x",{{}}] [0.1 0.1] (0.1,) [-1] nan {{"0":1}} "[0.1]" [1,null] [0.5,[1]]
        {"[" * 5000}""".split(),
        "",
        " ",
    ],
    "bool": ["1", "0", "yes", "", "null", "[]", "0.5", '"True"', "true or false", "None", HUGE, "{}"],
}
UNKNOWN = ["", "rho ", *"nonsense In Out __builtins__ _ Rho lambda __name__ exit 1 ρ a.b".split()]


def cases(notebook: Path) -> list[tuple[str, str]]:
    cells = map(fingerprint.annotated, fingerprint.code_cells(notebook))
    known = next(cell for cell in cells if cell)
    kinds = {name: ast.unparse(line.annotation).partition("[")[0] for name, line in known.items()}
    return [(name, text) for name in sorted(known) for text in BAD[kinds[name]]] + [(name, "3") for name in UNKNOWN]


@pytest.mark.parametrize("notebook", fingerprint.chapters(), ids=lambda path: path.stem)
def test_every_bad_value_of_every_parameter_is_one_clear_line_before_any_work(notebook, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(chapters, "execute", lambda *_: pytest.fail("a run began"))
    for name, text in cases(notebook):
        status = command.main(["run", notebook.stem, "-p", name, text, "-o", str(tmp_path / "out.ipynb")])
        (line,) = capsys.readouterr().err.splitlines()
        assert status == 2 and line.startswith("book run: ") and len(line) < 500, (name, text[:50], line)
        assert f"parameter {name}" in line, (name, text[:50], line)


@pytest.mark.parametrize(
    ("chapter", "name", "text", "line"),
    [
        ("06", "seeds", "1", "parameter seeds must be a whole number from 2 to 1000, not 1"),
        ("06", "ratios", "[50]", "parameter ratios must be a list of one or more numbers from 0.05 to 20, not [50]"),
        ("08", "weights", "", "parameter weights must be a text that is not empty, not ''"),
        ("10", "steps", "1", "steps must be a multiple of the 300 of an epoch at batch size 1, not 1"),
        ("10", "steps", "350", "steps must be a multiple of the 300 of an epoch at batch size 1, not 350"),
        ("10", "rho", "4", "parameter rho must be below the largest of rhos, 4, not 4"),
    ],
)
def test_values_that_would_fail_late_are_refused_before_any_work_and_good_ones_are_not(chapter, name, text, line):
    with pytest.raises(ParameterError) as caught:
        command.check(command.chapter(chapter), {name: command.value(text)})
    assert str(caught.value) == line
    good = {"06": {"rho": 0.5, "rhos": [0, 0.5], "seeds": 3}, "08": {}, "10": {"steps": 600}}
    command.check(command.chapter(chapter), good[chapter])


def test_the_text_of_a_value_is_read_as_one_means_it():
    meant = {"3": 3, "0.1": 0.1, "1e-3": 1e-3, "[1, 2]": [1, 2], "True": True, "a b": "a b", '"3"': "3"}
    assert repr(list(map(command.value, meant))) == repr(list(meant.values()))


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["99", "-o", "out.ipynb"], "chapter must be one of 01_sam"),
        (["0", "-o", "out.ipynb"], "chapter must be one of 01_sam"),
        (["06", "-o", "nowhere/out.ipynb"], "out must be a file NAME.ipynb in a folder that is there"),
        (["06"], "the following arguments are required: -o"),
        (["06", "-o", "out.ipynb", "-p", "rho"], "argument -p: expected 2 arguments"),
        (["06", "-o", "out.txt"], "out must be a file NAME.ipynb"),
        (["06", "-o", str(ROOT / "notebooks" / "06_interventions.ipynb")], "out must not be one of the book's own"),
    ],
)
def test_wrong_argument_is_one_line(arguments, line, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    try:
        status = command.main(["run", *arguments])
    except SystemExit as end:
        status = end.code
    assert status == 2
    (shown,) = capsys.readouterr().err.splitlines()
    assert shown.startswith(f"book run: {line}")


def test_output_stays_until_the_new_run_has_succeeded(tmp_path, monkeypatch):
    out = tmp_path / "out.ipynb"
    out.write_text("mine")
    run = ["run", "06", "-p", "rho", "0.5", "-o", str(out)]
    monkeypatch.setattr(chapters, "execute", lambda *_: None)
    assert command.main(run) == 1 and out.read_text() == "mine"
    seen = {}
    result = nbformat.v4.new_notebook()
    monkeypatch.setattr(chapters, "execute", lambda notebook, values: seen.update({notebook.stem: values}) or result)
    assert command.main(run) == 0 and seen == {"06_interventions": {"rho": 0.5}}
    assert json.loads(out.read_text())["nbformat"] == 4


def test_command_is_one_line_from_a_shell(tmp_path):
    command = [sys.executable, "-m", "book", "run", "01", "-p", "rho", "high", "-o", str(tmp_path / "out.ipynb")]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 2 and not run.stdout and not list(tmp_path.iterdir())
    assert run.stderr == "book run: parameter rho must be a number from 0 to 2, not 'high'\n"
