"""The routes: thin, over one engine; a router for each kind of thing that is asked for."""

from service.routes import catalogue, events, health, recommendations, users

ROUTERS = (recommendations.router, events.router, catalogue.router, users.router, health.router)
"""In the order of the API's description."""
