"""Which index to serve a model with: each kind is built and measured on the model's own items and users.

The exact index is as fast as it is exact; on a small catalogue nothing is gained by leaving it. So another kind is
chosen only where it finds ``REQUIRED_RECALL`` of the exact best items and is faster by a wide margin.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import faiss
import numpy as np
from numpy.typing import NDArray

from shared.index import files, report
from shared.index.approximate import ApproximateIndex
from shared.index.exact import ExactIndex
from shared.index.kinds import FLAT, KINDS, Kind
from shared.index.report import REQUIRED_RECALL, Candidate, IndexReport
from shared.index.searchers import Effort

K = 20
FEWEST_ITEMS = 256
QUERIES = 256
QUERIES_WHERE_ALL_IS_FAST = 48
"""So many are enough where the exact index is so fast that no other could win."""
TIMED_QUERIES = 64
LONGEST_BUILD_SECONDS = 600.0
LEAST_SPEED_UP = 2.0
LEAST_GAIN_MICROSECONDS = 100.0
_TRIAL_ITEMS = 20_000
_NOTHING = np.empty(0, dtype=np.int64)

Vectors = NDArray[np.float32]
Progress = Callable[[str], None]


class Comparison:
    """The exact index over some items, and queries whose best items it knows."""

    def __init__(self, items: Vectors, queries: Vectors) -> None:
        """Compare over ``items``, float32 [items, width], by ``queries``, float32 [n, width]."""
        self.items = items
        self.queries = queries
        self.exact = ExactIndex(items)
        self.best = self.exact.top_k_of_many(queries, K)

    def flat(self) -> Candidate:
        """The exact index as a candidate."""
        with single_threaded():
            return Candidate(kind=FLAT, recall=1.0, microseconds=self.microseconds(self.exact))

    def measure(self, kind: Kind, path: Path) -> Candidate:
        """Build an index, write it to ``path``, and measure it as the service would read it.

        Returns:
            The candidate with the least effort that is enough, or with the most there is; or with a remark why it
            has no figures.
        """
        expected = self._expected_build_seconds(kind)
        if expected > LONGEST_BUILD_SECONDS:
            return Candidate(kind=kind.name, remark=f"would take {expected:.0f} s to build")
        started = time.perf_counter()
        try:
            files.write(kind.build(self.items), path)
        except RuntimeError as error:
            return Candidate(kind=kind.name, remark=f"cannot be built: {str(error).rpartition('Error: ')[2]}")
        seconds = time.perf_counter() - started
        index = files.read(path, kind, *self.items.shape)
        with single_threaded():
            figures = [self._figures(kind, index, refine) for refine in kind.refines]
        enough = [candidate for candidate in figures if candidate.recall >= REQUIRED_RECALL]
        if enough:
            best = min(enough, key=lambda candidate: candidate.microseconds)
        else:
            best = max(figures, key=lambda candidate: candidate.recall)
        return best.model_copy(
            update={"bytes_per_item": path.stat().st_size / len(self.items), "build_seconds": seconds}
        )

    def recall(self, index: ApproximateIndex) -> float:
        """The share of the exact best items that an index finds."""
        found = [
            np.isin(index.top_k(query, K, _NOTHING).items, best.items).sum()
            for query, best in zip(self.queries, self.best, strict=True)
        ]
        return float(np.sum(found) / sum(len(best.items) for best in self.best))

    def microseconds(self, index: ExactIndex | ApproximateIndex) -> float:
        """The median of single queries, after a first one that does not count."""
        seconds = []
        for query in self.queries[: TIMED_QUERIES + 1]:
            started = time.perf_counter()
            index.top_k(query, K, _NOTHING)
            seconds.append(time.perf_counter() - started)
        return float(1e6 * np.median(seconds[1:] or seconds))

    def _figures(self, kind: Kind, index: faiss.Index, refine: int) -> Candidate:
        """The least depth that is enough, by bisection, or the most there is."""
        searcher = kind.searcher(index)
        efforts = [Effort(depth, refine) for depth in kind.depths]
        tried = [ApproximateIndex(self.exact, kind.name, searcher, effort) for effort in efforts]
        low, high = 0, len(tried) - 1
        recall = self.recall(tried[high])
        while low < high and recall >= REQUIRED_RECALL:
            middle = (low + high) // 2
            reached = self.recall(tried[middle])
            if reached >= REQUIRED_RECALL:
                high, recall = middle, reached
            else:
                low = middle + 1
        return Candidate(
            kind=kind.name,
            depth=efforts[high].depth,
            refine=refine,
            recall=recall,
            microseconds=self.microseconds(tried[high]),
        )

    def _expected_build_seconds(self, kind: Kind) -> float:
        """By the time that a part of the items takes, where all are many."""
        if len(self.items) < 5 * _TRIAL_ITEMS:
            return 0.0
        started = time.perf_counter()
        kind.build(self.items[:_TRIAL_ITEMS])
        return (time.perf_counter() - started) * len(self.items) / _TRIAL_ITEMS


def choose_index(
    items: Vectors,
    users: Vectors,
    seed: int,
    folder: Path,
    on_progress: Progress | None = None,
    kinds: Sequence[str] = tuple(KINDS),
) -> dict[str, bytes | Path]:
    """Measure kinds of index and choose one.

    Args:
        items: float32 [items, width].
        users: float32 [users, width], of which a sample asks.
        seed: of the sample.
        folder: for files.
        on_progress: told what is being done.
        kinds: that are measured besides the exact one.

    Returns:
        The attachments of an artefact that serves with the chosen one: the report, and the index, in ``folder``,
        where that is not the exact one.
    """
    sample = np.random.default_rng(seed).permutation(len(users))
    few = Comparison(items, users[np.sort(sample[:QUERIES_WHERE_ALL_IS_FAST])])
    flat = few.flat()
    undecided = flat.microseconds > LEAST_GAIN_MICROSECONDS * LEAST_SPEED_UP / (LEAST_SPEED_UP - 1)
    compared = Comparison(items, users[np.sort(sample[:QUERIES])]) if undecided else few
    chosen, measured = flat, [flat]
    if len(items) >= FEWEST_ITEMS:
        for name in kinds:
            if on_progress is not None:
                on_progress(f"measuring the index {name}")
            candidate = compared.measure(KINDS[name], folder / "candidate")
            measured.append(candidate)
            if is_better(candidate, chosen, flat):
                chosen = candidate
                (folder / "candidate").replace(folder / files.INDEX)
    document = IndexReport(
        chosen=chosen,
        reason=_reason(chosen, flat, len(items)),
        candidates=tuple(measured),
        items=len(items),
        width=items.shape[1],
        queries=len(compared.queries),
    )
    attached: dict[str, bytes | Path] = {files.REPORT: report.encode(document)}
    return attached if chosen is flat else {**attached, files.INDEX: folder / files.INDEX}


def is_better(candidate: Candidate, than: Candidate, flat: Candidate) -> bool:
    """Whether to serve with a candidate rather than with another one."""
    if candidate.remark is not None or candidate.recall < REQUIRED_RECALL:
        return False
    gain = flat.microseconds - candidate.microseconds
    if gain < LEAST_GAIN_MICROSECONDS or flat.microseconds < LEAST_SPEED_UP * candidate.microseconds:
        return False
    return candidate.microseconds < than.microseconds


def _reason(chosen: Candidate, flat: Candidate, items: int) -> str:
    if items < FEWEST_ITEMS:
        return f"fewer than {FEWEST_ITEMS} items: no other kind was measured"
    if chosen is flat:
        return (
            f"no other kind finds {REQUIRED_RECALL:.0%} of the exact best {K}, is {LEAST_SPEED_UP:g} times as fast "
            f"and saves {LEAST_GAIN_MICROSECONDS:g} microseconds a query"
        )
    return (
        f"finds {chosen.recall:.2%} of the exact best {K} and is {flat.microseconds / chosen.microseconds:.1f} times "
        "as fast as the exact index, more than any other kind"
    )


@contextmanager
def single_threaded() -> Iterator[None]:
    """One thread for faiss, as in a worker of the service."""
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(threads)
