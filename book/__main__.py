"""The book's own command: `python -m book run 06 -p rho 0.1 -o out.ipynb` runs a chapter with parameters of your own.

The parameters are checked before anything begins: what is wrong is said in one line, with exit status 2. A file that
is there stays until the new run is whole.
"""

import argparse
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from book.make import fingerprint


def chapter(name: str) -> Path:
    """The notebook whose name begins with `name`, such as 06; raises ValueError where there is none, or more."""
    found = [path for path in fingerprint.chapters() if path.stem.startswith(name) and name]
    if len(found) != 1:
        known = ", ".join(path.stem for path in fingerprint.chapters())
        raise ValueError(f"chapter must be one of {known}, or how one of them begins, not {name!r}")
    return found[0]


def value(text: str) -> Any:
    """What a parameter's text means: JSON where it is some, as in 3, 0.1, [1, 2] or "a"; True, False; else a text."""
    if text in ("True", "False"):
        return text == "True"
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def check(notebook: Path, values: Mapping[str, Any]) -> None:
    """Check parameters by the notebook's own cells, in this process: that of the parameters, and the one that checks
    them. Raises ValueError, as a ParameterError is, in one line."""
    from book.notebook import INJECTED, ParameterError

    cells = fingerprint.code_cells(notebook)
    first, known = next((cell, names) for cell in cells if (names := fingerprint.annotated(cell)))
    for name in values.keys() - known:
        raise ParameterError(f"unknown parameter {name}; this notebook takes {', '.join(sorted(known))}")
    namespace: dict[str, Any] = {"__name__": "__main__", "In": [first, INJECTED]}
    exec(first, namespace)
    namespace.update(values)
    exec(next(cell for cell in cells if "check_parameters(" in cell), namespace)


def run(name: str, given: Sequence[Sequence[str]], out: str) -> int:
    """The exit status: 0 where the chapter was run, 1 where a cell failed, 2 for a wrong argument."""
    from book.make import chapters

    try:
        notebook, path = chapter(name), Path(out)
        if path.suffix != ".ipynb" or path.is_dir() or not os.access(path.parent, os.W_OK):
            raise ValueError(f"out must be a file NAME.ipynb in a folder that is there and can be written, not {out!r}")
        if path.resolve().parent in (fingerprint.NOTEBOOKS, chapters.EXECUTED):
            raise ValueError(f"out must not be one of the book's own notebooks, as {out!r} is")
        values = {parameter: value(text) for parameter, text in given}
        check(notebook, values)
    except ValueError as error:
        print(f"book run: {error}", file=sys.stderr)
        return 2
    result = chapters.execute(notebook, values)
    if result is None:
        return 1
    chapters.write(path, chapters.as_text(result))
    return 0


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"book run: {message}; see python -m book run --help\n")


def main(arguments: Sequence[str] | None = None) -> int:
    rest, given = list(sys.argv[1:] if arguments is None else arguments), []
    while "-p" in rest[:-2]:  # by hand: a value may begin with a minus
        at = rest.index("-p")
        given.append(rest[at + 1 : at + 3])
        del rest[at : at + 3]
    parser = _Parser(prog="python -m book", description="The book's own command.")
    parser.add_argument("run", choices=["run"], help="run a chapter with parameters of your own")
    parser.add_argument("chapter", help="its name, or how that begins, such as 06")
    parser.add_argument("-p", nargs=2, metavar=("NAME", "VALUE"), help="a parameter; may be given again")
    parser.add_argument("-o", required=True, metavar="OUT.ipynb", help="where the executed notebook goes")
    options = parser.parse_args(rest)
    return run(options.chapter, given, options.o)


if __name__ == "__main__":
    sys.exit(main())
