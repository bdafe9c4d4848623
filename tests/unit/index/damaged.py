"""Damages index files bit by bit, reads and searches what is left; run by itself, since a crash is what it looks for.

Usage: python -m tests.unit.index.damaged KIND FOLDER FLIPS SEED. Prints how many were refused and how many answered.
"""

import sys
from pathlib import Path

import numpy as np

from shared.errors import UserError
from shared.index import files
from shared.index.approximate import ApproximateIndex
from shared.index.exact import ExactIndex
from shared.index.kinds import KINDS
from shared.index.searchers import Effort
from tests.unit.index.conftest import WIDTH, items_and_users

HEADER_BYTES = 400


def main(name: str, folder: Path, flips: int, seed: int) -> None:
    items, users = items_and_users(1500, 8)
    kind, exact, path = KINDS[name], ExactIndex(items), folder / "index"
    files.write(kind.build(items), path)
    sound = path.read_bytes()
    rng = np.random.default_rng(seed)
    refused = answered = 0
    for flip in range(flips):
        damaged = bytearray(sound)
        # Every other one among the numbers that say how the file is to be read, at its beginning or its end.
        place = int(rng.integers(len(sound)))
        if flip % 2:
            place = place % HEADER_BYTES if flip % 4 == 1 else len(sound) - 1 - place % HEADER_BYTES
        damaged[place] ^= 1 << int(rng.integers(8))
        if flip % 10 == 9:
            damaged = damaged[: int(rng.integers(len(damaged)))]
        broken = folder / f"broken{flip % 2}"
        broken.unlink(missing_ok=True)  # what is mapped stays as it is
        broken.write_bytes(damaged)
        try:
            searcher = kind.searcher(files.read(broken, kind, len(items), WIDTH))
        except UserError:
            refused += 1
            continue
        for effort in (Effort(kind.depths[0], kind.refines[0]), Effort(kind.depths[-1], kind.refines[-1])):
            index = ApproximateIndex(exact, name, searcher, effort)
            for query in users:
                ranking = index.top_k(query, 20, np.array([1, 2, 3]), np.arange(len(items)) % 2 == 0)
                assert len(set(ranking.items.tolist())) == 20
                assert len(set(index.top_k(query, 20, np.array([1, 2, 3])).items.tolist())) == 20
        answered += 1
    print(refused, answered)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
