"""Masks for an image, a folder of images or a video; few pictures are in memory at a time.

What is finished is appended to shards beside the output, as pseudo-labels are, so that a run that
was stopped at any moment resumes.
"""

import contextlib
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from mmcast.deploy.inputs import check_score_threshold
from mmcast.deploy.instances import Instances
from mmcast.deploy.onnx_student import OnnxStudent
from mmcast.deploy.overlay_files import OverlayVideo, draw_predictions, write_overlay_video
from mmcast.deploy.pictures import Picture, VideoSource, open_source
from mmcast.deploy.prediction_job import (
    KIND,
    OVERLAY_VIDEO,
    PredictionJob,
    Result,
    hold_folder,
)
from mmcast.deploy.side_threads import WorkBehind, fetch_ahead
from mmcast.devices import check_device
from mmcast.errors import CASTError, is_of_machine, reason_of
from mmcast.files import prepare_out_dir, replace_durably, sha256_of_file, sha256_of_json
from mmcast.masks.cropped import CroppedMasks
from mmcast.optional import require
from mmcast.pseudo_labels.shards import ShardIndex, ShardWriter
from mmcast.pseudo_labels.store import write_store
from mmcast.version import __version__

Student = Callable[[np.ndarray, float | None], Instances]
_LONGEST_REASON = 300  # characters


def load_student(
    model: str | os.PathLike, checkpoint: str | os.PathLike | None = None, device: str | None = None
) -> Student:
    """A student that is called with an RGB image (H, W, 3) of uint8, and a score threshold if need
    be.

        student = load_student('student.onnx')
        found = student(image)
        found.masks, found.scores, [student.classes[label] for label in found.labels]

    Args:
        model: an ONNX file; the folder of an exported student; or a config, with its
            ``checkpoint``.
        checkpoint: weights of that config.
        device: such as ``cuda:1``, by default the accelerator if there is one.

    Raises:
        CASTError: a path is wrong, a file is damaged or does not fit the other, the checkpoint
            would not be used, or torch or onnxruntime does not have the device.
    """
    path = Path(model)
    if checkpoint is not None and (path.suffix == '.onnx' or path.is_dir()):
        raise CASTError(
            f'{model} has weights of its own, so that {checkpoint} would not be used; leave '
            '--checkpoint out, or give a config'
        )
    if path.suffix == '.onnx':
        student = OnnxStudent(path, providers=_providers(device))
        student.sha256 = sha256_of_file(path)
        return student
    from mmcast.configs import load_config  # all three import torch and mmdet
    from mmcast.deploy.torch_student import TorchStudent
    from mmcast.pseudo_labels.generate import config_hash

    if path.is_dir():
        config, weights = path / 'student.py', path / 'student.pth'
    elif checkpoint is not None:
        config, weights = path, Path(checkpoint)
    else:
        raise CASTError(
            f'{model} is neither an ONNX file nor the folder of an exported student; a config '
            'needs --checkpoint'
        )
    check_device(device)
    student = TorchStudent(config, weights, device)
    student.sha256 = sha256_of_json([config_hash(load_config(config)), sha256_of_file(weights)])
    return student


def _providers(device: str | None) -> list[str | tuple[str, dict]] | None:
    """onnxruntime's execution providers for a device as torch names it; None for all that are
    installed.
    """
    if device is None:
        return None
    kind, _, number = device.partition(':')
    if kind == 'cpu':
        return ['CPUExecutionProvider']
    installed = require('onnxruntime').get_available_providers()
    if kind != 'cuda' or 'CUDAExecutionProvider' not in installed:
        raise CASTError(
            f'onnxruntime here has no device {device!r}, it has {", ".join(installed)}; leave '
            '--device out, or install onnxruntime-gpu for cuda'
        )
    options = dict(device_id=number or '0')
    return [('CUDAExecutionProvider', options), 'CPUExecutionProvider']


def predict(
    student: Student,
    source: str | os.PathLike,
    out_dir: str | os.PathLike,
    score_threshold: float | None = None,
    overlays: bool = True,
    force: bool = False,
    show: Callable[[str], None] | None = None,
) -> Result:
    """Segment all pictures of a source; write overlays and one COCO JSON.

    Stopped at any moment, the next call resumes: a picture is done when its overlay and its
    predictions are on the disk. ``predictions.json`` appears whole, when all are. A finished one of
    the same student, threshold and pictures is left alone.

    Args:
        student: see :func:`load_student`.
        source: an image; a folder, searched with its subfolders; or a video.
        out_dir: gets ``predictions.json`` (images, categories, annotations with RLE masks and
            ``score``, and, as ``unreadable``, the pictures that could not be used) and the
            overlays, ``overlays/NAME.jpg`` or ``overlay.mp4``.
        score_threshold: by default the student's own.
        overlays: whether to draw.
        force: move other results aside, to ``NAME.old1`` and so on, and finished ones too.
        show: is told of progress and of pictures that cannot be used, which are skipped.

    Raises:
        CASTError: the threshold, the source or a folder is wrong, results of other things exist,
            another process writes there, the disk or the memory is full, or not a single picture
            could be used.
        KeyboardInterrupt: with a message that says how many pictures are done.
    """
    for package in ('cv2', 'pycocotools.mask'):
        require(package)
    out_dir = Path(out_dir)
    pictures = open_source(Path(source), out_dir, getattr(student, 'value_range', None))
    if score_threshold is None:
        score_threshold = getattr(student, 'score_threshold', None)
    else:
        check_score_threshold(score_threshold)
    job = PredictionJob(
        Path(source),
        prepare_out_dir(out_dir, (), force),
        pictures,
        list(student.classes),
        dict(
            kind=KIND,
            mmcast=__version__,
            student=getattr(student, 'sha256', type(student).__qualname__),
            score_threshold=score_threshold,
            overlays=bool(overlays),
            images=pictures.hash,
        ),
    )
    show = show or (lambda line: None)
    for remark in pictures.remarks:
        show(f'{source}: {remark}')
    with hold_folder(out_dir):
        return job.begin(force) or _run(job, student, show)


# ---- predicting


def _run(job: PredictionJob, student: Student, show: Callable[[str], None]) -> Result:
    """Predicts on what is not done yet, and writes the results when all is."""
    done = job.done()
    progress = Progress(job.pictures.total, show, int(done.sum()))
    if progress.done:
        show(f'{progress.done} pictures are done already')
    try:
        overlay = _overlay_beside(job, progress)
        with contextlib.ExitStack() as stack:
            writer = ShardWriter(job.folder / 'shard_0000.jsonl', job.identity)
            recorder = _Recorder(job, stack.enter_context(writer), progress, overlay)
            if overlay:
                stack.enter_context(overlay)
            behind = stack.enter_context(WorkBehind(job.pictures.ahead))
            frames = fetch_ahead(job.pictures.read(done), job.pictures.ahead)
            for place, picture in stack.enter_context(contextlib.closing(frames)):
                behind.add(recorder.record, place, picture, _predict_one(job, student, picture))
        return _finish(job, show, overlay)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f'{progress.state}; the same command resumes') from None
    except _MachineError as error:
        raise CASTError(
            f'{error}; {progress.state}: free memory, choose another --device or make the picture '
            'smaller, and give the same command again'
        ) from error.__cause__
    except OSError as error:
        raise CASTError(
            f'cannot write to {error.filename2 or error.filename or job.folder} '
            f'({error.strerror}); {progress.state}: make room and give the same command again'
        ) from error


def _overlay_beside(job: PredictionJob, progress: 'Progress') -> OverlayVideo | None:
    """The overlay of a video that can be drawn while the network predicts: no frame is done yet,
    and its rate is known.
    """
    video = job.pictures
    if not isinstance(video, VideoSource) or not job.identity['overlays']:
        return None
    if progress.done or not video.rate or (job.out_dir / OVERLAY_VIDEO).exists():
        return None
    return OverlayVideo(job.folder / OVERLAY_VIDEO, video.rate)


class _MachineError(CASTError):
    """A picture that cannot be predicted on because memory or the accelerator is to blame."""


@contextlib.contextmanager
def _problems_of(picture: Picture) -> Iterator[None]:
    """Within the block, whatever goes wrong becomes the picture's ``problem``.

    Raises:
        _MachineError: the machine cannot go on.
    """
    try:
        yield
    except Exception as error:  # whatever transforms, a network's shapes or a runtime say
        reason = reason_of(error)[:_LONGEST_REASON]
        height, width = picture.pixels.shape[:2]
        if is_of_machine(error):
            raise _MachineError(
                f'{picture.name} ({width}x{height}) cannot be predicted on here ({reason})'
            ) from error
        picture.problem = f'of {width}x{height} pixels cannot be predicted on ({reason})'


def _predict_one(job: PredictionJob, student: Student, picture: Picture) -> Instances | None:
    """What a student finds; None where the picture has, or gets, a ``problem``."""
    found = None
    if picture.pixels is not None:
        with _problems_of(picture):
            found = student(picture.pixels, job.identity['score_threshold'])
    return found


class _Recorder:
    """Draws what was found and writes it down; then a picture counts as done.

    Args:
        job: of the pictures.
        writer: of records.
        progress: is told.
        overlay: of a video, if it is drawn now.
    """

    def __init__(
        self,
        job: PredictionJob,
        writer: ShardWriter,
        progress: 'Progress',
        overlay: OverlayVideo | None,
    ) -> None:
        self.job, self.writer, self.progress, self.overlay = job, writer, progress, overlay

    def record(self, place: int, picture: Picture, found: Instances | None) -> None:
        """One picture; whatever went wrong with it is written too.

        Args:
            place: its index.
            picture: the picture.
            found: what is on it; None where it has a ``problem``.
        """
        record = drawing = None
        if found is not None:
            with _problems_of(picture):
                record, drawing = self._describe(place, picture, found)
        if record is None:
            self.progress.show(f'skipped: {picture.name} {picture.problem}')
            image = dict(id=place + 1, file_name=picture.name)
            record = dict(unreadable=picture.problem, image=image)  # shards want this order
        elif self.job.overlays:
            path = self.job.overlays.write(picture.name, drawing)
            if path != f'{picture.name}.jpg':
                record['image']['overlay'] = f'overlays/{path}'
        if self.overlay and picture.pixels is not None:
            self.overlay.add(picture.pixels if drawing is None else drawing)
        self.writer.write(place, record)  # now it counts as done
        self.progress.step()

    def _describe(
        self, place: int, picture: Picture, found: Instances
    ) -> tuple[dict, np.ndarray | None]:
        """What is written about a picture, and its overlay if it is to have one now."""
        drawing = None
        if self.job.overlays or self.overlay:
            drawing = draw_predictions(picture.pixels, found, self.job.classes)
        return _to_record(place, picture, found), drawing


def _to_record(place: int, picture: Picture, found: Instances) -> dict:
    """COCO's entries for a picture and its instances, whose ids come later."""
    height, width = picture.pixels.shape[:2]
    image = dict(id=place + 1, file_name=picture.name, height=height, width=width)
    if picture.seconds is not None:
        image['seconds'] = round(picture.seconds, 3)
    return dict(image=image, annotations=_to_annotations(found))


def _to_annotations(found: Instances) -> list[dict]:
    """COCO annotations of the instances with any pixel."""
    from mmcast.masks.rle import encode_crop  # OpenCV may be missing

    masks = found.cropped
    return [
        dict(
            category_id=int(label) + 1,
            segmentation=encode_crop(crop, corner, masks.size),
            score=round(float(score), 6),
            bbox=[x1, y1, x2 - x1, y2 - y1],
            area=int(np.count_nonzero(crop)),
            iscrowd=0,
        )
        for (x1, y1, x2, y2), crop, corner, score, label in zip(
            found.boxes.tolist(), masks.crops, masks.corners.tolist(), found.scores, found.labels
        )
        if crop.size
    ]


def _to_instances(record: dict) -> Instances | None:
    """The instances of a record, to draw them; boxes are left out."""
    if 'unreadable' in record:
        return None
    decode = require('pycocotools.mask').decode
    annotations, image = record['annotations'], record['image']
    size = image['height'], image['width']
    masks = (decode(annotation['segmentation']).view(bool) for annotation in annotations)
    return Instances(
        np.zeros((len(annotations), 4), np.float32),
        CroppedMasks.of(masks, size).copy_to((0, 0), size),
        np.array([annotation['score'] for annotation in annotations], np.float32),
        np.array([annotation['category_id'] - 1 for annotation in annotations], np.int64),
    )


# ---- results


def _finish(
    job: PredictionJob, show: Callable[[str], None], overlay: OverlayVideo | None
) -> Result:
    """The shards become the results, each of which appears whole or not at all."""
    records, video = job.records(), None
    result = _summarise(records)
    if not result.pictures:
        shutil.rmtree(job.folder)
        name, problem = next(iter(result.skipped.items()), ('it', 'has no frames'))
        raise CASTError(
            f'{job.source}: no picture in it can be used ({name} {problem}); nothing was written'
        )
    if isinstance(job.pictures, VideoSource):
        video = job.pictures.describe()
        result.finding = video['finding']
        _tell_of_video(job.pictures, show)
        if job.identity['overlays']:
            _finish_overlay(job, job.pictures, overlay, records, show)
    info = dict(job.info, pictures=result.pictures, instances=result.instances)
    categories = [dict(id=number, name=name) for number, name in enumerate(job.classes, start=1)]
    merged = job.folder / 'merged.json'
    write_store(merged, dict(info, video=video) if video else info, categories, records)
    os.replace(merged, job.out_file)
    shutil.rmtree(job.folder, ignore_errors=True)
    return result


def _finish_overlay(
    job: PredictionJob,
    video: VideoSource,
    overlay: OverlayVideo | None,
    records: ShardIndex,
    show: Callable[[str], None],
) -> None:
    """The overlay video that was drawn meanwhile gets its name, or one is drawn now."""
    overlay_file, drawn = job.out_dir / OVERLAY_VIDEO, job.folder / OVERLAY_VIDEO
    if overlay_file.exists():  # it is of this job: an earlier call was stopped after it
        return
    if overlay and overlay.rate == video.overlay_rate:
        overlay.check()
    else:
        show(f'drawing {OVERLAY_VIDEO}')
        write_overlay_video(drawn, video, map(_to_instances, records), job.classes)
    replace_durably(drawn, overlay_file)


def _summarise(records: ShardIndex) -> Result:
    result = Result()
    for record in records:
        if 'unreadable' in record:
            result.skipped[record['image']['file_name']] = record['unreadable']
        else:
            result.pictures += 1
            result.instances += len(record['annotations'])
    return result


def _tell_of_video(video: VideoSource, show: Callable[[str], None]) -> None:
    """Says what a person who looks at the overlay would not guess."""
    if video.shortfall and not video.finding:
        show(f'note: {video.shortfall}; the file is whole, so it may have been trimmed')
    if video.varies:
        show(
            f'note: the frames of {video.path.name} are not evenly spaced (a variable frame rate, '
            'or frames that cannot be decoded); predictions.json has the "seconds" of each, '
            f'overlay.mp4 {video.real_rate:.1f} per second'
        )


class Progress:
    """Tells every two seconds how many pictures are done and how long the rest will take.

    Args:
        total: of pictures; None if not known.
        show: is told.
        done: of pictures, by an earlier run.
    """

    def __init__(self, total: int | None, show: Callable[[str], None], done: int = 0) -> None:
        self.total, self.show, self.done, self.before = total, show, done, done
        self.begin = self.told = time.monotonic()

    @property
    def state(self) -> str:
        """How many are done, in words."""
        return f'{self.done}{f" of {self.total}" if self.total else ""} pictures are done and kept'

    def step(self) -> None:
        """One picture more is done."""
        self.done += 1
        now = time.monotonic()
        if now - self.told < 2:
            return
        self.told, rate = now, (self.done - self.before) / (now - self.begin)
        left = ''
        if self.total:
            left = f' of {self.total}, about {max(0, self.total - self.done) / rate:.0f} s left'
        self.show(f'{self.done}{left} ({rate:.1f} per second)')
