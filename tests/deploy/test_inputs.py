"""What students accept as an image: the same in torch and in onnxruntime."""

import numpy as np
import pytest

from mmcast.deploy.inputs import check_batch, prepare_image
from mmcast.deploy.onnx_student import OnnxStudent
from mmcast.errors import CASTError
from mmcast.images import read_image

GREY = np.random.default_rng(0).integers(0, 256, (5, 7), dtype=np.uint8)
COLOUR = np.stack([GREY, 255 - GREY, GREY // 2], -1)


@pytest.mark.parametrize(
    ('image', 'expected'),
    [
        (COLOUR, COLOUR),
        (COLOUR[::-1, ::2], COLOUR[::-1, ::2]),
        (GREY, np.stack([GREY] * 3, -1)),
        (GREY[..., None], np.stack([GREY] * 3, -1)),
        (np.stack([GREY, GREY // 3], -1), np.stack([GREY] * 3, -1)),
        (np.dstack([COLOUR, GREY]), COLOUR),
        (COLOUR.tolist(), None),
    ],
    ids=['RGB', 'view', 'grey', 'one channel', 'grey and alpha', 'RGBA', 'list'],
)
def test_kinds_of_8_bits(image, expected):
    if expected is None:  # integers of any size: nobody knows what they mean
        with pytest.raises(CASTError, match='int64 values from .* value_range'):
            prepare_image(image)
        return
    found = prepare_image(image)
    assert np.array_equal(found, expected)
    assert found.dtype == np.uint8 and found.flags['C_CONTIGUOUS']


@pytest.mark.parametrize('dtype', [np.uint16, np.int32, np.float32, np.float64, bool])
def test_other_numbers_want_a_range(dtype):
    values = (GREY > 99).astype(dtype)
    with pytest.raises(CASTError, match=r'the image has \w+ values from 0 to 1: say which become'):
        prepare_image(values)
    assert np.array_equal(prepare_image(values, (0, 1))[..., 2], 255 * (GREY > 99))
    with pytest.raises(CASTError, match='none of them finite'):
        prepare_image(np.full((3, 4), np.nan), (0, 1))


@pytest.mark.parametrize(
    ('image', 'message'),
    [
        (np.zeros((2, 9, 9, 3), np.uint8), r'\(2, 9, 9, 3\), a batch'),
        (np.zeros((3, 9, 9), np.uint8), r'channels first: give image.transpose'),
        (np.zeros((9, 9, 5), np.uint8), r'not \(height, width, 3\)'),
        (np.zeros(9, np.uint8), r'not \(height, width, 3\)'),
        (np.zeros((0, 9, 3), np.uint8), 'there is no pixel in it'),
        (np.zeros((9, 9, 3), complex), 'complex128: give an array of numbers'),
        ('photo.jpg', 'give an array of numbers .*read_image reads a file'),
        (None, 'NoneType of object: give an array'),
    ],
)
def test_what_is_no_image_is_refused(image, message):
    with pytest.raises(CASTError, match=message) as error:
        prepare_image(image, 'percentile')
    assert '\n' not in str(error.value)


def test_batches_are_checked():
    batch = np.zeros((2, 9, 9, 3), np.uint8)
    assert check_batch(batch[:, ::2]).flags['C_CONTIGUOUS']
    for wrong in (batch[0], batch.astype(np.float32), batch[..., :1], batch[:0]):
        with pytest.raises(CASTError, match='give uint8, RGB, .images, height, width, 3.'):
            check_batch(wrong)


@pytest.fixture(scope='module')
def students(exported, onnx_file):
    """The same network in torch and in onnxruntime."""
    from mmcast.deploy.torch_student import TorchStudent

    return (
        TorchStudent(exported / 'student.py', exported / 'student.pth', 'cpu'),
        OnnxStudent(onnx_file),
    )


def test_students_take_the_same_images(students, photos):
    """Grey, with alpha and of 16 bits, an image finds what its 8-bit colour picture finds."""
    grey = photos[0][..., 1]
    for student in students:
        expected = student(np.stack([grey] * 3, -1), 0.1)
        assert len(expected)
        student.value_range = [0, 65535]
        for image in (grey, np.dstack([grey] * 3 + [grey // 2]), grey.astype(np.uint16) * 257):
            assert np.array_equal(student(image, 0.1).masks, expected.masks)
        student.value_range = None
        for wrong in (grey.astype(np.uint16), photos[0][None], 'photo.jpg'):
            with pytest.raises(CASTError):
                student(wrong)


def test_an_image_too_thin_for_the_resize_is_refused(students):
    with pytest.raises(CASTError, match='5000x2, which leaves nothing of its short side'):
        students[1](np.zeros((2, 5000, 3), np.uint8))


def test_a_file_finds_what_its_array_finds(students, photos, tmp_path):
    """As predictions of files and of arrays in Python must agree, with the student's range."""
    import cv2

    deep = photos[0].astype(np.uint16) * 16
    cv2.imwrite(str(tmp_path / 'deep.png'), deep[..., ::-1])
    student = students[1]
    student.value_range = [0, 4080]
    assert np.array_equal(read_image(tmp_path / 'deep.png', student.value_range), photos[0])
    assert np.array_equal(student(deep, 0.1).masks, student(photos[0], 0.1).masks)
    student.value_range = None
