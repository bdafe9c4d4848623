"""One step of the distillation: the student and its teachers learn from a batch of triplets, Eq. 22-30.

Views are propagated over whole graphs; everything after that, fusion and losses, runs on the rows of the
batch's users and items only, since Eq. 18-28 treat each row on its own.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from shared.errors import DivergenceError
from trainer import graph, losses
from trainer.consolidation import can_decompose, nearest_embeddings
from trainer.inputs import TrainingInputs, bipartite_propagator, hide_content
from trainer.joined_scores import LinearScores
from trainer.recipe import Recipe
from trainer.sampler import Triplets
from trainer.stopwatch import stopwatch
from trainer.student import Fused, Student, tempered
from trainer.teachers import Teachers, ensemble_ranking
from trainer.views import ID_VIEW, IdEncoder, LayerPooling, ModalityEncoder, ModalityGraphs, ViewEncoders

LOSS_TERMS = ("bpr", "l2", "contrast", "teachers", "rank", "embedding", "linear", "total")


@dataclass(frozen=True)
class Batch:
    """Triplets over the batch's own nodes.

    Attributes:
        nodes: (n,) graph rows: the batch's distinct users, its distinct items, both sorted, and those further
            items that only the linear teacher ranks.
        user_count: how many of them are users.
        own_count: how many of them the triplets name.
        users: (batch,) positions among ``nodes``; likewise positives and negatives.
        contrast_users: positions that InfoNCE compares; likewise contrast_items, which are positives.
        rank_users: positions of the users whose rankings are distilled.
        rank_candidates: positions of the candidate set C, positives and negatives of the batch.
        linear_users: positions of the users that learn from the linear teacher.
        linear_candidates: positions of the items that it ranks.
    """

    nodes: Tensor
    user_count: int
    own_count: int
    users: Tensor
    positives: Tensor
    negatives: Tensor
    contrast_users: Tensor
    contrast_items: Tensor
    rank_users: Tensor
    rank_candidates: Tensor
    linear_users: Tensor
    linear_candidates: Tensor


@stopwatch("batch making")
def make_batch(
    triplets: Triplets,
    shape: tuple[int, int],
    recipe: Recipe,
    generator: np.random.Generator,
    device: torch.device,
    rankable: NDArray[np.int64] | None = None,
) -> Batch:
    """Number the batch's nodes and draw the subsets that the pairwise losses compare.

    Args:
        triplets: the batch.
        shape: (users, items).
        recipe: how many the subsets have.
        generator: what draws them.
        device: where the batch shall be.
        rankable: the items that the linear teacher can rank; all by default.
    """
    user_total, item_total = shape
    distinct_users, users = np.unique(triplets[0], return_inverse=True)
    distinct_items, items = np.unique(np.concatenate(triplets[1:]), return_inverse=True)
    count = len(distinct_users)
    positives, negatives = np.split(items + count, 2)

    def tensor(values: NDArray[np.int64]) -> Tensor:
        return torch.as_tensor(values, device=device)

    def draw(positions: NDArray[np.int64], most: int) -> Tensor:
        return tensor(generator.permutation(positions)[:most])

    user_positions = np.arange(count)
    own_count = count + len(distinct_items)
    item_positions = np.arange(count, own_count)
    rankable = np.arange(item_total) if rankable is None else rankable
    ranked = generator.permutation(rankable)[: recipe.linear_candidates] if recipe.linear > 0 else distinct_items[:0]
    further = np.setdiff1d(ranked, distinct_items)
    named = np.isin(distinct_items, ranked, assume_unique=True)
    return Batch(
        nodes=tensor(np.concatenate([distinct_users, distinct_items + user_total, further + user_total])),
        user_count=count,
        own_count=own_count,
        users=tensor(users),
        positives=tensor(positives),
        negatives=tensor(negatives),
        contrast_users=draw(user_positions, recipe.contrast_nodes),
        contrast_items=draw(np.unique(positives), recipe.contrast_nodes),
        rank_users=draw(user_positions, recipe.rank_users),
        rank_candidates=draw(item_positions, recipe.rank_candidates),
        linear_users=draw(user_positions, recipe.linear_users),
        linear_candidates=tensor(np.concatenate([item_positions[named], own_count + np.arange(len(further))])),
    )


class Distillation:
    """The student, its teachers and their common optimiser over fixed inputs."""

    def __init__(self, inputs: TrainingInputs, recipe: Recipe, seed: int) -> None:
        torch.manual_seed(seed)
        self._inputs = inputs
        self._recipe = recipe
        self._graph = inputs.bipartite
        self._modalities = inputs.modalities
        self.student = Student(self._encoders(recipe.student_pooling), recipe.width, recipe.fusion, gated=recipe.gates)
        self.teachers = Teachers(self._encoders(recipe.teacher_pooling), self.student.encoders)
        self.student.to(inputs.device)
        self.teachers.to(inputs.device)
        parameters = [*self.student.parameters(), *self.teachers.parameters()]
        self.optimiser = torch.optim.Adam(parameters, lr=recipe.learning_rate, fused=True)

    @stopwatch("start tables")
    def start_from_linear_teacher(self, seed: int) -> None:
        """Let the collaborative tables of student and teacher begin as the linear teacher's nearest embeddings.

        Scaled so that the tables' products are the teacher's scores, divided by its temperature, as near as the width
        allows; Eq. 8-9 then smooth and shorten them. Where there are too many users and items for that
        (``consolidation.can_decompose``) they begin at random.
        """
        linear = self._inputs.linear
        if linear is None or not self._recipe.linear_start:
            return
        if not can_decompose(linear, self._inputs.interactions.shape[0]):
            return
        users, items = nearest_embeddings(LinearScores(linear, self._inputs.device), self._recipe.width, seed)
        balance = users.norm(dim=0).sqrt().clamp(min=torch.finfo(users.dtype).tiny)
        scale = self._recipe.linear_temperature**-0.5
        table = torch.cat([users / balance, items * balance]) * scale
        with torch.no_grad():
            for encoders in (self.student.encoders, self.teachers.encoders):
                encoders.id.table.copy_(table)

    @stopwatch("epoch graph")
    def start_epoch(self, generator: np.random.Generator) -> None:
        """Draw the epoch's user-item graph, and the items that have content in it."""
        if self._recipe.id_edge_drop > 0:
            kept = graph.drop_edges(self._inputs.interactions, self._recipe.id_edge_drop, generator)
            self._graph = bipartite_propagator(kept, self._inputs.device)
        if self._recipe.modality_dropout > 0:
            self._modalities = hide_content(self._inputs, self._recipe, self._recipe.modality_dropout, generator)

    def step(self, triplets: Triplets, generator: np.random.Generator) -> dict[str, float]:
        """Learn from one batch; returns every term of Eq. 30, unweighted, and their weighted total.

        Raises:
            DivergenceError: the total is not finite; no parameter was changed.
        """
        linear, shape = self._inputs.linear, self._inputs.interactions.shape
        rankable = None if linear is None else linear.items
        batch = make_batch(triplets, shape, self._recipe, generator, self._inputs.device, rankable)
        terms = self._loss_terms(batch)
        values = dict(zip(terms, torch.stack(list(terms.values())).tolist(), strict=True))
        if not np.isfinite(values["total"]):
            culprits = ", ".join(name for name, value in values.items() if not np.isfinite(value))
            raise DivergenceError(
                f"the loss is no longer finite ({culprits}): lower learning_rate or raise the temperatures, and "
                "check the features with 'mts4mm validate'"
            )
        with stopwatch("backward"):
            self.optimiser.zero_grad(set_to_none=True)
            terms["total"].backward()  # type: ignore[no-untyped-call]
        with stopwatch("optimiser"):
            self.optimiser.step()
        with stopwatch("EMA"):
            self.teachers.synchronise(self.student.encoders, self._recipe.momentum)
        return values

    @torch.no_grad()
    def student_embeddings(self) -> Tensor:
        """Eq. 31's embeddings over the whole training graph, (users + items, width)."""
        return self.student_embeddings_given(self._inputs.modalities)

    @torch.no_grad()
    def student_embeddings_given(self, modalities: dict[str, ModalityGraphs]) -> Tensor:
        """The same from other content than that of the inputs."""
        views = self.student.encoders(self._inputs.bipartite, modalities)
        present = {name: graphs.present for name, graphs in modalities.items()}
        fused: Fused = self.student.fusion(views, present)
        return tempered(fused.student, self._inputs.interactions.shape[0], self._recipe.item_tempering)

    @torch.no_grad()
    def user_parts(self) -> dict[str, Tensor]:
        """The terms of Eq. 21 that users' embeddings are the sum of, (users, width) each."""
        users = self._inputs.interactions.shape[0]
        views = self.student.encoders(self._inputs.bipartite, self._inputs.modalities)
        parts: dict[str, Tensor] = self.student.fusion.parts(views, self._inputs.present)
        return {name: part[:users].detach() for name, part in parts.items()}

    @torch.no_grad()
    def teacher_embeddings(self) -> dict[str, Tensor]:
        """Each teacher's representation over the whole training graph, (users + items, width)."""
        views: dict[str, Tensor] = self.teachers.encoders(self._inputs.bipartite, self._inputs.modalities)
        return {name: view.detach() for name, view in views.items()}  # without layers a view is its table itself

    def _encoders(self, pooling: LayerPooling) -> ViewEncoders:
        users, items = self._inputs.interactions.shape
        recipe = self._recipe
        content = {
            name: ModalityEncoder(items, recipe.width, graphs.features.shape[1], recipe.item_layers, pooling)
            for name, graphs in self._inputs.modalities.items()
        }
        return ViewEncoders(IdEncoder(users, items, recipe.width, recipe.id_layers), content)

    def _loss_terms(self, batch: Batch) -> dict[str, Tensor]:
        recipe = self._recipe
        with stopwatch("student views"):
            own = self._rows(self.student.encoders, batch.nodes)
        with stopwatch("teachers' views"):
            taught = self._rows(self.teachers.encoders, batch.nodes[: batch.own_count])
        with stopwatch("fusion"):
            present = {name: graphs.present[batch.nodes] for name, graphs in self._modalities.items()}
            fused: Fused = self.student.fusion(own, present)
        with stopwatch("loss bpr"):
            bpr = _triplet_bpr(fused.student, batch)
        terms = {
            "bpr": bpr,
            "l2": self._l2(batch),
            "contrast": self._contrast(fused, own[ID_VIEW], present, batch),
            "teachers": self._teachers_bpr(taught, present, batch),
            "rank": self._rank(fused.student, taught, present, batch),
            "embedding": self._embedding(own, taught, present, batch),
            "linear": self._linear(fused.student, batch),
        }
        weights = {
            "bpr": 1.0,
            "l2": recipe.l2,
            "contrast": recipe.contrast,
            "teachers": 1.0,
            "rank": recipe.rank,
            "embedding": recipe.embedding,
            "linear": recipe.linear,
        }
        terms["total"] = torch.stack([weights[name] * term for name, term in terms.items()]).sum()  # Eq. 30
        return terms

    def _rows(self, encoders: ViewEncoders, nodes: Tensor) -> dict[str, Tensor]:
        views: dict[str, Tensor] = encoders(self._graph, self._modalities, nodes)
        return views

    @stopwatch("loss l2")
    def _l2(self, batch: Batch) -> Tensor:
        """Eq. 22 over the batch's rows of the collaborative tables, as LightGCN does."""
        rows = self.student.encoders.id.table.index_select(0, batch.nodes[: batch.own_count])
        triplets = (batch.users, batch.positives, batch.negatives)
        return losses.squared_norm(*(rows.index_select(0, positions) for positions in triplets))

    @stopwatch("loss contrast")
    def _contrast(self, fused: Fused, collaborative: Tensor, present: dict[str, Tensor], batch: Batch) -> Tensor:
        """Eq. 23, users and items, among nodes that have content at all."""
        if self._recipe.contrast == 0 or not present:
            return torch.zeros((), device=collaborative.device)
        has_content = torch.stack(list(present.values())).any(dim=0)
        chosen = (nodes[has_content[nodes]] for nodes in (batch.contrast_users, batch.contrast_items))
        return torch.stack(
            [
                losses.info_nce(
                    fused.content.index_select(0, nodes),
                    collaborative.index_select(0, nodes),
                    self._recipe.contrast_temperature,
                )
                for nodes in chosen
            ]
        ).sum()

    @stopwatch("loss teachers")
    def _teachers_bpr(self, taught: dict[str, Tensor], present: dict[str, Tensor], batch: Batch) -> Tensor:
        """Eq. 28."""
        of_views = [_triplet_bpr(view, batch, self._known(name, present)) for name, view in taught.items()]
        return torch.stack(of_views).mean()

    @stopwatch("loss rank")
    def _rank(self, student: Tensor, taught: dict[str, Tensor], present: dict[str, Tensor], batch: Batch) -> Tensor:
        """Eq. 24-26; the teachers' rankings are targets and get no gradient."""
        if self._recipe.rank == 0:
            return torch.zeros((), device=student.device)
        tau = self._recipe.rank_temperature
        incomplete = {name: mask for name, mask in present.items() if self._known(name, present) is not None}
        with torch.no_grad():
            target = ensemble_ranking(taught, incomplete, batch.rank_users, batch.rank_candidates, tau)
        logits = student.index_select(0, batch.rank_users) @ student.index_select(0, batch.rank_candidates).T
        return losses.rank_distillation(target, logits, tau)

    @stopwatch("loss embedding")
    def _embedding(
        self, own: dict[str, Tensor], taught: dict[str, Tensor], present: dict[str, Tensor], batch: Batch
    ) -> Tensor:
        """Eq. 27, summed over views, over all items of the batch."""
        if self._recipe.embedding == 0:
            return torch.zeros((), device=batch.nodes.device)
        distances = []
        for name, view in own.items():
            known = self._known(name, present)
            items = slice(batch.user_count, batch.own_count)
            distances.append(
                losses.embedding_distillation(view[items], taught[name][items], None if known is None else known[items])
            )
        return torch.stack(distances).sum()

    @stopwatch("loss linear")
    def _linear(self, student: Tensor, batch: Batch) -> Tensor:
        """Eq. 26 once more, with the linear teacher's ranking of a sample of the catalogue as the target."""
        if self._inputs.linear is None:
            return torch.zeros((), device=student.device)
        user_total = self._inputs.interactions.shape[0]
        users = batch.nodes[batch.linear_users].cpu().numpy()
        items = batch.nodes[batch.linear_candidates] - user_total
        target = self._inputs.linear.ranking(users, items, self._recipe.linear_temperature)
        logits = student.index_select(0, batch.linear_users) @ student.index_select(0, batch.linear_candidates).T
        return losses.rank_distillation(target, logits, 1.0)

    def _known(self, view: str, present: dict[str, Tensor]) -> Tensor | None:
        """Which of the batch's nodes have a view; None if every node has it."""
        if view == ID_VIEW or self._modalities[view].complete:
            return None
        return present[view]


def _triplet_bpr(embeddings: Tensor, batch: Batch, known: Tensor | None = None) -> Tensor:
    usable = None
    if known is not None:
        usable = known[batch.users] & known[batch.positives] & known[batch.negatives]
    return losses.bpr(
        embeddings.index_select(0, batch.users),
        embeddings.index_select(0, batch.positives),
        embeddings.index_select(0, batch.negatives),
        usable,
    )
