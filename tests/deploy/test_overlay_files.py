"""Overlays get names that the file system takes, and none takes another one's place."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from bright_student import BrightPixels, picture

from mmcast.deploy.overlay_files import ImageOverlays, draw_predictions
from mmcast.deploy.prediction import predict

LONG = 'x' * 251 + '.png'  # 255 bytes, the most that a name may have


@pytest.mark.parametrize(
    'names',
    [
        ['a.png', 'a.jpg', 'a.png.jpg'],
        [LONG, 'y' + LONG[1:]],
        ['deep/' + LONG, 'deeper/' + LONG],
        ['a.png', 'a.png.jpg/b.png'],
        ['b.png.jpg/a.png', 'b.png'],
        ['\u00e4' * 125 + '.png'],
    ],
)
def test_every_picture_has_its_own_overlay(tmp_path, names):
    for number, name in enumerate(names):
        path = tmp_path / 'photos' / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(cv2.imencode(path.suffix, picture(3, (40 + number, 60)))[1].tobytes())
    predict(BrightPixels(), tmp_path / 'photos', tmp_path / 'out')
    images = json.loads((tmp_path / 'out/predictions.json').read_text())['images']
    assert {image['file_name'] for image in images} == set(names)
    for image in images:
        overlay = image.get('overlay', f'overlays/{image["file_name"]}.jpg')
        assert cv2.imread(str(tmp_path / 'out' / overlay)).shape[0] == image['height']
    assert len([p for p in (tmp_path / 'out').rglob('*.jpg') if p.is_file()]) == len(names)


def overlays(folder: Path, names: list[str]) -> ImageOverlays:
    return ImageOverlays(folder / 'overlays', folder / 'half', names)


def test_names_that_differ_in_case_or_accents_alone_get_two_overlays(tmp_path):
    """On a disk that does not tell them apart, one would replace the other."""
    names = ['A.png', 'a.png', 'caf\u00e9.png', 'cafe\u0301.png']
    written = overlays(tmp_path, names)
    paths = [written.write(name, picture(3)) for name in names]
    assert paths[0] == 'A.png.jpg' and paths[2] == 'caf\u00e9.png.jpg'
    assert len({path.casefold().split('.')[0] for path in paths}) == 4
    assert all(written.exists(name) for name in names)


def test_a_picture_wider_than_a_jpeg_may_be_is_drawn_smaller(tmp_path):
    path = overlays(tmp_path, []).write('wide.tif', np.zeros((10, 70000, 3), np.uint8))
    assert cv2.imread(str(tmp_path / 'overlays' / path)).shape[1] <= 65500


def test_an_overlay_is_coloured_inside_the_mask_and_nowhere_else():
    image = picture(5, (80, 200))
    found = BrightPixels()(image)
    drawing = draw_predictions(image, found, ['', ''])
    inside = found.masks[0]
    assert (drawing[inside] != image[inside]).any(axis=1).all()
    assert (drawing[60:] == image[60:]).all() and (image[10:20, 5:13] == 255).all()
