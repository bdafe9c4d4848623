"""The gate lets a good challenger through and refuses bad ones; all of them were really trained."""

import json
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import scipy.sparse as sp
import torch

from shared.fold_in import item_weights, profile
from tests.unit.nightly.conftest import Nights
from trainer.dataset import TEST, TRAIN, VALIDATION, Dataset
from trainer.evaluation import Holdout, evaluate, ranked
from trainer.nightly.candidate import Candidate, fresh_holdout
from trainer.nightly.contenders import Challenger, challenger, champion
from trainer.nightly.gate import Verdict, _Court, judge
from trainer.nightly.settings import GateSettings
from trainer.nightly.statistics import paired_bootstrap

pytestmark = pytest.mark.slow

SETTINGS = GateSettings(teacher_margin=0.1)


@pytest.fixture(scope="module")
def good(nights: Nights) -> Candidate:
    return nights.train(nights.today)


def verdict(nights: Nights, candidate: Candidate, dataset: Dataset | None = None, **shares: float) -> Verdict:
    data = dataset or nights.today
    holdout = fresh_holdout(data)
    trained = candidate.trained
    today = challenger(trained.user_embeddings, trained.item_embeddings, holdout.training)
    standing = champion(nights.champion, data, teacher_shares=shares)
    return judge(Challenger(today, candidate.teachers), standing, data, holdout, SETTINGS)


def failed(found: Verdict) -> set[str]:
    return {check.name for check in found.checks if not check.passed}


def with_embeddings(candidate: Candidate, **tables: np.ndarray) -> Candidate:
    return replace(candidate, trained=replace(candidate.trained, **tables))


def test_a_good_challenger_is_promoted_and_every_figure_is_said(nights: Nights, good: Candidate) -> None:
    found = verdict(nights, good)
    assert failed(found) == set()
    assert found.promoted
    document = json.loads(json.dumps(found.as_dict(), allow_nan=False))
    assert document["verdict"] == "promoted"
    embeddings = np.concatenate([good.trained.user_embeddings, good.trained.item_embeddings])
    taken = nights.today.interactions(TRAIN) + nights.today.interactions(VALIDATION)
    judged = Holdout(taken, nights.today.interactions(TEST))
    expected = evaluate(torch.from_numpy(embeddings), judged)["ndcg@20"]
    assert document["figures"]["challenger.ndcg@20"] == pytest.approx(expected, abs=1e-6)
    low, mean, high = (document["figures"][f"difference{end}"] for end in (".low", "", ".high"))
    assert low < mean < high
    assert mean == pytest.approx(
        document["figures"]["challenger.ndcg@20"] - document["figures"]["champion.ndcg@20"], abs=1e-9
    )
    for name in ("id", "image", "text", "linear"):
        assert document["figures"][f"teacher.{name}.ndcg@20"] > 0


def test_nan_weights_are_refused(nights: Nights, good: Candidate) -> None:
    users = good.trained.user_embeddings.copy()
    users[7, 3] = np.nan
    found = verdict(nights, with_embeddings(good, user_embeddings=users))
    assert not found.promoted
    assert "1 of 300 user embeddings hold NaN or infinity" in found.reasons
    json.dumps(found.as_dict(), allow_nan=False)


def test_users_collapsed_to_one_vector_are_refused(nights: Nights, good: Candidate) -> None:
    one = np.tile(good.trained.user_embeddings.mean(axis=0), (300, 1))
    found = verdict(nights, with_embeddings(good, user_embeddings=one))
    assert {"spread of user embeddings", "mean cosine of user embeddings"} <= failed(found)
    assert not found.promoted


def test_shuffled_labels_are_refused(nights: Nights) -> None:
    items = nights.today.items.copy()
    training = nights.today.labels == TRAIN
    items[training] = np.random.default_rng(0).permutation(items[training])
    found = verdict(nights, nights.train(replace(nights.today, items=items)))
    assert {"NDCG@20, all users", "image teacher alive"} <= failed(found)
    assert not found.promoted


def test_a_teacher_whose_encoder_says_the_same_of_everything_is_refused(nights: Nights) -> None:
    image = nights.today.modalities["image"]
    constant = np.where(image.present[:, None], np.float32(1), np.float32(0)) * np.ones((1, 8), np.float32)
    blind = replace(nights.today, modalities=nights.today.modalities | {"image": replace(image, features=constant)})
    found = verdict(nights, nights.train(blind), blind)
    assert "spread of the image features" in failed(found)
    assert not found.promoted


@pytest.mark.parametrize(
    ("rows", "sound"),
    [
        (np.arange(1, 121)[:, None] % 2 * [[1.0, -1.0]] + [[0.0, 1.0]], True),  # yes or no
        (np.eye(3)[np.minimum(np.arange(120) // 96 * np.arange(120) % 3, 2)], True),  # one category of most
        (np.ones((120, 3)), False),
        (np.eye(20)[[0] * 119 + [1]], False),
    ],
)
def test_few_columns_are_sound_if_they_tell_items_apart(
    nights: Nights, good: Candidate, rows: np.ndarray, sound: bool
) -> None:
    image = nights.today.modalities["image"]
    everywhere = replace(image, features=rows.astype(np.float32), present=np.ones(120, np.bool_))
    data = replace(nights.today, modalities={**nights.today.modalities, "image": everywhere})
    assert ("spread of the image features" not in failed(verdict(nights, good, data))) == sound


def test_a_teacher_that_lost_what_it_had_is_refused(nights: Nights, good: Candidate) -> None:
    """Its lists turned round: the worst of what it would have said."""
    text = good.teachers["text"]
    others = np.random.default_rng(0).integers(0, 120, text.lists.shape)
    dead = replace(good, teachers=good.teachers | {"text": replace(text, lists=others)})
    found = verdict(nights, dead, text=0.9)
    assert {"text teacher's share", "text teacher alive"} & failed(found)
    assert not found.promoted


def test_a_catalogue_of_which_half_is_missing_is_refused(nights: Nights) -> None:
    halved = without_items(nights.today, np.arange(120) % 2 == 0)
    found = verdict(nights, nights.train(halved), halved)
    assert {"items kept", "interactions kept"} <= failed(found)
    assert any(reason.startswith("50.0% of the champion's 120 items") for reason in found.reasons)


def test_a_truncated_log_is_refused(nights: Nights) -> None:
    half = np.zeros(len(nights.today.users), np.bool_)
    half[np.argsort(nights.today.timestamps)[: len(half) // 2]] = True
    truncated = nights.today.where(half | (nights.today.labels != TRAIN))
    found = verdict(nights, nights.train(truncated), truncated)
    assert "interactions kept" in failed(found)
    assert not found.promoted


def test_the_champion_gets_no_credit_for_items_that_it_does_not_know(nights: Nights, good: Candidate) -> None:
    """It knows fewer than the 20 of a list; those that it never heard of do not fill it up."""
    data, holdout = nights.today, fresh_holdout(nights.today)
    standing = champion(nights.champion, data)
    few = np.arange(120) < 10
    unknown = sp.csr_matrix(holdout.held_out.multiply(~few))
    unknown.eliminate_zeros()
    holdout = Holdout(holdout.training, unknown)
    ignorant = replace(standing, contender=replace(standing.contender, knows_item=few))
    today = challenger(good.trained.user_embeddings, good.trained.item_embeddings, holdout.training)
    found = judge(Challenger(today, {}), ignorant, data, holdout, SETTINGS)
    assert found.figures["champion.ndcg@20"] == 0
    assert found.figures["champion.coverage"] <= 10 / 120


def test_what_rightly_went_is_not_missed(nights: Nights) -> None:
    kept = nights.today.users > 30
    smaller = nights.today.where(kept)
    missed = champion(nights.champion, smaller)
    assert missed.pairs_kept < missed.pairs_total
    rightly = champion(nights.champion, smaller, gone_users=nights.today.user_ids[:31], gone_items=["no such item"])
    assert rightly.pairs_kept == rightly.pairs_total == missed.pairs_kept


def test_what_was_left_out_on_purpose_is_not_missed_and_what_was_lost_is(nights: Nights) -> None:
    """Half of the users' pairs were dropped, and of the others' a tenth is lost besides."""
    own = nights.champion
    takers = np.repeat(np.arange(len(own.users)), np.diff(own.train_indptr))
    known = zip(takers, own.train_indices, strict=True)
    pairs = [(own.users.outside(user), own.items.outside(item)) for user, item in known]
    dropped, others = pairs[: len(pairs) // 2], pairs[len(pairs) // 2 :]
    gone = {*dropped, *others[::10]}
    ids = zip(nights.today.users, nights.today.items, strict=True)
    there = [(nights.today.user_ids[user], nights.today.item_ids[item]) not in gone for user, item in ids]
    smaller = nights.today.where(np.array(there))
    named = pl.DataFrame([*dropped, ("nobody", "nothing")], schema=["user", "item"], orient="row")
    found = champion(own, smaller, dropped=named)
    assert (found.pairs_total, found.pairs_kept) == (len(others), len(others) - len(others[::10]))
    assert champion(own, smaller).pairs_total == len(pairs)


def test_the_champion_folds_in_whom_it_does_not_know(nights: Nights) -> None:
    """A user's scores are those of the service for the same history."""
    from service.engine import Engine
    from service.queries import Query

    training = nights.today.interactions(TRAIN)
    standing = champion(nights.champion, nights.today).contender
    engine = Engine(nights.champion)
    for user in (0, 17, 200):
        history = [nights.today.item_ids[item] for item in training[user].indices]
        answer = engine.recommend(Query(user_id=nights.today.user_ids[user], history=history, k=10))
        scores = standing.scores(np.array([user])).numpy()[0]
        places = {item: place for place, item in enumerate(nights.today.item_ids)}
        given = [scores[places[item.item_id]] for item in answer.items]
        assert given == pytest.approx([item.score for item in answer.items], rel=1e-4, abs=1e-5)


def test_whom_the_service_does_not_trust_the_champion_about_is_folded_in_too(nights: Nights) -> None:
    """As if the champion had not been trained on them: the other users' vectors do not change."""
    own = nights.champion
    gone = nights.today.user_ids[17]
    trusted, standing = (
        champion(own, nights.today, unknown_users=unknown).contender for unknown in ([], [gone, "no such user"])
    )
    changed = np.flatnonzero((trusted.users != standing.users).any(axis=1))
    assert changed.tolist() == [17]
    assert not standing.knows_user[17]
    taken = nights.today.interactions(TRAIN)[17].indices
    places = [own.items.dense(nights.today.item_ids[item]) for item in taken]
    history = np.unique([place for place in places if place is not None])
    expected = profile(history, own.item_embeddings, item_weights(own.popularity)) @ own.fold_in
    assert standing.users[17, :-1] == pytest.approx(expected, abs=1e-5)


def test_with_few_users_a_challenger_that_may_be_worse_is_not_let_through(nights: Nights, good: Candidate) -> None:
    """One user in six gets somebody else's list; a margin as wide as the interval would have let that through."""
    rng = np.random.default_rng(1)
    users = good.trained.user_embeddings.copy()
    swapped = rng.permutation(300)[:50]
    users[swapped] = users[rng.permutation(swapped)]
    found = verdict(nights, with_embeddings(good, user_embeddings=users))
    (check,) = [check for check in found.checks if check.name == "NDCG@20, all users"]
    assert found.figures["difference.low"] > -0.25 * found.figures["champion.ndcg@20"]
    assert "too few users to tell" in check.reason
    assert not check.passed
    assert not found.promoted


@pytest.mark.parametrize(
    ("shift", "word"), [(0.4, "promoted"), (0.0, "undecided"), (-0.03, "undecided"), (-0.4, "refused")]
)
def test_what_few_users_say_promotes_holds_or_refuses(shift: float, word: str) -> None:
    """Differences of 60 users, of spread 1 and some mean: within 0.13 of 0 they say nothing."""
    noise = np.random.default_rng(0).normal(size=60)
    differences = noise - noise.mean() + shift
    interval = paired_bootstrap(differences, 0.95)
    court = object.__new__(_Court)
    court._settings = GateSettings()
    check = court._whole("all users", interval, -0.05, "said")
    assert Verdict(check.passed, "v", 60, (check,)).word == word


def test_an_item_that_every_judged_user_has_need_not_be_recommended() -> None:
    training, held_out = np.eye(4, 10), np.eye(4, 10, 5)
    training[:, 9] = 1
    holdout = Holdout(sp.csr_matrix(training), sp.csr_matrix(held_out))
    court = object.__new__(_Court)
    court._settings, court._holdout, court._rival, court.figures = GateSettings(), holdout, None, {}
    court._ranking = ranked(lambda users: torch.ones(len(users), 10), holdout)
    (coverage,) = [check for check in court._variety() if check.name == "coverage"]
    assert (coverage.value, coverage.bound, coverage.passed) == (0.9, 0.9, True)


def test_without_a_champion_only_absolute_checks_are_made(nights: Nights, good: Candidate) -> None:
    holdout = fresh_holdout(nights.today)
    trained = good.trained
    today = Challenger(
        challenger(trained.user_embeddings, trained.item_embeddings, holdout.training), good.teachers, index_recall=0.5
    )
    found = judge(today, None, nights.today, holdout, SETTINGS)
    assert failed(found) == {"index recall"}
    assert not any("champion" in check.reason for check in found.checks)


def without_items(dataset: Dataset, kept: np.ndarray) -> Dataset:
    """A dataset whose catalogue lost items, with dense ids anew."""
    places = np.cumsum(kept) - 1
    smaller = dataset.where(kept[dataset.items])
    modalities = {
        name: replace(each, features=each.features[kept], present=each.present[kept])
        for name, each in dataset.modalities.items()
    }
    return replace(
        smaller,
        items=places[smaller.items],
        item_ids=[each for each, keep in zip(dataset.item_ids, kept, strict=True) if keep],
        catalogue=[each for each, keep in zip(dataset.catalogue, kept, strict=True) if keep],
        modalities=modalities,
    )
