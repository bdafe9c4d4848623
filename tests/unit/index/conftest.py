"""Vectors like a trained student's: tastes as directions, popular items long, users between the tastes they like."""

import numpy as np

WIDTH = 16


def items_and_users(items: int, users: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """float32 [items, WIDTH] and float32 [users, WIDTH]."""
    rng = np.random.default_rng(seed)
    tastes = rng.normal(size=(40, WIDTH))
    directions = tastes[rng.integers(0, 40, items)] + 0.7 * rng.normal(size=(items, WIDTH))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    lengths = np.exp(0.6 * rng.normal(size=(items, 1)))
    likes = tastes[rng.integers(0, 40, users)] + tastes[rng.integers(0, 40, users)]
    return (directions * lengths).astype(np.float32), (likes + rng.normal(size=(users, WIDTH))).astype(np.float32)
