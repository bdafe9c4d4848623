"""Who is compared: today's challenger and the champion that is live, both over today's users and items.

The champion was trained on an earlier night. It is given what the service would give it: a user whom it knows is
moved by what they took since then, one whom it does not is folded in from the items that it knows, and whoever is
left gets the most popular items (``service/engine.py``). An item that it does not know it cannot recommend.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
import scipy.sparse as sp
import torch
from numpy.typing import NDArray
from torch import Tensor

from shared.artifact import Artifact
from shared.fold_in import item_weights, profile
from shared.ids import IdMap
from shared.trending import load_trending
from trainer.dataset import TRAIN, Dataset


@dataclass(frozen=True)
class Contender:
    """Embeddings over the users and items of a holdout.

    Attributes:
        users: (users, width).
        items: (items, width).
        knows_user: (users,) whom it has trained on.
        knows_item: (items,) what it can recommend.
    """

    users: NDArray[np.float32]
    items: NDArray[np.float32]
    knows_user: NDArray[np.bool_]
    knows_item: NDArray[np.bool_]

    def scores(self, users: NDArray[np.int64]) -> Tensor:
        """(n, items), -inf for what it does not know."""
        scores = torch.from_numpy(self.users[users]) @ torch.from_numpy(self.items).T
        return scores.masked_fill_(torch.from_numpy(~self.knows_item), -torch.inf)


@dataclass(frozen=True)
class Teacher:
    """What the gate has to know of a teacher.

    Attributes:
        lists: (judged users, K) its best items for each judged user of the holdout.
        finite: whether its embeddings are.
        effective_rank: of its item embeddings; None for one that has none.
    """

    lists: NDArray[np.int64]
    finite: bool
    effective_rank: float | None


@dataclass(frozen=True)
class Challenger:
    """Today's model as it is judged.

    Attributes:
        contender: its embeddings.
        teachers: what they recommend to the judged users, by name.
        index_recall: share of the best items that its index finds; None if its numbers make no sense.
    """

    contender: Contender
    teachers: Mapping[str, Teacher]
    index_recall: float | None = None


@dataclass(frozen=True)
class Champion:
    """The live model as it is judged.

    Attributes:
        version: its name.
        contender: its embeddings over today's ids.
        items_total: how many items it has; those that had to go are not counted.
        items_kept: how many of them today's data has.
        pairs_total: how many training interactions it has; those that had to go, or were dropped, are not counted.
        pairs_kept: how many of them today's data has.
        teacher_shares: what part of its NDCG@20 each of its teachers had on its own night.
    """

    version: str
    contender: Contender
    items_total: int
    items_kept: int
    pairs_total: int
    pairs_kept: int
    teacher_shares: Mapping[str, float]


def challenger(
    user_embeddings: NDArray[np.float32], item_embeddings: NDArray[np.float32], training: sp.csr_matrix
) -> Contender:
    """The embeddings that were trained today, with what they were trained on."""
    taken = np.diff(training.indptr) > 0
    return Contender(user_embeddings, item_embeddings, taken, np.ones(len(item_embeddings), np.bool_))


def champion(
    model: Artifact,
    dataset: Dataset,
    gone_users: Collection[str] = (),
    gone_items: Collection[str] = (),
    teacher_shares: Mapping[str, float] | None = None,
    dropped: pl.DataFrame | None = None,
    unknown_users: Collection[str] = (),
) -> Champion:
    """The live model as it stands before today's data.

    Args:
        model: what is live.
        dataset: of today.
        gone_users: who was forgotten since, and is rightly missing.
        gone_items: what was retired since, and may rightly be missing.
        teacher_shares: of its own verdict.
        dropped: pairs ``user`` and ``item`` that today's data lack because somebody wanted that.
        unknown_users: whose embeddings the service does not use any more, since they were forgotten after its training.
    """
    own_users = positions(model.users, dataset.user_ids)
    own_items = positions(model.items, dataset.item_ids)
    unknown = set(unknown_users)
    trusted = np.where([user in unknown for user in dataset.user_ids], -1, own_users)
    user_stays, item_stays = _staying(model.users, gone_users), _staying(model.items, gone_items)
    takers = np.repeat(np.arange(len(model.users)), np.diff(model.train_indptr))
    due = user_stays[takers] & item_stays[model.train_indices]
    pairs = training_pairs(model)
    if dropped is not None:
        due &= ~np.isin(pairs, pair_numbers(model, dropped))
    wanted = pairs[due]
    known = (own_users[dataset.users] >= 0) & (own_items[dataset.items] >= 0)
    there = own_users[dataset.users[known]] * len(model.items) + own_items[dataset.items[known]]
    return Champion(
        version=model.manifest.version,
        contender=standing(model, trusted, own_items, dataset.interactions(TRAIN)),
        items_total=int(item_stays.sum()),
        items_kept=int(item_stays[own_items[own_items >= 0]].sum()),
        pairs_total=len(wanted),
        pairs_kept=int(np.isin(wanted, there).sum()),
        teacher_shares=teacher_shares or {},
    )


def standing(
    model: Artifact, own_users: NDArray[np.int64], own_items: NDArray[np.int64], training: sp.csr_matrix
) -> Contender:
    """An earlier model over today's ids, given today's training interactions as the service would be.

    Args:
        model: the earlier one.
        own_users: (users,) where it has today's users, -1 where it has not.
        own_items: (items,) likewise.
        training: (users, items), what may be known of the users.
    """
    weights = item_weights(model.popularity)
    width = model.width
    users = np.zeros((len(own_users), width + 1), np.float32)
    knows_user = np.zeros(len(own_users), np.bool_)
    for user, own in enumerate(own_users):
        trained = model.seen(int(own)).astype(np.int64) if own >= 0 else np.empty(0, np.int64)
        taken = own_items[training.indices[training.indptr[user] : training.indptr[user + 1]]]
        history = np.union1d(trained, taken[taken >= 0])
        knows_user[user] = len(trained) > 0
        if len(history) == 0:
            users[user, width] = 1  # the last column ranks by popularity, of late if the model knows
            continue
        change = profile(history, model.item_embeddings, weights)
        if len(trained):
            users[user, :width] = model.user_embeddings[own]
            change = change - profile(trained, model.item_embeddings, weights)
        if len(history) != len(trained):
            users[user, :width] += change @ model.fold_in
    known = own_items >= 0
    items = np.zeros((len(own_items), width + 1), np.float32)
    items[known, :width] = model.item_embeddings[own_items[known]]
    trending = load_trending(model)
    items[known, width] = (model.popularity if trending is None else trending)[own_items[known]]
    return Contender(users, items, knows_user, known)


def positions(known: IdMap, ids: pl.Series | Sequence[str]) -> NDArray[np.int64]:
    """Where each id is, -1 where it is not, (ids,)."""
    places = pl.DataFrame(
        {"id": list(known), "place": np.arange(len(known))}, schema={"id": pl.String, "place": pl.Int64}
    )
    named = pl.DataFrame({"id": ids}, schema={"id": pl.String})
    found = named.join(places, on="id", how="left", maintain_order="left")
    return found["place"].fill_null(-1).to_numpy()


def training_pairs(model: Artifact) -> NDArray[np.int64]:
    """A model's training interactions, each as one number: the user times all items, and the item."""
    takers = np.repeat(np.arange(len(model.users)), np.diff(model.train_indptr))
    return takers * len(model.items) + model.train_indices


def pair_numbers(model: Artifact, named: pl.DataFrame) -> NDArray[np.int64]:
    """Pairs ``user`` and ``item`` as :func:`training_pairs` has them, -1 where it cannot know one, (pairs,)."""
    users, items = positions(model.users, named["user"]), positions(model.items, named["item"])
    return np.where((users >= 0) & (items >= 0), users * len(model.items) + items, -1)


def _staying(ids: IdMap, gone: Collection[str]) -> NDArray[np.bool_]:
    stays = np.ones(len(ids), np.bool_)
    places = positions(ids, list(gone))
    stays[places[places >= 0]] = False
    return stays
