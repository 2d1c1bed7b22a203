"""Image files: which ones of a folder count, their sizes, and their pixels."""

from mmcast.images.folders import (
    IMAGE_SUFFIXES,
    ImageFolder,
    image_files,
    list_folder,
    name_problem,
    read_sizes,
)
from mmcast.images.headers import (
    Header,
    open_image,
    problem_of,
    read_header,
    read_image_size,
    readable,
)
from mmcast.images.pixels import (
    check_size,
    decode_image,
    decode_values,
    explain_sizes,
    read_image,
    turn_upright,
)
from mmcast.images.value_range import (
    ValueRange,
    describe_values,
    parse_value_range,
    to_uint8,
)

__all__ = [
    'IMAGE_SUFFIXES',
    'ImageFolder',
    'image_files',
    'list_folder',
    'name_problem',
    'read_sizes',
    'Header',
    'open_image',
    'problem_of',
    'read_header',
    'read_image_size',
    'readable',
    'check_size',
    'decode_image',
    'decode_values',
    'explain_sizes',
    'read_image',
    'turn_upright',
    'ValueRange',
    'describe_values',
    'parse_value_range',
    'to_uint8',
]
