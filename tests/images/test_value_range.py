"""Which values become black and white."""

import numpy as np
import pytest

from mmcast.errors import CASTError
from mmcast.images import parse_value_range, to_uint8


@pytest.mark.parametrize(
    ('given', 'stored'),
    [
        (None, None),
        ('None', None),
        ('0,4095', [0, 4095]),
        ((0, 1), [0, 1]),
        ([-1.5, 1.5], [-1.5, 1.5]),
        ('percentile', ['percentile', 0.5, 99.5]),
        (['percentile'], ['percentile', 0.5, 99.5]),
        (('percentile', 1, 99), ['percentile', 1, 99]),
        ('percentile, 1, 99', ['percentile', 1, 99]),
    ],
)
def test_settings_as_python_configs_and_command_lines_give_them(given, stored):
    assert parse_value_range(given) == stored
    assert parse_value_range(parse_value_range(given)) == stored  # what metadata hold can be read


@pytest.mark.parametrize(
    'given',
    ['minmax', 5, [1], [1, 2, 3], [2, 1], [1, 1], [0, float('inf')], [float('nan'), 1], '1;2',
     ['percentile', 5], ['percentile', -1, 50], ['percentile', 0, 101], [None, 1], [[0, 1]]],
)  # fmt: skip
def test_others_are_refused(given):
    with pytest.raises(CASTError, match='value_range is .*give .low, high., the values'):
        parse_value_range(given)


def test_8_bits_stay_as_they_are():
    values = np.arange(256, dtype=np.uint8)
    assert to_uint8(values, (0, 4095), 'x') is values


@pytest.mark.parametrize('dtype', [np.uint16, np.int32, np.float32, np.float64])
def test_percentiles_are_those_of_the_image(dtype):
    """A stray pixel, as every sensor has, does not make all others black."""
    values = np.arange(1001)
    expected = ((values - 100) / 800).clip(0, 1) * 255
    values[-1] = 30000
    found = to_uint8(values.astype(dtype), ('percentile', 10, 90), 'x')
    assert np.abs(found - expected).max() <= 0.5
    assert to_uint8(values.astype(dtype), 'percentile', 'x')[500] == 128


@pytest.mark.parametrize('dtype', [np.uint16, np.float32])
def test_an_image_of_one_value_is_black(dtype):
    assert not to_uint8(np.full((3, 4), 700, dtype), 'percentile', 'x').any()


@pytest.mark.parametrize('dtype', [np.uint16, np.int32, np.float32])
def test_objects_that_are_fewer_pixels_than_the_percentiles_leave_are_not_black(dtype):
    """Both percentiles are the background: nearly all of the image is."""
    values = np.full((100, 100), 7, dtype)
    values[:4, :5] = 4000
    values[5, 5] = 2000
    found = to_uint8(values, 'percentile', 'x')
    assert (found[:4, :5] == 255).all() and found[5, 5] == 127 and np.count_nonzero(found) == 21


def test_missing_data_are_black_and_no_percentile():
    values = np.linspace(0, 1, 101, dtype=np.float32)
    values[:60] = np.nan
    values[-1] = np.inf
    found = to_uint8(values, ('percentile', 0, 100), 'x')
    assert not found[:61].any() and found[-2] == found[-1] == 255 and found[79] == 124
    with pytest.raises(CASTError, match='field.tif has float32 values, none of them finite'):
        to_uint8(np.full(3, np.nan, np.float32), (0, 1), 'field.tif')
