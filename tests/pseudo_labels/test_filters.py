"""Filters and thresholds against answers computed by hand."""

import math

import numpy as np
import pytest
from stored_labels import CAR, PERSON, label, rectangle

from mmcast.errors import CASTError
from mmcast.masks.rle import encode_mask
from mmcast.pseudo_labels.filters import (
    LabelFilter,
    expand_threshold,
    labels_per_image,
    threshold_keeping,
    thresholds_from_data,
)

IDS = dict(person=PERSON, car=CAR)
LABELS = [
    label(CAR, rectangle(0, 0, 4, 4), 0.9, class_score=0.9, mask_quality=1.0),
    label(CAR, rectangle(10, 0, 4, 4), 0.4, class_score=0.8, mask_quality=0.5),
    label(PERSON, rectangle(0, 3, 4, 4), 0.6, class_score=0.6, mask_quality=1.0),
    label(PERSON, rectangle(1, 1, 2, 2), 0.5, class_score=1.0, mask_quality=0.5),
    label(7, rectangle(0, 0, 9, 9), 1.0),
]


def choose(thresholds, **options):
    chosen = LabelFilter(
        {field: expand_threshold(value, IDS, field) for field, value in thresholds.items()},
        **options,
    )
    return chosen, [round(ann['score'], 1) for ann in chosen(LABELS)]


def test_each_reason_is_counted():
    found, scores = choose(dict(score=0.45))
    assert scores == [0.9, 0.6]  # 0.5 lies within 0.9, of which 0.6 loses a column
    assert found.dropped == dict(score=1, covered=1)
    assert found.found == {CAR: 2, PERSON: 2} and found.kept == {CAR: 1, PERSON: 1}
    assert found.summary({PERSON: 'person', CAR: 'car'}) == (
        'kept 2 of 4 pseudo-labels (person 1/2, car 1/2), dropped by score 1, covered 1'
    )


def test_class_and_mask_are_thresholded_apart():
    assert choose(dict(class_score=0.7), resolve_overlaps=False)[1] == [0.9, 0.4, 0.5]
    assert choose(dict(mask_quality=0.7), resolve_overlaps=False)[1] == [0.9, 0.6]
    found, scores = choose(dict(class_score=dict(car=0.85, person=0.5), mask_quality=0.7))
    assert scores == [0.9, 0.6] and found.dropped == dict(class_score=1, mask_quality=1)


def test_top_k_takes_the_best_and_keeps_the_order():
    found, scores = choose(dict(score=0.3), top_k=3, resolve_overlaps=False)
    assert scores == [0.9, 0.6, 0.5] and found.dropped == dict(top_k=1)
    assert choose(dict(score=0.3), top_k=0)[1] == []


def test_area_counts_after_overlaps():
    found, scores = choose(dict(score=0.45), min_area=13)
    assert scores == [0.9] and found.dropped == dict(score=1, covered=1, min_area=1)


def test_what_better_labels_cover_is_dropped_by_the_share_that_is_left():
    """0.6 keeps three of its four columns, 0.5 nothing."""
    for share, kept in ((0.75, [0.9, 0.6]), (0.76, [0.9])):
        found, scores = choose(dict(score=0.45), min_visible=share)
        assert scores == kept and found.dropped.get('min_visible', 0) == 2 - len(kept)
    assert choose(dict(score=0.45), min_visible=1, resolve_overlaps=False)[1] == [0.9, 0.6, 0.5]


def test_more_than_255_labels_in_an_image():
    """Pycocotools 2.0.11 counts the masks in 8 bits, which NumPy 2 refuses."""
    cells = [
        label(CAR, rectangle(row, column, 1, 1 + row % 2), 0.5)
        for row in range(20)
        for column in range(0, 30, 2)
    ]
    chosen = LabelFilter(dict(score={CAR: 0.3}))(cells)
    assert [ann['area'] for ann in chosen] == [1 + row % 2 for row in range(20) for _ in range(15)]


def test_labels_without_a_field_are_named():
    with pytest.raises(
        CASTError, match='on mask_quality is set, but the labels have no mask_quality'
    ):
        LabelFilter(dict(mask_quality={CAR: 0.5}))([label(CAR, rectangle(0, 0, 2, 2), 0.9)])


def scored(category, *scores):
    return [dict(category_id=category, score=score) for score in scores]


def test_percentile_leaves_out_the_lowest_of_each_class():
    labels = scored(CAR, 0.1, 0.2, 0.3, 0.4, 0.9) + scored(PERSON, 0.5, 0.6)
    thresholds = thresholds_from_data(labels, 10, IDS, percentile=60)
    kept = [ann['score'] for ann in labels if ann['score'] > thresholds[ann['category_id']]]
    assert kept == [0.4, 0.9, 0.6]
    assert thresholds_from_data(labels, 10, IDS, percentile=0) == {
        CAR: -math.inf,
        PERSON: -math.inf,
    }
    assert thresholds_from_data(labels, 10, IDS, percentile=100) == {CAR: 0.9, PERSON: 0.6}


def test_frequencies_match_those_of_the_labeled_set():
    """Three cars and half a person an image on two labeled images; four pseudo-labelled ones get 12
    and 2.
    """
    annotations = [dict(category_id=2)] * 6 + [dict(category_id=1), dict(category_id=1, iscrowd=1)]
    people = dict(
        images=[{}, {}],
        annotations=annotations,
        categories=[dict(id=1, name='person'), dict(id=2, name='car')],
    )
    assert labels_per_image(people, ['person', 'car']) == dict(person=0.5, car=3)
    labels = scored(CAR, *np.linspace(0.1, 0.9, 20)) + scored(PERSON, 0.2, 0.9, 0.4, 0.3)
    thresholds = thresholds_from_data(labels, 4, IDS, labeled=people)
    kept = [ann['category_id'] for ann in labels if ann['score'] > thresholds[ann['category_id']]]
    assert (kept.count(CAR), kept.count(PERSON)) == (12, 2)
    with pytest.raises(CASTError, match='labeled set has no class tram, it has person, car'):
        thresholds_from_data(labels, 4, dict(tram=1), labeled=people)


@pytest.mark.parametrize('options', [{}, dict(percentile=50, labeled={}), dict(percentile=101)])
def test_source_of_thresholds_must_be_clear(options):
    with pytest.raises(CASTError, match='thresholds_from'):
        thresholds_from_data([], 1, IDS, **options)


def test_threshold_keeps_exactly_so_many_unless_scores_are_equal():
    scores = np.random.default_rng(0).permutation(50) / 50
    for count in (0, 1, 17, 49, 50, 60):
        assert (scores > threshold_keeping(scores, count)).sum() == min(count, 50)
    assert threshold_keeping([0.5, 0.5, 0.2], 1) == 0.5  # neither of the two
    assert threshold_keeping([], 3) == -math.inf


@pytest.mark.parametrize('options', [dict(top_k=-1), dict(min_visible=50), dict(min_area=-1)])
def test_options_out_of_range(options):
    with pytest.raises(CASTError, match=f'{next(iter(options))} is'):
        LabelFilter({}, **options)


@pytest.mark.parametrize('threshold', [50, math.nan, dict(person=0.5, car=1.5)])
def test_thresholds_that_no_score_is_above(threshold):
    with pytest.raises(CASTError, match='score_thr has .*give numbers up to 1'):
        expand_threshold(threshold, IDS, 'score_thr')


def test_areas_are_those_of_the_labels_that_are_used():
    """On crowded images, with duplicates and empty masks; what was dropped is counted alike."""
    rng = np.random.default_rng(0)
    options = dict(thresholds=dict(score={1: 0.2}), min_area=4, min_visible=0.2, top_k=9)
    both = LabelFilter(**options), LabelFilter(**options)
    for _ in range(60):
        labels = []
        for number in range(rng.integers(12)):
            mask = np.zeros((20, 30), bool)
            (top, left), (height, width) = rng.integers(0, 12, 2), rng.integers(0, 14, 2)
            mask[top : top + height, left : left + width] = True
            labels.append(
                dict(
                    id=number,
                    category_id=1,
                    score=float(rng.choice([0.1, 0.5, 0.6, 0.9])),
                    segmentation=encode_mask(mask),
                )
            )
        used, areas = both[0](labels), both[1].areas(labels)
        assert [(label['id'], area) for label, area in areas] == [
            (label['id'], label['area']) for label in used
        ]
    assert both[0].dropped == both[1].dropped and len(both[0].dropped) == 5
    assert both[0].kept == both[1].kept and both[0].found == both[1].found
