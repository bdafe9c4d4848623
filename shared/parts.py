"""What a user's embedding is the sum of, by name: the terms of Eq. 21, and what the linear teacher added.

A score is then a sum over parts too, exactly, and so explains itself; and a ranking with one part stronger or weaker
is one more inner product.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shared.errors import UserError
from shared.fold_in import fit_map
from shared.tables import Flaw, Tables

TOLERANCE = 1e-3
"""How far the parts' sum may be from the embedding, of the largest number in the tables: float32 rounds."""

_USERS_PER_BLOCK = 65_536


@dataclass(frozen=True)
class Parts:
    """The parts of all user embeddings.

    Attributes:
        names: of the parts, each once.
        users: float32 [parts, users, width]; the sum over parts is ``user_embeddings``.
        fold_in: float32 [parts, width, width]; the sum over parts is the matrix of :mod:`shared.fold_in`.
    """

    names: tuple[str, ...]
    users: NDArray[np.float32]
    fold_in: NDArray[np.float32]

    def check(self, tables: Tables, flaw: Flaw) -> None:
        """Check the parts against the embeddings that they are the sum of.

        Raises:
            UserError: what ``flaw`` makes of a wrong shape, numbers that are not finite, or another sum.
        """
        count, width = len(self.names), tables.user_embeddings.shape[1]
        for table, found, wanted in (
            ("user_parts", self.users.shape, (count, *tables.user_embeddings.shape)),
            ("fold_in_parts", self.fold_in.shape, (count, width, width)),
        ):
            if found != wanted:
                raise flaw(table, f"has the shape {found}, and {count} parts of these embeddings need {wanted}")
        for start in range(0, len(tables.user_embeddings), _USERS_PER_BLOCK):
            block = slice(start, start + _USERS_PER_BLOCK)
            parts, whole = self.users[:, block], tables.user_embeddings[block]
            allowed = TOLERANCE * max(float(np.abs(parts).max(initial=0)), float(np.abs(whole).max(initial=0)))
            if not np.abs(parts.sum(axis=0) - whole).max(initial=0) <= allowed:
                raise flaw("user_parts", "does not add up to user_embeddings")
        if not np.isfinite(self.fold_in).all():
            raise flaw("fold_in_parts", "holds NaN or infinity")


def parts_of(named: Mapping[str, NDArray[np.floating]], tables: Tables, flaw: Flaw) -> Parts:
    """Parts from tables [users, width] by name, with a matrix to fold users in for each.

    Raises:
        UserError: what ``flaw`` makes, as ``Parts.check`` says.
    """
    for name, part in named.items():
        if part.shape != tables.user_embeddings.shape:
            raise flaw("user_parts", f"has {name!r} with the shape {part.shape}, unlike user_embeddings")
    users = np.stack([np.asarray(part, dtype=np.float32) for part in named.values()])
    maps = [fit_map(part, tables.item_embeddings, tables.train_indptr, tables.train_indices) for part in users]
    parts = Parts(tuple(named), users, np.stack(maps))
    parts.check(tables, flaw)
    return parts


def names_from(document: object) -> tuple[str, ...]:
    """The names in a JSON document: a list of texts, each once, not empty.

    Raises:
        UserError: it is something else.
    """
    if not isinstance(document, list) or not document or not all(isinstance(name, str) and name for name in document):
        raise UserError("is not a list of names")
    if len(set(document)) < len(document):
        raise UserError("names a part twice")
    return tuple(document)
