"""Videos: frames in, an overlay video and the JSON out; cut, trimmed, turned and uneven ones."""

import json
import os
import struct
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from bright_student import BrightPixels, write_onnx, write_video

from mmcast.deploy.pictures import VideoSource
from mmcast.deploy.prediction import predict
from mmcast.errors import CASTError


def read_json(folder):
    return json.loads((folder / 'predictions.json').read_text())


def cut(path, share):
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    return path


def edit_box(path, name, offset, content):
    """Overwrites bytes of a box of an mp4 file, counted from its name."""
    data = bytearray(path.read_bytes())
    start = data.index(name) + offset
    data[start : start + len(content)] = content
    path.write_bytes(data)


def test_a_video_becomes_a_video(tmp_path):
    result = predict(BrightPixels(), write_video(tmp_path / 'drive.avi', 5), tmp_path / 'out')
    assert result.pictures == result.instances == 5 and not result.finding
    images = read_json(tmp_path / 'out')['images']
    assert [image['file_name'] for image in images] == [f'drive/{i:06d}' for i in range(5)]
    assert [image['seconds'] for image in images] == [0, 0.1, 0.2, 0.3, 0.4]
    overlay = cv2.VideoCapture(str(tmp_path / 'out/overlay.mp4'))
    assert [overlay.read()[0] for _ in range(6)] == [True] * 5 + [False]
    assert overlay.get(cv2.CAP_PROP_FPS) == 10
    assert sorted(path.name for path in (tmp_path / 'out').iterdir()) == [
        'overlay.mp4',
        'predictions.json',
    ]


def test_a_video_without_frames_is_one_line(tmp_path):
    for name, content in (('no.mp4', b'no video'), ('empty.avi', b'')):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(CASTError, match=f'{name} cannot be opened as a video'):
            predict(BrightPixels(), tmp_path / name, tmp_path / 'out')
    with pytest.raises(CASTError, match='frames|opened'):
        predict(BrightPixels(), write_video(tmp_path / 'none.avi', 0), tmp_path / 'out')
    assert not list(tmp_path.glob('out/*'))


def test_half_a_video_is_a_finding(tmp_path):
    video = cut(write_video(tmp_path / 'drive.avi', 100), 0.5)
    result = predict(BrightPixels(), video, tmp_path / 'out')
    assert 30 < result.pictures < 60
    assert result.finding.startswith(f'drive.avi ended after {result.pictures} of 100 frames, ')
    told = read_json(tmp_path / 'out')['info']['video']
    assert (told['frames'], told['announced']) == (result.pictures, 100)
    again = predict(BrightPixels(), video, tmp_path / 'out')
    assert again.finished_before and again.finding == result.finding


def test_the_command_says_how_half_a_video_ended(tmp_path):
    video = cut(write_video(tmp_path / 'drive.avi', 100), 0.5)
    helper = Path(__file__).parents[1] / 'helpers/bright_student.py'
    arguments = [tmp_path / 'notes', 0, write_onnx(tmp_path / 'bright.onnx'), video]
    done = subprocess.run(
        [sys.executable, helper, *map(str, arguments), '--out', tmp_path / 'out'],
        env=dict(os.environ, PYTHONPATH=str(helper.parents[2])),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1 and 'instances on' in done.stdout
    last = done.stderr.splitlines()[-1]
    assert last.startswith('error: drive.avi ended after ') and 'could be read is in' in last


def test_a_trimmed_video_is_none(tmp_path):
    """Phones trim without touching the frames: the file has them, its edit list leaves them out."""
    video = write_video(tmp_path / 'trimmed.mp4', 100)
    edit_box(video, b'elst', 12, struct.pack('>I', 4000))  # milliseconds of ten seconds
    lines = []
    result = predict(BrightPixels(), video, tmp_path / 'out', show=lines.append)
    assert result.pictures < 50 and not result.finding
    assert any('of 100 frames' in line and 'may have been trimmed' in line for line in lines)


def test_a_turned_video_is_upright(tmp_path):
    video = write_video(tmp_path / 'phone.mp4', 2)
    quarter = struct.pack('>9i', 0, 1 << 16, 0, -1 << 16, 0, 0, 40 << 16, 0, 1 << 30)
    edit_box(video, b'tkhd', 44, quarter)
    predict(BrightPixels(), video, tmp_path / 'out')
    image = read_json(tmp_path / 'out')['images'][0]
    assert (image['height'], image['width']) == (60, 40)


@pytest.mark.parametrize(
    'announced, times, varies, short',
    [
        (100, [i / 10 for i in range(100)], False, False),
        (99, [i / 10 for i in range(100)], False, False),
        (100, [i / 10 for i in range(51)], False, True),
        (640, [0, 0.1, *np.arange(1, 63.9, 0.3)], True, False),  # an estimate: a second is ten
        (640, [0, 0.1, *np.arange(1, 20, 0.3)], True, True),
        (0, [i / 10 for i in range(51)], False, False),  # the container does not say
        (100, [0.0] * 100, False, False),  # nor does the reader tell times
        (100, [0.0] * 51, False, True),
    ],
)
def test_frames_are_compared_by_their_times(tmp_path, announced, times, varies, short):
    video = VideoSource(write_video(tmp_path / 'drive.avi', 1))
    video.announced, video.rate, video.count, video.times = announced, 10, len(times), times
    assert (video.varies, bool(video.finding)) == (varies, short)


def test_an_interrupted_video_resumes_at_its_frame(tmp_path):
    video, seen = write_video(tmp_path / 'drive.avi', 8), []

    class Interrupted(BrightPixels):
        def __call__(self, image, score_threshold=None):
            column = int(np.flatnonzero(image[15].min(1) > 200)[0])
            if (column, 'interrupted') not in seen and column == 10:
                seen.append((column, 'interrupted'))
                raise KeyboardInterrupt
            seen.append(column)
            return super().__call__(image, score_threshold)

    with pytest.raises(KeyboardInterrupt, match='5 of 8 pictures are done and kept'):
        predict(Interrupted(), video, tmp_path / 'out')
    assert [path.name for path in (tmp_path / 'out').iterdir()] == ['predictions.json.shards']
    predict(Interrupted(), video, tmp_path / 'out')
    assert seen == [5, 6, 7, 8, 9, (10, 'interrupted'), 10, 11, 12]
    predict(Interrupted(), video, tmp_path / 'whole')
    for name in ('predictions.json', 'overlay.mp4'):
        assert (tmp_path / 'out' / name).read_bytes() == (tmp_path / 'whole' / name).read_bytes()


def test_an_overlay_video_that_the_disk_does_not_take_is_named(tmp_path, monkeypatch):
    """The writer tells nobody of a full disk; here, OpenCV cannot write at all."""
    video = write_video(tmp_path / 'drive.avi', 3)
    (tmp_path / 'out').mkdir()
    monkeypatch.setattr(cv2, 'VideoWriter_fourcc', lambda *letters: 0x20202020)
    with pytest.raises(CASTError, match=r'cannot write .*overlay\.mp4; all predictions are kept'):
        predict(BrightPixels(), video, tmp_path / 'out')
    monkeypatch.undo()
    assert predict(BrightPixels(), video, tmp_path / 'out').pictures == 3
