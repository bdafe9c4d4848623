"""The live items as one model sees them: rows after its own, searched, filtered and named together with these.

A table is made for one artefact and never changes; another change of the live items is another table.
"""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.filters import Attributes, Condition, require_known, require_numbers
from service.queries import ItemReason
from shared.artifact import Artifact
from shared.index.approximate import ApproximateIndex
from shared.index.exact import ExactIndex
from shared.index.ranking import Asked, Ranking

_MOST_WRITTEN = 50_000
"""Items whose JSON is kept; those asked for most come first."""


@dataclass(frozen=True, eq=False)
class LiveTable:
    """Live items, made for one artefact.

    Attributes:
        ids: of the items that the artefact does not have, each once.
        vectors: float32 [ids, width].
        metadata: of each of them.
        changed: by row of the artefact, the metadata put for an item that it has.
        units: by modality the content as ``Lookalikes.units`` gives it, float32 [ids, its width].
    """

    ids: Sequence[str]
    vectors: NDArray[np.float32]
    metadata: Sequence[dict[str, Any]]
    changed: Mapping[int, dict[str, Any]] = field(default_factory=dict)
    units: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)

    @classmethod
    def empty(cls, width: int) -> "LiveTable":
        """No live items."""
        return cls((), np.empty((0, width), np.float32), ())


class Items:
    """The items of an artefact and, behind them, the live ones."""

    def __init__(self, artifact: Artifact, live: LiveTable) -> None:
        self._artifact = artifact
        self._live = live
        self.trained = len(artifact.items)
        self._rows = {item_id: self.trained + place for place, item_id in enumerate(live.ids)}
        self._written: dict[int, tuple[str, str]] = {}

    def __len__(self) -> int:
        return self.trained + len(self._live.ids)

    def dense(self, item_id: str) -> int | None:
        """The row of an item; None if there is none."""
        row = self._artifact.items.dense(item_id)
        return self._rows.get(item_id) if row is None else row

    def outside(self, row: int) -> str:
        """The id of a row."""
        return self._artifact.items.outside(row) if row < self.trained else self._live.ids[row - self.trained]

    def reason(self, row: int) -> ItemReason | None:
        """What is special about a row's item."""
        return "cold_item" if row >= self.trained else None

    def metadata(self, row: int) -> dict[str, Any] | None:
        """What is known of a row's item: what was put last, else what the artefact says."""
        if row >= self.trained:
            return self._live.metadata[row - self.trained]
        return self._live.changed[row] if row in self._live.changed else self._artifact.item_metadata(row)

    def put(self) -> list[int]:
        """The rows of what was put since the training, the live items last."""
        return [*self._live.changed, *range(self.trained, len(self))]

    def written(self, rows: list[int]) -> list[tuple[str, str]]:
        """What an answer says of each row's item, as JSON: what stands before the score, and what after the rank."""
        written = self._written
        return [written.get(row) or self._write(row) for row in rows]

    def _write(self, row: int) -> tuple[str, str]:
        reason = json.dumps(self.reason(row))
        written = (
            f'{{"item_id":{json.dumps(self.outside(row))},"score":',
            f',"metadata":{self._metadata_json(row)},"reason":{reason},"explanation":',
        )
        if len(self._written) < _MOST_WRITTEN:
            self._written[row] = written
        return written

    def _metadata_json(self, row: int) -> str:
        if row >= self.trained or row in self._live.changed:
            return json.dumps(self.metadata(row))
        found = self._artifact.item_metadata_json(row)
        return "null" if found is None else found.decode()

    def vectors(self, rows: NDArray[np.integer]) -> NDArray[np.float32]:
        """Vectors of rows, float32 [rows, width]."""
        if not len(self._live.ids):
            trained: NDArray[np.float32] = self._artifact.item_embeddings[rows]
            return trained
        rows = np.asarray(rows)
        vectors = np.empty((len(rows), self._live.vectors.shape[1]), np.float32)
        live = rows >= self.trained
        vectors[~live] = self._artifact.item_embeddings[rows[~live]]
        vectors[live] = self._live.vectors[rows[live] - self.trained]
        return vectors


class JoinedIndex:
    """The model's index, and the live items behind it: every one of these is scored, so the merge loses nothing."""

    def __init__(self, index: ExactIndex | ApproximateIndex, vectors: NDArray[np.float32]) -> None:
        """Join ``vectors``, float32 [live items, width], to an index."""
        self._index = index
        self._vectors = vectors
        self.kind = index.kind

    def __len__(self) -> int:
        return len(self._index) + len(self._vectors)

    def top_k(
        self,
        query: NDArray[np.float32],
        k: int,
        excluded: NDArray[np.integer],
        allowed: NDArray[np.bool_] | None = None,
    ) -> Ranking:
        """As the model's index does it, with the live items at the rows after its own."""
        best = self._index.top_k(query, k, *self._of_the_model(excluded, allowed))
        return self._merged(best, Asked(query, k, excluded), allowed)

    def top_k_of_each(self, asked: Sequence[Asked]) -> list[Ranking]:
        """As :meth:`top_k`, for several."""
        of_the_model = [each._replace(excluded=self._of_the_model(each.excluded, None)[0]) for each in asked]
        return [
            self._merged(best, each, None)
            for best, each in zip(self._index.top_k_of_each(of_the_model), asked, strict=True)
        ]

    def _of_the_model(
        self, excluded: NDArray[np.integer], allowed: NDArray[np.bool_] | None
    ) -> tuple[NDArray[np.integer], NDArray[np.bool_] | None]:
        trained = len(self._index)
        return excluded[excluded < trained], None if allowed is None else allowed[:trained]

    def _merged(self, best: Ranking, asked: Asked, allowed: NDArray[np.bool_] | None) -> Ranking:
        trained = len(self._index)
        eligible = np.ones(len(self._vectors), dtype=bool) if allowed is None else allowed[trained:].copy()
        eligible[asked.excluded[asked.excluded >= trained] - trained] = False
        rows = np.flatnonzero(eligible)
        scores = np.concatenate([best.scores, (self._vectors[rows] * asked.query.astype(np.float64)).sum(axis=1)])
        items = np.concatenate([best.items, rows + trained])
        order = np.lexsort((items, -scores))[: asked.k]
        return Ranking(items[order], scores[order])


class JoinedAttributes:
    """The attributes of the artefact's items as they are now, and of the live ones behind them."""

    def __init__(self, trained: Attributes, live: LiveTable) -> None:
        self._changed_rows = np.array(list(live.changed), dtype=np.int64)
        changed = list(live.changed.values())
        self._tables = (
            trained,
            Attributes(len(changed), changed.__getitem__),
            Attributes(len(live.ids), live.metadata.__getitem__),
        )

    def allowed(self, conditions: Mapping[str, Condition]) -> NDArray[np.bool_]:
        """As ``Attributes.allowed``, bool [items of the artefact + live items]."""
        self.require(conditions)
        require_numbers(conditions, lambda: set().union(*(table.numbers() for table in self._tables)))
        trained, changed, live = (table.meeting(conditions) for table in self._tables)
        trained[self._changed_rows] = changed
        return np.concatenate([trained, live])

    def require(self, names: Collection[str]) -> None:
        """As ``Attributes.require``."""
        require_known(names, lambda: set().union(*(table.names() for table in self._tables)))
