"""The routes: thin, over one engine; a router for each kind of thing that is asked for."""

from service.routes import admin, catalogue, console, docs, events, health, pictures, recommendations, users

ROUTERS = (
    recommendations.router,
    events.router,
    pictures.router,
    catalogue.likes,
    catalogue.router,
    catalogue.puts,
    catalogue.changes,
    users.router,
    users.changes,
    admin.router,
    health.router,
    console.router,
    docs.router,
)
"""In the order of the API's description."""
