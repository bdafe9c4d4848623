"""Recommendations as JSON, as :class:`service.schemas.RecommendResponse` describes them.

They are written here and not by pydantic because it is most of what an answer costs: an item's metadata are copied as
the artefact has them, without being parsed, and what was just made is not checked again.
"""

import json
from itertools import count, repeat

from pydantic_core import to_json

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
    told = repeat("null") if answer.explanations is None else map(_explanation, answer.explanations)
    listed = [
        f'{before}{score},"rank":{rank}{after}{explanation}}}'
        for rank, score, (before, after), explanation in zip(
            count(1), _numbers(answer.scores), items.written(answer.rows), told, strict=False
        )
    ]
    return (
        f'{{"recommendation_id":"{recommendation_id}","model_version":"{model_version}",'
        f'"strategy":"{answer.strategy}","reason":"{answer.reason}","degraded":{"true" if degraded else "false"},'
        f'"user_id":{"null" if user_id is None else _quoted(user_id)},'
        f'"unknown_items":[{",".join(map(_quoted, answer.unknown_items))}],'
        f'"items":[{",".join(listed)}]}}'
    ).encode()


def _numbers(numbers: list[float]) -> list[str]:
    """Each number as JSON, five times as fast as by ``repr``."""
    return to_json(numbers).decode()[1:-1].split(",")


def _explanation(parts: list[PartOfScore]) -> str:
    return json.dumps([vars(part) for part in parts])
