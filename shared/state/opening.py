"""Finds the Redis that the settings name."""

from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote, urlsplit

import redis
from redis.backoff import NoBackoff
from redis.maint_notifications import MaintNotificationsConfig
from redis.retry import Retry

from shared.errors import UserError
from shared.events import DEFAULT_WEIGHTS
from shared.state.embedded import EmbeddedServer
from shared.state.store import UserState

CONNECT_SECONDS = 0.25
"""How long a connection may take. Redis is close by; who waits longer waits for nothing."""
ANSWER_SECONDS = 0.25
"""How long an answer may take."""

_HOW_TO_MEND = (
    "give redis://host:6379/0, rediss://host:6379/0 or unix:///path/to/redis.sock, with the special characters of a "
    "password percent-encoded"
)


def open_state(url: str | None, folder: Path | None, weights: Mapping[str, float] = DEFAULT_WEIGHTS) -> UserState:
    """Open the user state on the server that ``url`` names, or else on one embedded in ``folder``.

    ``weights`` say which events hide items, see :data:`shared.events.DEFAULT_WEIGHTS`. A server that is named need
    not be there yet; :meth:`UserState.ping` says whether it is.

    Raises:
        UserError: neither is given, the URL is not one, or the embedded server does not start. The message never
            holds the URL, because a password may be in it.
    """
    if url:
        return UserState(_client(url), None, weights)
    if folder is None:
        raise UserError(f"MTS4MM_REDIS_URL is not set and there is no folder for an embedded server: {_HOW_TO_MEND}")
    server = EmbeddedServer(folder)
    return UserState(_client(f"unix://{quote(str(server.socket))}"), server, weights)


def check_url(url: str) -> None:
    """Refuse what is not the URL of a Redis server; nothing is connected to.

    Raises:
        UserError: the message says how to write one, and holds nothing of this one.
    """
    _client(url)


def _client(url: str) -> redis.Redis:
    """Make a client without connecting."""
    try:
        _check(url)
        client = redis.Redis.from_url(
            url,
            socket_connect_timeout=CONNECT_SECONDS,
            socket_timeout=ANSWER_SECONDS,
            retry=Retry(NoBackoff(), 0),
            maint_notifications_config=MaintNotificationsConfig(enabled=False),  # a round trip more to connect
        )
        client.connection_pool.make_connection()
    except (ValueError, TypeError, redis.RedisError):
        # Not "from error": its message may quote a piece of the password.
        raise UserError(f"MTS4MM_REDIS_URL is not the URL of a Redis server: {_HOW_TO_MEND}") from None
    return client


def _check(url: str) -> None:
    """Refuse what the client would take, and read wrongly.

    Raises:
        ValueError: such as an unescaped ``#`` or ``/`` in a password, by which its first half becomes the port.
    """
    parts = urlsplit(url)
    if parts.fragment:
        raise ValueError
    if parts.scheme == "unix":
        if parts.path in ("", "/"):
            raise ValueError
    elif not parts.hostname or (not parts.path.removeprefix("/").isdigit() and parts.path not in ("", "/")):
        raise ValueError
