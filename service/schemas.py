"""The requests and responses of the HTTP API, as OpenAPI shows them."""

import math
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, Literal, LiteralString, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    FiniteFloat,
    PlainValidator,
    PrivateAttr,
    ValidationError,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from service.filters import Between, Condition, OneOf
from service.queries import ItemReason, Query, Reason, Strategy
from service.recent import NOTHING, SinceTraining
from shared.events import Event

DEFAULT_K = 20
MAX_K = 500
MAX_ITEMS = 1_000
MAX_CONDITIONS = 20
MAX_USERS = 1_000
MAX_LISTED = 50_000
MAX_EXPLAINED = 20_000
MAX_EVENTS = 1_000
MAX_WEIGHT = 100
MAX_ATTRIBUTES = 200
MAX_METADATA = 32 * 1024
MAX_FEATURES = 65_536

ItemId = Annotated[str, Field(min_length=1)]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


def _one_of(kinds: LiteralString) -> WrapValidator:
    """Say once what a value may be, and not of each kind that it is not of that kind."""

    def judged(value: object, handler: ValidatorFunctionWrapHandler) -> Any:
        try:
            return handler(value)
        except ValidationError:
            raise PydanticCustomError("kind", f"Input should be {kinds}") from None

    return WrapValidator(judged)


FilterValue = Annotated[str | bool | int | FiniteFloat, _one_of("a string, a boolean or a finite number")]


class InFilter(_Body):
    """The attribute is one of the values; of a list, one of its elements."""

    in_: list[FilterValue] = Field(alias="in", min_length=1, max_length=MAX_ITEMS)


class RangeFilter(_Body):
    """The attribute is a number between the bounds, which are included; at least one of them is given."""

    min: FiniteFloat | None = None
    max: FiniteFloat | None = None

    @model_validator(mode="after")
    def _has_a_bound(self) -> Self:
        if self.min is None and self.max is None:
            raise ValueError("give min, max or both")
        return self


def _by_kind(wanted: object, handler: ValidatorFunctionWrapHandler) -> Any:
    """Judge an object as the one kind of condition that it looks like."""
    if not isinstance(wanted, dict):
        return handler(wanted)
    return (InFilter if "in" in wanted else RangeFilter).model_validate(wanted)


FilterCondition = Annotated[
    FilterValue | InFilter | RangeFilter,
    _one_of("a string, a boolean, a finite number, or an object of `in`, or of `min` and `max`"),
    WrapValidator(_by_kind),
]


class Selection(_Body):
    """Which items are wanted, and in which order."""

    k: int = Field(DEFAULT_K, ge=1, le=MAX_K, description="How many items are wanted.")
    exclude_seen: bool = Field(
        True,
        description="Leave out what the user took in training and since, and the history. What the user hid or "
        "disliked is left out in any case.",
    )
    exclude_items: list[ItemId] = Field(
        default_factory=list, max_length=MAX_ITEMS, description="Further items to leave out."
    )
    filter: dict[str, FilterCondition] = Field(
        default_factory=dict,
        max_length=MAX_CONDITIONS,
        description="By attribute of the items table: a value that it equals, `in` a list of values, or a number "
        "from `min` to `max`. An item must meet all conditions; where an attribute is a list, one element must.",
    )
    diversity: FiniteFloat = Field(
        0.0, ge=0, le=1, description="Maximal marginal relevance: 0 ranks by score alone, 1 by unlikeness alone."
    )
    at_most: dict[str, Annotated[int, Field(ge=1, le=MAX_K)]] = Field(
        default_factory=dict,
        max_length=MAX_CONDITIONS,
        description="By attribute of the items table, how many items with the same value there may be; the next best "
        "are taken instead. An item whose attribute is a list counts for each element, one without the attribute for "
        "nothing. There may be fewer than `k` items then.",
    )
    weights: dict[str, Annotated[FiniteFloat, Field(ge=0, le=MAX_WEIGHT)]] = Field(
        default_factory=dict,
        max_length=MAX_CONDITIONS,
        description="A factor by part of the user's vector, 1 where none is given: `id` (who took what), `shared` "
        "(what the content views agree on), each modality by its name (what it alone says), `linear` (what is taken "
        "together).",
    )
    explain: bool = Field(False, description="Add to each item what its score is the sum of.")

    def query(self, user_id: str | None, history: Sequence[str] = (), since: SinceTraining = NOTHING) -> Query:
        """Say to the engine what is wanted for one user."""
        return Query(
            user_id=user_id,
            history=history,
            k=self.k,
            exclude_seen=self.exclude_seen,
            exclude_items=self.exclude_items,
            filter={name: _condition(wanted) for name, wanted in self.filter.items()},
            diversity=self.diversity,
            at_most=self.at_most,
            weights=self.weights,
            explain=self.explain,
            since=since,
        )


class RecommendRequest(Selection):
    """Who wants recommendations, and which."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"user_id": "u42", "k": 20},
                {"history": ["i7", "i12"], "filter": {"category": "mugs", "price": {"max": 30}}, "diversity": 0.3},
            ]
        }
    )

    user_id: str | None = Field(
        None,
        min_length=1,
        description="The user's id as in the training data. A string, also where it is made of digits.",
    )
    history: list[ItemId] = Field(
        default_factory=list,
        max_length=MAX_ITEMS,
        description="What an anonymous visitor, or the user since the training, has taken; unknown items are ignored "
        "and named in the answer.",
    )

    @model_validator(mode="after")
    def _says_who(self) -> Self:
        if self.user_id is None and not self.history:
            raise ValueError("give user_id, history or both")
        return self


class BatchRequest(Selection):
    """Many users who want the same kind of recommendations."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"user_ids": ["u42", "u7"], "k": 10}]})

    user_ids: list[Annotated[str, Field(min_length=1)]] = Field(
        min_length=1,
        max_length=MAX_USERS,
        description=f"Times `k` they may be {MAX_LISTED:,} items, or {MAX_EXPLAINED:,} with `explain`.",
    )

    @field_validator("user_ids")
    @classmethod
    def _fit_one_answer(cls, user_ids: list[str], others: ValidationInfo) -> list[str]:
        k, explain = others.data.get("k"), others.data.get("explain")
        most = MAX_EXPLAINED if explain else MAX_LISTED
        if k is not None and len(user_ids) * k > most:
            how = " with `explain`" if explain else ""
            raise ValueError(
                f"{len(user_ids)} users of {k} items each are more than {most:,} items{how}: send fewer at once"
            )
        return user_ids


def _judged(row: object) -> Event | ValidationError:
    try:
        return Event.model_validate(row)
    except ValidationError as error:
        return error


class EventBatch(_Body):
    """What users did; each event is judged by itself, and a bad one keeps no good one out."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "events": [
                        {
                            "event_id": "6f9d1a0e-0b1c-4f57-9a83-0d2f6c1f8a11",
                            "user_id": "u42",
                            "item_id": "i7",
                            "type": "view",
                            "timestamp": "2026-11-22T23:15:01Z",
                        },
                        {
                            "event_id": "9f0f5b43-77aa-4f0e-8a0b-6d3c1a2b4c5d",
                            "user_id": "u42",
                            "item_id": "i9",
                            "type": "hide",
                            "timestamp": "2026-11-22T23:15:09Z",
                        },
                    ]
                }
            ]
        }
    )

    events: list[Annotated[Any, PlainValidator(_judged, json_schema_input_type=Event)]] = Field(
        min_length=1, max_length=MAX_EVENTS
    )
    _lone: bool = PrivateAttr(default=False)

    @property
    def judged(self) -> list[Event | ValidationError]:
        """Each event, or what is wrong with it."""
        return self.events

    @property
    def lone(self) -> bool:
        """Whether the event was the whole body."""
        return self._lone


def _batch(body: object) -> object:
    """Make a batch of a lone event."""
    if not isinstance(body, dict) or "events" in body:
        return body
    batch = EventBatch(events=[body])
    batch._lone = True
    return batch


Events = Annotated[EventBatch, BeforeValidator(_batch, json_schema_input_type=EventBatch | Event)]
"""One event, or a batch."""


class RejectedEvent(BaseModel):
    """An event that was not taken, and will not be if it is sent again as it is."""

    index: int = Field(description="Its place in the batch, from 0.")
    pointer: str = Field(description="A JSON pointer to what is wrong, as a fragment.")
    detail: str


class EventsResponse(BaseModel):
    """What became of the events; the three add up to those that were sent."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "accepted": 2,
                    "duplicates": 1,
                    "rejected": [
                        {
                            "index": 3,
                            "pointer": "#/events/3/timestamp",
                            "detail": "must not be more than a day in the future: check the unit and the clock",
                        }
                    ],
                }
            ]
        }
    )

    accepted: int = Field(description="Counted, and kept for the nightly training.")
    duplicates: int = Field(description="Their ids were counted before.")
    rejected: list[RejectedEvent]


class PartOfScore(BaseModel):
    """What one part of the user's vector adds to a score."""

    part: str
    score: float
    because: str | None = Field(description="The user's own item that this is owed to most.")


def _finite(metadata: dict[str, Any]) -> dict[str, Any]:
    """Refuse what JSON has no number for, and a client's encoder would make null of."""
    try:
        finite = _is_finite(metadata)
    except RecursionError:
        finite = False
    if not finite:
        raise PydanticCustomError("finite", "holds a number that is not finite, or is nested too deeply")
    return metadata


def _is_finite(value: object) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, dict):
        return all(map(_is_finite, value.values()))
    return not isinstance(value, list | tuple | set | frozenset) or all(map(_is_finite, value))


class PutItemRequest(_Body):
    """All that is known of an item; what an earlier request said of it is forgotten."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "metadata": {"title": "Green enamel mug", "category": "mugs", "price": 14.5},
                    "features": {"text": [0.12, -0.4, 0.33], "image": [0.8, 0.1]},
                },
                {
                    "metadata": {"title": "Green enamel mug", "description": "Holds 300 ml."},
                    "image": "/9j/4AAQSkZJRg==",
                },
            ]
        }
    )

    metadata: Annotated[dict[str, Any], AfterValidator(_finite)] = Field(
        default_factory=dict,
        max_length=MAX_ATTRIBUTES,
        description="As in a row of the items table; shown, filtered by, and, where the model has an encoder of words, "
        "read: its `title` and `description`, or what else `mts4mm encode` took the words from.",
    )
    features: dict[str, Annotated[list[FiniteFloat], Field(min_length=1, max_length=MAX_FEATURES)]] = Field(
        default_factory=dict,
        max_length=MAX_CONDITIONS,
        description="A feature vector by modality, of the width that the model was trained with; goes before what an "
        "encoder would make. Any of the model's modalities may be missing, but not all.",
    )
    image: Annotated[str, Field(min_length=1)] | None = Field(
        None, description="A picture, base64: JPEG, PNG, WebP, GIF or BMP, not animated."
    )


class PutItemResponse(BaseModel):
    """What became of an item."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "model_version": "20261122T231501Z-3fa9c1d2",
                    "item_id": "i7051",
                    "known": False,
                    "modalities": ["text", "image"],
                    "changed": "2026-11-23T08:15:02Z",
                }
            ]
        }
    )

    model_version: str
    item_id: str
    known: bool = Field(
        description="Whether the model knows it from the training: its vector then stays, its metadata are replaced."
    )
    modalities: list[str] = Field(description="By which its vector is made; none where the model knows it.")
    changed: datetime = Field(description="When it was put, by the clock of the user state.")


class RecommendedItem(BaseModel):
    """One item of the answer."""

    item_id: str
    score: float = Field(
        description="Personal and history: the inner product with the user's vector. Popular: the number of training "
        "interactions; trending: the same, each counting half as much with every 30 days. Similar items: the cosine. "
        "Comparable only within one answer."
    )
    rank: int = Field(ge=1, description="1 is the best.")
    metadata: dict[str, Any] | None = Field(
        None, description="What the catalogue says of the item, such as its title; null if there is none."
    )
    reason: ItemReason | None = Field(
        None,
        description="cold_item: it came after the training, and its vector is from its content alone; what an "
        "explanation says of it follows from that vector.",
    )
    explanation: list[PartOfScore] | None = Field(
        None,
        description="With `explain`: parts whose scores add up to the item's. Null where nothing is known of the user.",
    )


class RecommendResponse(BaseModel):
    """The best items first: k of them, or all that are eligible; by default none that the user has seen."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "recommendation_id": "0d6f1c0e5b2f4b8f9d8a6e0c5b1f7a21",
                    "model_version": "20261122T231501Z-3fa9c1d2",
                    "strategy": "personal",
                    "reason": "trained",
                    "user_id": "u42",
                    "unknown_items": [],
                    "items": [{"item_id": "i7", "score": 1.83, "rank": 1, "metadata": {"title": "Red striped mug"}}],
                }
            ]
        }
    )

    recommendation_id: str = Field(description="New for every answer; names it in logs and feedback.")
    model_version: str
    strategy: Strategy = Field(
        description="personal: by the student's embedding of the user. history: by what the history says. trending: "
        "the most popular items lately, as nothing is known of the user. popular: the same by all training "
        "interactions, of which the model has no times."
    )
    reason: Reason = Field(
        description="trained: the user was in the training. trained_and_new_events: and has taken more since. "
        "folded_in: known by the history or by recent events alone. unknown_user: no such user, no history, no event. "
        "no_events: none of these has an item that the model knows."
    )
    degraded: bool = Field(
        False,
        description="Whether the user's recent events could not be read, so that the answer is the model's alone, or "
        "the retired items have not been read since the service began, so that they are those last known.",
    )
    user_id: str | None
    unknown_items: list[str] = Field(description="Items of the history that the model does not know, and ignored.")
    items: list[RecommendedItem]


class BatchResponse(BaseModel):
    """An answer for each user, in the order of the request."""

    recommendations: list[RecommendResponse]


class SimilarResponse(BaseModel):
    """The items most like one, most like first."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "model_version": "20261122T231501Z-3fa9c1d2",
                    "item_id": "i7",
                    "by": "image",
                    "items": [{"item_id": "i9", "score": 0.93, "rank": 1, "metadata": {"title": "Red dotted mug"}}],
                }
            ]
        }
    )

    model_version: str
    item_id: str
    by: str = Field(description="What they were compared by.")
    items: list[RecommendedItem]


class ItemResponse(BaseModel):
    """What the model knows of an item."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "model_version": "20261122T231501Z-3fa9c1d2",
                    "item_id": "i7",
                    "popularity": 112,
                    "metadata": {"title": "Red striped mug", "category": "mugs"},
                }
            ]
        }
    )

    model_version: str
    item_id: str
    popularity: int = Field(description="Its training interactions.")
    metadata: dict[str, Any] | None


class RecentEvent(BaseModel):
    """What a user did with an item since the training, or shortly before."""

    item_id: str
    type: str
    timestamp: datetime
    weight: float | None


class UserResponse(BaseModel):
    """What is known of a user."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "model_version": "20261122T231501Z-3fa9c1d2",
                    "user_id": "u42",
                    "trained": True,
                    "items": ["i3", "i7"],
                    "recent": [{"item_id": "i9", "type": "view", "timestamp": "2026-11-23T08:12:44Z", "weight": None}],
                    "hidden": ["i11"],
                }
            ]
        }
    )

    model_version: str
    user_id: str
    trained: bool = Field(description="Whether the model was trained with the user.")
    items: list[str] = Field(description="The items of the training interactions.")
    recent: list[RecentEvent] = Field(description="The newest events, newest first; the training may have had them.")
    hidden: list[str] = Field(description="The items that the user does not want to see.")


class ForgottenResponse(BaseModel):
    """That a user is forgotten, and since when."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"user_id": "u42", "forgotten_at": "2026-11-23T08:15:02Z"}]}
    )

    user_id: str
    forgotten_at: datetime = Field(
        description="No answer uses what is from before, and the next training leaves it out."
    )


class RetiredResponse(BaseModel):
    """Whether an item is retired: in no answer, as long as it is not restored."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"item_id": "i7", "retired": True}]})

    item_id: str
    retired: bool


class ModelVersion(BaseModel):
    """A version in the models folder. What cannot be read of it is null."""

    version: str
    current: bool = Field(description="Whether it is the one to serve.")
    live: bool = Field(description="Whether it is the one that this process answers from.")
    created: datetime | None
    metrics: dict[str, float] | None
    gate: dict[str, Any] | None = Field(description="The verdict of the nightly gate, if it went through it.")
    users: int | None
    items: int | None
    bytes: int | None
    damage: str | None = Field(description="What is wrong with it, as far as can be told without reading it whole.")


class ModelsResponse(BaseModel):
    """The versions in the models folder, oldest first."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "live": "20261122T231501Z-3fa9c1d2",
                    "refused": None,
                    "models": [
                        {
                            "version": "20261122T231501Z-3fa9c1d2",
                            "current": True,
                            "live": True,
                            "created": "2026-11-22T23:15:01Z",
                            "metrics": {"test.recall@20": 0.107, "test.ndcg@20": 0.0493},
                            "gate": {"verdict": "promoted"},
                            "users": 19445,
                            "items": 7050,
                            "bytes": 14680064,
                            "damage": None,
                        }
                    ],
                }
            ]
        }
    )

    live: str | None = Field(description="The version that this process answers from.")
    refused: str | None = Field(description="Why the current version is not live, if it is not.")
    models: list[ModelVersion]


class ActivationResponse(BaseModel):
    """Which model answers now, and which did before; other processes follow within two seconds."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"live": "20261122T231501Z-3fa9c1d2", "before": "20261121T231455Z-0b1c4f57"}]}
    )

    live: str
    before: str | None


class ProbeResponse(BaseModel):
    """Yes."""

    status: Literal["ok"]


class RefusedModel(BaseModel):
    """A version that was to be served, and why it is not."""

    version: str | None
    reason: str
    when: datetime


class HealthResponse(BaseModel):
    """Whether recommendations can be had, and from which model; null where there is none."""

    status: Literal["ok", "degraded", "unavailable"] = Field(
        description="degraded: there are recommendations, but not all that they should be made of; see `problems`."
    )
    problems: list[str] = Field(default_factory=list, description="What is wrong, a sentence each.")
    uptime_seconds: float
    model_version: str | None = None
    model_created: datetime | None = None
    model_age_seconds: float | None = None
    users: int | None = None
    items: int | None = None
    index: str | None = Field(None, description="The kind of index that is searched; `flat` is the exact one.")
    index_recall: float | None = Field(
        None, description="The share of the exact best items that the index found when it was loaded."
    )
    last_refusal: RefusedModel | None = Field(
        None, description="The version that should be live and is not, while that is so."
    )


class FieldProblem(BaseModel):
    """A part of the request that is wrong."""

    pointer: str = Field(description="A JSON pointer into the request body, as a fragment.")
    detail: str


class Problem(BaseModel):
    """An error as RFC 9457 has it, ``application/problem+json``."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "type": "about:blank",
                    "title": "Unprocessable Entity",
                    "status": 422,
                    "detail": "The request has 1 error.",
                    "instance": "/recommend",
                    "request_id": "5c9b2f7d9f0a4f7c8d2e1b3a4c5d6e7f",
                    "errors": [{"pointer": "#/k", "detail": "Input should be a valid integer"}],
                }
            ]
        }
    )

    type: str = Field("about:blank", description="The kind of problem; about:blank where the status says it.")
    title: str
    status: int
    detail: str
    instance: str = Field(description="The path that was asked for.")
    request_id: str = Field(description="As in the X-Request-ID header.")
    errors: list[FieldProblem] | None = None


def _condition(wanted: FilterCondition) -> Condition:
    if isinstance(wanted, InFilter):
        return OneOf(wanted.in_)
    if isinstance(wanted, RangeFilter):
        return Between(wanted.min, wanted.max)
    return OneOf([wanted])
