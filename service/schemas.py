"""The requests and responses of the HTTP API, as OpenAPI shows them."""

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from service.engine import Strategy

DEFAULT_K = 20
MAX_K = 500


class RecommendRequest(BaseModel):
    """Who wants recommendations, and how many."""

    model_config = ConfigDict(
        extra="forbid", strict=True, json_schema_extra={"examples": [{"user_id": "u42", "k": 20}]}
    )

    user_id: str = Field(
        min_length=1,
        description="The user's id as in the training data. A string, also where it is made of digits.",
    )
    k: int = Field(DEFAULT_K, ge=1, le=MAX_K, description="How many items are wanted.")


class RecommendedItem(BaseModel):
    """One item of the answer."""

    item_id: str
    score: float = Field(
        description="Personal: the inner product with the user. Popular: the number of training interactions. "
        "Comparable only within one answer."
    )
    rank: int = Field(ge=1, description="1 is the best.")
    metadata: dict[str, Any] | None = Field(
        None, description="What the catalogue says of the item, such as its title; null if there is none."
    )


class RecommendResponse(BaseModel):
    """Items the user has no training interaction with, best first: k of them, or all that are left."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "recommendation_id": "0d6f1c0e5b2f4b8f9d8a6e0c5b1f7a21",
                    "model_version": "20261122T231501Z-3fa9c1d2",
                    "strategy": "personal",
                    "user_id": "u42",
                    "items": [{"item_id": "i7", "score": 1.83, "rank": 1, "metadata": {"title": "Red striped mug"}}],
                }
            ]
        }
    )

    recommendation_id: str = Field(description="New for every answer; names it in logs and feedback.")
    model_version: str
    strategy: Strategy = Field(
        description="personal: ranked by the student. popular: the user is unknown, or has no training "
        "interaction, and gets the most popular items."
    )
    user_id: str
    items: list[RecommendedItem]


class HealthResponse(BaseModel):
    """Whether recommendations can be had, and from which model; null where there is none."""

    status: Literal["ok", "unavailable"]
    uptime_seconds: float
    model_version: str | None = None
    model_created: datetime | None = None
    model_age_seconds: float | None = None
    users: int | None = None
    items: int | None = None
    index: str | None = Field(None, description="The kind of index that is searched.")


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
