"""One upright picture in 8-bit colour from files of every kind, and its size from the header."""

import io
import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image

from mmcast.coco.checks.pixels import read_pixels
from mmcast.errors import CASTError
from mmcast.images import check_size, read_header, read_image, read_image_size

# Quarters of the stored picture: red, green / blue, white.
QUARTERS = np.zeros((16, 24, 3), np.uint8)
QUARTERS[:8, :12] = 255, 0, 0
QUARTERS[:8, 12:] = 0, 255, 0
QUARTERS[8:, :12] = 0, 0, 255
QUARTERS[8:, 12:] = 255, 255, 255
# What EXIF's orientations make of them.
UPRIGHT = dict(enumerate(['RGBW', 'GRWB', 'WBGR', 'BWRG', 'RBGW', 'BRWG', 'WGBR', 'GWRB'], start=1))
SAVING = dict(JPEG=dict(quality=95), PNG={}, WEBP=dict(lossless=True), TIFF={})


def quarters(image: np.ndarray) -> str:
    """The colours of its quarters, row by row."""
    height, width = image.shape[:2]
    names = {(1, 0, 0): 'R', (0, 1, 0): 'G', (0, 0, 1): 'B', (1, 1, 1): 'W'}
    places = [(height * y // 4, width * x // 4) for y in (1, 3) for x in (1, 3)]
    return ''.join(names[tuple((image[place] > 128).astype(int).tolist())] for place in places)


def save(path, orientation, kind):
    """The quarters, with an orientation, as a file of one kind."""
    options = SAVING[kind]
    if kind == 'TIFF':
        options = dict(tiffinfo={0x0112: orientation})
    else:
        exif = Image.Exif()
        exif[0x0112] = orientation
        options = dict(options, exif=exif)
    Image.fromarray(QUARTERS).save(path, kind, **options)
    return path


@pytest.mark.parametrize('kind', SAVING)
@pytest.mark.parametrize('orientation', UPRIGHT)
def test_every_kind_is_upright_in_pixels_header_and_check(tmp_path, kind, orientation):
    path = save(tmp_path / 'image', orientation, kind)
    image = read_image(path)
    assert quarters(image) == UPRIGHT[orientation]
    assert image.dtype == np.uint8 and image.flags['C_CONTIGUOUS']
    size = (24, 16) if orientation >= 5 else (16, 24)
    assert image.shape == (*size, 3)
    assert read_image_size(path) == read_pixels(str(path)).size == size


@pytest.mark.parametrize('orientation', UPRIGHT)
def test_a_tiled_tiff_is_turned_as_a_whole(tmp_path, orientation):
    """OpenCV would mirror each of its tiles in itself."""
    write_tiles(tmp_path / 'tiled.tif', np.repeat(np.repeat(QUARTERS, 8, 0), 8, 1), orientation)
    assert quarters(read_image(tmp_path / 'tiled.tif')) == UPRIGHT[orientation]


def write_tiles(path, image, orientation, side=64):
    """An RGB TIFF in tiles; its sides are multiples of a tile's."""
    height, width = image.shape[:2]
    tiles = [
        image[y : y + side, x : x + side].tobytes()
        for y in range(0, height, side)
        for x in range(0, width, side)
    ]
    number, size, start = len(tiles), len(tiles[0]), 8 + 2 + 11 * 12 + 4
    entries = [
        (256, 3, 1, width), (257, 3, 1, height), (258, 3, 3, start), (259, 3, 1, 1),
        (262, 3, 1, 2), (274, 3, 1, orientation), (277, 3, 1, 3), (322, 3, 1, side),
        (323, 3, 1, side), (324, 4, number, start + 6), (325, 4, number, start + 6 + 4 * number),
    ]  # fmt: skip
    content = struct.pack('<2sHIH', b'II', 42, 8, len(entries))
    content += b''.join(struct.pack('<HHII', *entry) for entry in entries) + struct.pack('<I', 0)
    first = start + 6 + 8 * number
    content += struct.pack('<3H', 8, 8, 8)
    content += struct.pack(f'<{number}I', *(first + size * place for place in range(number)))
    content += struct.pack(f'<{number}I', *[size] * number)
    path.write_bytes(content + b''.join(tiles))


def test_a_turned_copy_is_a_copy_of_the_upright_picture(tmp_path):
    """As whoever checks for leaks wants it, whatever the file format."""
    turned = save(tmp_path / 'turned.webp', 6, 'WEBP')
    Image.fromarray(read_image(turned)).save(tmp_path / 'upright.bmp')
    assert read_pixels(str(turned)).digest == read_pixels(str(tmp_path / 'upright.bmp')).digest


def test_orientation_behind_the_pixels_of_a_png_counts(tmp_path):
    """Where libpng writes it; the header is found without decoding pixels."""
    whole = save(tmp_path / 'image.png', 6, 'PNG').read_bytes()
    start = whole.index(b'eXIf') - 4
    length = struct.unpack('>I', whole[start : start + 4])[0] + 12
    chunk, rest = whole[start : start + length], whole[:start] + whole[start + length :]
    (tmp_path / 'image.png').write_bytes(rest[:-12] + chunk + rest[-12:])
    assert read_image_size(tmp_path / 'image.png') == (24, 16)
    assert quarters(read_image(tmp_path / 'image.png')) == UPRIGHT[6]


def test_orientation_in_xmp_is_not_followed(tmp_path):
    """Neither browsers nor OpenCV turn by it, so labels are those of the stored picture."""
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><r tiff:Orientation="6"/></x:xmpmeta>'
    Image.fromarray(QUARTERS).save(tmp_path / 'image.jpg', xmp=xmp, quality=95)
    assert read_image_size(tmp_path / 'image.jpg') == (16, 24)
    assert quarters(read_image(tmp_path / 'image.jpg')) == UPRIGHT[1]


def kinds_of_8_bits():
    """Grey, palette, alpha, CMYK ... by name: what Pillow writes in each file format."""
    colours = Image.fromarray(np.random.default_rng(0).integers(0, 256, (6, 7, 3), dtype=np.uint8))
    alpha = colours.convert('RGBA')
    alpha.putalpha(colours.convert('L'))
    modes = {
        'RGB': colours,
        'L': colours.convert('L'),
        '1': colours.convert('1'),
        'P': colours.quantize(16),
        'RGBA': alpha,
        'LA': alpha.convert('LA'),
        'CMYK': colours.convert('CMYK'),
    }
    for kind, allowed in dict(
        PNG='RGB L 1 P RGBA LA', TIFF='RGB L 1 P RGBA LA CMYK', BMP='RGB L 1 P', JPEG='RGB L CMYK'
    ).items():
        for mode in allowed.split():
            yield pytest.param(kind, modes[mode], id=f'{kind}-{mode}')


@pytest.mark.parametrize(('kind', 'image'), [*kinds_of_8_bits()])
def test_8_bits_are_read_as_mmcv_reads_them(tmp_path, kind, image):
    image.save(tmp_path / 'image', kind)
    data = np.frombuffer((tmp_path / 'image').read_bytes(), np.uint8)
    expected = cv2.imdecode(data, cv2.IMREAD_COLOR)
    assert np.array_equal(read_image(tmp_path / 'image'), expected[..., ::-1])
    assert not read_header(tmp_path / 'image').deep


def deep_files(folder):
    """Values 100, 600, 1100 ... of 16 bits or as numbers, one file per kind."""
    values = (100 + 500 * np.arange(6)).reshape(2, 3)
    colours = np.stack([values, values // 2, values // 4], -1)
    for name, content in (('grey.png', values), ('grey.tif', values), ('colour.png', colours)):
        cv2.imwrite(
            str(folder / name),
            content[..., ::-1].astype(np.uint16)
            if content.ndim == 3
            else content.astype(np.uint16),
        )
    cv2.imwrite(str(folder / 'colour.tif'), colours[..., ::-1].astype(np.uint16))
    Image.fromarray((values / 1000).astype(np.float32)).save(folder / 'float.tif')
    return sorted(folder.iterdir())


def test_more_than_8_bits_are_refused_and_a_finding(tmp_path):
    for path in deep_files(tmp_path):
        with pytest.raises(CASTError, match='values from .* to .*value_range') as error:
            read_image(path)
        assert path.name in str(error.value) and '\n' not in str(error.value)
        assert read_pixels(str(path)).deep == str(error.value).partition(' has ')[2].split(':')[0]
    with pytest.raises(CASTError, match='uint16 values from 100 to 2600'):
        read_image(tmp_path / 'grey.tif')


def test_a_stated_range_is_black_and_white(tmp_path):
    for path in deep_files(tmp_path):
        scale = 1000 if 'float' in path.name else 1
        image = read_image(path, (100 / scale, 2100 / scale))
        # (600 - 100) / 2000 of 255 is 63.75.
        assert image[..., 0].tolist() == [[0, 64, 128], [191, 255, 255]]
        if 'colour' in path.name:  # half of 600 is 300, a quarter of 2600 is 650
            assert image[0, 1].tolist() == [64, 26, 6] and image[1, 2].tolist() == [255, 153, 70]
        else:
            assert np.array_equal(image[..., 0], image[..., 2])


def test_colours_stored_apart_with_16_bits_are_refused(tmp_path):
    """OpenCV and Pillow both mix up their values."""
    write_planar(tmp_path / 'planar.tif')
    with pytest.raises(CASTError, match=r'planar\.tif stores its colours apart'):
        read_image(tmp_path / 'planar.tif', 'percentile')
    assert read_pixels(str(tmp_path / 'planar.tif')).problem[0] == 'unreadable-image'


def write_planar(path):
    """A TIFF of 2 x 2 pixels of 16 bits, three planes."""
    entries = [
        (256, 3, 1, 2), (257, 3, 1, 2), (258, 3, 3, 134), (259, 3, 1, 1), (262, 3, 1, 2),
        (273, 4, 3, 140), (277, 3, 1, 3), (278, 3, 1, 2), (279, 4, 3, 152), (284, 3, 1, 2),
    ]  # fmt: skip
    content = struct.pack('<2sHIH', b'II', 42, 8, len(entries))
    content += b''.join(struct.pack('<HHII', *entry) for entry in entries) + struct.pack('<I', 0)
    content += struct.pack('<3H3I3I', 16, 16, 16, 164, 172, 180, 8, 8, 8)
    path.write_bytes(content + np.arange(12, dtype='<u2').tobytes())


def test_a_file_larger_than_the_limit_is_refused_by_its_header(tmp_path, monkeypatch):
    Image.new('L', (30, 20)).save(tmp_path / 'large.png')
    monkeypatch.setenv('OPENCV_IO_MAX_IMAGE_PIXELS', '599')
    for read in (read_image, read_image_size):
        with pytest.raises(
            CASTError, match=r'large\.png has 30x20 pixels, more than the limit of 599: .*tiles'
        ):
            read(tmp_path / 'large.png')
    assert 'limit of 599' in read_pixels(str(tmp_path / 'large.png')).problem[1]
    monkeypatch.setenv('OPENCV_IO_MAX_IMAGE_PIXELS', '600')
    assert read_image(tmp_path / 'large.png').shape == (20, 30, 3)


def test_pillows_limit_is_none_and_stays_as_it_was(tmp_path, monkeypatch):
    """Pillow refuses what has twice as many pixels as its own, as large satellite images have."""
    Image.new('L', (30, 20)).save(tmp_path / 'large.png')
    monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 200)
    assert read_image_size(tmp_path / 'large.png') == (20, 30)
    assert read_pixels(str(tmp_path / 'large.png')).size == (20, 30)
    assert Image.MAX_IMAGE_PIXELS == 200


@pytest.mark.parametrize(
    'content',
    [None, b'', b'no image', b'\x89PNG\r\n\x1a\n'],
    ids=['missing', 'empty', 'text', 'png'],
)
def test_what_is_no_image_is_said_in_one_line(tmp_path, content):
    path = tmp_path / 'line\nbreak.png'
    if content is not None:
        path.write_bytes(content)
    for read in (read_image, read_image_size):
        with pytest.raises(CASTError, match=r'line.*break\.png. cannot be read') as error:
            read(path)
        assert '\n' not in str(error.value)


def test_a_file_cut_short_is_an_error_in_training_and_the_check(tmp_path):
    for kind in SAVING:
        path = tmp_path / kind
        noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
        Image.fromarray(noise).save(path, kind)
        path.write_bytes(path.read_bytes()[:-2000])
        with pytest.raises(CASTError, match='cannot be read'):
            read_image(path)
        assert read_pixels(str(path)).problem[0] == 'unreadable-image'


def test_damaged_metadata_do_not_matter(tmp_path):
    Image.fromarray(QUARTERS).save(tmp_path / 'image.jpg', exif=b'Exif\0\0MM\0*\0\0', quality=95)
    assert read_image_size(tmp_path / 'image.jpg') == (16, 24)
    assert quarters(read_image(tmp_path / 'image.jpg')) == UPRIGHT[1]


def test_a_header_that_lies_about_the_size_is_an_error(tmp_path):
    """Sizes of unlabeled images come from headers, so these have to be those of the pixels."""
    buffer = io.BytesIO()
    Image.new('L', (8, 4)).save(buffer, 'PNG')
    content = bytearray(buffer.getvalue())
    content[16:20] = struct.pack('>I', 9)
    content[29:33] = struct.pack('>I', zlib.crc32(bytes(content[12:29])))
    (tmp_path / 'image.png').write_bytes(bytes(content))
    with pytest.raises(CASTError, match='cannot be read'):
        read_image(tmp_path / 'image.png')


@pytest.mark.parametrize(
    ('stated', 'message'),
    [
        ((16, 24), r'EXIF orientation 6 turns the image, and the labels are those of the unturned'),
        ((32, 48), r'16x24, its label file says 48x32: it was resized after it was labeled'),
    ],
)
def test_what_differs_in_size_is_explained(tmp_path, stated, message):
    path = save(tmp_path / 'photo.jpg', 6, 'JPEG')
    check_size(path, (24, 16), (24, 16))
    with pytest.raises(CASTError, match=message) as error:
        check_size(path, (24, 16), stated)
    assert 'photo.jpg' in str(error.value) and '\n' not in str(error.value)


def test_labels_of_a_turned_image_that_lost_its_orientation_are_told(tmp_path):
    path = save(tmp_path / 'photo.jpg', 1, 'JPEG')
    with pytest.raises(CASTError, match='the labels are those of the image turned by 90 degrees'):
        check_size(path, (16, 24), (24, 16))
