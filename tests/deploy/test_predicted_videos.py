"""Videos: frames in, an overlay video and the JSON out; cut, trimmed, turned and uneven ones."""

import json
import os
import struct
import subprocess
import sys
import threading
import time
import weakref
from pathlib import Path

import cv2
import numpy as np
import pytest
from bright_student import BrightPixels, write_onnx, write_video

from mmcast.deploy import prediction
from mmcast.deploy.overlay_files import OverlayVideo
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


def test_frames_are_drawn_beside_the_network_and_in_order(tmp_path, monkeypatch):
    """Slow drawing and a fast network, and no second pass over the video."""
    video, lines = write_video(tmp_path / 'drive.avi', 12), []
    draw, threads = prediction.draw_predictions, set()

    def slow(image, found, classes):
        threads.add(threading.current_thread())
        time.sleep(0.01)
        return draw(image, found, classes)

    monkeypatch.setattr(prediction, 'draw_predictions', slow)
    predict(BrightPixels(), video, tmp_path / 'out', show=lines.append)
    assert threading.main_thread() not in threads and 'drawing overlay.mp4' not in lines
    boxes = [annotation['bbox'] for annotation in read_json(tmp_path / 'out')['annotations']]
    assert boxes == [[5 + number, 10, 8, 10] for number in range(12)]
    overlay = cv2.VideoCapture(str(tmp_path / 'out/overlay.mp4'))
    for number in range(12):
        there, frame = overlay.read()
        left = int(np.argmax(frame[18].max(1) > 100))
        assert there and abs(left - 5 - number) <= 2
    assert not overlay.read()[0]


def test_few_frames_are_in_memory(tmp_path):
    video, alive, most = write_video(tmp_path / 'drive.avi', 40), [], []

    class Watching(BrightPixels):
        def __call__(self, image, score_threshold=None):
            most.append(sum(frame() is not None for frame in alive))
            return super().__call__(image, score_threshold)

    read = VideoSource.read

    def followed(source, done):
        for number, picture in read(source, done):
            alive.append(weakref.ref(picture))
            yield number, picture

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(VideoSource, 'read', followed)
        predict(Watching(), video, tmp_path / 'out')
    assert len(most) == 40 and max(most) <= 2 * VideoSource.ahead + 4


def test_a_frame_that_cannot_be_drawn_is_reported_and_the_others_stay(tmp_path, monkeypatch):
    draw, lines, calls = prediction.draw_predictions, [], []

    def stumbling(image, found, classes):
        calls.append(1)
        if len(calls) == 3:
            raise ZeroDivisionError('no colour')
        return draw(image, found, classes)

    monkeypatch.setattr(prediction, 'draw_predictions', stumbling)
    video = write_video(tmp_path / 'drive.avi', 6)
    result = predict(BrightPixels(), video, tmp_path / 'out', show=lines.append)
    reason = 'of 60x40 pixels cannot be predicted on (ZeroDivisionError: no colour)'
    assert result.skipped == {'drive/000002': reason} and f'skipped: drive/000002 {reason}' in lines
    overlay = cv2.VideoCapture(str(tmp_path / 'out/overlay.mp4'))
    assert [overlay.read()[0] for _ in range(7)] == [True] * 6 + [False]


@pytest.mark.parametrize(
    'error, message',
    [
        (
            MemoryError(),
            r'drive/00000\d \(60x40\) cannot .*; [2-9] of 20 pictures are done and kept',
        ),
        (OSError(28, 'No space left on device', 'overlay'), r'cannot write to overlay \(No space'),
    ],
)
def test_what_stops_the_writer_is_one_line_and_a_later_call_resumes(
    tmp_path, monkeypatch, error, message
):
    video, calls, add = write_video(tmp_path / 'drive.avi', 20), [], OverlayVideo.add
    draw = prediction.draw_predictions

    def failing(function):
        def call(*arguments):
            calls.append(1)
            if len(calls) == 3:
                raise error
            return function(*arguments)

        return call

    with monkeypatch.context() as patch:
        if isinstance(error, MemoryError):
            patch.setattr(prediction, 'draw_predictions', failing(draw))
        else:
            patch.setattr(OverlayVideo, 'add', failing(add))
        with pytest.raises(CASTError, match=message) as raised:
            predict(BrightPixels(), video, tmp_path / 'out')
    assert '\n' not in str(raised.value)
    left = sorted(path.name for path in tmp_path.glob('out/**/*') if path.is_file())
    assert left == ['job.json', 'shard_0000.jsonl']  # no half-written overlay
    assert predict(BrightPixels(), video, tmp_path / 'out').pictures == 20
    predict(BrightPixels(), video, tmp_path / 'whole')
    for name in ('predictions.json', 'overlay.mp4'):
        assert (tmp_path / 'out' / name).read_bytes() == (tmp_path / 'whole' / name).read_bytes()


def test_an_error_of_the_reader_is_one_line(tmp_path, monkeypatch):
    video = write_video(tmp_path / 'drive.avi', 9)
    convert, calls = cv2.cvtColor, []

    def failing(image, code):
        calls.append(1)
        if len(calls) == 5 and code == cv2.COLOR_BGR2RGB:
            raise cv2.error('Insufficient memory')
        return convert(image, code)

    with monkeypatch.context() as patch:
        patch.setattr(cv2, 'cvtColor', failing)
        with pytest.raises(
            CASTError, match=r'drive/00000\d cannot be decoded here \(error: Insuff'
        ):
            predict(BrightPixels(), video, tmp_path / 'out', overlays=False)
    assert predict(BrightPixels(), video, tmp_path / 'out', overlays=False).pictures == 9


@pytest.mark.parametrize(
    'rate, times, expected',
    [
        (30, [i / 30 for i in range(100)], 30),
        (30, [i / 30.001 for i in range(100)], 30),  # less than half a frame in 100
        (30, [i / 29 for i in range(100)], 29),
        (0, [i / 12 for i in range(100)], 12),
        (25, [0.0] * 10, 25),
    ],
)
def test_an_overlay_has_the_containers_rate_where_it_is_the_real_one(
    tmp_path, rate, times, expected
):
    video = VideoSource(write_video(tmp_path / 'drive.avi', 1))
    video.rate, video.count, video.times = rate, len(times), times
    assert video.overlay_rate == pytest.approx(expected, abs=1e-9 if expected == rate else 1e-3)


def test_an_overlay_at_another_rate_is_drawn_when_that_is_known(tmp_path, monkeypatch):
    video, lines = write_video(tmp_path / 'drive.avi', 5), []
    monkeypatch.setattr(VideoSource, 'real_rate', property(lambda self: 5.0))
    predict(BrightPixels(), video, tmp_path / 'out', show=lines.append)
    assert 'drawing overlay.mp4' in lines
    overlay = cv2.VideoCapture(str(tmp_path / 'out/overlay.mp4'))
    assert overlay.get(cv2.CAP_PROP_FPS) == 5 and overlay.get(cv2.CAP_PROP_FRAME_COUNT) == 5
