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
    assert result == {**VALUES, "rho": 1.0}
    assert type(result["rho"]) is float


@pytest.mark.parametrize(
    ("change", "allowed"),
    [
        ({"rho": 7.0}, "parameter rho must be a number from 0 to 5, not 7.0"),
        ({"rho": "high"}, "parameter rho must be a number from 0 to 5, not 'high'"),
        ({"rho": float("nan")}, "parameter rho must be a number from 0 to 5, not nan"),
        ({"rho": True}, "parameter rho must be a number from 0 to 5, not True"),
        ({"seeds": 2.5}, "parameter seeds must be a whole number from 1 to 1000, not 2.5"),
        ({"seeds": 0}, "parameter seeds must be a whole number from 1 to 1000, not 0"),
        ({"engine": "jax"}, "parameter engine must be a text, one of 'cpu', 'torch', not 'jax'"),
        ({"rhos": 0.5}, "parameter rhos must be a list of one or more values from 0 to 5, not 0.5"),
        ({"rhos": []}, "parameter rhos must be a list of one or more values from 0 to 5, not []"),
        ({"rhos": [0.1, 9]}, "parameter rhos must be a list of one or more values from 0 to 5, not [0.1, 9]"),
        ({"rhos": [0.1, "x"]}, "parameter rhos must be a list of one or more values from 0 to 5, not [0.1, 'x']"),
        ({"names": ["a", 1]}, "parameter names must be a list of one or more texts, not ['a', 1]"),
    ],
)
def test_bad_value_is_refused_in_one_line_with_what_is_allowed(change, allowed):
    with pytest.raises(ParameterError) as error:
        checked([CELL], {**VALUES, **change}, RULES)
    assert str(error.value) == allowed
    assert error.value._render_traceback_() == [f"ParameterError: {allowed}"]


def test_long_value_stays_in_one_short_line():
    with pytest.raises(ParameterError) as error:
        checked([CELL], {**VALUES, "rhos": [9.0] * 10_000}, RULES)
    assert len(str(error.value)) < 150 and "\n" not in str(error.value)


def test_unknown_name_is_refused_with_the_names_there_are():
    cells = [CELL, "# Parameters\nrho = 0.1\nnonsense = 1\n"]
    with pytest.raises(ParameterError, match="unknown parameter nonsense; this notebook takes rho, seeds, "):
        checked(cells, {**VALUES, "nonsense": 1}, RULES)


def test_names_of_other_cells_are_no_parameters():
    cells = ["%matplotlib inline", CELL, "other = 3", "x: int = 4"]
    assert checked(cells, {**VALUES, "other": 3, "x": 4}, RULES) == VALUES


def test_parameters_cell_run_again_by_hand_replaces_the_injected_one():
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


def test_a_type_that_cannot_be_checked_is_refused():
    with pytest.raises(ParameterError, match="must be annotated bool, int, float, str or list, not dict"):
        checked(["x: dict = {}"], {"x": {}}, {"x": anything()})


def test_check_outside_a_notebook_says_so():
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


def test_number_and_text_are_glued_out_of_sight(shown):
    notebook.number("gain", np.float32(0.25))
    notebook.number("count", np.int64(3))
    notebook.text("verdict", "*partly*")
    assert [data[notebook.HIDDEN + "text/plain"] for data, _ in shown] == ["0.25", "3", "'*partly*'"]
    assert shown[2][0][notebook.HIDDEN + "text/markdown"] == "*partly*"
    assert all(metadata["scrapbook"]["mime_prefix"] == notebook.HIDDEN for _, metadata in shown)


def test_numbers_glue_each_value_under_its_prefix(shown):
    notebook.numbers("celeba", {"gain": np.float64(0.25), "verdict": "partly"})
    assert [metadata["scrapbook"]["name"] for _, metadata in shown] == ["celeba_gain", "celeba_verdict"]
    assert [data[notebook.HIDDEN + "text/plain"] for data, _ in shown] == ["0.25", "'partly'"]


@pytest.mark.parametrize("wrong", [True, "3", [1.0], None])
def test_number_refuses_what_is_none(wrong):
    with pytest.raises(ValueError, match="number 'gain' must be one int or float"):
        notebook.number("gain", wrong)


@pytest.mark.parametrize("name", ["", "1st", "two words", "a:b"])
def test_glued_name_can_stand_in_a_role(name):
    with pytest.raises(ValueError, match="name must be a letter, then"):
        notebook.number(name, 1.0)


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


def test_progress_yields_every_item_and_is_silent_outside_a_terminal(capsys):
    assert list(notebook.progress(range(3), "trials")) == [0, 1, 2]
    captured = capsys.readouterr()
    assert captured.out == captured.err == ""


def test_placeholder_shows_its_reason():
    fig = notebook.placeholder("no data root here")
    assert fig.texts[0].get_text() == "no data root here"
    plt.close(fig)
