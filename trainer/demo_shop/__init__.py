"""A synthetic shop to try the trainer on: drawn pictures, written texts, and users with tastes of three kinds.

What each of the three tells is independent of the other two: co-purchases (hidden circles of users and items),
looks (styles that only the pictures show) and words (themes that only the texts tell).
"""

from trainer.demo_shop.shop import make_shop

__all__ = ["make_shop"]
