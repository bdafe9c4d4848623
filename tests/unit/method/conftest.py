"""A small dataset with taste in it, for tests that train."""

import numpy as np
import pytest

from trainer.dataset import Dataset, Modality, SplitSpec

USERS, ITEMS, GROUPS = 60, 40, 4


@pytest.fixture(scope="session")
def small_dataset() -> Dataset:
    """Users and items in four groups that clicks and both modalities show; some items lack a modality."""
    generator = np.random.default_rng(0)
    user_group, item_group = np.arange(USERS) % GROUPS, np.arange(ITEMS) % GROUPS
    liked = generator.random((USERS, ITEMS)) < np.where(user_group[:, None] == item_group[None, :], 0.7, 0.05)
    users, items = np.nonzero(liked)
    labels = generator.choice(3, size=len(users), p=[0.8, 0.1, 0.1]).astype(np.int8)
    modalities = {}
    for name, missing in (("image", 3), ("text", 7)):
        present = np.ones(ITEMS, bool)
        present[missing::9] = False
        features = np.eye(GROUPS, 6, dtype=np.float32)[item_group] + generator.normal(0, 0.3, (ITEMS, 6))
        modalities[name] = Modality(name, (features * present[:, None]).astype(np.float32), present, None, None)
    return Dataset(
        name="small",
        user_ids=[f"user {u}" for u in range(USERS)],
        item_ids=[f"item {i}" for i in range(ITEMS)],
        users=users.astype(np.int64),
        items=items.astype(np.int64),
        labels=labels,
        timestamps=None,
        weights=None,
        modalities=modalities,
        catalogue=None,
        split=SplitSpec("given"),
        fingerprint="0" * 64,
    )
