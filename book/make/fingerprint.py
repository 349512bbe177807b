"""What a chapter was made from, as one hash: the chapter is run again only where that hash has changed.

Reads files and nothing else; it is on the path of every `make`, so it imports no library beyond PyYAML.
"""

import ast
import hashlib
import json
import os
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = ROOT / "notebooks"
PARAMETERS = ROOT / "book" / "parameters.yml"
RESULTS = ROOT / "results"
CLAIMS = RESULTS / "claims.json"  # made from the executed chapters
STORE, DATA = "lib/trials/store.py", "lib/data/root.py"  # what reads results, and the image data
ENVIRONMENT = [ROOT / "requirements-lock.txt", ROOT / "pyproject.toml"]


def chapters() -> list[Path]:
    """Every notebook, in order."""
    return sorted(NOTEBOOKS.glob("*.ipynb"))


def book_parameters() -> dict[str, dict]:
    """The book's parameters for each chapter, by its name; raises ValueError where one has no entry."""
    entries = yaml.safe_load(PARAMETERS.read_text(encoding="utf-8")) or {}
    for notebook in chapters():
        if notebook.stem not in entries:
            hint = "an empty one, `{}`, runs it with its default parameters"
            raise ValueError(f"{PARAMETERS.relative_to(ROOT)} has no entry for {notebook.stem} ({hint})")
    return {name: parameters or {} for name, parameters in entries.items()}


def code_cells(notebook: Path) -> list[str]:
    """The sources of a notebook's code cells."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]


def library_files(sources: list[str]) -> list[Path]:
    """The files of `lib` and `book` that code with these `sources` imports, directly or through one another."""
    found: set[Path] = set()
    waiting = list(sources)
    while waiting:
        for module in _imports(waiting.pop()):
            new = _module_files(module) - found
            found |= new
            waiting += [path.read_text(encoding="utf-8") for path in new]
    return sorted(found)


def _imports(source: str) -> set[str]:
    try:
        tree = ast.parse(source)
    except SyntaxError:  # an IPython magic; chapters import in plain cells
        return set()
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
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
    return sorted(path for path in RESULTS.rglob("*.json") if path != CLAIMS and not path.name.startswith("."))


def _watched(library: list[Path]) -> list[str]:
    """What the library reads at run time: result files, and which image data are there."""
    names = {path.relative_to(ROOT).as_posix() for path in library}
    lines = []
    if STORE in names:
        lines += _lines(trial_files())
    if DATA in names:
        data = Path(os.environ.get("SAM_DATA_ROOT") or ROOT / "data")
        there = [*data.glob("*/*"), *data.glob("*/raw/*")]
        lines += [str(data), *sorted(path.relative_to(data).as_posix() for path in there)]
    return lines


def _lines(files: list[Path]) -> list[str]:
    return [f"{path.relative_to(ROOT).as_posix()} {digest(path.read_bytes())}" for path in files]


def digest(content: bytes | str) -> str:
    return hashlib.sha256(content.encode() if isinstance(content, str) else content).hexdigest()


def of_files(files: list[Path]) -> str:
    """One hash over names and contents."""
    return digest("\n".join(_lines(sorted(files))))


def of_run(notebook: Path, parameters: dict) -> str:
    """The hash of all that decides a run of `notebook`: its cells, parameters, library, data and versions.

    Outputs stored in the notebook do not count.
    """
    library, cells = library_files(code_cells(notebook)), json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    said = [(cell["cell_type"], cell.get("metadata"), "".join(cell["source"])) for cell in cells]
    made_of = [json.dumps([said, parameters], sort_keys=True), sys.version]
    return digest("\n".join([*made_of, *_lines(library + ENVIRONMENT), *_watched(library)]))
