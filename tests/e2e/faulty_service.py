"""The real service in a process of its own, which fails some answers as soon as another model than one is live."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.integration.test_service_process import Running, listening_at

EACH = 4

_PROGRAM = """
import itertools, sys
from pathlib import Path
import uvicorn
from fastapi import Request
from starlette.responses import JSONResponse
from service.app import create_app
from service.settings import Settings

store, sound, each = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
app = create_app(Settings(models=store))
asked = itertools.count(1)

@app.middleware("http")
async def fail_some(request: Request, call_next):
    answer = await call_next(request)
    current = (store / "CURRENT").read_text().split()[0]
    if request.url.path == "/recommend" and current != sound and next(asked) % each == 0:
        return JSONResponse({"title": "broken"}, 500)
    return answer

class Server(uvicorn.Server):
    async def startup(self, sockets=None):
        await super().startup(sockets)
        print(f"Listening on http://127.0.0.1:{self.servers[0].sockets[0].getsockname()[1]} ", flush=True)

Server(uvicorn.Config(app, port=0, log_level="warning")).run()
"""


@contextmanager
def faulty_service(store: Path, sound: str, log: Path) -> Iterator[Running]:
    """Run it; every fourth recommendation is answered with 500 unless ``sound`` is the current version."""
    command = [sys.executable, "-c", _PROGRAM, str(store), sound, str(EACH)]
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
    try:
        yield Running(process, listening_at(process, log), log)
    finally:
        process.kill()
        process.wait()
