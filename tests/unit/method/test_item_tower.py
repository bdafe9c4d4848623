"""The item tower: what content says of an item's vector, from any set of modalities, in the exported space."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from shared import artifact
from shared.errors import UserError
from shared.item_tower import ItemTower, load_item_tower
from trainer import item_tower, item_tower_network
from trainer.dataset import TRAIN, VALIDATION, Dataset, Modality
from trainer.export import publish
from trainer.item_tower import fit_item_tower
from trainer.item_tower_network import item_tower_attachments, onnx_network
from trainer.recipe import Recipe
from trainer.training import TrainedStudent

MODALITIES = ["image", "text"]


def decomposed(dataset: Dataset, width: int = 5) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Embeddings without a training: the leading singular vectors of the training interactions."""
    left, values, right = np.linalg.svd(dataset.interactions(TRAIN).toarray(), full_matrices=False)
    return (left * values)[:, :width].astype(np.float32), right[:width].T.astype(np.float32)


def unit(rows: NDArray[np.floating]) -> NDArray[np.floating]:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_vectors_that_content_determines_are_found_for_unseen_items(small_dataset: Dataset) -> None:
    generator = np.random.default_rng(1)
    users, _ = decomposed(small_dataset)
    features = generator.normal(size=(40, 6)).astype(np.float32)
    items = (unit(features - features.mean(axis=0)) @ generator.normal(size=(6, 5)) + 3).astype(np.float32)
    shown = Modality("text", features, np.arange(40) < 34, None, None)
    dataset = replace(small_dataset, modalities={"text": shown})

    tower = fit_item_tower(dataset, ["text"], users, items)

    assert tower is not None
    assert tower.explained[1] > 0.98
    found = replace(tower, scale=1.0).vectors({"text": features[34:]})
    # What the features are centred by differs by the six items left out, and so the answer by a little.
    assert np.abs(found - items[34:]).mean() < 0.1 * np.abs(items[34:] - items.mean(axis=0)).mean()


def test_left_out_vectors_are_those_of_a_fit_without_the_item(
    small_dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ridge, means and neighbours' vectors are one for both fits, which is what the shortcut keeps."""
    monkeypatch.setattr(item_tower, "RIDGES", (0.5,))
    users, items = decomposed(small_dataset)
    popularity = np.bincount(small_dataset.interactions(TRAIN).indices, minlength=len(items))
    target = item_tower._Target.of(users, items, popularity)
    modality = small_dataset.modalities["text"]
    assert modality.features is not None
    rows = np.flatnonzero(modality.present & (popularity > 0))
    mean = modality.features[rows].mean(axis=0)
    features = unit(modality.features[rows] - mean).astype(np.float64)
    fit = item_tower._by_neighbours(mean, features.astype(np.float32), rows, target)
    around = np.zeros((len(rows), 5))
    for place in range(len(rows)):
        cosines = features @ features[place]
        cosines[place] = -2
        nearest = np.argsort(-cosines)[:10]
        shares = np.maximum(cosines[nearest], 0) ** 4
        around[place] = shares / shares.sum() @ target.centred[rows[nearest]]
    inputs = np.concatenate([features, around / np.sqrt(around.var(axis=0).sum())], axis=1)
    weights = popularity[rows] ** 0.25
    middle, level = weights @ inputs / weights.sum(), weights @ target.centred[rows] / weights.sum()
    centred = inputs - middle
    ridge = 0.5 * (weights[:, None] * centred**2).sum() / centred.shape[1]
    for place in range(len(rows)):
        kept = np.arange(len(rows)) != place
        gram = (centred[kept].T * weights[kept]) @ centred[kept] + ridge * np.eye(centred.shape[1])
        moment = (centred[kept].T * weights[kept]) @ (target.centred[rows][kept] - level)
        expected = centred[place] @ np.linalg.solve(gram, moment) + level
        np.testing.assert_allclose(fit.left_out[place], expected, rtol=1e-3, atol=1e-5)


def test_left_out_vectors_of_the_kernel_are_those_of_a_fit_without_the_item(
    small_dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(item_tower, "KERNEL_RIDGES", (0.5,))
    users, items = decomposed(small_dataset)
    target = item_tower._Target.of(users, items, np.ones(40, np.int64))
    rows = np.arange(3, 30)
    features = unit(np.random.default_rng(4).normal(size=(27, 6))).astype(np.float32)
    fit = item_tower._by_kernel(np.zeros(6, np.float32), features, rows, target, 3.0)
    likeness = np.exp(3 * (features.astype(np.float64) @ features.T - 1))
    level = target.centred[rows].mean(axis=0)
    for place in range(27):
        kept = np.arange(27) != place
        weights = np.linalg.solve(likeness[np.ix_(kept, kept)] + 0.5 * np.eye(26), likeness[kept, place])
        expected = weights @ (target.centred[rows][kept] - level) + level
        np.testing.assert_allclose(fit.left_out[place], expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("likely", [0, 1])
def test_each_modality_takes_the_way_that_explains_more(small_dataset: Dataset, likely: int) -> None:
    """Vectors linear in the features, or products of them, which no plane follows."""
    generator = np.random.default_rng(5)
    users, _ = decomposed(small_dataset)
    features = generator.normal(size=(40, 3))
    directions = unit(features - features.mean(axis=0))
    products = directions * np.roll(directions, 1, axis=1)
    items = (products if likely else directions) @ generator.normal(size=(3, 5))
    text = Modality("text", features.astype(np.float32), np.ones(40, bool), None, None)
    dataset = replace(small_dataset, modalities={"text": text})
    tower = fit_item_tower(dataset, ["text"], users, items.astype(np.float32))
    assert tower is not None
    assert isinstance(tower.maps["text"], (item_tower.NeighbourMap, item_tower.KernelMap)[likely])


def test_the_kernel_is_not_tried_among_many_items(small_dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(item_tower, "MOST_IN_KERNEL", 10)
    tower = fit_item_tower(small_dataset, MODALITIES, *decomposed(small_dataset))
    assert tower is not None
    assert all(isinstance(each, item_tower.NeighbourMap) for each in tower.maps.values())


def test_two_modalities_explain_more_than_either(small_dataset: Dataset) -> None:
    tower = fit_item_tower(small_dataset, MODALITIES, *decomposed(small_dataset))
    assert tower is not None
    explained = tower.description.explained
    assert set(explained) == {"image", "text", "image+text"}
    assert explained["image+text"] > max(explained["image"], explained["text"]) > 0.2


def both_at_once(dataset: Dataset) -> tuple[Dataset, NDArray[np.float32], NDArray[np.float32]]:
    """Vectors of which only both modalities together say anything: which of two, in one, times which in the other."""
    generator = np.random.default_rng(6)
    users, _ = decomposed(dataset)
    signs = generator.permutation(np.tile([[1, 1], [1, -1], [-1, 1], [-1, -1]], (10, 1)))
    modalities = {}
    for place, name in enumerate(MODALITIES):
        features = signs[:, [place]] * np.eye(3)[:1] + generator.normal(0, 0.1, (40, 3))
        modalities[name] = Modality(name, features.astype(np.float32), np.ones(40, bool), None, None)
    items = signs.prod(axis=1, keepdims=True) * generator.normal(size=5) + generator.normal(0, 0.01, (40, 5))
    return replace(dataset, modalities=modalities), users, items.astype(np.float32)


def test_what_only_several_modalities_say_together_is_learnt(small_dataset: Dataset) -> None:
    dataset, users, items = both_at_once(small_dataset)
    tower = fit_item_tower(dataset, MODALITIES, users, items)
    assert tower is not None
    assert tower.joint is not None
    assert set(tower.joint.modalities) == set(MODALITIES)
    explained = tower.description.explained
    assert max(explained["image"], explained["text"]) < 0.4
    assert explained["image+text"] > 0.8
    network = ItemTower(onnx_network(tower), tower.description)
    features = {name: found.features for name, found in dataset.modalities.items() if found.features is not None}
    for given in (["image"], ["text"], MODALITIES):
        zeroed = {name: features[name] * (name in given) for name in MODALITIES}
        rows = [{name: features[name][row] for name in given} for row in range(40)]
        np.testing.assert_allclose(network.vectors(rows), tower.vectors(zeroed), rtol=1e-4, atol=1e-5)
    assert not tower.weights[1:3, 2].any()  # of items that lack one of them, nothing is asked together


def test_the_joint_modality_may_take_either_way(small_dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(item_tower, "MOST_IN_KERNEL", 0)
    dataset, users, items = both_at_once(small_dataset)
    assert item_tower_attachments(dataset, MODALITIES, users, items)
    tower = fit_item_tower(dataset, MODALITIES, users, items)
    assert tower is not None
    assert tower.joint is not None
    assert isinstance(tower.joint.map, item_tower.NeighbourMap)


def test_a_missing_modality_is_not_a_feature_of_zeros(small_dataset: Dataset) -> None:
    tower = fit_item_tower(small_dataset, MODALITIES, *decomposed(small_dataset))
    assert tower is not None
    image = small_dataset.modalities["image"].features
    assert image is not None
    image = image[small_dataset.modalities["image"].present]
    expected = tower.scale * (tower.centre + tower.weights[1, 0] * tower.maps["image"].parts(image))
    found = tower.vectors({"image": image, "text": np.zeros((len(image), 6), np.float32)})
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    assert tower.weights[1, 1] == 0
    assert tower.weights[3].all()


@pytest.mark.parametrize("most_in_kernel", [0, 40])
def test_the_network_gives_the_vectors_of_every_set_of_modalities(
    small_dataset: Dataset, monkeypatch: pytest.MonkeyPatch, most_in_kernel: int
) -> None:
    monkeypatch.setattr(item_tower, "MOST_IN_KERNEL", most_in_kernel)
    tower = fit_item_tower(small_dataset, MODALITIES, *decomposed(small_dataset))
    assert tower is not None
    network = ItemTower(onnx_network(tower), tower.description)
    generator = np.random.default_rng(2)
    features = {name: generator.normal(size=(300, 6)).astype(np.float32) for name in MODALITIES}
    for given in ([], ["image"], ["text"], MODALITIES):
        zeroed = {name: features[name] * (name in given) for name in MODALITIES}
        items = [{name: features[name][row] for name in given} for row in range(300)]
        np.testing.assert_allclose(network.vectors(items), tower.vectors(zeroed), rtol=1e-4, atol=1e-5)
    nothing = network.vectors([{}])[0]
    np.testing.assert_allclose(nothing, tower.scale * tower.centre, rtol=1e-5)
    assert network.vectors([]).shape == (0, 5)


def test_a_network_that_answers_otherwise_is_not_published(
    small_dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    def other_network(tower: item_tower.FittedTower) -> bytes:
        return onnx_network(replace(tower, centre=tower.centre + np.float32(0.01)))

    monkeypatch.setattr(item_tower_network, "onnx_network", other_network)
    with pytest.raises(UserError, match="other vectors"):
        item_tower_attachments(small_dataset, MODALITIES, *decomposed(small_dataset))


def test_a_network_is_checked_where_no_item_has_all_modalities(
    small_dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pictures of the even items and texts of the odd ones."""

    def other_network(tower: item_tower.FittedTower) -> bytes:
        return onnx_network(replace(tower, weights=tower.weights * np.array([[1], [1], [1], [5]], np.float32)))

    parts = {}
    for start, name in enumerate(MODALITIES):
        modality = small_dataset.modalities[name]
        assert modality.features is not None
        present = np.arange(40) % 2 == start
        parts[name] = replace(modality, present=present, features=modality.features * present[:, None])
    dataset = replace(small_dataset, modalities=parts)
    assert item_tower_attachments(dataset, MODALITIES, *decomposed(dataset))
    monkeypatch.setattr(item_tower_network, "onnx_network", other_network)
    with pytest.raises(UserError, match="other vectors"):
        item_tower_attachments(dataset, MODALITIES, *decomposed(dataset))


def test_items_that_are_all_alike_are_no_fault_of_the_network(small_dataset: Dataset) -> None:
    """One picture for half of the shop: which ten of them are the nearest is anybody's choice."""
    image = small_dataset.modalities["image"]
    assert image.features is not None
    one = np.where((np.arange(40) < 25)[:, None], image.features[image.present][0], image.features)
    alike = replace(image, features=one, present=np.ones(40, np.bool_))
    dataset = replace(small_dataset, modalities=small_dataset.modalities | {"image": alike})
    assert item_tower_attachments(dataset, MODALITIES, *decomposed(dataset))


@pytest.mark.parametrize("given", [["image"], MODALITIES])
def test_a_modality_that_says_the_same_of_every_item_does_no_harm(small_dataset: Dataset, given: list[str]) -> None:
    """One brand, or one picture for want of others: nothing is left of the features once they are centred."""
    same = Modality("image", np.ones((40, 1), np.float32), np.ones(40, np.bool_), None, None)
    dataset = replace(small_dataset, modalities=small_dataset.modalities | {"image": same})
    assert item_tower_attachments(dataset, given, *decomposed(dataset))
    tower = fit_item_tower(dataset, given, *decomposed(dataset))
    assert tower is not None
    assert tower.description.explained["image"] == pytest.approx(0, abs=0.1)
    assert np.isfinite(tower.weights).all()


def test_no_stretch_hides_more_warm_items_than_it_may(small_dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    """With one place in the list, counted by hand for the factor that was chosen and for the next one."""
    monkeypatch.setattr(item_tower, "CUTOFF", 1)
    monkeypatch.setattr(item_tower, "COLD_SHARE", 0.3)
    users, items = decomposed(small_dataset)
    tower = fit_item_tower(small_dataset, MODALITIES, users, items)
    assert tower is not None
    cold: list[NDArray[np.int64]] = []
    vectors: list[NDArray[np.float32]] = []
    original = item_tower._left_out_vectors

    def remembered(*arguments: object) -> NDArray[np.float32]:
        cold.append(arguments[2])  # type: ignore[arg-type]
        vectors.append(original(*arguments))  # type: ignore[arg-type]
        return vectors[-1]

    monkeypatch.setattr(item_tower, "_left_out_vectors", remembered)
    fit_item_tower(small_dataset, MODALITIES, users, items)
    took, will = (small_dataset.interactions(label).toarray() > 0 for label in (TRAIN, VALIDATION))

    def found(scale: float | None) -> int:
        count = 0
        for user in np.flatnonzero(will.any(axis=1)):
            scores = items @ users[user]
            scores[took[user]] = -np.inf
            scores[cold[0]] = -np.inf if scale is None else scale * (vectors[0] @ users[user])
            best = int(np.argmax(scores))
            count += bool(will[user, best]) and best not in cold[0]
        return count

    assert len(cold[0]) == round(0.3 * 40)
    assert found(tower.scale) >= found(None) or tower.scale == item_tower.SCALES[0]
    later = item_tower.SCALES[item_tower.SCALES.index(tower.scale) + 1 :]
    assert not later or found(later[0]) < found(None)
    assert tower.scale < item_tower.SCALES[-1]


def test_an_artefact_brings_its_tower(small_dataset: Dataset, tmp_path: Path) -> None:
    users, items = decomposed(small_dataset)
    trained = TrainedStudent(users, items, {}, {}, {}, {}, {}, 1, 1)
    publish(tmp_path, small_dataset, Recipe(modalities=("text",)), 0, trained)
    loaded = artifact.load(tmp_path)
    tower = load_item_tower(loaded)
    fitted = fit_item_tower(small_dataset, ["text"], users, items)
    assert tower is not None
    assert fitted is not None
    assert tower.modalities == {"text": 6}
    features = np.linspace(-1, 1, 6, dtype=np.float32)
    expected = fitted.vectors({"text": features[None]})
    np.testing.assert_allclose(tower.vectors([{"text": features}]), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("modalities", [(), ("known by neighbours",)])
def test_without_features_there_is_no_tower(
    small_dataset: Dataset, tmp_path: Path, modalities: tuple[str, ...]
) -> None:
    neighbours = np.tile(np.arange(3, dtype=np.int32), (40, 1))
    named = Modality("known by neighbours", None, np.ones(40, bool), neighbours, None)
    dataset = replace(small_dataset, modalities={"known by neighbours": named})
    trained = TrainedStudent(*decomposed(dataset), {}, {}, {}, {}, {}, 1, 1)
    publish(tmp_path, dataset, Recipe(modalities=modalities), 0, trained)
    assert load_item_tower(artifact.load(tmp_path)) is None


def test_a_tower_that_is_not_the_one_described_is_refused(small_dataset: Dataset) -> None:
    tower = fit_item_tower(small_dataset, MODALITIES, *decomposed(small_dataset))
    assert tower is not None
    other = tower.description.model_copy(update={"modalities": {"image": 6, "text": 7}})
    with pytest.raises(UserError, match=r"takes .*'text': 6.* says .*'text': 7"):
        ItemTower(onnx_network(tower), other)
    with pytest.raises(UserError, match="cannot run it"):
        ItemTower(b"no network", tower.description)
