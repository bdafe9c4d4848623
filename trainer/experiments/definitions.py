"""The experiments by name: what is trained (``plans``), what is said of it, and which figures its table shows."""

from collections.abc import Callable
from dataclasses import dataclass

from shared.errors import UsageError
from trainer.dataset import Dataset
from trainer.experiments import plans
from trainer.experiments.maps import purity_rows
from trainer.experiments.plans import Outcome, Plan
from trainer.experiments.tables import Column, Row
from trainer.recipe import Recipe

_FIGURES = (Column("recall@20", "R@20"), Column("ndcg@20", "N@20"))
_FIGURES_ALONE = (Column("alone_recall@20", "student alone R@20"), Column("alone_ndcg@20", "student alone N@20"))


@dataclass(frozen=True)
class Experiment:
    """One of the paper's experiments.

    Attributes:
        title: of its section and figure.
        about: a paragraph for readers: what is compared, and how the figures come about.
        plan: from the recipe and the dataset to the trainings.
        rows: from a finished training to lines of the CSV file.
        columns: of the Markdown table.
        condensed: from the CSV file's rows to those that the Markdown table sums up.
        each_seed: whether the section lists every seed's figures too.
        single_seed: whether it is about one model and takes no more seeds.
        own_process: whether each training has a process of its own, whose memory is measured.
    """

    name: str
    title: str
    about: str
    plan: Callable[[Recipe, Dataset], Plan]
    rows: Callable[[Outcome], list[Row]]
    columns: tuple[Column, ...]
    condensed: Callable[[list[Row]], list[Row]] = lambda rows: rows
    each_seed: bool = False
    single_seed: bool = False
    own_process: bool = False


def experiment(name: str) -> Experiment:
    """The experiment of that name.

    Raises:
        UsageError: there is none.
    """
    if name not in _EXPERIMENTS:
        raise UsageError(f"no experiment {name!r}; there are: {', '.join(experiment_names())}")
    return _EXPERIMENTS[name]


def experiment_names() -> list[str]:
    """All, in the order of a report."""
    return list(_EXPERIMENTS)


_EXPERIMENTS: dict[str, Experiment] = {
    each.name: each
    for each in (
        Experiment(
            name="main",
            title="Accuracy",
            about=(
                "The teachers are judged each at its own best epoch. *Student* is what is exported and served; "
                "*student alone*, where it is listed, is the same student before it is joined with the linear "
                "teacher. LightGCN is our own, of the same width."
            ),
            plan=plans.main_plan,
            rows=plans.main_rows,
            columns=(Column("recall@10", "R@10"), Column("recall@20", "R@20"), Column("ndcg@10", "N@10"), _FIGURES[1]),
            each_seed=True,
        ),
        Experiment(
            name="ablation",
            title="Ablation",
            about=(
                "The paper's Table 3: without rank distillation (Eq. 26), without embedding distillation (Eq. 27), "
                "without the gates (Eq. 20: the views' own parts enter Eq. 21 as they are), and without these "
                "three, which leaves Eq. 22 and 23 (the paper's w/o all moreover gives each modality a BPR of its "
                "own). Where the recipe has the linear teacher, which is not in the paper: without it, without the "
                "tables that start from it, and without joining the export with it."
            ),
            plan=plans.ablation_plan,
            rows=plans.ablation_rows,
            columns=(*_FIGURES, *_FIGURES_ALONE),
        ),
        Experiment(
            name="sensitivity",
            title="Sensitivity",
            about=(
                "The paper's Figure 3 and further: one value of the recipe at a time, all others as they are. "
                "`rank` and `embedding` are the weights of the two distillations, `momentum` is mu of Eq. 29, "
                "`rank_temperature` tau of Eq. 16 and 24, `id_layers` and `item_layers` n of Eq. 8 and 12, "
                "`neighbours` k of Eq. 6."
            ),
            plan=plans.sensitivity_plan,
            rows=plans.one_row,
            columns=(*_FIGURES, *_FIGURES_ALONE),
        ),
        Experiment(
            name="modalities",
            title="Contribution of the modalities",
            about=(
                "The paper's Figures 1 and 4. The student is judged alone everywhere, not joined with the linear "
                "teacher. *Inferred with* is the student trained on all views whose other views are then absent "
                "from Eq. 18-21; without `id` it is Eq. 21's content part. *Trained with* knew no other views in "
                "training either (the collaborative one is always there). *Teacher* is the specialist of one view, "
                "trained and inferred on that view only, at its own best epoch. *Exported* is what is served, joined "
                "with the linear teacher."
            ),
            plan=plans.modalities_plan,
            rows=plans.modalities_rows,
            columns=(
                Column("recall@10", "R@10"),
                Column("recall@20", "R@20"),
                Column("ndcg@10", "N@10"),
                _FIGURES[1],
                Column("exported_recall@20", "exported R@20"),
                Column("exported_ndcg@20", "exported N@20"),
            ),
        ),
        Experiment(
            name="efficiency",
            title="Efficiency",
            about=(
                "The paper's Figure 5. Every training ran in a process of its own. Seconds are the median epoch's, "
                "without validation; memory is the highest resident memory of the whole training, the dataset and "
                "the linear teacher included. LightGCN and BPR (LightGCN without layers) are our own, of the same "
                "width and batch size; our loop trains an ID teacher beside them, as it always does, so that their "
                "time and their memory are upper bounds. Served numbers are those of the exported embeddings."
            ),
            plan=plans.efficiency_plan,
            rows=plans.efficiency_rows,
            columns=(
                Column("epoch_seconds", "s an epoch", ".2f"),
                Column("epochs", "epochs", ".0f"),
                Column("training_seconds", "s in all", ".0f"),
                Column("peak_memory_mb", "peak MB", ".0f"),
                Column("peak_device_memory_mb", "peak GPU MB", ".0f"),
                Column("student_parameters_millions", "M params, student", ".2f"),
                Column("teacher_parameters_millions", "M params, teachers", ".2f"),
                Column("served_parameters_millions", "M served", ".2f"),
                *_FIGURES,
            ),
            own_process=True,
        ),
        Experiment(
            name="robustness",
            title="Robustness",
            about=(
                "What the paper claims and does not plot. *Shuffled*: that share of the items that have the "
                "modality hand their content out among themselves at random. *Missing*: that share of each "
                "modality's items, drawn for each modality apart, loses it. The damage is there in training and at "
                "inference; which items suffer follows from the seed. *Without distillation* is the same model with "
                "`rank`, `embedding` and `linear` set to 0."
            ),
            plan=plans.robustness_plan,
            rows=plans.one_row,
            columns=(*_FIGURES, *_FIGURES_ALONE),
        ),
        Experiment(
            name="tsne",
            title="Maps of the embeddings",
            about=(
                "The paper's Figure 6: t-SNE (cosine) of a sample of items, each view of the teachers and of the "
                "student on a map of its own, the fused student (Eq. 21), and the student's views and their fusion "
                "together on one. The table says how many of an item's ten nearest on its map belong to its own "
                "group, and what chance would give; on the joint map the groups are the views, so little more than "
                "chance means that the views share one space."
            ),
            plan=plans.tsne_plan,
            rows=plans.tsne_rows,
            columns=(
                Column("points", "points", ".0f"),
                Column("same_group", "same group"),
                Column("chance", "by chance"),
            ),
            condensed=purity_rows,
            single_seed=True,
        ),
    )
}
