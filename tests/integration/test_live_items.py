"""Live items on a real Redis: kept whole, bounded, told apart by when they were put."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shared.state import Encoded, LiveItem, LiveItemsFull, StateUnavailable, UserState, open_state
from tests.integration.redis_server import Server


@pytest.fixture
def state(tmp_path: Path) -> Iterator[UserState]:
    with open_state(None, tmp_path) as state:
        yield state


@pytest.fixture(scope="module")
def shared_state(tmp_path_factory: pytest.TempPathFactory) -> Iterator[UserState]:
    with open_state(None, tmp_path_factory.mktemp("state")) as state:
        yield state


def test_an_item_comes_back_as_it_was_put(state: UserState) -> None:
    features = np.array([0.1, -2.5e-7, 3e38], np.float32)
    item = LiveItem(
        "mug/ü 1",
        {"title": "Red mug", "price": 3.5, "tags": ["a", "b"], "none": None},
        {"text": features},
        {"image": Encoded("cnn@1", features * 0), "audio": Encoded("ear@2", None)},
        b"\xff\xd8 a picture",
    )
    before = datetime.now(UTC) - timedelta(seconds=1)

    put = state.live_items.put(item)

    assert before < put < datetime.now(UTC) + timedelta(seconds=1)
    (found,) = state.live_items.get(["mug/ü 1"], pictures=True)
    assert (found.item_id, found.metadata, found.picture) == (item.item_id, item.metadata, item.picture)
    assert found.features["text"].tobytes() == features.tobytes()
    assert found.encoded["image"].encoder == "cnn@1"
    assert found.encoded["image"].values is not None
    assert found.encoded["image"].values.tolist() == [0, 0, 0]
    assert found.encoded["audio"] == Encoded("ear@2", None)
    assert found.changed == put == state.live_items.changes()["mug/ü 1"]
    assert state.live_items.picture("mug/ü 1") == item.picture
    assert [each.picture for each in state.live_items.all()] == [None]


def test_the_version_changes_with_every_put_and_drop_and_with_nothing_else(state: UserState) -> None:
    items = state.live_items
    versions = [items.version()]
    items.put(LiveItem("a", {}))
    versions.append(items.version())
    items.put(LiveItem("a", {}))
    versions.append(items.version())
    items.drop(["a"])
    versions.append(items.version())
    assert versions[0] is None
    assert len(set(versions)) == len(versions)
    assert items.drop(["a"]) == 0
    list(items.all(pictures=True))
    assert items.version() == versions[-1]


def test_what_was_encoded_is_noted_of_what_has_not_been_put_again_since(state: UserState) -> None:
    items = state.live_items
    items.put(LiveItem("a", {"title": "first"}, picture=b"picture"))
    items.put(LiveItem("b", {}))
    read = items.get(["a", "b"])
    version = items.version()
    put_again = items.put(LiveItem("a", {"title": "second"}))
    made = {"image": Encoded("cnn@2", np.ones(3, np.float32))}
    changed = items.version()
    items.note([replace(item, encoded=made) for item in read])
    assert version != changed == items.version()
    again, noted = items.get(["a", "b"], pictures=True)
    assert (again.metadata, again.changed, again.encoded) == ({"title": "second"}, put_again, {})
    assert noted.encoded["image"].encoder == "cnn@2"
    assert noted.changed == read[1].changed
    held = sum(state._client.hstrlen("mts4mm:items", name) for name in ("a", "b"))
    assert int(state._client.get("mts4mm:items:bytes") or 0) == held


def test_dropping_spares_what_was_put_again_since(state: UserState) -> None:
    items = state.live_items
    first = items.put(LiveItem("a", {"n": 1}))
    items.put(LiveItem("b", {"n": 1}, picture=b"12345"))
    second = items.put(LiveItem("a", {"n": 2}))
    assert first < second
    assert items.drop(["a", "b", "nobody"], changed_until=second - timedelta(microseconds=1)) == 1
    assert {item.item_id: item.metadata for item in items.all()} == {"a": {"n": 2}}
    assert items.picture("b") is None
    assert items.drop(["a"], changed_until=second) == 1
    assert list(items.all()) == []


def test_no_item_more_than_there_may_be_but_those_there_can_change(state: UserState) -> None:
    items = state.live_items
    for name in "abc":
        items.put(LiveItem(name, {}), most_items=3)
    with pytest.raises(LiveItemsFull, match="3 live items already"):
        items.put(LiveItem("d", {}), most_items=3)
    items.put(LiveItem("b", {"changed": True}), most_items=3)
    items.drop(["a"])
    items.put(LiveItem("d", {}), most_items=3)
    assert set(items.changes()) == {"b", "c", "d"}


def test_no_byte_more_than_there_may_be_but_shrinking_is_allowed(state: UserState) -> None:
    items = state.live_items
    items.put(LiveItem("a", {}, picture=b"x" * 900), most_bytes=1_000)
    with pytest.raises(LiveItemsFull, match="more than 1000 bytes"):
        items.put(LiveItem("b", {}, picture=b"x" * 100), most_bytes=1_000)
    with pytest.raises(LiveItemsFull, match="more than 1000 bytes"):
        items.put(LiveItem("a", {"t": "y" * 100}, picture=b"x" * 950), most_bytes=1_000)
    assert items.picture("a") == b"x" * 900
    items.put(LiveItem("a", {}, picture=b"x" * 800), most_bytes=10)
    items.put(LiveItem("b", {}, picture=b"x" * 50), most_bytes=1_000)
    assert set(items.changes()) == {"a", "b"}


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("put"), st.sampled_from("abc"), st.integers(0, 60), st.integers(0, 60)),
            st.tuples(st.just("drop"), st.sampled_from("abcd"), st.just(0), st.just(0)),
        ),
        max_size=30,
    )
)
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_bytes_counted_are_those_there_are(shared_state: UserState, steps: list[tuple[str, str, int, int]]) -> None:
    items = shared_state.live_items
    items.drop("abcd")
    expected: dict[str, LiveItem] = {}
    for step, name, words, pixels in steps:
        if step == "put":
            expected[name] = LiveItem(name, {"t": "w" * words}, picture=b"p" * pixels or None)
            items.put(expected[name])
        else:
            items.drop([name])
            expected.pop(name, None)
    found = {item.item_id: (item.metadata, item.picture) for item in items.all(pictures=True)}
    assert found == {name: (item.metadata, item.picture) for name, item in expected.items()}
    written = sum(
        len(json.dumps({"metadata": item.metadata, "features": {}, "encoded": {}}, separators=(",", ":")))
        + len(item.picture or b"")
        for item in expected.values()
    )
    with pytest.raises(LiveItemsFull):
        items.put(LiveItem("e", {}), most_bytes=written)
    items.put(LiveItem("e", {}), most_bytes=written + 200)
    items.drop("e")


def test_an_item_put_and_retired_at_once_is_either_live_or_retired(state: UserState) -> None:
    with ThreadPoolExecutor(2) as pool:
        for n in range(200):
            first = [lambda n=n: state.live_items.put(LiveItem("a", {"n": n})), lambda: state.retire_items(["a"])]
            (first[0] if n % 4 < 2 else first[1])()
            for done in [pool.submit(work) for work in (first if n % 2 else reversed(first))]:
                done.result()
            live = {item.item_id: item.metadata for item in state.live_items.all()}
            assert (live, state.retired().item_ids) in (({"a": {"n": n}}, frozenset()), ({}, frozenset({"a"})))


def test_putting_restores_and_retiring_drops_and_each_is_announced_once_with_new_versions(state: UserState) -> None:
    versions = []
    changes = state.changes()
    while changes.wait(0.05):  # the first is True, the second hears that it is subscribed
        pass
    for work in (lambda: state.live_items.put(LiveItem("a", {})), lambda: state.retire_items(["a", "trained"])) * 2:
        work()
        assert changes.wait(1)
        assert not changes.wait(0.01)
        versions.append((state.live_items.version(), state.retired_version()))
    changes.close()
    live, retired = zip(*versions, strict=True)
    assert len(set(live)) == 4
    assert len(set(retired)) == 4
    assert retired[0] is None, "nothing was retired that a put restores"
    assert state.retired().item_ids == {"a", "trained"}
    assert state._client.get("mts4mm:items:bytes") == b"0"


def test_a_full_redis_refuses_a_put_and_a_retirement_whole(tmp_path: Path) -> None:
    with Server(tmp_path) as server, open_state(server.url, None) as state, server.admin() as admin:
        state.live_items.put(LiveItem("a", {"n": 1}))
        state.retire_items(["b"])
        admin.config_set("maxmemory", "1")
        for refused in (lambda: state.live_items.put(LiveItem("b", {})), lambda: state.retire_items(["a"])):
            with pytest.raises(StateUnavailable):
                refused()
        admin.config_set("maxmemory", "0")
        assert {item.item_id: item.metadata for item in state.live_items.all()} == {"a": {"n": 1}}
        assert state.retired().item_ids == {"b"}
