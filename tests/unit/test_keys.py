"""The commands that change a keys file."""

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from shared.api_keys import ApiKey, Scope, load_keys, new_key, save_keys
from shared.errors import UsageError, UserError
from trainer.cli import keys


def test_commands_at_the_same_time_all_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "keys.json"
    save_keys(file, [new_key(name, [Scope.READ])[1] for name in ("old", "kept")])

    def load_slowly(path: Path) -> list[ApiKey]:
        found = load_keys(path)
        time.sleep(0.1)
        return found

    monkeypatch.setattr(keys, "load_keys", load_slowly)
    names = ["shop", "ops", "guest"]
    with ThreadPoolExecutor() as pool:
        at_once = [pool.submit(keys.new, file, name, into=tmp_path / name) for name in names]
        at_once.append(pool.submit(keys.revoke, file, "old"))
    for each in at_once:
        each.result()
    assert {key.name for key in load_keys(file)} == {"kept", *names}


def test_a_name_that_is_taken_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    save_keys(file, [new_key("web shop", [Scope.READ])[1]])
    with pytest.raises(UserError, match="'web shop' is there already: choose another name"):
        keys.new(file, "web shop", into=tmp_path / "key")
    assert not (tmp_path / "key").exists()


@pytest.mark.parametrize("name", ["", "x" * 101])
def test_a_name_that_no_key_can_have_is_a_wrong_option(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="a key cannot have this name: String should have at"):
        keys.new(tmp_path / "keys.json", name)
    assert not list(tmp_path.iterdir())
