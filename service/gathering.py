"""One round trip to Redis for many requests: while one is under way, those who come wait for the next.

A thread of its own asks, so the event loop never waits for Redis. Alone, a request pays for its own trip; under load
many share one, and the change of threads.
"""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

Answer = TypeVar("Answer")

MOST = 64
"""Users asked for in one trip."""


class Gathering(Generic[Answer]):
    """Gathers what one event loop asks for."""

    def __init__(self, ask: Callable[[Sequence[str]], Sequence[Answer]]) -> None:
        """``ask`` gives an answer for each user, in their order; it is called in one other thread."""
        self._ask = ask
        self._thread = ThreadPoolExecutor(1, "gathering")
        self._waiting: list[tuple[str, asyncio.Future[Answer]]] = []
        self._asking: asyncio.Task[None] | None = None

    async def __call__(self, user_id: str) -> Answer:
        """Ask for one user."""
        future = asyncio.get_running_loop().create_future()
        self._waiting.append((user_id, future))
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._ask_for_all())
        answer: Answer = await future
        return answer

    async def _ask_for_all(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting:
            asked, self._waiting = self._waiting[:MOST], self._waiting[MOST:]
            try:
                answers = await loop.run_in_executor(self._thread, self._ask, [user_id for user_id, _ in asked])
            except Exception as error:
                for _, future in asked:
                    if not future.done():
                        future.set_exception(error)
                continue
            for (_, future), answer in zip(asked, answers, strict=True):
                if not future.done():  # whoever asked may have gone
                    future.set_result(answer)
