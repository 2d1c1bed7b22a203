"""Pictures in, overlays and COCO JSON out: an image, a folder, a video; broken files; progress."""

import contextlib
import dataclasses
import itertools
import json
import os
import re
import resource
import runpy
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from bright_student import BrightPixels, picture, write_onnx
from folder_content import files_of
from interrupts import HEEDS_INTERRUPTS
from pycocotools import mask as mask_api

from mmcast.deploy import prediction
from mmcast.deploy.pictures import open_source
from mmcast.deploy.prediction import Progress, load_student, predict
from mmcast.errors import CASTError

ROOT = Path(__file__).parents[2]


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


def test_a_folder_becomes_overlays_and_one_coco_json(folder, tmp_path):
    lines = []
    result = predict(BrightPixels(), folder, tmp_path / 'out', show=lines.append)
    assert (result.pictures, result.instances, list(result.skipped)) == (
        2,
        2,
        ['broken.jpg', 'empty.png'],
    )
    assert any(line.startswith('skipped: broken.jpg cannot be read (') for line in lines)
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


# ---- interrupted and shared runs


class Stumbling(BrightPixels):
    """Fails on the pictures whose bright part begins at some columns; notes all of them."""

    def __init__(self, errors: dict[int, BaseException]) -> None:
        self.errors, self.seen = errors, []

    def __call__(self, image, score_threshold=None):
        column = int(np.flatnonzero((image[15] > 200).all(-1))[0])
        self.seen.append(column)
        if column in self.errors:
            raise self.errors.pop(column)
        return super().__call__(image, score_threshold)


@pytest.fixture
def photos_of_six(tmp_path) -> Path:
    (tmp_path / 'six').mkdir()
    for number in range(6):
        cv2.imwrite(str(tmp_path / f'six/{number}.png'), picture(number))
    return tmp_path / 'six'


def test_an_interrupted_run_resumes(photos_of_six, tmp_path):
    student = Stumbling({3: KeyboardInterrupt()})
    with pytest.raises(KeyboardInterrupt, match='3 of 6 pictures are done and kept; the same comm'):
        predict(student, photos_of_six, tmp_path / 'out')
    assert sorted(path.name for path in (tmp_path / 'out').iterdir()) == [
        'overlays',
        'predictions.json.shards',
    ]
    assert predict(student, photos_of_six, tmp_path / 'out').pictures == 6
    assert student.seen == [0, 1, 2, 3, 3, 4, 5]
    predict(student, photos_of_six, tmp_path / 'whole')
    assert files_of(tmp_path / 'out') == files_of(tmp_path / 'whole')


def test_an_overlay_that_was_taken_away_meanwhile_is_made_again(photos_of_six, tmp_path):
    student = Stumbling({3: KeyboardInterrupt()})
    with pytest.raises(KeyboardInterrupt):
        predict(student, photos_of_six, tmp_path / 'out')
    (tmp_path / 'out/overlays/1.png.jpg').unlink()
    predict(student, photos_of_six, tmp_path / 'out')
    assert student.seen == [0, 1, 2, 3, 1, 3, 4, 5]
    assert len(list((tmp_path / 'out/overlays').iterdir())) == 6


def test_a_picture_that_the_student_fails_on_is_recorded_and_the_others_go_on(
    photos_of_six, tmp_path
):
    lines = []
    student = Stumbling({2: ZeroDivisionError('a side\nof no pixels')})
    result = predict(student, photos_of_six, tmp_path / 'out', show=lines.append)
    reason = 'of 60x40 pixels cannot be predicted on (ZeroDivisionError: a side of no pixels)'
    assert (result.pictures, result.skipped) == (5, {'2.png': reason})
    assert f'skipped: 2.png {reason}' in lines
    written = json.loads((tmp_path / 'out/predictions.json').read_text())
    assert written['unreadable'] == [dict(file_name='2.png', reason=reason)]
    assert not (tmp_path / 'out/overlays/2.png.jpg').exists()


def test_a_student_that_fails_on_all_pictures_is_an_error(photos_of_six, tmp_path):
    student = BrightPixels()
    student.classes = ['dark']  # and it finds lamps
    reason = (
        'six: no picture in it can be used .0.png of 60x40 pixels .* .IndexError: .*; nothing was'
    )
    with pytest.raises(CASTError, match=reason):
        predict(student, photos_of_six, tmp_path / 'out')
    assert not list((tmp_path / 'out').iterdir())


@pytest.mark.parametrize(
    'error',
    [
        MemoryError(),
        RuntimeError('CUDA out of memory. Tried to allocate 2.00 GiB.'),
        RuntimeError('[enforce fail at alloc_cpu.cpp] not enough memory: you tried to allocate 8'),
        RuntimeError('CUDA error: an illegal memory access was encountered'),
    ],
)
def test_a_lack_of_memory_stops_and_a_later_call_resumes(photos_of_six, tmp_path, error):
    student = Stumbling({2: error})
    with pytest.raises(CASTError, match=r'^2.png \(60x40\) .*; 2 of 6 pictures are done and kept'):
        predict(student, photos_of_six, tmp_path / 'out')
    assert predict(student, photos_of_six, tmp_path / 'out').pictures == 6
    assert student.seen == [0, 1, 2, 2, 3, 4, 5]


def test_a_finished_run_is_left_alone(folder, tmp_path):
    first = predict(BrightPixels(), folder, tmp_path / 'out')
    before = files_of(tmp_path / 'out')
    student = Stumbling({})
    student.sha256 = BrightPixels.__qualname__
    again = predict(student, folder, tmp_path / 'out')
    assert again == dataclasses.replace(first, finished_before=True) and not student.seen
    assert files_of(tmp_path / 'out') == before


@pytest.mark.parametrize(
    'change, reason',
    [
        (dict(score_threshold=0.5), 'made with another score threshold'),
        (dict(overlays=False), 'made with another choice of overlays'),
        (dict(student=Stumbling({})), 'made with another student'),
        (dict(rename='3.png'), 'made with another list of images'),
        (dict(replace='0.png'), 'made with another content of images'),
    ],
)
@pytest.mark.parametrize('finished', [True, False])
def test_other_things_are_not_mixed_with_it(photos_of_six, tmp_path, change, reason, finished):
    """Neither with a finished run nor with an interrupted one; --force moves both aside."""
    out = tmp_path / 'out'
    with contextlib.nullcontext() if finished else pytest.raises(KeyboardInterrupt):
        student = Stumbling({} if finished else {3: KeyboardInterrupt()})
        student.sha256 = 'one'
        predict(student, photos_of_six, out)
    student, options = change.get('student', student), dict(change)
    options.pop('student', None)
    if name := options.pop('rename', None):
        (photos_of_six / name).rename(photos_of_six / '9.png')
    if name := options.pop('replace', None):
        cv2.imwrite(str(photos_of_six / name), picture(30, (80, 90)))
        if not finished:
            reason = f'has predictions of {name}, which has changed since'
    before = files_of(out)
    with pytest.raises(CASTError, match=f'{reason}; choose another --out or use --force'):
        predict(student, photos_of_six, out, **options)
    assert files_of(out) == before
    assert predict(student, photos_of_six, out, force=True, **options).pictures == 6
    name = 'predictions.json' if finished else 'predictions.json.shards'
    moved = (out / f'{name}.old1', out / 'overlays.old1')
    assert all(path.exists() for path in moved)
    assert len(list(moved[1].iterdir())) == (6 if finished else 3)


def test_force_resumes_what_force_began(photos_of_six, tmp_path):
    student = Stumbling({3: KeyboardInterrupt()})
    (tmp_path / 'out').mkdir()
    (tmp_path / 'out/predictions.json').write_text('mine')
    with pytest.raises(KeyboardInterrupt):
        predict(student, photos_of_six, tmp_path / 'out', force=True)
    predict(student, photos_of_six, tmp_path / 'out', force=True)
    assert student.seen == [0, 1, 2, 3, 3, 4, 5]
    assert (tmp_path / 'out/predictions.json.old1').read_text() == 'mine'


def test_a_picture_that_is_not_done_may_be_replaced(photos_of_six, tmp_path):
    """As one may where it is broken, or needs more memory than there is."""
    student = Stumbling({4: KeyboardInterrupt()})
    (photos_of_six / '1.png').write_bytes(b'broken')
    with pytest.raises(KeyboardInterrupt):
        predict(student, photos_of_six, tmp_path / 'out')
    cv2.imwrite(str(photos_of_six / '1.png'), picture(1))
    student.errors[4] = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        predict(student, photos_of_six, tmp_path / 'out')
    result = predict(student, photos_of_six, tmp_path / 'out')
    assert (result.pictures, result.skipped) == (6, {}) and student.seen == [0, 2, 3, 4, 1, 4, 4, 5]


def test_overlays_below_the_source_are_no_pictures_of_it(photos_of_six):
    student = Stumbling({3: KeyboardInterrupt()})
    with pytest.raises(KeyboardInterrupt):
        predict(student, photos_of_six, photos_of_six)
    assert predict(student, photos_of_six, photos_of_six).pictures == 6
    assert predict(student, photos_of_six, photos_of_six, force=True).pictures == 6
    assert predict(student, photos_of_six, photos_of_six).pictures == 6


def test_overlays_of_other_predictions_below_the_source_are_no_pictures_of_it(photos_of_six):
    """As when a second student is tried on the same photos; a folder of the user's own is read."""
    with pytest.raises(KeyboardInterrupt):
        predict(Stumbling({3: KeyboardInterrupt()}), photos_of_six, photos_of_six / 'stopped')
    assert predict(BrightPixels(), photos_of_six, photos_of_six / 'first').pictures == 6
    own = photos_of_six / 'mine/overlays'
    own.mkdir(parents=True)
    cv2.imwrite(str(own / '7.png'), picture(0))
    assert predict(BrightPixels(), photos_of_six, photos_of_six / 'second').pictures == 7


def test_a_damaged_start_of_a_run_is_one_line(photos_of_six, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        predict(Stumbling({3: KeyboardInterrupt()}), photos_of_six, tmp_path / 'out')
    (tmp_path / 'out/predictions.json.shards/job.json').write_text('{')
    with pytest.raises(CASTError, match='predictions.json.shards is damaged; choose another'):
        predict(BrightPixels(), photos_of_six, tmp_path / 'out')


@pytest.fixture
def command(photos_of_six, tmp_path):
    """``mmcast predict`` on six pictures, each of which takes so many seconds."""
    write_onnx(tmp_path / 'bright.onnx')
    helper = ROOT / 'tests/helpers/bright_student.py'

    def start(*more: str, seconds: float = 0, **options) -> subprocess.Popen:
        arguments = [helper, tmp_path / 'notes', seconds, tmp_path / 'bright.onnx', photos_of_six]
        return subprocess.Popen(
            [sys.executable, *map(str, arguments), '--out', tmp_path / 'out', *more],
            env=dict(os.environ, PYTHONPATH=str(ROOT)),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            **dict(preexec_fn=HEEDS_INTERRUPTS) | options,
        )

    return start


def wait_for(path: Path, size: int) -> None:
    deadline = time.monotonic() + 60
    while not path.exists() or path.stat().st_size < size:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_an_onnx_file_runs_on_the_device_that_is_asked_for(tmp_path):
    write_onnx(tmp_path / 'bright.onnx')
    student = load_student(tmp_path / 'bright.onnx', device='cpu')
    assert student.session.get_providers() == ['CPUExecutionProvider']
    with pytest.raises(CASTError, match="onnxruntime here has no device 'tpu'"):
        load_student(tmp_path / 'bright.onnx', device='tpu')


def test_a_second_run_is_refused_and_ctrl_c_is_one_line(command, tmp_path):
    first = command(seconds=3)  # a picture: the second command starts meanwhile
    wait_for(tmp_path / 'notes', 2)
    _, said = command().communicate()
    assert said == (
        f'error: {tmp_path}/out is being written by process {first.pid}; wait until it ends, or '
        'choose another --out\n'
    )
    first.send_signal(signal.SIGINT)
    _, said = first.communicate()
    assert first.returncode == 130
    assert re.fullmatch(
        'interrupted: [1-5] of 6 pictures are done and kept; the same command resumes',
        said.splitlines()[-1],  # after lines of progress on a slow machine
    )
    done = command()
    said, told = done.communicate()
    assert done.returncode == 0 and 'out: 6 instances on 6 pictures' in said, told
    assert 'finished before: 6 instances on 6 pictures' in command().communicate()[0]


@pytest.mark.parametrize(
    'limit, more, message',
    [
        (100, [], r'cannot write to .*/predictions.json.shards \(File too large\); make room'),
        (
            600,
            [],
            r'cannot write to .*json.shards \(File too large\); 0 of 6 .* are done.*: make room',
        ),
        (
            1000,
            ['--no-overlays'],
            r'cannot write to .*/shard_0000.jsonl \(File too large\); what is done is kept',
        ),
    ],
)
def test_a_full_disk_is_named_and_nothing_is_lost(command, tmp_path, limit, more, message):
    """A limit on the size of files stands for the disk."""
    full = command(
        *more,
        preexec_fn=lambda: resource.setrlimit(
            resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY)
        ),
    )
    _, said = full.communicate()
    assert full.returncode == 1 and re.search(message, said) and said.count('\n') == 1, said
    assert not (tmp_path / 'out/predictions.json').exists()
    done = command(*more)
    assert '6 instances on 6 pictures' in done.communicate()[0]
    assert len((tmp_path / 'notes').read_text()) <= 7


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


def test_thin_pictures_keep_nothing_from_the_others(onnx_file, exported, photos, tmp_path):
    """Whether a network can take them or not."""
    (tmp_path / 'in').mkdir()
    for name, image in dict(a=(2, 3000), b=None, c=(3000, 2), d=(1, 1), e=None).items():
        pixels = photos[0] if image is None else np.full((*image, 3), 90, np.uint8)
        cv2.imwrite(str(tmp_path / f'in/{name}.png'), pixels)
    for student in (load_student(onnx_file), load_student(exported, device='cpu')):
        out = tmp_path / type(student).__name__
        result = predict(student, tmp_path / 'in', out, 0.1)
        assert result.pictures + len(result.skipped) == 5 and result.instances >= 2
        assert not {'b.png', 'e.png'} & set(result.skipped)
        assert all('cannot be predicted on (' in reason for reason in result.skipped.values())


def test_what_decides_about_a_student_is_in_its_hash(trained, exported, onnx_file):
    first = load_student(trained.config, trained.checkpoint, 'cpu').sha256
    assert load_student(trained.config, trained.checkpoint, 'cpu').sha256 == first
    others = {load_student(exported, device='cpu').sha256, load_student(onnx_file).sha256}
    assert len({first, *others}) == 3


def test_what_is_no_model_is_named(trained, tmp_path):
    with pytest.raises(CASTError, match='a config needs --checkpoint'):
        load_student(trained.config)
    with pytest.raises(CASTError, match='student.py not found'):
        load_student(tmp_path)
    with pytest.raises(CASTError, match='none.pth not found'):
        load_student(trained.config, tmp_path / 'none.pth')
    with pytest.raises(CASTError, match="device 'tpu' is not known"):
        load_student(trained.config, trained.checkpoint, 'tpu')


def test_a_checkpoint_that_would_not_be_used_is_refused(tmp_path):
    for model in (tmp_path, tmp_path / 'student.onnx'):
        with pytest.raises(CASTError, match='a.pth would not be used; leave --checkpoint out'):
            load_student(model, 'a.pth')


@pytest.mark.parametrize('threshold', [float('nan'), 30.0])
def test_a_threshold_that_no_score_passes_is_refused(folder, tmp_path, threshold):
    with pytest.raises(CASTError, match=f'threshold {threshold}: give a number from 0 to 1'):
        predict(BrightPixels(), folder, tmp_path / 'out', threshold)
    assert not (tmp_path / 'out').exists()


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
