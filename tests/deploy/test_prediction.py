"""Pictures in, overlays and COCO JSON out: an image, a folder, a video; broken files; progress."""

import itertools
import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from pycocotools import mask as mask_api

from mmcast.deploy import prediction
from mmcast.deploy.instances import Instances
from mmcast.deploy.overlay_files import draw_predictions
from mmcast.deploy.pictures import open_source
from mmcast.deploy.prediction import Progress, load_student, predict
from mmcast.errors import CASTError

ROOT = Path(__file__).parents[2]


class BrightPixels:
    """Segments what is bright, as one instance of class 'lamp' with a score of 0.8."""

    classes = ['dark', 'lamp']

    def __call__(self, image: np.ndarray, score_threshold: float | None = None) -> Instances:
        mask = image.min(axis=2) > 200
        kept = int(mask.any() and (score_threshold or 0.3) < 0.8)
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        box = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1] if kept else [0, 0, 0, 0]
        return Instances(
            np.array([box] * kept, np.float32).reshape(-1, 4),
            mask[None][:kept],
            np.full(kept, 0.8, np.float32),
            np.ones(kept, np.int64),
        )


def picture(x: int, size: tuple[int, int] = (40, 60)) -> np.ndarray:
    image = np.full((*size, 3), 30, np.uint8)
    image[10:20, x : x + 8] = 255
    return image


@pytest.fixture
def folder(tmp_path) -> Path:
    """Two readable images, one of them in a subfolder, a broken and an empty one, and no image at
    all.
    """
    (tmp_path / 'photos/deep').mkdir(parents=True)
    cv2.imwrite(str(tmp_path / 'photos/a.png'), picture(5))
    cv2.imwrite(str(tmp_path / 'photos/deep/b.PNG'), picture(30, (50, 70)))
    (tmp_path / 'photos/broken.jpg').write_bytes(b'no image')
    (tmp_path / 'photos/empty.png').touch()
    (tmp_path / 'photos/notes.txt').touch()
    return tmp_path / 'photos'


def write_video(path: Path, frames: int) -> Path:
    video = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*'MJPG'), 10, (60, 40))
    for number in range(frames):
        video.write(picture(5 + number))
    video.release()
    return path


def test_a_folder_becomes_overlays_and_one_coco_json(folder, tmp_path):
    lines = []
    result = predict(BrightPixels(), folder, tmp_path / 'out', show=lines.append)
    assert (result.pictures, result.instances, list(result.skipped)) == (
        2,
        2,
        ['broken.jpg', 'empty.png'],
    )
    assert 'skipped: broken.jpg is not a readable image' in lines
    content = json.loads((tmp_path / 'out/predictions.json').read_text())
    assert [
        (image['file_name'], image['height'], image['width']) for image in content['images']
    ] == [('a.png', 40, 60), ('deep/b.PNG', 50, 70)]
    assert content['unreadable'] == [
        dict(file_name=name, reason=reason) for name, reason in result.skipped.items()
    ]
    assert content['categories'] == [dict(id=1, name='dark'), dict(id=2, name='lamp')]
    for annotation, x in zip(content['annotations'], (5, 30)):
        mask = mask_api.decode(annotation['segmentation'])
        assert mask.sum() == annotation['area'] == 80 and mask[10:20, x : x + 8].all()
        assert (
            annotation['bbox'] == [x, 10, 8, 10]
            and annotation['score'] == 0.8
            and annotation['category_id'] == 2
        )
    ids = [image['id'] for image in content['images']]
    assert [a['image_id'] for a in content['annotations']] == ids == [1, 3]
    overlay = cv2.imread(str(tmp_path / 'out/overlays/deep/b.PNG.jpg'))
    assert overlay.shape == (50, 70, 3)
    assert sorted(path.name for path in (tmp_path / 'out').iterdir()) == [
        'overlays',
        'predictions.json',
    ]


def test_a_single_image_and_a_threshold(folder, tmp_path):
    assert (
        predict(BrightPixels(), folder / 'a.png', tmp_path / 'one', 0.9, overlays=False).instances
        == 0
    )
    assert not (tmp_path / 'one/overlays').exists()
    with pytest.raises(CASTError, match='broken.jpg: no picture in it can be used'):
        predict(BrightPixels(), folder / 'broken.jpg', tmp_path / 'none')
    assert not list((tmp_path / 'none').glob('*.json*'))


def test_a_photo_is_turned_as_its_camera_says(tmp_path):
    from PIL import Image

    exif = Image.Exif()
    exif[0x0112] = 6  # turn by a quarter
    Image.fromarray(picture(5)).save(tmp_path / 'photo.jpg', exif=exif)
    ((_, image),) = open_source(tmp_path / 'photo.jpg').read(np.zeros(1, bool))
    assert image.pixels.shape == (60, 40, 3)


def test_a_video_becomes_a_video(tmp_path):
    result = predict(BrightPixels(), write_video(tmp_path / 'drive.avi', 5), tmp_path / 'out')
    assert result.pictures == result.instances == 5
    content = json.loads((tmp_path / 'out/predictions.json').read_text())
    assert [image['file_name'] for image in content['images']] == [
        f'drive/{i:06d}' for i in range(5)
    ]
    overlay = cv2.VideoCapture(str(tmp_path / 'out/overlay.mp4'))
    assert [overlay.read()[0] for _ in range(6)] == [True] * 5 + [False]
    assert overlay.get(cv2.CAP_PROP_FPS) == 10


def test_a_video_without_frames_is_one_line(tmp_path):
    for name, content in (('no.mp4', b'no video'), ('empty.avi', b'')):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(CASTError, match=f'{name} cannot be opened as a video'):
            predict(BrightPixels(), tmp_path / name, tmp_path / 'out')
    with pytest.raises(CASTError, match='frames|opened'):
        predict(BrightPixels(), write_video(tmp_path / 'none.avi', 0), tmp_path / 'out')
    assert not list(tmp_path.glob('out/*'))


def test_progress_tells_the_time_that_is_left(monkeypatch):
    clock, lines = itertools.count(0, 1), []  # a second passes at every look
    monkeypatch.setattr(prediction.time, 'monotonic', lambda: next(clock))
    progress = Progress(10, lines.append)
    for _ in range(4):
        progress.step()
    assert lines == [
        '2 of 10, about 8 s left (1.0 per second)',
        '4 of 10, about 6 s left (1.0 per second)',
    ]


def test_an_overlay_is_coloured_inside_the_mask_and_nowhere_else():
    image = picture(5, (80, 200))
    found = BrightPixels()(image)
    drawing = draw_predictions(image, found, ['', ''])
    inside = found.masks[0]
    assert (drawing[inside] != image[inside]).any(axis=1).all()
    assert (drawing[60:] == image[60:]).all() and (image[10:20, 5:13] == 255).all()


@pytest.mark.parametrize(
    'source, out, reason',
    [
        ('nowhere', 'new', 'nowhere not found; give an image, a folder of images or a video'),
        ('notes', 'new', 'notes has no images'),
        ('photos', 'old', 'predictions.json exists and is not of this version of mmcast predict'),
        ('photos', 'old/predictions.json/x', 'cannot write to'),
    ],
)
def test_a_wrong_source_or_target_is_named(folder, tmp_path, source, out, reason):
    (tmp_path / 'notes').mkdir()
    (tmp_path / 'old').mkdir()
    (tmp_path / 'old/predictions.json').write_text('mine')
    with pytest.raises(CASTError, match=reason):
        predict(BrightPixels(), tmp_path / source, tmp_path / out)
    assert (tmp_path / 'old/predictions.json').read_text() == 'mine'


# ---- the models


def test_a_config_and_an_exported_folder_give_the_same_masks(trained, exported, photos):
    for student in (
        load_student(trained.config, trained.checkpoint, 'cpu'),
        load_student(exported, device='cpu'),
    ):
        found = student(photos[0], 0.1)
        masks = found.masks if student.classes[2] == 'car' else None
        assert len(found) > 0 and masks.shape[1:] == (112, 224) and (found.scores > 0.1).all()
        assert (np.diff(found.scores) <= 0).all()
    assert np.array_equal(
        masks, load_student(trained.config, trained.checkpoint, 'cpu')(photos[0], 0.1).masks
    )


def test_what_is_no_model_is_named(trained, tmp_path):
    with pytest.raises(CASTError, match='a config needs --checkpoint'):
        load_student(trained.config)
    with pytest.raises(CASTError, match='student.py not found'):
        load_student(tmp_path)
    with pytest.raises(CASTError, match='none.pth not found'):
        load_student(trained.config, tmp_path / 'none.pth')


WITHOUT = """
import runpy, sys
class NoTorch:
    def find_spec(self, name, path=None, target=None):
        package = name.split('.')[0]
        if package in ('torch', 'torchvision', 'mmdet', 'mmcv', 'mmengine', 'mmpretrain'):
            raise ImportError(f'{name} is not installed here')
sys.meta_path.insert(0, NoTorch())
tool = sys.argv.pop(1)
sys.argv[0] = tool
runpy.run_path(tool, run_name='__main__')
"""


def run_without_torch(*args) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, '-c', WITHOUT, ROOT / 'tools/predict.py', *map(str, args)],
        text=True,
        capture_output=True,
        env=dict(os.environ, PYTHONPATH=str(ROOT)),
    )


def test_the_tool_runs_an_onnx_file_without_torch(onnx_file, toy_data, exported, tmp_path):
    done = run_without_torch(
        onnx_file, toy_data['val_images'], '--out', tmp_path / 'out', '--score-thr', '0.1'
    )
    assert done.returncode == 0, done.stderr
    assert (
        'instances on 6 pictures' in done.stdout
        and len(list(tmp_path.rglob('overlays/**/*.jpg'))) == 6
    )
    content = json.loads((tmp_path / 'out/predictions.json').read_text())
    assert len(content['annotations']) > 6 and len(content['categories']) == 8
    done = run_without_torch(
        tmp_path / 'none.onnx', toy_data['val_images'], '--out', tmp_path / 'new'
    )
    assert done.returncode == 1 and done.stderr.startswith(
        f'error: ONNX file {tmp_path}/none.onnx not found'
    )


def test_the_tool_prints_one_line_for_an_error(monkeypatch, tmp_path):
    monkeypatch.setattr(
        sys, 'argv', ['predict.py', str(tmp_path / 'none.onnx'), 'x.jpg', '--out', str(tmp_path)]
    )
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(str(ROOT / 'tools/predict.py'), run_name='__main__')
    assert str(stop.value).startswith('error: ONNX file') and '\n' not in str(stop.value)
