"""Masks for an image, a folder of images or a video; one picture is in memory at a time."""

import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from mmcast.deploy.instances import Instances
from mmcast.deploy.onnx_student import OnnxStudent
from mmcast.deploy.optional import require
from mmcast.errors import CASTError
from mmcast.files import prepare_out_dir, write_atomically
from mmcast.images import IMAGE_SUFFIXES, image_files

VIDEO_SUFFIXES = ('.avi', '.m4v', '.mkv', '.mov', '.mp4', '.mpg', '.webm')


@dataclass
class Picture:
    """A picture of the source: its name, and its pixels, RGB (H, W, 3) of uint8, or why there are
    none.
    """

    name: str
    pixels: np.ndarray | None = None
    problem: str = ''


@dataclass
class Result:
    """What :func:`predict` did."""

    pictures: int = 0
    instances: int = 0
    skipped: list[str] = field(default_factory=list)


def load_student(
    model: str | os.PathLike, checkpoint: str | os.PathLike | None = None, device: str | None = None
) -> Callable[[np.ndarray, float | None], Instances]:
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
        return OnnxStudent(path)
    from mmcast.deploy.torch_student import TorchStudent  # imports torch and mmdet

    if path.is_dir():
        return TorchStudent(path / 'student.py', path / 'student.pth', device)
    if checkpoint is None:
        raise CASTError(
            f'{model} is neither an ONNX file nor the folder of an exported student; a config '
            'needs --checkpoint'
        )
    return TorchStudent(path, Path(checkpoint), device)


def predict(
    student: Callable[[np.ndarray, float | None], Instances],
    source: str | os.PathLike,
    out_dir: str | os.PathLike,
    score_threshold: float | None = None,
    overlays: bool = True,
    force: bool = False,
    show: Callable[[str], None] | None = None,
) -> Result:
    """Segment all pictures of a source; write overlays and one COCO JSON.

    Args:
        student: see :func:`load_student`.
        source: an image; a folder, searched with its subfolders; or a video.
        out_dir: gets ``predictions.json`` (images, categories, and annotations with RLE masks and
            ``score``) and the overlays, ``overlays/NAME.jpg`` or ``overlay.mp4``.
        score_threshold: by default the student's own.
        overlays: whether to draw.
        force: replace earlier results.
        show: is told of progress and of files that cannot be read, which are skipped.

    Raises:
        CASTError: the source or a folder is wrong, results exist, or not a single picture could be
            read.
    """
    source, out_dir = Path(source), Path(out_dir)
    pictures, total = open_source(source)
    json_file = prepare_out_dir(out_dir, ('predictions.json',), force) / 'predictions.json'
    is_video = source.suffix.lower() in VIDEO_SUFFIXES
    drawing = (
        VideoWriter(out_dir / 'overlay.mp4', source)
        if is_video
        else ImageWriter(out_dir / 'overlays')
    )
    result, show = Result(), show or (lambda line: None)
    progress = Progress(total, show)
    with CocoWriter(json_file, student.classes) as labels, drawing:
        for picture in pictures:
            if picture.pixels is None:
                result.skipped.append(picture.name)
                show(f'skipped: {picture.name} {picture.problem}')
                continue
            found = student(picture.pixels, score_threshold)
            labels.write(picture, found)
            if overlays:
                drawing.write(
                    picture.name, draw_predictions(picture.pixels, found, student.classes)
                )
            result.pictures += 1
            result.instances += len(found)
            progress.step()
        if not result.pictures:
            raise CASTError(
                f'{source}: '
                f'{"a video without frames" if is_video else "no picture in it can be read"}; '
                'nothing was written'
            )
    return result


# ---- reading


def open_source(source: Path) -> tuple[Iterator[Picture], int | None]:
    """The pictures of an image, folder or video, read one by one, and how many there are, None if
    not known.

    Raises:
        CASTError: it does not exist, or has nothing that could be a picture.
    """
    if source.is_dir():
        paths = image_files(source)
        if not paths:
            raise CASTError(
                f'{source} has no images ({", ".join(IMAGE_SUFFIXES)}); give another folder'
            )
        return (read_image(path, path.relative_to(source).as_posix()) for path in paths), len(paths)
    if not source.is_file():
        raise CASTError(f'{source} not found; give an image, a folder of images or a video')
    if source.suffix.lower() in VIDEO_SUFFIXES:
        return read_video(source)
    return iter([read_image(source, source.name)]), 1


def read_image(path: Path, name: str) -> Picture:
    """One image file; turned as EXIF says, as in training."""
    cv2 = require('cv2')
    try:
        data = np.frombuffer(path.read_bytes(), np.uint8)
        pixels = cv2.imdecode(data, cv2.IMREAD_COLOR) if data.size else None
    except (OSError, cv2.error) as error:
        return Picture(name, problem=f'cannot be read ({error})')
    if pixels is None:
        return Picture(name, problem='is not a readable image')
    return Picture(name, cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB))


def read_video(path: Path) -> tuple[Iterator[Picture], int | None]:
    """The frames of a video, called ``NAME/000000`` and so on.

    Raises:
        CASTError: OpenCV cannot open it.
    """
    os.environ.setdefault(
        'OPENCV_FFMPEG_LOGLEVEL', '-8'
    )  # it complains of a broken file in lines of its own
    cv2 = require('cv2')
    video = cv2.VideoCapture(str(path))
    if not video.isOpened():
        raise CASTError(
            f'{path} cannot be opened as a video; it may be damaged or of a kind that OpenCV does '
            'not read: convert it to mp4'
        )
    count = int(video.get(cv2.CAP_PROP_FRAME_COUNT))

    def frames() -> Iterator[Picture]:
        number = 0
        while True:
            there, frame = video.read()
            if not there:
                video.release()
                return
            yield Picture(f'{path.stem}/{number:06d}', cv2.cvtColor(frame, cv2.COLOR_BGR2RGB))
            number += 1

    return frames(), count if count > 0 else None


# ---- writing


class CocoWriter:
    """Streams predictions to a neighbour of the JSON file, which is put in place at the end."""

    def __init__(self, path: Path, classes: list[str]) -> None:
        self.path, self.mask_api = path, require('pycocotools.mask')
        self.categories = [
            dict(id=number, name=name) for number, name in enumerate(classes, start=1)
        ]
        self.partial = path.with_name(f'{path.name}.partial')
        self.images = self.annotations = 0

    def __enter__(self) -> 'CocoWriter':
        self.file = self.partial.open('w', encoding='utf-8')
        return self

    def write(self, picture: Picture, found: Instances) -> None:
        """Record one picture; masks without a pixel are left out."""
        height, width = picture.pixels.shape[:2]
        self.images += 1
        annotations = []
        for box, mask, score, label in zip(
            found.boxes.tolist(), found.masks, found.scores, found.labels
        ):
            if not mask.any():
                continue
            self.annotations += 1
            rle = self.mask_api.encode(np.asfortranarray(mask, dtype=np.uint8))
            rle = dict(size=rle['size'], counts=rle['counts'].decode())
            x1, y1, x2, y2 = box
            annotations.append(
                dict(
                    id=self.annotations,
                    image_id=self.images,
                    category_id=int(label) + 1,
                    segmentation=rle,
                    score=round(float(score), 6),
                    bbox=[x1, y1, x2 - x1, y2 - y1],
                    area=int(mask.sum()),
                    iscrowd=0,
                )
            )
        image = dict(id=self.images, file_name=picture.name, height=height, width=width)
        self.file.write(json.dumps([image, annotations]) + '\n')

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        self.file.close()
        if kind is None:
            with self.partial.open(encoding='utf-8') as file:
                lines = [json.loads(line) for line in file]
            write_atomically(
                self.path,
                json.dumps(
                    dict(
                        images=[image for image, _ in lines],
                        categories=self.categories,
                        annotations=[
                            annotation for _, annotations in lines for annotation in annotations
                        ],
                    )
                ),
            )
        self.partial.unlink()


class ImageWriter:
    """Overlays as one JPEG per image; subfolders stay."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __enter__(self) -> 'ImageWriter':
        return self

    def write(self, name: str, overlay: np.ndarray) -> None:
        cv2 = require('cv2')
        _, data = cv2.imencode('.jpg', cv2.cvtColor(overlay, cv2.COLOR_RGB2BGR))
        write_atomically(self.folder / f'{name}.jpg', data.tobytes())

    def __exit__(self, *error: object) -> None:
        pass


class VideoWriter:
    """Overlays as one video of the source's frame rate."""

    def __init__(self, path: Path, source: Path) -> None:
        cv2 = require('cv2')
        video = cv2.VideoCapture(str(source))
        self.rate = video.get(cv2.CAP_PROP_FPS) or 25
        video.release()
        self.path, self.partial, self.video = path, path.with_name(f'.partial.{path.name}'), None

    def __enter__(self) -> 'VideoWriter':
        return self

    def write(self, name: str, overlay: np.ndarray) -> None:
        cv2 = require('cv2')
        if self.video is None:
            code, size = cv2.VideoWriter_fourcc(*'mp4v'), overlay.shape[1::-1]
            self.video = cv2.VideoWriter(str(self.partial), code, self.rate, size)
            if not self.video.isOpened():
                raise CASTError(f'OpenCV cannot write {self.path}; use --no-overlays')
        self.video.write(cv2.cvtColor(overlay, cv2.COLOR_RGB2BGR))

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        if self.video is not None:
            self.video.release()
            if kind is None:
                os.replace(self.partial, self.path)
        self.partial.unlink(missing_ok=True)


def draw_predictions(image: np.ndarray, found: Instances, classes: list[str]) -> np.ndarray:
    """A copy of an RGB image (H, W, 3) with masks, outlines, class names and scores, the best on
    top.
    """
    from mmcast.masks.drawing import (  # OpenCV may be missing
        class_colour,
        draw_instances,
    )

    worst_first = found[np.arange(len(found))[::-1]]
    labels = worst_first.labels.tolist()
    return draw_instances(
        image,
        worst_first.masks,
        [class_colour(label) for label in labels],
        [f'{classes[label]} {score:.2f}' for label, score in zip(labels, worst_first.scores)],
    )


class Progress:
    """Tells every two seconds how many pictures are done and how long the rest will take."""

    def __init__(self, total: int | None, show: Callable[[str], None]) -> None:
        self.total, self.show, self.done = total, show, 0
        self.begin = self.told = time.monotonic()

    def step(self) -> None:
        """One picture more is done."""
        self.done += 1
        now = time.monotonic()
        if now - self.told < 2:
            return
        self.told, rate = now, self.done / (now - self.begin)
        left = ''
        if self.total:
            left = f' of {self.total}, about {max(0, self.total - self.done) / rate:.0f} s left'
        self.show(f'{self.done}{left} ({rate:.1f} per second)')
