"""Thresholds on the scores of pseudo-labels with the best F1, where there is ground truth that the
teacher has not learned from.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import mul
from typing import Any

import numpy as np

from mmcast.pseudo_labels.filters import LabelFilter
from mmcast.pseudo_labels.quality import compare_labels
from mmcast.pseudo_labels.store import SCORES

_ROUNDS = 4  # over the classes, whose labels cover one another
# Products of the stored scores that labels may be ranked by.
_RANKINGS = (
    ('score',),
    ('class_score',),
    ('score', 'mask_quality'),
    ('score', 'agreement'),
    ('score', 'mask_quality', 'agreement'),
)


@dataclass(frozen=True)
class Counts:
    """Labels that a threshold leaves, against ground truth.

    Attributes:
        objects: ground truths, without groups (``iscrowd``).
        labels: those above the threshold, without those on groups.
        correct: labels with a ground truth of IoU 0.5 or more to themselves.
    """

    objects: int
    labels: int
    correct: int

    @property
    def precision(self) -> float:
        return self.correct / self.labels if self.labels else 0.0

    @property
    def recall(self) -> float:
        return self.correct / self.objects if self.objects else 0.0

    @property
    def f1(self) -> float:
        """Of precision and recall the harmonic mean, 2 correct / (labels + objects)."""
        total = self.labels + self.objects
        return 2 * self.correct / total if total else 0.0

    def to_dict(self) -> dict[str, float]:
        names = ('objects', 'labels', 'correct', 'precision', 'recall', 'f1')
        return {name: getattr(self, name) for name in names}

    def __add__(self, other: 'Counts') -> 'Counts':
        return Counts(
            self.objects + other.objects, self.labels + other.labels, self.correct + other.correct
        )


@dataclass(frozen=True)
class Judged:
    """Labels of some classes against ground truth.

    Attributes:
        scores: (N,), sorted, the highest first.
        correct: (N,) of bool.
        objects: ground truths.
    """

    scores: np.ndarray
    correct: np.ndarray
    objects: int

    def above(self, threshold: float) -> Counts:
        kept = self.scores > threshold
        return Counts(self.objects, int(kept.sum()), int(self.correct[kept].sum()))


@dataclass(frozen=True)
class Choice:
    """The threshold of a class.

    Attributes:
        threshold: labels with a ``score`` above it are used.
        chosen_on: 'class', 'all classes', or 'score_thr' where nothing was chosen.
        counts: what it gives, with those of the other classes.
        score_thr: the threshold that is not chosen.
        counts_at_score_thr: what that gives, likewise.
    """

    threshold: float
    chosen_on: str
    counts: Counts
    score_thr: float
    counts_at_score_thr: Counts

    def to_dict(self) -> dict[str, Any]:
        return dict(
            threshold=self.threshold,
            chosen_on=self.chosen_on,
            **self.counts.to_dict(),
            score_thr=self.score_thr,
            f1_at_score_thr=self.counts_at_score_thr.f1,
        )


class HeldOut:
    """A teacher's labels of images with ground truth, read as a training data set reads them.

    Args:
        labels: annotations of a pseudo-label file by image id.
        truths: ground truth, see :func:`~mmcast.pseudo_labels.quality.read_ground_truth`; these
            images count.
        thresholds: by score and category id, ``score`` among them, as :class:`LabelFilter` takes
            them.
        options: more of :class:`LabelFilter`: ``min_area``, ``min_visible``, ``top_k``,
            ``resolve_overlaps``.
        lowest: no threshold on ``score`` below it is chosen; by default that of each class.

    Attributes:
        score_thr: the thresholds on ``score``, by category id.
        lowest: the lowest ones, likewise.
    """

    def __init__(
        self,
        labels: Mapping[int, Sequence[dict]],
        truths: Mapping[int, Sequence[dict]],
        thresholds: Mapping[str, Mapping[int, float]],
        options: Mapping[str, Any] | None = None,
        lowest: float | None = None,
    ) -> None:
        self.labels, self.truths = labels, truths
        self.thresholds, self.options = thresholds, dict(options or {})
        self.score_thr = dict(thresholds['score'])
        self.lowest = self.score_thr if lowest is None else dict.fromkeys(self.score_thr, lowest)

    def judge(self, limits: Mapping[int, float]) -> dict[int, Judged]:
        """The labels of each class that are left with thresholds on ``score``, by category id."""
        choose = LabelFilter(dict(self.thresholds, score=limits), **self.options)
        kept = {image: choose(self.labels.get(image, ())) for image in self.truths}
        return {category: self._judge(kept, category) for category in limits}

    def _judge(self, kept: Mapping[int, Sequence[dict]], category: int) -> Judged:
        parts = [
            {
                image: [ann for ann in found if ann['category_id'] == category]
                for image, found in part.items()
            }
            for part in (kept, self.truths)
        ]
        found = compare_labels(*parts)
        scores = found.scores.get('score', np.zeros(0))
        order = np.argsort(-scores, kind='stable')
        return Judged(scores[order], found.correct[order], found.total)


def best_threshold(judged: Judged, lowest: float) -> float:
    """The number from ``lowest`` on above which labels have the best F1.

    It lies half-way between two scores. Of equal F1 it is the highest; ``lowest`` where all labels
    above that are the best choice, or none is correct.
    """
    known = judged.scores > lowest
    scores, correct = judged.scores[known], np.cumsum(judged.correct[known])
    ends = np.flatnonzero(np.diff(scores, append=-np.inf))  # equal scores come together
    if not len(ends) or not correct[-1]:
        return lowest
    f1 = 2 * correct[ends] / (ends + 1 + judged.objects)
    end = int(ends[f1.argmax()])
    return lowest if end == len(scores) - 1 else float((scores[end] + scores[end + 1]) / 2)


def best_thresholds(held_out: HeldOut, fewest_objects: int = 20) -> dict[int, Choice]:
    """For each class the threshold with the best F1, by category id.

    A label counts as correct as in COCO's evaluation at IoU 0.5, after the overlaps are resolved as
    in training. A label's pixels depend on the labels of higher score alone, so one pass tells the
    F1 of all thresholds of a class, given those of the others; the classes are gone through until
    none changes. A class with too few objects, or without a correct label, has the threshold that
    is best for the labels of all classes together.

    Args:
        held_out: labels and ground truth.
        fewest_objects: of a class, to choose a threshold on its own; of all classes, to choose any.
    """
    first = held_out.judge(held_out.lowest)
    own = [
        category
        for category, judged in first.items()
        if judged.objects >= fewest_objects and judged.correct.any()
    ]
    limits, chosen_on = dict(held_out.score_thr), dict.fromkeys(first, 'score_thr')
    every = _join(first)
    if every.objects >= fewest_objects and every.correct.any():
        together = best_threshold(every, min(held_out.lowest.values()))
        limits = {category: max(together, lowest) for category, lowest in held_out.lowest.items()}
        chosen_on = dict.fromkeys(first, 'all classes') | dict.fromkeys(own, 'class')
        _choose_in_turn(held_out, limits, own)
    fixed, last = held_out.judge(held_out.score_thr), held_out.judge(limits)
    return {
        category: Choice(
            limit,
            chosen_on[category],
            last[category].above(limit),
            held_out.score_thr[category],
            fixed[category].above(held_out.score_thr[category]),
        )
        for category, limit in limits.items()
    }


def _choose_in_turn(held_out: HeldOut, limits: dict[int, float], categories: Sequence[int]) -> None:
    """Sets the limits of some classes in place, each to the best one given the others."""
    for _ in range(_ROUNDS):
        before = dict(limits)
        for category in categories:
            lowest = held_out.lowest[category]
            judged = held_out.judge(limits | {category: lowest})[category]
            limits[category] = best_threshold(judged, lowest)
        if limits == before or len(limits) == 1:
            break


def _join(judged: Mapping[int, Judged]) -> Judged:
    """The labels of all classes together."""
    scores = np.concatenate([each.scores for each in judged.values()])
    correct = np.concatenate([each.correct for each in judged.values()])
    order = np.argsort(-scores, kind='stable')
    return Judged(scores[order], correct[order], sum(each.objects for each in judged.values()))


def compare_rankings(held_out: HeldOut) -> dict[str, dict[str, float]]:
    """The best F1 over all classes with one threshold, however low, for each product of stored
    scores that labels may be ranked by: dicts with ``threshold`` and those of
    :meth:`Counts.to_dict`, by the product's name.
    """
    fields = set(SCORES)
    for found in held_out.labels.values():
        fields &= set.intersection(fields, *({*label} for label in found))
    rankings = {}
    for names in _RANKINGS:
        if not fields.issuperset(names):
            continue
        labels = {
            image: [
                dict(label, score=reduce(mul, (label[name] for name in names))) for label in found
            ]
            for image, found in held_out.labels.items()
        }
        other = HeldOut(labels, held_out.truths, held_out.thresholds, held_out.options)
        judged = _join(other.judge(dict.fromkeys(held_out.lowest, -1.0)))
        threshold = max(0.0, best_threshold(judged, -1.0))
        rankings[' x '.join(names)] = dict(threshold=threshold, **judged.above(threshold).to_dict())
    return rankings


def total_counts(choices: Mapping[int, Choice]) -> tuple[Counts, Counts]:
    """Of all classes: with the thresholds, and with ``score_thr``."""
    none = Counts(0, 0, 0)
    return (
        sum((choice.counts for choice in choices.values()), none),
        sum((choice.counts_at_score_thr for choice in choices.values()), none),
    )


def threshold_lines(choices: Mapping[str, Choice], rankings: Mapping[str, Mapping]) -> list[str]:
    """Choices by class name, and what else was seen, as aligned text."""
    head = ('class', 'threshold', 'chosen on', 'objects', 'labels', 'precision', 'recall', 'F1')
    rows = [(*head, 'F1 at score_thr')]
    for name, choice in choices.items():
        fixed = f'{100 * choice.counts_at_score_thr.f1:.1f} ({choice.score_thr:g})'
        cells = (name, f'{choice.threshold:.3f}', choice.chosen_on, *_cells(choice.counts))
        rows.append((*cells, fixed))
    if len(choices) > 1:
        now, before = total_counts(dict(enumerate(choices.values())))
        rows.append(('all', '', '', *_cells(now), f'{100 * before.f1:.1f}'))
    widths = [max(map(len, column)) for column in zip(*rows)]
    lines = [
        '  '.join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows
    ]
    found = '; '.join(
        f'{name}: F1 {100 * best["f1"]:.1f} above {best["threshold"]:.3f}'
        for name, best in rankings.items()
    )
    return [*lines, f'best threshold for all classes, ranked by {found}']


def _cells(counts: Counts) -> list[str]:
    percent = [counts.precision, counts.recall, counts.f1]
    return [
        str(counts.objects),
        str(counts.labels),
        *(f'{100 * value:.1f}' for value in percent),
    ]
