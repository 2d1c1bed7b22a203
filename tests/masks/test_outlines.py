"""A mask as one polygon: every reader's way of drawing it gives the mask back."""

import os

import cv2
import numpy as np
import pytest
from drawn_polygons import draw_even_odd, draw_lightly, draw_pillow, draw_ultralytics
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mmcast.masks.outlines import BESIDE, INSET, mask_polygon

EXAMPLES = int(os.environ.get('MMCAST_EXAMPLES', 150))
SHAPES = {
    'a pixel': ['#'],
    'a pixel among others': ['...', '.#.', '...'],
    'at all borders': ['####', '####', '####'],
    'an edge on each side': ['.##.', '####', '####', '.##.'],
    'a line of pixels': ['######'],
    'a corner of lines': ['#....', '#....', '#####'],
    'a hole of a pixel': ['###', '#.#', '###'],
    'two holes in a row': ['#######', '#.##.##', '#######'],
    'holes that touch at a corner': ['#####', '#.###', '##.##', '#####'],
    'a hole that touches the outside at a corner': ['####.', '#.##.', '##.##', '.####'],
    'touching at a corner': ['##..', '##..', '..##', '..##'],
    'a diagonal line': ['#....', '.#...', '..#..', '...#.'],
    'a chessboard': ['#.#.#', '.#.#.', '#.#.#', '.#.#.'],
    'a ring of corners': ['.#.', '#.#', '.#.'],
}
PARTS = {
    'two parts': ['##...', '##...', '...##', '...##'],
    'four parts': ['#...#', '.....', '#...#'],
    'six parts in a row': ['#.#.#.#.#.#'],
    'nine parts': ['#.#.#', '.....', '#.#.#', '.....', '#.#.#'],
    'an island in a hole': ['#######', '#.....#', '#..#..#', '#.....#', '#######'],
    'an island with a hole in a hole': [
        '#########',
        '#.......#',
        '#.#####.#',
        '#.#...#.#',
        '#.#.#.#.#',
        '#.#...#.#',
        '#.#####.#',
        '#.......#',
        '#########',
    ],
}


def mask_of(rows):
    return np.array([[character == '#' for character in row] for row in rows])


def in_parts(mask):
    return cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)[0] > 2


def check(mask):
    polygon = mask_polygon(mask)
    height, width = mask.shape
    assert len(polygon) >= 4
    assert (polygon > 0).all() and (polygon < (width, height)).all()
    assert np.array_equal(draw_even_odd(polygon, height, width), mask)
    assert np.array_equal(draw_lightly(polygon, height, width), mask)
    if in_parts(mask):  # the others draw the way from part to part, too
        for draw in (draw_ultralytics, draw_pillow):
            assert draw(polygon, height, width)[mask].all()
    else:
        assert np.array_equal(draw_ultralytics(polygon, height, width), mask)
        assert np.array_equal(draw_pillow(polygon, height, width), mask)
        enlarged = mask.repeat(5, axis=0).repeat(5, axis=1)
        assert np.array_equal(draw_ultralytics(polygon, height, width, times=5), enlarged)


@pytest.mark.parametrize('rows', [*SHAPES.values(), *PARTS.values()], ids=[*SHAPES, *PARTS])
def test_shapes(rows):
    mask = mask_of(rows)
    check(mask)
    check(np.pad(mask, 2))
    check(mask.T)
    check(np.pad(mask, ((0, 3), (1, 0)))[::-1])


@given(
    st.tuples(st.integers(1, 12), st.integers(1, 12)).flatmap(lambda shape: arrays(bool, shape)),
    st.integers(1, 3),
)
@settings(max_examples=EXAMPLES, deadline=None, derandomize=True)
def test_any_mask(mask, times):
    """Noise has it all: holes, islands, parts, pixels that touch at a corner, the border."""
    if mask.any():
        check(mask.repeat(times, axis=0).repeat(times, axis=1))


@pytest.mark.parametrize('share', [0.3, 0.6, 0.9])
def test_many_holes_and_parts(share):
    """Long rows of holes are joined to each other, not one within the other."""
    mask = np.random.default_rng(0).random((20, 1100)) < share
    polygon = mask_polygon(mask)
    assert np.array_equal(draw_even_odd(polygon, *mask.shape), mask)
    assert np.array_equal(draw_lightly(polygon, *mask.shape), mask)


def test_a_photo_of_twelve_megapixels():
    """Coordinates of 32 bits, and a shift that is 5e-6 of the width."""
    mask = np.zeros((3024, 4032), bool)
    mask[1000:1010, 3990:4032] = mask[3020:, :7] = mask[:3, 4000:4003] = True
    mask[1004, 4000] = False
    polygon = mask_polygon(mask[1000:1020])
    assert np.array_equal(draw_ultralytics(polygon, 20, 4032), mask[1000:1020])
    polygon = mask_polygon(mask)
    assert np.array_equal(draw_lightly(polygon, 3024, 4032), mask)


def test_outlines_run_along_the_edges_of_pixels():
    """Four corners for a rectangle, moved inwards; no pixel of the hole's bridge is on its way."""
    mask = np.zeros((9, 12), bool)
    mask[2:7, 3:10] = True
    corners = {(3 + INSET, 2 + INSET), (3 + INSET, 7 - INSET)}
    corners |= {(10 - INSET, 2 + INSET), (10 - INSET, 7 - INSET)}
    assert {tuple(point) for point in mask_polygon(mask).round(6).tolist()} == corners
    mask[4, 5] = False
    polygon = mask_polygon(mask)
    distances = np.linalg.norm(polygon[:, None] - polygon, axis=2)[np.triu_indices(len(polygon), 1)]
    assert np.isclose(np.sort(distances)[:2], BESIDE).all()  # at both ends of the bridge


def test_a_line_for_an_object_in_parts_is_cut_where_a_part_ends():
    """Each ring comes back to its first point, and the way back is too short to be drawn."""
    polygon = [tuple(point) for point in mask_polygon(mask_of(['#.#.#.#'])).tolist()]
    rings = [polygon[start : start + 5] for start in range(0, 20, 5)]
    assert all(ring[0] == ring[-1] and len({*ring}) == 4 for ring in rings)
    assert polygon[20:] == [rings[2][0], rings[1][0]]


def test_an_empty_mask_has_no_polygon():
    with pytest.raises(ValueError, match='empty'):
        mask_polygon(np.zeros((3, 4), bool))
