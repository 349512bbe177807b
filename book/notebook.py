"""What every chapter shares: checked parameters, glued figures and numbers, the key-number table, progress.

The prose shows a glued result by its name (`{glue:figure}`, `{glue:text}`): no number is typed by hand.
"""

from __future__ import annotations

import ast
import re
import reprlib
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import matplotlib.pyplot as plt
import pandas as pd
from IPython.display import display

from book import drawing
from book.make.fingerprint import annotated

if TYPE_CHECKING:
    from matplotlib.figure import Figure

HIDDEN = "application/papermill.record/"  # an output under this prefix is kept in the notebook but not shown
TYPES = {"bool": "True or False", "int": "a whole number", "float": "a number", "str": "a text"}
LISTS = {"bool": "booleans", "int": "whole numbers", "float": "numbers", "str": "texts", "": "values"}
INJECTED = "# Parameters\n"  # how papermill begins the cell that it adds


class ParameterError(ValueError):
    """A parameter of a notebook is unknown, of the wrong type or out of range; shown as one line."""

    def _render_traceback_(self) -> list[str]:  # IPython asks for this name
        return [f"ParameterError: {self}"]


class Rule(NamedTuple):
    """What a parameter, or every element of a list, may be."""

    words: str
    accepts: Callable[[Any], bool]


def between(low: float, high: float) -> Rule:
    """A number from `low` to `high`, both allowed."""
    return Rule(f" from {low:g} to {high:g}", lambda value: type(value) is not str and low <= value <= high)


def one_of(*choices: Any) -> Rule:
    """One of `choices`."""
    named = [*map(repr, choices)]
    named = named if len(named) <= 24 else [*named[:3], "...", named[-1]]
    return Rule(f", one of {', '.join(named)}", lambda value: value in choices)


def not_empty() -> Rule:
    """A text of one character or more."""
    return Rule(" that is not empty", bool)


def anything() -> Rule:
    """Any value of the parameter's type."""
    return Rule("", lambda value: True)


def check_parameters(**rules: Rule) -> None:
    """Check the parameters of the notebook that calls: names known, values of their type and allowed.

    Every name that the `parameters` cell annotates needs a rule; a rule for a list holds for its elements.
    A whole number given for a float becomes a float.
    Raises ParameterError with one line that names the parameter, its value and what is allowed.
    """
    namespace = sys._getframe(1).f_globals
    if "In" not in namespace:
        raise RuntimeError("check_parameters reads the cells of a notebook and must be called in one")
    if not isinstance(namespace["In"], list):  # IPython's own name, which a parameter has taken
        raise ParameterError(f"unknown parameter In; this notebook takes {', '.join(rules)}")
    namespace.update(checked(namespace["In"], namespace, rules))


def checked(cells: Sequence[str], values: Mapping[str, Any], rules: Mapping[str, Rule]) -> dict[str, Any]:
    """The parameters declared by `cells` (sources in the order they ran), with their checked `values`."""
    types: dict[str, str] = {}
    injected: set[str] = set()
    for cell in cells:
        typed = annotated(cell)
        if not typed.keys().isdisjoint(rules):  # the latest run of the parameters cell counts
            types, injected = {name: ast.unparse(line.annotation) for name, line in typed.items()}, set()
        elif cell.startswith(INJECTED):
            injected |= {ast.unparse(line.targets[0]) for line in ast.parse(cell).body if isinstance(line, ast.Assign)}
    if not any(cells):  # a kernel that keeps no history, as under nbval, which runs the defaults
        types = {name: type(values[name]).__name__ for name in rules if name in values}
    for name in sorted(injected - types.keys()):
        raise ParameterError(f"unknown parameter {name}; this notebook takes {', '.join(types) or 'none'}")
    for name in sorted(types.keys() ^ rules.keys()):
        lack = "rule" if name in types else "line in the parameters cell"
        raise ParameterError(f"parameter {name} has no {lack}")
    return {name: _checked_value(name, values.get(name), kind, rules[name]) for name, kind in types.items()}


def _checked_value(name: str, value: Any, kind: str, rule: Rule) -> Any:
    """`value`, a float where `kind` says so. Raises ParameterError where type or rule forbids it."""
    is_list = kind == "list" or kind.startswith("list[")
    element = kind[5:-1] if is_list else kind
    if element not in (LISTS if is_list else TYPES):
        raise ParameterError(f"parameter {name} must be annotated {', '.join(TYPES)} or list, not {kind}")
    items = (value if isinstance(value, list) else []) if is_list else [value]
    items = [float(item) if element == "float" and type(item) is int and abs(item) < 1e300 else item for item in items]
    kinds = [element] if element else list(TYPES)
    if not items or not all(type(item).__name__ in kinds and rule.accepts(item) for item in items):
        words = f"a list of one or more {LISTS[element]}" if is_list else TYPES[element]
        raise ParameterError(f"parameter {name} must be {words}{rule.words}, not {reprlib.repr(value)}")
    return items if is_list else items[0]


def figure(name: str, fig: Figure) -> None:
    """Show a matplotlib figure, glue it as `name` and close it; `{glue:figure}` places it."""
    _glue(name, {"image/svg+xml": drawing.svg(fig), "text/plain": f"<figure {name}>"})
    plt.close(fig)


def placeholder(message: str) -> Figure:
    """A figure that says why there is nothing to see, for a chapter whose data are not on this machine."""
    fig = plt.figure(figsize=(7.4, 1.2))
    fig.text(0.5, 0.5, message, ha="center", va="center", color="#6B6B6B", style="italic")
    return fig


def number(name: str, value: float) -> None:
    """Glue a number, without showing it; the prose quotes it as {glue:text}`name:.3f`."""
    value = value.item() if hasattr(value, "item") else value  # NumPy and torch scalars
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError(f"number {name!r} must be one int or float, not {reprlib.repr(value)}")
    _glue(name, {"text/plain": repr(value)}, prefix=HIDDEN)


def text(name: str, value: str) -> None:
    """Glue a text, without showing it; the prose quotes it with {glue:text} or, as Markdown, {glue:md}."""
    _glue(name, {"text/plain": repr(value), "text/markdown": value}, prefix=HIDDEN)


def numbers(prefix: str, values: Mapping[str, Any]) -> None:
    """Glue every value, a number or a text, as `prefix`_its name, without showing it."""
    for name, value in values.items():
        (text if isinstance(value, str) else number)(f"{prefix}_{name}", value)


def _glue(name: str, data: dict[str, Any], prefix: str = "") -> None:
    if not re.fullmatch(r"[A-Za-z][\w-]*", name):
        raise ValueError(f"name must be a letter, then letters, digits, _ or -, not {name!r}")
    shown = {prefix + mime: content for mime, content in data.items()}
    display(shown, raw=True, metadata={"scrapbook": {"name": name, "mime_prefix": prefix}})


class KeyNumbers(pd.DataFrame):
    """A small table of rounded numbers, as text; looks the same wherever it is printed."""

    def __repr__(self) -> str:
        return self.to_string(max_colwidth=None)

    def _repr_html_(self) -> str:
        with pd.option_context("display.max_colwidth", None):
            return self.to_html(border=0, classes="key-numbers")


def key_numbers(values: Mapping[str, Any], digits: int = 3) -> KeyNumbers:
    """The table that the regression test compares: one row a label, floats rounded to `digits` decimals.

    A value may itself be a mapping: then its keys are the columns.
    """
    if not values:
        raise ValueError("key_numbers needs at least one labelled value, not an empty mapping")
    rows = {}
    for label, value in values.items():
        columns = value if isinstance(value, Mapping) else {"value": value}
        rows[label] = {column: _rounded(one, digits) for column, one in columns.items()}
    return KeyNumbers(pd.DataFrame.from_dict(rows, orient="index").fillna(""))


def _rounded(value: Any, digits: int) -> str:
    value = value.item() if hasattr(value, "item") else value
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{round(value, digits) + 0.0:.{digits}f}"  # + 0.0: no -0.000
    return str(value)
