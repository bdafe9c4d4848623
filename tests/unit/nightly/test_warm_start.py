"""A warm start follows ids, whatever was added, removed or put elsewhere, and whatever became of the features."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from shared.errors import UserError
from tests.unit.nightly.conftest import Nights
from trainer.dataset import Dataset
from trainer.distill import Distillation
from trainer.inputs import prepare_inputs
from trainer.recipe import load_recipe
from trainer.training import TrainingRun
from trainer.warm_start import WarmStart

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")
RECIPE = load_recipe("demo", ["epochs=3", "consolidated_width=0", "linear=0"])


@pytest.fixture(scope="module")
def learnt(nights: Nights, tmp_path_factory: pytest.TempPathFactory) -> WarmStart:
    folder = tmp_path_factory.mktemp("learnt")
    run = TrainingRun(nights.yesterday, RECIPE, 0, folder, CPU)
    run.finish()
    run.for_warm_start(nights.yesterday).save(folder / "warm.pt")
    return WarmStart.load(folder / "warm.pt")


def losses(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line)["losses"] for line in (folder / "metrics.jsonl").read_text().splitlines()]


def changed(dataset: Dataset) -> Dataset:
    """Users 0..9 and items 0..4 are gone, three users and two items are new, and all stand in another order."""
    generator = np.random.default_rng(0)
    user_ids = [*dataset.user_ids[10:], "new a", "new b", "new c"]
    item_ids = [*dataset.item_ids[5:], "new x", "new y"]
    generator.shuffle(user_ids)
    generator.shuffle(item_ids)
    users = {each: place for place, each in enumerate(user_ids)}
    items = {each: place for place, each in enumerate(item_ids)}
    pairs = sorted(
        {
            (users[dataset.user_ids[user]], items[dataset.item_ids[item]], int(label))
            for user, item, label in zip(dataset.users, dataset.items, dataset.labels, strict=True)
            if dataset.user_ids[user] in users and dataset.item_ids[item] in items
        }
    )
    old = {each: place for place, each in enumerate(dataset.item_ids)}
    rows = np.array([old.get(each, -1) for each in item_ids])
    turn = np.linalg.qr(generator.normal(size=(96, 96)))[0].astype(np.float32)
    modalities = {}
    for name, each in dataset.modalities.items():
        features = each.features[rows] * (rows >= 0)[:, None]
        features = features @ turn if features.shape[1] == 96 else features[:, ::-1].copy()
        modalities[name] = replace(each, features=features.astype(np.float32), present=each.present[rows] & (rows >= 0))
    new_pairs = np.array(pairs)
    return replace(
        dataset,
        user_ids=user_ids,
        item_ids=item_ids,
        users=new_pairs[:, 0].astype(np.int64),
        items=new_pairs[:, 1].astype(np.int64),
        labels=new_pairs[:, 2].astype(np.int8),
        timestamps=None,
        catalogue=None,
        modalities=modalities,
    )


def test_rows_follow_their_ids(nights: Nights, learnt: WarmStart) -> None:
    today = changed(nights.yesterday)
    inputs = prepare_inputs(today, RECIPE, CPU)
    model = Distillation(inputs, RECIPE, 1)
    fresh = Distillation(inputs, RECIPE, 1)
    learnt.begin(model, inputs, today)
    for side, encoders, untouched in (
        ("student", model.student.encoders, fresh.student.encoders),
        ("teachers", model.teachers.encoders, fresh.teachers.encoders),
    ):
        for ids, old_ids, first, old_first in (
            (today.user_ids, learnt.user_ids, 0, 0),
            (today.item_ids, learnt.item_ids, len(today.user_ids), len(learnt.user_ids)),
        ):
            for place, each in enumerate(ids):
                row = encoders.id.table[first + place]
                if each.startswith("new "):
                    assert torch.equal(row, untouched.id.table[first + place])
                else:
                    assert torch.equal(row, learnt.tables[side]["id"][old_first + old_ids.index(each)])
        for name, encoder in zip(encoders.modalities, encoders.content, strict=True):
            place = today.item_ids.index(nights.yesterday.item_ids[50])
            assert torch.equal(encoder.table[place], learnt.tables[side][name][50])
    for name, value in model.student.fusion.state_dict().items():
        assert torch.equal(value, learnt.fusion[name])


def test_who_is_left_out_begins_anew_and_nobody_else_does(nights: Nights, learnt: WarmStart) -> None:
    gone = nights.yesterday.user_ids[3:9:2]
    inputs = prepare_inputs(nights.yesterday, RECIPE, CPU)
    model, fresh = Distillation(inputs, RECIPE, 1), Distillation(inputs, RECIPE, 1)
    learnt.without(_Listed(gone)).begin(model, inputs, nights.yesterday)
    for side, encoders, untouched in (
        ("student", model.student.encoders, fresh.student.encoders),
        ("teachers", model.teachers.encoders, fresh.teachers.encoders),
    ):
        ids = [*nights.yesterday.user_ids, *(f"item {item}" for item in nights.yesterday.item_ids)]
        for place, each in enumerate(ids):
            expected = untouched.id.table[place] if each in gone else learnt.tables[side]["id"][place]
            assert torch.equal(encoders.id.table[place], expected)


class _Listed(list[str]):
    """As a night lists who was forgotten: to be gone through once, and not for every user."""

    def __contains__(self, user: object) -> bool:
        raise AssertionError(f"{user} is searched for in a list")


def test_gates_say_the_same_of_the_same_items_though_the_features_turned(nights: Nights, learnt: WarmStart) -> None:
    today = changed(nights.yesterday)
    inputs = prepare_inputs(today, RECIPE, CPU)
    model = Distillation(inputs, RECIPE, 1)
    learnt.begin(model, inputs, today)
    for name, encoder in zip(model.student.encoders.modalities, model.student.encoders.content, strict=True):
        said = encoder.gate(inputs.modalities[name].features).detach()
        places = [
            (place, learnt.item_ids.index(each))
            for place, each in enumerate(today.item_ids)
            if not each.startswith("new ") and today.modalities[name].present[place]
        ]
        now, before = (list(side) for side in zip(*places, strict=True))
        wanted = learnt.gates["student"][name][before]
        assert float((said[now] - wanted).pow(2).mean() / wanted.pow(2).mean()) < 0.05


def test_a_warm_run_begins_where_the_other_ended(nights: Nights, learnt: WarmStart, tmp_path: Path) -> None:
    one = RECIPE.model_copy(update={"epochs": 1})
    cold = TrainingRun(nights.yesterday, one, 1, tmp_path / "cold", CPU).finish()
    warm = TrainingRun(nights.yesterday, one, 1, tmp_path / "warm", CPU, warm_start=learnt).finish()
    assert warm.validation["recall@20"] > 1.1 * cold.validation["recall@20"]


def test_every_student_begins_from_it(nights: Nights, learnt: WarmStart, tmp_path: Path) -> None:
    two = load_recipe("demo", ["epochs=1", "consolidated_width=16", "students=2"])
    one = two.model_copy(update={"students": 1})
    TrainingRun(nights.yesterday, two, 2, tmp_path / "two", CPU, warm_start=learnt).finish()
    TrainingRun(nights.yesterday, one, 5, tmp_path / "second", CPU, warm_start=learnt).finish()
    TrainingRun(nights.yesterday, one, 5, tmp_path / "cold", CPU).finish()
    second, alone, cold = (losses(tmp_path / folder) for folder in ("two/student-2", "second", "cold"))
    assert second == alone != cold


def test_what_cannot_be_begun_from_is_refused(nights: Nights, learnt: WarmStart, tmp_path: Path) -> None:
    strangers = replace(nights.yesterday, item_ids=[f"other {item}" for item in range(120)])
    assert learnt.suits(nights.yesterday, 64, {"image", "text"}) is None
    assert "width changed from 64 to 32" in str(learnt.suits(nights.yesterday, 32, {"image", "text"}))
    with pytest.raises(UserError, match="only 0 items are the same"):
        TrainingRun(strangers, RECIPE, 0, tmp_path, CPU, warm_start=learnt)
