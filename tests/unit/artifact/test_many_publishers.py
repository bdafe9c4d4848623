"""Many publish at once, and some are killed."""

import random
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from shared import artifact
from shared.errors import UserError
from tests.unit.artifact.models import MODEL, PROVENANCE

PUBLISHER = """
import sys
from pathlib import Path
import numpy as np
from shared import artifact
from shared.artifact import DatasetInfo, Provenance, Split, StudentModel

store, times = Path(sys.argv[1]), int(sys.argv[2])
users, items = 300, 200
model = StudentModel(
    [f"u{i}" for i in range(users)], [f"i{i}" for i in range(items)],
    np.ones((users, 64), np.float32), np.ones((items, 64), np.float32),
    np.arange(users + 1), np.arange(users) % items, [{"title": str(i)} for i in range(items)],
)
dataset = DatasetInfo(
    name="x", fingerprint="x", users=users, items=items, interactions=users, split=Split(kind="given")
)
print("ready", flush=True)
sys.stdin.readline()
for _ in range(times):
    print(artifact.publish(store, model, Provenance(dataset, {}, 0, {})), flush=True)
"""


def publisher(store: Path, times: int) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", PUBLISHER, str(store), str(times)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.mark.slow
def test_publishers_at_the_same_time_all_publish(store: Path) -> None:
    with ThreadPoolExecutor() as pool:
        processes = list(pool.map(lambda _: publisher(store, 3), range(3)))
        outputs = list(pool.map(lambda process: process.communicate("go\n", timeout=60)[0], processes))
    published = [name for output in outputs for name in output.split()]

    summaries = artifact.list_versions(store)

    assert len(set(published)) == 9
    assert {summary.version for summary in summaries} == set(published)
    assert [summary.damage for summary in summaries] == [None] * 9
    assert [summary.current for summary in summaries] == [False] * 8 + [True]


@pytest.mark.slow
def test_a_publisher_killed_at_any_moment_leaves_a_store_that_loads(store: Path) -> None:
    dice = random.Random(4)
    acknowledged: list[str] = []
    unfinished = 0
    started = time.monotonic()
    artifact.publish(store, MODEL, PROVENANCE)
    seconds = time.monotonic() - started  # whatever this machine has to do besides
    for _ in range(8):
        process = publisher(store, 10_000)
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
        time.sleep(dice.uniform(0.5, 10) * seconds)
        process.kill()
        output, _ = process.communicate(timeout=60)
        acknowledged += [line for line in output.split("\n")[:-1] if line]
        unfinished += len(list(store.glob(".tmp-*")))

        summaries = artifact.list_versions(store)
        assert [summary.damage for summary in summaries if summary.damage] == []
        assert set(acknowledged) <= {summary.version for summary in summaries}
        if acknowledged:
            artifact.load(store)

    assert acknowledged
    assert unfinished
    last = artifact.publish(store, MODEL, PROVENANCE)
    assert list(store.glob(".tmp-*")) == []
    assert artifact.current_version(store) == last


CHANGER = """
import sys
from pathlib import Path
from shared import artifact

store, first, second = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
print("ready", flush=True)
while True:
    artifact.activate(store, first)
    artifact.activate(store, second)
    artifact.rollback(store)
"""


@pytest.mark.slow
def test_killed_while_activating_and_rolling_back_the_store_stays_readable(store: Path) -> None:
    first, second = (artifact.publish(store, MODEL, PROVENANCE) for _ in range(2))
    dice = random.Random(7)
    for _ in range(5):
        command = [sys.executable, "-c", CHANGER, str(store), first, second]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        time.sleep(dice.uniform(0.02, 0.15))
        assert process.poll() is None
        process.kill()
        process.communicate(timeout=60)

        live = artifact.load(store).manifest.version
        trail = (store / "CURRENT").read_text().split()
        assert trail[0] == live
        assert set(trail) <= {first, second}
        assert len(trail) < 2 or artifact.rollback(store) == trail[1]

    artifact.activate(store, second)


def test_what_a_running_publisher_writes_is_not_removed(store: Path) -> None:
    """A publisher waits for the one before it, so that all it finds unfinished is of the dead."""
    slow = replace(MODEL, items=SlowItems([{}, {}, {}, {}]))

    with ThreadPoolExecutor() as pool:
        first = pool.submit(artifact.publish, store, slow, PROVENANCE)
        while not list(store.glob(".tmp-*")):
            time.sleep(0.001)
        second = artifact.publish(store, MODEL, PROVENANCE)

    assert artifact.load(store, first.result()).manifest.version != second
    assert [summary.damage for summary in artifact.list_versions(store)] == [None, None]


class SlowItems(list[dict[str, Any]]):
    """Item metadata that takes its time."""

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for item in super().__iter__():
            time.sleep(0.1)
            yield item


def test_unfinished_versions_are_neither_listed_nor_loaded_and_go_with_the_next(store: Path, version: Path) -> None:
    version.rename(store / ".tmp-dead")

    assert artifact.list_versions(store) == []
    with pytest.raises(UserError, match="there is no such version"):
        artifact.load(store)
    (store / ".tmp-file").write_text("half")
    (store / ".tmp-link").symlink_to(Path(__file__))
    artifact.publish(store, MODEL, PROVENANCE)

    assert list(store.glob(".tmp-*")) == []
    assert Path(__file__).exists()
