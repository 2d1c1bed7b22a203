"""Which views are one instance: against a slow reference with whole masks."""

import numpy as np
import pytest

from mmcast.masks.cropped import CroppedMasks
from mmcast.masks.tiling import CUT_FACTOR, SAME_INSTANCE, Views, Windows

SIZE, SIDE = (40, 56), 24


def random_views(seed):
    """Discs and speckles in windows, many of them several times; some of two classes."""
    rng = np.random.default_rng(seed)
    ys, xs = np.indices(SIZE)
    things = [
        (ys - rng.integers(SIZE[0])) ** 2 + (xs - rng.integers(SIZE[1])) ** 2
        < rng.integers(2, 12) ** 2
        for _ in range(8)
    ]
    masks, corners = [], []
    for top, left in Windows(SIDE, 10).places(SIZE):
        inside = np.zeros(SIZE, bool)
        inside[top : top + SIDE, left : left + SIDE] = True
        for thing in things:
            for _ in range(rng.integers(0, 3)):
                mask = thing & inside & (rng.random(SIZE) < 0.9)
                if mask.any():
                    masks.append(mask)
                    corners.append((top, left))
    scores, labels = rng.random(len(masks)).round(1), rng.integers(0, 2, len(masks))
    return np.array(masks), scores, labels, np.array(corners)


def slow_groups(masks, scores, labels, corners):
    windows = np.zeros(masks.shape, bool)
    cut = np.zeros(len(masks), bool)
    for i, (top, left) in enumerate(corners):
        windows[i, top : top + SIDE, left : left + SIDE] = True
        edge = windows[i].copy()
        edge[top + (top > 0) : top + SIDE - (top + SIDE < SIZE[0])][
            :, left + (left > 0) : left + SIDE - (left + SIDE < SIZE[1])
        ] = False
        cut[i] = (masks[i] & edge).any()

    def agreement(i, j):
        both = windows[i] & windows[j]
        one, other = masks[i] & both, masks[j] & both
        return (one & other).sum() / max((one | other).sum(), 1)

    groups = []
    for i in np.argsort(-scores * np.where(cut, CUT_FACTOR, 1), kind='stable').tolist():
        for group in groups:
            if any(labels[i] == labels[j] and agreement(i, j) > SAME_INSTANCE for j in group):
                others = [tuple(corners[j]) for j in group]
                if cut[i] and cut[group[0]] and tuple(corners[i]) not in others:
                    group.append(i)
                break
        else:
            groups.append([i])
    return groups


@pytest.mark.parametrize('seed', range(12))
def test_views_are_grouped_and_pasted_as_whole_masks_are(seed):
    masks, scores, labels, corners = random_views(seed)
    views = Views(CroppedMasks.of(masks, SIZE), scores, labels, corners, SIDE)
    groups = views.groups()
    assert groups == slow_groups(masks, scores, labels, corners)
    assert len(groups) < len(masks) and max(map(len, groups)) > 1
    expected = np.stack([masks[group].any(0) for group in groups])
    assert np.array_equal(views.paste(groups).to_array(), expected)


def test_windows_that_show_nothing_have_no_instances():
    none = np.zeros(0, int)
    masks = CroppedMasks.of(np.zeros((0, *SIZE), bool), SIZE)
    views = Views(masks, none, none, none.reshape(0, 2), SIDE)
    assert views.groups() == []
    assert views.paste([]).to_array().shape == (0, *SIZE)


@pytest.mark.parametrize(
    'batch_size, on_cpu, expected', [(None, True, 1), (None, False, 8), (3, True, 3)]
)
def test_windows_at_a_time(batch_size, on_cpu, expected):
    windows = Windows(10, 0, batch_size=batch_size)
    batches = [*windows.batches((60, 50), on_cpu)]
    assert {len(batch) for batch in batches[:-1]} == {expected}
    assert [place for batch in batches for place in batch] == windows.places((60, 50))
