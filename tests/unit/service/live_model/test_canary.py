"""A model that loads and answers falsely is found out before it is live."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from service.engine import Engine
from service.live_model import check_answers
from service.queries import Query, Recommendation
from shared import artifact
from shared.artifact import DatasetInfo, Provenance, Split, StudentModel
from shared.errors import UserError
from tests.unit.service.live_model.models import ITEMS, publish


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> artifact.Artifact:
    store = tmp_path_factory.mktemp("sound")
    publish(store, "first")
    return artifact.load(store)


def with_items(answer: Recommendation, change: Callable[[list], list]) -> Recommendation:
    return replace(answer, items=change(list(answer.items)))


FALSE_ANSWERS: dict[str, tuple[Callable[[Recommendation, Engine, Query], Recommendation], str]] = {
    "one too few": (lambda answer, *_: with_items(answer, lambda items: items[:-1]), "19 different items"),
    "a duplicate": (lambda answer, *_: with_items(answer, lambda items: [*items[:-1], items[0]]), "19 different"),
    "NaN": (
        lambda answer, *_: with_items(answer, lambda items: [replace(items[0], score=float("nan")), *items[1:]]),
        "scores that are not",
    ),
    "another score": (
        lambda answer, *_: with_items(answer, lambda items: [replace(item, score=item.score + 0.01) for item in items]),
        "scores that are not",
    ),
    "a foreign item": (
        lambda answer, *_: with_items(answer, lambda items: [replace(items[0], item_id="second 1"), *items[1:]]),
        "'second 1', which it does not have",
    ),
    "another strategy": (lambda answer, *_: replace(answer, strategy="history"), "by 'history'"),
    "seen items": (
        lambda answer, engine, query: Engine.recommend(engine, replace(query, exclude_seen=False)),
        "item of the user's own",
    ),
    "not the best": (
        lambda answer, engine, query: with_items(
            Engine.recommend(engine, replace(query, k=ITEMS)), lambda items: items[-len(answer.items) :]
        ),
        "best items",
    ),
}


@pytest.mark.parametrize("case", FALSE_ANSWERS)
def test_an_engine_that_answers_falsely_fails_the_canary(sound: artifact.Artifact, case: str) -> None:
    falsify, said = FALSE_ANSWERS[case]

    class False_(Engine):  # noqa: N801
        def recommend(self, query: Query) -> Recommendation:
            answer = super().recommend(query)
            return falsify(answer, self, query) if answer.items else answer

    with pytest.raises(UserError, match=said) as refused:
        check_answers(False_(sound))
    assert str(sound.path) in str(refused.value)


def test_any_sound_model_passes_the_canary(store: Path) -> None:
    """Ties, huge, tiny and zero embeddings, one item, one user, nobody or everybody with interactions."""
    dice = np.random.default_rng(5)
    for users, items, width, scale in (
        (1, 1, 1, 1.0),
        (3, 2, 1, 0.0),
        (30, 25, 4, 1e9),
        (30, 25, 4, 1e-30),
        (5, 500, 64, 1.0),
    ):
        for seen in (0, 1, items):
            model = StudentModel(
                user_ids=[str(user) for user in range(users)],
                item_ids=[str(item) for item in range(items)],
                user_embeddings=scale * dice.integers(-2, 3, (users, width)).astype(float),
                item_embeddings=scale * dice.normal(size=(items, width)).round(1),
                train_indptr=np.arange(users + 1) * seen,
                train_indices=np.tile(np.arange(seen), users),
            )
            dataset = DatasetInfo(
                name="x", fingerprint="x", users=users, items=items, interactions=1, split=Split(kind="given")
            )
            artifact.publish(store, model, Provenance(dataset, {}, 0, {}))

            assert check_answers(Engine(artifact.load(store))) is None
