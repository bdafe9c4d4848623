"""What each experiment trains, and which rows it takes from every finished training.

Metrics without a split, such as ``recall@20``, are test figures of the exported embeddings at the best validation
epoch; ``alone_recall@20`` is the student's own, before it was joined with the linear teacher.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from shared.errors import UsageError, UserError
from trainer.dataset import TEST, TRAIN, Dataset, Modality
from trainer.evaluation import Holdout, evaluate
from trainer.experiments.corruption import Corruption
from trainer.experiments.maps import map_rows
from trainer.experiments.runs import Result
from trainer.experiments.tables import Row
from trainer.experiments.trained_model import TrainedModel
from trainer.recipe import Recipe, load_recipe
from trainer.training import LINEAR_TEACHER, Metrics
from trainer.views import ID_VIEW

SENSITIVITY_GRID: dict[str, tuple[float, ...]] = {
    "rank": (0.0, 0.1, 0.5, 1.0, 2.0),
    "embedding": (0.0, 0.01, 0.1, 0.5, 1.0),
    "momentum": (0.9, 0.99, 0.999, 0.9999),
    "rank_temperature": (0.1, 0.2, 0.5, 1.0),
    "id_layers": (1, 2, 3),
    "item_layers": (1, 2, 3),
    "neighbours": (3, 5, 10, 20),
}
SHUFFLED_SHARES = (0.0, 0.25, 0.5, 1.0)
MISSING_SHARES = (0.0, 0.25, 0.5, 0.75)
NO_DISTILLATION: dict[str, Any] = {"rank": 0.0, "embedding": 0.0, "linear": 0.0}
DISTILLED, UNDISTILLED = "student", "without distillation"

_CONTENT_FACTORS = ("item_layers", "neighbours")
_ALONE = "alone_"


@dataclass(frozen=True)
class Trial:
    """One training, over every seed.

    Attributes:
        labels: its columns in the tables.
        recipe: what it is trained with.
        corruption: what is done to its dataset beforehand.
    """

    labels: dict[str, str]
    recipe: Recipe
    corruption: Corruption | None = None

    @property
    def name(self) -> str:
        """For people who wait for it."""
        return ", ".join(self.labels.values())

    def goes_by(self, name: str) -> bool:
        """Whether that is its name, or one of its labels."""
        return name == self.name or name in self.labels.values()


@dataclass(frozen=True)
class Plan:
    """All trainings of an experiment, and what is to be said about those left out."""

    trials: list[Trial]
    remarks: list[str]

    def only(self, names: Sequence[str]) -> "Plan":
        """The trainings of these names alone; all, if there is no name.

        Raises:
            UsageError: no training goes by one of them.
        """
        for name in names:
            if not any(trial.goes_by(name) for trial in self.trials):
                known = "; ".join(dict.fromkeys(trial.name for trial in self.trials))
                raise UsageError(f"--only {name}: this experiment has no such training; it has: {known}")
        if not names:
            return self
        kept = [trial for trial in self.trials if any(trial.goes_by(name) for name in names)]
        left_out = "; ".join(dict.fromkeys(trial.name for trial in self.trials if trial not in kept))
        return Plan(kept, [*self.remarks, *([f"Left out on demand: {left_out}."] if left_out else [])])


@dataclass(frozen=True)
class Outcome:
    """A finished training: where it lies, and what it was trained on."""

    trial: Trial
    seed: int
    dataset: Dataset
    folder: Path
    result: Result
    device: torch.device


def exported_figures(result: Result) -> dict[str, float]:
    """Columns of a training: test metrics, the student's own, the validation figure and epoch they were chosen by."""
    return {
        **result.test,
        **_student_alone(result),
        "validation_recall@20": result.validation["recall@20"],
        "best_epoch": float(result.best_epoch),
        "epochs": float(result.epochs),
    }


def _student_alone(result: Result) -> Metrics:
    return {f"{_ALONE}{name}": value for name, value in result.alone["test"].items()}


def one_row(outcome: Outcome) -> list[Row]:
    """The training's own figures."""
    return [Row(outcome.trial.labels, outcome.seed, exported_figures(outcome.result))]


def _with(recipe: Recipe, **changes: Any) -> Recipe:
    return Recipe.model_validate(recipe.model_dump() | changes)


def _baseline(recipe: Recipe, **changes: Any) -> Recipe:
    """LightGCN at the recipe's width, batches and patience."""
    alike = {key: getattr(recipe, key) for key in ("width", "batch_size", "epochs", "patience")}
    return _with(load_recipe("lightgcn"), **alike, **changes)


def _content(recipe: Recipe, dataset: Dataset) -> list[str]:
    wanted = dataset.modalities if recipe.modalities is None else recipe.modalities
    for name in wanted:
        if name not in dataset.modalities:
            known = ", ".join(sorted(dataset.modalities)) or "none"
            raise UserError(f"dataset {dataset.name}: the recipe wants modality {name!r}; the dataset has: {known}")
    return sorted(wanted)


def _some_content(recipe: Recipe, dataset: Dataset) -> list[str]:
    content = _content(recipe, dataset)
    if not content:
        raise UserError(
            f"dataset {dataset.name}: this experiment is about content and there is none; add <modality>_feat.npy, "
            "or take 'modalities' out of the recipe"
        )
    return content


def main_plan(recipe: Recipe, dataset: Dataset) -> Plan:
    """The student and a LightGCN of its width."""
    del dataset
    return Plan([Trial({"model": "student"}, recipe), Trial({"model": "LightGCN"}, _baseline(recipe))], [])


def main_rows(outcome: Outcome) -> list[Row]:
    """The student, the student alone, each teacher; of a LightGCN nothing but itself."""
    if outcome.trial.labels["model"] != "student":
        return [Row(outcome.trial.labels, outcome.seed, outcome.result.test)]
    result = outcome.result
    by_model = {"student": result.test}
    if outcome.trial.recipe.linear > 0 and outcome.trial.recipe.consolidated_width > 0:
        by_model["student alone"] = result.alone["test"]
    by_model |= {_teacher(name): parts["test"] for name, parts in result.teachers.items()}
    return [Row({"model": model}, outcome.seed, metrics) for model, metrics in by_model.items()]


def _teacher(name: str) -> str:
    return "ID teacher" if name == ID_VIEW else f"{name} teacher"


def ablation_plan(recipe: Recipe, dataset: Dataset) -> Plan:
    """The recipe, and the recipe without one part or several; what it has not cannot be taken from it."""
    del dataset
    three: dict[str, Any] = {"rank": 0.0, "embedding": 0.0, "gates": False}
    variants: dict[str, dict[str, Any]] = {
        "without rank KD": {"rank": 0.0},
        "without embedding KD": {"embedding": 0.0},
        "without gates": {"gates": False},
        "without these three": three,
    }
    if recipe.linear > 0:
        variants |= {
            "without the linear teacher": {"linear": 0.0},
            "without its start tables": {"linear_start": False},
            "without all of these": {**three, "linear": 0.0},
        }
    changed = {name: _with(recipe, **changes) for name, changes in variants.items()}
    skipped = [name for name, each in changed.items() if each == recipe]
    trials = [Trial({"variant": "full"}, recipe)]
    trials += [Trial({"variant": name}, each) for name, each in changed.items() if name not in skipped]
    return Plan(trials, [f"Left out, since the recipe is so already: {', '.join(skipped)}."] if skipped else [])


def ablation_rows(outcome: Outcome) -> list[Row]:
    """Exported alone, a finished training is what it would have been without consolidation."""
    rows = one_row(outcome)
    recipe = outcome.trial.recipe
    if outcome.trial.labels["variant"] == "full" and recipe.linear > 0 and recipe.consolidated_width > 0:
        figures = {**rows[0].figures, **outcome.result.alone["test"]}
        figures["validation_recall@20"] = outcome.result.alone["validation"]["recall@20"]
        rows.append(Row({"variant": "without the consolidation"}, outcome.seed, figures))
    return rows


def sensitivity_plan(recipe: Recipe, dataset: Dataset) -> Plan:
    """Each factor's grid and the recipe's own value, as far as the dataset allows."""
    trials, remarks = [], []
    content = _content(recipe, dataset)
    for factor, grid in SENSITIVITY_GRID.items():
        if factor in _CONTENT_FACTORS and not content:
            continue
        own = getattr(recipe, factor)
        values = sorted({type(own)(value) for value in grid} | {own})
        if factor == "neighbours":
            most = min(_available_neighbours(dataset.modalities[name]) for name in content)
            beyond = [str(value) for value in values if value > most and value != own]
            values = [value for value in values if value <= most or value == own]
            if beyond:
                remarks.append(f"There are {most} neighbours an item; `neighbours` {', '.join(beyond)} was left out.")
        trials += [
            Trial({"factor": factor, "value": f"{value:.10g}"}, _with(recipe, **{factor: value})) for value in values
        ]
    return Plan(trials, remarks)


def _available_neighbours(modality: Modality) -> int:
    return int(modality.present.sum()) if modality.neighbours is None else modality.neighbours.shape[1]


def modalities_plan(recipe: Recipe, dataset: Dataset) -> Plan:
    """The recipe with all its content, with none, and with one modality at a time; one student each.

    Fewer views at inference are the first student's, and would be compared with several that were joined.
    """
    content = _some_content(recipe, dataset)
    remarks = [f"One student of the recipe's {recipe.students} was trained."] if recipe.students > 1 else []
    recipe = _with(recipe, students=1)
    trials = [Trial({"setting": "student", "views": "all"}, recipe)]
    trials.append(Trial({"setting": "trained with", "views": ID_VIEW}, _with(recipe, modalities=())))
    if len(content) > 1:
        trials += [
            Trial({"setting": "trained with", "views": f"{ID_VIEW} + {name}"}, _with(recipe, modalities=(name,)))
            for name in content
        ]
    return Plan(trials, remarks)


def modalities_rows(outcome: Outcome) -> list[Row]:
    """Figures of the student and of the export; with all content also those of fewer views, and each teacher's."""
    result = outcome.result
    exported = {f"exported_{name}": value for name, value in result.test.items()}
    own = Row(outcome.trial.labels, outcome.seed, {**result.alone["test"], **exported})
    if outcome.trial.labels["setting"] != "student":
        return [own]
    content = _content(outcome.trial.recipe, outcome.dataset)
    kept: list[tuple[str, ...]] = [(name,) for name in (ID_VIEW, *content)]
    if len(content) > 1:
        kept += [(ID_VIEW, name) for name in content]
    rows = [own, *_restricted_rows(outcome, kept)]
    rows += [
        Row({"setting": "teacher", "views": name}, outcome.seed, parts["test"])
        for name, parts in result.teachers.items()
        if name != LINEAR_TEACHER
    ]
    return rows


def _restricted_rows(outcome: Outcome, choices: Iterable[tuple[str, ...]]) -> list[Row]:
    dataset = outcome.dataset
    model = TrainedModel(outcome.folder, dataset, outcome.trial.recipe, outcome.seed, outcome.device)
    test = Holdout(dataset.interactions(TRAIN), dataset.interactions(TEST))
    return [
        Row({"setting": "inferred with", "views": " + ".join(kept)}, outcome.seed, evaluate(model.student(kept), test))
        for kept in choices
    ]


def efficiency_plan(recipe: Recipe, dataset: Dataset) -> Plan:
    """The recipe, a LightGCN and matrix factorisation by BPR."""
    del dataset
    recipes = {
        "student and teachers": recipe,
        "LightGCN": _baseline(recipe),
        "BPR": _baseline(recipe, id_layers=0),
    }
    return Plan([Trial({"model": model}, each) for model, each in recipes.items()], [])


def efficiency_rows(outcome: Outcome) -> list[Row]:
    """Time, memory, size and accuracy."""
    result = outcome.result
    measured = {
        "epoch_seconds": result.epoch_seconds,
        "epochs": float(result.epochs),
        "training_seconds": result.seconds,
        "peak_memory_mb": result.peak_memory_mb,
        "student_parameters_millions": result.student_parameters / 1e6,
        "teacher_parameters_millions": result.teacher_parameters / 1e6,
        "served_parameters_millions": result.served_parameters / 1e6,
    }
    if result.peak_device_memory_mb is not None:
        measured["peak_device_memory_mb"] = result.peak_device_memory_mb
    return [Row(outcome.trial.labels, outcome.seed, {**measured, **result.test})]


def robustness_plan(recipe: Recipe, dataset: Dataset) -> Plan:
    """Every damage in every share, with distillation and without."""
    content = tuple(_some_content(recipe, dataset))
    damages = {"content missing": [Corruption("missing", content, share) for share in MISSING_SHARES]}
    for name in content:
        damages[f"{name} shuffled"] = [Corruption("shuffled", (name,), share) for share in SHUFFLED_SHARES]
    models = {DISTILLED: recipe, UNDISTILLED: _with(recipe, **NO_DISTILLATION)}
    trials = [
        Trial({"damage": damage, "share": f"{corruption.share:g}", "model": model}, each, corruption)
        for damage, corruptions in damages.items()
        for corruption in corruptions
        for model, each in models.items()
    ]
    return Plan(trials, [])


def tsne_plan(recipe: Recipe, dataset: Dataset) -> Plan:
    """One training."""
    del dataset
    return Plan([Trial({"variant": "full"}, recipe)], [])


def tsne_rows(outcome: Outcome) -> list[Row]:
    """Every point of every map."""
    model = TrainedModel(outcome.folder, outcome.dataset, outcome.trial.recipe, outcome.seed, outcome.device)
    return map_rows(model, outcome.dataset, outcome.seed)
