"""``mts4mm bench``: measurements as commands; nothing here passes or fails on a time."""

import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from shared.errors import UserError
from trainer.cli import bench_index, bench_load, bench_night, bench_train, output
from trainer.cli.data import make_shop_with_progress
from trainer.cli.encoders import FIT_EPOCHS
from trainer.seeds import MOST_SEED

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from trainer.measurement.serving import Served

app = typer.Typer(no_args_is_help=True)


@app.callback()
def measure() -> None:
    """Measure; every figure in the documents comes from one of these."""
    # what a measurement has started, and its temporary folders, go with it however it is ended
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))


app.command("train")(bench_train.train)
app.command("index")(bench_index.index)
app.command("load")(bench_load.load)
app.command("night")(bench_night.night)

SERVED_SIZES = (7_000, 20_000, 200_000)
METRICS = ("recall@20", "ndcg@20")


@app.command("demo-shop")
def demo_shop(
    seeds: Annotated[int, typer.Option(min=1, help="Training seeds 0, 1, ...")] = 3,
    shop_seed: Annotated[int, typer.Option(min=0, help="Which shop.")] = 0,
    recipe: Annotated[str, typer.Option(help="Recipe of the student.")] = "demo",
    json_: output.JsonOption = False,
) -> None:
    """Student, each of its teachers, and a LightGCN of the same width, on the demo shop's test split."""
    from trainer.cli.training import train_and_publish
    from trainer.dataset import load_dataset
    from trainer.recipe import load_recipe

    figures: dict[str, list[dict[str, float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        shop, store = Path(folder) / "shop", Path(folder) / "models"
        make_shop_with_progress(shop, seed=shop_seed)
        data = load_dataset(shop)
        chosen = load_recipe(recipe)
        baseline = load_recipe("lightgcn", [f"width={chosen.width}"])
        for seed in range(seeds):
            student = train_and_publish(data, chosen, seed, store)[0]
            lightgcn = train_and_publish(data, baseline, seed, store)[0]
            figures.setdefault("student", []).append(student.test)
            for name, parts in student.teachers.items():
                figures.setdefault(f"{name} teacher", []).append(parts["test"])
            figures.setdefault("LightGCN", []).append(lightgcn.test)
    _print_figures(f"demo shop {shop_seed}, {seeds} seeds, test", figures, json_)


@app.command()
def propagation(
    dataset: Annotated[Path, typer.Argument(help="Dataset directory whose user-item graph is used.")],
    width: Annotated[int, typer.Option(min=1, help="Embedding width.")] = 64,
    repeats: Annotated[int, typer.Option(min=1, help="Timings of each; the median is printed.")] = 20,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda; scipy's is always on the CPU.")] = "cpu",
    json_: output.JsonOption = False,
) -> None:
    """Milliseconds of one propagation over the user-item graph, by each way there is; the fastest is used."""
    from functools import partial

    import numpy as np
    import torch

    from trainer import graph
    from trainer.dataset import TRAIN, load_dataset
    from trainer.device import choose_device
    from trainer.propagation import BagRows, TorchSparseRows

    where = choose_device(device)
    settle: Callable[[], None] = torch.cuda.synchronize if where.type == "cuda" else lambda: None
    adjacency = graph.symmetric_normalisation(graph.bipartite_adjacency(load_dataset(dataset).interactions(TRAIN)))
    dense = np.random.default_rng(0).standard_normal((adjacency.shape[0], width), dtype=np.float32)
    embeddings = torch.from_numpy(dense).to(where)
    products: dict[str, Callable[[], object]] = {
        "embedding_bag": partial(BagRows(adjacency, where).product, embeddings),
        "torch.sparse csr": partial(TorchSparseRows(adjacency, where).product, embeddings),
        "scipy csr": lambda: adjacency @ dense,
    }
    milliseconds = {name: _median_ms(product, repeats, settle) for name, product in products.items()}
    if json_:
        output.print_json({"device": where.type, "threads": torch.get_num_threads(), "milliseconds": milliseconds})
        return
    best = min(milliseconds.values())
    rows = [(name, f"{value:.2f}", f"{value / best:.1f}") for name, value in milliseconds.items()]
    output.print_table(
        f"{adjacency.nnz} non-zeros, width {width}, {where.type}, {torch.get_num_threads()} threads",
        ("product", "ms", "x the fastest"),
        rows,
    )


@app.command()
def encoders(
    dataset: Annotated[
        Path, typer.Argument(help="Dataset directory whose words are encoded already.", show_default=False)
    ],
    column: Annotated[str, typer.Option(help="What neighbours should share, split at '|'.", show_default=False)],
    held_out: Annotated[
        float, typer.Option(min=0, max=0.9, help="Share of the items that are judged; 0: all, learned from.")
    ] = 0.2,
    epochs: Annotated[int, typer.Option(min=1, help="Of the fitted network.")] = FIT_EPOCHS,
    seed: Annotated[int, typer.Option(min=0, max=MOST_SEED, help="Of the draw and the network.")] = 0,
    json_: output.JsonOption = False,
) -> None:
    """Whether near pictures share more by a fitted network than by colours, on items it did not learn from.

    Beside it the features of pictures that the dataset has, where 'mts4mm encode' made them.
    """
    from trainer.cli.encoders import read_pictures_and_words
    from trainer.encoders.sources import read_items
    from trainer.measurement.encoders import compare_encoders

    items = read_items(dataset)
    (found,) = items.columns([column]) or [""]
    if not found:
        raise UserError(f"{dataset}: the items table has no column {column}")
    values = [frozenset(part for part in str(record.get(found) or "").split("|") if part) for record in items.records]
    pixels, words = read_pictures_and_words(dataset, ["image"])
    started = time.perf_counter()
    with output.progress_bars() as bars:
        task = bars.add_task("fitting the network", total=1, note="")
        comparison = compare_encoders(
            pixels,
            words,
            values,
            held_out=held_out,
            seed=seed,
            epochs=epochs,
            features=_encoded_pictures(dataset),
            progress=lambda done, total: bars.update(task, completed=done, total=total),
        )
    seconds = time.perf_counter() - started
    if json_:
        output.print_json({**asdict(comparison), "seconds": seconds})
        return
    rows = [(name, f"{each.any_shared:.4f}", f"{each.jaccard:.4f}") for name, each in comparison.sharing.items()]
    title = (
        f"10 nearest of {comparison.judged} items; the network learned from {comparison.learned_from}, {seconds:.0f} s"
    )
    output.print_table(title, ("neighbours by", f"share a value of {found}", "mean Jaccard"), rows)


def _encoded_pictures(dataset: Path) -> "dict[str, NDArray[np.float32]]":
    """The image features of a dataset by their encoder's name; empty where no encoder made them."""
    import numpy as np

    from trainer.encoders.features_manifest import features_path, read_manifest

    manifest = read_manifest(dataset, "image")
    if manifest is None:
        return {}
    features = np.load(features_path(dataset, "image"), allow_pickle=False)
    return {f"image_feat.npy, by {manifest.described['name']}": features}


@app.command("fold-in")
def fold_in(
    dataset: Annotated[Path, typer.Argument(help="Dataset directory.", show_default=False)],
    recipe: Annotated[str, typer.Option(help="A packaged recipe or a YAML file.")] = "default",
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Set one value of the recipe; repeatable."),
    ] = None,
    share: Annotated[float, typer.Option(min=0.001, max=0.5, help="Of the users, to hold out.")] = 0.1,
    seed: Annotated[int, typer.Option(min=0, max=MOST_SEED, help="Of the sample and of both trainings.")] = 0,
    json_: output.JsonOption = False,
) -> None:
    """Users folded in from their items, against the same users trained; two trainings."""
    from trainer.cli.training import train_and_publish
    from trainer.dataset import load_dataset
    from trainer.measurement.fold_in import measure_fold_in
    from trainer.recipe import load_recipe

    chosen = load_recipe(recipe, set_ or [])
    with output.reading(dataset) as progress:
        data = load_dataset(dataset, progress=progress)
    with tempfile.TemporaryDirectory(prefix="mts4mm-bench-") as store:
        loss = measure_fold_in(data, share, seed, lambda part: train_and_publish(part, chosen, seed, Path(store))[0])
    kept = loss.folded_in["recall@20"] / loss.trained["recall@20"]
    if json_:
        output.print_json({**asdict(loss), "kept": kept})
        return
    rows = [
        (name, *(f"{figures[metric]:.4f}" for metric in METRICS))
        for name, figures in (("trained", loss.trained), ("folded in", loss.folded_in), ("their mean", loss.mean))
    ]
    output.print_table(f"{data.name}, {loss.users} users held out, test", ("embeddings", *METRICS), rows)
    output.stdout.print(f"folding in keeps {kept:.1%} of recall@20", highlight=False)


@app.command()
def cold(
    dataset: Annotated[Path, typer.Argument(help="Dataset directory with features.", show_default=False)],
    recipe: Annotated[str, typer.Option(help="A packaged recipe or a YAML file.")] = "default",
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Set one value of the recipe; repeatable."),
    ] = None,
    share: Annotated[float, typer.Option(min=0.001, max=0.5, help="Of the items, to hold out.")] = 0.1,
    seed: Annotated[int, typer.Option(min=0, max=MOST_SEED, help="Of the items held out and of the training.")] = 0,
    puts: Annotated[int, typer.Option(min=0, help="Held-out items to put into a running service; 0 starts none.")] = 20,
    json_: output.JsonOption = False,
) -> None:
    """Items nobody has taken yet: found by the tower, by neighbours, by content alone; and how soon after a PUT."""
    from trainer.cli.training import train_and_publish
    from trainer.dataset import load_dataset
    from trainer.measurement.cold_items import measure_cold_items
    from trainer.measurement.cold_split import hold_items_out
    from trainer.measurement.put_time import put_seconds
    from trainer.recipe import load_recipe

    chosen = load_recipe(recipe, set_ or [])
    with output.reading(dataset) as progress:
        data = load_dataset(dataset, progress=progress)
    with tempfile.TemporaryDirectory(prefix="mts4mm-bench-") as folder:
        store = Path(folder)
        found = measure_cold_items(data, share, seed, lambda part: train_and_publish(part, chosen, seed, store)[0])
        seconds = put_seconds(store, hold_items_out(data, share, seed), puts) if puts else []
    if json_:
        output.print_json({"dataset": data.name, "seed": seed, **asdict(found), "put_seconds": seconds})
        return
    rows = [("random", f"{found.random:.4f}", "", "")]
    for name, among_cold in found.among_cold.items():
        among_all, warm = found.among_all.get(name), found.warm_with.get(name)
        shown = "" if warm is None else f"{warm:.4f} ({warm / found.warm - 1:+.1%})"
        rows.append((name, f"{among_cold:.4f}", "" if among_all is None else f"{among_all:.4f}", shown))
    title = f"{data.name}, {found.items} items held out, {found.users} users, recall@20; the others' {found.warm:.4f}"
    output.print_table(title, ("way", "among held-out", "among all", "the others', with them"), rows)
    if seconds:
        words = f"from PUT to found: median {statistics.median(seconds):.3f} s, at most {max(seconds):.3f} s"
        output.stdout.print(f"{words}, {len(seconds)} items", highlight=False)


@app.command()
def serve(
    items: Annotated[list[int] | None, typer.Option(min=100, help="Size of a catalogue; repeatable.")] = None,
    seconds: Annotated[
        float, typer.Option(min=1, help="How long each load takes; three times that for latency.")
    ] = 8.0,
    json_: output.JsonOption = False,
) -> None:
    """Recommendations a second by one process on one core, with and without Redis, beside what its parts allow."""
    from trainer.measurement.serving import measure_serving, require_wrk

    require_wrk()
    measured = []
    for size in items or SERVED_SIZES:
        output.say(f"measuring {size} items")
        measured.append(measure_serving(size, seconds))
    if json_:
        output.print_json([asdict(each) for each in measured])
        return
    rows = []
    for each in measured:
        search, trip = f"{1e6 * each.search_seconds:.0f}", f"{1e6 * each.round_trip_seconds:.0f}"
        rows.append((each.items, "echo", "", "", *_served_cells(each.echo)))
        for what, parts, served, allowed in (
            ("model", (search, ""), each.alone, each.allowed_alone),
            ("Redis", (search, trip), each.with_state, each.allowed_with_state),
        ):
            shares = f"{served.capacity / each.echo.capacity:.2f}", f"{served.capacity / allowed:.2f}"
            rows.append((each.items, what, *parts, *_served_cells(served, *shares)))
    columns = ("items", "what", "search us", "trip us", "served/s", "of echo", "of parts", "p50 ms", "p99 ms")
    output.print_table(
        "one process on one core; latency of a typical second at 70% of capacity, open loop", columns, rows
    )
    most = max(served.load_stood_still for each in measured for served in (each.echo, each.alone, each.with_state))
    output.say(f"the load itself stood still for up to {most:.1%} of a measurement's time, which is not counted")


def _served_cells(served: "Served", of_echo: str = "", of_parts: str = "") -> tuple[str, ...]:
    return f"{served.capacity:.0f}", of_echo, of_parts, f"{served.p50_ms:.2f}", f"{served.p99_ms:.2f}"


def _print_figures(title: str, figures: dict[str, list[dict[str, float]]], as_json: bool) -> None:
    if as_json:
        output.print_json(figures)
        return
    rows = []
    for who, runs in figures.items():
        cells = [
            f"{statistics.median(run[metric] for run in runs):.4f} "
            f"[{min(run[metric] for run in runs):.4f}, {max(run[metric] for run in runs):.4f}]"
            for metric in METRICS
        ]
        rows.append((who, *cells))
    output.print_table(title, ("median [min, max]", *METRICS), rows)


def _median_ms(call: Callable[[], object], repeats: int, settle: Callable[[], None] = lambda: None) -> float:
    call()
    timings = []
    for _ in range(repeats):
        settle()
        started = time.perf_counter()
        call()
        settle()
        timings.append(1e3 * (time.perf_counter() - started))
    return statistics.median(timings)
