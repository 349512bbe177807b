"""The list of the paper's figures, tables and equations is whole, and leads to what there is."""

import pytest
import yaml
from result_tables import line_of, numbered

from book.make import fingerprint

INDEX = yaml.safe_load((fingerprint.ROOT / "book" / "paper.yml").read_text(encoding="utf-8"))


@pytest.mark.parametrize("kind, last", [("figures", 10), ("tables", 2), ("equations", 44)])
def test_every_one_is_listed_once_with_chapters_and_code_that_are_there(kind, last):
    names = {name for name in numbered(INDEX) if name.startswith(kind[:-1])}
    assert names == {form.format(kind[:-1], n) for n in range(1, last + 1) for form in ("{} {}", "{} ({})")}
    assert numbered(INDEX)["equation (12)"] == "paper-equations-11-19"
    for entry in INDEX[kind].values():
        assert all((fingerprint.ROOT / "notebooks" / f"{chapter}.ipynb").is_file() for chapter in entry["chapters"])
        for name in entry["code"]:
            path, line = line_of(name).split(":")
            assert name.partition(":")[2] in (fingerprint.ROOT / path).read_text().splitlines()[int(line) - 1]
