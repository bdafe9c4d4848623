"""The promotion gate, which says whether the challenger may take the champion's place.

Both are judged on the same fresh holdout: interactions of the newest days that neither was trained on. Every check
says its figure, its bound and, in plain words, why it passed or failed; one that fails is enough to refuse. Without a
champion only those checks are made that need none.

With few users the interval of NDCG@20 is wider than the margin, so that not even an equal model could be shown to be no
worse. A wider margin would let worse models through. So then the question is another one: whether the challenger is
better, and it has to be in ``GateSettings.better`` of the resamples. If it is not, the night is undecided and the
champion stays.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from numpy.typing import NDArray

from trainer.dataset import Dataset
from trainer.evaluation import CUTOFFS, Holdout, Ranking, found, ndcg, ranked
from trainer.nightly.contenders import Challenger, Champion
from trainer.nightly.settings import GateSettings
from trainer.nightly.statistics import (
    Interval,
    effective_rank,
    exposure,
    gini,
    mean_cosine,
    paired_bootstrap,
    random_ndcg,
    top_share,
)

CUTOFF = max(CUTOFFS)
LEAST_EFFECTIVE_RANK = 2.0
FEW_COLUMNS = 16
"""Features no wider, such as a category's, may have fewer directions than that, and be sound."""
MOST_MEAN_COSINE = 0.98
TAIL_SHARE = 0.8
"""The tail is the least popular items, so many of them."""
LEAST_LIFT = 1.2
"""How many times better than a random order a teacher has to be to count as alive."""
TEACHER_FALL = 0.5
"""How much of what a teacher had of the student's NDCG on the champion's night it may have lost."""
UNCONCENTRATED = 0.1
"""Less of all places than this is no concentration, whatever it was before."""
LEAST_USERS = 10
"""With fewer judged users nothing can be said."""


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Attributes:
        name: of the check.
        passed: whether it speaks for the challenger.
        value: its figure; None where there is none to give.
        bound: what the figure was held against.
        reason: both, in plain words.
        undecided: whether it failed for want of users alone.
    """

    name: str
    passed: bool
    value: float | None
    bound: float | None
    reason: str
    undecided: bool = False


@dataclass(frozen=True)
class Verdict:
    """What the gate decided, and all that it saw."""

    promoted: bool
    champion: str | None
    users: int
    checks: tuple[Check, ...]
    figures: Mapping[str, float] = field(default_factory=dict)

    @property
    def word(self) -> str:
        """Promoted, refused, or undecided, where nothing but the want of users spoke against it."""
        if self.promoted:
            return "promoted"
        return "undecided" if all(check.passed or check.undecided for check in self.checks) else "refused"

    @property
    def reasons(self) -> list[str]:
        """Why it was refused, or that nothing spoke against it."""
        return [check.reason for check in self.checks if not check.passed] or ["every check passed"]

    def as_dict(self) -> dict[str, Any]:
        """Plain values for the manifest and the report; a figure that is not finite is null."""
        return {
            "verdict": self.word,
            "champion": self.champion,
            "judged_users": self.users,
            "reasons": self.reasons,
            "checks": [vars(check) | {"value": _finite(check.value)} for check in self.checks],
            "figures": {name: value for name, value in self.figures.items() if np.isfinite(value)},
        }


def judge(
    challenger: Challenger, champion: Champion | None, dataset: Dataset, holdout: Holdout, settings: GateSettings
) -> Verdict:
    """Compare on a holdout.

    Args:
        challenger: trained on ``holdout.training``.
        champion: what is live, if anything is.
        dataset: that the challenger was trained on.
        holdout: interactions of training, to mask, and held out, to find; of ``dataset``.
        settings: margins.
    """
    version = None if champion is None else champion.version
    users = len(holdout.users())
    checks = list(_soundness(challenger, dataset))
    if challenger.index_recall is not None:
        checks.append(_index(challenger.index_recall, settings.index_recall))
    if champion is not None:
        checks += _completeness(champion, settings)
    enough = users >= LEAST_USERS
    checks.append(_check("judged users", users, LEAST_USERS, enough, f"{users} users can be judged"))
    if not enough or not all(check.passed for check in checks if check.name.startswith("finite")):
        return Verdict(False, version, users, tuple(checks))
    court = _Court(challenger, champion, dataset, holdout, settings)
    checks += court.checks()
    promoted = all(check.passed for check in checks)
    return Verdict(promoted, version, users, tuple(checks), court.figures)


def teacher_shares(figures: Mapping[str, float]) -> dict[str, float]:
    """Each teacher's NDCG@20 over the student's, from a verdict's figures."""
    student = figures.get("challenger.ndcg@20", 0.0)
    prefix, suffix = "teacher.", ".ndcg@20"
    return {
        name.removeprefix(prefix).removesuffix(suffix): value / student
        for name, value in figures.items()
        if name.startswith(prefix) and name.endswith(suffix) and student > 0
    }


def _soundness(challenger: Challenger, dataset: Dataset) -> Iterator[Check]:
    """Whether the numbers can be those of a model that has learnt anything."""
    tables = {"user": challenger.contender.users, "item": challenger.contender.items}
    for side, table in tables.items():
        bad = int((~np.isfinite(table)).any(axis=1).sum())
        said = f"{bad} of {len(table)} {side} embeddings hold NaN or infinity" if bad else f"all {side} embeddings are"
        yield _check(f"finite {side} embeddings", bad, 0, bad == 0, said)
        if bad == 0:
            yield from _spread(f"{side} embeddings", table)
    for name, teacher in challenger.teachers.items():
        yield _check(
            f"finite {name} teacher",
            float(not teacher.finite),
            0,
            teacher.finite,
            f"the {name} teacher's embeddings {'are finite' if teacher.finite else 'hold NaN or infinity'}",
        )
        if teacher.effective_rank is not None:
            yield _rank(f"the {name} teacher's item embeddings", teacher.effective_rank)
    for name, modality in dataset.modalities.items():
        if modality.features is not None:
            yield _features(name, modality.features[modality.present])


def _features(modality: str, rows: NDArray[np.float32]) -> Check:
    """Whether features tell items apart; a few columns, such as a category's, need not point everywhere for that."""
    if rows.shape[1] > FEW_COLUMNS:
        return _rank(f"the {modality} features", effective_rank(rows))
    differ = len(rows) < 2 or bool((rows != rows[0]).any())
    said = f"the {modality} features {'differ' if differ else 'are the same for all items'}"
    return _check(f"spread of the {modality} features", float(differ), 1, differ, said)


def _index(recall: float, least: float) -> Check:
    said = f"the index finds {recall:.2%} of the best items, at least {least:.2%} must be found"
    return _check("index recall", recall, least, recall >= least, said)


def _spread(what: str, table: NDArray[np.float32]) -> Iterator[Check]:
    yield _rank(what, effective_rank(table))
    cosine = mean_cosine(table)
    yield _check(
        f"mean cosine of {what}",
        cosine,
        MOST_MEAN_COSINE,
        cosine <= MOST_MEAN_COSINE,
        f"two {what} have a cosine of {cosine:.2f} on average, and {MOST_MEAN_COSINE} is where they count as one",
    )


def _rank(what: str, rank: float) -> Check:
    alive = rank >= LEAST_EFFECTIVE_RANK
    said = "spread over" if alive else "have collapsed to"
    return _check(f"spread of {what}", rank, LEAST_EFFECTIVE_RANK, alive, f"{what} {said} {rank:.1f} directions")


def _completeness(champion: Champion, settings: GateSettings) -> Iterator[Check]:
    """Whether what the champion was made of is still there."""
    for what, kept, total in (
        ("items", champion.items_kept, champion.items_total),
        ("interactions", champion.pairs_kept, champion.pairs_total),
    ):
        share = kept / total if total else 1.0
        yield _check(
            f"{what} kept",
            share,
            settings.kept,
            share >= settings.kept,
            f"{share:.1%} of the champion's {total:,} {what} are in today's data, at least {settings.kept:.0%} must be",
        )


class _Court:
    """The comparison proper: figures first, then the checks on them."""

    def __init__(
        self,
        challenger: Challenger,
        champion: Champion | None,
        dataset: Dataset,
        holdout: Holdout,
        settings: GateSettings,
    ) -> None:
        self._challenger = challenger
        self._champion = champion
        self._dataset = dataset
        self._holdout = holdout
        self._settings = settings
        self._ranking = ranked(challenger.contender.scores, holdout)
        self._rival = None if champion is None else ranked(champion.contender.scores, holdout)
        self._popularity = np.bincount(holdout.training.indices, minlength=holdout.training.shape[1])
        self.figures: dict[str, float] = {}

    def checks(self) -> list[Check]:
        """All comparisons."""
        checks = list(self._against_baselines())
        if self._rival is not None:
            checks.append(self._against_champion("all users", self._rival, None, self._settings.ndcg_margin))
            checks += self._slices(self._rival)
        checks += self._variety()
        return checks

    def _against_champion(
        self, name: str, rival: Ranking, items: NDArray[np.bool_] | None, margin: float, users: Any = slice(None)
    ) -> Check:
        own, its = (_ndcg(ranking, self._holdout, items)[users] for ranking in (self._ranking, rival))
        judged = np.isfinite(own)
        interval = paired_bootstrap(own[judged] - its[judged], self._settings.confidence)
        level = float(its[judged].mean())
        self._note(name, float(own[judged].mean()), level, interval)
        said = (
            f"{name}: NDCG@20 {own[judged].mean():.4f} against the champion's {level:.4f} on {judged.sum()} users, "
            f"difference {interval.mean:+.4f} [{interval.low:+.4f}, {interval.high:+.4f}]"
        )
        least = -margin * level
        if items is None and isinstance(users, slice):
            return self._whole(name, interval, least, said)
        passed = interval.mean >= least
        return _check(
            f"NDCG@20, {name}", interval.mean, least, passed, f"{said}; the mean difference may be {least:+.4f}"
        )

    def _whole(self, name: str, interval: Interval, least: float, said: str) -> Check:
        """Whether the challenger is no worse for all users; where they are too few to tell, whether it is better."""
        if interval.low >= least or interval.mean - interval.low <= -least:
            reason = f"{said}; the interval's low end may be {least:+.4f}"
            return _check(f"NDCG@20, {name}", interval.low, least, interval.low >= least, reason)
        wanted = self._settings.better
        reason = (
            f"{said}; too few users to tell whether it is worse by more than {-least:.4f}, so it has to be better: it "
            f"is in {interval.better:.0%} of the resamples, and {wanted:.0%} are asked for"
        )
        passed = interval.better >= wanted
        undecided = 1 - wanted < interval.better < wanted
        return Check(f"NDCG@20, {name}", passed, interval.better, wanted, reason, undecided)

    def _note(self, name: str, own: float, its: float, interval: Interval) -> None:
        prefix = "" if name == "all users" else f"{name}."
        self.figures |= {
            f"{prefix}challenger.ndcg@20": own,
            f"{prefix}champion.ndcg@20": its,
            f"{prefix}difference": interval.mean,
            f"{prefix}difference.low": interval.low,
            f"{prefix}difference.high": interval.high,
        }

    def _slices(self, rival: Ranking) -> Iterator[Check]:
        champion = self._champion
        if champion is None:
            return
        new = ~champion.contender.knows_user[rival.users]
        for name, users in (("new users", new), ("known users", ~new)):
            if self._enough(users):
                yield self._against_champion(name, rival, None, self._settings.slice_margin, users)
        for name, items in self._item_slices():
            if self._enough(np.isfinite(_ndcg(rival, self._holdout, items))):
                yield self._against_champion(name, rival, items, self._settings.slice_margin)

    def _enough(self, users: NDArray[np.bool_]) -> bool:
        return int(users.sum()) >= self._settings.slice_users

    def _item_slices(self) -> Iterator[tuple[str, NDArray[np.bool_]]]:
        order = np.argsort(self._popularity, kind="stable")
        tail = np.zeros(len(order), np.bool_)
        tail[order[: round(TAIL_SHARE * len(order))]] = True
        yield "tail items", tail
        for name, modality in self._dataset.modalities.items():
            yield f"items with {name}", modality.present

    def _against_baselines(self) -> Iterator[Check]:
        own = ndcg(self._ranking.hits, self._ranking.relevant, CUTOFF)
        mean = float(own.mean())
        self.figures |= {f"challenger.{name}": value for name, value in self._ranking.metrics().items()}
        training = self._holdout.training
        users = self._ranking.users
        eligible = training.shape[1] - np.diff(training.indptr)[users]
        chance = random_ndcg(self._ranking.relevant, np.maximum(eligible, 1), CUTOFF)
        self.figures["random.ndcg@20"] = chance
        popular = torch.from_numpy(self._popularity.astype(np.float32))
        of_popularity = ranked(lambda users: popular.repeat(len(users), 1), self._holdout)
        rivals = {"popularity": of_popularity.hits} | {
            f"the {name} teacher": found(teacher.lists, users, self._holdout)
            for name, teacher in self._challenger.teachers.items()
        }
        for name, hits in rivals.items():
            level = float(ndcg(hits, self._ranking.relevant, CUTOFF).mean())
            teacher = name.removeprefix("the ").removesuffix(" teacher")
            self.figures[f"{'' if name == 'popularity' else 'teacher.'}{teacher}.ndcg@20"] = level
            bound = level * (1 - self._settings.teacher_margin)
            yield _check(
                f"student against {name}",
                mean,
                bound,
                mean >= bound,
                f"the student's NDCG@20 is {mean:.4f}, that of {name} {level:.4f}",
            )
            if name != "popularity":
                yield from self._aliveness(teacher, level, mean, chance)

    def _aliveness(self, name: str, level: float, student: float, chance: float) -> Iterator[Check]:
        bound = LEAST_LIFT * chance
        yield _check(
            f"{name} teacher alive",
            level,
            bound,
            level >= bound,
            f"the {name} teacher's NDCG@20 is {level:.4f}; a random order would have {chance:.4f}, and {LEAST_LIFT:g} "
            "times that is where a teacher counts as alive",
        )
        before = {} if self._champion is None else self._champion.teacher_shares
        if name not in before or student <= 0:
            return
        share, bound = level / student, before[name] * (1 - TEACHER_FALL)
        yield _check(
            f"{name} teacher's share",
            share,
            bound,
            share >= bound,
            f"the {name} teacher has {share:.0%} of the student's NDCG@20, on the champion's night it had "
            f"{before[name]:.0%}, and at least {bound:.0%} is asked for",
        )

    def _variety(self) -> Iterator[Check]:
        items = self._holdout.training.shape[1]
        counts = exposure(self._ranking.items, items)
        coverage, concentration = float((counts > 0).mean()), top_share(counts)
        self.figures |= {
            "challenger.coverage": coverage,
            "challenger.top1_share": concentration,
            "challenger.gini": gini(counts),
        }
        least, most = min(CUTOFF + 1, self._recommendable()) / items, 0.5
        if self._rival is not None:
            before = exposure(self._rival.items, items)
            self.figures |= {
                "champion.coverage": float((before > 0).mean()),
                "champion.top1_share": top_share(before),
                "champion.gini": gini(before),
            }
            least = max(least, (1 - self._settings.coverage_margin) * self.figures["champion.coverage"])
            allowed = (1 + self._settings.concentration_margin) * self.figures["champion.top1_share"]
            most = min(1.0, max(UNCONCENTRATED, allowed))
        yield _check(
            "coverage",
            coverage,
            least,
            coverage >= least,
            f"{coverage:.1%} of the items are recommended to somebody, at least {least:.1%} must be",
        )
        yield _check(
            "popularity concentration",
            concentration,
            most,
            concentration <= most,
            f"the most shown 1% of the items take {concentration:.1%} of all places, at most {most:.1%} is allowed",
        )

    def _recommendable(self) -> int:
        """How many items some judged user lacks; the others can be recommended to nobody."""
        users = self._ranking.users
        return int((self._holdout.training[users].getnnz(axis=0) < len(users)).sum())


def _ndcg(ranking: Ranking, holdout: Holdout, items: NDArray[np.bool_] | None) -> NDArray[np.float64]:
    """NDCG@20 of each judged user, over the held-out items of a slice; NaN for who has none of them."""
    if items is None:
        return ndcg(ranking.hits, ranking.relevant, CUTOFF)
    within = sp.csr_matrix(holdout.held_out[ranking.users].multiply(items[None, :]))
    within.eliminate_zeros()
    relevant = np.diff(within.indptr).astype(np.int64)
    hits = ranking.hits & items[ranking.items]
    return np.where(relevant > 0, ndcg(hits, np.maximum(relevant, 1), CUTOFF), np.nan)


def _check(name: str, value: float, bound: float | None, passed: bool, reason: str) -> Check:
    return Check(name, bool(passed), float(value), bound, reason)


def _finite(value: float | None) -> float | None:
    return value if value is not None and np.isfinite(value) else None
