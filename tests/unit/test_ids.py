"""Outside ids <-> dense integers: every text survives, and no damaged map is taken for a sound one."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import UserError
from shared.ids import IdMap

unique_ids = st.lists(st.text(min_size=1), unique=True, max_size=40)
awkward = ["a", "A", "a ", "a\n", "\n", "\0", "\0\0", "é", "e\u0301", "ß", "٣", "𓀀", "🧦", "\u202eabc", "\ufeff"]


@given(ids=unique_ids, probe=st.text())
def test_every_text_is_found_again_and_no_other_is(ids: list[str], probe: str) -> None:
    map_ = IdMap.from_ids(ids)
    expected = {id_: index for index, id_ in enumerate(ids)}

    assert len(map_) == len(ids)
    assert list(map_) == ids
    assert [map_.dense(id_) for id_ in ids] == list(range(len(ids)))
    assert map_.dense(probe) == expected.get(probe)
    map_.check_order()


@given(ids=unique_ids)
def test_a_map_is_the_same_after_a_trip_through_its_arrays(ids: list[str]) -> None:
    arrays = IdMap.from_ids(ids).to_arrays()

    map_ = IdMap.from_arrays({name: np.frombuffer(a.tobytes(), dtype=a.dtype) for name, a in arrays.items()})

    assert list(map_) == ids
    assert [map_.dense(id_) for id_ in ids] == list(range(len(ids)))


def test_ids_that_look_alike_stay_apart() -> None:
    map_ = IdMap.from_ids(awkward)

    assert [map_.dense(id_) for id_ in awkward] == list(range(len(awkward)))
    assert map_.dense("") is None
    assert map_.dense("\udc80") is None


def test_a_very_long_id_is_an_id() -> None:
    long, longer = "x" * 1_000_000, "x" * 1_000_001

    map_ = IdMap.from_ids([longer, long])

    assert (map_.dense(long), map_.dense(longer), map_.dense(long[:-1])) == (1, 0, None)
    assert map_.outside(0) == longer


def test_outside_many_keeps_the_order_asked_for() -> None:
    map_ = IdMap.from_ids(["a", "b", "c"])

    assert map_.outside_many(np.array([2, 0, 2])) == ["c", "a", "c"]


@pytest.mark.parametrize("index", [-1, 3, 10**12])
def test_an_index_out_of_range_is_an_error_and_never_another_id(index: int) -> None:
    with pytest.raises(IndexError, match="there are 3"):
        IdMap.from_ids(["a", "b", "c"]).outside(index)


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (["a", "b", "a"], r"'a' is given twice \(positions 0 and 2\)"),
        (["a", ""], "position 1 is empty"),
        (["a", 7], "position 1 is a int, not a string"),
        (["a", "\ud83d"], "position 1 .* half a surrogate pair"),
    ],
)
def test_ids_that_cannot_be_mapped_are_refused_by_name(ids: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        IdMap.from_ids(ids)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("bytes", np.frombuffer(b"ab\xff", np.uint8), "not UTF-8"),
        ("bytes", np.frombuffer("aé".encode(), np.uint8), "not UTF-8"),
        ("bytes", np.frombuffer(b"ab", np.uint8), "must run from 0 to the 2 bytes"),
        ("bytes", np.array([97, 98, 99], np.int64), "must be a vector of uint8"),
        ("offsets", np.array([0, 1, 1, 3]), "must rise at every id"),
        ("offsets", np.array([0, 2, 1, 3]), "must rise at every id"),
        ("offsets", np.array([1, 1, 2, 3]), "must run from 0"),
        ("offsets", np.array([], np.int64), "must run from 0"),
        ("order", np.array([0, 1]), "must hold each of 0 to 2 once"),
        ("order", np.array([0, 1, 1]), "must hold each of 0 to 2 once"),
        ("order", np.array([0, 1, 3]), "must hold each of 0 to 2 once"),
        ("order", np.array([-1, 0, 1]), "must hold each of 0 to 2 once"),
        ("order", np.array([[0, 1, 2]]), "must be a vector of int64"),
    ],
)
def test_arrays_that_are_no_map_are_refused_by_name(name: str, content: np.ndarray, message: str) -> None:
    arrays = IdMap.from_ids(["a", "b", "c"]).to_arrays()

    with pytest.raises(UserError, match=message):
        IdMap.from_arrays({**arrays, name: content})


@pytest.mark.parametrize(
    ("name", "content"), [("order", np.array([1, 0, 2])), ("bytes", np.frombuffer(b"aac", np.uint8))]
)
def test_the_order_check_finds_ids_that_a_search_would_miss(name: str, content: np.ndarray) -> None:
    arrays = IdMap.from_ids(["a", "b", "c"]).to_arrays()

    with pytest.raises(UserError, match="not sorted, or an id given twice, at id 'a'"):
        IdMap.from_arrays({**arrays, name: content}).check_order()
