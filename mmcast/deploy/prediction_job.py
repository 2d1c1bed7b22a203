"""A run of prediction that may be interrupted: what it is made from, where things are, and what is
done of it.
"""

import contextlib
import itertools
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mmcast.deploy.overlay_files import ImageOverlays
from mmcast.deploy.pictures import KIND, PREDICTIONS, ImageSource, VideoSource
from mmcast.errors import CASTError
from mmcast.files import move_aside, sha256_of_json, write_atomically
from mmcast.locks import hold_lock
from mmcast.pseudo_labels.shards import ShardIndex

OVERLAY_VIDEO = 'overlay.mp4'
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
    """What was done, by earlier calls that were interrupted too.

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


@contextlib.contextmanager
def hold_folder(out_dir: Path) -> Iterator[None]:
    """Keeps other processes from writing to the folder."""
    lock = out_dir / '.lock'
    with hold_lock(lock, _IN_USE.replace('{folder}', str(out_dir))):
        try:
            yield
        finally:
            if os.name != 'nt':  # which removes nothing that is open
                lock.unlink(missing_ok=True)


@dataclass
class PredictionJob:
    """What is to be done, and where.

    Args:
        source: of the pictures, for messages.
        out_dir: folder of the results; exists.
        pictures: of the source.
        classes: names by label.
        identity: what decides about the predictions.

    Attributes:
        out_file: the JSON file.
        folder: of what is not finished.
        overlays: of images; None for a video, or where none are wanted.
    """

    source: Path
    out_dir: Path
    pictures: ImageSource | VideoSource
    classes: list[str]
    identity: dict[str, Any]

    def __post_init__(self) -> None:
        self.out_file = self.out_dir / PREDICTIONS
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
        return dict(self.identity, image_sizes=sha256_of_json(self.pictures.sizes))

    def begin(self, force: bool) -> Result | None:
        """The result of a finished run of the same things, or None where there is work to do.

        Raises:
            CASTError: other things are there, and may not be moved aside.
        """
        resumes = False
        if self.out_file.exists():
            _refuse(self.out_file, _difference(read_info(self.out_file), self.info), force)
            if not force:
                shutil.rmtree(self.folder, ignore_errors=True)  # a kill may have left it
                return read_result(self.out_file)
        elif self.begun.exists():
            difference = self._difference_from_begun()
            _refuse(self.folder, difference, force)
            resumes = not difference
        if not resumes:
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
        for name in (self.out_file.name, self.folder.name, 'overlays', OVERLAY_VIDEO):
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
            count = sum(map(_count_lines, self.folder.glob('shard*')))
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


def _count_lines(path: Path) -> int:
    with path.open('rb') as file:
        return sum(1 for _ in file)


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
