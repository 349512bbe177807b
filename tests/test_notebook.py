"""Parameter checking, glue and key-number tables: what every chapter rests on."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pytest

from book import notebook
from book.notebook import ParameterError, anything, between, checked, one_of

CELL = """
rho: float = 0.6  # LSAM radius
seeds: int = 20
rhos: list = [0, 0.5]
engine: str = "cpu"
names: list[str] = ["a"]
"""
RULES = {
    "rho": between(0, 5),
    "seeds": between(1, 1000),
    "rhos": between(0, 5),
    "engine": one_of("cpu", "torch"),
    "names": anything(),
}
VALUES = {"rho": 0.6, "seeds": 20, "rhos": [0, 0.5], "engine": "cpu", "names": ["a"]}


@pytest.fixture
def shown(monkeypatch) -> list[tuple[dict, dict]]:
    """What is displayed while the test runs, as (data by MIME type, metadata)."""
    outputs: list[tuple[dict, dict]] = []
    monkeypatch.setattr(notebook, "display", lambda data, raw, metadata: outputs.append((data, metadata)))
    return outputs


def test_good_parameters_pass_and_a_whole_number_becomes_a_float():
    result = checked([CELL], {**VALUES, "rho": 1}, RULES)
    assert result == {**VALUES, "rho": 1.0} and type(result["rho"]) is float


REFUSED = {
    "rho must be a number from 0 to 5": [("rho", value) for value in (5.1, -0.1, "high", float("nan"), True)],
    "seeds must be a whole number from 1 to 1000": [("seeds", 2.5), ("seeds", 0)],
    "engine must be a text, one of 'cpu', 'torch'": [("engine", "jax")],
    "rhos must be a list of one or more values from 0 to 5": [("rhos", value) for value in (0.5, [], [0.1, "x"])],
    "names must be a list of one or more texts": [("names", ["a", 1])],
}


@pytest.mark.parametrize("allowed", REFUSED)
def test_bad_value_is_refused_in_one_line_with_what_is_allowed(allowed):
    for name, value in REFUSED[allowed]:
        with pytest.raises(ParameterError) as error:
            checked([CELL], VALUES | {name: value}, RULES)
        assert str(error.value) == f"parameter {allowed}, not {value!r}"
        assert error.value._render_traceback_() == [f"ParameterError: {error.value}"]


@pytest.mark.parametrize(
    ("cells", "values", "rules", "line"),
    [
        ([CELL], VALUES | {"rhos": [9.0] * 10_000}, RULES, "^.{,150}$"),
        ([CELL, "# Parameters\nrho = 0.1\nnonsense = 1\n"], VALUES | {"nonsense": 1}, RULES,
         "unknown parameter nonsense; this notebook takes rho, seeds, "),
        ([""], VALUES | {"rho": 7.0}, RULES, "parameter rho must be a number from 0 to 5, not 7.0"),
        ([CELL], VALUES, dict(list(RULES.items())[:-1]), "parameter names has no rule"),
        ([CELL], VALUES, RULES | {"width": anything()}, "parameter width has no line in the parameters cell"),
        (["x: dict = {}"], {"x": {}}, {"x": anything()}, "must be annotated bool, int, float, str or list, not dict"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_in_one_short_line(cells, values, rules, line):
    with pytest.raises(ParameterError, match=line):
        checked(cells, values, rules)


def test_names_of_other_cells_are_no_parameters_and_the_latest_run_of_theirs_counts():
    cells = ["%matplotlib inline", CELL, "other = 3", "x: int = 4"]
    assert checked(cells, {**VALUES, "other": 3, "x": 4}, RULES) == VALUES
    assert checked([CELL, "# Parameters\nnonsense = 1\n", CELL], VALUES, RULES) == VALUES
    assert checked([""], VALUES, RULES) == VALUES, "a kernel that keeps no history"
    with pytest.raises(RuntimeError, match="must be called in one"):
        notebook.check_parameters(rho=anything())


def test_figure_is_glued_shown_and_closed_with_equal_bytes_for_equal_pictures(shown):
    for _ in range(2):
        fig, ax = plt.subplots()
        ax.plot([0, 1])
        notebook.figure("fig-line", fig)
    assert not plt.fignum_exists(fig.number)
    (first, metadata), (second, _) = shown
    assert first == second
    assert first["image/svg+xml"].startswith("<svg ")
    assert metadata["scrapbook"] == {"name": "fig-line", "mime_prefix": ""}


def test_numbers_and_texts_are_glued_out_of_sight(shown):
    notebook.number("gain", np.float32(0.25))
    notebook.text("verdict", "*partly*")
    notebook.numbers("celeba", {"gain": np.int64(3), "verdict": "partly"})
    names = [metadata["scrapbook"]["name"] for _, metadata in shown]
    assert names == ["gain", "verdict", "celeba_gain", "celeba_verdict"]
    assert [data[notebook.HIDDEN + "text/plain"] for data, _ in shown] == ["0.25", "'*partly*'", "3", "'partly'"]
    assert shown[1][0][notebook.HIDDEN + "text/markdown"] == "*partly*"
    assert all(metadata["scrapbook"]["mime_prefix"] == notebook.HIDDEN for _, metadata in shown)


@pytest.mark.parametrize(
    ("name", "value"),
    [*(("gain", wrong) for wrong in (True, "3", None)), *((n, 1.0) for n in ("", "1st", "a b", "a:b"))],
)
def test_number_refuses_what_is_none_and_a_name_that_cannot_stand_in_a_role(name, value):
    with pytest.raises(ValueError, match="number 'gain' must be one int or float|name must be a letter, then"):
        notebook.number(name, value)


def test_key_numbers_are_rounded_text_that_does_not_depend_on_noise_in_the_last_digits():
    values = {"error": 0.12345, "none": -1e-9, "n": np.int64(20), "falls": np.bool_(True), "is": "partly"}
    table = notebook.key_numbers(values, digits=3)
    assert list(table["value"]) == ["0.123", "0.000", "20", "yes", "partly"]
    assert repr(table) == repr(notebook.key_numbers({**values, "error": 0.12345 + 1e-9}, digits=3))


def test_key_numbers_show_long_labels_whole_and_nested_values_as_columns():
    label = "hard-feature probing error at the largest radius of the sweep, complexity 360"
    table = notebook.key_numbers({label: {"SGD": 0.3, "LSAM": 0.1}, "n": {"SGD": 20}}, digits=2)
    assert label in repr(table) and label in table._repr_html_()
    assert list(table.columns) == ["SGD", "LSAM"] and table.loc["n", "LSAM"] == ""
    with pytest.raises(ValueError, match="at least one labelled value"):
        notebook.key_numbers({})
