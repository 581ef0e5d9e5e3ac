"""The table of audits that is printed in the terminal."""

import pytest
from rich.console import Console

from libragrad_lightning.audit import AuditRecord
from libragrad_lightning.reporting import summary
from libragrad_lightning.reporting.summary import print_summary, summary_table


def record(epoch, **changes):
    values = {"srg/plain": 0.5, "srg/libra": epoch / 10, "accuracy": 0.25}
    given = {"epoch": epoch, "step": 5 * epoch + 4, "values": values, "seconds": 1.5 + epoch}
    return AuditRecord(**(given | {"samples": 8} | changes))


def shown(history):
    """The title, and the cells of all lines of a table."""
    table = summary_table(history, ["plain", "libra"])
    console = Console(width=200, record=True, quiet=True)
    console.print(table)
    columns = [[str(column.header), *column.cells] for column in table.columns]
    return str(table.title), list(zip(*columns, strict=True))


def test_one_line_per_metric_and_rule_set_and_one_column_per_audit():
    title, lines = shown([record(0), record(1)])
    assert title == "Explanation audit"
    assert lines == [
        ("metric", "rules", "epoch 0", "epoch 1"),
        ("srg ↑", "plain", "0.500", "0.500"),
        ("", "libra", "0.000", "0.100"),
        ("accuracy ↑", "", "0.250", "0.250"),
        ("seconds", "", "1.5", "2.5"),
    ]


@pytest.mark.parametrize(
    ("count", "epochs"),
    [(5, [0, 1, 2, 3, 4]), (6, [0, 1, 2, 4, 5]), (9, [0, 2, 4, 6, 8]), (12, [0, 3, 6, 8, 11])],
)
def test_of_many_audits_the_first_the_last_and_some_between_are_shown(count, epochs):
    title, lines = shown([record(epoch) for epoch in range(count)])
    assert lines[0][2:] == tuple(f"epoch {epoch}" for epoch in epochs)
    assert (f"5 of {count} audits" in title) == (count > 5)


def test_audits_of_one_epoch_are_told_by_their_steps_and_others_by_their_weights():
    history = [
        record(0, step=3, weights="initial"),
        record(1, step=5),
        record(1, step=7),
        record(1, step=9, weights="final"),
    ]
    assert shown(history)[1][0][2:] == ("start", "step 5", "step 7", "end")


def test_what_deletion_did_is_in_the_title_and_gaps_are_dashes():
    history = [
        record(0, values={"srg/libra": float("nan")}, perturbation="drop_tokens"),
        record(1, values={"drift/libra": 1e-5, "srg/libra": 1234.5}),
    ]
    title, lines = shown(history)
    assert title == "Explanation audit (drop_tokens)"
    assert lines[1:3] == [("srg ↑", "libra", "-", "1.2e+03"), ("drift", "libra", "-", "1.0e-05")]


def test_what_is_printed_has_a_line_below_its_head_and_no_other_lines(capsys):
    print_summary([], ["libra"])
    assert capsys.readouterr().out == ""
    print_summary([record(0), record(1)], ["plain", "libra"])
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].strip() == "Explanation audit"
    ruled = [line for line in printed if set(line.strip()) & set("─━┃│|")]
    assert len(ruled) == 1
    assert set(ruled[0].strip()) == {"─"}


@pytest.mark.parametrize(("width", "count"), [(60, 3), (80, 5), (160, 12)])
def test_a_table_shows_as_many_audits_as_there_is_room_for(width, count, capsys, monkeypatch):
    console = Console(width=width)
    monkeypatch.setattr(summary, "get_console", lambda: console)
    print_summary([record(epoch) for epoch in range(12)], ["plain", "libra"])
    printed = capsys.readouterr().out.splitlines()
    assert max(map(len, printed)) <= width
    assert printed[2].count("epoch") == count
    # No cell is broken into two lines.
    assert len(printed) == len(range(4)) + 5
