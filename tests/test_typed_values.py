"""What a person typed as the value of an option."""

import pytest

from mmcast.errors import CASTError
from mmcast.typed_values import read_like, read_value


@pytest.mark.parametrize(
    'text, value',
    [
        ('My Drive/x', 'My Drive/x'),
        ('0', 0),
        ("'0'", '0'),
        ('1e-4', 1e-4),
        ('true', True),
        ('None', None),
        ('a,b', ['a', 'b']),
        ('"car, red", truck', ['car, red', 'truck']),
        ('car (red, small),truck', ['car (red, small)', 'truck']),
        ("['a', 'b']", ['a', 'b']),
        ('[1,(2,3),traffic light]', [1, (2, 3), 'traffic light']),
        ('(1,2)', (1, 2)),
        ('(1,2),(3,4)', [(1, 2), (3, 4)]),
        ('[]', []),
        ("it's", "it's"),
        ('photos (1).json', 'photos (1).json'),
        ('(1).json', '(1).json'),
    ],
)
def test_values_as_mmengine_reads_them_with_spaces_and_quotes(text, value):
    assert read_value(text) == value and type(read_value(text)) is type(value)


def test_brackets_that_do_not_match():
    with pytest.raises(CASTError, match='brackets or quotes do not match'):
        read_value('[1,2')


@pytest.mark.parametrize('text', ['', ' ', 'a,,b'])
def test_an_empty_class_name_does_not_mean_all(text):
    with pytest.raises(CASTError, match='a name is empty'):
        read_like(text, None, 'variables.classes')


def test_a_dict_is_not_replaced_by_a_text():
    with pytest.raises(CASTError, match='variables.o has settings of its own'):
        read_like('x', dict(a=1), 'variables.o')
