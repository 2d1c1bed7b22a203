"""Checks the annotations of a COCO file in several processes."""

import json
from dataclasses import dataclass

import numpy as np

from mmcast.coco.annotations import Rows, examine
from mmcast.coco.findings import Finding
from mmcast.coco.lists import Lists


@dataclass
class Checked:
    """What a process found in some annotations.

    Args:
        findings: mistakes; image names as in the list.
        ids: of the usable annotations, in order, as listed.
        rows: what is known of these.
        seen: numbers of the images that have an annotation.
    """

    findings: list[Finding]
    ids: list
    rows: Rows
    seen: set[int]


def check_annotations(text: str, lists: Lists, crowd_as_instances: bool = False) -> Checked:
    """Checks the annotations of a JSON list."""
    found = examine(json.loads(text), lists, crowd_as_instances)
    ids = [annotation.get('id') for annotation in found.annotations]
    return Checked(found.findings, ids, found.rows, found.seen)


def instances_of(rows: Rows, places: np.ndarray) -> np.ndarray:
    """(N, 3) image number, index of the class and area in pixels of the single objects.

    Args:
        rows: of annotations.
        places: (categories,) index of the class of each category of the file.
    """
    single = rows[~rows.crowds]
    return np.stack([single.images, places[single.categories], single.areas], axis=1)
