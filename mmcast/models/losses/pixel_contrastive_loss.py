"""The instance-aware pixel-wise contrastive loss as a module for configs."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mmcast.errors import CASTError
from mmcast.models.losses.functional import (
    drawn_products,
    expected_negative,
    fuse_pixel_probabilities,
    l2_normalize,
    nt_xent,
    sample_negatives,
)
from mmcast.registry import MODELS

# What each option may be; a misspelt one is refused.
CHOICES = dict(
    sampling=('uniform', 'mask', 'class', 'fusion'),
    negatives=('drawn', 'expected'),
    anchor_sampling=('uniform', 'instance'),
)


class LossInputError(CASTError, ValueError):
    """An option or a tensor shape that the loss cannot work with."""


class NonFiniteInputError(CASTError, FloatingPointError):
    """NaN or infinity in an input of the loss.

    Attributes:
        tensors: names of the inputs that hold it.
        images: indices in the batch.
    """

    tensors: Sequence[str] = ()
    images: Sequence[int] = ()

    @classmethod
    def of(cls, tensors: Sequence[str], images: Sequence[int]) -> 'NonFiniteInputError':
        """The error that names inputs and images."""
        error = cls(
            f'PixelContrastiveLoss: {", ".join(tensors)} not finite in image(s) {images} of the '
            'batch; lower the learning rate or check those images'
        )
        error.tensors, error.images = tensors, images
        return error


@dataclass
class SampledPixels:
    """Which pixels one call compares, counted through the batch.

    Attributes:
        y: (M, E), what the sampling mode compares, see :meth:`PixelContrastiveLoss.compare`.
        anchors: (A,) pixels; None for all M.
        negatives: (A, R) pixels, -1 throughout the row of an anchor that has none; None of the
            expected form, which visits all.
    """

    y: Tensor
    anchors: Tensor | None
    negatives: Tensor | None


@MODELS.register_module()
class PixelContrastiveLoss(nn.Module):
    """L_pxl of CAST: weak and strong view of a pixel attract, pixels of other instances repel
    (NT-Xent).

    Negatives of a weak-view pixel are weak-view pixels of the whole batch, its own image included,
    sampled with replacement in proportion to s_deb of their query embeddings (see
    :func:`functional.sample_negatives`). Gradients reach both embeddings, never the query logits.
    The result carries no weight; the detector applies l_pxl. It is the mean over the anchors of
    this process, whose images are its only candidates; DDP averages over processes.

    An anchor without any negative (its pixel is alone, or like all others) loses 0. Without queries
    (K = 0) every mode samples uniformly. Random numbers come from the global generator of the
    inputs' device. Memory is linear in anchors and in pixels. With sampled negatives so is the
    time, where they are not rare.

    Args:
        num_negatives: R, negatives per anchor.
        temperature: T at progress 0.
        final_temperature: T at progress 1.
        sampling: what s_deb compares: 'mask' (P_m), 'class' (F_c), 'fusion' (both), or 'uniform'
            (nothing: all pixels but the anchor's own are equally likely).
        mask_temperature: temperature of the softmax over the K mask logits.
        num_anchors: pixels of the batch taken as anchors, at most all, sampled anew in each call;
            default all.
        negatives: 'drawn' (R at random), or 'expected': the sum over R negatives is replaced by R
            times its expectation under s_deb. That has no sampling noise and visits every pair of
            anchor and pixel.
        anchor_sampling: with ``num_anchors``, 'uniform' (all pixels are equally likely, without
            replacement) or 'instance': every instance of the batch gets the same share in
            expectation, however small, so a pixel may be an anchor several times, each with
            negatives of its own; an instance is the pixels of one image that one query claims.

    Raises:
        LossInputError: an unknown sampling mode or a value out of range.
    """

    def __init__(
        self,
        num_negatives: int = 200,
        temperature: float = 0.3,
        final_temperature: float = 0.07,
        sampling: str = 'fusion',
        mask_temperature: float = 0.5,
        num_anchors: int | None = None,
        negatives: str = 'drawn',
        anchor_sampling: str = 'uniform',
    ) -> None:
        super().__init__()
        for name, value in dict(
            sampling=sampling, negatives=negatives, anchor_sampling=anchor_sampling
        ).items():
            if value not in CHOICES[name]:
                raise LossInputError(
                    f'PixelContrastiveLoss: {name}={value!r} is unknown, use one of {CHOICES[name]}'
                )
        if anchor_sampling != 'uniform' and num_anchors is None:
            raise LossInputError(
                f'PixelContrastiveLoss: anchor_sampling={anchor_sampling!r} without num_anchors '
                'chooses nothing; set num_anchors'
            )
        for name, value in dict(
            temperature=temperature,
            final_temperature=final_temperature,
            mask_temperature=mask_temperature,
        ).items():
            if not value > 0:
                raise LossInputError(f'PixelContrastiveLoss: {name}={value} must be greater than 0')
        for name, value in dict(num_negatives=num_negatives, num_anchors=num_anchors).items():
            if value is not None and value < 1:
                raise LossInputError(f'PixelContrastiveLoss: {name}={value} must be at least 1')
        self.num_negatives = num_negatives
        self.temperature = temperature
        self.final_temperature = final_temperature
        self.sampling = sampling
        self.mask_temperature = mask_temperature
        self.num_anchors = num_anchors
        self.negatives = negatives
        self.anchor_sampling = anchor_sampling

    def temperature_at(self, progress: float) -> float:
        """T after a fraction of the training, linear from ``temperature`` (0) to
        ``final_temperature`` (1).

        Raises:
            LossInputError: progress outside [0, 1] by more than rounding (1e-6).
        """
        if not -1e-6 <= progress <= 1 + 1e-6:
            raise LossInputError(
                f'PixelContrastiveLoss: progress={progress} must lie in [0, 1]; give iteration / '
                'max_iters'
            )
        return self.temperature + (self.final_temperature - self.temperature) * min(
            max(progress, 0.0), 1.0
        )

    def forward(
        self,
        z_weak: Tensor,
        z_strong: Tensor,
        mask_logits: Tensor,
        class_logits: Tensor,
        progress: float = 0.0,
    ) -> Tensor:
        """The unweighted loss, in float32 whatever autocast says (float64 for float64 embeddings).

        Args:
            z_weak: (B, D, h, w) embeddings of the weak view; normalised here.
            z_strong: (B, D, h, w) embeddings of the strong view of the same crops.
            mask_logits: (B, K, H, W) of the network's queries on the weak view.
            class_logits: (B, K, C+1) of the same queries, the last class is "no object".
            progress: fraction of the training done, in [0, 1].

        Returns:
            Scalar, always with a graph to both embeddings.

        Raises:
            LossInputError: shapes that do not belong together, or progress outside [0, 1].
            NonFiniteInputError: NaN or infinity; names the tensors and the images.
        """
        inputs = dict(
            z_weak=z_weak, z_strong=z_strong, mask_logits=mask_logits, class_logits=class_logits
        )
        _check_shapes(**inputs)
        _check_finite(**inputs)
        temperature = self.temperature_at(progress)
        with torch.autocast(z_weak.device.type, enabled=False):
            weak, strong = _pixel_vectors(z_weak), _pixel_vectors(z_strong)  # (M, D), M = B h w
            sampled = self.sample_pixels(mask_logits, class_logits, z_weak.shape[-2:])
            # Index only where there is something to leave out: its backward is slow.
            own, other = (
                t if sampled.anchors is None else t.index_select(0, sampled.anchors)
                for t in (weak, strong)
            )
            positive = (own * other).sum(1) / temperature
            negative = self._negatives(own / temperature, weak, sampled)
            return nt_xent(positive, negative)

    @torch.no_grad()
    def sample_pixels(
        self, mask_logits: Tensor, class_logits: Tensor, size: tuple[int, int]
    ) -> SampledPixels:
        """Anchors and negatives, of the M = B h w pixels of (h, w) = ``size``.

        A call before that of the loss, with the same random state, samples what the loss will.
        """
        y, instance = self.compare(mask_logits, class_logits, size)
        anchors = self._draw_anchors(instance)
        drawn = None
        if self.negatives == 'drawn':
            drawn = sample_negatives(y, self.num_negatives, anchors)
        return SampledPixels(y, anchors, drawn)

    def compare(
        self, mask_logits: Tensor, class_logits: Tensor, size: tuple[int, int]
    ) -> tuple[Tensor, Tensor]:
        """What decides about negatives and anchors, for the M = B h w pixels of (h, w) = ``size``.

        Returns:
            y (M, E), what the sampling mode compares; E = 0 for 'uniform', which scores all alike.
            And the instance (M,) that a pixel belongs to, a number of its own for each query of
            each image.
        """
        ys, instances = [], []
        # One image at a time: the full-size masks of a batch would be most of the memory.
        for masks, classes in zip(mask_logits.split(1), class_logits.split(1)):
            mask, expected_class = fuse_pixel_probabilities(
                _at_least_float32(masks), _at_least_float32(classes), size, self.mask_temperature
            )
            parts = dict(
                uniform=[mask[:, :0]],
                mask=[mask],
                fusion=[mask, expected_class],
                **{'class': [expected_class]},
            )
            y = torch.cat(parts[self.sampling], dim=1)
            ys.append(y.flatten(2)[0].T)
            query = (
                mask.argmax(1) if mask.numel() else mask.new_zeros(mask.shape[2:], dtype=torch.long)
            )
            instances.append(query.flatten() + len(instances) * max(1, mask.shape[1]))
        return torch.cat(ys), torch.cat(instances)

    def _draw_anchors(self, instance: Tensor) -> Tensor | None:
        """(A,) pixels, None for all of them once."""
        if self.num_anchors is None:
            return None
        number, device = min(self.num_anchors, len(instance)), instance.device
        if self.anchor_sampling == 'uniform':
            if number == len(instance):
                return None
            return torch.randperm(len(instance), device=device)[:number]
        _, member, sizes = instance.unique(return_inverse=True, return_counts=True)
        # With replacement, as else an instance could have no more anchors than pixels. In float64:
        # cumulative sums of float32 are inexact where there are many pixels.
        return torch.multinomial(1 / sizes[member].double(), number, replacement=True)

    def _negatives(self, anchors: Tensor, pixels: Tensor, sampled: SampledPixels) -> Tensor:
        """Logits of the negatives, (A, R); of their expected sum, (A, 1)."""
        drawn, indices = sampled.negatives, sampled.anchors
        if drawn is None:
            if indices is None:
                indices = torch.arange(len(pixels), device=pixels.device)
            return expected_negative(anchors, pixels, sampled.y, indices)[:, None] + math.log(
                self.num_negatives
            )
        missing = drawn[:, :1] < 0  # all of a row or none
        return drawn_products(anchors, pixels, drawn.clamp_min_(0)).masked_fill_(missing, -math.inf)


def _at_least_float32(tensor: Tensor) -> Tensor:
    return tensor if tensor.dtype == torch.float64 else tensor.float()


def _pixel_vectors(z: Tensor) -> Tensor:
    """(B, D, h, w) -> unit vectors (B h w, D), in the order of the query embeddings."""
    return l2_normalize(_at_least_float32(z).permute(0, 2, 3, 1).flatten(0, 2))


def _check_shapes(
    z_weak: Tensor, z_strong: Tensor, mask_logits: Tensor, class_logits: Tensor
) -> None:
    shapes = [tuple(t.shape) for t in (z_weak, z_strong, mask_logits, class_logits)]
    fits = (
        [len(shape) for shape in shapes] == [4, 4, 4, 3]
        and shapes[0] == shapes[1]
        and len(mask_logits) == len(z_weak)
        and shapes[2][:2] == shapes[3][:2]
    )
    if not fits:
        raise LossInputError(
            'PixelContrastiveLoss needs z_weak and z_strong (B, D, h, w), mask_logits (B, K, H, '
            f'W) and class_logits (B, K, C+1); got {shapes[0]}, {shapes[1]}, {shapes[2]} and '
            f'{shapes[3]}'
        )


def _check_finite(**tensors: Tensor) -> None:
    # (4, B), one transfer to the host for all of them.
    broken = torch.stack(
        [~_all_finite(tensor.detach().flatten(1)) for tensor in tensors.values()]
    ).cpu()
    if broken.any():
        names = [name for name, row in zip(tensors, broken) if row.any()]
        raise NonFiniteInputError.of(names, broken.any(0).nonzero().flatten().tolist())


def _all_finite(rows: Tensor) -> Tensor:
    """Whether each row (B, N) is; its extremes tell, where isfinite() would hold a copy of
    everything.
    """
    if not rows.numel():
        return rows.new_ones(len(rows), dtype=torch.bool)
    if rows.is_cpu:  # where it takes ten times as long along a dimension
        extremes = torch.stack([torch.stack(row.aminmax()) for row in rows], dim=1)
    else:
        extremes = torch.stack(rows.aminmax(dim=1))
    return extremes.isfinite().all(0)
