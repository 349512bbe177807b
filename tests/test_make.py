"""What `make` promises: only what changed is run, failures name their place, good output stays."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from book.make import chapters, fingerprint, pages
from book.make import install as make_environment

ROOT = Path(__file__).resolve().parents[1]
V4 = nbformat.v4


def write_chapter(path: Path, code: str) -> None:
    source = "rho: float = 0.5  # radius\nlevels: list = [1,\n                2]  # the sweep"
    parameters = V4.new_code_cell(source, metadata={"tags": ["parameters"]})
    cells = [V4.new_markdown_cell("# Trial"), parameters, V4.new_code_cell(code)]
    for number, cell in enumerate(cells):
        cell.id = f"cell-{number}"
    nbformat.write(V4.new_notebook(cells=cells, metadata={"kernelspec": chapters.KERNEL}), path)


@pytest.fixture
def tree(tmp_path, monkeypatch) -> Path:
    """A place of its own for what `make` does, with one short chapter, `01_trial`."""
    shutil.copytree(ROOT / "book" / "make", tmp_path / "book" / "make", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("Makefile", "_config.yml", "pyproject.toml", "requirements-lock.txt"):
        shutil.copy(ROOT / name, tmp_path)
    for folder in ("notebooks", "book/images", "book/chapters"):
        (tmp_path / folder).mkdir()
    write_chapter(tmp_path / "notebooks" / "01_trial.ipynb", "rho, levels")
    (tmp_path / "book" / "parameters.yml").write_text("01_trial:\n  rho: 0.25\n")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setattr(sys, "argv", ["chapters"])
    for module in (fingerprint, chapters, pages):
        for name, value in list(vars(module).items()):
            if isinstance(value, Path) and value.is_relative_to(ROOT):
                monkeypatch.setattr(module, name, tmp_path / value.relative_to(ROOT))
    picture = tmp_path / pages.HEADLINE[2].relative_to(ROOT)
    monkeypatch.setattr(pages, "HEADLINE", (*pages.HEADLINE[:2], picture))
    return tmp_path


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


# Of each change the chapters that run again, and no others.
ALL = " ".join(path.stem[:2] for path in sorted((ROOT / "notebooks").glob("*.ipynb")))
NOTED = {  # of what four chapters' last runs read
    "02": ["data:cifar10"], "07": ["/"], "09": [".01234567"], "13": ["open-choices/"],
}  # fmt: skip
REACH = {
    "lib/optim/sam.py": ALL,
    "lib/toy/kernel.py": ("03 04 05 06", "01 08"),  # among others; and not these
    "lib/toy/variants.py": ("12", "01 08"),
    "lib/resnet.py": ("07 08 14", "01 03"),
    "lib/trials/record.json": ("07 08 09 10 12 13", "01"),
    "lib/data/__main__.py": "",
    "book/style.py": ALL,
    "book/noise.py": ("09", "01 03 07 12"),
    "book/sweep.py": "",
    "book/make/chapters.py": ALL,
    "book/make/pages.py": "",
    "notebooks/03_toy.ipynb": "03",
    "book/parameters.yml": "",  # the values of a chapter count, and not the file
    "pyproject.toml": "",
    "requirements-lock.txt": "",
    "results/noise/new.01234567.json": "07 09",
    "results/noise/new.89abcdef.json": "07",
    "runs/noise/mine.01234567.json": "07 09",
    "results/open-choices/new.89abcdef.json": "07 13",
    "results/claims.json": "",
    "results/open-choices/.half-written.json": "",
    "results/noise/.locks/01234567.begun": "",
    "data/cifar10/train/airplane/deep/1.png": "02",
    "data/MNIST/raw/train": "",
}


@pytest.fixture(scope="module")
def whole_tree(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("whole")
    for name in ("book", "lib", "notebooks"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("chapters", "__pycache__"))
    for name in ("pyproject.toml", "requirements-lock.txt"):
        shutil.copy(ROOT / name, root)
    return root


@pytest.fixture
def reach(whole_tree, monkeypatch):
    """The hash of every chapter of a copy of the repository, by name."""
    monkeypatch.setenv("HOME", str(whole_tree))
    monkeypatch.setenv("SAM_DATA_ROOT", "~/data")
    for name, value in list(vars(fingerprint).items()):
        if isinstance(value, Path) and value.is_relative_to(ROOT):
            monkeypatch.setattr(fingerprint, name, whole_tree / value.relative_to(ROOT))
    return lambda **given: {
        path.stem: fingerprint.of_run(path, given, NOTED.get(path.stem[:2], [])) for path in fingerprint.chapters()
    }


@pytest.mark.parametrize("change", REACH)
def test_a_change_reaches_the_chapters_that_it_decides_and_no_others(change, reach, whole_tree):
    before, path = reach(), whole_tree / change
    if path.suffix == ".ipynb":
        text = path.read_text()
        path.write_text(text.replace('"outputs": []', '"outputs": [{"text": "3"}]', 1))
        assert text != path.read_text() and reach() == before, "an output decides nothing"
        path.write_text(text.replace('"source": [', '"source": [\n    "\\n",', 1))
    else:
        write(path, (path.read_text() if path.exists() else "") + "\n# changed\n")
    again = {name[:2] for name, made_of in reach().items() if made_of != before[name]}
    if isinstance(REACH[change], tuple):
        these, others = (set(names.split()) for names in REACH[change])
        assert these <= again and again.isdisjoint(others)
    else:
        assert again == set(REACH[change].split())


def test_all_chapters_run_again_with_other_versions_or_parameters(reach, monkeypatch):
    before = reach()
    assert reach() == before and any(name.startswith("numpy-") for name in fingerprint.versions())
    assert set(reach(rho=1).values()).isdisjoint(before.values())
    monkeypatch.setattr(fingerprint, "versions", lambda: ["numpy-1.0.dist-info"])
    assert set(reach().values()).isdisjoint(before.values())


def test_quick_path_imports_neither_torch_nor_papermill():
    code = (
        "import sys; from book.make import fingerprint, pages, regression; "
        "[fingerprint.of_run(path, {}) for path in fingerprint.chapters()]; "
        "print({'torch', 'papermill', 'nbformat', 'sphinx', 'pandas'} & sys.modules.keys())"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert run.stdout.strip() == "set()", run.stderr


def test_chapter_runs_once_with_the_book_parameters_and_again_only_after_a_change(tree, capsys):
    source, executed = tree / "notebooks" / "01_trial.ipynb", tree / "book" / "chapters" / "01_trial.ipynb"
    write_chapter(source, "from lib.files import note_read\nnote_read('.01234567')\nrho, levels")
    assert chapters.main() == 0 and "01_trial: done in" in capsys.readouterr().out
    notebook, whole = nbformat.read(executed, as_version=4), executed.read_text()
    assert notebook.cells[3].outputs[0].data["text/plain"] == "(0.25, [1, 2])"
    assert len(notebook.cells) == 4 and "papermill" not in notebook.metadata
    assert notebook.metadata["parameters"] == {"rho": 0.25}
    assert notebook.metadata["seconds"] >= 0 and notebook.metadata["cores"] >= 1
    assert chapters.main() == 0 and not capsys.readouterr().out

    def fresh(text: str = whole, rho: float = 0.25) -> bool:
        executed.write_text(text)
        return chapters.is_fresh(source, {"rho": rho})

    assert fresh() and not fresh(rho=0.3)
    stored = json.loads(whole)
    stored["metadata"][chapters.MARK]["cells"] = "0"
    for damaged in ("{", "[]", whole[:-40], json.dumps(stored), whole.replace("# Trial", "another text")):
        assert not fresh(damaged), "made anew"
    write(tree / "results" / "noise" / "a.89abcdef.json", "{}")
    assert fresh()
    write(tree / "results" / "noise" / "a.01234567.json", "{}")
    assert not fresh(), "a result that it looked for has come"


@pytest.mark.parametrize(
    ("code", "line"),
    [
        ("\nraise ValueError('two\\nlines')",
         "cell 3, which begins `raise ValueError('two\\nlines')`, failed: ValueError: two lines"),
        ("import os\nos._exit(3)", "the kernel died in the cell which begins `import os`"),
    ],
)  # fmt: skip
def test_failing_chapter_names_its_cell_and_leaves_the_last_good_output(tree, code, line, capsys):
    executed, gone = (
        tree / "book" / "chapters" / f"{name}.ipynb" for name in ("01_trial", "00_whose_notebook_is_gone")
    )
    executed.write_text('{"metadata": {}, "good": "output"}')
    gone.write_text("{}")
    write_chapter(tree / "notebooks" / "01_trial.ipynb", code)
    assert chapters.main() == 1
    assert f"01_trial: {line}" in capsys.readouterr().err.splitlines()
    assert json.loads(executed.read_text())["good"] == "output" and os.listdir(executed.parent) == [executed.name]


MAPPING = "chapters: book/parameters.yml must have a mapping of parameters for each chapter: "


@pytest.mark.parametrize(
    ("entries", "line"),
    [
        ("{}", "chapters: book/parameters.yml has no entry for 01_trial (an empty one, `{}`,"),
        *((damage, MAPPING) for damage in ("", "01_trial: {", "01_trial: 3", "- 1", "\x00", "01_trial:", "\udcff")),
    ],
)
def test_wrong_or_damaged_book_parameters_are_named_in_one_line(tree, entries, line, capsys):
    (tree / "book" / "parameters.yml").write_bytes(entries.encode(errors="surrogateescape"))
    assert chapters.main() == 1
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith(line)


@pytest.mark.parametrize(
    ("source", "folded"),
    [
        ('notebook.figure("fig-a", made)', True),
        ("for net in nets:\n    notebook.figure(net, drawn(net))", True),
        ('made = draw()\nnotebook.figure("fig-a", made)', False),
        ("for net in nets:\n    made = draw(net)", False),
        ("%matplotlib inline", False),
        ("# nothing", False),
    ],
)
def test_a_page_shows_parameters_as_a_table_and_folds_cells_that_only_show(source, folded):
    typed = "rho: float = 0.5  # a radius\nrhos: list[float] = [0.0, 1.0]  # <radii>"
    parameters = V4.new_code_cell(typed, metadata={"tags": ["parameters"]})
    injected = V4.new_code_cell("# Parameters\nrho = 0.25", metadata={"tags": ["injected-parameters"]})
    notebook = V4.new_notebook(cells=[parameters, injected, V4.new_code_cell(source)])
    chapters.for_the_page(notebook, {"rho": 0.25})
    table = notebook.cells[0].outputs[0]["data"]["text/html"]
    rows = re.findall("<tr>(.*?)</tr>", table)[1:]
    assert [re.sub("<[^>]*>", "|", row).strip("|").split("||||") for row in rows] == [
        ["rho", "0.25|||a radius"],
        ["rhos", "[0.0, 1.0]|||&lt;radii&gt;"],
    ]
    assert notebook.cells[0].source == typed and "remove-input" in notebook.cells[0].metadata.tags
    assert "remove-cell" in notebook.cells[1].metadata.tags
    assert ("hide-input" in notebook.cells[2].metadata.tags) == folded


def test_pages_are_made_again_after_a_change_of_results_claims_or_the_library_of_the_book(tree):
    write(tree / "book" / "claims.py", "from lib import stats")
    seen = {pages.inputs()}
    for path in ("results/images/trial.json", "results/claims.json", "book/a.md", "lib/stats.py", "lib/other.py"):
        write(tree / path, "{}")
        seen.add(pages.inputs())
    assert len(seen) == 5, "lib/other.py is imported by no code of the book"


def test_headline_is_taken_from_its_chapter(tree):
    glued = {"name": "fig-headline", "mime_prefix": ""}
    output = {"data": {"image/svg+xml": ["a ", "picture"]}, "metadata": {"scrapbook": glued}}
    write(tree / "book" / "chapters" / "03_toy.ipynb", json.dumps({"cells": [{"outputs": [output]}]}))
    pages.write_headline()
    assert pages.HEADLINE[2].read_bytes() == b"a picture"


def refusal(tree: Path, python: str) -> str:
    """The one line in which `make book` says why it stopped, with this Python, where no package index answers."""
    unreachable = {"PIP_INDEX_URL": "http://127.0.0.1:9/simple", "PIP_RETRIES": "0", "PIP_CONFIG_FILE": os.devnull}
    environment = {**os.environ, **unreachable, "PIP_EXTRA_INDEX_URL": "", "PIP_FIND_LINKS": ""}
    command = ["make", "book", f"PYTHON={python}"]
    run = subprocess.run(command, cwd=tree, capture_output=True, text=True, env=environment)
    (line,) = [line for line in run.stderr.splitlines() if not line.startswith("make")]
    assert run.returncode != 0
    return line


def fake_python(path: Path, script: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


needs_make = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
REFUSED = {
    "there is no python9.9 here; name a Python of 3.11 or newer": None,
    "is Python 3.9, which is too old; name one of 3.11 or newer": "*exit*) exit 1;; *) echo 3.9",
    "lacks its venv module; on Debian and Ubuntu: apt install python3.11-venv": "*ensurepip*) exit 1;; *) echo 3.11",
}


@needs_make
@pytest.mark.parametrize("line", REFUSED)
def test_interpreter_that_will_not_do_is_refused(tree, line):
    if script := REFUSED[line]:
        fake_python(tree / "python", f'case "$2" in {script};; esac')
    assert line in refusal(tree, str(tree / "python") if script else "python9.9")


@needs_make
def test_no_network_is_told_and_the_environment_that_there_is_stays_however_often(tree):
    write(tree / ".venv" / "left", "")
    for _ in range(2):
        assert "the package index cannot be reached; a new environment needs the net" in refusal(tree, sys.executable)
        assert [path.name for path in tree.glob(".venv*") if path.is_dir()] == [".venv"]
        assert (tree / ".venv" / "left").exists()


@needs_make
def test_lock_stays_where_the_versions_cannot_be_listed(tree):
    fake_python(tree / ".venv" / "bin" / "python", "exit 1")
    before = (tree / "requirements-lock.txt").read_text()
    assert subprocess.run(["make", "-o", "installed", "lock"], cwd=tree, capture_output=True).returncode != 0
    assert (tree / "requirements-lock.txt").read_text() == before


@pytest.fixture
def installs(tree, monkeypatch):
    """Calls the installer of `tree`, whose builds only make a folder, or fail; the folders that it built."""
    built: list[Path] = []

    def build(folder: Path, log: Path) -> None:
        built.append(folder)
        (folder / "bin").mkdir(parents=True)

    def call(root: Path = tree, fails: bool = False) -> list[Path]:
        monkeypatch.setattr(make_environment, "build", (lambda *_: sys.exit("install: pip failed")) if fails else build)
        monkeypatch.setattr(sys, "argv", ["install.py", str(root / ".venv"), str(root)])
        make_environment.main()
        return built

    return call


def test_environment_is_built_beside_and_put_in_place_when_it_is_whole(tree, installs, tmp_path_factory):
    link = tree / ".venv"
    write(link / "old", "")
    with pytest.raises(SystemExit, match="pip failed"):
        installs(fails=True)
    assert (link / "old").exists(), "a working one stays"
    (first,) = installs()
    assert link.readlink() == Path(first.name) and (link / "bin").is_dir()
    assert [path.name for path in tree.glob(".venv.*") if path.is_dir()] == [first.name]
    os.utime(tree / "pyproject.toml", (0, 0))
    (tree / "pyproject.toml").open("a").write("# a comment\n")
    assert installs() == [first], "neither a time nor a comment makes it anew"
    moved = tmp_path_factory.mktemp("moved") / "book"
    shutil.copytree(tree, moved, symlinks=True)
    (tree / "requirements-lock.txt").open("a").write("numpy==0.1\n")
    with pytest.raises(SystemExit):
        installs(fails=True)
    assert link.resolve() == first and first.is_dir()
    second = installs()[1]
    assert link.resolve() == second != first and not first.exists()
    assert len(installs(moved)) == 3 and (moved / ".venv").resolve().parent == moved, "another place"
