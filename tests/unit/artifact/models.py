"""A small model, and what is said of where it comes from."""

import numpy as np

from shared.artifact import DatasetInfo, Provenance, Split, StudentModel

USERS = ["ann", "bob", "cyd"]
ITEMS = ["mug", "hat", "pen", "sock"]
MODEL = StudentModel(
    user_ids=USERS,
    item_ids=ITEMS,
    user_embeddings=np.array([[1, 0], [0, 1], [0.5, -0.25]], np.float32),
    item_embeddings=np.array([[1, 2], [3, 4], [5, 6], [7, 8]], np.float32),
    train_indptr=np.array([0, 2, 2, 3]),
    train_indices=np.array([1, 3, 1]),
    items=[{"title": "A mug"}, {"title": "Zweizeilig\n\u2028hat 🎩"}, {}, {"title": None, "sizes": [36, 44]}],
)
PROVENANCE = Provenance(
    dataset=DatasetInfo(
        name="a | shop", fingerprint="f00d", users=3, items=4, interactions=5, split=Split(kind="random", seed=3)
    ),
    recipe={"learning_rate": 0.002, "layers": [1, 2], "modalities": {"image": True}},
    seed=11,
    metrics={"test_recall@20": 0.0951},
    code_revision="abc123",
)
