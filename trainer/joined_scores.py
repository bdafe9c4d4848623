"""Student's and linear teacher's scores added up, as an operator: (users, items), but never formed as a whole.

Both are products of thin or sparse tables, and so are their standardised ones: a user's mean and deviation follow from
the tables. Multiplying by them costs what the tables have entries, not users times items.
"""

import scipy.sparse as sp
import torch
from torch import Tensor

from trainer.linear_teacher import LinearTeacher
from trainer.propagation import SparseRows, sparse_rows


class JoinedScores:
    """``standardised(student) + weights * standardised(linear)``, each over a user's items.

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
        interactions, regression = linear.factors()
        users = interactions.shape[0]
        self.shape = (users, linear.catalogue)
        self.device = student.device
        self._items = student[users:] - student[users:].mean(dim=0)
        self._users = student[:users] * standardised_scale(student[:users], self._items)
        self._interactions, self._takers = self._both_ways(interactions)
        self._linear, self._linear_back = self._both_ways(regression)
        mean, scale = (torch.from_numpy(values).to(self.device).unsqueeze(1) for values in linear.standardisation())
        self._scale = weights.unsqueeze(1) * scale
        self._offset = self._scale * mean

    def times(self, of_items: Tensor) -> Tensor:
        """(items, n) -> (users, n)."""
        of_student = self._users @ (self._items.T @ of_items)
        of_linear = self._scale * self._interactions.product(self._linear.product(of_items))
        return of_student + of_linear - self._offset * of_items.sum(dim=0)

    def transposed_times(self, of_users: Tensor) -> Tensor:
        """(users, n) -> (items, n)."""
        of_student = self._items @ (self._users.T @ of_users)
        of_linear = self._linear_back.product(self._takers.product(self._scale * of_users))
        return of_student + of_linear - (self._offset * of_users).sum(dim=0)

    def _both_ways(self, matrix: sp.csr_matrix) -> tuple[SparseRows, SparseRows]:
        return sparse_rows(matrix, self.device), sparse_rows(matrix.T.tocsr(), self.device)


def standardised_scale(users: Tensor, centred_items: Tensor) -> Tensor:
    """What each user's embedding is multiplied by for scores of standard deviation 1, (users, 1); 0 if all are equal.

    Args:
        users: (users, width).
        centred_items: (items, width), their mean taken away, so that a user's scores have mean 0.
    """
    variance = ((users @ (centred_items.T @ centred_items)) * users).sum(dim=1, keepdim=True) / len(centred_items)
    return torch.where(variance > 0, variance.clamp(min=torch.finfo(variance.dtype).tiny).rsqrt(), 0.0)
