"""The recipe: every hyper-parameter of a training run, as data. Unknown keys are refused.

Packaged recipes are the YAML files of ``trainer/recipes``; a path to a YAML file works as well. A file with
``base: NAME`` builds on another recipe, and single values are set with ``--set key=value``. The choices behind the
defaults are listed in ``trainer/README.md``.
"""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from shared.errors import UsageError
from trainer.packaged_recipes import RECIPES, packaged_recipes
from trainer.student import FusionPooling
from trainer.views import LayerPooling


class Recipe(BaseModel):
    """Hyper-parameters of one run; the paper's symbol stands in brackets where it has one."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    modalities: tuple[str, ...] | None = Field(
        None, description="content modalities to use; all that the dataset has by default"
    )
    width: int = Field(64, ge=1, description="embedding width [d]")
    id_layers: int = Field(2, ge=0, description="layers over the user-item graph [n, Eq. 8]")
    item_layers: int = Field(1, ge=0, description="layers over each item-item graph [n, Eq. 12]")
    student_pooling: LayerPooling = Field("last", description="Eq. 12's layers in the student")
    teacher_pooling: LayerPooling = Field("last", description="Eq. 12's layers in the teachers")
    fusion: FusionPooling = Field("sum", description="how Eq. 21 joins the content terms")
    gates: bool = Field(True, description="whether the collaborative view gates each content view's own part [Eq. 20]")
    item_tempering: float = Field(
        0.15, ge=0, le=1, description="power of an item's norm that its embedding is divided by at inference [Eq. 31]"
    )
    neighbours: int = Field(10, ge=1, description="nearest items an item, itself included [k, Eq. 6]")
    self_neighbour: bool = Field(True, description="whether an item is its own neighbour")
    cosine_edges: bool = Field(False, description="weigh item-item edges by cosine instead of 1")
    feature_width: int = Field(
        128, ge=0, description="columns that wider content features are reduced to, once [H, Eq. 10]; 0 keeps them all"
    )
    id_edge_drop: float = Field(0.8, ge=0, lt=1, description="share of the user-item edges left out of an epoch")
    modality_dropout: float = Field(
        0.0, ge=0, lt=1, description="share of each modality's items whose content is hidden in an epoch"
    )

    learning_rate: float = Field(3e-3, gt=0)
    batch_size: int = Field(4096, ge=1, description="training triplets a step [B]")
    draw_by_weight: bool = Field(
        False, description="whether an epoch has an interaction with the chance of its weight over the largest one"
    )
    l2: float = Field(1e-3, ge=0, description="weight of the L2 term [lambda, Eq. 22]")
    contrast: float = Field(0.05, ge=0, description="weight of InfoNCE [lambda_cl, Eq. 30]")
    contrast_temperature: float = Field(0.2, gt=0, description="InfoNCE's temperature [Eq. 23]")
    contrast_nodes: int = Field(512, ge=2, description="users, and items, of a batch that InfoNCE compares")
    rank: float = Field(0.5, ge=0, description="weight of rank distillation [lambda_rank, Eq. 30]")
    rank_temperature: float = Field(0.2, gt=0, description="temperature of the rankings [tau, Eq. 16 and 24]")
    rank_users: int = Field(512, ge=1, description="users of a batch that rank distillation compares")
    rank_candidates: int = Field(256, ge=2, description="items drawn from the in-batch candidate set [C]")
    embedding: float = Field(0.1, ge=0, description="weight of embedding distillation [lambda_emb, Eq. 30]")
    linear: float = Field(2.0, ge=0, description="weight of the linear teacher's rankings; 0 does without it")
    linear_start: bool = Field(True, description="whether the collaborative tables start from the linear teacher")
    linear_temperature: float = Field(2.0, gt=0, description="of its scores, in a user's standard deviations")
    linear_users: int = Field(256, ge=1, description="users of a batch that learn from the linear teacher")
    linear_candidates: int = Field(2048, ge=2, description="items drawn a step that it ranks")
    linear_ridge: float = Field(400.0, gt=0, description="L2 weight of its regression")
    linear_content: float = Field(13.0, ge=0, description="weight of the item-item graphs in its regression")
    students: int = Field(
        1,
        ge=1,
        description="students of different seeds, trained one after another and joined in the exported embeddings; one "
        "where nothing is joined",
    )
    consolidated_width: int = Field(
        256, ge=0, description="width of the exported embeddings, joined with the linear teacher; 0 exports the student"
    )
    consolidation_focus: int = Field(
        50,
        ge=0,
        description="best items of each user whose scores the joined embeddings are to keep; 0 means all alike",
    )
    momentum: float = Field(0.999, ge=0, le=1, description="the teachers' memory [mu, Eq. 29]")

    epochs: int = Field(300, ge=1, description="at most")
    patience: int = Field(20, ge=1, description="epochs without a better validation recall@20 before stopping")


def load_recipe(name: str, overrides: Iterable[str] = ()) -> Recipe:
    """Read a packaged recipe by name or a YAML file by path, then apply ``key=value`` overrides.

    Raises:
        UsageError: no such recipe, not YAML, an unknown key or a value of the wrong kind.
    """
    values = _read(name)
    for override in overrides:
        key, separator, text = override.partition("=")
        if not separator:
            raise UsageError(f"--set {override}: write it as key=value, for example --set learning_rate=0.001")
        values[key.strip()] = _parse(text, f"--set {override}")
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        raise UsageError(_explain(name, error)) from None


def _read(name: str, above: tuple[str, ...] = ()) -> dict[str, Any]:
    """The values of a recipe over those of its ``base``; ``above`` are the recipes that build on it."""
    if name in packaged_recipes():
        text = (RECIPES / f"{name}.yaml").read_text(encoding="utf-8")
    else:
        try:
            text = Path(name).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            known = ", ".join(packaged_recipes())
            reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
            raise UsageError(
                f"recipe {name!r} cannot be read ({reason}); give a YAML file or one of: {known}"
            ) from None
    values = _parse(text, f"recipe {name}") or {}
    if not isinstance(values, Mapping):
        raise UsageError(f"recipe {name}: expected a mapping of keys to values, found {type(values).__name__}")
    own = dict(values)
    base = own.pop("base", None)
    if base is None:
        return own
    if not isinstance(base, str):
        raise UsageError(f"recipe {name}: base: write the name of a recipe, or a YAML file, not {base!r}")
    place = base if base in packaged_recipes() else str(Path(name).parent / base)
    if place in (*above, name):
        raise UsageError(f"recipe {name}: base: {base} builds on this recipe itself; leave one of them out")
    return _read(place, (*above, name)) | own


def _parse(text: str, origin: str) -> Any:
    try:
        return yaml.load(text, Loader=_Loader)  # noqa: S506 - a SafeLoader that also reads 1e-3 as a number
    except yaml.YAMLError as error:
        raise UsageError(f"{origin}: not valid YAML: {error}") from None


class _Loader(yaml.SafeLoader):
    """YAML 1.1 reads ``1e-3`` as text; people mean a number."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"),
    list("-+0123456789."),
)


def _explain(name: str, error: ValidationError) -> str:
    lines = []
    for problem in error.errors():
        key = ".".join(str(part) for part in problem["loc"])
        if problem["type"] == "extra_forbidden":
            lines.append(f"unknown key {key!r}; the keys are: {', '.join(Recipe.model_fields)}")
        else:
            lines.append(f"{key}: {problem['msg']} (found {problem['input']!r})")
    return f"recipe {name}: " + "; ".join(lines)
