"""Tables fitted to a matrix of scores where it matters: at the best items of each user.

A truncated singular value decomposition spends its width on all items alike, most of which nobody will ever be shown.
Here the squared error at a user's best items counts fully and elsewhere by ``ELSEWHERE``:

    min_{A, B}  sum_ui w_ui (X_ui - a_u b_i)^2,   w_ui = 1 among the best items of u, ELSEWHERE otherwise

by alternating least squares, as for implicit feedback (Hu, Koren and Volinsky, ICDM 2008), each row by a few conjugate
gradient steps from where it is (Takacs, Pilaszy and Tikk, RecSys 2011). What counts for all items alike is a product
with the whole matrix, cheap for ``JoinedScores``; the rest costs what the best items are.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainer.evaluation import chunks
from trainer.joined_scores import JoinedScores

ELSEWHERE = 0.03
SWEEPS = 2
GRADIENT_STEPS = 3
NUMBERS_PER_BLOCK = 2**21


@dataclass(frozen=True)
class Entries:
    """Some entries of a matrix, row by row.

    Attributes:
        offsets: (rows + 1,) where each row's entries begin.
        columns: (entries,).
        values: (entries,).
    """

    offsets: Tensor
    columns: Tensor
    values: Tensor

    def transposed(self, columns: int) -> "Entries":
        """The same entries by column; rows within a column rise."""
        rows = torch.repeat_interleave(torch.arange(len(self.offsets) - 1, device=self.columns.device), self._counts())
        order = torch.argsort(self.columns, stable=True)
        counts = torch.bincount(self.columns, minlength=columns)
        offsets = torch.nn.functional.pad(counts.cumsum(0), (1, 0))
        return Entries(offsets, rows[order], self.values[order])

    def blocks(self, width: int) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
        """Rows of about the same number of entries together, shortest first: row, column, value, and whether it is one.

        Args:
            width: of the table that columns will be looked up in; keeps a block to ``NUMBERS_PER_BLOCK`` numbers.

        Yields:
            (n,) rows and (n, most) columns, values and a mask, padded beyond a row's own entries.
        """
        counts = self._counts()
        order = torch.argsort(counts, stable=True)
        done = 0
        while done < len(order):
            rows = order[done : done + max(1, NUMBERS_PER_BLOCK // width)]
            most = counts[rows].clamp(min=1) * torch.arange(1, len(rows) + 1, device=rows.device) * width
            rows = rows[: max(1, int((most <= NUMBERS_PER_BLOCK).sum()))]
            done += len(rows)
            place = torch.arange(int(counts[rows[-1]]), device=rows.device)
            real = place < counts[rows].unsqueeze(1)
            entry = torch.where(real, self.offsets[rows].unsqueeze(1) + place, 0)
            yield rows, self.columns[entry], self.values[entry], real

    def _counts(self) -> Tensor:
        return self.offsets[1:] - self.offsets[:-1]


def best_entries(
    scores: Callable[[NDArray[np.int64]], Tensor], shape: tuple[int, int], count: int, device: torch.device
) -> Entries:
    """The ``count`` best items of each user and their scores.

    Args:
        scores: from users (n,) to (n, items).
        shape: (users, items).
        count: at most the items.
        device: where the scores are.
    """
    users, items = shape
    found = [scores(chunk).topk(count, dim=1) for chunk in chunks(np.arange(users), items)]
    return Entries(
        offsets=torch.arange(0, users * count + 1, count, device=device),
        columns=torch.cat([best.indices for best in found]).ravel(),
        values=torch.cat([best.values for best in found]).ravel(),
    )


def focused(scores: JoinedScores, best: Entries, of_users: Tensor, of_items: Tensor) -> tuple[Tensor, Tensor]:
    """Fit tables on, so that their products are nearest to the scores above all at some entries.

    Args:
        scores: X.
        best: the entries that count fully.
        of_users: (users, width) to begin with.
        of_items: (items, width).

    Returns:
        Both tables; the items' columns are orthonormal and sorted by falling strength of the users', and zero beyond
        the rank.
    """
    by_item = best.transposed(scores.shape[1])
    for _ in range(SWEEPS):
        of_users = _fitted(of_users, of_items, scores.times(of_items), best)
        of_items = _fitted(of_items, of_users, scores.transposed_times(of_users), by_item)
    return _orthonormal(of_users, of_items)


def _fitted(own: Tensor, other: Tensor, products: Tensor, entries: Entries) -> Tensor:
    """One side's rows, the other's given: (rows, width).

    Args:
        own: where to begin, (rows, width).
        other: (columns, width).
        products: the scores times ``other``, (rows, width).
        entries: of the scores that count fully.
    """
    gram = ELSEWHERE * (other.T @ other)
    fitted = own.clone()
    for rows, columns, values, real in entries.blocks(other.shape[1]):
        chosen = other[columns] * real.unsqueeze(2)
        goal = ELSEWHERE * products[rows] + (1 - ELSEWHERE) * (values.unsqueeze(1) @ chosen).squeeze(1)
        fitted[rows] = _descended(own[rows], goal, gram, chosen)
    return fitted


def _descended(start: Tensor, goal: Tensor, gram: Tensor, chosen: Tensor) -> Tensor:
    """Conjugate gradient steps, preconditioned with the diagonal, towards each row's least squares.

    Args:
        start: (n, width).
        goal: right-hand sides, (n, width).
        gram: what all items add to every row's normal matrix, (width, width).
        chosen: the embeddings whose errors count fully, (n, most, width).
    """
    tiny = torch.finfo(start.dtype).tiny

    def normal(rows: Tensor) -> Tensor:
        own = ((chosen @ rows.unsqueeze(2)).mT @ chosen).squeeze(1)
        return rows @ gram + (1 - ELSEWHERE) * own

    diagonal = (gram.diagonal() + (1 - ELSEWHERE) * chosen.square().sum(dim=1)).clamp(min=tiny)
    solution = start
    residual = goal - normal(start)
    scaled = residual / diagonal
    direction = scaled
    energy = (residual * scaled).sum(dim=1, keepdim=True)
    for _ in range(GRADIENT_STEPS):
        image = normal(direction)
        step = energy / (direction * image).sum(dim=1, keepdim=True).clamp(min=tiny)
        solution = solution + step * direction
        residual = residual - step * image
        scaled = residual / diagonal
        previous, energy = energy, (residual * scaled).sum(dim=1, keepdim=True)
        direction = scaled + energy / previous.clamp(min=tiny) * direction
    return solution


def _orthonormal(of_users: Tensor, of_items: Tensor) -> tuple[Tensor, Tensor]:
    missing = max(0, of_items.shape[1] - min(len(of_users), len(of_items)))
    basis, triangle = torch.linalg.qr(of_items)
    left, strength, right = torch.linalg.svd(of_users @ triangle.T, full_matrices=False)
    tables = (left * strength, basis @ right.T)
    return torch.nn.functional.pad(tables[0], (0, missing)), torch.nn.functional.pad(tables[1], (0, missing))
