"""The pseudo-label file: COCO JSON with RLE masks, scores, and a header that says what made it.

docs/pseudo_labels.md has the schema.
"""

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

from mmcast.coco.categories import find_twins
from mmcast.coco.findings import FIXES
from mmcast.coco.scanner import read_text
from mmcast.errors import CASTError
from mmcast.memory import no_cycle_search
from mmcast.pseudo_labels.checks import check_content
from mmcast.version import __version__

KIND = 'mmcast pseudo-labels'
FORMAT_VERSION = 2
KEY_OF_FORMAT = dict(kind=KIND, format_version=FORMAT_VERSION)  # in the header of each file
# What a teacher may tell of an instance, by the field of an annotation and that of its predictions;
# only the first is always there.
PREDICTED = dict(
    score='scores', class_score='class_scores', mask_quality='mask_quality', agreement='agreement'
)
SCORES = tuple(PREDICTED)
_SHOWN = 40  # characters of a header that is not ours, in messages


def make_info(**identity: Any) -> dict:
    """The header (COCO's ``info``) of a file; two files with the same one are the same labels."""
    return dict(kind=KIND, format_version=FORMAT_VERSION, mmcast=__version__, **identity)


@no_cycle_search()
def read_pseudo_labels(path: str | os.PathLike) -> dict:
    """A pseudo-label file's content, checked, so that compiled code may read its masks; of several
    categories of one name only the one with annotations is in it.

    Raises:
        CASTError: the file is missing, no COCO JSON, no pseudo-label file of this format, or
            damaged, see :func:`~mmcast.pseudo_labels.checks.check_content`.
    """
    content = _parse(path)
    check_content(content, path, SCORES)
    content['categories'] = _without_twins(content, path)
    return content


def check_human(content: Mapping, path: str | os.PathLike) -> None:
    """Raises CASTError if what is to be human annotations is a file of pseudo-labels, or has some
    of them, as what ``mmcast export-labels`` writes.

    Args:
        content: of a COCO file.
        path: of the file, for the message.
    """
    info = content.get('info')
    is_store = isinstance(info, Mapping) and info.get('kind') == KIND
    if is_store or any(ann.get('origin') == 'pseudo' for ann in content['annotations']):
        raise CASTError(f'{path} has pseudo-labels: give a file of human annotations here')


def _parse(path: str | os.PathLike) -> dict:
    """The JSON object in a file, once it is known to be what this module writes."""
    try:
        content = json.loads(read_text(path)[0])
    except OSError as error:
        raise CASTError(
            f'{path}: cannot read the pseudo-label file ({error.strerror}): check the path'
        ) from error
    except (ValueError, RecursionError) as error:
        raise CASTError(
            f'{path} is no JSON, or was cut short ({error}): make it again with mmcast label'
        ) from error
    info = content.get('info') if isinstance(content, dict) else None
    info = info if isinstance(info, dict) else {}
    if (info.get('kind'), info.get('format_version')) != (KIND, FORMAT_VERSION):
        kind, version = (str(info.get(key))[:_SHOWN] for key in ('kind', 'format_version'))
        raise CASTError(
            f'{path} is not a pseudo-label file of format {FORMAT_VERSION} (its info says kind '
            f'{kind!r}, format {version}); make one with mmcast label'
        )
    return content


def _without_twins(content: dict, path: str | os.PathLike) -> list[dict]:
    """The categories of a file, one of each name."""
    categories = content['categories']
    used = {annotation['category_id'] for annotation in content['annotations']}
    dropped = set()
    for twins in find_twins(((each['id'], each['name']) for each in categories), used):
        if twins.clash:
            raise CASTError(f'{path}: {twins.clash}: {FIXES["twin-category"]}')
        dropped.update(twins.dropped)
    return [category for category in categories if category['id'] not in dropped]


def write_store(path: Path, info: dict, categories: list[dict], records: Iterable[dict]) -> None:
    """Writes a pseudo-label file, holding one record at a time, and syncs it to the disk.

    Every image and annotation has a line of its own. ``records`` is gone through twice, once for
    the images and once for the annotations, which are numbered from 1: COCO's evaluation takes id 0
    for none.
    """
    unreadable = []
    with path.open('w', encoding='utf-8') as file:
        file.write(f'{{"info": {json.dumps(info)},\n"categories": {json.dumps(categories)},\n')
        _write_list(file, 'images', _readable(records, unreadable))
        _write_list(file, 'unreadable', unreadable)
        _write_list(file, 'annotations', _numbered(records), end=']}\n')
        file.flush()
        os.fsync(file.fileno())


def _readable(records: Iterable[dict], unreadable: list[dict]) -> Iterator[dict]:
    """The images of COCO; those that could not be read are put into ``unreadable``."""
    for record in records:
        if 'unreadable' in record:
            unreadable.append(
                dict(file_name=record['image']['file_name'], reason=record['unreadable'])
            )
        else:
            yield record['image']


def _numbered(records: Iterable[dict]) -> Iterator[dict]:
    number = 0
    for record in records:
        for annotation in record.get('annotations', ()):
            number += 1
            yield dict(id=number, image_id=record['image']['id'], **annotation)


def _write_list(file: TextIO, name: str, items: Iterable[dict], end: str = '],\n') -> None:
    file.write(f'"{name}": [')
    file.writelines(
        (',\n' if number else '\n') + json.dumps(item) for number, item in enumerate(items)
    )
    file.write(end)
