"""A review task: what was handed out to people, as ``task.json`` in its folder says."""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mmcast.errors import CASTError
from mmcast.version import __version__

KIND = 'mmcast review task'
FORMAT_VERSION = 1
TASK_FILE = 'task.json'
TOOLS = ('cvat', 'label_studio', 'fiftyone', 'labelme', 'coco')


@dataclass(frozen=True)
class Proposal:
    """A pseudo-label that people see.

    Args:
        id: of the annotation in the pseudo-label file.
        label: its class name.
        score: of the pseudo-label.
        segmentation: its pixels without those that better labels claim, as RLE with text counts.
    """

    id: int
    label: str
    score: float
    segmentation: dict


@dataclass(frozen=True)
class TaskImage:
    """An image that was handed out.

    Args:
        name: of the file in the task's folder of images.
        file_name: in the pseudo-label file.
        height: in pixels, upright.
        width: likewise.
        sha256: of the original file.
        reason: why it was chosen.
        value: of the criterion that images were chosen by.
        proposals: in the order of the pseudo-label file.
    """

    name: str
    file_name: str
    height: int
    width: int
    sha256: str
    reason: str
    value: float
    proposals: list[Proposal]


@dataclass(frozen=True)
class Task:
    """A review task.

    Args:
        tool: one of :data:`TOOLS`, whose files are in the folder.
        classes: names, in the order of the pseudo-label file.
        store: ``file``, ``sha256`` and ``info`` of the pseudo-label file.
        settings: how images and proposals were chosen.
        img_dir: folder of the original images.
        images: in the order of their names.
    """

    tool: str
    classes: list[str]
    store: dict[str, Any]
    settings: dict[str, Any]
    img_dir: str
    images: list[TaskImage]

    @property
    def image_folder(self) -> str:
        """The folder of the images within the task's; FiftyOne looks for one called data."""
        return 'data' if self.tool == 'fiftyone' else 'images'

    @property
    def number_of_proposals(self) -> int:
        return sum(len(image.proposals) for image in self.images)

    def to_json(self) -> bytes:
        """The content of ``task.json``."""
        header = dict(kind=KIND, format_version=FORMAT_VERSION, mmcast=__version__)
        return json.dumps(header | asdict(self), indent=1).encode()


def read_task(folder: str | os.PathLike) -> Task:
    """The task in a folder.

    Raises:
        CASTError: there is none, or it was not finished.
    """
    path = Path(folder, TASK_FILE)
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise CASTError(
            f'{folder} is not a finished review task ({path.name}: {error.strerror}): give the '
            'folder that mmcast review export wrote, or call that command again'
        ) from error
    except (ValueError, RecursionError) as error:
        raise CASTError(f'{path} is not valid JSON ({error}): export the task again') from error
    found = content if isinstance(content, dict) else {}
    if (found.get('kind'), found.get('format_version')) != (KIND, FORMAT_VERSION):
        raise CASTError(
            f'{path} is not a review task of format {FORMAT_VERSION}: give the folder that mmcast '
            'review export wrote'
        )
    try:
        return Task(
            **{key: content[key] for key in ('tool', 'classes', 'store', 'settings', 'img_dir')},
            images=[_image(each) for each in content['images']],
        )
    except (KeyError, TypeError) as error:
        raise CASTError(f'{path} is damaged ({error}): export the task again') from error


def _image(entry: dict) -> TaskImage:
    proposals = [Proposal(**each) for each in entry['proposals']]
    return TaskImage(**(entry | dict(proposals=proposals)))
