"""Hears of changes that somebody announces in Redis, as long as Redis can be heard."""

import redis
from redis.client import PubSub


class Changes:
    """A subscription to a channel that is made again whenever it is lost. For one thread.

    What is announced while there is no subscription is not heard; who must not miss anything looks by itself as well.
    """

    def __init__(self, client: redis.Redis, channel: str) -> None:
        """Connect to nothing yet; see :meth:`wait`."""
        self._client = client
        self._channel = channel
        self._subscription: PubSub | None = None

    def wait(self, seconds: float) -> bool:
        """Wait for an announcement.

        Returns:
            Whether to look again: there was one, or there may have been one while this was not subscribed.

        Raises:
            redis.RedisError: Redis is away; the next call subscribes again.
            OSError: the same.
        """
        try:
            if self._subscription is None:
                self._subscribe()
                return True
            return self._subscription.get_message(ignore_subscribe_messages=True, timeout=seconds) is not None
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let go of the connection."""
        subscription, self._subscription = self._subscription, None
        if subscription is not None:
            subscription.close()

    def _subscribe(self) -> None:
        subscription: PubSub = self._client.pubsub()  # type: ignore[no-untyped-call]
        self._subscription = subscription
        subscription.subscribe(self._channel)
