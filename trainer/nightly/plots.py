"""Plots as pieces of SVG, to stand in a page that needs nothing from outside."""

import io
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SIZE = (6.4, 2.6)


def lines(title: str, labels: Sequence[str], series: Mapping[str, Sequence[float]]) -> Markup:
    """A line for each series over the same labels; nothing where there are fewer than two."""
    if len(labels) < 2:
        return Markup()
    figure = _figure()
    axes = figure.subplots()
    places = range(len(labels))
    for name, values in series.items():
        axes.plot(places, values, marker="o", markersize=3, label=name)
    shown = list(places)[:: max(1, len(labels) // 10)]
    axes.set_xticks(shown, [labels[place] for place in shown], rotation=30, ha="right")
    axes.set_title(title, loc="left")
    axes.legend(frameon=False)
    return _svg(figure)


def curves(records: Sequence[Mapping[str, Any]]) -> Markup:
    """Loss and validation recall by epoch."""
    if not records:
        return Markup()
    figure = _figure()
    left, right = figure.subplots(1, 2)
    epochs = [record["epoch"] for record in records]
    left.plot(epochs, [record["loss"] for record in records])
    left.set_title("loss", loc="left")
    right.plot(epochs, [record["recall@20"] for record in records], label="student")
    for name in sorted({name for record in records for name in record["teachers"]}):
        judged = [record for record in records if name in record["teachers"]]
        places, values = [each["epoch"] for each in judged], [each["teachers"][name] for each in judged]
        right.plot(places, values, marker="o", markersize=3, label=name)
    right.set_title("validation recall@20", loc="left")
    right.legend(frameon=False)
    return _svg(figure)


def _figure() -> "Figure":
    from matplotlib.figure import Figure

    return Figure(figsize=_SIZE, layout="tight")


def _svg(figure: "Figure") -> Markup:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = re.sub(r"<metadata>.*?</metadata>", "", buffer.getvalue(), flags=re.DOTALL)
    return Markup(text[text.index("<svg") :])  # noqa: S704 - matplotlib escapes what it writes
