"""What users do, as it happens."""

from typing import Annotated

from fastapi import APIRouter, Body, Request, Response

from service import events, problems
from service.overlay import Overlay
from service.routes.base import EVENT_PROBLEMS, JsonRoute, StateOverlay
from service.schemas import EventBatch, EventsResponse, FieldProblem
from shared.events import Event

router = APIRouter(route_class=JsonRoute)
