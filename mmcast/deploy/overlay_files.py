"""Predictions drawn over their pictures: one JPEG for each image, or one video."""

import contextlib
import errno
import hashlib
import os
import re
import unicodedata
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from mmcast.deploy.instances import Instances
from mmcast.deploy.pictures import VideoSource
from mmcast.deploy.side_threads import WorkBehind, fetch_ahead
from mmcast.errors import CASTError
from mmcast.files import replace_durably
from mmcast.optional import require

_LARGEST_JPEG = 65500  # pixels of a side
# What is wrong with the disk, and not with a file's name.
_OF_THE_DISK = {
    getattr(errno, name)
    for name in ('ENOSPC', 'EDQUOT', 'EFBIG', 'EROFS', 'EIO', 'EACCES', 'EPERM')
    if hasattr(errno, name)
}


class ImageOverlays:
    """Overlays as one JPEG for each image, ``NAME.jpg``; subfolders stay.

    Where the file system does not take that name, or would not tell it from another one's, the
    overlay is called by the beginning of the name and a hash of it, outside of any subfolder.

    Args:
        folder: of the overlays.
        temporary: a file for what is half written, on the same disk.
        names: of all images.
    """

    def __init__(self, folder: Path, temporary: Path, names: Iterable[str]) -> None:
        self.folder, self.temporary = folder, temporary
        seen: set[str] = set()
        self._twins: set[str] = set()
        for name in names:  # a file system may tell neither A from a nor kinds of accents apart
            key = unicodedata.normalize('NFC', name).casefold()
            if key in seen:
                self._twins.add(name)
            seen.add(key)

    def exists(self, name: str) -> bool:
        return any(os.path.isfile(self.folder / path) for path in self._names(name))

    def write(self, name: str, overlay: np.ndarray) -> str:
        """Writes an overlay, RGB (H, W, 3) of uint8, whole or not at all.

        Returns:
            Its path below the folder.

        Raises:
            OSError: the disk does not take it.
        """
        self.temporary.write_bytes(_to_jpeg(overlay))
        *usual, last = self._names(name)
        for path in usual:
            try:
                return self._put(path)
            except OSError as error:
                if error.errno in _OF_THE_DISK:
                    raise
        return self._put(last)

    def _names(self, name: str) -> list[str]:
        """What the overlay may be called, the last of which every file system takes."""
        start = re.sub(r'[^A-Za-z0-9_-]', '_', Path(name).stem)[:40]
        short = f'{start}~{hashlib.sha256(os.fsencode(name)).hexdigest()[:16]}.jpg'
        return [short] if name in self._twins else [f'{name}.jpg', short]

    def _put(self, path: str) -> str:
        (self.folder / path).parent.mkdir(parents=True, exist_ok=True)
        replace_durably(self.temporary, self.folder / path)
        return path


def _to_jpeg(overlay: np.ndarray) -> bytes:
    cv2 = require('cv2')
    shrink = _LARGEST_JPEG / max(overlay.shape)
    if shrink < 1:
        overlay = cv2.resize(overlay, None, fx=shrink, fy=shrink, interpolation=cv2.INTER_AREA)
    _, data = cv2.imencode('.jpg', cv2.cvtColor(overlay, cv2.COLOR_RGB2BGR))
    return data.tobytes()


class OverlayVideo:
    """A video that frames are appended to; as a context manager, it removes what an error leaves
    half written.

    Args:
        path: of the video to write.
        rate: frames per second.
    """

    def __init__(self, path: Path, rate: float) -> None:
        self.path, self.rate = path, rate
        self._video, self._size, self._frames = None, None, 0

    def __enter__(self) -> 'OverlayVideo':
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        if self._video is not None:
            self._video.release()
        if kind is not None:
            self.path.unlink(missing_ok=True)

    def add(self, image: np.ndarray) -> None:
        """Appends a frame, RGB (H, W, 3) of uint8."""
        cv2 = require('cv2')
        if self._video is None:
            self._size = image.shape[1::-1]
            codec = cv2.VideoWriter_fourcc(*'mp4v')
            self._video = cv2.VideoWriter(str(self.path), codec, self.rate, self._size)
        if image.shape[1::-1] != self._size:  # the writer would leave it out without a word
            image = cv2.resize(image, self._size)
        self._video.write(cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
        self._frames += 1

    def check(self) -> None:
        """Raises CASTError unless all frames are in the file, which is closed: the writer does not
        tell of a full disk.
        """
        if _count_frames(self.path) != self._frames:
            raise CASTError(
                f'OpenCV cannot write {self.path}; all predictions are kept: make room and give '
                'the same command again, or use --no-overlays and another --out'
            )


def write_overlay_video(
    path: Path, source: VideoSource, predictions: Iterable[Instances | None], classes: list[str]
) -> None:
    """All frames of a video, with what was predicted.

    Args:
        path: of the video to write.
        source: the video; was read before.
        predictions: of each frame; None where there are none.
        classes: names by label.

    Raises:
        CASTError: OpenCV or the disk does not take it.
    """
    every = fetch_ahead(source.read(np.zeros(0, bool)), source.ahead)
    with (
        OverlayVideo(path, source.overlay_rate) as video,
        WorkBehind(source.ahead) as behind,
        contextlib.closing(every) as frames,
    ):
        for (_, picture), found in zip(frames, predictions):
            if picture.pixels is None:
                continue
            image = picture.pixels
            if found is not None:
                image = draw_predictions(image, found, classes)
            behind.add(video.add, image)
    video.check()


def _count_frames(path: Path) -> int:
    """Number of frames of a video by its container, which is written last; 0 if there is none."""
    cv2 = require('cv2')
    video = cv2.VideoCapture(str(path))
    frames = int(video.get(cv2.CAP_PROP_FRAME_COUNT)) if video.isOpened() else 0
    video.release()
    return frames


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
        worst_first.cropped,
        [class_colour(label) for label in labels],
        [
            f'{classes[label]} {round(score, 6):.2f}'  # as of the number in the JSON
            for label, score in zip(labels, worst_first.scores.tolist())
        ],
    )
