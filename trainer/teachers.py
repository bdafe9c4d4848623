"""The teachers, Eq. 14-16, 25 and 29: one specialist a view, each seeing its own view only.

They are built like the student's encoders. Each takes its own gradient step on its own BPR (Eq. 28, in
``losses``) and is then drawn towards the student's parameters of the same name (Eq. 29).
"""

import torch
from torch import Tensor, nn

from trainer.views import ViewEncoders


class Teachers(nn.Module):
    """Eq. 14-15: a set of view encoders that starts where the student's starts."""

    def __init__(self, encoders: ViewEncoders, student: ViewEncoders) -> None:
        super().__init__()
        self.encoders = encoders
        self.encoders.load_state_dict(student.state_dict())

    @torch.no_grad()
    def synchronise(self, student: ViewEncoders, momentum: float) -> None:
        """Eq. 29: ``teacher <- momentum * teacher + (1 - momentum) * student``, name by name."""
        own = dict(self.encoders.named_parameters())
        theirs = dict(student.named_parameters())
        torch._foreach_lerp_(list(own.values()), [theirs[name] for name in own], 1 - momentum)


def ensemble_ranking(
    views: dict[str, Tensor],
    present: dict[str, Tensor],
    users: Tensor,
    candidates: Tensor,
    temperature: float,
) -> Tensor:
    """Eq. 16 and 25: the teachers' mean distribution over the candidates, (users, candidates).

    The temperature divides the logits inside the softmax, as in Eq. 24. A teacher speaks only of users and
    candidates that have its view; what it says of those keeps the share of the mass that a uniform guess
    would give them, each pair is averaged over the teachers that know it, and rows are made to sum to 1.

    Args:
        views: teachers' representations (n, width) by view.
        present: (n,) bool for each content view.
        users: positions of the users among the n nodes.
        candidates: positions of the candidate items.
        temperature: tau.
    """
    total = torch.zeros(len(users), len(candidates), device=users.device)
    voices = torch.zeros_like(total)
    for name, view in views.items():
        logits = (view[users] / temperature) @ view[candidates].T
        if name not in present:
            total += torch.softmax(logits, dim=1)
            voices += 1
            continue
        known = present[name][candidates]
        speaks = present[name][users].unsqueeze(1) & known
        ranking = torch.softmax(logits.masked_fill(~known, -torch.inf), dim=1) * known.float().mean()
        total += torch.where(speaks, ranking, 0.0)
        voices += speaks
    ensemble = total / voices
    return ensemble / ensemble.sum(dim=1, keepdim=True)
