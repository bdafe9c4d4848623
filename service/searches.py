"""One pass over the items for all who ask in the same moment: a table is read once, and not once for each of them."""

import asyncio

from service.engine import Engine
from shared.index.ranking import Asked, Ranking

MOST = 32
"""Searched for in one pass; the others wait for the next."""


class Searches:
    """Gathers what one event loop has to search for until it has nothing else to do, and searches in its thread."""

    def __init__(self) -> None:
        """Nobody has asked yet."""
        self._waiting: list[tuple[Engine, Asked, asyncio.Future[Ranking]]] = []

    async def __call__(self, engine: Engine, asked: Asked) -> Ranking:
        """Ask an engine's index."""
        loop = asyncio.get_running_loop()
        if not self._waiting:
            loop.call_soon(self._search_unless_more_come, loop, 0)
        future = loop.create_future()
        self._waiting.append((engine, asked, future))
        ranking: Ranking = await future
        return ranking

    def _search_unless_more_come(self, loop: asyncio.AbstractEventLoop, before: int) -> None:
        """Search as soon as a turn of the loop has brought nobody else."""
        if before < len(self._waiting) < MOST:
            loop.call_soon(self._search_unless_more_come, loop, len(self._waiting))
        else:
            self._search(loop)

    def _search(self, loop: asyncio.AbstractEventLoop) -> None:
        """Search for those who ask the same engine as the first."""
        engine = self._waiting[0][0]
        together: list[tuple[Engine, Asked, asyncio.Future[Ranking]]] = []
        later: list[tuple[Engine, Asked, asyncio.Future[Ranking]]] = []
        for each in self._waiting:
            (together if each[0] is engine and len(together) < MOST else later).append(each)
        self._waiting = later
        if later:
            loop.call_soon(self._search, loop)
        try:
            rankings = engine.index.top_k_of_each([asked for _, asked, _ in together])
        except Exception as error:
            for _, _, future in together:
                if not future.done():
                    future.set_exception(error)
            return
        for (_, _, future), ranking in zip(together, rankings, strict=True):
            if not future.done():  # whoever asked may have gone
                future.set_result(ranking)
