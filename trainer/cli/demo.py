"""``mts4mm demo``: a shop, a model trained on it, the service, and its answer, on this machine alone."""

import json
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from shared.errors import UserError
from trainer.cli import output
from trainer.cli.data import make_shop_with_progress
from trainer.cli.serving import service_command

HOST = "127.0.0.1"
SECONDS_TO_START = 60
SECONDS_TO_STOP = 15


def demo(
    folder: Annotated[Path, typer.Option(help="Where the shop and its models go.")] = Path(".demo"),
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port of the service; a free one if taken.")] = 8000,
    once: Annotated[bool, typer.Option("--once", help="Stop after the answer instead of serving on.")] = False,
) -> None:
    """Make the demo shop, train on it, serve it, and show a curl line with its answer."""
    from trainer.cli.training import train_and_publish
    from trainer.dataset import load_dataset
    from trainer.recipe import load_recipe

    started = time.perf_counter()
    shop, store = folder / "shop", folder / "models"
    if not shop.exists():
        output.say("making a synthetic shop ...")
        make_shop_with_progress(shop)
    data = load_dataset(shop)
    output.say(f"training on {len(data.user_ids)} users, {len(data.item_ids)} items, {len(data.users)} purchases ...")
    trained, version, _ = train_and_publish(data, load_recipe("demo"), 0, store)
    output.say(f"test recall@20 {trained.test['recall@20']:.4f}; published {store / version}")
    with running_service(store, free_port(port), shop) as url:
        _show_answer(url, data.user_ids[0])
        output.say(f"\nfrom nothing to this answer: {time.perf_counter() - started:.0f} s")
        if not once:
            _serve_until_interrupted(url)


@contextmanager
def running_service(store: Path, port: int, shop: Path) -> Iterator[str]:
    """Run the service on this machine; its URL once it is healthy."""
    process = subprocess.Popen(service_command(store, HOST, port, shop))  # noqa: S603 - our own interpreter
    url = f"http://{HOST}:{port}"
    try:
        _wait_until_healthy(url, process)
        yield url
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(SECONDS_TO_STOP)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_until_healthy(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + SECONDS_TO_START
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise UserError(f"the service ended at once with code {process.returncode}; its message is above")
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=5):  # noqa: S310 - our own loopback address
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    raise UserError(f"the service was not healthy after {SECONDS_TO_START} s")


def _show_answer(url: str, user: str) -> None:
    body = json.dumps({"user_id": user, "k": 5})
    output.stdout.print(
        f"\ncurl -s {url}/recommend -H 'content-type: application/json' -d '{body}'\n",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )
    request = urllib.request.Request(  # noqa: S310 - our own loopback address
        f"{url}/recommend", body.encode(), {"content-type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=30) as response:  # noqa: S310
        answer: dict[str, Any] = json.load(response)
    output.print_json(answer)


def free_port(wanted: int) -> int:
    """The port that is wanted, or a free one if it is taken."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, wanted))
        except OSError:
            output.say(f"port {wanted} is taken, using a free one")
            probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def _serve_until_interrupted(url: str) -> None:
    try:
        output.say(f"serving on {url} until Ctrl-C; look at {url}/console, or at {url}/docs for the API")
        while True:  # a pause without end could begin just after the signal
            time.sleep(1)
    except KeyboardInterrupt:
        output.say("\nstopping")
