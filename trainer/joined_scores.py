"""Scores of all users and items as operators: (users, items), but never formed as a whole.

The linear teacher's are a product of sparse tables, the student's of thin ones, and so are their standardised ones: a
user's mean and deviation follow from the tables. Multiplying by them costs what the tables have entries, not users
times items.
"""

from typing import Protocol

import scipy.sparse as sp
import torch
from torch import Tensor

from trainer.linear_teacher import LinearTeacher
from trainer.propagation import SparseRows, sparse_rows


class ScoreOperator(Protocol):
    """A matrix of scores that can be multiplied by.

    Attributes:
        shape: (users, items).
        device: that it multiplies on.
    """

    shape: tuple[int, int]
    device: torch.device

    def times(self, of_items: Tensor) -> Tensor:
        """(items, n) -> (users, n)."""
        ...

    def transposed_times(self, of_users: Tensor) -> Tensor:
        """(users, n) -> (items, n)."""
        ...


class LinearScores:
    """The linear teacher's scores, standardised over each user's items, as a :class:`ScoreOperator`."""

    def __init__(self, linear: LinearTeacher, device: torch.device, weights: Tensor | None = None) -> None:
        """Make ready to multiply.

        Args:
            linear: the teacher, covering all items.
            device: to multiply on.
            weights: (users,), what each user's scores are multiplied by; 1 by default.
        """
        interactions, regression = linear.factors()
        self.shape = (interactions.shape[0], linear.catalogue)
        self.device = device
        self._interactions, self._takers = self._both_ways(interactions)
        self._regression, self._regression_back = self._both_ways(regression)
        mean, scale = (torch.from_numpy(values).to(device).unsqueeze(1) for values in linear.standardisation())
        self._scale = scale if weights is None else weights.unsqueeze(1) * scale
        self._offset = self._scale * mean

    def times(self, of_items: Tensor) -> Tensor:
        """(items, n) -> (users, n)."""
        product = self._scale * self._interactions.product(self._regression.product(of_items))
        return product - self._offset * of_items.sum(dim=0)

    def transposed_times(self, of_users: Tensor) -> Tensor:
        """(users, n) -> (items, n)."""
        product = self._regression_back.product(self._takers.product(self._scale * of_users))
        return product - (self._offset * of_users).sum(dim=0)

    def _both_ways(self, matrix: sp.csr_matrix) -> tuple[SparseRows, SparseRows]:
        return sparse_rows(matrix, self.device), sparse_rows(matrix.T.tocsr(), self.device)


class JoinedScores:
    """``standardised(student) + weights * standardised(linear)``, each over a user's items, as an operator.

    Attributes:
        shape: (users, items).
        device: that it multiplies on.
    """

    def __init__(self, student: Tensor, linear: LinearTeacher, weights: Tensor) -> None:
        """Make ready to multiply.

        Args:
            student: its embeddings (users + items, width), users first.
            linear: the teacher, covering all items.
            weights: (users,) of the teacher.
        """
        self._linear = LinearScores(linear, student.device, weights)
        self.shape, self.device = self._linear.shape, student.device
        users = self.shape[0]
        self._items = student[users:] - student[users:].mean(dim=0)
        self._users = student[:users] * standardised_scale(student[:users], self._items)

    def times(self, of_items: Tensor) -> Tensor:
        """(items, n) -> (users, n)."""
        return self._users @ (self._items.T @ of_items) + self._linear.times(of_items)

    def transposed_times(self, of_users: Tensor) -> Tensor:
        """(users, n) -> (items, n)."""
        return self._items @ (self._users.T @ of_users) + self._linear.transposed_times(of_users)


def standardised_scale(users: Tensor, centred_items: Tensor) -> Tensor:
    """What each user's embedding is multiplied by for scores of standard deviation 1, (users, 1); 0 if all are equal.

    Args:
        users: (users, width).
        centred_items: (items, width), their mean taken away, so that a user's scores have mean 0.
    """
    variance = ((users @ (centred_items.T @ centred_items)) * users).sum(dim=1, keepdim=True) / len(centred_items)
    return torch.where(variance > 0, variance.clamp(min=torch.finfo(variance.dtype).tiny).rsqrt(), 0.0)
