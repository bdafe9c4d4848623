"""Recommendations as JSON, as :class:`service.schemas.RecommendResponse` describes them.

They are written here and not by pydantic because it is most of what an answer costs: an item's metadata are copied as
the artefact has them, without being parsed, and what was just made is not checked again.
"""

import json
from collections.abc import Iterable
from dataclasses import asdict
from itertools import repeat

from service.live_table import Items
from service.queries import PartOfScore, RankedRows

_quoted = json.encoder.encode_basestring_ascii


def written(
    answer: RankedRows,
    items: Items,
    *,
    recommendation_id: str,
    model_version: str,
    user_id: str | None,
    degraded: bool,
) -> bytes:
    """Write the answer to one user; ``items`` are those of the engine that ranked them."""
    explanations: Iterable[list[PartOfScore] | None] = answer.explanations or repeat(None, len(answer.rows))
    head = (
        f'{{"recommendation_id":"{recommendation_id}","model_version":"{model_version}",'
        f'"strategy":"{answer.strategy}","reason":"{answer.reason}","degraded":{"true" if degraded else "false"},'
        f'"user_id":{"null" if user_id is None else _quoted(user_id)},'
        f'"unknown_items":{json.dumps(answer.unknown_items)},"items":['
    )
    ranked = zip(answer.rows, answer.scores, explanations, strict=True)
    listed = [_item(items, row, score, rank, explained) for rank, (row, score, explained) in enumerate(ranked, 1)]
    return b"%s%s]}" % (head.encode(), b",".join(listed))


def _item(items: Items, row: int, score: float, rank: int, explanation: list[PartOfScore] | None) -> bytes:
    reason = items.reason(row)
    return b'{"item_id":%s,"score":%s,"rank":%d,"metadata":%s,"reason":%s,"explanation":%s}' % (
        _quoted(items.outside(row)).encode(),
        repr(score).encode(),
        rank,
        items.metadata_json(row),
        b"null" if reason is None else b'"%s"' % reason.encode(),
        b"null" if explanation is None else json.dumps([asdict(part) for part in explanation]).encode(),
    )
