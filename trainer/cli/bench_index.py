"""``mts4mm bench index``: how the kinds of index compare, and how that grows with the catalogue."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from shared.errors import UsageError
from trainer.cli import output

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from shared.index.report import Candidate

SIZES = (20_000, 200_000, 1_000_000, 5_000_000)
COLUMNS = ("recall@20", "us/query", "x flat", "build s", "bytes/item", "depth", "refine")


def index(
    sizes: Annotated[
        list[int] | None,
        typer.Option(
            "--items", min=256, help="Items of a synthetic catalogue; repeatable. 20k to 5M.", show_default=False
        ),
    ] = None,
    kinds: Annotated[
        list[str] | None, typer.Option("--kind", help="Only this kind, besides flat; repeatable.", show_default=False)
    ] = None,
    width: Annotated[int, typer.Option(min=2, help="Of synthetic embeddings.")] = 64,
    model: Annotated[
        Path | None, typer.Option(help="A version's folder: measure on its items and users instead.")
    ] = None,
    queries: Annotated[int, typer.Option(min=1, help="How many users ask.")] = 256,
    seed: Annotated[int, typer.Option(min=0, help="Of the embeddings and of the sample.")] = 0,
    json_: output.JsonOption = False,
) -> None:
    """Recall@20, microseconds a query on one thread, build time and bytes an item, against the exact index."""
    from shared.index.kinds import KINDS

    for kind in kinds or ():
        if kind not in KINDS:
            raise UsageError(f"--kind {kind}: there is {', '.join(KINDS)}")
    if model is not None and sizes:
        raise UsageError("--items: goes with synthetic embeddings, not with --model")
    document = []
    for size in [0] if model is not None else sizes or SIZES:
        items, users = _of_model(model, queries, seed) if model is not None else _made(size, queries, width, seed)
        figures, batched = _measure(items, users, kinds or list(KINDS))
        title = f"{len(items):,} items, width {items.shape[1]}, {len(users)} users"
        document.append(_document(title, items, figures, batched))
        if not json_:
            _print(f"{title}; flat in batches: {batched:.0f} us a query", figures)
    if json_:
        output.print_json(document)


def _made(size: int, queries: int, width: int, seed: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    from trainer.measurement.vectors import synthetic_vectors

    with output.stderr.status(f"making {size:,} items"):
        return synthetic_vectors(size, queries, width, seed)


def _of_model(folder: Path, queries: int, seed: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    import numpy as np

    from shared import artifact

    loaded = artifact.load_path(folder)
    active = np.flatnonzero(np.diff(loaded.train_indptr))
    sample = np.random.default_rng(seed).permutation(active)[:queries]
    return loaded.item_embeddings, np.ascontiguousarray(loaded.user_embeddings[np.sort(sample)])


def _measure(items: NDArray[np.float32], users: NDArray[np.float32], kinds: list[str]) -> tuple[list[Candidate], float]:
    from shared.index.kinds import KINDS
    from trainer.index_choice import Comparison, K, single_threaded

    with tempfile.TemporaryDirectory(prefix="mts4mm-bench-") as folder, output.stderr.status("") as status:
        status.update(f"{len(items):,} items: flat")
        compared = Comparison(items, users)
        with single_threaded():
            started = time.perf_counter()
            compared.exact.top_k_of_many(users, K)
            batched = 1e6 * (time.perf_counter() - started) / len(users)
        figures = [compared.flat()]
        for kind in kinds:
            status.update(f"{len(items):,} items: {kind}")
            figures.append(compared.measure(KINDS[kind], Path(folder) / "index"))
            output.say(_told(figures[-1], figures[0]))
    return figures, batched


def _told(candidate: Candidate, flat: Candidate) -> str:
    if candidate.remark is not None:
        return f"{candidate.kind}: {candidate.remark}"
    return f"{candidate.kind}: recall {candidate.recall:.4f}, {flat.microseconds / candidate.microseconds:.1f} x flat"


def _document(title: str, items: NDArray[np.float32], figures: list[Candidate], batched: float) -> dict[str, object]:
    return {
        "title": title,
        "items": len(items),
        "width": items.shape[1],
        "flat_batched_microseconds": batched,
        "kinds": [
            {**candidate.model_dump(), "times_flat": figures[0].microseconds / candidate.microseconds}
            if candidate.remark is None
            else candidate.model_dump()
            for candidate in figures
        ],
    }


def _print(title: str, figures: list[Candidate]) -> None:
    flat = figures[0]
    rows = []
    for candidate in figures:
        if candidate.remark is not None:
            rows.append((f"{candidate.kind}: {candidate.remark}", *[""] * len(COLUMNS)))
            continue
        rows.append(
            (
                candidate.kind,
                f"{candidate.recall:.4f}",
                f"{candidate.microseconds:.0f}",
                f"{flat.microseconds / candidate.microseconds:.1f}",
                f"{candidate.build_seconds:.1f}",
                f"{candidate.bytes_per_item:.0f}",
                f"{candidate.depth:g}",
                str(candidate.refine),
            )
        )
    output.print_table(title, ("index", *COLUMNS), rows)
