"""Which images people look at: those with the least sure pseudo-labels, and some random ones."""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mmcast.errors import CASTError

LEAST_SURE, RANDOM = 'least sure', 'random'


@dataclass(frozen=True)
class ScoredLabels:
    """The stored labels of one image, by whether their scores pass the thresholds.

    Args:
        sure: annotations whose scores are above all thresholds.
        unsure: the others.
        threshold: on ``score``, by category id.
    """

    sure: Sequence[dict]
    unsure: Sequence[dict]
    threshold: Mapping[int, float]

    @property
    def all(self) -> list[dict]:
        return [*self.sure, *self.unsure]


def expected_errors(labels: ScoredLabels, _: float) -> float:
    """How many labels are expected to be wrong or missing, if scores are probabilities: each label
    that passes is wrong with 1 - score, each that does not is an object with its score.
    """
    return sum(1 - ann['score'] for ann in labels.sure) + sum(ann['score'] for ann in labels.unsure)


def near_threshold(labels: ScoredLabels, margin: float) -> float:
    """The number of labels whose score is at most ``margin`` from the threshold."""
    return sum(
        abs(ann['score'] - labels.threshold[ann['category_id']]) <= margin for ann in labels.all
    )


def mean_entropy(labels: ScoredLabels, _: float) -> float:
    """The mean entropy in bits of the scores of all labels; 1 without labels."""
    return _mean([_entropy(ann['score']) for ann in labels.all])


def low(field: str) -> Callable[[ScoredLabels, float], float]:
    """1 minus the mean of a field over the labels that pass; 1 without such labels."""
    return lambda labels, _: _mean([1 - ann[field] for ann in labels.sure])


def _entropy(probability: float) -> float:
    parts = (probability, 1 - probability)
    return -sum(part * math.log2(part) for part in parts if part > 0)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 1.0


#: By name: of the labels of an image and a margin, a number that is higher the less sure they are.
CRITERIA: dict[str, Callable[[ScoredLabels, float], float]] = {
    'expected_errors': expected_errors,
    'mean_score': low('score'),
    'mean_entropy': mean_entropy,
    'near_threshold': near_threshold,
    'class_score': low('class_score'),
    'mask_quality': low('mask_quality'),
    'agreement': low('agreement'),
}


def uncertainties(
    labels: Mapping[int, ScoredLabels], criterion: str, margin: float
) -> dict[int, float]:
    """The value of a criterion of :data:`CRITERIA` by image id.

    Raises:
        CASTError: the labels do not have the score that it needs.
    """
    try:
        return {key: CRITERIA[criterion](own, margin) for key, own in labels.items()}
    except KeyError as error:
        raise CASTError(
            f'the labels have no {error.args[0]}: their teacher does not tell it; choose another '
            'criterion, such as --by expected_errors'
        ) from error


@dataclass(frozen=True)
class Chosen:
    """An image that people get, the criterion's value, and why: :data:`LEAST_SURE` or
    :data:`RANDOM`.
    """

    image_id: int
    value: float
    reason: str


def choose_images(
    values: Mapping[int, float],
    number: int,
    random_share: float,
    seed: int,
    is_usable: Callable[[int, str], bool],
    classes: Mapping[int, set[int]] | None = None,
) -> list[Chosen]:
    """The images to hand out: first the random ones, then the least sure of the others.

    The random ones are drawn from all usable images, so that what people find on them holds for
    all. Images of equal value are taken in the order of their ids.

    Args:
        values: how unsure each image is, by id.
        number: how many to choose; fewer where there are no more.
        random_share: fraction of them that is drawn at random.
        seed: of the draw.
        is_usable: asked with an id and a reason before an image is taken, each at most once.
        classes: classes of each image; given, they take turns, see :func:`take_turns`.
    """
    drawn = np.random.default_rng(seed).permutation(sorted(values)).tolist()
    by_value = sorted(values, key=lambda key: (-values[key], key))
    if classes is not None:
        by_value = take_turns(by_value, classes)
    known: dict[int, bool] = {}

    def take(order: Iterable[int], count: int, reason: str) -> list[Chosen]:
        found: list[Chosen] = []
        for key in order:
            if len(found) >= count:
                break
            if key not in known:
                known[key] = is_usable(key, reason)
                if known[key]:
                    found.append(Chosen(key, values[key], reason))
        return found

    # of those that there are, or all would be random where more are asked for
    random = take(drawn, round(min(number, len(values)) * random_share), RANDOM)
    return [*take(by_value, number - len(random), LEAST_SURE), *random]


def take_turns(order: Sequence[int], classes: Mapping[int, set[int]]) -> list[int]:
    """Puts images in an order in which classes take turns.

    The class with the fewest images so far, of equal ones the rarest, takes the next image that
    shows it. An image counts for each of its classes. Images without any come last.

    Args:
        order: image ids, the least sure first.
        classes: ids of the classes of each image.
    """
    numbers = Counter(category for key in order for category in classes[key])
    waiting = {
        category: [key for key in reversed(order) if category in classes[key]]
        for category in sorted(numbers, key=lambda each: (numbers[each], each))
    }
    taken: dict[int, None] = {}
    shown: Counter[int] = Counter()
    while waiting:
        category = min(waiting, key=lambda each: shown[each])
        while waiting[category] and waiting[category][-1] in taken:
            waiting[category].pop()
        if not waiting[category]:
            del waiting[category]
            continue
        key = waiting[category].pop()
        taken[key] = None
        shown.update(classes[key])
    return [*taken, *(key for key in order if key not in taken)]
