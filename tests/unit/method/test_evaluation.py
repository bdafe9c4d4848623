"""Recall and NDCG against an implementation with sorted lists and loops, ties included."""

import math

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from trainer import evaluation
from trainer.evaluation import NO_ITEM, Holdout, evaluate, ranked, top_items
from trainer.nightly.statistics import exposure


def reference(of_users, of_items, training, held_out) -> dict[str, float]:
    """User by user: sort all items that are not in training by (-score, index)."""
    sums: dict[str, list[float]] = {}
    for user in range(len(of_users)):
        relevant = set(np.flatnonzero(held_out[user]).tolist())
        if not relevant or not training[user].any():
            continue
        scores = (of_items @ of_users[user]).tolist()
        ranked = sorted((i for i in range(len(of_items)) if not training[user, i]), key=lambda i: (-scores[i], i))
        for cutoff in (10, 20):
            gains = [1 / math.log2(rank + 2) for rank, item in enumerate(ranked[:cutoff]) if item in relevant]
            ideal = sum(1 / math.log2(rank + 2) for rank in range(min(cutoff, len(relevant))))
            sums.setdefault(f"recall@{cutoff}", []).append(len(gains) / len(relevant))
            sums.setdefault(f"ndcg@{cutoff}", []).append(sum(gains) / ideal)
    return {name: sum(values) / len(values) for name, values in sums.items()}


@given(st.integers(1, 8), st.integers(2, 40), st.integers(0, 2**32 - 1))
def test_metrics_agree_with_the_reference_ties_included(users: int, items: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    # small whole numbers: inner products are exact, and many are equal
    of_users = generator.integers(-1, 2, (users, 2)).astype(np.float32)
    of_items = generator.integers(-1, 2, (items, 2)).astype(np.float32)
    training = generator.random((users, items)) < 0.2
    held_out = (generator.random((users, items)) < 0.2) & ~training
    expected = reference(of_users, of_items, training, held_out)
    holdout = Holdout(sp.csr_matrix(training.astype(np.float32)), sp.csr_matrix(held_out.astype(np.float32)))
    got = evaluate(torch.from_numpy(np.concatenate([of_users, of_items])), holdout)
    if not expected:
        assert all(math.isnan(value) for value in got.values())
    else:
        assert got == pytest.approx(expected, abs=1e-12)


@given(
    hnp.arrays(np.float32, st.tuples(st.integers(1, 4), st.integers(1, 12)), elements=st.sampled_from([0, 1, 2])),
    st.integers(1, 14),
)
def test_equal_scores_rank_by_the_lower_item(scores: np.ndarray, count: int) -> None:
    expected = [sorted(range(len(row)), key=lambda i: (-row[i], i))[:count] for row in scores]
    assert top_items(torch.from_numpy(scores), count).tolist() == expected


def test_what_cannot_be_recommended_is_neither_listed_nor_found() -> None:
    """Not even for the last item of the user before, whose number is one less than that user's first."""
    training, held_out = np.zeros((2, 25)), np.zeros((2, 25))
    training[:, 0] = 1
    held_out[0, [5, 24]] = held_out[1, 12] = 1
    scores = torch.full((2, 25), -torch.inf)
    scores[:, :10] = torch.arange(10, 0, -1).float()
    ranking = ranked(lambda users: scores[users], Holdout(sp.csr_matrix(training), sp.csr_matrix(held_out)))
    assert ranking.items.tolist() == [[*range(1, 10), *[NO_ITEM] * 11]] * 2
    assert ranking.hits.sum(axis=1).tolist() == [1, 0]
    assert ranking.metrics()["recall@20"] == 0.25
    assert exposure(ranking.items, 25).tolist() == [0, *[2] * 9, *[0] * 15]


def test_chunks_do_not_change_the_figures(monkeypatch) -> None:
    generator = np.random.default_rng(0)
    embeddings = torch.from_numpy(generator.normal(size=(50 + 30, 4)).astype(np.float32))
    training = sp.random(50, 30, density=0.2, random_state=1, format="csr")
    held_out = sp.random(50, 30, density=0.1, random_state=2, format="csr")
    whole = evaluate(embeddings, Holdout(training, held_out))
    monkeypatch.setattr(evaluation, "USERS_PER_CHUNK", 7)
    assert evaluate(embeddings, Holdout(training, held_out)) == pytest.approx(whole)


def test_of_many_users_a_sample_spread_over_all_is_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(3)
    embeddings = torch.from_numpy(generator.normal(size=(60 + 30, 4)).astype(np.float32))
    training = sp.random(60, 30, density=0.2, random_state=1, format="csr")
    held_out = sp.random(60, 30, density=0.1, random_state=2, format="csr")
    holdout = Holdout(training, held_out)
    able = holdout.users()
    monkeypatch.setattr(evaluation, "MOST_USERS", 8)
    judged = holdout.users()
    places = np.searchsorted(able, judged)
    assert len(judged) == 8
    assert np.isin(judged, able).all()
    assert set(np.diff(places)) <= {len(able) // 8, len(able) // 8 + 1}
    others = np.setdiff1d(np.arange(60), judged)
    of_those = held_out.toarray()
    of_those[others] = 0
    monkeypatch.setattr(evaluation, "MOST_USERS", 60)
    assert len(Holdout(training, sp.csr_matrix(of_those)).users()) == 8
    expected = evaluate(embeddings, Holdout(training, sp.csr_matrix(of_those)))
    monkeypatch.setattr(evaluation, "MOST_USERS", 8)
    assert evaluate(embeddings, holdout) == pytest.approx(expected)


def test_a_catalogue_too_large_for_one_chunk_changes_no_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(0)
    embeddings = torch.from_numpy(generator.normal(size=(50 + 30, 4)).astype(np.float32))
    holdout = Holdout(
        sp.random(50, 30, density=0.2, random_state=1, format="csr"),
        sp.random(50, 30, density=0.1, random_state=2, format="csr"),
    )
    whole = evaluate(embeddings, holdout)
    monkeypatch.setattr(evaluation, "SCORES_PER_CHUNK", 11)
    assert evaluate(embeddings, holdout) == pytest.approx(whole)
