"""Triplets: every training pair once an epoch, negatives never taken, the same for the same seed and epoch."""

import numpy as np
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from trainer.sampler import TripletSampler, epoch_generator


@given(
    hnp.arrays(np.float32, st.tuples(st.integers(1, 6), st.integers(2, 6)), elements=st.sampled_from([0, 1])),
    st.integers(1, 10),
)
def test_an_epoch_visits_each_learnable_pair_once_with_a_true_negative(interactions, size) -> None:
    sampler = TripletSampler(sp.csr_matrix(interactions))
    learnable = interactions * ~interactions.all(axis=1, keepdims=True)
    seen = []
    for users, positives, negatives in sampler.batches(size, epoch_generator(0, 1)):
        assert 0 < len(users) <= size
        assert (interactions[users, negatives] == 0).all()
        seen += list(zip(users.tolist(), positives.tolist(), strict=True))
    assert sorted(seen) == [tuple(pair) for pair in np.argwhere(learnable).tolist()]
    assert len(sampler) == len(seen)


def epoch(seed: int, number: int) -> list[list[int]]:
    interactions = sp.random(30, 20, density=0.3, random_state=0, format="csr", dtype=np.float32)
    sampler = TripletSampler(interactions)
    return [np.stack(batch).tolist() for batch in sampler.batches(16, epoch_generator(seed, number))]


def test_the_same_seed_and_epoch_draw_the_same_and_others_do_not() -> None:
    assert epoch(3, 5) == epoch(3, 5)
    assert epoch(3, 5) != epoch(3, 6)
    assert epoch(3, 5) != epoch(4, 5)
