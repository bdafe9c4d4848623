"""What is true of the demo shop and never written to disk: who likes what and why, and who bought what."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trainer.demo_shop.pictures import STYLES
from trainer.demo_shop.words import KINDS, THEMES

CIRCLES = 16
"""Hidden groups of users and items."""

# With stronger tastes or fuller baskets co-purchases alone tell nearly everything. With these, in the shop of seed 0
# (one training seed), test recall@20 of popularity is 0.06, of LightGCN 0.16, of the ID teacher 0.16, of the image
# and text teachers 0.13 each, of their student 0.22.
_PULL = 5.5
_MEAN_BASKET = 10
_MIN_BASKET = 5
_ZIPF_EXPONENT = 0.5
_MIX_CONCENTRATION = 0.5

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class ShopTruth:
    """The hidden side of a shop of U users and I items.

    Attributes:
        item_circle: (I,) the hidden group an item belongs to; shows in co-purchases alone.
        item_style: (I,) index into `pictures.STYLES`; shows in the picture alone.
        item_theme: (I,) index into `words.THEMES`; shows in the text alone.
        item_kind: (I,) index into `words.KINDS`; shows in both and sways nobody.
        item_popularity: (I,) log-odds of being bought by someone whose taste it leaves cold.
        user_circles: (U, circles) how much a user belongs to a hidden group, in [0, 1].
        user_styles: (U, styles) how much a user likes a style, in [0, 1].
        user_themes: (U, themes) how much a user likes a theme, in [0, 1].
        user_mix: (U, 3) what share circles, styles and themes have in a user's taste; rows sum to 1.
        users: (N,) the user of each interaction, in rising order.
        items: (N,) the item of each interaction; no pair occurs twice.
    """

    item_circle: Ints
    item_style: Ints
    item_theme: Ints
    item_kind: Ints
    item_popularity: Floats
    user_circles: Floats
    user_styles: Floats
    user_themes: Floats
    user_mix: Floats
    users: Ints
    items: Ints

    def appeal(self) -> Floats:
        """(U, I) how much each item appeals to each user, as log-odds up to a constant of the user."""
        liked = (
            (self.user_circles, self.item_circle),
            (self.user_styles, self.item_style),
            (self.user_themes, self.item_theme),
        )
        taste = sum(self.user_mix[:, [kind]] * likes[:, group] for kind, (likes, group) in enumerate(liked))
        return np.asarray(_PULL * taste + self.item_popularity)


def draw_shop(seed: int, *, users: int, items: int) -> ShopTruth:
    """Draw the tastes of ``users`` users and what they bought of ``items`` items."""
    rng = np.random.default_rng([seed, 0])
    circle, style, theme, kind = (
        _dealt(items, groups, rng) for groups in (CIRCLES, len(STYLES), len(THEMES), len(KINDS))
    )
    circles, styles, themes = (_likes(users, groups, rng) for groups in (CIRCLES, len(STYLES), len(THEMES)))
    mix = rng.dirichlet([_MIX_CONCENTRATION] * 3, users)
    popularity = -_ZIPF_EXPONENT * np.log(1 + 50 * rng.permutation(items) / items)
    taste = mix[:, :1] * circles[:, circle] + mix[:, 1:2] * styles[:, style] + mix[:, 2:] * themes[:, theme]
    buyers, bought = _baskets(_PULL * taste + popularity, rng)
    return ShopTruth(
        item_circle=circle,
        item_style=style,
        item_theme=theme,
        item_kind=kind,
        item_popularity=popularity,
        user_circles=circles,
        user_styles=styles,
        user_themes=themes,
        user_mix=mix,
        users=buyers,
        items=bought,
    )


def _dealt(items: int, groups: int, rng: np.random.Generator) -> Ints:
    """Groups of nearly equal size, dealt at random."""
    return rng.permutation(np.arange(items) % groups)


def _likes(users: int, groups: int, rng: np.random.Generator) -> Floats:
    """One group a user loves and one a user likes, (users, groups)."""
    likes = np.zeros((users, groups))
    first = rng.integers(groups, size=users)
    second = (first + rng.integers(1, groups, size=users)) % groups
    likes[np.arange(users), first] = 1
    likes[np.arange(users), second] = 0.75
    return likes


def _baskets(appeal: Floats, rng: np.random.Generator) -> tuple[Ints, Ints]:
    """Users and items of the interactions: each user's items drawn without replacement by softmax of appeal."""
    users, items = appeal.shape
    extra = rng.gamma(1.5, (_MEAN_BASKET - _MIN_BASKET) / 1.5, users)
    size = np.minimum(_MIN_BASKET + np.rint(extra).astype(np.int64), items // 2)
    # The top n after adding Gumbel noise are n draws by softmax without replacement.
    order = np.argsort(-(appeal + rng.gumbel(size=appeal.shape)), axis=1)
    return np.repeat(np.arange(users), size), order[np.arange(items) < size[:, None]]
