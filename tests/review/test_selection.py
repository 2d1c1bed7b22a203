"""Which images are chosen, against sums written out by hand and slow loops."""

import math

import numpy as np
import pytest

from mmcast.errors import CASTError
from mmcast.review.selection import (
    CRITERIA,
    LEAST_SURE,
    RANDOM,
    ScoredLabels,
    choose_images,
    take_turns,
    uncertainties,
)


def scored(sure, unsure=(), **fields):
    def labels(scores):
        return [dict(category_id=1, score=score, **fields) for score in scores]

    return ScoredLabels(labels(sure), labels(unsure), {1: 0.3})


def all_of(keys):
    return lambda key, reason: key in keys


def test_criteria_are_what_they_say():
    labels = scored([0.9, 0.35], [0.25, 0.1], class_score=0.8, mask_quality=0.5)
    values = {name: CRITERIA[name](labels, 0.1) for name in CRITERIA if name != 'agreement'}
    entropies = [-p * math.log2(p) - (1 - p) * math.log2(1 - p) for p in (0.9, 0.35, 0.25, 0.1)]
    assert values == pytest.approx(
        dict(
            expected_errors=0.1 + 0.65 + 0.25 + 0.1,
            mean_score=1 - (0.9 + 0.35) / 2,
            mean_entropy=sum(entropies) / 4,
            near_threshold=2,
            class_score=0.2,
            mask_quality=0.5,
        )
    )


def test_expected_errors_is_the_mean_number_of_errors_where_scores_are_probabilities():
    generator = np.random.default_rng(0)
    scores = generator.random(40)
    labels = scored(scores[scores > 0.3], scores[scores <= 0.3])
    errors = [
        sum(is_object != (score > 0.3) for score, is_object in zip(scores, drawn))
        for drawn in generator.random((4000, 40)) < scores
    ]
    assert CRITERIA['expected_errors'](labels, 0) == pytest.approx(np.mean(errors), abs=0.2)


def test_a_score_that_the_teacher_does_not_tell_is_named():
    with pytest.raises(CASTError, match='no agreement: their teacher does not tell it'):
        uncertainties({1: scored([0.9])}, 'agreement', 0.1)


def test_the_least_sure_come_first_and_the_random_ones_are_drawn_from_all():
    values = {key: key / 100 for key in range(100)}
    chosen = choose_images(values, 10, 0.3, 5, all_of(values))
    least_sure = [each.image_id for each in chosen if each.reason == LEAST_SURE]
    random = [each.image_id for each in chosen if each.reason == RANDOM]
    assert len(random) == 3 and len({*least_sure, *random}) == 10
    assert least_sure == [key for key in range(99, 0, -1) if key not in random][:7]
    assert chosen == choose_images(dict(reversed(values.items())), 10, 0.3, 5, all_of(values))
    draws = [
        each.image_id
        for seed in range(400)
        for each in choose_images(values, 1, 1, seed, all_of(values))
    ]
    assert np.histogram(draws, 4, (0, 100))[0] == pytest.approx([100] * 4, abs=30)


def test_the_random_share_is_one_of_the_images_that_there_are():
    values = {key: key / 10 for key in range(10)}
    chosen = choose_images(values, 1000, 0.2, 0, all_of(values))
    assert len(chosen) == 10
    assert sum(each.reason == RANDOM for each in chosen) == 2


def test_unusable_images_are_replaced_and_asked_about_once():
    asked = []

    def usable(key, reason):
        asked.append(key)
        return key % 2 == 0

    chosen = choose_images({key: key for key in range(10)}, 4, 0.5, 0, usable)
    assert len(chosen) == 4 and all(each.image_id % 2 == 0 for each in chosen)
    assert len(asked) == len({*asked})
    assert len(choose_images({key: key for key in range(10)}, 50, 0.2, 0, usable)) == 5


def test_classes_take_turns():
    classes = {1: {1}, 2: {1}, 3: {1}, 4: {1, 2}, 5: {2}, 6: set(), 7: {3}}
    # The rarest class, 3, first; then 2, whose least sure image shows 1 too; 2 is rarer than 1.
    assert take_turns([1, 2, 3, 4, 5, 6, 7], classes) == [7, 4, 5, 1, 2, 3, 6]
