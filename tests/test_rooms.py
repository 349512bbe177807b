"""The rooms of the code: `lib` knows nothing of the book, no module imports itself by a detour, and each notebook
has a module of its name."""

import ast
import re
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def modules(room: str) -> dict[str, ast.Module]:
    """Every module of a room by its full name, parsed."""
    paths = [path for path in (ROOT / room).rglob("*.py") if not {"_ext", "__pycache__"} & set(path.parts)]
    return {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): ast.parse(path.read_text())
        for path in paths
    }


def imports(tree: ast.AST) -> set[str]:
    """The full names of what a module imports anywhere, a function's own imports included."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def test_the_library_imports_nothing_of_the_book():
    for name, tree in modules("lib").items():
        assert not [other for other in imports(tree) if other.split(".")[0] == "book"], name


@pytest.mark.parametrize("room", ["lib", "book"])
def test_no_module_imports_itself_by_a_detour(room):
    known = modules(room)
    # A package is imported with any of its modules, so that it stands for none of its own.
    graph = {name: (imports(tree) & known.keys()) - {name, room} for name, tree in known.items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_every_notebook_has_a_module_of_its_name():
    for notebook in sorted((ROOT / "notebooks").glob("*.ipynb")):
        name = notebook.stem.partition("_")[2]
        assert (ROOT / "book" / f"{name}.py").is_file(), notebook.name
        assert re.search(rf"\bbook\.{name}\b|from book import .*\b{name}\b", notebook.read_text()), notebook.name
