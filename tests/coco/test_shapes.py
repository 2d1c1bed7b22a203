import numpy as np
import pytest
from pycocotools import mask as mask_api

from mmcast.coco.shapes import MaskProblem, measure_runs, read_mask
from mmcast.masks.rle import encode_segmentation


def reference(mask: np.ndarray) -> tuple[float, tuple]:
    rows, columns = np.nonzero(mask)
    return float(mask.sum()), (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)


@pytest.mark.parametrize('seed', range(30))
def test_run_lengths_are_measured_as_their_pixels_are(seed):
    rng = np.random.default_rng(seed)
    size = tuple(int(side) for side in rng.integers(1, 200, 2))
    mask = rng.random(size) < rng.choice([0.01, 0.5, 0.999])
    if rng.random() < 0.5:  # a blob
        mask = np.zeros(size, dtype=bool)
        mask[size[0] // 3 :, size[1] // 4 : size[1] // 2 + 1] = True
    mask[rng.integers(size[0]), rng.integers(size[1])] = True
    encoded = mask_api.encode(np.asfortranarray(mask.astype(np.uint8)))
    compressed = dict(size=list(size), counts=encoded['counts'].decode())
    borders = np.flatnonzero(np.diff(np.r_[0, mask.ravel('F'), 0]))
    listed = dict(size=list(size), counts=np.diff(np.r_[0, borders, mask.size]).tolist())
    for segmentation in (compressed, listed):
        assert measure_runs(segmentation, size) == reference(mask)


def pixels(segmentation, size) -> np.ndarray:
    return mask_api.decode(encode_segmentation(segmentation, *size))


def test_polygons_are_measured_by_their_pixels():
    mask = read_mask([[1, 2, 5, 2, 5, 4, 1, 4], [10, 0, 14, 0, 14, 6, 10, 6]], (20, 20))
    assert (mask.area, mask.box, mask.outline) == (8 + 24, (1, 0, 14, 6), (1, 0, 14, 6))
    assert mask.changes == []
    clipped = read_mask([[-5, -5, 4, -5, 4, 3, -5, 3]], (20, 20))
    assert (clipped.area, clipped.box) == (12, (0, 0, 4, 3))
    assert clipped.outline == (-5, -5, 4, 3)


SQUARE = [2, 2, 8, 2, 8, 8, 2, 8]


@pytest.mark.parametrize(
    'segmentation, kinds',
    [
        ([SQUARE], []),
        (SQUARE, ['polygon-layout']),
        ([[2, 2], [8, 2], [8, 8], [2, 8]], ['polygon-layout']),
        ([[[2, 2], [8, 2], [8, 8], [2, 8]]], ['polygon-layout']),
        ([SQUARE, []], ['empty-part']),
        ([[], SQUARE, [1, 1, 5, 5]], ['empty-part', 'degenerate-polygon']),
        ([SQUARE, [10, 10, 12, 12, 14, 14]], ['degenerate-polygon']),
        ([SQUARE, [-9, -9, -5, -9, -5, -5]], ['degenerate-polygon']),
        (dict(size=[20, 20], counts=[42] + 5 * [6, 14] + [6, 252]), []),
    ],
)
def test_one_mask_however_it_is_written(segmentation, kinds):
    mask = read_mask(segmentation, (20, 20))
    assert [kind for kind, _ in mask.changes] == kinds
    assert np.array_equal(pixels(mask.segmentation, (20, 20)), pixels([SQUARE], (20, 20)))
    assert (mask.area, mask.box) == (36, (2, 2, 8, 8))
    assert isinstance(mask.segmentation, dict) or mask.segmentation == [SQUARE]


@pytest.mark.parametrize(
    'segmentation, kind',
    [
        ([[1, 1, 5, 5]], 'degenerate-polygon'),
        ([[1, 1, 5, 5, 9, 9]], 'degenerate-polygon'),
        ([[1, 1, 1, 1, 1, 1]], 'degenerate-polygon'),
        ([[1.1, 1.1, 1.3, 1.1, 1.2, 1.3]], 'no-pixel'),
        ([[-9, -9, -5, -9, -5, -5]], 'no-pixel'),
        (dict(size=[20, 20], counts=[400]), 'no-pixel'),
        (dict(size=[20, 20], counts='`<'), 'no-pixel'),
    ],
)
def test_a_mask_without_a_pixel_is_none(segmentation, kind):
    mask = read_mask(segmentation, (20, 20))
    assert mask.area == 0 and [kind for kind, _ in mask.changes] == [kind]


def test_a_figure_eight_keeps_its_pixels():
    """The areas of its two halves cancel out."""
    mask = read_mask([[2, 2, 12, 12, 2, 12, 12, 2]], (20, 20))
    assert mask.changes == [] and mask.area == pixels(mask.segmentation, (20, 20)).sum() > 30


@pytest.mark.parametrize('x', [-20, 50])
def test_coordinates_may_lie_the_longer_side_outside(x):
    """Of an image of 30 x 20: 30 pixels on each side."""
    near = read_mask([[10, 2, x, 2, x, 8]], (20, 30))
    assert near.area > 0 and near.changes == []
    with pytest.raises(MaskProblem) as problem:
        read_mask([[10, 2, x + (x > 0) * 11 - (x < 0) * 11, 2, x, 8]], (20, 30))
    assert problem.value.args[0] == 'mask-far-outside'


@pytest.mark.parametrize(
    'segmentation, kind',
    [
        (None, 'empty-mask'),
        ([], 'empty-mask'),
        ({}, 'empty-mask'),
        ([[]], 'empty-mask'),
        ([0, 0, 1, 1], 'empty-mask'),
        ([[0, 0, 1, 0, 1]], 'malformed-mask'),
        ([[0, 0, 1, 0, 1, True]], 'malformed-mask'),
        ([[[0, 0], [1, 0], [1]]], 'malformed-mask'),
        ([[[0, 0, 1], [1, 0, 1], [1, 1, 1]]], 'malformed-mask'),
        ([[0, 0, 1, 0, 1, 2e9]], 'malformed-mask'),
        ([[0, 0, 1, 0, 1, 5]], 'mask-far-outside'),
        ([[0, 0, 1, 0, 1, float('nan')]], 'malformed-mask'),
        ([['0', '0', '1', '0', '1', '1']], 'malformed-mask'),
        ([[0, [1], 2]], 'malformed-mask'),
        ('4', 'malformed-mask'),
        (dict(size=[2, 2]), 'malformed-mask'),
        (dict(counts=[1, 3]), 'malformed-mask'),
        (dict(size=[2, 2], counts=[1, 2]), 'malformed-mask'),
        (dict(size=[2, 2], counts=[5, -1]), 'malformed-mask'),
        (dict(size=[2, 2], counts='~'), 'malformed-mask'),
        (dict(size=[2, 2], counts='P'), 'malformed-mask'),
        (dict(size=[2, 2], counts='P' * 20 + '0'), 'malformed-mask'),
        (dict(size=[2, 2], counts='é'), 'malformed-mask'),
        (dict(size=[2, 2], counts=[1.5, 2.5]), 'malformed-mask'),
        (dict(size=[2, 0], counts=[]), 'malformed-mask'),
        (dict(size=[1, 2], counts=[1, 1]), 'mask-size-mismatch'),
    ],
)
def test_what_is_no_mask_is_named(segmentation, kind):
    with pytest.raises(MaskProblem) as problem:
        read_mask(segmentation, (2, 2))
    assert problem.value.args[0] == kind
