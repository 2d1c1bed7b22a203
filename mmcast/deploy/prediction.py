"""Masks for an image, a folder of images or a video; one picture is in memory at a time.

What is finished is appended to shards beside the output, as pseudo-labels are, so that a run that
was stopped at any moment resumes.
"""

import contextlib
import itertools
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mmcast.deploy.instances import Instances
from mmcast.deploy.onnx_student import OnnxStudent
from mmcast.deploy.optional import require
from mmcast.deploy.overlay_files import ImageOverlays, draw_predictions, write_overlay_video
from mmcast.deploy.pictures import ImageSource, Picture, VideoSource, hash_of, open_source
from mmcast.errors import CASTError, is_of_machine, reason_of
from mmcast.files import move_aside, prepare_out_dir, sha256_of_file, write_atomically
from mmcast.locks import hold_lock
from mmcast.pseudo_labels.shards import ShardIndex, ShardWriter
from mmcast.pseudo_labels.store import write_store
from mmcast.version import __version__

Student = Callable[[np.ndarray, float | None], Instances]

KIND = 'mmcast predictions'
_LONGEST_REASON = 300  # characters
_LONGEST_HEADER = 100_000  # characters
_IN_USE = (
    '{folder} is being written by process {owner}; wait until it ends, or choose another --out'
)
# The names of what decides about the predictions, as messages have them.
_IDENTITY = dict(
    mmcast='version of mmcast',
    student='student',
    score_threshold='score threshold',
    overlays='choice of overlays',
    images='list of images',
    image_sizes='content of images',
)


@dataclass
class Result:
    """What :func:`predict` did, earlier calls that were interrupted included.

    Attributes:
        pictures: number of pictures predicted on.
        instances: number of instances found.
        skipped: the pictures that could not be used, and why.
        finding: what is wrong with the source as a whole: a video that was cut short.
        finished_before: whether an earlier call had finished.
    """

    pictures: int = 0
    instances: int = 0
    skipped: dict[str, str] = field(default_factory=dict)
    finding: str = ''
    finished_before: bool = False


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
        device: for torch, by default the accelerator if there is one. onnxruntime takes the
            providers installed.

    Raises:
        CASTError: a path is wrong, or a file is damaged or does not fit the other.
    """
    path = Path(model)
    if path.suffix == '.onnx':
        student = OnnxStudent(path)
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
    student = TorchStudent(config, weights, device)
    student.sha256 = hash_of([config_hash(load_config(config)), sha256_of_file(weights)])
    return student


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
        CASTError: the source or a folder is wrong, results of other things exist, another process
            writes there, the disk or the memory is full, or not a single picture could be used.
        KeyboardInterrupt: with a message that says how many pictures are done.
    """
    for package in ('cv2', 'pycocotools.mask'):
        require(package)
    out_dir = Path(out_dir)
    pictures = open_source(Path(source), out_dir, getattr(student, 'value_range', None))
    if score_threshold is None:
        score_threshold = getattr(student, 'score_threshold', None)
    job = _Job(
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
    with _only_here(out_dir):
        return job.begin(force) or _run(job, student, show)


@contextlib.contextmanager
def _only_here(out_dir: Path) -> Iterator[None]:
    """Keeps other processes from writing to the folder."""
    lock = out_dir / '.lock'
    with hold_lock(lock, _IN_USE.replace('{folder}', str(out_dir))):
        try:
            yield
        finally:
            if os.name != 'nt':  # which removes nothing that is open
                lock.unlink(missing_ok=True)


@dataclass
class _Job:
    """What is to be done and where; the folder of what is not finished."""

    source: Path
    out_dir: Path
    pictures: ImageSource | VideoSource
    classes: list[str]
    identity: dict[str, Any]

    def __post_init__(self) -> None:
        self.out_file = self.out_dir / 'predictions.json'
        self.folder = self.out_dir / 'predictions.json.shards'
        self.begun = self.folder / 'job.json'  # is written first
        self.overlays = None
        if self.identity['overlays'] and isinstance(self.pictures, ImageSource):
            self.overlays = ImageOverlays(
                self.out_dir / 'overlays', self.folder / 'overlay', self.pictures.names
            )

    @property
    def info(self) -> dict:
        """The header of the finished file."""
        return dict(self.identity, image_sizes=hash_of(self.pictures.sizes))

    def begin(self, force: bool) -> Result | None:
        """The result of a finished run of the same things, or None where there is work to do.

        Raises:
            CASTError: other things are there, and may not be moved aside.
        """
        if self.out_file.exists():
            _refuse(self.out_file, _difference(read_info(self.out_file), self.info), force)
            if not force:
                shutil.rmtree(self.folder, ignore_errors=True)  # a kill may have left it
                return read_result(self.out_file)
        elif self.begun.exists():
            difference = self._difference_from_begun()
            _refuse(self.folder, difference, force)
            if not difference:
                return None
        self._make_way(force)
        try:
            write_atomically(
                self.begun, json.dumps(dict(self.identity, image_sizes=self.pictures.sizes))
            )
        except OSError as error:
            raise CASTError(
                f'cannot write to {self.folder} ({error.strerror}); make room or choose another '
                '--out'
            ) from error
        return None

    def _difference_from_begun(self) -> str:
        """What an unfinished run has differently. An image that is not done yet may have been
        replaced by another one since.
        """
        try:
            begun = json.loads(self.begun.read_text(encoding='utf-8'))
        except ValueError:
            return 'is damaged'
        sizes = np.array(begun.get('image_sizes'))
        if difference := _difference(begun, self.identity):
            return difference
        changed = np.flatnonzero(sizes != np.array(self.pictures.sizes)).tolist()
        done = self.done() if changed else []
        for place in changed:
            if place < len(done) and done[place]:
                return f'has predictions of {self.pictures.names[place]}, which has changed since'
        return ''

    def _make_way(self, force: bool) -> None:
        """Moves aside what stands where the results come to."""
        if not self.begun.exists():  # killed before it had begun
            shutil.rmtree(self.folder, ignore_errors=True)
        for name in (self.out_file.name, self.folder.name, 'overlays', 'overlay.mp4'):
            path = self.out_dir / name
            if path.is_dir() and not any(path.iterdir()):
                continue
            if path.exists() and not force:
                raise CASTError(
                    f'{path} exists: delete it, choose another --out or use --force, which moves '
                    'it aside'
                )
            move_aside(path)

    def done(self) -> np.ndarray:
        """Which pictures are done, (N,) of bool; frames of a video after these are not."""
        count = self.pictures.count
        if isinstance(self.pictures, VideoSource):  # whose frames are recorded in their order
            count = sum(path.read_bytes().count(b'\n') for path in self.folder.glob('shard*'))
        done = np.ones(count, bool)
        done[ShardIndex(self.folder, count, self.identity).unlabelled()] = False
        if self.overlays:
            for place in np.flatnonzero(done).tolist():
                done[place] = self.overlays.exists(self.pictures.names[place])
        return done

    def records(self) -> ShardIndex:
        """What was written about all pictures, once all were read.

        Raises:
            CASTError: some are missing.
        """
        index = ShardIndex(self.folder, self.pictures.count, self.identity)
        if missing := len(index.missing()):
            raise CASTError(
                f'{self.folder} lacks {missing} of {self.pictures.count} pictures; give the same '
                'command again to make them'
            )
        return index


def _difference(found: dict, wanted: dict) -> str:
    """In which of the things that decide about predictions two runs differ; empty if in none."""
    if found.get('kind') != KIND:
        return 'exists and is not of this version of mmcast predict'
    other = [key for key in _IDENTITY if key in wanted and found.get(key) != wanted[key]]
    if 'images' in other:
        other = [key for key in other if key != 'image_sizes']  # which then says nothing
    return f'was made with another {" and ".join(map(_IDENTITY.get, other))}' if other else ''


def _refuse(path: Path, difference: str, force: bool) -> None:
    if difference and not force:
        raise CASTError(
            f'{path} {difference}; choose another --out or use --force, which moves it aside'
        )


# ---- predicting


def _run(job: _Job, student: Student, show: Callable[[str], None]) -> Result:
    """Predicts on what is not done yet, and writes the results when all is."""
    done = job.done()
    progress = Progress(job.pictures.total, show, int(done.sum()))
    if progress.done:
        show(f'{progress.done} pictures are done already')
    try:
        with ShardWriter(job.folder / 'shard_0000.jsonl', job.identity) as writer:
            for place, picture in job.pictures.read(done):
                found = _predict_one(job, student, picture, progress)
                writer.write(place, _to_record(job, place, picture, found))
                progress.step()
        return _finish(job, show)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f'{progress.state}; the same command resumes') from None
    except OSError as error:
        raise CASTError(
            f'cannot write to {error.filename2 or error.filename or job.folder} '
            f'({error.strerror}); {progress.state}: make room and give the same command again'
        ) from error


def _predict_one(
    job: _Job, student: Student, picture: Picture, progress: 'Progress'
) -> Instances | None:
    """Instances of a picture; None, and a reason in ``picture.problem``, where it cannot be used.

    Raises:
        CASTError: the machine cannot go on.
    """
    found = None
    if picture.pixels is not None:
        try:
            found = student(picture.pixels, job.identity['score_threshold'])
        except Exception as error:  # whatever transforms, a network's shapes or a runtime say
            reason = reason_of(error)[:_LONGEST_REASON]
            height, width = picture.pixels.shape[:2]
            if is_of_machine(error):
                raise CASTError(
                    f'{picture.name} ({width}x{height}) cannot be predicted on here ({reason}); '
                    f'{progress.state}: free memory, choose another --device or make the picture '
                    'smaller, and give the same command again'
                ) from error
            picture.problem = f'of {width}x{height} pixels cannot be predicted on ({reason})'
    if found is None:
        progress.show(f'skipped: {picture.name} {picture.problem}')
    return found


def _to_record(job: _Job, place: int, picture: Picture, found: Instances | None) -> dict:
    """What is written about a picture; its overlay is written here, before that counts."""
    image: dict[str, Any] = dict(id=place + 1, file_name=picture.name)
    if found is None:
        return dict(unreadable=picture.problem, image=image)  # shards want this order
    height, width = picture.pixels.shape[:2]
    image.update(height=height, width=width)
    if picture.seconds is not None:
        image['seconds'] = round(picture.seconds, 3)
    if job.overlays:
        overlay = job.overlays.write(
            picture.name, draw_predictions(picture.pixels, found, job.classes)
        )
        if overlay != f'{picture.name}.jpg':
            image['overlay'] = f'overlays/{overlay}'
    return dict(image=image, annotations=_to_annotations(found))


def _to_annotations(found: Instances) -> list[dict]:
    """COCO annotations of the instances with any pixel."""
    from mmcast.masks.rle import encode_mask  # OpenCV may be missing

    return [
        dict(
            category_id=int(label) + 1,
            segmentation=encode_mask(mask),
            score=round(float(score), 6),
            bbox=[x1, y1, x2 - x1, y2 - y1],
            area=int(mask.sum()),
            iscrowd=0,
        )
        for (x1, y1, x2, y2), mask, score, label in zip(
            found.boxes.tolist(), found.masks, found.scores, found.labels
        )
        if mask.any()
    ]


def _to_instances(record: dict) -> Instances | None:
    """The instances of a record, to draw them; boxes are left out."""
    if 'unreadable' in record:
        return None
    decode = require('pycocotools.mask').decode
    annotations, image = record['annotations'], record['image']
    masks = [decode(annotation['segmentation']).astype(bool) for annotation in annotations]
    return Instances(
        np.zeros((len(masks), 4), np.float32),
        np.stack(masks) if masks else np.zeros((0, image['height'], image['width']), bool),
        np.array([annotation['score'] for annotation in annotations], np.float32),
        np.array([annotation['category_id'] - 1 for annotation in annotations], np.int64),
    )


# ---- results


def _finish(job: _Job, show: Callable[[str], None]) -> Result:
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
            show('drawing overlay.mp4')
            drawn = job.folder / 'overlay.mp4'
            write_overlay_video(drawn, job.pictures, map(_to_instances, records), job.classes)
            os.replace(drawn, job.out_dir / drawn.name)
    info = dict(job.info, pictures=result.pictures, instances=result.instances)
    categories = [dict(id=number, name=name) for number, name in enumerate(job.classes, start=1)]
    merged = job.folder / 'merged.json'
    write_store(merged, dict(info, video=video) if video else info, categories, records)
    os.replace(merged, job.out_file)
    shutil.rmtree(job.folder, ignore_errors=True)
    return result


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


def read_info(path: Path) -> dict:
    """The header of a finished file; empty if it has none."""
    with path.open(encoding='utf-8', errors='replace') as file:
        line = file.readline(_LONGEST_HEADER)
    try:
        info = json.loads(line.removeprefix('{"info": ').removesuffix(',\n'))
    except ValueError:
        return {}
    return info if isinstance(info, dict) else {}


def read_result(path: Path) -> Result:
    """What an earlier run did, by its finished file, of which one line is in memory at a time."""
    info = read_info(path)
    with path.open(encoding='utf-8') as file:
        rest = itertools.dropwhile(lambda line: not line.startswith('"unreadable"'), file)
        lines = itertools.takewhile(lambda line: not line.startswith('"annotations"'), rest)
        skipped = json.loads(f'{{{"".join(lines).rstrip().removesuffix(",")}}}')['unreadable']
    return Result(
        info['pictures'],
        info['instances'],
        {image['file_name']: image['reason'] for image in skipped},
        info.get('video', {}).get('finding', ''),
        finished_before=True,
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
