"""A typed client of the service: ``pip install 'mts4mm[client]'``.

    with Client("http://localhost:8000") as client:
        for item in client.recommend(RecommendRequest(user_id="u42", k=5)).items:
            print(item.rank, item.item_id, item.score)

Requests and answers are the models of ``service/schemas.py``; a wrong request is refused before it is sent.
"""

from collections.abc import Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import quote

import httpx2
from pydantic import BaseModel, ValidationError

from service.queries import STUDENT
from service.schemas import (
    DEFAULT_K,
    ActivationResponse,
    BatchRequest,
    BatchResponse,
    EventsResponse,
    ForgottenResponse,
    HealthResponse,
    ItemResponse,
    ModelsResponse,
    Problem,
    PutItemRequest,
    PutItemResponse,
    RecommendRequest,
    RecommendResponse,
    RetiredResponse,
    SimilarResponse,
    UserResponse,
)
from shared.events import Event, encode

Answer = TypeVar("Answer", bound=BaseModel)
OfItem = TypeVar("OfItem", ItemResponse, PutItemResponse, RetiredResponse, SimilarResponse)
OfUser = TypeVar("OfUser", UserResponse, ForgottenResponse)

_JSON = {"content-type": "application/json"}
_BATCH_SECONDS = 20.0
"""Somewhat more than the service gives itself."""
_SWITCH_SECONDS = 600.0
"""A model is read whole before it is served, and the service sets that no limit."""


class ServiceError(Exception):
    """The service answered with an error, or somebody else answered, such as a proxy.

    Attributes:
        status: of HTTP.
        problem: what it says; None if it is not a problem document, such as a proxy's page.
        retry_after_seconds: when to try again, if it says so.
    """

    def __init__(
        self,
        status: int,
        problem: Problem | None,
        retry_after_seconds: float | None,
        otherwise: str = "no problem document",
    ) -> None:
        """Say what the problem says, or ``otherwise`` what is wrong."""
        detail = otherwise if problem is None else problem.detail
        errors = [] if problem is None or problem.errors is None else problem.errors
        super().__init__(" ".join([f"{status}: {detail}", *(f"{each.pointer}: {each.detail}" for each in errors)]))
        self.status = status
        self.problem = problem
        self.retry_after_seconds = retry_after_seconds


class Client:
    """Speaks to one service over a pool of connections; safe from any number of threads.

    Every method raises ``ServiceError`` for an answer with an error, or one that is not the service's or about another
    id, and ``httpx2.TransportError`` for none. Ids that no path can hold, which are ``""``, ``"."`` and ``".."``, are a
    ``ValueError``, and nothing is sent.
    """

    def __init__(self, url: str, *, timeout_seconds: float = 5.0, http: httpx2.Client | None = None) -> None:
        """A client of the service at a URL.

        Args:
            url: such as ``http://localhost:8000``.
            timeout_seconds: of a request; a batch has 20 seconds at least, a switch to another model ten minutes.
            http: speaks HTTP, with timeouts of its own; one with these by default.
        """
        self._url = url.rstrip("/")
        self._timeout_seconds = None if http is not None else timeout_seconds
        self._http = http or httpx2.Client(timeout=timeout_seconds)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def recommend(self, request: RecommendRequest) -> RecommendResponse:
        """Recommend items to a user or a visitor."""
        return self._post("/recommend", request, RecommendResponse)

    def recommend_batch(self, request: BatchRequest) -> BatchResponse:
        """Recommend items to many users, all from one model."""
        return self._post("/recommend:batch", request, BatchResponse, **self._within(_BATCH_SECONDS))

    def record_events(self, events: Sequence[Event]) -> EventsResponse:
        """Record what users did, up to 1,000 events; those that cannot be taken are in the answer.

        Send the same events again after an error: what was recorded already does not count twice.
        """
        content = f'{{"events":[{",".join(map(encode, events))}]}}'
        return _read(self._http.post(f"{self._url}/events", content=content, headers=_JSON), EventsResponse)

    def similar(self, item_id: str, k: int = DEFAULT_K, by: str = STUDENT) -> SimilarResponse:
        """The items most like one: by the student, by ``id`` (who took them), or by a modality's content."""
        path, params = f"/items/{_segment(item_id)}/similar", {"k": k, "by": by}
        return _of_item(item_id, self._get(path, SimilarResponse, params=params))

    def item(self, item_id: str) -> ItemResponse:
        """What the model knows of an item."""
        return _of_item(item_id, self._get(f"/items/{_segment(item_id)}", ItemResponse))

    def put_item(self, item_id: str, request: PutItemRequest) -> PutItemResponse:
        """Add an item that can be recommended at once, or say anew what is known of one."""
        url, body = f"{self._url}/items/{_segment(item_id)}", request.model_dump_json(exclude_defaults=True)
        return _of_item(item_id, _read(self._http.put(url, content=body, headers=_JSON), PutItemResponse))

    def retire_item(self, item_id: str) -> RetiredResponse:
        """Take an item out of all answers."""
        return _of_item(item_id, _read(self._http.delete(f"{self._url}/items/{_segment(item_id)}"), RetiredResponse))

    def restore_item(self, item_id: str) -> RetiredResponse:
        """Take a retirement back."""
        url = f"{self._url}/items/{_segment(item_id)}:restore"
        return _of_item(item_id, _read(self._http.post(url), RetiredResponse))

    def user(self, user_id: str) -> UserResponse:
        """What is known of a user."""
        return _of_user(user_id, self._get(f"/users/{_segment(user_id)}", UserResponse))

    def forget_user(self, user_id: str) -> ForgottenResponse:
        """Forget a user at once, and in the next model."""
        return _of_user(user_id, _read(self._http.delete(f"{self._url}/users/{_segment(user_id)}"), ForgottenResponse))

    def models(self) -> ModelsResponse:
        """The versions in the models folder."""
        return self._get("/admin/models", ModelsResponse)

    def activate(self, version: str) -> ActivationResponse:
        """Serve a version."""
        return self._switch(f"/admin/models/{_segment(version)}:activate")

    def roll_back(self) -> ActivationResponse:
        """Serve the version again that was served before the current one."""
        return self._switch("/admin/rollback")

    def health(self) -> HealthResponse:
        """How the service is; also where that is ``unavailable``, for which it answers 503."""
        response = self._http.get(f"{self._url}/health")
        if response.status_code == 503:
            with suppress(ValidationError):  # what is between here and the service answers 503 too
                return HealthResponse.model_validate_json(response.content)
        return _read(response, HealthResponse)

    def _post(self, path: str, request: BaseModel, kind: type[Answer], **more: Any) -> Answer:
        body = request.model_dump_json(by_alias=True, exclude_defaults=True)
        return _read(self._http.post(self._url + path, content=body, headers=_JSON, **more), kind)

    def _switch(self, path: str) -> ActivationResponse:
        return _read(self._http.post(self._url + path, **self._within(_SWITCH_SECONDS)), ActivationResponse)

    def _within(self, seconds: float) -> dict[str, Any]:
        """How long an answer is waited for that may take longer than others."""
        own = self._timeout_seconds
        return {} if own is None else {"timeout": httpx2.Timeout(own, read=max(own, seconds))}

    def _get(self, path: str, kind: type[Answer], params: dict[str, Any] | None = None) -> Answer:
        return _read(self._http.get(self._url + path, params=params), kind)


def _segment(outside_id: str) -> str:
    if outside_id in ("", ".", ".."):
        raise ValueError(f"{outside_id!r} is an id that no path can hold: it would lead to something else")
    return quote(outside_id, safe="")


def _of_item(item_id: str, answer: OfItem) -> OfItem:
    _require_same(item_id, answer.item_id)
    return answer


def _of_user(user_id: str, answer: OfUser) -> OfUser:
    _require_same(user_id, answer.user_id)
    return answer


def _require_same(asked: str, answered: str) -> None:
    if asked != answered:
        otherwise = f"the answer is about {answered!r} instead of {asked!r}: what lies between must leave paths alone"
        raise ServiceError(200, None, None, otherwise)


def _read(response: httpx2.Response, kind: type[Answer]) -> Answer:
    if response.is_success:
        try:
            return kind.model_validate_json(response.content)
        except ValidationError:
            raise ServiceError(response.status_code, None, None, "no answer of the service") from None
    try:
        problem = Problem.model_validate_json(response.content)
    except ValidationError:
        problem = None
    waiting = response.headers.get("retry-after", "")
    raise ServiceError(
        response.status_code, problem, float(waiting) if waiting.isascii() and waiting.isdigit() else None
    )
