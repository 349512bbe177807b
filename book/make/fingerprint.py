"""What a chapter was made from, as one hash: the chapter is run again only where that hash has changed.

Reads files and nothing else; it is on the path of every `make`, so it imports no library beyond PyYAML.
"""

import ast
import hashlib
import json
import os
import sys
import sysconfig
from collections.abc import Collection
from functools import cache
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = ROOT / "notebooks"
PARAMETERS = ROOT / "book" / "parameters.yml"
RESULTS = ROOT / "results"
CLAIMS = RESULTS / "claims.json"  # made from the executed chapters
RUNS = ROOT / "runs"
RUNNER = ROOT / "book" / "make" / "chapters.py"  # makes a chapter of what a notebook's run gave


def chapters() -> list[Path]:
    """Every notebook, in order."""
    return sorted(NOTEBOOKS.glob("*.ipynb"))


def book_parameters() -> dict[str, dict]:
    """The book's parameters for each chapter, by its name; raises ValueError for a damaged file, or one that lacks a
    chapter."""
    try:
        entries = dict(yaml.safe_load(PARAMETERS.read_text(encoding="utf-8")))
        found = {notebook.stem: dict(entries[notebook.stem]) for notebook in chapters()}
    except KeyError as error:
        lack = f"has no entry for {error.args[0]} (an empty one, `{{}}`, runs it with its default parameters)"
        raise ValueError(f"book/parameters.yml {lack}") from error
    except (OSError, TypeError, ValueError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"book/parameters.yml must have a mapping of parameters for each chapter: {reason}") from error
    return found


def code_cells(notebook: Path) -> list[str]:
    """The sources of a notebook's code cells."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]


def annotated(source: str) -> dict[str, ast.AnnAssign]:
    """The annotated assignments of a cell, by name."""
    try:
        body = ast.parse(source).body
    except SyntaxError:  # an IPython magic: no parameters there
        return {}
    return {ast.unparse(line.target): line for line in body if isinstance(line, ast.AnnAssign)}


def library_files(sources: list[str]) -> list[Path]:
    """The files of `lib` and `book` that code with these `sources` imports by full names, directly or through one
    another."""
    found: set[Path] = set()
    waiting = list(sources)
    while waiting:
        new = set().union(*map(_module_files, _imports(waiting.pop()))) - found
        found |= new
        waiting += [path.read_text(encoding="utf-8") for path in new]
    return sorted(found)


@cache
def _imports(source: str) -> set[str]:
    """The full names of what a source imports of `lib` and `book`."""
    try:
        tree = ast.parse(source)
    except SyntaxError:  # an IPython magic; chapters import in plain cells
        return set()
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name for name in names if name.split(".")[0] in ("lib", "book")}


def _module_files(module: str) -> set[Path]:
    """The file of a module and the `__init__` files above it; a name inside a module gives that module."""
    files, folder = set(), ROOT
    for part in module.split("."):
        folder = folder / part
        files |= {path for path in (folder / "__init__.py", folder.with_suffix(".py")) if path.is_file()}
    return files


def trial_files() -> list[Path]:
    """The stored results of trials, less what is only now being written."""
    found = (path for folder in (RESULTS, RUNS) for path in folder.rglob("*.json"))
    return sorted(path for path in found if path != CLAIMS and not path.name.startswith("."))


def _read(reads: Collection[str]) -> list[Path]:
    """The result files that a run which read `reads` would read now: digits of records, and folders of them."""
    folders, digits = {mark for mark in reads if mark.endswith("/")}, {mark for mark in reads if mark.startswith(".")}
    return [
        path
        for path in trial_files()
        if "/" in folders or f"{path.parent.name}/" in folders or path.with_suffix("").suffix[:9] in digits
    ]


def _images(reads: Collection[str]) -> list[str]:
    """The image data that such a run finds: names, sizes and times of change, at any depth."""
    folders = [mark.removeprefix("data:") for mark in reads if mark.startswith("data:")]
    data = Path(os.environ.get("SAM_DATA_ROOT") or ROOT / "data").expanduser()
    there = ((path, path.stat()) for folder in folders for path in sorted((data / folder).rglob("*")) if path.is_file())
    return [f"{path} {found.st_size} {found.st_mtime_ns}" for path, found in there]


def versions() -> list[str]:
    """The interpreter and the installed distributions, each with its version."""
    return [sys.version, *sorted(path.name for path in Path(sysconfig.get_path("purelib")).glob("*.dist-info"))]


def _lines(files: list[Path]) -> list[str]:
    return [f"{path.relative_to(ROOT).as_posix()} {digest(path.read_bytes())}" for path in files]


def digest(content: bytes | str) -> str:
    return hashlib.sha256(content.encode() if isinstance(content, str) else content).hexdigest()


def of_files(files: list[Path]) -> str:
    """One hash over names and contents."""
    return digest("\n".join(_lines(sorted(files))))


def of_run(notebook: Path, parameters: dict, reads: Collection[str] = ()) -> str:
    """The hash of all that decides a run of `notebook`: its cells, parameters, library, data and versions, and of the
    stored results what it `reads`, as its last run noted.

    Outputs stored in the notebook do not count.
    """
    library, cells = library_files(code_cells(notebook)), json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    schemas = sorted({path for file in library for path in file.parent.glob("*.json")})
    said = [(cell["cell_type"], cell.get("metadata"), "".join(cell["source"])) for cell in cells]
    made_of = [json.dumps([said, parameters], sort_keys=True), *versions(), *_images(reads)]
    return digest("\n".join([*made_of, *_lines([*library, *schemas, RUNNER, *_read(reads)])]))
