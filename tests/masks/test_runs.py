"""Run lengths are judged as decoding them one by one would."""

import numpy as np
import pytest
from pycocotools import mask as mask_utils

from mmcast.masks import runs
from mmcast.masks.rle import encode_mask
from mmcast.masks.runs import MAX_PIXELS, runs_fill


def fills(text, pixels):
    """COCO's text read number by number, as its description says."""
    lengths, value, shift = [], 0, 0
    for character in text:
        bits = ord(character) - 48
        if not 0 <= bits < 64 or shift > 30:
            return False
        value |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            value -= (1 << shift) if bits & 16 else 0
            lengths.append(value + (lengths[-2] if len(lengths) > 2 else 0))
            value, shift = 0, 0
    return shift == 0 and bool(lengths) and min(lengths) >= 0 and sum(lengths) == pixels


def damaged(text, rng):
    kind, place = rng.integers(8), int(rng.integers(len(text)))
    if kind == 0:
        return text[:place] + chr(rng.integers(48, 112)) + text[place + 1 :]
    if kind == 1:
        return text[:place] + text[place + 1 :]
    if kind == 2:
        return text[:place] + chr(rng.integers(35, 300)) + text[place:]
    return text[:place] if kind == 3 else text


@pytest.mark.parametrize('at_once', [40, 50_000])
def test_valid_and_damaged_runs_are_told_apart(monkeypatch, at_once):
    monkeypatch.setattr(runs, '_AT_ONCE', at_once)
    rng = np.random.default_rng(0)
    counts, pixels = [], []
    for _ in range(4000):
        height, width = rng.integers(1, 40, 2)
        mask = rng.random((height, width)) < rng.random() ** 3
        counts.append(damaged(encode_mask(mask)['counts'], rng))
        pixels.append(height * width)
    expected = [fills(text, number) for text, number in zip(counts, pixels)]
    assert 1500 < sum(expected) < 2500
    assert runs_fill(counts, np.array(pixels)).tolist() == expected


@pytest.mark.parametrize(
    'lengths, pixels, expected',
    [
        ([MAX_PIXELS], MAX_PIXELS, True),
        ([0, MAX_PIXELS], MAX_PIXELS, True),
        ([0, 1, MAX_PIXELS - 1], MAX_PIXELS, True),
        ([1, 1, 1, MAX_PIXELS - 4, 1], MAX_PIXELS, True),
        ([5, 4], 8, False),
        ([8, 0, 0, 0], 8, True),
    ],
)
def test_runs_of_the_largest_images(lengths, pixels, expected):
    rle = mask_utils.frPyObjects(dict(size=[1, pixels], counts=lengths), 1, pixels)
    assert runs_fill([rle['counts'].decode()], np.array([pixels])).tolist() == [expected]


def test_nothing_and_texts_without_a_number():
    assert runs_fill([], np.zeros(0, int)).tolist() == []
    assert runs_fill(['', '0', '\u0660', '4'], np.array([0, 0, 0, 4])).tolist() == [
        False,
        True,
        False,
        True,
    ]
