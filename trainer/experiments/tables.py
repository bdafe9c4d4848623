"""An experiment's outcome as rows, their mean and spread over seeds, as CSV and as Markdown."""

import csv
import io
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """One line of the CSV file.

    Attributes:
        labels: what it is about, by column.
        seed: of the training.
        figures: what was measured, by column.
    """

    labels: dict[str, str]
    seed: int
    figures: dict[str, float]


@dataclass(frozen=True)
class Spread:
    """A figure over seeds; ``deviation`` is the sample standard deviation, 0 of a single seed."""

    mean: float
    deviation: float
    seeds: int


@dataclass(frozen=True)
class Summary:
    """All rows of the same labels together."""

    labels: dict[str, str]
    figures: dict[str, Spread]


@dataclass(frozen=True)
class Column:
    """How a figure is shown: which one, under what heading, in which format."""

    figure: str
    heading: str
    format: str = ".4f"


def summarise(rows: Iterable[Row]) -> list[Summary]:
    """Mean and deviation over seeds of rows with the same labels, in order of first appearance."""
    groups: dict[tuple[tuple[str, str], ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(row.labels.items()), []).append(row)
    return [
        Summary(
            dict(labels),
            {
                name: _spread([row.figures[name] for row in group])
                for name in group[0].figures
                if all(name in row.figures for row in group)
            },
        )
        for labels, group in groups.items()
    ]


def as_csv(rows: Sequence[Row]) -> str:
    """Rows with a header; a figure that a row lacks stays empty."""
    labels = list(dict.fromkeys(name for row in rows for name in row.labels))
    figures = list(dict.fromkeys(name for row in rows for name in row.figures))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*labels, "seed", *figures])
    for row in rows:
        measured = [row.figures.get(name, "") for name in figures]
        writer.writerow([*(row.labels.get(name, "") for name in labels), row.seed, *measured])
    return text.getvalue()


def cells(summaries: Sequence[Summary], columns: Sequence[Column]) -> tuple[list[str], list[list[str]]]:
    """Headings and rows of text: labels, then ``mean`` or ``mean ± deviation`` of each column."""
    labels = list(summaries[0].labels)
    rows = [
        [*summary.labels.values(), *(_shown(summary.figures.get(column.figure), column.format) for column in columns)]
        for summary in summaries
    ]
    return [*labels, *(column.heading for column in columns)], rows


def as_markdown(headings: Sequence[str], rows: Iterable[Sequence[str]], label_count: int) -> str:
    """A table whose first ``label_count`` columns are text, the others numbers."""
    rule = ["---"] * label_count + ["---:"] * (len(headings) - label_count)
    lines = [headings, rule, *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def differ(summaries: Iterable[Summary], one: str, other: str) -> bool:
    """Whether two figures are ever unequal."""
    return any(
        summary.figures[one] != summary.figures[other]
        for summary in summaries
        if one in summary.figures and other in summary.figures
    )


def _spread(values: list[float]) -> Spread:
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return Spread(statistics.fmean(values), deviation, len(values))


def _shown(spread: Spread | None, template: str) -> str:
    if spread is None:
        return "-"
    mean = format(spread.mean, template)
    return mean if spread.seeds == 1 else f"{mean} ± {format(spread.deviation, template)}"
