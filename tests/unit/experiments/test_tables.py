"""Rows, their spread over seeds, CSV and Markdown."""

import csv
import io
import math

from trainer.experiments.tables import Column, Row, Spread, as_csv, as_markdown, cells, differ, summarise

ROWS = [
    Row({"model": "a | b"}, 0, {"recall@20": 0.10, "other": 1.0}),
    Row({"model": "c, d"}, 0, {"recall@20": 0.30}),
    Row({"model": "a | b"}, 1, {"recall@20": 0.14, "other": 3.0}),
]


def test_the_spread_over_seeds_by_hand() -> None:
    several, single = summarise(ROWS)
    assert several.labels == {"model": "a | b"}
    assert math.isclose(several.figures["recall@20"].mean, 0.12)
    assert math.isclose(several.figures["recall@20"].deviation, math.sqrt(2 * 0.02**2))
    assert several.figures["recall@20"].seeds == 2
    assert single.figures["recall@20"] == Spread(0.30, 0.0, 1)


def test_csv_reads_back_and_leaves_out_what_a_row_lacks() -> None:
    read = list(csv.DictReader(io.StringIO(as_csv(ROWS))))
    assert [row["model"] for row in read] == ["a | b", "c, d", "a | b"]
    assert [row["seed"] for row in read] == ["0", "0", "1"]
    assert [row["recall@20"] for row in read] == ["0.1", "0.3", "0.14"]
    assert [row["other"] for row in read] == ["1.0", "", "3.0"]


def test_markdown_has_one_cell_a_column_whatever_the_labels_are() -> None:
    columns = (Column("recall@20", "R@20"), Column("other", "other", ".0f"))
    text = as_markdown(*cells(summarise(ROWS), columns), 1)
    lines = text.splitlines()
    assert lines[0] == "| model | R@20 | other |"
    assert lines[1] == "| --- | ---: | ---: |"
    assert lines[2] == "| a \\| b | 0.1200 ± 0.0283 | 2 ± 1 |"
    assert lines[3] == "| c, d | 0.3000 | - |"


def test_figures_differ_if_they_do_anywhere() -> None:
    same = Row({"model": "x"}, 0, {"one": 1.0, "two": 1.0})
    assert not differ(summarise([same]), "one", "two")
    assert differ(summarise([same, Row({"model": "y"}, 0, {"one": 1.0, "two": 2.0})]), "one", "two")
    assert not differ(summarise(ROWS), "recall@20", "absent")
