"""The real service in a process of its own, which fails some answers as soon as another model than one is live."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.integration.test_service_process import Running, serving

EACH = 4

_PROGRAM = """
import itertools, sys
from pathlib import Path
import uvicorn
from service.app import create_app
from service.routes import recommendations
from service.settings import Settings

store, sound, each = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
asked = itertools.count(1)
answer_one = recommendations.answer_one

async def fail_some(wanted, engine, overlay, scope):
    if "broken" not in scope["state"]:
        current = (store / "CURRENT").read_text().split()[0]
        scope["state"]["broken"] = current != sound and next(asked) % each == 0
    if scope["state"]["broken"]:
        raise RuntimeError("broken")
    return await answer_one(wanted, engine, overlay, scope)

recommendations.answer_one = fail_some
app = create_app(Settings(models=store))

class Server(uvicorn.Server):
    async def startup(self, sockets=None):
        await super().startup(sockets)
        print(f"Listening on http://127.0.0.1:{self.servers[0].sockets[0].getsockname()[1]} ", flush=True)

Server(uvicorn.Config(app, port=0, log_level="warning")).run()
"""


@contextmanager
def faulty_service(store: Path, sound: str, log: Path) -> Iterator[Running]:
    """Run it; every fourth recommendation is answered with 500 unless ``sound`` is the current version."""
    with serving([sys.executable, "-c", _PROGRAM, str(store), sound, str(EACH)], log) as found:
        yield found
