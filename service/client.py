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

_JSON = {"content-type": "application/json"}


class ServiceError(Exception):
    """The service answered with an error.

    Attributes:
        status: of HTTP.
        problem: what it says; None if it is not a problem document, such as a proxy's page.
        retry_after_seconds: when to try again, if it says so.
    """

    def __init__(self, status: int, problem: Problem | None, retry_after_seconds: float | None) -> None:
        detail = "no problem document" if problem is None else problem.detail
        errors = [] if problem is None or problem.errors is None else problem.errors
        super().__init__(" ".join([f"{status}: {detail}", *(f"{each.pointer}: {each.detail}" for each in errors)]))
        self.status = status
        self.problem = problem
        self.retry_after_seconds = retry_after_seconds


class Client:
    """Speaks to one service over a pool of connections; safe from any number of threads.

    Every method raises ``ServiceError`` for an answer with an error, and ``httpx2.TransportError`` for none.
    """

    def __init__(self, url: str, *, timeout_seconds: float = 5.0, http: httpx2.Client | None = None) -> None:
        """A client of the service at a URL.

        Args:
            url: such as ``http://localhost:8000``.
            timeout_seconds: of a request.
            http: speaks HTTP; one of its own by default.
        """
        self._url = url.rstrip("/")
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
        return self._post("/recommend:batch", request, BatchResponse)

    def record_events(self, events: Sequence[Event]) -> EventsResponse:
        """Record what users did, up to 1,000 events; those that cannot be taken are in the answer.

        Send the same events again after an error: what was recorded already does not count twice.
        """
        content = f'{{"events":[{",".join(map(encode, events))}]}}'
        return _read(self._http.post(f"{self._url}/events", content=content, headers=_JSON), EventsResponse)

    def similar(self, item_id: str, k: int = DEFAULT_K, by: str = STUDENT) -> SimilarResponse:
        """The items most like one: by the student, by ``id`` (who took them), or by a modality's content."""
        return self._get(f"/items/{_segment(item_id)}/similar", SimilarResponse, params={"k": k, "by": by})

    def item(self, item_id: str) -> ItemResponse:
        """What the model knows of an item."""
        return self._get(f"/items/{_segment(item_id)}", ItemResponse)

    def put_item(self, item_id: str, request: PutItemRequest) -> PutItemResponse:
        """Add an item that can be recommended at once, or say anew what is known of one."""
        url, body = f"{self._url}/items/{_segment(item_id)}", request.model_dump_json(exclude_defaults=True)
        return _read(self._http.put(url, content=body, headers=_JSON), PutItemResponse)

    def retire_item(self, item_id: str) -> RetiredResponse:
        """Take an item out of all answers."""
        return _read(self._http.delete(f"{self._url}/items/{_segment(item_id)}"), RetiredResponse)

    def restore_item(self, item_id: str) -> RetiredResponse:
        """Take a retirement back."""
        return _read(self._http.post(f"{self._url}/items/{_segment(item_id)}:restore"), RetiredResponse)

    def user(self, user_id: str) -> UserResponse:
        """What is known of a user."""
        return self._get(f"/users/{_segment(user_id)}", UserResponse)

    def forget_user(self, user_id: str) -> ForgottenResponse:
        """Forget a user at once, and in the next model."""
        return _read(self._http.delete(f"{self._url}/users/{_segment(user_id)}"), ForgottenResponse)

    def models(self) -> ModelsResponse:
        """The versions in the models folder."""
        return self._get("/admin/models", ModelsResponse)

    def activate(self, version: str) -> ActivationResponse:
        """Serve a version."""
        return _read(self._http.post(f"{self._url}/admin/models/{_segment(version)}:activate"), ActivationResponse)

    def roll_back(self) -> ActivationResponse:
        """Serve the version again that was served before the current one."""
        return _read(self._http.post(f"{self._url}/admin/rollback"), ActivationResponse)

    def health(self) -> HealthResponse:
        """How the service is; also where that is ``unavailable``, for which it answers 503."""
        response = self._http.get(f"{self._url}/health")
        if response.status_code == 503:
            with suppress(ValidationError):  # what is between here and the service answers 503 too
                return HealthResponse.model_validate_json(response.content)
        return _read(response, HealthResponse)

    def _post(self, path: str, request: BaseModel, kind: type[Answer]) -> Answer:
        body = request.model_dump_json(by_alias=True, exclude_defaults=True)
        return _read(self._http.post(self._url + path, content=body, headers=_JSON), kind)

    def _get(self, path: str, kind: type[Answer], params: dict[str, Any] | None = None) -> Answer:
        return _read(self._http.get(self._url + path, params=params), kind)


def _segment(outside_id: str) -> str:
    return quote(outside_id, safe="")


def _read(response: httpx2.Response, kind: type[Answer]) -> Answer:
    if response.is_success:
        return kind.model_validate_json(response.content)
    try:
        problem = Problem.model_validate_json(response.content)
    except ValidationError:
        problem = None
    waiting = response.headers.get("retry-after", "")
    raise ServiceError(response.status_code, problem, float(waiting) if waiting.isdigit() else None)
