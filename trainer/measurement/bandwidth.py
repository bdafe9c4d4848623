"""How near a propagation comes to the memory's speed, since it does little else than move embeddings."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import scipy.sparse as sp
import torch

from trainer.inputs import bipartite_propagator

COPIED_FLOATS = 2**27
_REPEATS = 5
_INDEX_BYTES, _WEIGHT_BYTES, _FLOAT_BYTES = 8, 4, 4


@dataclass(frozen=True)
class Bandwidth:
    """One propagation over the user-item graph beside a plain copy.

    How much a propagation moves depends on how often a row that is needed again is still in a cache; the truth lies
    between the two counts. Both have each edge's index and weight, and each row's offset and result.

    Attributes:
        propagation_ms: median time of ``graph @ embeddings``.
        least_mb: 10^6 bytes moved if every row is fetched once.
        most_mb: the same if every row is fetched anew for each neighbour.
        copy_gb_s: 10^9 bytes that a copy of 512 MB reads and writes a second.
        least_share: of ``least_mb`` over the propagation's time in ``copy_gb_s``; likewise ``most_share``, which
            caches lift above 1.
    """

    propagation_ms: float
    least_mb: float
    most_mb: float
    copy_gb_s: float
    least_share: float
    most_share: float


def measure_bandwidth(
    interactions: sp.csr_matrix, width: int, device: torch.device, settle: Callable[[], None] = lambda: None
) -> Bandwidth:
    """Time a propagation and a copy on the device.

    Args:
        interactions: Y, (users, items).
        width: of the embeddings.
        device: where to compute.
        settle: waits for work that was only queued.
    """
    nodes = sum(interactions.shape)
    propagator = bipartite_propagator(interactions, device)
    embeddings = torch.randn(nodes, width, device=device)
    seconds = _median_seconds(lambda: propagator(embeddings), settle)
    edges, row = 2 * interactions.nnz, width * _FLOAT_BYTES
    always = edges * (_INDEX_BYTES + _WEIGHT_BYTES) + nodes * (_INDEX_BYTES + row)
    least, most = always + nodes * row, always + edges * row
    copied = 2 * COPIED_FLOATS * _FLOAT_BYTES / _copy_seconds(device, settle)
    return Bandwidth(
        propagation_ms=1e3 * seconds,
        least_mb=least / 1e6,
        most_mb=most / 1e6,
        copy_gb_s=copied / 1e9,
        least_share=least / seconds / copied,
        most_share=most / seconds / copied,
    )


def _copy_seconds(device: torch.device, settle: Callable[[], None]) -> float:
    source = torch.zeros(COPIED_FLOATS, device=device)
    target = torch.zeros_like(source)
    return _median_seconds(lambda: target.copy_(source), settle)


def _median_seconds(call: Callable[[], object], settle: Callable[[], None]) -> float:
    timings = []
    for _ in range(_REPEATS + 1):
        settle()
        started = time.perf_counter()
        call()
        settle()
        timings.append(time.perf_counter() - started)
    return statistics.median(timings[1:])
