"""Transforms of mmdet that leave masks where they were."""

from collections.abc import Iterator
from typing import Any

from mmcast.errors import CASTError

# By name, what does the same and moves masks too. The first three move images and boxes and pass
# masks on as they are; the others end in an error in the first batch.
_MOSAIC = 'mixing=dict(mosaic=dict(prob=...)) of the data set'
_INSTEAD = dict(
    Mosaic=_MOSAIC,
    MixUp='mixing=dict(mixup=dict(prob=...)) of the data set',
    RandomShift='TranslateX and TranslateY',
    RandomAffine='Rotate, ShearX and TranslateX',
    RandomCenterCropPad='RandomCrop and Pad',
)


def check_mask_transforms(dataset: dict, name: str) -> None:
    """Checks that all transforms of a data set move masks with the images.

    Args:
        dataset: its config, with any number of data sets and pipelines in it.
        name: where that stands in the whole config, for the message.

    Raises:
        CASTError: annotations are loaded with masks, and a transform does not move them.
    """
    parts = list(_typed_parts(dataset))
    if not any(kind.startswith('Load') and part.get('with_mask') for kind, part in parts):
        return
    for kind, part in parts:
        width, height = part.get('img_scale', (1, 1)) if kind == 'CachedMosaic' else (1, 1)
        if width != height:
            raise CASTError(
                f"{name}: mmdet's CachedMosaic makes masks of {width} x {height} for an image of "
                f'{height} x {width} (height x width, doubled): give it a square img_scale, or '
                f'replace it by {_MOSAIC}'
            )
    found = sorted({kind for kind, _ in parts if kind in _INSTEAD})
    if found:
        advice = '; '.join(f'{kind} by {_INSTEAD[kind]}' for kind in found)
        raise CASTError(
            f"{name}: mmdet's {', '.join(found)} moves images and boxes but not masks: replace "
            f'{advice}'
        )


def _typed_parts(value: Any) -> Iterator[tuple[str, dict]]:
    """Name of the type, without scope, and the dict, of all that a config builds."""
    if isinstance(value, dict):
        kind = value.get('type')
        if kind is not None:
            yield kind.rpartition('.')[2] if isinstance(kind, str) else kind.__name__, value
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        for item in value:
            yield from _typed_parts(item)
