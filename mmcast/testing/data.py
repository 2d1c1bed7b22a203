"""Random images with rectangles, and random points that do not depend on the batch."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from unittest import mock

import numpy as np
import torch
from mmdet.structures import DetDataSample
from mmdet.structures.mask import BitmapMasks
from mmengine.structures import InstanceData
from torch import Tensor


def make_samples(
    objects: Sequence[int],
    sources: Sequence[str] | None = None,
    size: tuple[int, int] = (64, 64),
    num_classes: int = 3,
    seed: int = 0,
) -> tuple[Tensor, list[DetDataSample]]:
    """A batch as the data preprocessor passes it to a detector.

    Args:
        objects: Number of rectangles in each image; an ``unlabeled`` one gets none.
        sources: ``metainfo['source']`` of each image; absent by default.
        size: Height and width in pixels.
        num_classes: Labels are sampled from these.
        seed: Of images and rectangles.

    Returns:
        Images (B, 3, H, W), about normalised, and their samples with ``labels``, ``bboxes`` and
        ``masks``.
    """
    rng = np.random.default_rng(seed)
    samples = []
    for i, count in enumerate(objects):
        sample = DetDataSample(
            metainfo=dict(
                img_id=i,
                img_path=f'image_{i}.png',
                img_shape=size,
                ori_shape=size,
                pad_shape=size,
                batch_input_shape=size,
                scale_factor=(1.0, 1.0),
                **(dict(source=sources[i]) if sources else {}),
            )
        )
        masks = BitmapMasks([_rectangle(rng, size) for _ in range(count)], *size)
        labels = torch.from_numpy(rng.integers(0, num_classes, count))
        sample.gt_instances = InstanceData(
            labels=labels, bboxes=masks.get_bboxes('hbox').tensor, masks=masks
        )
        samples.append(sample)
    images = torch.from_numpy(rng.normal(size=(len(objects), 3, *size)).astype(np.float32))
    return images.clamp(-1.5, 1.5), samples


def _rectangle(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    mask = np.zeros(size, dtype=np.uint8)
    top, left = (int(rng.integers(0, side - 8)) for side in size)
    height, width = rng.integers(8, 33, 2)
    mask[top : top + height, left : left + width] = 1
    return mask


@contextmanager
def same_points() -> Iterator[None]:
    """Let ``torch.rand`` draw the same points (N, P, 2) for every one of the N objects, in every
    call alike.

    Losses on sampled points can then be compared between batches of different composition.
    """
    draw = torch.rand

    def rand(*size: Any, device: Any = None, **kwargs: Any) -> Tensor:
        size = size[0] if isinstance(size[0], Sequence) else size
        if len(size) != 3:  # not points
            return draw(size, device=device, **kwargs)
        generator = torch.Generator().manual_seed(size[1])
        return draw(size[1:], generator=generator).to(device).expand(size).contiguous()

    with mock.patch.object(torch, 'rand', rand):
        yield
