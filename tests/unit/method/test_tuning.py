"""The search for a recipe: it goes on where it was stopped, gives up bad points, and never sees the test split."""

import csv
import json
import pickle
import re
import signal
import sqlite3
import struct
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from shared.errors import UserError
from tests.processes import started
from trainer import tuning
from trainer.cli.app import app
from trainer.dataset import TEST, Dataset
from trainer.recipe import Recipe, load_recipe
from trainer.training import Listener, TrainingRun
from trainer.tuning import Choice, Search, Span, Trial, Watcher, best_trial, search_space, tune

CPU = torch.device("cpu")
BASE = Recipe(
    width=8,
    batch_size=128,
    epochs=30,
    neighbours=5,
    rank_candidates=16,
    linear_candidates=30,
    linear_ridge=20.0,
    consolidated_width=0,
    learning_rate=0.01,
)
SPACE = {"learning_rate": Span(1e-3, 1e-1, log=True), "width": Choice((4, 8, 16)), "item_tempering": Span(0.0, 0.5)}


@pytest.fixture
def search(small_dataset: Dataset) -> Search:
    return Search(small_dataset, BASE, "base.yaml", SPACE, epochs=2, seed=3)


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "trials.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def without_times(trials: list[Trial]) -> list[Trial]:
    return [replace(trial, seconds=None) for trial in trials]


def ended_points(trials: list[Trial]) -> list[tuple[dict, float | None]]:
    return [(trial.settings, trial.value) for trial in trials if trial.has_ended]


@pytest.mark.slow
def test_the_same_seed_gives_the_same_points_and_figures_and_another_does_not(search: Search, tmp_path: Path) -> None:
    first, again = (without_times(tune(search, tmp_path / name, 4, CPU)) for name in ("a", "b"))
    other = tune(replace(search, seed=4), tmp_path / "c", 2, CPU)
    assert first == again
    assert [trial.state for trial in first] == ["complete"] * 4
    assert first[1].settings != other[1].settings


def test_the_first_point_is_the_base_and_all_points_lie_in_the_space(search: Search, tmp_path: Path) -> None:
    trials = tune(search, tmp_path, 4, CPU)
    assert trials[0].settings == {"learning_rate": 0.01, "width": 8, "item_tempering": BASE.item_tempering}
    for trial in trials:
        assert 1e-3 <= trial.settings["learning_rate"] <= 1e-1
        assert trial.settings["width"] in (4, 8, 16)
        assert trial.settings["item_tempering"] == float(f"{trial.settings['item_tempering']:.3g}")


def test_taken_up_again_it_repeats_nothing_and_goes_on_as_if_never_left(search: Search, tmp_path: Path) -> None:
    undisturbed = tune(search, tmp_path / "undisturbed", 4, CPU)
    begun: list[int] = []
    watcher = Watcher(begin=lambda number, ended: begun.append(number))
    tune(search, tmp_path / "halved", 2, CPU, watcher=watcher)
    tune(search, tmp_path / "halved", 2, CPU, watcher=watcher)
    halved = tune(search, tmp_path / "halved", 4, CPU, watcher=watcher)
    assert begun == [0, 1, 2, 3]
    assert without_times(halved) == without_times(undisturbed)


def test_an_interrupted_point_is_tried_again_first(search: Search, tmp_path: Path) -> None:
    undisturbed = tune(search, tmp_path / "undisturbed", 3, CPU)

    def interrupt(record: object, progress: object) -> None:
        raise KeyboardInterrupt

    folder = tmp_path / "interrupted"
    tune(search, folder, 1, CPU)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            tune(search, folder, 3, CPU, watcher=Watcher(training=Listener(epoch=interrupt)))
    resumed = tune(search, folder, 3, CPU)
    assert [trial.state for trial in resumed] == ["complete", "interrupted", "interrupted", "complete", "complete"]
    assert ended_points(resumed) == ended_points(undisturbed)
    assert not (folder / "trial").exists()


def test_interrupted_before_it_is_known_what_it_tries_the_base_is_tried_first_all_the_same(
    search: Search, tmp_path: Path
) -> None:
    def interrupt(number: int, ended: int) -> None:
        raise KeyboardInterrupt

    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            tune(search, tmp_path, 1, CPU, watcher=Watcher(begin=interrupt))
    resumed = tune(search, tmp_path, 1, CPU)
    assert [trial.state for trial in resumed] == ["interrupted", "interrupted", "complete"]
    assert resumed[-1].settings == {key: getattr(BASE, key) for key in SPACE}


KILLED = """
import pickle, sys
from pathlib import Path
import torch
from trainer.training import Listener
from trainer.tuning import Watcher, tune
torch.set_num_threads(int(sys.argv[3]))
trials = []
def step(done, total):
    if len(trials) == 2:
        print("in the second trial", flush=True)
        import time
        time.sleep(60)
tune(pickle.loads(Path(sys.argv[1]).read_bytes()), Path(sys.argv[2]), 3, torch.device("cpu"),
     watcher=Watcher(begin=lambda number, ended: trials.append(number), training=Listener(step=step)))
"""


@pytest.mark.slow
def test_killed_in_a_trial_the_study_is_still_good(search: Search, tmp_path: Path) -> None:
    undisturbed = tune(search, tmp_path / "undisturbed", 3, CPU)
    handed, folder = tmp_path / "search", tmp_path / "killed"
    handed.write_bytes(pickle.dumps(search))
    command = [sys.executable, "-c", KILLED, str(handed), str(folder), str(torch.get_num_threads())]
    with started(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline()
        with pytest.raises(UserError, match="another process"):
            tune(search, folder, 3, CPU)
        process.kill()
        process.wait()
    assert len(rows(folder)) == 1
    assert load_recipe(str(folder / "best.yaml"))
    resumed = tune(search, folder, 3, CPU)
    assert [trial.state for trial in resumed] == ["complete", "interrupted", "complete", "complete"]
    assert ended_points(resumed) == ended_points(undisturbed)


def test_a_bad_point_is_pruned(search: Search, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trials that begin from scratch and do not learn rank at random; the search gives them up before their end."""
    monkeypatch.setattr(tuning, "TRIALS_BEFORE_PRUNING", 1)
    base = BASE.model_copy(update={"linear": 0.0, "learning_rate": 0.03})
    space = {"learning_rate": Choice((0.03, 1e-9))}
    trials = tune(replace(search, base=base, space=space, epochs=8), tmp_path, 6, CPU)
    good = [trial for trial in trials if trial.settings["learning_rate"] == 0.03]
    bad = [trial for trial in trials if trial.settings["learning_rate"] == 1e-9]
    assert {trial.state for trial in good} == {"complete"}
    assert bad
    assert {(trial.state, trial.epochs) for trial in bad} == {("pruned", 3)}
    assert max(trial.value for trial in bad) < min(trial.value for trial in good)


def test_a_point_that_diverges_does_not_end_the_search(search: Search, tmp_path: Path) -> None:
    space = {"learning_rate": Choice((0.01, 1e30))}
    trials = tune(replace(search, space=space), tmp_path, 6, CPU)
    assert {(trial.settings["learning_rate"], trial.state) for trial in trials} == {
        (0.01, "complete"),
        (1e30, "diverged"),
    }
    assert best_trial(trials).settings == {"learning_rate": 0.01}


def test_the_best_recipe_gives_its_figure_again(search: Search, tmp_path: Path) -> None:
    best = best_trial(tune(replace(search, epochs=3), tmp_path / "study", 3, CPU))
    found = load_recipe(str(tmp_path / "study" / "best.yaml"))
    assert found == BASE.model_copy(update=best.settings)
    run = TrainingRun(
        search.dataset, found.model_copy(update={"epochs": 3}), search.seed, tmp_path / "run", CPU
    ).finish()
    assert run.validation["recall@20"] == best.value
    assert f"{best.value:.6f}" in (tmp_path / "study" / "best.yaml").read_text()


def test_the_best_recipe_of_several_students_says_how_its_figure_comes_again(search: Search, tmp_path: Path) -> None:
    several = {"consolidated_width": 16, "linear_start": False, "learning_rate": 0.001, "students": 2}
    (trial,) = tune(replace(search, base=BASE.model_copy(update=several), epochs=3), tmp_path / "study", 1, CPU)
    path = tmp_path / "study" / "best.yaml"
    as_said = load_recipe(str(path), re.findall(r"--set (\S+)", path.read_text()))
    run = TrainingRun(search.dataset, as_said, search.seed, tmp_path / "run", CPU).finish()
    assert run.validation["recall@20"] == trial.value


def test_a_trial_trains_one_student_and_the_recipe_found_keeps_its_number(search: Search, tmp_path: Path) -> None:
    joined = replace(search, base=BASE.model_copy(update={"consolidated_width": 16}))
    several = replace(joined, base=joined.base.model_copy(update={"students": 3}))
    stages: list[str] = []
    trials = tune(several, tmp_path / "three", 2, CPU, watcher=Watcher(training=Listener(stage=stages.append)))
    assert without_times(trials) == without_times(tune(joined, tmp_path / "one", 2, CPU))
    assert "consolidated embeddings" in stages
    assert not [stage for stage in stages if stage.startswith("student")]
    assert load_recipe(str(tmp_path / "three" / "best.yaml")).students == 3


def test_what_a_trial_is_judged_by_includes_the_join_with_the_linear_teacher(search: Search, tmp_path: Path) -> None:
    weak = {"consolidated_width": 11, "linear_start": False, "learning_rate": 0.001}
    joined = replace(search, base=BASE.model_copy(update=weak))
    (trial,) = tune(joined, tmp_path / "study", 1, CPU)
    found = load_recipe(str(tmp_path / "study" / "best.yaml"), ["epochs=2"])
    run = TrainingRun(search.dataset, found, search.seed, tmp_path / "run", CPU).finish()
    assert trial.value == run.validation["recall@20"]
    assert run.validation["recall@20"] > run.alone["validation"]["recall@20"]


def test_the_table_has_a_row_a_trial(search: Search, tmp_path: Path) -> None:
    trials = tune(search, tmp_path, 3, CPU)
    table = rows(tmp_path)
    assert list(table[0]) == ["number", "state", "validation recall@20", *SPACE, "epochs", "seconds"]
    assert [float(row["validation recall@20"]) for row in table] == [trial.value for trial in trials]
    assert [float(row["learning_rate"]) for row in table] == [trial.settings["learning_rate"] for trial in trials]
    assert {row["epochs"] for row in table} == {"2"}
    assert all(float(row["seconds"]) > 0 for row in table)


def test_the_test_split_changes_nothing_and_leaves_no_trace(search: Search, tmp_path: Path) -> None:
    data = search.dataset
    others = np.random.default_rng(1).permutation(np.flatnonzero(data.labels == TEST))[::2]
    kept = np.setdiff1d(np.arange(len(data.labels)), others)
    fewer = replace(data, users=data.users[kept], items=data.items[kept], labels=data.labels[kept])
    trials, with_fewer = (
        tune(replace(search, dataset=each, epochs=6), tmp_path / name, 2, CPU)
        for name, each in (("all", data), ("fewer", fewer))
    )
    assert without_times(trials) == without_times(with_fewer)

    best = load_recipe(str(tmp_path / "all" / "best.yaml"), ["epochs=6"])
    run = TrainingRun(data, best, search.seed, tmp_path / "run", CPU).finish()
    judged = [run.test, *(parts["test"] for parts in run.teachers.values())]
    figures = {value for metrics in judged for value in metrics.values()}
    files = [path for path in (tmp_path / "all").rglob("*") if path.is_file()]
    assert {path.name for path in files} == {"study.db", "trials.csv", "best.yaml", "lock"}
    for content in (path.read_bytes() for path in files):
        for figure in figures:
            assert f"{figure:.6f}".encode() not in content
            assert repr(figure).encode() not in content
            assert struct.pack(">d", figure) not in content
    stored = [float(row["validation recall@20"]) for row in rows(tmp_path / "all")]
    database = (tmp_path / "all" / "study.db").read_bytes()
    assert all(struct.pack(">d", value) in database for value in stored)  # figures can be found at all


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"base": BASE.model_copy(update={"neighbours": 4})}, "another recipe: neighbours 5 then, 4 now"),
        ({"space": {**SPACE, "rank": Span(0.1, 1.0)}}, "another search space: rank absent then"),
        ({"space": {**SPACE, "item_tempering": Span(0.0, 0.4)}}, "another search space: item_tempering"),
        ({"seed": 9}, "another seed: 3 then, 9 now"),
        ({"epochs": 5}, "another number of epochs: 2 then, 5 now"),
    ],
)
def test_another_search_in_the_same_folder_is_refused(search: Search, tmp_path: Path, change, message) -> None:
    tune(search, tmp_path, 1, CPU)
    before = (tmp_path / "trials.csv").read_text()
    with pytest.raises(UserError, match=message):
        tune(replace(search, **change), tmp_path, 2, CPU)
    assert (tmp_path / "trials.csv").read_text() == before


def test_other_data_in_the_same_folder_is_refused(search: Search, tmp_path: Path) -> None:
    tune(search, tmp_path, 1, CPU)
    with pytest.raises(UserError, match="another dataset"):
        tune(replace(search, dataset=replace(search.dataset, fingerprint="1" * 64)), tmp_path, 2, CPU)


def test_a_damaged_study_is_named(search: Search, tmp_path: Path) -> None:
    tune(search, tmp_path, 1, CPU)
    (tmp_path / "study.db").write_bytes(b"no database at all" * 100)
    with pytest.raises(UserError, match=r"study\.db: not a usable study"):
        tune(search, tmp_path, 2, CPU)


def test_after_the_time_is_up_no_trial_begins(search: Search, tmp_path: Path) -> None:
    trials = tune(search, tmp_path, 5, CPU, minutes=0)
    assert not [trial for trial in trials if trial.has_ended]
    assert not (tmp_path / "best.yaml").exists()


def test_the_space_leaves_alone_what_is_fixed_or_switched_off() -> None:
    assert set(search_space(Recipe())) == set(tuning.SEARCH_SPACE)
    assert set(search_space(Recipe(), ["width", "no such key"])) == set(tuning.SEARCH_SPACE) - {"width"}
    without_linear = set(tuning.SEARCH_SPACE) - set(search_space(Recipe(linear=0)))
    assert without_linear == {"linear", "linear_temperature", "linear_ridge", "linear_content"}
    assert set(search_space(load_recipe("lightgcn"))) == {"width", "id_layers", "learning_rate", "l2"}
    with pytest.raises(UserError, match="nothing is left"):
        search_space(Recipe(), tuning.SEARCH_SPACE)


def test_the_space_is_widened_until_it_holds_the_base() -> None:
    space = search_space(Recipe(width=96, linear=9.0, learning_rate=1e-5, l2=1e-3))
    assert space["width"] == Choice((64, 96, 128))
    assert space["linear"] == Span(0.5, 9.0, log=True)
    assert space["learning_rate"] == Span(1e-5, 1e-2, log=True)
    assert space["l2"] == tuning.SEARCH_SPACE["l2"]


def test_a_base_outside_the_space_is_the_first_point_to_the_last_digit(search: Search, tmp_path: Path) -> None:
    odd = {"width": 6, "learning_rate": 0.2, "item_tempering": 0.12345}
    base = BASE.model_copy(update=odd)
    (trial,) = tune(replace(search, base=base, space=search_space(base, space=SPACE)), tmp_path, 1, CPU)
    assert trial.settings == odd


def test_every_value_of_the_space_is_a_recipe() -> None:
    for key, values in tuning.SEARCH_SPACE.items():
        ends = values.options if isinstance(values, Choice) else (values.low, values.high)
        for value in ends:
            assert getattr(Recipe.model_validate({key: value}), key) == value


def test_without_optuna_it_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    result = CliRunner().invoke(app, ["tune", str(tmp_path), "--out", str(tmp_path / "study")])
    assert isinstance(result.exception, UserError)
    assert "experiments" in str(result.exception)


@pytest.mark.slow
def test_the_command_is_interrupted_cleanly_and_taken_up_again(tmp_path: Path) -> None:
    def mts4mm(*words: object) -> list[str]:
        return [sys.executable, "-m", "trainer.cli", *map(str, words)]

    shop, out = tmp_path / "shop", tmp_path / "study"
    subprocess.run(mts4mm("demo-data", shop, "--users", 60, "--items", 60), check=True, capture_output=True)
    command = mts4mm("tune", shop, "--out", out, "--recipe", "demo", "--set", "width=8", "--epochs", 2, "--trials", 400)
    with started(command, stderr=subprocess.PIPE, text=True) as process:
        while not (out / "best.yaml").exists():
            assert process.poll() is None
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
        assert process.returncode == 130, said
    assert "Traceback" not in said
    assert "give the same command again" in said
    with sqlite3.connect(out / "study.db") as database:
        ended = database.execute("select count(*) from trials where state in ('COMPLETE', 'PRUNED')").fetchone()[0]
    again = [word if word != "400" else str(ended + 1) for word in [*command, "--json"]]
    finished = subprocess.run(again, capture_output=True, text=True, check=True)
    assert json.loads(finished.stdout)["trials"]["complete"] >= 1
    assert "width" not in rows(out)[0]
    assert load_recipe(str(out / "best.yaml")).width == 8
