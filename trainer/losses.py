"""Every term of Eq. 30, each a function of plain tensors that can be checked by hand."""

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention
from torch import Tensor


def bpr(users: Tensor, positives: Tensor, negatives: Tensor, known: Tensor | None = None) -> Tensor:
    """First term of Eq. 22, and Eq. 28 for one teacher: mean of ``-log sigmoid(y_pos - y_neg)``.

    Args:
        users: (batch, width) embeddings.
        positives: (batch, width).
        negatives: (batch, width).
        known: (batch,) bool, the triplets to count; all of them by default. Zero if there is none.
    """
    margins = (users * (positives - negatives)).sum(dim=1)
    losses = -F.logsigmoid(margins)
    if known is None:
        return losses.mean()
    return torch.where(known, losses, 0.0).sum() / known.sum().clamp(min=1)


def squared_norm(*tables: Tensor) -> Tensor:
    """Second term of Eq. 22, over the batch's rows of the tables: half the squared L2 norm a triplet.

    Args:
        tables: (batch, width) rows each, users', positives' and negatives'.
    """
    total = torch.stack([rows.square().sum() for rows in tables]).sum()
    return total / (2 * len(tables[0]))


def info_nce(content: Tensor, collaborative: Tensor, temperature: float) -> Tensor:
    """Eq. 23 for one kind of node: each row's content part must find its own collaborative part, by cosine.

    Args:
        content: (n, width), the anchors.
        collaborative: (n, width); row j != i is a negative of anchor i.
        temperature: divides the cosines.
    """
    if len(content) == 0:
        return content.sum()
    anchors = F.normalize(content, dim=1) / temperature
    logits = anchors @ F.normalize(collaborative, dim=1).T
    return F.cross_entropy(logits, torch.arange(len(content), device=content.device))


def rank_distillation(teachers: Tensor, students_logits: Tensor, temperature: float) -> Tensor:
    """Eq. 24 and 26: ``tau^2 KL(teachers || student)``, mean over users.

    Args:
        teachers: (users, candidates) distribution of Eq. 25, rows sum to 1.
        students_logits: (users, candidates) student scores, before the temperature.
        temperature: tau.
    """
    log_student = torch.log_softmax(students_logits / temperature, dim=1)
    divergence = F.kl_div(log_student, teachers, reduction="batchmean")
    return temperature**2 * divergence


def embedding_distillation(student: Tensor, teacher: Tensor, known: Tensor | None = None) -> Tensor:
    """Eq. 27 for one view: squared distance of the l2-normalised rows, mean over candidates.

    Args:
        student: (candidates, width) item embeddings of the view.
        teacher: the same of its teacher; no gradient flows into it.
        known: (candidates,) bool, the candidates that have the view; all by default. Zero if there is none.
    """
    distance = (F.normalize(student, dim=1) - F.normalize(teacher.detach(), dim=1)).square().sum(dim=1)
    if known is None:
        return distance.mean()
    return torch.where(known, distance, 0.0).sum() / known.sum().clamp(min=1)
