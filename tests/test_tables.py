"""Tables as text."""

import csv
import io

from hypothesis import given
from hypothesis import strategies as st

from libragrad_lightning.tables import TableRows

WORDS = st.text(st.characters(codec="ascii", exclude_categories=["Cc"]), max_size=6)


@given(st.lists(st.tuples(WORDS, WORDS), max_size=4))
def test_values_come_back_from_comma_separated_values(rows):
    table = TableRows(("a", "b"), tuple(rows))
    found = list(csv.reader(io.StringIO(table.csv())))
    assert found == [["a", "b"], *map(list, rows)]


def test_cells_of_markdown_are_rounded_and_escaped():
    table = TableRows(("name", "value"), (("x|y", 0.123456), (None, 3)))
    assert table.markdown().splitlines() == [
        "| name | value |",
        "| --- | --- |",
        "| x\\|y | 0.1235 |",
        "|  | 3 |",
    ]
