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
    ranked = zip(answer.rows, answer.scores, explanations, strict=True)
    listed = [_item(*items.written(row), score, rank, told) for rank, (row, score, told) in enumerate(ranked, 1)]
    return (
        f'{{"recommendation_id":"{recommendation_id}","model_version":"{model_version}",'
        f'"strategy":"{answer.strategy}","reason":"{answer.reason}","degraded":{"true" if degraded else "false"},'
        f'"user_id":{json.dumps(user_id)},"unknown_items":{json.dumps(answer.unknown_items)},'
        f'"items":[{",".join(listed)}]}}'
    ).encode()


def _item(id_: str, known: str, score: float, rank: int, explanation: list[PartOfScore] | None) -> str:
    told = "null" if explanation is None else json.dumps([asdict(part) for part in explanation])
    return f'{{"item_id":{id_},"score":{score!r},"rank":{rank},{known},"explanation":{told}}}'
