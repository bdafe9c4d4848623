"""The figures: one function an experiment, from its rows to a matplotlib figure. Nothing here measures anything.

Dots with bars of one sample standard deviation over seeds, if there are several. Axes need not begin at zero.
"""

from collections.abc import Callable, Sequence
from io import BytesIO
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from trainer.experiments.definitions import Experiment
from trainer.experiments.maps import FUSED, JOINT, OTHERS
from trainer.experiments.plans import DISTILLED, UNDISTILLED
from trainer.experiments.tables import Row, Summary, differ, summarise
from trainer.recipe import Recipe

DOTS_PER_INCH = 150
_COLOURS = 255  # of the file: with a palette it takes half the bytes
_EXPORTED, _ALONE = "#1f4e9c", "#d9822b"
_PALETTE = ("#1f4e9c", "#d9822b", "#2a8c5a", "#8c4a9e", "#7a7a7a")
_DOT_AREA, _LEAST_DOT, _LARGEST_DOT = 6000, 6, 20  # square points; all of a map, and each
_HEADINGS = {"recall@20": "test R@20", "ndcg@20": "test N@20"}


def draw(experiment: Experiment, rows: Sequence[Row], recipe: Recipe, title: str) -> bytes:
    """The experiment's figure as a PNG file.

    Args:
        experiment: whose.
        rows: of its CSV file.
        recipe: all the trainings' own, for what they differ from.
        title: over everything.
    """
    figure = _DRAWINGS[experiment.name](rows, recipe)
    figure.suptitle(title, fontsize=12)
    drawn, file = BytesIO(), BytesIO()
    figure.savefig(drawn, format="png", dpi=DOTS_PER_INCH)
    with Image.open(drawn) as picture:
        picture.convert("RGB").quantize(_COLOURS).save(file, format="png", optimize=True)
    return file.getvalue()


def _figure(width: float, height: float) -> Figure:
    """Inches."""
    return Figure(figsize=(width, height), layout="constrained")


def _tidy(axes: Axes, grid: str = "both") -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(visible=True, axis=grid, color="#dddddd", linewidth=0.8)  # type: ignore[arg-type]
    axes.set_axisbelow(True)


def _variants(rows: Sequence[Row], recipe: Recipe) -> Figure:
    """A line a variant, a panel a metric; the student alone beside what is exported, if they differ."""
    del recipe
    summaries = summarise(rows)
    figure = _figure(9.5, 1.6 + 0.36 * len(summaries))
    panels = figure.subplots(1, 2, sharey=True)
    has_alone = differ(summaries, "recall@20", "alone_recall@20")
    for axes, metric in zip(panels, _HEADINGS, strict=True):
        if has_alone:
            _dots(axes, summaries, f"alone_{metric}", _ALONE, "student alone", hollow=True)
        _dots(axes, summaries, metric, _EXPORTED, "exported")
        _name_lines(axes, [", ".join(summary.labels.values()) for summary in summaries])
        axes.set_xlabel(_HEADINGS[metric])
    if has_alone:
        panels[0].legend(loc="best", fontsize=8)
    return figure


def _dots(
    axes: Axes, summaries: Sequence[Summary], metric: str, colour: str, label: str, *, hollow: bool = False
) -> None:
    places = [place for place, summary in enumerate(summaries) if metric in summary.figures]
    shown = [summaries[place].figures[metric] for place in places]
    axes.errorbar(
        [spread.mean for spread in shown],
        places,
        xerr=[spread.deviation for spread in shown] if any(spread.seeds > 1 for spread in shown) else None,
        fmt="o",
        color=colour,
        markerfacecolor="white" if hollow else colour,
        capsize=3,
        label=label,
    )


def _name_lines(axes: Axes, names: Sequence[str]) -> None:
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.margins(x=0.1)
    axes.tick_params(axis="x", labelsize=8)
    axes.locator_params(axis="x", nbins=6)
    _tidy(axes)


def _sensitivity(rows: Sequence[Row], recipe: Recipe) -> Figure:
    """A panel a factor; the recipe's own value is marked."""
    factors = list(dict.fromkeys(row.labels["factor"] for row in rows))
    columns = min(4, len(factors))
    lines = -(-len(factors) // columns)
    figure = _figure(3.1 * columns, 2.7 * lines + 0.6)
    panels = figure.subplots(lines, columns, sharey=True, squeeze=False).ravel()
    has_alone = differ(summarise(rows), "recall@20", "alone_recall@20")
    for axes, factor in zip(panels, factors, strict=False):
        summaries = summarise(row for row in rows if row.labels["factor"] == factor)
        values = [summary.labels["value"] for summary in summaries]
        own = values.index(f"{getattr(recipe, factor):.10g}")
        axes.axvline(own, color="#999999", linestyle=":", label="the recipe's value")
        if has_alone:
            _line(axes, values, summaries, "alone_recall@20", _ALONE, "student alone", hollow=True)
        _line(axes, values, summaries, "recall@20", _EXPORTED, "exported")
        axes.set_xlabel(factor)
        _tidy(axes)
    for axes in panels[::columns]:
        axes.set_ylabel(_HEADINGS["recall@20"])
    _share_legend(figure, panels[0], list(panels[len(factors) :]))
    return figure


def _line(
    axes: Axes,
    values: Sequence[str],
    summaries: Sequence[Summary],
    metric: str,
    colour: str,
    label: str,
    *,
    hollow: bool = False,
) -> None:
    """Means over values at equal distances, since grids are neither linear nor free of 0."""
    spreads = [summary.figures[metric] for summary in summaries]
    axes.errorbar(
        range(len(values)),
        [spread.mean for spread in spreads],
        yerr=[spread.deviation for spread in spreads] if any(spread.seeds > 1 for spread in spreads) else None,
        fmt="o--" if hollow else "o-",
        color=colour,
        markerfacecolor="white" if hollow else colour,
        capsize=3,
        label=label,
    )
    axes.set_xticks(range(len(values)), values, fontsize=8)


def _share_legend(figure: Figure, axes: Axes, free: Sequence[Axes]) -> None:
    """One legend for all panels: in a free one, else below."""
    handles, labels = axes.get_legend_handles_labels()
    for each in free:
        each.set_axis_off()
    if len(free):
        free[0].legend(handles, labels, loc="center", frameon=False)
    else:
        figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)


def _modalities(rows: Sequence[Row], recipe: Recipe) -> Figure:
    """A line a restriction, coloured by what is restricted."""
    del recipe
    summaries = summarise(rows)
    order = {setting: n for n, setting in enumerate(("student", "inferred with", "trained with", "teacher"))}
    summaries.sort(key=lambda summary: order[summary.labels["setting"]])
    figure = _figure(9.5, 1.6 + 0.34 * len(summaries))
    panels = figure.subplots(1, 2, sharey=True)
    for axes, metric in zip(panels, _HEADINGS, strict=True):
        for setting, place in order.items():
            masked = [s if s.labels["setting"] == setting else Summary(s.labels, {}) for s in summaries]
            _dots(axes, masked, metric, _PALETTE[place], setting)
        _name_lines(axes, [f"{each.labels['setting']}: {each.labels['views']}" for each in summaries])
        axes.set_xlabel(f"{_HEADINGS[metric]}, student alone")
    return figure


def _efficiency(rows: Sequence[Row], recipe: Recipe) -> Figure:
    """A panel a cost, from zero, and what it buys."""
    del recipe
    summaries = summarise(rows)
    names = [summary.labels["model"] for summary in summaries]
    figure = _figure(11, 1.4 + 0.45 * len(names))
    panels = figure.subplots(1, 4, sharey=True)
    costs = {
        "epoch_seconds": "seconds an epoch",
        "peak_memory_mb": "peak memory, MB",
        "student_parameters_millions": "parameters, millions",
    }
    for axes, (cost, heading) in zip(panels, costs.items(), strict=False):
        _bars(axes, summaries, cost, _EXPORTED, "student")
        if cost == "student_parameters_millions":
            below = [summary.figures[cost].mean for summary in summaries]
            _bars(axes, summaries, "teacher_parameters_millions", _ALONE, "teachers", below)
            _share_legend(figure, axes, [])
        axes.set_xlabel(heading)
        axes.set_xlim(left=0)
        axes.locator_params(axis="x", nbins=4)
        _tidy(axes, "x")
    _dots(panels[3], summaries, "recall@20", _EXPORTED, "exported")
    panels[3].set_xlabel(_HEADINGS["recall@20"])
    panels[3].margins(x=0.15)
    panels[3].locator_params(axis="x", nbins=4)
    _tidy(panels[3])
    panels[0].set_yticks(range(len(names)), names)
    panels[0].set_ylim(len(names) - 0.5, -0.5)
    return figure


def _bars(
    axes: Axes, summaries: Sequence[Summary], metric: str, colour: str, label: str, left: Sequence[float] | None = None
) -> None:
    spreads = [summary.figures[metric] for summary in summaries]
    axes.barh(
        range(len(summaries)),
        [spread.mean for spread in spreads],
        left=left,
        xerr=[spread.deviation for spread in spreads] if any(spread.seeds > 1 for spread in spreads) else None,
        height=0.6,
        color=colour,
        capsize=3,
        label=label,
    )


def _robustness(rows: Sequence[Row], recipe: Recipe) -> Figure:
    """A panel a kind of damage; how much of it runs to the right."""
    del recipe
    damages = list(dict.fromkeys(row.labels["damage"] for row in rows))
    figure = _figure(3.6 * len(damages) + 0.4, 3.8)
    panels = figure.subplots(1, len(damages), sharey=True, squeeze=False).ravel()
    for axes, damage in zip(panels, damages, strict=True):
        of_damage = [row for row in rows if row.labels["damage"] == damage]
        for model, colour in ((DISTILLED, _EXPORTED), (UNDISTILLED, _ALONE)):
            summaries = summarise(row for row in of_damage if row.labels["model"] == model)
            shares = [f"{float(summary.labels['share']):.0%}" for summary in summaries]
            _line(axes, shares, summaries, "recall@20", colour, model, hollow=model == UNDISTILLED)
        axes.set_xlabel(f"items with {damage}")
        _tidy(axes)
    panels[0].set_ylabel(_HEADINGS["recall@20"])
    _share_legend(figure, panels[0], [])
    return figure


def _tsne(rows: Sequence[Row], recipe: Recipe) -> Figure:
    """Teachers above the student, a column a view; last the fused student and the joint map."""
    del recipe
    by_map: dict[str, list[Row]] = {}
    for row in rows:
        by_map.setdefault(row.labels["map"], []).append(row)
    teachers = [name for name in by_map if name.startswith("teacher")]
    top, bottom = [*teachers, FUSED], [f"student{name.removeprefix('teacher')}" for name in teachers] + [JOINT]
    figure = _figure(3.2 * len(top), 7.4)
    panels = figure.subplots(2, len(top), squeeze=False)
    groups = _sorted_groups({row.labels["group"] for name, points in by_map.items() if name != JOINT for row in points})
    colours = _group_colours(groups)
    for axes, name in zip(panels.ravel(), [*top, *bottom], strict=True):
        points = by_map.get(name, [])
        if name == JOINT:
            views = list(dict.fromkeys(row.labels["group"] for row in points))
            _scatter(axes, points, dict(zip(views, (colormaps["Set1"](n) for n in range(9)), strict=False)))
            axes.legend(
                fontsize=8,
                loc="upper center",
                bbox_to_anchor=(0.5, -0.02),
                ncols=len(views),
                markerscale=2,
                frameon=False,
            )
        else:
            _scatter(axes, points, colours)
        axes.set_title(name, fontsize=10)
        axes.set_xticks([])
        axes.set_yticks([])
        axes.set_ylabel("t-SNE, axes without unit" if axes in panels[:, 0] else "", fontsize=8)
    handles, labels = panels[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(len(labels), 5), markerscale=2, frameon=False)
    return figure


def _sorted_groups(groups: set[str]) -> list[str]:
    """By the number that they begin with, if they do; what is left over last."""

    def key(group: str) -> tuple[bool, int, str]:
        number = group.partition("-")[0]
        return (group == OTHERS, int(number) if number.isdigit() else 0, group)

    return sorted(groups, key=key)


def _group_colours(groups: Sequence[str]) -> dict[str, Any]:
    """Steps of one scale for quantities, unlike colours for kinds."""
    quantities = all(group[:1].isdigit() for group in groups)
    if quantities:
        return dict(zip(groups, colormaps["viridis"](np.linspace(0, 0.92, len(groups))), strict=True))
    kinds = {group: colormaps["Dark2"](place) for place, group in enumerate(groups)}
    return kinds | {OTHERS: "#c8c8c8"} if OTHERS in kinds else kinds


def _scatter(axes: Axes, points: Sequence[Row], colours: dict[str, Any]) -> None:
    for group, colour in colours.items():
        chosen = [row.figures for row in points if row.labels["group"] == group]
        axes.scatter(
            [point["x"] for point in chosen],
            [point["y"] for point in chosen],
            s=min(max(_DOT_AREA / len(points), _LEAST_DOT), _LARGEST_DOT),
            color=[colour],
            alpha=0.8,
            linewidths=0,
            label=group,
        )


_DRAWINGS: dict[str, Callable[[Sequence[Row], Recipe], Figure]] = {
    "main": _variants,
    "ablation": _variants,
    "sensitivity": _sensitivity,
    "modalities": _modalities,
    "efficiency": _efficiency,
    "robustness": _robustness,
    "tsne": _tsne,
}
