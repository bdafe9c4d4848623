"""The last lesson, in closed form: embeddings that come nearest to student and linear teacher together.

Off the paper's path. The student's scores and the linear teacher's, standardised for each user, are added; the two
tables of a given width whose inner products are nearest to that sum, by squares, are its truncated singular value
decomposition (Eckart and Young, 1936). From there they are fitted on so that the best items of each user count more
(``focus``). Only blocks of users are ever scored at once.

Several students of different seeds may be joined so. Their mean ranks better than any one of them (Hansen and
Salamon, "Neural network ensembles", 1990), and the tables that are served are as wide as for one.

Its time grows with users times items, since all are scored to find the best. Where those are more than
``MOST_PAIRS``, or the linear teacher does not cover the whole catalogue, ``can_decompose`` says no: then the student
is exported as it is, and nothing starts from the teacher's decomposition.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainer.evaluation import Holdout, evaluate_scores
from trainer.focus import best_entries, focused
from trainer.joined_scores import JoinedScores, ScoreOperator, standardised_scale
from trainer.linear_teacher import LinearTeacher, standardised

Scores = Callable[[NDArray[np.int64]], Tensor]

BLEND_WEIGHTS = (0.1, 0.2, 0.4, 0.8)
FURTHER_DIRECTIONS = 32
POWER_ITERATIONS = 4
MOST_PAIRS = 4_000_000_000


@dataclass(frozen=True)
class StudentTables:
    """A student as it is exported.

    Attributes:
        embeddings: (users + items, width), users first.
        user_parts: what the user embeddings are the sum of, (users, width) each.
    """

    embeddings: Tensor
    user_parts: dict[str, Tensor]


def side_by_side(students: Sequence[StudentTables], users: int) -> StudentTables:
    """A student whose scores are the sum of several students' scores, each standardised for each user.

    Args:
        students: their widths add up.
        users: how many rows of the embeddings are users.
    """
    tables, parts = [], []
    for student in students:
        of_users, of_items = student.embeddings[:users], student.embeddings[users:]
        centred = of_items - of_items.mean(dim=0)
        scale = standardised_scale(of_users, centred)
        tables.append(torch.cat([scale * of_users, centred]))
        parts.append({name: scale * part for name, part in student.user_parts.items()})
    return StudentTables(
        torch.cat(tables, dim=1), {name: torch.cat([each[name] for each in parts], dim=1) for name in parts[0]}
    )


def can_decompose(linear: LinearTeacher, users: int) -> bool:
    """Whether the linear teacher has a score for every pair of user and item, and these are few enough."""
    return linear.covers_all and users * linear.catalogue <= MOST_PAIRS


def blended(student: Tensor, linear: Tensor, weights: Tensor) -> Tensor:
    """``standardised(student) + weights * linear``, (n, items), with a weight for each row, (n,).

    Args:
        student: any scores.
        linear: standardised ones, as the linear teacher gives.
        weights: of the linear teacher.
    """
    return standardised(student).addcmul_(linear, weights.unsqueeze(1))


def weights_by_history(interactions: sp.csr_matrix) -> Tensor:
    """How much the linear teacher counts for each user, (users,); 1 for an average history.

    It grows with the square root of what the user took: the teacher speaks of pairs of items, and knows more of a user
    with many.
    """
    taken = torch.from_numpy(np.diff(interactions.indptr).astype(np.float32))
    return (taken / taken.mean().clamp(min=torch.finfo(taken.dtype).tiny)).sqrt()


def consolidate(
    student: Tensor, linear: LinearTeacher, validation: Holdout, width: int, focus: int, seed: int
) -> Tensor:
    """Embeddings (users + items, width) nearest to student and linear teacher, blended as validation likes it best.

    Args:
        student: its embeddings (users + items, its width).
        linear: the teacher to join it with, covering all items.
        validation: decides the teacher's weight, by recall@20 of the blended scores.
        width: of the outcome.
        focus: best items of each user that count more; 0 lets all count alike.
        seed: of the decomposition's random start.
    """
    users, items = validation.training.shape
    by_history = weights_by_history(validation.training).to(student.device)

    def blend(weight: float) -> Scores:
        def scores(chosen: NDArray[np.int64]) -> Tensor:
            rows = torch.as_tensor(chosen, device=student.device)
            return blended(student[rows] @ student[users:].T, linear.scores(chosen), weight * by_history[rows])

        return scores

    best = max(BLEND_WEIGHTS, key=lambda weight: evaluate_scores(blend(weight), validation)["recall@20"])
    joined = JoinedScores(student, linear, best * by_history)
    tables = nearest_embeddings(joined, width, seed)
    if focus > 0:
        entries = best_entries(blend(best), (users, items), min(focus, items), student.device)
        tables = focused(joined, entries, *tables)
    return torch.cat(tables)


def joined_parts(parts: dict[str, Tensor], student_items: Tensor, joined_items: Tensor) -> dict[str, Tensor]:
    """What each part of the student's user embeddings became in the joined ones, (users, joined width) each.

    A part's scores are a part of the student's, and so are its standardised ones: centred over the items, over the
    deviation of all parts together. What the joined embeddings have besides is the linear teacher's.

    Args:
        parts: (users, student's width) each, which add up to the student's user embeddings.
        student_items: (items, student's width).
        joined_items: (items, joined width), of ``nearest_embeddings``.
    """
    centred = student_items - student_items.mean(dim=0)
    users = torch.stack(list(parts.values())).sum(dim=0)
    scale = standardised_scale(users, centred)
    projection = centred.T @ joined_items
    return {name: (part @ projection) * scale for name, part in parts.items()}


def nearest_embeddings(scores: ScoreOperator, width: int, seed: int) -> tuple[Tensor, Tensor]:
    """Tables (users, width) and (items, width) whose inner products are nearest to the scores, by squares.

    Subspace iteration on the items' side with a random start (Halko, Martinsson and Tropp, SIAM Review 2011). The
    items' columns are orthonormal and sorted by falling singular value; those beyond the rank are zero.

    Args:
        scores: of all users and items.
        width: of the tables.
        seed: of the start.
    """
    users, items = scores.shape
    directions = min(width + FURTHER_DIRECTIONS, users, items)
    start = torch.randn(items, directions, generator=torch.Generator().manual_seed(seed)).to(scores.device)
    basis = torch.linalg.qr(start).Q
    for _ in range(POWER_ITERATIONS):
        basis = torch.linalg.qr(scores.transposed_times(scores.times(basis))).Q
    of_users = scores.times(basis)
    energy, rotation = torch.linalg.eigh(of_users.T @ of_users)
    kept = rotation.flip(dims=[1])[:, :width]
    found = energy.flip(dims=[0])[:width] > 0
    missing = width - kept.shape[1]
    tables = (of_users @ kept * found, basis @ kept * found)
    padded = [torch.nn.functional.pad(table, (0, missing)) for table in tables]
    return padded[0], padded[1]
