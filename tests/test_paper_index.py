"""The list of the paper's figures, tables and equations is whole, and leads to what there is."""

import pytest
import yaml
from result_tables import line_of, numbered, paper_index

from book.make import fingerprint

INDEX = yaml.safe_load((fingerprint.ROOT / "book" / "paper.yml").read_text(encoding="utf-8"))


@pytest.mark.parametrize("kind, last", [("figures", 10), ("tables", 2), ("equations", 44)])
def test_every_one_is_listed_once(kind, last):
    names = {name for name in numbered(INDEX) if name.startswith(kind[:-1])}
    assert names == {form.format(kind[:-1], n) for n in range(1, last + 1) for form in ("{} {}", "{} ({})")}
    assert numbered(INDEX)["equation (12)"] == "paper-equations-11-19"


def test_chapters_and_lines_of_code_are_there():
    entries = [entry for entries in INDEX.values() for entry in entries.values()]
    for chapter in {chapter for entry in entries for chapter in entry["chapters"]}:
        assert (fingerprint.ROOT / "notebooks" / f"{chapter}.ipynb").is_file()
    for name in {name for entry in entries for name in entry["code"]}:
        path, line = line_of(name).split(":")
        assert name.partition(":")[2] in (fingerprint.ROOT / path).read_text().splitlines()[int(line) - 1]
    html = paper_index(INDEX, lambda page, place, words: f"[{words}]")
    assert "Equation 11–19" in html and "[11]" in html and line_of("lib.optim.sam:LSAM") in html


def test_code_that_is_not_there_is_named():
    with pytest.raises(ValueError, match="'lib.optim.sam:XSAM'"):
        line_of("lib.optim.sam:XSAM")
