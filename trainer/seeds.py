"""What seeds of trainings there are."""

MOST_SEED = 2**32 - 1
"""Of n students the k-th has n times the seed plus k, and that must be one of torch's seeds, which have 64 bits."""
