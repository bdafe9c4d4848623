"""Everything that can be told of a dataset directory before training on it: faults and a summary."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainer.dataset.contents import Contents, read_contents
from trainer.dataset.features import Modality
from trainer.dataset.findings import MAX_EXAMPLES, Example, Finding, Findings
from trainer.dataset.splits import TEST, TRAIN, VALIDATION, SplitSpec

_SPLITS = {"train": TRAIN, "validation": VALIDATION, "test": TEST}


@dataclass(frozen=True)
class Summary:
    """Figures of a directory, over what could be read of it.

    Attributes:
        columns: what the interactions file calls the user, the item and what else is read of it.
        ignored_columns: its others.
        interactions: each (user, item) pair once.
        different_weights: of the interactions; 0 where they have none.
        density: interactions / (users x items).
        cold_items: items without interactions.
        split: kind of the split.
        split_sizes: interactions of ``train``, ``validation`` and ``test``.
        coverage: for each modality the percentage of items that have it.
        users_below_core: users with fewer than ``core`` interactions.
        items_below_core: items with fewer than ``core``, but some.
        core_users: what is left after users and items below ``core`` are taken away until there are none;
            ``core_items`` and ``core_interactions`` likewise.
    """

    columns: dict[str, str]
    ignored_columns: tuple[str, ...]
    users: int
    items: int
    interactions: int
    different_weights: int
    density: float
    cold_items: int
    split: str
    split_sizes: dict[str, int]
    coverage: dict[str, float]
    core: int
    users_below_core: int
    items_below_core: int
    core_users: int
    core_items: int
    core_interactions: int


@dataclass(frozen=True)
class Report:
    """Findings, errors first, and figures; ``summary`` is None where there is no directory."""

    directory: str
    findings: tuple[Finding, ...]
    summary: Summary | None

    @property
    def ok(self) -> bool:
        """Whether there is no error; warnings are allowed."""
        return not Findings(list(self.findings)).errors

    def as_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return {
            "directory": self.directory,
            "ok": self.ok,
            "findings": [finding.as_dict() for finding in self.findings],
            "summary": asdict(self.summary) if self.summary else None,
        }


def validate_directory(
    directory: Path,
    *,
    core: int = 5,
    split: SplitSpec | None = None,
    progress: Callable[[str], None] = lambda what: None,
) -> Report:
    """Check a directory as far as it can be read; a fault in one file does not hide those in others.

    Args:
        directory: of a user's files.
        core: interactions that a user and an item should have at least.
        split: that the directory is to be loaded with; None as in ``load_dataset``.
        progress: told what is being read.
    """
    findings = Findings()
    contents = read_contents(directory, split, findings, progress)
    summary = None
    if contents is not None:
        progress("figures")
        summary = _summary(contents, core)
        _check_split(contents, summary, findings)
        _check_coverage(contents, findings)
        _check_core(contents, summary, findings)
    found = findings.errors + [finding for finding in findings.found if finding not in findings.errors]
    return Report(str(directory), tuple(found), summary)


def _summary(contents: Contents, core: int) -> Summary:
    users, items, count = len(contents.user_ids), len(contents.item_ids), len(contents.users)
    per_user, per_item = _degrees(contents)
    labels = np.zeros(0, np.int8) if contents.labels is None else contents.labels
    sizes = np.bincount(labels, minlength=3)
    kept_users, kept_items = _k_core(contents.users, contents.items, core)
    return Summary(
        columns=contents.columns,
        ignored_columns=contents.ignored_columns,
        users=users,
        items=items,
        interactions=count,
        different_weights=0 if contents.weights is None else len(np.unique(contents.weights)),
        density=count / (users * items) if count else 0.0,
        cold_items=int((per_item == 0).sum()),
        split=contents.split.kind,
        split_sizes={name: int(sizes[label]) for name, label in _SPLITS.items()},
        coverage={name: 100 * float(each.present.mean()) for name, each in contents.modalities.items()},
        core=core,
        users_below_core=int((per_user < core).sum()),
        items_below_core=int(((per_item < core) & (per_item > 0)).sum()),
        core_users=len(np.unique(kept_users)),
        core_items=len(np.unique(kept_items)),
        core_interactions=len(kept_users),
    )


def _degrees(contents: Contents) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    return (
        np.bincount(contents.users, minlength=len(contents.user_ids)),
        np.bincount(contents.items, minlength=len(contents.item_ids)),
    )


def _k_core(
    users: NDArray[np.int64], items: NDArray[np.int64], core: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The interactions left when users and items with fewer than ``core`` are dropped, over and over."""
    while len(users):
        keep = (np.bincount(users)[users] >= core) & (np.bincount(items)[items] >= core)
        if keep.all():
            break
        users, items = users[keep], items[keep]
    return users, items


def _check_split(contents: Contents, summary: Summary, findings: Findings) -> None:
    if contents.labels is None or not len(contents.labels):
        return
    file, sizes = contents.file, summary.split_sizes
    if not sizes["train"]:
        findings.error("no_training", file, "no training interactions: give some x_label 0")
    if not sizes["validation"]:
        message = "no validation interactions, by which training chooses its best epoch: "
        advice = {
            "given": "give some x_label 1",
            "random": "at least one user needs 3 interactions",
            "global_time": "the last fifth of the interactions needs more than one moment",
        }
        findings.error("no_validation", file, message + advice[contents.split.kind])
    if not sizes["test"]:
        message = "no test interactions, so the result cannot be measured on unseen ones"
        findings.warning("no_test", file, message)
    trained = np.bincount(contents.users, contents.labels == TRAIN, minlength=len(contents.user_ids)) > 0
    if untrained := np.flatnonzero(~trained).tolist():
        message = f"{len(untrained)} of {len(trained)} users have no training interactions: evaluation leaves them out"
        examples = [Example(None, repr(contents.user_ids[user])) for user in untrained[:MAX_EXAMPLES]]
        findings.warning("users_without_training", file, message, len(untrained), examples)


def _check_coverage(contents: Contents, findings: Findings) -> None:
    for name, modality in contents.modalities.items():
        lacking = np.flatnonzero(~modality.present)
        if len(lacking) and len(modality.present) == len(contents.item_ids):
            of = f"{len(lacking)} of {len(modality.present)} items"
            message = f"{of} lack modality {name!r}: they are known by their other modalities alone"
            examples = [Example(None, f"item {contents.item_ids[item]!r}") for item in lacking[:MAX_EXAMPLES]]
            findings.warning("partial_coverage", _file_of(modality), message, len(lacking), examples)


def _file_of(modality: Modality) -> str:
    return f"{modality.name}_neighbors.npz" if modality.features is None else f"{modality.name}_feat.npy"


def _check_core(contents: Contents, summary: Summary, findings: Findings) -> None:
    per_user, per_item = _degrees(contents)
    few_users = np.flatnonzero(per_user < summary.core)
    few_items = np.flatnonzero((per_item < summary.core) & (per_item > 0))
    for what, few, ids in (("users", few_users, contents.user_ids), ("items", few_items, contents.item_ids)):
        if len(few):
            message = (
                f"{len(few)} of {len(ids)} {what} have fewer than {summary.core} interactions: expect little for them"
            )
            examples = [Example(None, repr(ids[one])) for one in few[:MAX_EXAMPLES]]
            findings.warning(f"{what}_below_core", contents.file, message, len(few), examples)
