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


NUMBER, NUMBERS = "rho must be a number from 0 to 5", "rhos must be a list of one or more values from 0 to 5"


@pytest.mark.parametrize(
    ("change", "allowed"),
    [
        ({"rho": 5.1}, NUMBER),
        ({"rho": -0.1}, NUMBER),
        ({"rho": "high"}, NUMBER),
        ({"rho": float("nan")}, NUMBER),
        ({"rho": True}, NUMBER),
        ({"seeds": 2.5}, "seeds must be a whole number from 1 to 1000"),
        ({"seeds": 0}, "seeds must be a whole number from 1 to 1000"),
        ({"engine": "jax"}, "engine must be a text, one of 'cpu', 'torch'"),
        ({"rhos": 0.5}, NUMBERS),
        ({"rhos": []}, NUMBERS),
        ({"rhos": [0.1, "x"]}, NUMBERS),
        ({"names": ["a", 1]}, "names must be a list of one or more texts"),
    ],
)
def test_bad_value_is_refused_in_one_line_with_what_is_allowed(change, allowed):
    with pytest.raises(ParameterError) as error:
        checked([CELL], {**VALUES, **change}, RULES)
    assert str(error.value) == f"parameter {allowed}, not {next(iter(change.values()))!r}"
    assert error.value._render_traceback_() == [f"ParameterError: {error.value}"]


def test_long_value_stays_in_one_short_line():
    with pytest.raises(ParameterError, match="^.{,150}$"):
        checked([CELL], {**VALUES, "rhos": [9.0] * 10_000}, RULES)


def test_unknown_name_is_refused_with_the_names_there_are():
    cells = [CELL, "# Parameters\nrho = 0.1\nnonsense = 1\n"]
    with pytest.raises(ParameterError, match="unknown parameter nonsense; this notebook takes rho, seeds, "):
        checked(cells, {**VALUES, "nonsense": 1}, RULES)


def test_names_of_other_cells_are_no_parameters_and_the_latest_run_of_theirs_counts():
    cells = ["%matplotlib inline", CELL, "other = 3", "x: int = 4"]
    assert checked(cells, {**VALUES, "other": 3, "x": 4}, RULES) == VALUES
    assert checked([CELL, "# Parameters\nnonsense = 1\n", CELL], VALUES, RULES) == VALUES


def test_defaults_are_checked_where_the_kernel_keeps_no_history():
    assert checked([""], VALUES, RULES) == VALUES
    with pytest.raises(ParameterError, match="parameter rho must be a number from 0 to 5, not 7.0"):
        checked([""], {**VALUES, "rho": 7.0}, RULES)


def test_every_parameter_has_a_rule_and_every_rule_a_parameter():
    with pytest.raises(ParameterError, match="parameter names has no rule"):
        checked([CELL], VALUES, {name: rule for name, rule in RULES.items() if name != "names"})
    with pytest.raises(ParameterError, match="parameter width has no line in the parameters cell"):
        checked([CELL], VALUES, {**RULES, "width": anything()})


def test_what_is_no_parameter_of_a_notebook_says_so():
    with pytest.raises(ParameterError, match="must be annotated bool, int, float, str or list, not dict"):
        checked(["x: dict = {}"], {"x": {}}, {"x": anything()})
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


def test_key_numbers_need_a_value():
    with pytest.raises(ValueError, match="at least one labelled value"):
        notebook.key_numbers({})
