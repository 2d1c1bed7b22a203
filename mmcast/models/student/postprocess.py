"""From queries to instances: only what is kept is resized, and only where it can be positive.

The values are those of mmdet's ``MaskFormerFusionHead``, which resizes every query's mask to the
padded batch, then all of them to the image, and keeps some afterwards.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from mmengine.structures import InstanceData
from torch import Tensor

from mmcast.masks.confidence import map_size

# Outputs of a block of bands_of.
BAND = 128


def resize_weights(size_in: int, size_out: int, like: Tensor, mode: str = 'bilinear') -> Tensor:
    """(size_out, size_in): the matrix that resizing of one dimension is, on ``like``'s device;
    modes are separable.
    """
    identity = torch.eye(size_in, dtype=torch.float32, device=like.device)
    return F.interpolate(identity[None, None], (size_out, size_in), mode=mode, align_corners=False)[
        0, 0
    ]


def path_weights(
    mask_size: int, padded_size: int, image_size: int, original_size: int | None, like: Tensor
) -> Tensor:
    """One dimension's way of a mask: to the padded batch, without the padding, to the original
    image.
    """
    weights = resize_weights(mask_size, padded_size, like)[:image_size]
    if original_size is not None:
        weights = resize_weights(image_size, original_size, like) @ weights
    return weights


def keep_best(class_logits: Tensor, num_kept: int) -> tuple[Tensor, Tensor, Tensor]:
    """The most probable pairs of query and class.

    Args:
        class_logits: (K, C + 1), the last class is "no object".
        num_kept: How many; all K C where there are fewer.

    Returns:
        Probabilities, queries and labels, (N,) each; a query may occur with several labels.
    """
    probabilities = class_logits.softmax(-1)[:, :-1]
    num_kept = min(num_kept, probabilities.numel())
    scores, index = probabilities.flatten().topk(num_kept, sorted=False)
    return scores, index // probabilities.shape[1], index % probabilities.shape[1]


def make_instances(
    class_logits: Tensor,
    embeds: Tensor,
    features: Tensor,
    rows: Tensor,
    columns: Tensor,
    max_per_image: int,
    num_things: int,
    probabilities: bool = False,
    logits_above: float | None = None,
    score_floor: float | None = None,
) -> InstanceData:
    """The instances of one image.

    Args:
        class_logits: (K, C + 1).
        embeds: (K, E) mask embeddings.
        features: (E, h, w) pixel features.
        rows: (H, h) how the rows of masks are resized, see :func:`path_weights`.
        columns: (W, w) how the columns are.
        max_per_image: Instances kept.
        num_things: Classes from this one on are stuff and left out.
        probabilities: Whether to return those of all pixels as well.
        logits_above: Return the mask logits as well, but only instances whose class score is above
            this.
        score_floor: Leave out instances whose class score, and so the score, is not above this.

    Returns:
        ``class_scores`` (class probability), ``mask_quality`` (mean probability of the mask's
        pixels) and their product ``scores``; ``labels``, ``masks`` (N, H, W) of bool and ``bboxes``
        (N, 4) as x1, y1, x2, y2, zeros for an empty mask. Also ``probabilities`` (N, h', w') of
        uint8, 255 is 1, of ``map_size``, or ``logits``, N :class:`MaskLogits`.
    """
    scores, queries, labels = keep_best(class_logits, max_per_image)
    chosen = labels < num_things
    if logits_above is not None:
        chosen &= scores > logits_above
    scores, queries, labels = scores[chosen], queries[chosen], labels[chosen]
    kept, mask_of = queries.unique(return_inverse=True)
    if len(kept) == len(queries):  # one class per query: no mask has to be copied
        kept, mask_of = queries, slice(None)
    logits = torch.einsum('nc,chw->nhw', embeds[kept], features).float()
    if score_floor is not None:  # only now: a product of fewer rows may round differently
        chosen = scores > score_floor
        scores, labels = scores[chosen], labels[chosen]
        logits, mask_of = _used_by(chosen, logits, mask_of)
    masks, mask_scores, boxes = resize_and_score(logits, rows, columns)
    quality = mask_scores[mask_of]
    found = InstanceData(
        scores=scores * quality,
        class_scores=scores,
        mask_quality=quality,
        labels=labels,
        masks=masks[mask_of],
        bboxes=boxes[mask_of],
    )
    if logits_above is not None:
        every = [MaskLogits(each, rows, columns) for each in logits]
        found.logits = every[mask_of] if kept is queries else [every[i] for i in mask_of.tolist()]
    if probabilities:
        small = map_size(masks.shape[1:])
        rows, columns = (
            F.adaptive_avg_pool1d(weights.T[None], size)[0].T
            for weights, size in zip((rows, columns), small)
        )
        found.probabilities = to_bytes((rows @ logits @ columns.T).sigmoid())[mask_of]
    return found


def _used_by(
    chosen: Tensor, logits: Tensor, mask_of: Tensor | slice
) -> tuple[Tensor, Tensor | slice]:
    """The masks that some instances use, and which of them each one uses.

    Args:
        chosen: (N,) of bool, the instances.
        logits: (K, h, w).
        mask_of: (N,) which of the K each instance uses, or ``slice(None)`` where N is K.
    """
    if isinstance(mask_of, slice):
        return logits[chosen], mask_of
    used, mask_of = mask_of[chosen].unique(return_inverse=True)
    return logits[used], mask_of


@dataclass(frozen=True)
class MaskLogits:
    """A mask's logits, to be resized where they are needed.

    Args:
        logits: (h, w).
        rows: (H, h) weights.
        columns: (W, w) weights.
    """

    logits: Tensor
    rows: Tensor
    columns: Tensor

    def __getitem__(self, place: tuple[slice, slice]) -> Tensor:
        """The resized logits (h', w') of float16, of some rows and columns."""
        rows, columns = self.rows[place[0]], self.columns[place[1]]
        return (rows @ self.logits @ columns.T).half()

    def clone(self) -> 'MaskLogits':
        """The same, without the tensor that its logits are a part of."""
        return MaskLogits(self.logits.clone(), self.rows, self.columns)


def to_bytes(probabilities: Tensor) -> Tensor:
    """[0, 1] as 0 to 255 of uint8."""
    return (probabilities * 255).round().byte()


def resize_and_score(
    logits: Tensor, rows: Tensor, columns: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Threshold resized masks.

    Args:
        logits: (N, h, w).
        rows: (H, h) weights.
        columns: (W, w) weights.

    Returns:
        Masks (N, H, W) of bool, the mean probability (N,) within each, and their boxes (N, 4).
    """
    masks = logits.new_zeros((len(logits), len(rows), len(columns)), dtype=torch.bool)
    sums, counts = logits.new_zeros(len(logits)), logits.new_zeros(len(logits))
    has_row, has_column = (logits.new_zeros((len(logits), size)) for size in masks.shape[1:])
    positive = logits > 0
    extents = torch.cat([_extent(positive.any(2), rows), _extent(positive.any(1), columns)], dim=1)
    row_bands, column_bands = bands_of(rows), bands_of(columns)
    for i, (top, bottom, left, right) in enumerate(extents.tolist()):  # one transfer for all masks
        if bottom <= top or right <= left:
            continue
        half = logits.new_empty((bottom - top, logits.shape[2]))
        for start, stop, first, last in _cut(row_bands, top, bottom):
            part = half[start - top : stop - top]
            torch.mm(rows[start:stop, first:last], logits[i, first:last], out=part)
        window = logits.new_empty((bottom - top, right - left))
        for start, stop, first, last in _cut(column_bands, left, right):
            part = window[:, start - left : stop - left]
            torch.mm(half[:, first:last], columns[start:stop, first:last].T, out=part)
        inside = window > 0
        masks[i, top:bottom, left:right] = inside
        has_row[i, top:bottom], has_column[i, left:right] = window.amax(1) > 0, window.amax(0) > 0
        counts[i] = inside.sum()
        sums[i] = window.sigmoid_().mul_(inside).sum()
    (left, right), (top, bottom) = _ends(has_column), _ends(has_row)
    return masks, sums / (counts + 1e-6), torch.stack([left, top, right, bottom], dim=1)


def bands_of(weights: Tensor) -> list[tuple[int, int, int, int]]:
    """Blocks of a resize matrix (N, n) that is zero off its diagonal: first output and last + 1,
    first input that they are made of and last + 1.

    Products of the blocks are bit by bit those of the whole matrix, as they leave out additions of
    zero, and a sixth of the work. On a GPU there is one block: it waits for starts of kernels, not
    for sums.
    """
    if weights.device.type != 'cpu':
        return [(0, *weights.shape[:1], 0, *weights.shape[1:])]
    parts = weights.split(BAND)
    used = torch.stack([(part != 0).any(0) for part in parts])
    first, last = (ends.long().tolist() for ends in _ends(used))
    starts = range(0, len(weights), BAND)
    return [
        (start, start + len(part), *ends) for start, part, *ends in zip(starts, parts, first, last)
    ]


def _cut(
    bands: list[tuple[int, int, int, int]], begin: int, end: int
) -> Iterator[tuple[int, int, int, int]]:
    """The parts of bands whose outputs lie in ``begin:end``."""
    for start, stop, first, last in bands:
        if max(start, begin) < min(stop, end):
            yield max(start, begin), min(stop, end), first, last


def _extent(positive: Tensor, weights: Tensor) -> Tensor:
    """First and last + 1 output (N, 2) to which any positive input (N, n) contributes; 0, 0 for
    none.
    """
    reached = positive.float() @ (weights > 0).float().T
    return torch.stack(_ends(reached), dim=1).long()


def _ends(counts: Tensor) -> tuple[Tensor, Tensor]:
    """First and last + 1 index of the positive entries of each row (N, n), as numbers (N,); 0, 0
    for none.
    """
    present = (counts > 0).float()
    size = present.shape[1]
    first, last = present.argmax(1), size - present.flip(1).argmax(1)
    found = present.any(1)
    return first * found.float(), last * found.float()


def sizes_of(
    meta: dict, rescale: bool
) -> tuple[Sequence[int], Sequence[int], Sequence[int | None]]:
    """Height and width of the padded batch, of the image in it, and of the original or nothing."""
    return (
        meta['batch_input_shape'],
        meta['img_shape'][:2],
        meta['ori_shape'][:2] if rescale else (None, None),
    )
