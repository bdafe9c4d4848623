"""What the service's stack costs by itself: parses the body of a recommendation request and answers a constant.

A process of its own, started by :mod:`trainer.measurement.serving`; it needs FastAPI and uvicorn, which come with
``mts4mm[service]``.
"""

import sys
from pathlib import Path
from typing import Annotated, Any

import uvicorn
from fastapi import FastAPI, Response
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat

MOST = 1_000

ItemId = Annotated[str, Field(min_length=1)]
Value = str | bool | int | FiniteFloat


class Wanted(BaseModel):
    """The fields of a recommendation request, as strictly checked as the service checks them."""

    model_config = ConfigDict(extra="forbid", strict=True)

    user_id: str | None = Field(None, min_length=1)
    history: list[ItemId] = Field(default_factory=list, max_length=MOST)
    k: int = Field(20, ge=1, le=500)
    exclude_seen: bool = True
    exclude_items: list[ItemId] = Field(default_factory=list, max_length=MOST)
    filter: dict[str, Value | dict[str, Any]] = Field(default_factory=dict, max_length=20)
    diversity: FiniteFloat = Field(0.0, ge=0, le=1)
    weights: dict[str, FiniteFloat] = Field(default_factory=dict, max_length=20)
    explain: bool = False


def create_app(answer: bytes) -> FastAPI:
    """An application that answers ``answer`` to whoever POSTs a sound request."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)

    @app.post("/recommend")
    async def echo(wanted: Wanted) -> Response:  # noqa: ARG001 (only parsed)
        return Response(answer, media_type="application/json")

    return app


def main() -> None:
    """``python -m trainer.measurement.echo PORT FILE``: answer what is in the file."""
    port, answer = int(sys.argv[1]), Path(sys.argv[2]).read_bytes()
    uvicorn.run(create_app(answer), host="127.0.0.1", port=port, access_log=False, log_level="warning", ws="none")


if __name__ == "__main__":
    main()
