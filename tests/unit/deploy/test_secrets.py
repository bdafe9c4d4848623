"""The passwords of the compose stack: made once, one's own kept, and told to Redis and its clients alike."""

import shlex
from pathlib import Path

import pytest
from redis.connection import parse_url

from deploy.make_secrets import main

FILES = {"redis-password", "redis-password.conf", "redis-url", "grafana-password"}


def test_passwords_are_made_once(tmp_path: Path) -> None:
    main(tmp_path)
    made = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert made.keys() == FILES
    assert len({made["redis-password"], made["grafana-password"]}) == 2
    main(tmp_path)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == made


@pytest.mark.parametrize("password", ["p@ss/w#rd:?%", 'quote " and \\ slash', "pässwörd"])
def test_one_s_own_password_is_the_same_for_redis_and_its_clients(tmp_path: Path, password: str) -> None:
    (tmp_path / "redis-password").write_text(f"{password}\n", encoding="utf-8")
    main(tmp_path)
    assert parse_url((tmp_path / "redis-url").read_text())["password"] == password
    directive, said = shlex.split((tmp_path / "redis-password.conf").read_text(encoding="utf-8"))
    assert (directive, said) == ("requirepass", password)
