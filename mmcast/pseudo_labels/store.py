"""The pseudo-label file: COCO JSON with RLE masks, scores, and a header that says what made it."""
import json
import os
from pathlib import Path

import numpy as np
from pycocotools import mask as mask_utils

from mmcast.errors import CASTError
from mmcast.files import read_coco, write_atomically
from mmcast.pseudo_labels.overlaps import resolve_overlaps
from mmcast.version import __version__

KIND = 'mmcast pseudo-labels'
FORMAT_VERSION = 1


def make_info(**identity) -> dict:
    """The header (COCO's ``info``) of a file; two files with the same one are the same labels."""
    return dict(kind=KIND, format_version=FORMAT_VERSION, mmcast=__version__, **identity)


def read_pseudo_labels(path: str | os.PathLike) -> dict:
    """A pseudo-label file's content.

    Raises:
        CASTError: the file is missing, no COCO JSON, or no pseudo-label file of this format.
    """
    content = read_coco(path)
    info = content.get('info')
    kind, version = (info.get('kind'), info.get('format_version')) if isinstance(info, dict) else (None, None)
    if kind != KIND or version != FORMAT_VERSION:
        raise CASTError(f'{path} is no pseudo-label file of format {FORMAT_VERSION} (its info says '
                        f'kind {kind!r}, format {version!r}); make one with tools/pseudo_label.py')
    return content


def encode_mask(mask: np.ndarray) -> dict:
    """COCO RLE of a bool mask (H, W), with ``counts`` as text: JSON and mmdet's loading want it so."""
    rle = mask_utils.encode(np.asfortranarray(mask, dtype=np.uint8))
    return dict(size=rle['size'], counts=rle['counts'].decode())


def resolve_rle_overlaps(rles: list[dict], scores: list[float]) -> list[dict]:
    """``resolve_overlaps`` on N RLE masks of one image; decodes only those that share a pixel."""
    if not rles:
        return []
    shares = mask_utils.iou(rles, rles, [0] * len(rles)) > 0  # (N, N)
    touching = np.flatnonzero(shares.sum(axis=1) > 1)
    if not len(touching):
        return rles
    masks = mask_utils.decode([rles[i] for i in touching]).transpose(2, 0, 1).astype(bool)
    resolved = list(rles)
    for i, mask in zip(touching, resolve_overlaps(masks, np.asarray(scores)[touching]), strict=True):
        resolved[i] = encode_mask(mask)
    return resolved


class PseudoLabelWriter:
    """Streams pseudo-labels to ``OUT.partial.jsonl``, a line per image, and puts ``OUT`` in place at the end.

    A killed process loses at most the image it was at: a new writer with the same header goes on from there.

    Args:
        out_file: the file to make.
        info: its header, from ``make_info``.

    Attributes:
        done: number of images already written.

    Raises:
        CASTError: what an earlier process left has another header.
    """

    def __init__(self, out_file: str | os.PathLike, info: dict):
        self.out_file, self.info = Path(out_file), info
        self.partial = Path(f'{out_file}.partial.jsonl')
        self.partial.parent.mkdir(parents=True, exist_ok=True)
        lines = self._resume()
        self.done = max(0, lines - 1)
        self._file = self.partial.open('a', encoding='utf-8')
        if not lines:
            self._append(info)

    def __enter__(self) -> 'PseudoLabelWriter':
        return self

    def __exit__(self, *error) -> None:
        self._file.close()

    def write(self, image: dict, annotations: list[dict]) -> None:
        """Record one image of COCO and its annotations (without ids), so that it survives a kill."""
        self._append(dict(image=image, annotations=annotations))
        self.done += 1

    def finish(self, categories: list[dict]) -> dict:
        """Number the annotations, write ``OUT`` atomically, remove the partial file; returns the content."""
        with self.partial.open(encoding='utf-8') as file:
            records = [json.loads(line) for line in file][1:]
        annotations = [dict(id=0, image_id=record['image']['id'], **annotation)
                       for record in records for annotation in record['annotations']]
        for number, annotation in enumerate(annotations, start=1):  # COCO's evaluation takes id 0 for none
            annotation['id'] = number
        content = dict(info=self.info, images=[record['image'] for record in records], categories=categories,
                       annotations=annotations)
        write_atomically(self.out_file, json.dumps(content))
        self.partial.unlink()
        return content

    def _append(self, content: dict) -> None:
        self._file.write(json.dumps(content) + '\n')
        self._file.flush()

    def _resume(self) -> int:
        """Lines in an earlier process's partial file, the header included; a half-written one is cut off."""
        if not self.partial.exists():
            return 0
        with self.partial.open('rb') as file:
            lines = [line for line in file if line.endswith(b'\n')]
        os.truncate(self.partial, sum(map(len, lines)))
        if lines:
            check_same_info(self.partial, json.loads(lines[0]), self.info)
        return len(lines)


def check_same_info(path: Path, found: dict, wanted: dict) -> None:
    """Raises CASTError, naming the fields, where a file was made from other things than are asked for now."""
    different = [key for key in sorted(wanted | found) if wanted.get(key) != found.get(key)]
    if different:
        raise CASTError(f'{path} was made with another {", ".join(different)}; '
                        'delete it or give another output file')
