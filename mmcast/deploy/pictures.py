"""The pictures of a source - an image, a folder or a video - one at a time."""

import os
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from mmcast.errors import CASTError, reason_of
from mmcast.files import sha256_of_json, size_of_file
from mmcast.images import IMAGE_SUFFIXES, ValueRange, list_folder, problem_of, read_image
from mmcast.optional import require

KIND = 'mmcast predictions'  # of the JSON beside the overlays, in its first lines
PREDICTIONS = 'predictions.json'
VIDEO_SUFFIXES = ('.avi', '.m4v', '.mkv', '.mov', '.mp4', '.mpg', '.webm')
_EDITABLE = ('.m4v', '.mov', '.mp4')  # an edit list may hide frames of these
_KIND_WITHIN = 1000  # characters
_MISSING = 0.05  # of the time that a video announces, less is not worth a word


@dataclass
class Picture:
    """A picture of the source: its name, and its pixels, RGB (H, W, 3) of uint8, or why there are
    none; a frame's time in seconds.
    """

    name: str
    pixels: np.ndarray | None = None
    problem: str = ''
    seconds: float | None = None


class ImageSource:
    """Image files.

    Args:
        paths: of the files, in their order.
        names: what each is called.
        value_range: of the student, for images of more than 8 bits.
        remarks: what of a folder is left out, in lines.

    Attributes:
        count: of pictures.
        sizes: of the files in bytes.
        ahead: how many pictures may be in memory before and behind the one predicted on.
    """

    ahead = 0

    def __init__(
        self,
        paths: list[Path],
        names: list[str],
        value_range: ValueRange = None,
        remarks: Sequence[str] = (),
    ) -> None:
        self.paths, self.names, self.count = paths, names, len(paths)
        self.total: int | None = self.count
        self.sizes = [size_of_file(path) for path in paths]
        self.value_range, self.remarks = value_range, remarks

    @property
    def hash(self) -> str:
        """SHA-256 of the names in their order."""
        return sha256_of_json(self.names)

    def read(self, done: np.ndarray) -> Generator[tuple[int, Picture], None, None]:
        """Index and picture of each that is not done.

        Args:
            done: (N,) of bool.
        """
        for place in np.flatnonzero(~done).tolist():
            yield place, read_picture(self.paths[place], self.names[place], self.value_range)


@dataclass
class VideoSource:
    """The frames of a video, called ``NAME/000000`` and so on.

    OpenCV turns them as the video's metadata ask for.

    Args:
        path: of the file.

    Attributes:
        announced: number of frames by the container, estimated by OpenCV where the container has
            none; 0 if not known.
        rate: frames per second by the container; 0 if not known.
        count: of frames, known once all were read.
        times: in seconds, of the frames read.
        ahead: how many frames may be in memory before and behind the one predicted on.

    Raises:
        CASTError: OpenCV cannot open it.
    """

    path: Path
    announced: int = 0
    rate: float = 0.0
    count: int = 0
    times: list[float] = field(default_factory=list)

    remarks = ()
    ahead = 4

    def __post_init__(self) -> None:
        cv2, video = require('cv2'), self._open()
        self.announced = max(0, int(video.get(cv2.CAP_PROP_FRAME_COUNT)))
        self.rate = max(0.0, video.get(cv2.CAP_PROP_FPS))
        self.total = self.announced or None
        self.sizes = [size_of_file(self.path)]
        video.release()

    @property
    def hash(self) -> str:
        """SHA-256 of the file's name and size."""
        return sha256_of_json([self.path.name, *self.sizes])

    def read(self, done: np.ndarray) -> Generator[tuple[int, Picture], None, None]:
        """Index and picture of each frame that is not done; a frame that cannot be decoded comes
        with the reason.

        Args:
            done: (N,) of bool; frames after these are not done either.
        """
        cv2, video = require('cv2'), self._open()
        self.count, self.times = 0, []
        try:
            while video.grab():  # every one: to seek a frame is not exact for all codecs
                number = self.count
                self.count += 1
                self.times.append(video.get(cv2.CAP_PROP_POS_MSEC) / 1000)
                if number < len(done) and done[number]:
                    continue
                picture = Picture(f'{self.path.stem}/{number:06d}', seconds=self.times[-1])
                try:
                    there, frame = video.retrieve()
                    picture.pixels = cv2.cvtColor(frame, cv2.COLOR_BGR2RGB) if there else None
                except (cv2.error, MemoryError) as error:
                    raise CASTError(
                        f'{picture.name} cannot be decoded here ({reason_of(error)}); what is done '
                        'is kept: free memory and give the same command again'
                    ) from error
                picture.problem = '' if there else 'cannot be decoded'
                yield number, picture
        finally:
            video.release()

    def describe(self) -> dict[str, Any]:
        """What was found out about the video, once all frames were read."""
        return dict(
            frames=self.count,
            announced=self.announced,
            frame_rate=round(self.real_rate, 3),
            variable_frame_rate=self.varies,
            shortfall=self.shortfall,
            finding=self.finding,
        )

    @property
    def real_rate(self) -> float:
        """Mean frame rate: by the frames' times where there are any."""
        passed = self.times[-1] - self.times[0] if self.times else 0
        return (self.count - 1) / passed if passed > 0 else self.rate or 25.0

    @property
    def overlay_rate(self) -> float:
        """That of the overlay: the container's, which is known before frames are read, or the mean
        rate where that would show the last frame more than half a frame too early or late.
        """
        drift = abs(self.rate / self.real_rate - 1) * self.count
        return self.rate if self.rate and drift < 0.5 else self.real_rate

    @property
    def varies(self) -> bool:
        """Whether the frames do not follow each other at one distance."""
        distances = np.diff(self.times)
        return bool(distances.any() and (np.abs(distances * self.real_rate - 1) > 0.5).any())

    @property
    def shortfall(self) -> str:
        """What is missing of what the container announces, by time: where frames come at various
        distances, the number of frames is a bad guess.
        """
        if not self.rate or self.count >= self.announced:
            return ''
        announced, rate = self.announced / self.rate, self.real_rate
        end = (
            self.times[-1] if self.times[-1:] > [0.0] else (self.count - 1) / self.rate
        ) + 1 / rate
        if announced - end <= max(2 / rate, _MISSING * announced):
            return ''
        return (
            f'{self.path.name} ended after {self.count} of {self.announced} frames, '
            f'{end:.1f} of {announced:.1f} s'
        )

    @property
    def finding(self) -> str:
        """Why the video is taken for cut short; empty if it is not."""
        if not self.shortfall or (
            self.path.suffix.lower() in _EDITABLE and _has_whole_boxes(self.path)
        ):
            return ''
        return f'{self.shortfall}: the file is cut short or damaged, copy it again'

    def _open(self) -> Any:
        # FFmpeg complains of a broken file in lines of its own.
        os.environ.setdefault('OPENCV_FFMPEG_LOGLEVEL', '-8')
        cv2 = require('cv2')
        video = cv2.VideoCapture(str(self.path))
        if not video.isOpened():
            raise CASTError(
                f'{self.path} cannot be opened as a video; it may be damaged or of a kind that '
                'OpenCV does not read: convert it to mp4'
            )
        video.set(cv2.CAP_PROP_ORIENTATION_AUTO, 1)  # the default of most backends
        return video


def open_source(
    source: Path, out_dir: Path | None = None, value_range: ValueRange = None
) -> ImageSource | VideoSource:
    """The pictures of an image, folder or video, read one by one.

    Args:
        source: path of the image, folder or video.
        out_dir: overlays in this folder, and in others of predictions, are no pictures of the
            source, if they are in there.
        value_range: of the student, for images of more than 8 bits.

    Raises:
        CASTError: it does not exist, or has nothing that could be a picture.
    """
    if source.is_dir():
        found = list_folder(source)
        is_ours = cache(_has_predictions)
        paths = [path for path in found.images if not _is_overlay(path, source, out_dir, is_ours)]
        if not paths:
            raise CASTError(
                f'{source} has no images ({", ".join(IMAGE_SUFFIXES)}); give another folder'
            )
        names = [path.relative_to(source).as_posix() for path in paths]
        return ImageSource(paths, names, value_range, found.remarks())
    if not source.is_file():
        raise CASTError(f'{source} not found; give an image, a folder of images or a video')
    if source.suffix.lower() in VIDEO_SUFFIXES:
        return VideoSource(source)
    return ImageSource([source], [source.name], value_range)


def read_picture(path: Path, name: str, value_range: ValueRange = None) -> Picture:
    """One image file, as training reads it; see :func:`mmcast.images.read_image`."""
    try:
        return Picture(name, read_image(path, value_range))
    except MemoryError:
        return Picture(name, problem='needs more memory than there is')
    except CASTError as error:
        return Picture(name, problem=problem_of(path, error))


def _is_overlay(
    path: Path, source: Path, out_dir: Path | None, is_ours: Callable[[Path], bool]
) -> bool:
    """Whether an image of the source was written by us, or by an earlier run and moved aside."""
    path, source = Path(os.path.abspath(path)), Path(os.path.abspath(source))
    out_dir = out_dir and Path(os.path.abspath(out_dir))
    folders = [each for each in path.parents if each.name.partition('.old')[0] == 'overlays']
    return any(
        each.parent == out_dir or (each.parent.is_relative_to(source) and is_ours(each.parent))
        for each in folders
    )


def _has_predictions(folder: Path) -> bool:
    """Whether ``mmcast predict`` has written there, be it finished or not."""
    for place in (folder / PREDICTIONS, folder / f'{PREDICTIONS}.shards/job.json'):
        try:
            with open(place, encoding='utf-8') as file:
                if KIND in file.read(_KIND_WITHIN):
                    return True
        except (OSError, ValueError):
            continue
    return False


def _has_whole_boxes(path: Path) -> bool:
    """Whether the last box (ISO 14496-12, 4.2) of an mp4 file ends where the file does."""
    position, size = 0, path.stat().st_size
    with path.open('rb') as file:
        while position < size:
            file.seek(position)
            head = file.read(16)
            length = int.from_bytes(head[:4], 'big')
            if length == 1:
                length = int.from_bytes(head[8:], 'big')
            if length < 8:  # 0: up to the end of the file
                return length == 0
            position += length
    return position == size
