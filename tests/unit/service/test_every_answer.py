"""What must hold of every answer, whatever the catalogue and whatever is asked: checked against plain Python."""

import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from service.engine import Engine
from service.filters import Between, Condition, OneOf
from service.queries import Query
from service.recent import SinceTraining
from shared import artifact
from shared.artifact import DatasetInfo, Provenance, Split, StudentModel

COLOURS = ["red", "blue", True, 1]


def publish(generator: np.random.Generator, users: int, items: int) -> tuple[Engine, list[dict[str, Any]]]:
    """A random shop; some items lack a price or a colour, some have several colours."""
    seen = [np.flatnonzero(generator.random(items) < generator.choice([0, 0.2, 0.9, 1])) for _ in range(users)]
    catalogue: list[dict[str, Any]] = []
    for _ in range(items):
        entry: dict[str, Any] = {}
        if generator.random() < 0.8:
            entry["price"] = int(generator.integers(0, 5))
        chosen = [COLOURS[index] for index in generator.integers(0, len(COLOURS), 2)]
        entry["colour"] = [chosen[0], chosen, None][generator.integers(0, 3)]
        catalogue.append(entry)
    few_values = generator.integers(-2, 3, (users + items, 3)).astype(np.float32)
    model = StudentModel(
        user_ids=[f"u{user}" for user in range(users)],
        item_ids=[f"i{item}" for item in range(items)],
        user_embeddings=few_values[:users],
        item_embeddings=few_values[users:],
        train_indptr=np.cumsum([0, *map(len, seen)]),
        train_indices=np.concatenate(seen).astype(np.int32),
        items=catalogue,
    )
    dataset = DatasetInfo(
        name="shop", fingerprint="f", users=users, items=items, interactions=9, split=Split(kind="random", seed=1)
    )
    with tempfile.TemporaryDirectory() as folder:
        artifact.publish(Path(folder), model, Provenance(dataset, {}, 1, {}))
        return Engine(artifact.load(Path(folder))), catalogue


def meets(entry: dict[str, Any], name: str, condition: Condition) -> bool:
    value = entry.get(name)
    values = value if isinstance(value, list) else [value]
    if isinstance(condition, OneOf):
        return any(type(one) is type(other) and one == other for one in values for other in condition.values)
    numbers = [one for one in values if type(one) is int]
    low = float("-inf") if condition.low is None else condition.low
    high = float("inf") if condition.high is None else condition.high
    return any(low <= number <= high for number in numbers)


def kinds_of(entry: dict[str, Any], at_most: Mapping[str, int]) -> Iterator[tuple[str, type, Any]]:
    for name in at_most:
        value = entry.get(name)
        yield from {
            (name, type(one), one) for one in (value if isinstance(value, list) else [value]) if one is not None
        }


def passed_over(ranked: list[str], kinds: dict[str, list[tuple[str, type, Any]]], query: Query) -> list[str]:
    """The best, one after the other, unless there are enough of a kind already."""
    kept: list[str] = []
    for item in ranked:
        others = [kind for other in kept for kind in kinds[other]]
        if all(others.count(kind) < query.at_most[kind[0]] for kind in kinds[item]):
            kept.append(item)
    return kept[: query.k]


@given(data=st.data(), seed=st.integers(0, 10_000), items=st.integers(1, 40), users=st.integers(1, 6))
@settings(deadline=None, max_examples=150)
def test_exactly_the_eligible_items_each_once(data: st.DataObject, seed: int, items: int, users: int) -> None:
    engine, catalogue = publish(np.random.default_rng(seed), users, items)
    ids = st.sampled_from([f"i{item}" for item in range(items)] + ["nonsense"])
    conditions: dict[str, st.SearchStrategy[Condition]] = {
        "colour": st.lists(st.sampled_from(COLOURS), min_size=1).map(OneOf),
        "price": st.one_of(st.builds(Between, st.integers(0, 5), st.none()), st.builds(OneOf, st.just([1, 2]))),
    }
    known = [name for name in conditions if any(entry.get(name) is not None for entry in catalogue)]
    query = Query(
        user_id=data.draw(st.sampled_from([*(f"u{user}" for user in range(users)), "nobody", None])),
        history=data.draw(st.lists(ids, max_size=5)),
        k=data.draw(st.integers(1, 50)),
        exclude_seen=data.draw(st.booleans()),
        exclude_items=data.draw(st.lists(ids, max_size=5)),
        filter={name: data.draw(conditions[name]) for name in known if data.draw(st.booleans())},
        diversity=data.draw(st.sampled_from([0.0, 0.3, 1.0])),
        at_most={name: data.draw(st.integers(1, 3)) for name in known if data.draw(st.booleans())},
        since=SinceTraining(
            taken=data.draw(st.dictionaries(ids, st.sampled_from([0.3, 1.0, 2.5]), max_size=4)),
            seen=data.draw(st.sets(ids, max_size=2)),
            hidden=data.draw(st.sets(ids, max_size=3)),
            forgotten_at=data.draw(st.sampled_from([None, datetime(2026, 1, 1, tzinfo=UTC)])),
        ),
    )
    retired = data.draw(st.sets(ids, max_size=6))

    with mock.patch("service.picking.candidate_count", lambda k: k + data.draw(st.sampled_from([0, 1, 100]))):
        answered = engine.recommend(query, engine.rows(retired))

    known = query.user_id if query.since.forgotten_at is None else None
    user = engine.artifact.users.dense(known) if known else None
    seen = set() if user is None else {f"i{item}" for item in engine.artifact.seen(user)}
    taken = set(query.history) | set(query.since.taken) | set(query.since.seen)
    left_out = set(query.exclude_items) | set(query.since.hidden) | retired
    left_out |= (seen | taken) if query.exclude_seen else set()
    eligible = {
        f"i{item}"
        for item, entry in enumerate(catalogue)
        if f"i{item}" not in left_out and all(meets(entry, *condition) for condition in query.filter.items())
    }
    got = [item.item_id for item in answered.items]
    assert len(got) == len(set(got))
    assert set(got) <= eligible
    kinds = {f"i{item}": list(kinds_of(entry, query.at_most)) for item, entry in enumerate(catalogue)}
    had = Counter(kind for item in got for kind in kinds[item])
    assert all(count <= query.at_most[name] for (name, *_), count in had.items())
    if not query.at_most:
        assert len(got) == min(query.k, len(eligible))
    if len(got) < query.k:
        full = {kind for kind, count in had.items() if count == query.at_most[kind[0]]}
        assert all(full & set(kinds[item]) for item in eligible - set(got))
    if query.diversity == 0:
        everything = engine.recommend(replace(query, at_most={}, k=items), engine.rows(retired))
        assert got == passed_over([item.item_id for item in everything.items], kinds, query)
    assert [item.rank for item in answered.items] == list(range(1, len(got) + 1))
    assert answered.unknown_items == (["nonsense"] if "nonsense" in query.history else [])
    scores = [item.score for item in answered.items]
    assert np.isfinite(scores).all()
    if query.diversity == 0:
        assert scores == sorted(scores, reverse=True)
