"""Image files: which ones of a folder count, their sizes, and their pixels."""

from mmcast.images.folders import (
    IMAGE_SUFFIXES,
    ImageFolder,
    check_names,
    image_files,
    list_folder,
    name_problem,
)
from mmcast.images.headers import Header, open_image, read_header, read_image_size
from mmcast.images.pixels import check_size, decode_image, read_image, read_values
from mmcast.images.value_range import (
    ValueRange,
    parse_value_range,
    to_uint8,
)

__all__ = [
    'IMAGE_SUFFIXES',
    'ImageFolder',
    'check_names',
    'image_files',
    'list_folder',
    'name_problem',
    'Header',
    'open_image',
    'read_header',
    'read_image_size',
    'check_size',
    'decode_image',
    'read_image',
    'read_values',
    'ValueRange',
    'parse_value_range',
    'to_uint8',
]
