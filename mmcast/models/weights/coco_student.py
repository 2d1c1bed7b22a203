"""Start weights from a network that was trained on COCO, mask head included."""

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from torch import Tensor

from mmcast.checkpoints import load_plain
from mmcast.configs import find_shipped
from mmcast.errors import CASTError
from mmcast.models.weights.reading import describe_mismatch, read_state_dict, write_state_dict
from mmcast.models.weights.start import CLASS_HEAD, QUERIES, repeat_queries
from mmcast.registry import MODELS

CONFIG = '_base_/models/mask2former_r50_coco.py'
RELEASE = (
    'https://download.openmmlab.com/mmdetection/v3.0/mask2former/mask2former_r50_8xb2-lsj-50e_coco/'
    'mask2former_r50_8xb2-lsj-50e_coco_20220506_191028-41b088b6.pth'
)


def fit_coco_student(
    out_dir: str | os.PathLike,
    weights: str,
    classes: Sequence[str],
    num_queries: int = 0,
    seed: int = 0,
) -> dict:
    """A pipeline's step that makes start weights of mmdet's Mask2Former R-50, trained on COCO.

    All but the class head stays as it is. The rows of classes that COCO has by the same name
    (whatever the case, ``_`` and ``-`` as spaces) and that of "no object" are kept, the others
    start at random. Prints which ones, and what became of the queries.

    Args:
        out_dir: folder of the new file, ``student.pth``.
        weights: mmdet's release, see ``RELEASE``, or another checkpoint of that network, whose
            ``meta`` then names its classes.
        classes: names to learn, in the order of labels.
        num_queries: how many are needed. Those of the file all stay; where that is less, they are
            repeated as :func:`~mmcast.models.weights.start.fit_start_weights` does.
        seed: of new class rows and of repeated queries.

    Returns:
        ``student``, the new file, and ``num_queries``, how many it has.

    Raises:
        CASTError: the file is missing or of another network, or does not tell its classes.
    """
    state = read_state_dict(weights, RELEASE)
    _check_network(state, weights)
    known = _class_names(weights, len(state[f'{CLASS_HEAD}bias']) - 1)
    generator = torch.Generator().manual_seed(seed)
    rows = match_names(classes, known)
    for part in ('weight', 'bias'):
        key = CLASS_HEAD + part
        state[key] = renew_rows(state[key], rows, state[f'{CLASS_HEAD}weight'].shape[1], generator)
    before = len(state[QUERIES[0]])
    number = max(before, num_queries)
    for key in QUERIES:
        state[key] = repeat_queries(state[key], number, generator)
    kept, new = (
        ', '.join(name for name, row in zip(classes, rows) if (row is None) == is_new) or 'none'
        for is_new in (False, True)
    )
    queries = (
        f'{before} queries, as they are' if number == before else f'{before} queries to {number}'
    )
    print(f'{weights}: class rows kept: {kept}; new, at random: {new}; {queries}')
    path = str(Path(out_dir, 'student.pth'))
    write_state_dict(path, state)
    return dict(student=path, num_queries=number)


def match_names(names: Sequence[str], known: Sequence[str]) -> list[int | None]:
    """The index of each name among ``known``, whatever the case, ``_`` and ``-`` as spaces."""

    def plain(name: str) -> str:
        return ' '.join(name.lower().replace('_', ' ').replace('-', ' ').split())

    places = {plain(name): place for place, name in enumerate(known)}
    return [places.get(plain(name)) for name in names]


def renew_rows(
    values: Tensor, rows: Sequence[int | None], fan_in: int, generator: torch.Generator
) -> Tensor:
    """Weight (C + 1, D) or bias (C + 1) of a class head for other classes.

    Args:
        values: of the old one; the last row, "no object", becomes the new last row.
        rows: of each new class the old row, or None for one at random, as ``nn.Linear`` draws it.
        fan_in: D.
        generator: of the random numbers.
    """
    limit = 1 / math.sqrt(fan_in)
    renewed = (
        torch.rand((len(rows) + 1, *values.shape[1:]), generator=generator) * 2 * limit - limit
    )
    renewed = renewed.to(values.dtype)
    renewed[-1] = values[-1]
    for new, old in enumerate(rows):
        if old is not None:
            renewed[new] = values[old]
    return renewed


def _check_network(state: Mapping[str, Tensor], weights: str) -> None:
    """Raises CASTError unless the tensors are those of ``CONFIG``, of any number of classes
    and queries.
    """
    config = Config.fromfile(find_shipped(CONFIG)).model.detector
    with torch.device('meta'), DefaultScope.overwrite_default_scope('mmcast'):
        expected = MODELS.build(config).state_dict()
    renewed = {*QUERIES, f'{CLASS_HEAD}weight', f'{CLASS_HEAD}bias'}
    mismatch = describe_mismatch(
        {
            key: state.get(key, value) if key in renewed else value
            for key, value in expected.items()
        },
        state,
    )
    if mismatch:
        raise CASTError(
            f"{weights} is not mmdet's Mask2Former R-50 ({mismatch}); download {RELEASE}"
        )


def _class_names(weights: str, number: int) -> Sequence[str]:
    """The classes of a checkpoint of mmdet's, as its ``meta`` names them; COCO's where it does
    not.
    """
    from mmdet.datasets import CocoDataset

    content = load_plain(weights)
    meta = content.get('meta') if isinstance(content, Mapping) else None
    meta = meta if isinstance(meta, Mapping) else {}
    named = meta.get('dataset_meta') or {}
    # mmdet 2 calls them CLASSES, and so do files that were converted from it.
    names = named.get('classes') or named.get('CLASSES') or meta.get('CLASSES')
    names = names or CocoDataset.METAINFO['classes']
    if len(names) != number:
        raise CASTError(
            f'{weights} has {number} classes and does not name them (COCO has {len(names)}); '
            f'download {RELEASE}'
        )
    return names
