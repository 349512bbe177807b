"""What `make` promises: only what changed is run, failures name their place, good output stays."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from book.make import chapters, fingerprint, pages

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
    """A copy of the repository's machinery with one short chapter, `01_trial`, which imports `book.trial`, and
    that imports `lib.one`."""
    generated = shutil.ignore_patterns("chapters", "__pycache__")
    shutil.copytree(ROOT / "book", tmp_path / "book", ignore=generated)
    for name in ("Makefile", "_config.yml", "pyproject.toml", "requirements-lock.txt"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / "lib" / "deep").mkdir(parents=True)
    shutil.copytree(ROOT / "lib" / "trials", tmp_path / "lib" / "trials", ignore=generated)
    for name in ("files.py", "check.py"):
        shutil.copy(ROOT / "lib" / name, tmp_path / "lib")
    (tmp_path / "book" / "trial.py").write_text("from lib import one\n")
    texts = {"one": "from lib.deep import two\n", "deep/two": "VALUE = 2\n"}
    for name in ("__init__", "other", "deep/__init__", *texts):
        (tmp_path / "lib" / f"{name}.py").write_text(texts.get(name, ""))
    (tmp_path / "notebooks").mkdir()
    code = "from book import trial\nrho, levels, trial.one.two.VALUE"
    write_chapter(tmp_path / "notebooks" / "01_trial.ipynb", code)
    (tmp_path / "book" / "parameters.yml").write_text("01_trial:\n  rho: 0.25\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    for module in (fingerprint, chapters, pages):
        for name, value in list(vars(module).items()):
            if isinstance(value, Path) and value.is_relative_to(ROOT):
                monkeypatch.setattr(module, name, tmp_path / value.relative_to(ROOT))
    picture = tmp_path / pages.HEADLINE[2].relative_to(ROOT)
    monkeypatch.setattr(pages, "HEADLINE", (*pages.HEADLINE[:2], picture))
    return tmp_path


def run_chapters(tree: Path) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "book.make.chapters"]
    return subprocess.run(command, cwd=tree, capture_output=True, text=True)


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_hash_follows_cells_parameters_results_that_were_read_and_every_file_of_the_images(tree, monkeypatch):
    notebook, parameters = tree / "notebooks" / "01_trial.ipynb", {}
    monkeypatch.setenv("HOME", str(tree))
    monkeypatch.setenv("SAM_DATA_ROOT", "~/images")

    def now() -> str:
        return fingerprint.of_run(notebook, parameters, [".01234567", "toy/", "data:MNIST/raw", "data:celeba"])

    seen = [now()]
    stored = json.loads(notebook.read_text())
    stored["cells"][-1]["outputs"] = [{"output_type": "stream", "name": "stdout", "text": "3"}]
    notebook.write_text(json.dumps(stored))
    others = "lib/other.py book/make/pages.py results/claims.json results/noise/a.89abcdef.json images/PACS/1.jpg"
    for path in f"{others} results/toy/.half-written.json results/noise/.locks/01234567.begun".split():
        write(tree / path, "{")
        assert now() == seen[-1], path
    results = ("results/noise/a label. 1.01234567.json", "runs/noise/mine.01234567.json", "results/toy/b.76543210.json")
    changed = ("lib/deep/two.py", "book/trial.py", *results, "images/MNIST/raw/train", "images/celeba/a/b/c/1.jpg")
    for path, text in ((path, text) for path in changed for text in ("1", "22")):
        write(tree / path, text)
        seen.append(now())
    parameters["rho"] = 1
    seen.append(now())
    stored["cells"][-1]["source"] += "\nrho"
    notebook.write_text(json.dumps(stored))
    seen.append(now())
    assert len(set(seen)) == len(seen) == 17


# Of each change the chapters that run again, and no others.
ALL = " ".join(path.stem[:2] for path in sorted((ROOT / "notebooks").glob("*.ipynb")))
NOTED = {  # of what three chapters' last runs read
    "02": ["data:cifar10"], "09": [".01234567"], "13": ["open-choices/"],
}  # fmt: skip
REACH = {
    "lib/optim/sam.py": ALL,
    "lib/toy/kernel.py": ("03 04 05 06", "01 14"),  # among others; and not these
    "lib/toy/variants.py": ("12", "01 14"),
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
    "results/noise/new.01234567.json": "09",
    "results/noise/new.89abcdef.json": "",
    "runs/noise/mine.01234567.json": "09",
    "results/open-choices/new.89abcdef.json": "13",
    "results/claims.json": "",
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
    monkeypatch.delenv("SAM_DATA_ROOT", raising=False)
    for name, value in list(vars(fingerprint).items()):
        if isinstance(value, Path) and value.is_relative_to(ROOT):
            monkeypatch.setattr(fingerprint, name, whole_tree / value.relative_to(ROOT))
    return lambda: {
        path.stem: fingerprint.of_run(path, {}, NOTED.get(path.stem[:2], [])) for path in fingerprint.chapters()
    }


@pytest.mark.parametrize("change", REACH)
def test_a_change_reaches_the_chapters_that_it_decides_and_no_others(change, reach, whole_tree):
    before, path = reach(), whole_tree / change
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".ipynb":
        path.write_text(path.read_text().replace('"source": [', '"source": [\n    "\\n",', 1))
    else:
        path.write_bytes((path.read_bytes() if path.exists() else b"") + b"\n# changed\n")
    again = {name[:2] for name, made_of in reach().items() if made_of != before[name]}
    if isinstance(REACH[change], tuple):
        these, others = (set(names.split()) for names in REACH[change])
        assert these <= again and again.isdisjoint(others)
    else:
        assert again == set(REACH[change].split())


def test_all_chapters_run_again_with_other_versions(reach, monkeypatch):
    before = reach()
    assert reach() == before and any(name.startswith("numpy-") for name in fingerprint.versions())
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


def test_chapter_runs_once_with_the_book_parameters_and_again_only_after_a_change(tree):
    code = "from lib.files import note_read\nfrom book import trial\nnote_read('.01234567')\n"
    write_chapter(tree / "notebooks" / "01_trial.ipynb", code + "rho, levels, trial.one.two.VALUE")
    first = run_chapters(tree)
    assert first.returncode == 0, first.stderr
    executed = tree / "book" / "chapters" / "01_trial.ipynb"
    notebook, whole = nbformat.read(executed, as_version=4), executed.read_text()
    assert notebook.cells[3].outputs[0].data["text/plain"] == "(0.25, [1, 2], 2)"
    assert len(notebook.cells) == 4 and "papermill" not in notebook.metadata
    assert notebook.metadata["parameters"] == {"rho": 0.25}
    assert notebook.metadata["seconds"] >= 0 and notebook.metadata["cores"] >= 1
    assert run_chapters(tree).stdout == ""

    def fresh(text: str = whole, rho: float = 0.25) -> bool:
        executed.write_text(text)
        return chapters.is_fresh(tree / "notebooks" / "01_trial.ipynb", {"rho": rho})

    assert fresh() and not fresh(rho=0.3)
    stored = json.loads(whole)
    stored["metadata"][chapters.MARK]["cells"] = "0"
    for damaged in ("{", "[]", whole[:-40], json.dumps(stored), whole.replace("# Trial", "another text")):
        assert not fresh(damaged), "made anew"
    write(tree / "results" / "noise" / "a.89abcdef.json", "{}")
    assert fresh()
    write(tree / "results" / "noise" / "a.01234567.json", "{}")
    assert not fresh(), "a result that it looked for has come"


def test_failing_chapter_names_its_cell_and_leaves_the_last_good_output(tree):
    executed = tree / "book" / "chapters" / "01_trial.ipynb"
    executed.parent.mkdir()
    executed.write_text('{"metadata": {}, "good": "output"}')
    write_chapter(tree / "notebooks" / "01_trial.ipynb", "\nraise ValueError('two\\nlines')")
    run = run_chapters(tree)
    assert run.returncode == 1
    assert run.stderr == (
        "01_trial: cell 3, which begins `raise ValueError('two\\nlines')`, failed: ValueError: two lines\n"
    )
    assert json.loads(executed.read_text())["good"] == "output"
    assert os.listdir(executed.parent) == ["01_trial.ipynb"]


def test_dead_kernel_names_its_chapter_and_cell(tree):
    write_chapter(tree / "notebooks" / "01_trial.ipynb", "import os\nos._exit(3)")
    run = run_chapters(tree)
    assert run.returncode == 1
    assert "01_trial: the kernel died in the cell which begins `import os`" in run.stderr


MAPPING = "chapters: book/parameters.yml must have a mapping of parameters for each chapter: "


@pytest.mark.parametrize(
    ("entries", "line"),
    [
        (
            "01_trial: {width: 3}",
            "01_trial: book/parameters.yml gives it an unknown parameter width; it takes levels, rho",
        ),
        ("{}", "chapters: book/parameters.yml has no entry for 01_trial (an empty one, `{}`,"),
        *((damage, MAPPING) for damage in ("", "01_trial: {", "01_trial: 3", "- 1", "\x00", "01_trial:", "\udcff")),
    ],
)
def test_wrong_or_damaged_book_parameters_are_named_in_one_line(tree, entries, line, monkeypatch, capsys):
    (tree / "book" / "parameters.yml").write_bytes(entries.encode(errors="surrogateescape"))
    monkeypatch.setattr(sys, "argv", ["chapters"])
    assert chapters.main() == 1
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith(line)


def test_chapter_whose_notebook_is_gone_goes_too(tree):
    stale = tree / "book" / "chapters" / "00_old.ipynb"
    stale.parent.mkdir()
    stale.write_text("{}")
    (tree / "notebooks" / "01_trial.ipynb").unlink()
    assert chapters.run_stale() and not stale.exists()


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


def glued(name: str, mime: str) -> dict:
    return {
        "output_type": "display_data",
        "data": {mime: "x"},
        "metadata": {"scrapbook": {"name": name, "mime_prefix": ""}},
    }


def test_pages_are_made_again_after_a_change_of_results_claims_or_the_library_of_the_book(tree):
    seen = {pages.inputs()}
    for path in ("results/images/trial.json", "results/claims.json", "book/claims.py", "lib/stats.py", "lib/other.py"):
        write(tree / path, "{}")
        seen.add(pages.inputs())
    assert len(seen) == 5, "lib/other.py is imported by no code of the book"


def test_headline_is_taken_from_its_chapter(tree):
    output = glued("fig-headline", "image/svg+xml")
    output["data"] = {"image/svg+xml": ["a ", "picture"]}
    (tree / "book" / "chapters").mkdir()
    (tree / "book" / "chapters" / "03_toy.ipynb").write_text(json.dumps({"cells": [{"outputs": [output]}]}))
    pages.write_headline()
    assert pages.HEADLINE[2].read_bytes() == b"a picture"


def install(tree: Path, **variables: str) -> subprocess.CompletedProcess:
    """`make book` where no package index answers."""
    unreachable = {"PIP_INDEX_URL": "http://127.0.0.1:9/simple", "PIP_RETRIES": "0", "PIP_CONFIG_FILE": os.devnull}
    unreachable |= {"PIP_EXTRA_INDEX_URL": "", "PIP_FIND_LINKS": ""}
    command = ["make", "book", *[f"{name}={value}" for name, value in variables.items()]]
    return subprocess.run(command, cwd=tree, capture_output=True, text=True, env=os.environ | unreachable)


def refusal(run: subprocess.CompletedProcess) -> str:
    """The one line in which the installation says why it stopped."""
    assert run.returncode != 0
    lines = [line for line in run.stderr.splitlines() if not line.startswith("make")]
    assert len(lines) == 1, run.stderr
    return lines[0]


def fake_python(folder: Path, script: str) -> str:
    path = folder / "python"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


needs_make = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


@needs_make
@pytest.mark.parametrize(
    ("script", "line"),
    [
        (None, "there is no python9.9 here; name a Python of 3.11 or newer"),
        (
            'case "$2" in *exit*) exit 1;; *) echo 3.9;; esac',
            "is Python 3.9, which is too old; name one of 3.11 or newer",
        ),
        (
            'case "$2" in *ensurepip*) exit 1;; *) echo 3.11;; esac',
            "lacks its venv module; on Debian and Ubuntu: apt install python3.11-venv",
        ),
    ],
)
def test_interpreter_that_will_not_do_is_refused(tree, script, line):
    assert line in refusal(install(tree, PYTHON=fake_python(tree, script) if script else "python9.9"))


@needs_make
def test_no_network_is_told_and_the_environment_that_there_is_stays_however_often(tree):
    (tree / ".venv" / "bin").mkdir(parents=True)
    (tree / ".venv" / "left").write_text("")
    for _ in range(2):
        run = install(tree, PYTHON=sys.executable)
        assert "the package index cannot be reached; a new environment needs the network" in refusal(run)
        assert [path.name for path in tree.glob(".venv*") if path.is_dir()] == [".venv"]
        assert (tree / ".venv" / "left").exists()


@needs_make
def test_lock_stays_where_the_versions_cannot_be_listed(tree):
    (tree / ".venv" / "bin").mkdir(parents=True)
    fake_python(tree / ".venv" / "bin", "exit 1")
    before = (tree / "requirements-lock.txt").read_text()
    command = ["make", "-o", "installed", "lock"]
    assert subprocess.run(command, cwd=tree, capture_output=True).returncode != 0
    assert (tree / "requirements-lock.txt").read_text() == before


@pytest.fixture
def installs(tree, monkeypatch):
    """Calls the installer of `tree`, whose builds only make a folder, or fail; the folders that it built."""
    spec = importlib.util.spec_from_file_location("install", ROOT / "book" / "make" / "install.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    built: list[Path] = []

    def build(folder: Path, log: Path) -> None:
        built.append(folder)
        (folder / "bin").mkdir(parents=True)

    def call(root: Path = tree, fails: bool = False) -> list[Path]:
        monkeypatch.setattr(module, "build", (lambda *_: sys.exit("install: pip failed")) if fails else build)
        monkeypatch.setattr(sys, "argv", ["install.py", str(root / ".venv"), str(root)])
        module.main()
        return built

    return call


def test_environment_is_built_beside_and_put_in_place_when_it_is_whole(tree, installs):
    (tree / ".venv").mkdir()
    (tree / ".venv" / "old").touch()
    with pytest.raises(SystemExit, match="pip failed"):
        installs(fails=True)
    assert (tree / ".venv" / "old").exists(), "a working one stays"
    (first,) = installs()
    assert (tree / ".venv").readlink() == Path(first.name) and (tree / ".venv" / "bin").is_dir()
    assert [path.name for path in tree.glob(".venv.*") if path.is_dir()] == [first.name]
    os.utime(tree / "pyproject.toml", (0, 0))
    (tree / "pyproject.toml").open("a").write("# a comment\n")
    assert installs() == [first], "neither a time nor a comment makes it anew"
    (tree / "requirements-lock.txt").open("a").write("numpy==0.1\n")
    with pytest.raises(SystemExit):
        installs(fails=True)
    assert (tree / ".venv").resolve() == first and first.is_dir()
    second = installs()[1]
    assert (tree / ".venv").resolve() == second != first and not first.exists()


def test_environment_of_another_place_is_made_anew(tree, installs, tmp_path_factory):
    (first,) = installs()
    moved = tmp_path_factory.mktemp("moved") / "book"
    shutil.copytree(tree, moved, symlinks=True)
    assert installs(moved)[1:] and (moved / ".venv").resolve().parent == moved and first.is_dir()
