"""A whole run: it learns, repeats bit for bit, and goes on after a kill as if there had been none."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
import pytest
import torch
from scipy.special import softmax
from scipy.stats import entropy

from shared import durable
from shared.errors import DivergenceError, UserError
from tests.processes import started
from trainer import checkpoint
from trainer.dataset import Dataset, SplitSpec
from trainer.distill import LOSS_TERMS, Distillation, make_batch
from trainer.evaluation import Holdout, evaluate
from trainer.export import flat_metrics
from trainer.inputs import hide_content, prepare_inputs
from trainer.recipe import Recipe
from trainer.sampler import TripletSampler, epoch_generator
from trainer.training import Listener, TrainedStudent, TrainingRun

USERS, ITEMS = 60, 40
CPU = torch.device("cpu")
RECIPE = Recipe(
    width=8,
    batch_size=64,
    epochs=12,
    neighbours=5,
    rank_candidates=16,
    linear_candidates=30,
    linear_ridge=20.0,
    learning_rate=0.01,
)


def run(dataset: Dataset, folder: Path, recipe: Recipe = RECIPE, seed: int = 0, **options) -> TrainedStudent:
    return TrainingRun(dataset, recipe, seed, folder, CPU, **options).finish()


def lines(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def without_times(records: list[dict]) -> list[dict]:
    return [{k: v for k, v in record.items() if k in ("epoch", "losses", "student", "teachers")} for record in records]


def same(one: TrainedStudent, other: TrainedStudent) -> bool:
    return np.array_equal(one.user_embeddings, other.user_embeddings) and np.array_equal(
        one.item_embeddings, other.item_embeddings
    )


def test_it_learns_what_the_data_shows(small_dataset: Dataset, tmp_path: Path) -> None:
    from_scratch = {"epochs": 1, "learning_rate": 1e-6, "linear_start": False, "consolidated_width": 0}
    untrained = run(small_dataset, tmp_path / "one", RECIPE.model_copy(update=from_scratch))
    trained = run(small_dataset, tmp_path / "many")
    assert trained.test["recall@10"] > 1.3 * untrained.test["recall@10"]
    assert set(trained.teachers) == {"id", "image", "text", "linear"}


def test_the_figures_are_those_of_the_exported_embeddings(small_dataset: Dataset, tmp_path: Path) -> None:
    trained = run(small_dataset, tmp_path)
    embeddings = torch.from_numpy(np.concatenate([trained.user_embeddings, trained.item_embeddings]))
    training = small_dataset.interactions(0)
    assert evaluate(embeddings, Holdout(training, small_dataset.interactions(1))) == trained.validation
    assert evaluate(embeddings, Holdout(training, small_dataset.interactions(2))) == trained.test
    assert trained.validation["recall@20"] == max(record["student"]["recall@20"] for record in lines(tmp_path))


@pytest.mark.parametrize("joined", [0, 16])
def test_user_parts_add_up_to_the_exported_embeddings(small_dataset: Dataset, tmp_path: Path, joined: int) -> None:
    weak = {"consolidated_width": joined, "linear_start": False, "learning_rate": 0.001, "epochs": 1}
    trained = run(small_dataset, tmp_path, RECIPE.model_copy(update=weak))
    assert list(trained.user_parts) == ["id", "shared", "image", "text", *(["linear"] if joined else [])]
    total = sum(trained.user_parts.values())
    assert np.allclose(total, trained.user_embeddings, atol=1e-4 * np.abs(trained.user_embeddings).max())
    if joined:
        assert trained.user_embeddings.shape[1] == joined
        assert np.abs(trained.user_parts["linear"]).max() > 0


def test_the_same_seed_gives_the_same_bits_and_another_does_not(small_dataset: Dataset, tmp_path: Path) -> None:
    first, again, other = (
        run(small_dataset, tmp_path / name, seed=seed) for name, seed in (("a", 5), ("b", 5), ("c", 6))
    )
    assert same(first, again)
    assert without_times(lines(tmp_path / "a")) == without_times(lines(tmp_path / "b"))
    assert not same(first, other)


class StoppedError(Exception):
    """Stands for a kill at a chosen step."""


class StopAt:
    """A listener that ends the run at its n-th step."""

    def __init__(self, step: int) -> None:
        self.left = step

    def __call__(self, done: int, total: int) -> None:
        self.left -= 1
        if self.left == 0:
            raise StoppedError


def test_stopped_in_any_epoch_and_resumed_is_as_if_never_stopped(small_dataset: Dataset, tmp_path: Path) -> None:
    undisturbed = run(small_dataset, tmp_path / "undisturbed")
    for stop_at in (1, 7, 40):
        folder = tmp_path / str(stop_at)
        with pytest.raises(StoppedError):
            run(small_dataset, folder, listener=Listener(step=StopAt(stop_at)))
        resumed = run(small_dataset, folder)
        assert same(resumed, undisturbed)
        assert resumed.teachers == undisturbed.teachers
        assert without_times(lines(folder)) == without_times(lines(tmp_path / "undisturbed"))


def test_dropped_modalities_are_drawn_anew_each_epoch_and_alike_after_a_stop(
    small_dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = RECIPE.model_copy(update={"modality_dropout": 0.6, "epochs": 4})
    drawn = []

    def recorded(inputs, recipe, share, generator):
        views = hide_content(inputs, recipe, share, generator)
        drawn.append({name: tuple(view.present.tolist()) for name, view in views.items()})
        return views

    monkeypatch.setattr("trainer.distill.hide_content", recorded)
    undisturbed = run(small_dataset, tmp_path / "undisturbed", recipe)
    assert len(drawn) == len({view["image"] for view in drawn}) == 4
    folder = tmp_path / "stopped"
    steps = -(-len(TripletSampler(small_dataset.interactions(0))) // recipe.batch_size)
    with pytest.raises(StoppedError):
        run(small_dataset, folder, recipe, listener=Listener(step=StopAt(2 * steps + 1)))
    first_time, drawn[:] = drawn[:4], []
    resumed = run(small_dataset, folder, recipe)
    assert drawn == first_time[2:]
    assert same(resumed, undisturbed)
    assert not same(undisturbed, run(small_dataset, tmp_path / "without", RECIPE.model_copy(update={"epochs": 4})))


def test_the_curve_of_missing_content_starts_at_the_student_alone(small_dataset: Dataset, tmp_path: Path) -> None:
    training = TrainingRun(small_dataset, RECIPE, 0, tmp_path, CPU)
    trained = training.finish()
    curve = training.with_content_missing()
    assert list(curve) == ["0", "0.25", "0.5", "0.75"]
    assert curve["0"] == trained.alone["test"]
    assert curve["0.75"] != curve["0"]
    assert curve == training.with_content_missing()
    figures = flat_metrics(replace(trained, missing=curve))
    assert figures["missing.0.75.recall@20"] == curve["0.75"]["recall@20"]


def test_without_content_there_is_no_curve(small_dataset: Dataset, tmp_path: Path) -> None:
    training = TrainingRun(small_dataset, RECIPE.model_copy(update={"modalities": (), "epochs": 1}), 0, tmp_path, CPU)
    training.finish()
    assert training.with_content_missing() == {}


KILLED = """
import pickle, sys
from pathlib import Path
import torch
from trainer.training import TrainingRun
dataset, recipe = pickle.loads(Path(sys.argv[1]).read_bytes())
torch.set_num_threads(int(sys.argv[3]))
print("ready", flush=True)
TrainingRun(dataset, recipe, 0, Path(sys.argv[2]), torch.device("cpu")).finish()
"""


@pytest.mark.slow
def test_killed_by_the_system_at_any_moment_and_resumed(small_dataset: Dataset, tmp_path: Path) -> None:
    import pickle
    import time

    recipe = RECIPE.model_copy(update={"epochs": 60, "patience": 60})
    undisturbed = run(small_dataset, tmp_path / "undisturbed", recipe)
    handed = tmp_path / "arguments"
    handed.write_bytes(pickle.dumps((small_dataset, recipe)))
    folder = tmp_path / "killed"
    command = [sys.executable, "-c", KILLED, str(handed), str(folder), str(torch.get_num_threads())]
    for delay in (0.3, 0.7, 1.1):
        with started(command, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(delay)
            os.kill(process.pid, signal.SIGKILL)
    resumed = run(small_dataset, folder, recipe)
    assert same(resumed, undisturbed)
    assert [record["epoch"] for record in lines(folder)] == list(range(1, len(lines(folder)) + 1))


def test_every_loss_term_is_logged_and_their_weighted_sum_is_the_total(small_dataset: Dataset, tmp_path: Path) -> None:
    run(small_dataset, tmp_path, RECIPE.model_copy(update={"epochs": 2}))
    for record in lines(tmp_path):
        terms = record["losses"]
        assert set(terms) == set(LOSS_TERMS)
        weights = {"bpr": 1, "teachers": 1, "l2": RECIPE.l2, "contrast": RECIPE.contrast, "rank": RECIPE.rank}
        weights |= {"embedding": RECIPE.embedding, "linear": RECIPE.linear}
        assert terms["total"] == pytest.approx(sum(weight * terms[name] for name, weight in weights.items()), rel=1e-4)
        assert record["peak_memory_mb"] > 10
        assert record["seconds"]["training"] > 0


def test_patience_stops_after_the_best_epoch(small_dataset: Dataset, tmp_path: Path) -> None:
    trained = run(small_dataset, tmp_path, RECIPE.model_copy(update={"epochs": 300, "patience": 3}))
    assert trained.epochs == trained.best_epoch + 3


def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_checkpoint(small_dataset: Dataset, tmp_path: Path) -> None:
    run_ = TrainingRun(small_dataset, RECIPE, 0, tmp_path, CPU)
    run_._run_epoch()
    before = (tmp_path / "checkpoint.pt").read_bytes()
    with torch.no_grad():
        run_._model.student.encoders.id.table[0, 0] = torch.nan
    with pytest.raises(DivergenceError, match="bpr"):
        run_.finish()
    assert (tmp_path / "checkpoint.pt").read_bytes() == before


@pytest.mark.parametrize("modalities", [(), ("text",), ("image", "text")])
def test_any_set_of_modalities_trains(small_dataset: Dataset, tmp_path: Path, modalities) -> None:
    trained = run(small_dataset, tmp_path, RECIPE.model_copy(update={"modalities": modalities, "epochs": 2}))
    assert set(trained.teachers) == {"id", "linear", *modalities}
    assert np.isfinite(trained.user_embeddings).all()


def test_without_layers_and_content_it_is_matrix_factorisation(small_dataset: Dataset, tmp_path: Path) -> None:
    trained = run(small_dataset, tmp_path, RECIPE.model_copy(update={"id_layers": 0, "modalities": (), "epochs": 2}))
    assert np.isfinite(trained.user_embeddings).all()
    assert list(trained.user_parts) == ["id"]


def test_a_third_modality_and_one_that_no_item_has(small_dataset: Dataset, tmp_path: Path) -> None:
    image = small_dataset.modalities["image"]
    nothing = replace(image, name="sound", present=np.zeros_like(image.present), features=np.zeros_like(image.features))
    extended = replace(small_dataset, modalities={**small_dataset.modalities, "sound": nothing})
    trained = run(extended, tmp_path, RECIPE.model_copy(update={"epochs": 2}))
    assert np.isfinite(trained.item_embeddings).all()


def test_users_and_items_without_interactions_do_not_make_nan(small_dataset: Dataset, tmp_path: Path) -> None:
    lonely = replace(
        small_dataset,
        users=small_dataset.users[(small_dataset.users > 2) & (small_dataset.items > 2)],
        items=small_dataset.items[(small_dataset.users > 2) & (small_dataset.items > 2)],
        labels=small_dataset.labels[(small_dataset.users > 2) & (small_dataset.items > 2)],
    )
    trained = run(lonely, tmp_path, RECIPE.model_copy(update={"epochs": 2}))
    assert np.isfinite(trained.user_embeddings).all()
    assert np.isfinite(trained.item_embeddings).all()


@pytest.mark.parametrize(
    ("kind", "advice"),
    [
        ("given", "use --split random or --split global_time, or label"),
        ("random", "chosen; bring more interactions: of at least one user 3"),
        ("global_time", "chosen; use --split random, or bring"),
    ],
)
def test_without_validation_data_it_says_what_to_do(
    small_dataset: Dataset, tmp_path: Path, kind: Literal["given", "random", "global_time"], advice: str
) -> None:
    labels = np.where(small_dataset.labels == 1, 0, small_dataset.labels).astype(np.int8)
    with pytest.raises(UserError, match=advice):
        run(replace(small_dataset, labels=labels, split=SplitSpec(kind)), tmp_path)


def test_a_modality_that_the_dataset_lacks_is_named(small_dataset: Dataset, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"'smell'.*image, text"):
        run(small_dataset, tmp_path, RECIPE.model_copy(update={"modalities": ("smell",)}))


class CutShort:
    """A file that takes so many writes, and then fails."""

    def __init__(self, file: IO[bytes], writes: int, reason: BaseException) -> None:
        self.file, self.left, self.reason = file, writes, reason

    def write(self, content: bytes) -> int:
        if self.left == 0:
            raise self.reason
        self.left -= 1
        return self.file.write(content)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)


@pytest.mark.parametrize("reason", [KeyboardInterrupt(), OSError(28, "No space left on device")])
def test_a_checkpoint_that_is_cut_short_says_why_and_leaves_the_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reason: BaseException
) -> None:
    path, state = tmp_path / "checkpoint.pt", {"table": torch.ones(50, 9), "progress": {"epoch": 3}}
    checkpoint.save(path, state)
    before, replacing, allowed = path.read_bytes(), durable.replacing, 0

    @contextmanager
    def cut_short(path: Path) -> Iterator[CutShort]:
        with replacing(path) as file:
            yield CutShort(file, allowed, reason)

    monkeypatch.setattr(durable, "replacing", cut_short)
    for writes in range(6):
        allowed = writes
        with pytest.raises(type(reason)):
            checkpoint.save(path, state)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_damaged_checkpoint_is_named(small_dataset: Dataset, tmp_path: Path) -> None:
    (tmp_path / "checkpoint.pt").write_bytes(b"PK not a checkpoint")
    with pytest.raises(UserError, match=r"checkpoint\.pt.*remove its folder to train anew"):
        run(small_dataset, tmp_path)


def test_the_student_learns_the_linear_teachers_ranking_of_the_drawn_items(small_dataset: Dataset) -> None:
    """The term of a step against scipy's entropy over the exported embeddings."""
    recipe = RECIPE.model_copy(update={"id_edge_drop": 0.0, "item_tempering": 0.0, "linear_users": 5})
    inputs = prepare_inputs(small_dataset, recipe, CPU)
    model = Distillation(inputs, recipe, seed=0)
    embeddings = model.student_embeddings().numpy()
    triplets = next(TripletSampler(inputs.interactions).batches(32, epoch_generator(0, 1)))
    batch = make_batch(triplets, inputs.interactions.shape, recipe, epoch_generator(0, 2), CPU)
    users, items = batch.nodes[batch.linear_users].numpy(), batch.nodes[batch.linear_candidates].numpy()
    assert len(users) == 5
    assert len(set(items)) == recipe.linear_candidates
    assert set(items) <= set(range(USERS, USERS + ITEMS))
    scores = inputs.linear.scores(users)[:, items - USERS] / recipe.linear_temperature
    student = embeddings[users] @ embeddings[items].T
    expected = np.mean([entropy(softmax(p), softmax(q)) for p, q in zip(scores, student, strict=True)])
    assert model.step(triplets, epoch_generator(0, 2))["linear"] == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("width", [8, 60])
def test_the_collaborative_tables_start_from_the_linear_teacher(small_dataset: Dataset, width: int) -> None:
    """Their products are its scores over the temperature, cut to the width by numpy's decomposition."""
    recipe = RECIPE.model_copy(update={"width": width, "linear_temperature": 4.0})
    inputs = prepare_inputs(small_dataset, recipe, CPU)
    model = Distillation(inputs, recipe, seed=0)
    model.start_from_linear_teacher(seed=0)
    left, singular, right = np.linalg.svd(inputs.linear.scores(np.arange(USERS)).numpy() / 4.0, full_matrices=False)
    expected = (left[:, :width] * singular[:width]) @ right[:width]
    for encoders in (model.student.encoders, model.teachers.encoders):
        table = encoders.id.table.detach()
        assert np.allclose(table[:USERS] @ table[USERS:].T, expected, atol=2e-3)
        assert np.allclose(table[:USERS].norm(dim=0), table[USERS:].norm(dim=0), atol=2e-3)


def test_a_start_from_scratch_leaves_the_tables_alone(small_dataset: Dataset) -> None:
    recipe = RECIPE.model_copy(update={"linear_start": False})
    model = Distillation(prepare_inputs(small_dataset, recipe, CPU), recipe, seed=0)
    before = model.student.encoders.id.table.detach().clone()
    model.start_from_linear_teacher(seed=0)
    assert torch.equal(model.student.encoders.id.table, before)


def test_the_linear_teacher_is_joined_only_where_validation_is_better(small_dataset: Dataset, tmp_path: Path) -> None:
    joined = run(small_dataset, tmp_path / "joined", RECIPE.model_copy(update={"consolidated_width": 11}))
    alone = run(small_dataset, tmp_path / "alone", RECIPE.model_copy(update={"consolidated_width": 0}))
    assert alone.user_embeddings.shape == (USERS, RECIPE.width)
    assert alone.validation == alone.alone["validation"] == joined.alone["validation"]
    assert joined.alone["test"] == alone.test
    assert joined.validation["recall@20"] >= alone.validation["recall@20"]
    better = joined.validation["recall@20"] > alone.validation["recall@20"]
    assert joined.item_embeddings.shape == (ITEMS, 11 if better else RECIPE.width)


def test_lightgcn_recipe_is_lightgcn(small_dataset: Dataset) -> None:
    """Without content and distillation a step has LightGCN's gradient, computed here with dense matrices."""
    recipe = RECIPE.model_copy(
        update={"modalities": (), "rank": 0.0, "embedding": 0.0, "contrast": 0.0, "linear": 0.0, "id_edge_drop": 0.0}
    )
    inputs = prepare_inputs(small_dataset, recipe, CPU)
    model = Distillation(inputs, recipe, seed=0)
    table = model.student.encoders.id.table
    start = table.detach().clone().requires_grad_()
    triplets = next(TripletSampler(inputs.interactions).batches(32, epoch_generator(0, 1)))
    model.step(triplets, epoch_generator(0, 1))

    interactions = torch.from_numpy(inputs.interactions.toarray())
    users, items = interactions.shape
    adjacency = torch.zeros(users + items, users + items)
    adjacency[:users, users:], adjacency[users:, :users] = interactions, interactions.T
    factor = adjacency.sum(1).clamp(min=1e-12).rsqrt() * (adjacency.sum(1) > 0)
    adjacency = factor[:, None] * adjacency * factor[None, :]
    final = (start + adjacency @ start + adjacency @ adjacency @ start) / 3
    u, p, n = (torch.from_numpy(t) for t in triplets)
    margin = (final[u] * (final[users + p] - final[users + n])).sum(1)
    penalty = sum((rows**2).sum() for rows in (start[u], start[users + p], start[users + n])) / 2 / len(u)
    loss = -torch.log(torch.sigmoid(margin)).mean() + recipe.l2 * penalty
    loss.backward()
    assert torch.allclose(table.grad, start.grad, atol=1e-6)


def test_gradients_of_the_whole_loss_reach_student_and_teachers(small_dataset: Dataset) -> None:
    inputs = prepare_inputs(small_dataset, RECIPE, CPU)
    model = Distillation(inputs, RECIPE, seed=0)
    generator = epoch_generator(0, 1)
    model.start_epoch(generator)
    model.step(next(TripletSampler(inputs.interactions).batches(64, generator)), generator)
    for side in (model.student, model.teachers):
        for name, parameter in side.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.abs().sum() > 0, name


def test_weights_that_are_all_zero_draw_nothing_and_are_refused(small_dataset: Dataset, tmp_path: Path) -> None:
    weightless = replace(small_dataset, weights=np.zeros(len(small_dataset.users), np.float32))
    recipe = RECIPE.model_copy(update={"draw_by_weight": True})
    with pytest.raises(UserError, match="all training interactions weigh 0, and draw_by_weight=true"):
        TrainingRun(weightless, recipe, 0, tmp_path, CPU)
