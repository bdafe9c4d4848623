"""What the trainer found out about kinds of index, and which one it chose: the attachment ``index.json``."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, NonNegativeInt, PositiveInt, ValidationError

from shared.errors import UserError

SCHEMA_VERSION = 1
REQUIRED_RECALL = 0.99
"""What an index must find of the best 20 items, over users, to be taken instead of the exact one."""

_Share = Annotated[float, Field(ge=0, le=1)]
_Figure = Annotated[FiniteFloat, Field(ge=0)]


class _Document(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Candidate(_Document):
    """A kind of index with the least effort that is enough, or with the most there is where none is.

    Attributes:
        kind: of :mod:`shared.index.kinds`.
        depth: of the effort; likewise ``refine``. See :class:`shared.index.searchers.Effort`.
        recall: the share of the exact best 20 items that it finds, over the sampled users.
        microseconds: of one query on one thread, at the median.
        bytes_per_item: besides the table of embeddings, which is there anyway.
        build_seconds: training included.
        remark: why there are no figures; None if there are.
    """

    kind: str
    depth: _Figure = 0.0
    refine: NonNegativeInt = 1
    recall: _Share = 0.0
    microseconds: _Figure = 0.0
    bytes_per_item: _Figure = 0.0
    build_seconds: _Figure = 0.0
    remark: str | None = None


class IndexReport(_Document):
    """The measurement behind the choice.

    Attributes:
        chosen: the candidate to serve with; ``flat`` has no file.
        reason: for the choice, in words.
        candidates: all of them, the exact one first.
        items: the rows of the table; likewise ``width``.
        queries: how many users were sampled.
    """

    schema_version: int = SCHEMA_VERSION
    chosen: Candidate
    reason: str
    candidates: tuple[Candidate, ...]
    items: PositiveInt
    width: PositiveInt
    queries: PositiveInt


def encode(report: IndexReport) -> bytes:
    """Write ``index.json``."""
    return report.model_dump_json(indent=2).encode() + b"\n"


def decode(content: bytes) -> IndexReport:
    """Read ``index.json``.

    Raises:
        UserError: it is not such a document.
    """
    try:
        report = IndexReport.model_validate_json(content)
    except ValidationError as error:
        first = error.errors()[0]
        raise UserError(f"{'.'.join(str(part) for part in first['loc']) or 'the document'}: {first['msg']}") from error
    if report.schema_version != SCHEMA_VERSION:
        raise UserError(f"its schema version is {report.schema_version}, and this build reads {SCHEMA_VERSION}")
    return report
