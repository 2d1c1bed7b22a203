"""Thresholds with the best F1, against a slow search with masks of pixels."""

import json
import math

import numpy as np
import pytest
from stored_labels import CAR, HEIGHT, PERSON, WIDTH, rectangle
from stored_labels import label as stored_label

from mmcast.errors import CASTError
from mmcast.pseudo_labels.threshold_file import read_thresholds, write_thresholds
from mmcast.pseudo_labels.thresholds import (
    Counts,
    HeldOut,
    Judged,
    best_threshold,
    best_thresholds,
    compare_rankings,
    threshold_lines,
)


def draw_scene(seed, images=12):
    """Overlapping rectangles; labels are some of them, moved or invented, and some doubled."""
    rng = np.random.default_rng(seed)
    labels, truths = {}, {}

    def label(category, mask, score=None, **fields):
        return stored_label(category, mask, score, pixels=mask, **fields)

    def draw():
        return [int(rng.integers(0, high)) for high in (HEIGHT - 6, WIDTH - 8)] + [6, 8]

    for image in range(images):
        objects = [(CAR if rng.random() < 0.7 else PERSON, draw()) for _ in range(4)]
        truths[image] = [label(category, rectangle(*box)) for category, box in objects]
        truths[image].append(label(CAR, rectangle(0, 0, 5, WIDTH), iscrowd=int(image % 3 == 0)))
        found = []
        for category, (top, left, height, width) in objects * 2:
            if rng.random() < 0.7:
                moved = rectangle(top, max(0, left - int(rng.integers(0, 4))), height, width)
                found.append(label(category, moved, round(rng.uniform(0.2, 1), 2)))
        found += [label(CAR, rectangle(*draw()), round(rng.uniform(0.05, 0.7), 2)) for _ in '12']
        found.append(label(PERSON, rectangle(*draw()), round(rng.uniform(0.05, 0.7), 2)))
        labels[image] = found
    return labels, truths


def slow_counts(labels, truths, limits, min_visible):
    """Of each class, with masks of pixels and a loop over all pairs."""
    counts = dict.fromkeys(limits, (0, 0, 0))
    for image, found in labels.items():
        found = sorted(
            (ann for ann in found if ann['score'] > limits[ann['category_id']]),
            key=lambda ann: -ann['score'],
        )
        taken, left = np.zeros((HEIGHT, WIDTH), bool), []
        for ann in found:
            mask = ann['pixels']
            visible = mask & ~taken
            taken |= mask
            if visible.any() and visible.sum() >= min_visible * mask.sum():
                left.append((ann['category_id'], visible))
        for category in limits:
            own = [ann for ann in truths[image] if ann['category_id'] == category]
            masks = [ann['pixels'] for ann in own]
            free = [place for place, ann in enumerate(own) if not ann['iscrowd']]
            groups = [mask for mask, ann in zip(masks, own) if ann['iscrowd']]
            objects, correct, counted = len(free), 0, 0
            for found_category, mask in left:
                if found_category != category:
                    continue
                ious = {i: (mask & masks[i]).sum() / (mask | masks[i]).sum() for i in free}
                best = max(ious, key=ious.get, default=None)
                if best is not None and ious[best] >= 0.5:
                    free.remove(best)
                    correct, counted = correct + 1, counted + 1
                elif not any((mask & group).sum() / mask.sum() >= 0.5 for group in groups):
                    counted += 1
            before = counts[category]
            counts[category] = tuple(map(sum, zip(before, (objects, counted, correct))))
    return {category: Counts(*found) for category, found in counts.items()}


@pytest.mark.parametrize('seed', range(3))
@pytest.mark.parametrize('min_visible', [0, 0.6])
def test_no_other_threshold_of_a_class_has_a_better_f1(seed, min_visible):
    labels, truths = draw_scene(seed)
    lowest = {CAR: 0.1, PERSON: 0.25}
    held_out = HeldOut(labels, truths, dict(score=lowest), dict(min_visible=min_visible))
    choices = best_thresholds(held_out, fewest_objects=5)
    limits = {category: choice.threshold for category, choice in choices.items()}
    assert {choice.chosen_on for choice in choices.values()} == {'class'}

    expected = slow_counts(labels, truths, limits, min_visible)
    assert {category: choice.counts for category, choice in choices.items()} == expected
    before = slow_counts(labels, truths, lowest, min_visible)
    assert {category: choice.counts_at_score_thr for category, choice in choices.items()} == before
    for category in limits:
        assert limits[category] >= lowest[category]
        for other in np.arange(lowest[category], 1, 0.05):
            changed = slow_counts(labels, truths, limits | {category: other}, min_visible)
            assert changed[category].f1 <= expected[category].f1 + 1e-12


def test_a_class_of_few_objects_has_the_threshold_of_all_classes_together():
    labels, truths = draw_scene(5)
    lowest = {CAR: 0.1, PERSON: 0.1}
    held_out = HeldOut(labels, truths, dict(score=lowest))
    people = sum(ann['category_id'] == PERSON for found in truths.values() for ann in found)
    choices = best_thresholds(held_out, fewest_objects=people + 1)
    assert (choices[PERSON].chosen_on, choices[CAR].chosen_on) == ('all classes', 'class')

    def f1_together(threshold):
        found = slow_counts(labels, truths, dict.fromkeys(lowest, threshold), 0)
        return (found[CAR] + found[PERSON]).f1

    best = f1_together(choices[PERSON].threshold)
    assert all(f1_together(threshold) <= best + 1e-12 for threshold in np.arange(0.1, 1, 0.05))
    few = best_thresholds(held_out, fewest_objects=1000)
    assert {choice.chosen_on for choice in few.values()} == {'score_thr'}
    assert [choice.threshold for choice in few.values()] == [0.1, 0.1]


def test_thresholds_may_be_below_score_thr_where_that_is_not_the_lowest():
    """Where nothing is chosen, score_thr stays."""
    labels, truths = draw_scene(5)
    fixed = {CAR: 0.9, PERSON: 0.8}
    held_out = HeldOut(labels, truths, dict(score=fixed), lowest=0.1)
    expected = best_thresholds(HeldOut(labels, truths, dict(score=dict.fromkeys(fixed, 0.1))), 5)
    for category, choice in best_thresholds(held_out, fewest_objects=5).items():
        assert choice.threshold == expected[category].threshold < fixed[category]
        assert choice.counts == expected[category].counts
        assert choice.counts_at_score_thr == slow_counts(labels, truths, fixed, 0)[category]
    few = best_thresholds(held_out, fewest_objects=1000)
    assert {category: choice.threshold for category, choice in few.items()} == fixed
    nothing = HeldOut({}, truths, dict(score=fixed), lowest=0.1)
    assert best_thresholds(nothing, 5)[CAR].threshold == 0.9


@pytest.mark.parametrize(
    'scores, correct, objects, lowest, threshold',
    [
        ([0.9, 0.8, 0.6, 0.4], [1, 1, 0, 0], 2, 0.1, 0.7),
        ([0.9, 0.8, 0.6, 0.4], [1, 0, 1, 1], 3, 0.1, 0.1),  # all are the best choice
        ([0.9, 0.8, 0.6, 0.4], [1, 1, 0, 0], 2, 0.75, 0.75),
        ([0.9, 0.8, 0.8, 0.4], [1, 0, 1, 0], 2, 0.1, 0.6),  # equal scores stay together
        ([0.9, 0.6, 0.5], [0, 0, 0], 4, 0.2, 0.2),
        ([0.9, 0.7, 0.5], [1, 0, 1], 2, 0.2, 0.2),
        ([0.9, 0.5, 0.4, 0.3], [1, 0, 1, 0], 1, 0.2, 0.7),
        ([], [], 3, 0.2, 0.2),
    ],
)
def test_the_threshold_lies_between_two_scores_and_not_below_the_lowest(
    scores, correct, objects, lowest, threshold
):
    judged = Judged(np.array(scores), np.array(correct, bool), objects)
    assert best_threshold(judged, lowest) == pytest.approx(threshold)


def test_a_ranking_by_another_score_is_told_where_it_is_better():
    """Agreement tells the wrong labels, which the score ranks first."""
    right, wrong = rectangle(0, 0, 6, 8), rectangle(12, 12, 6, 8)
    labels = {
        1: [
            stored_label(CAR, right, 0.5, agreement=0.9),
            stored_label(CAR, wrong, 0.6, agreement=0.2),
        ],
        2: [stored_label(CAR, right, 0.55, agreement=0.8)],
    }
    truths = {image: [stored_label(CAR, right)] for image in labels}
    held_out = HeldOut(labels, truths, dict(score={CAR: 0.58}))
    rankings = compare_rankings(held_out)
    assert list(rankings) == ['score', 'score x agreement']
    assert rankings['score']['f1'] == pytest.approx(4 / 5)  # score_thr does not count here
    best = rankings['score x agreement']
    assert best['f1'] == 1 and 0.6 * 0.2 < best['threshold'] < 0.44
    choices = dict(car=best_thresholds(held_out, 1)[CAR])
    assert 'score x agreement: F1 100.0 above 0.28' in threshold_lines(choices, rankings)[-1]


def test_the_file_gives_back_the_thresholds_or_says_what_is_wrong(tmp_path):
    path = tmp_path / 'thresholds.json'
    write_thresholds(path, classes=dict(car=dict(threshold=0.4), person=dict(threshold=0.7)))
    assert read_thresholds(path, ['person', 'car']) == dict(person=0.7, car=0.4)
    with pytest.raises(CASTError, match='no threshold for tram, it has car, person'):
        read_thresholds(path, ['tram'])
    write_thresholds(path, classes=dict(car=dict(threshold=math.nan)))
    with pytest.raises(CASTError, match='nan as the threshold of car'):
        read_thresholds(path, ['car'])
    for entry in (dict(objects=3), 0.4, dict(threshold=True)):
        write_thresholds(path, classes=dict(car=entry))
        with pytest.raises(CASTError, match=r'has \S+ as the threshold of car: give a number'):
            read_thresholds(path, ['car'])
    write_thresholds(path)
    with pytest.raises(CASTError, match='has no classes'):
        read_thresholds(path, ['car'])
    path.write_text(json.dumps(dict(images=[])))
    with pytest.raises(CASTError, match='not a thresholds file of format 1'):
        read_thresholds(path, ['car'])
    path.write_text('{"kind"')
    with pytest.raises(CASTError, match='is no JSON'):
        read_thresholds(path, ['car'])
