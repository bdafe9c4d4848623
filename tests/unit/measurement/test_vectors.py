"""Synthetic embeddings are like a student's where it matters to an index."""

import numpy as np

from trainer.measurement.vectors import synthetic_vectors


def test_lengths_and_closeness_are_those_of_a_student_trained_on_amazon_baby() -> None:
    """Measured on 7,050 items of width 64: lengths by quantile over the median, and the cosines of the nearest 20."""
    items, users = synthetic_vectors(7050, 500, 64, 0)
    lengths = np.linalg.norm(items, axis=1)
    quantiles = np.quantile(lengths, [0.01, 0.25, 0.75, 0.99]) / np.median(lengths)
    scores = users @ items.T
    cosines = np.sort(scores / lengths / np.linalg.norm(users, axis=1)[:, None], axis=1)[:, -20:]
    shares = np.linalg.eigvalsh(np.cov(items.T))[::-1]

    np.testing.assert_allclose(quantiles, [0.54, 0.82, 1.34, 3.72], rtol=0.12)
    assert 0.42 <= cosines.mean() <= 0.6  # 0.536
    assert 0.15 <= shares[:4].sum() / shares.sum() <= 0.28  # 0.218


def test_the_same_arguments_make_the_same_embeddings_and_another_seed_others() -> None:
    first, again, other = (synthetic_vectors(500, 20, 8, seed) for seed in (1, 1, 2))

    for one, two, three in zip(first, again, other, strict=True):
        assert one.dtype == np.float32
        np.testing.assert_array_equal(one, two)
        assert not np.array_equal(one, three)
