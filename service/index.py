"""The index that an artefact is served with: the one that the trainer chose, if it is what it is said to be.

Whatever is wrong with it, the exact index over the item embeddings is there to answer instead.
"""

import logging
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shared.artifact import Artifact
from shared.errors import UserError
from shared.index import files, report
from shared.index.approximate import ApproximateIndex
from shared.index.exact import ExactIndex
from shared.index.kinds import FLAT, KINDS
from shared.index.report import IndexReport
from shared.index.searchers import Effort

CANARY_USERS = 32
CANARY_K = 20
CANARY_RECALL = 0.97
"""Less than what the trainer requires, since the users asked are fewer."""

_NOTHING = np.empty(0, dtype=np.int64)
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class OpenedIndex:
    """An index and how it came to be the one.

    Attributes:
        index: to search with.
        recall: the share of the exact best items that it found just now; 1 for the exact index.
        fallback: why it is the exact one although the trainer chose another; None if it did not.
    """

    index: ExactIndex | ApproximateIndex
    recall: float = 1.0
    fallback: str | None = None


def open_index(artifact: Artifact) -> OpenedIndex:
    """Open the index that the artefact carries, try it out on some of its users, and use the exact one if it fails."""
    exact = ExactIndex(artifact.item_embeddings)
    try:
        index = _chosen(artifact, exact)
        if index is None:
            return OpenedIndex(exact)
        recall = _recall(index, exact, artifact)
        if recall < CANARY_RECALL:
            raise UserError(f"{index.kind} found {recall:.1%} of the exact best items")
    except UserError as error:
        _log.warning("model %s is searched exactly: its index %s", artifact.manifest.version, error)
        return OpenedIndex(exact, fallback=f"the index {error}")
    return OpenedIndex(index, recall)


def _chosen(artifact: Artifact, exact: ExactIndex) -> ApproximateIndex | None:
    """The index that the artefact's report chose; None if that is the exact one, or there is no report."""
    described = artifact.attachment(files.REPORT)
    if described is None:
        return None
    document = _read_report(described.read_bytes())
    kind = KINDS.get(document.chosen.kind)
    if document.chosen.kind == FLAT:
        return None
    path = artifact.attachment(files.INDEX)
    if kind is None or path is None:
        raise UserError(
            f"is of the kind {document.chosen.kind!r}, which {'is unknown' if kind is None else 'is missing'}"
        )
    index = files.read(path, kind, len(artifact.items), artifact.width)
    effort = Effort(document.chosen.depth, document.chosen.refine)
    return ApproximateIndex(exact, kind.name, kind.searcher(index), effort)


def _read_report(content: bytes) -> IndexReport:
    try:
        return report.decode(content)
    except UserError as error:
        raise UserError(f"has a report that cannot be read ({error})") from error


def _recall(index: ApproximateIndex, exact: ExactIndex, artifact: Artifact) -> float:
    queries = _canaries(artifact)
    best = exact.top_k_of_many(queries, CANARY_K)
    found = [index.top_k(query, CANARY_K, _NOTHING).items for query in queries]
    hits = sum(int(np.isin(items, ranking.items).sum()) for items, ranking in zip(found, best, strict=True))
    return hits / sum(len(ranking.items) for ranking in best)


def _canaries(artifact: Artifact) -> NDArray[np.float32]:
    """The vectors of users from all over the table, such as have training interactions if there are any."""
    users = np.flatnonzero(np.diff(artifact.train_indptr))
    if len(users) == 0:
        users = np.arange(len(artifact.users))
    spread = np.linspace(0, len(users) - 1, min(CANARY_USERS, len(users))).astype(np.int64)
    return np.ascontiguousarray(artifact.user_embeddings[users[spread]])
