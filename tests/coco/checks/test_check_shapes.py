import numpy as np
import pytest
from pycocotools import mask as mask_api

from mmcast.coco.checks.shapes import MaskProblem, measure_mask


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
        measured = measure_mask(segmentation, size)
        assert (measured.area, measured.box) == reference(mask)


def test_polygons_are_measured_by_their_corners():
    measured = measure_mask([[1, 2, 5, 2, 5, 4, 1, 4], [10, 0, 14, 0, 10, 6]], (20, 20))
    assert (measured.area, measured.box) == (8 + 12, (1, 0, 14, 6))
    far = measure_mask([[1e6, 1e6, 1e6 + 3, 1e6, 1e6, 1e6 + 2]], None)
    assert far.area == 3


@pytest.mark.parametrize(
    'segmentation, kind',
    [
        (None, 'empty-mask'),
        ([], 'empty-mask'),
        (dict(size=[2, 2], counts=[4]), 'empty-mask'),
        (dict(size=[2, 2], counts='4'), 'empty-mask'),
        ([[]], 'degenerate-polygon'),
        ([[1, 1, 2, 2]], 'degenerate-polygon'),
        ([[1, 1, 2, 2, 3, 3]], 'degenerate-polygon'),
        ([[1, 1, 1, 1, 1, 1]], 'degenerate-polygon'),
        ([[0, 0, 1, 0, 1]], 'malformed-mask'),
        ([0, 0, 1, 0, 1, 1], 'malformed-mask'),
        ([[[0, 0], [1, 0], [1, 1]]], 'malformed-mask'),
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
        measure_mask(segmentation, (2, 2))
    assert problem.value.args[0] == kind
