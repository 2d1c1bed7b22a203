"""What the pixel loss compares in training steps: the sub-command `samples` of pixel_loss.py."""

import copy
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import cv2
import numpy as np
import torch
from matplotlib.figure import Figure
from pixel_features import estimate
from torch import Tensor

from mmcast.files import replacing
from mmcast.models.cast import CASTDetector
from mmcast.models.losses.functional import drawn_products, l2_normalize
from mmcast.training.hooks.pixel_diagnostics import instance_map

#: What may lie where a negative was drawn, by the labels.
KINDS = (
    "the anchor's instance",
    'same image, other instance of its class',
    'same image, other class',
    'same image, no instance',
    'other image, instance',
    'other image, no instance',
    'padding',
)
OWN, PADDING = 0, KINDS.index('padding')
#: Of a negative in the picture; the anchor's instance is the false one.
COLOURS = ('red', 'lime', 'cyan', 'dodgerblue', 'yellow', 'dodgerblue', 'white')
LEGEND = (
    "anchor (star) in the weak and the strong view, then its negatives. Red: the anchor's own "
    'instance (false); green: another of its class;\ncyan: of another class; blue: no instance; '
    'yellow: an instance of another image; white: padding. Larger: drawn more often'
)
SHOWN_IMAGES = 4  # of a batch, in a picture


def prepared(model: CASTDetector, batch: dict) -> tuple[Tensor, list]:
    """Images (B, 3, H, W) and their samples as the model gets them in training."""
    data = model.data_preprocessor(copy.deepcopy(batch), training=True)
    return data['inputs'], data['data_samples']


@dataclass
class Step:
    """What the pixel loss saw in one training step. M = B h w pixels, A anchors, R negatives.

    Attributes:
        weak, strong: (B, H, W, 3) uint8 RGB, the two views.
        cosines: (M,) of the two views of a pixel.
        embeddings: (M, D), unit vectors of the weak view.
        anchors: (A,), those that have a negative.
        negatives: (A, R).
        lonely: How many anchors have none.
        image, instance, label: (M,); an instance is numbered through the batch, -1 for none.
        padding: (M,) whether the pixel is outside of its image.
        size: (h, w).
        outlines: For each image, its instances as outlines for OpenCV.
        objects: How many instances are labeled in the batch.
        pseudo: (B,) whether an image's labels are not from people.
    """

    weak: np.ndarray
    strong: np.ndarray
    cosines: Tensor
    embeddings: Tensor
    anchors: Tensor
    negatives: Tensor
    lonely: int
    image: Tensor
    instance: Tensor
    label: Tensor
    padding: Tensor
    size: tuple[int, int]
    temperature: float
    outlines: list[list]
    objects: int
    pseudo: Tensor

    def kinds(self, anchors: Tensor, others: Tensor) -> Tensor:
        """Which of ``KINDS`` each of ``others`` (A, N) is to its anchor (A,)."""
        own = anchors[:, None]
        nothing = self.instance[others] < 0
        found = torch.where(self.label[others] == self.label[own], 1, 2)
        found = torch.where(nothing, 3, found)
        found = torch.where(~nothing & (self.instance[others] == self.instance[own]), OWN, found)
        elsewhere = self.image[others] != self.image[own]
        found = torch.where(elsewhere, 4 + nothing.int(), found)
        return torch.where(self.padding[others], PADDING, found)

    def centres(self, pixels: Tensor) -> tuple[np.ndarray, np.ndarray]:
        """Columns and rows of pixels' centres in the pictures."""
        (height, width), place = self.size, pixels % (self.size[0] * self.size[1])
        rows, columns = place // width, place % width
        return (
            ((columns + 0.5) * self.weak.shape[2] / width - 0.5).numpy(),
            ((rows + 0.5) * self.weak.shape[1] / height - 0.5).numpy(),
        )


@torch.no_grad()
def look(model: CASTDetector, batch: dict, progress: float) -> Step:
    """Take the losses of a training step and keep what the pixel loss saw.

    Args:
        model: In training, at ``progress``.
        batch: Of its data loader.
        progress: Fraction of the training that is done.
    """
    contrast, seen, views = model.pixel_contrast, {}, []

    def observe(z_weak: Tensor, z_strong: Tensor, masks: Tensor, classes: Tensor, _: Any) -> None:
        # What the loss will sample right after; the expected form has all pixels in these shares.
        with torch.random.fork_rng(), mock.patch.object(contrast.loss, 'negatives', 'drawn'):
            sampled = contrast.loss.sample_pixels(masks, classes, z_weak.shape[-2:])
        seen.update(weak=z_weak, strong=z_strong, sampled=sampled)

    hook = contrast.strong_view.register_forward_hook(
        lambda _, given, out: views.extend((given, out))
    )
    contrast.observer = observe
    inputs, samples = prepared(model, batch)
    try:
        model.loss(inputs, samples)
    finally:
        contrast.observer = None
        hook.remove()
    pictures = [_as_pictures(model, view) for view in (views[0][0], views[1])]
    seen['temperature'] = contrast.loss.temperature_at(progress)
    return _as_step(seen, samples, pictures, tuple(inputs.shape[-2:]))


def _as_pictures(model: CASTDetector, view: Tensor) -> np.ndarray:
    normaliser = model.data_preprocessor
    pixels = (view * normaliser.std + normaliser.mean).clamp(0, 255).byte().cpu()
    if not normaliser._channel_conversion:  # OpenCV's order
        pixels = pixels.flip(1)
    return np.ascontiguousarray(pixels.permute(0, 2, 3, 1).numpy())


def _as_step(
    seen: Mapping, samples: Sequence, pictures: Sequence[np.ndarray], canvas: tuple[int, int]
) -> Step:
    weak, strong = (
        l2_normalize(z.float().permute(0, 2, 3, 1).flatten(0, 2)).cpu()
        for z in (seen['weak'], seen['strong'])
    )
    size, sampled = tuple(seen['weak'].shape[-2:]), seen['sampled']
    anchors = torch.arange(len(weak)) if sampled.anchors is None else sampled.anchors.cpu()
    negatives = sampled.negatives.cpu()
    has_negative = negatives[:, 0] >= 0
    instance = instance_map(samples, size)
    labels = torch.cat(
        [*(sample.gt_instances.labels.cpu() for sample in samples), torch.tensor([-1])]
    )
    rows, columns = ((torch.arange(n) + 0.5) * (side / n) for n, side in zip(size, canvas))
    inside = [
        (rows[:, None] < sample.img_shape[0]) & (columns < sample.img_shape[1])
        for sample in samples
    ]
    return Step(
        *pictures,
        cosines=(weak * strong).sum(1),
        embeddings=weak,
        anchors=anchors[has_negative],
        negatives=negatives[has_negative],
        lonely=int((~has_negative).sum()),
        image=torch.arange(len(samples)).repeat_interleave(size[0] * size[1]),
        instance=instance,
        label=labels[instance],
        padding=~torch.stack(inside).flatten(),
        size=size,
        temperature=seen['temperature'],
        outlines=[_outlines(sample) for sample in samples],
        objects=len(labels) - 1,
        pseudo=torch.tensor([s.metainfo.get('source', 'labeled') != 'labeled' for s in samples]),
    )


def _outlines(sample: Any) -> list:
    masks = sample.gt_instances.masks.to_ndarray()
    return [
        cv2.findContours(mask, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)[0]
        for mask in masks.astype(np.uint8)
    ]


@dataclass
class Tally:
    """What was drawn for the anchors of one image: (kinds,) each.

    Attributes:
        drawn: Fraction of the negatives of an anchor, summed over anchors.
        uniform: The same if all pixels but the anchor were equally likely.
        push: Fraction of the gradient of the negatives' similarities, summed over anchors.
        cosine: Cosine with the anchor, summed over negatives.
        negatives: How many these are.
        anchors: How many anchors.
        positive: Sum of the cosines of their two views.
    """

    drawn: np.ndarray
    uniform: np.ndarray
    push: np.ndarray
    cosine: np.ndarray
    negatives: np.ndarray
    anchors: int
    positive: float


def tally(step: Step, on_instance: bool, number: int, seed: int) -> dict[int, Tally]:
    """What was drawn for ``number`` of the anchors on instances, or on none, by image."""
    chosen = ((step.instance[step.anchors] >= 0) == on_instance) & ~step.padding[step.anchors]
    rows = chosen.nonzero().flatten()
    shuffled = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))
    rows = rows[shuffled[:number]]
    found = {}
    for image in step.image[step.anchors[rows]].unique().tolist():
        own = rows[step.image[step.anchors[rows]] == image]
        anchors, negatives = step.anchors[own], step.negatives[own]
        kinds = step.kinds(anchors, negatives)
        cosines = drawn_products(step.embeddings[anchors], step.embeddings, negatives)
        everything = torch.arange(len(step.image))
        uniform = torch.zeros(len(KINDS))
        for part in anchors.split(256):
            uniform += torch.bincount(
                step.kinds(part, everything.expand(len(part), -1)).flatten(), minlength=len(KINDS)
            )
        uniform[_kind_of_anchor(step, anchors)] -= len(anchors)  # never its own negative
        count = torch.bincount(kinds.flatten(), minlength=len(KINDS))
        weights = (cosines / step.temperature).softmax(1)
        push = torch.bincount(kinds.flatten(), weights.flatten(), minlength=len(KINDS))
        sums = torch.bincount(kinds.flatten(), cosines.flatten(), minlength=len(KINDS))
        found[image] = Tally(
            drawn=(count / negatives.shape[1]).numpy(),
            uniform=(uniform / (len(everything) - 1)).numpy(),
            push=push.numpy(),
            cosine=sums.numpy(),
            negatives=count.numpy(),
            anchors=len(anchors),
            positive=float(step.cosines[anchors].sum()),
        )
    return found


def _kind_of_anchor(step: Step, anchors: Tensor) -> int:
    """What an anchor is to itself: ``OWN``, or 'same image, no instance'."""
    return int(step.kinds(anchors[:1], anchors[:1, None]))


def show_tallies(title: str, tallies: Sequence[Tally]) -> None:
    """The table of what was drawn; nothing for no anchors."""
    if not tallies:
        return
    anchors = np.array([each.anchors for each in tallies], float)
    positive = np.array([each.positive for each in tallies])
    print(
        f'  {sum(each.anchors for each in tallies)} anchors {title}, in {len(tallies)} images; '
        f'cosine of their two views {estimate(_pairs(positive, anchors)):.3f}'
    )
    heads = ('% of all pixels', '% drawn', '% of the push', 'cosine')
    print(f'    {"negatives":40}' + ''.join(f'{head:>26}' for head in heads))
    for index, kind in enumerate(KINDS):
        uniform, drawn, push, cosine, number = (
            np.array([getattr(each, name)[index] for each in tallies], float)
            for name in ('uniform', 'drawn', 'push', 'cosine', 'negatives')
        )
        if uniform.any():
            shares = (_pairs(100 * each, anchors) for each in (uniform, drawn, push))
            cells = [f'{estimate(share):.1f}' for share in shares]
            cells.append(f'{estimate(_pairs(cosine, number)):.3f}' if number.any() else '-')
            print(f'    {kind:40}' + ''.join(f'{cell:>26}' for cell in cells))


def _pairs(numerators: np.ndarray, denominators: np.ndarray) -> np.ndarray:
    """(images, 1, 2), as :func:`estimate` takes them."""
    return np.stack([numerators, denominators], axis=1)[:, None]


def report_samples(steps: Sequence[Step], number: int, seed: int) -> None:
    """What the pixel loss compared in these steps."""
    size, canvas = steps[0].size, steps[0].weak.shape[1:3]
    seen = sum(len(step.instance[step.instance >= 0].unique()) for step in steps)
    total = sum(step.objects for step in steps)
    anchors = sum(len(step.anchors) + step.lonely for step in steps)
    padded = sum(int(step.padding[step.anchors].sum()) for step in steps)
    print(
        f'  {len(steps)} batches of {len(steps[0].weak)} images, maps of {size[0]}x{size[1]} for '
        f'{canvas[0]}x{canvas[1]} pixels; {seen} of {total} labeled instances have the centre of a '
        f'pixel; {anchors} anchors, {sum(step.lonely for step in steps)} without a negative, '
        f'{padded} on padding'
    )
    for title, on_instance in (('on instances', True), ('on no instance', False)):
        by_source = defaultdict(list)
        for index, step in enumerate(steps):
            for image, found in tally(step, on_instance, number, seed + index).items():
                by_source[bool(step.pseudo[image])].append(found)
        for pseudo, found in sorted(by_source.items()):
            source = ', by pseudo-labels' if pseudo else ''
            show_tallies(title + source, found)


def draw_samples(steps: Sequence[Step], rows: int, title: str, path: Path, seed: int) -> None:
    """Anchors of the steps in turn, two in three on instances: both views, and the negatives on
    the images of the batch.
    """
    shown = min(SHOWN_IMAGES, len(steps[0].weak))
    columns = 2 + shown
    height, width = steps[0].weak.shape[1:3]
    figure = Figure(
        figsize=(2.6 * columns, rows * (2.6 * height / width + 0.35)), layout='constrained'
    )
    axes = figure.subplots(rows, columns, squeeze=False)
    generator = torch.Generator().manual_seed(seed)
    for row, line in enumerate(axes):
        step = steps[row % len(steps)]
        wanted = (step.instance[step.anchors] >= 0) == (row % 3 < 2)
        choices = (wanted & ~step.padding[step.anchors]).nonzero().flatten()
        for axis in line:
            axis.set_axis_off()
        if len(choices):
            pick = int(choices[torch.randint(len(choices), (), generator=generator)])
            _draw_row(line, step, int(step.anchors[pick]), step.negatives[pick])
    figure.suptitle(f'{title}: {LEGEND}', fontsize=8)
    with replacing(path, '.png') as new:
        figure.savefig(new, dpi=110)
    print(path)


def _draw_row(axes: Sequence, step: Step, anchor: int, negatives: Tensor) -> None:
    own_image, own = int(step.image[anchor]), torch.tensor([anchor])
    kinds = step.kinds(own, negatives[None])[0]
    cosines = step.embeddings[negatives] @ step.embeddings[anchor]
    place = step.centres(own)
    for axis, view in zip(axes, (step.weak, step.strong)):
        axis.imshow(view[own_image])
        axis.plot(*place, '*', color='magenta', markersize=11, markeredgecolor='white')
    what = 'on an instance' if step.instance[anchor] >= 0 else 'on no instance'
    axes[0].set_title(f'anchor {what}, weak', fontsize=7)
    axes[1].set_title(f'strong, cosine {step.cosines[anchor]:.2f}', fontsize=7)
    others = [image for image in range(len(step.weak)) if image != own_image]
    for axis, image in zip(axes[2:], [own_image, *others]):
        picture = step.weak[image].copy()
        for outline in step.outlines[image]:
            cv2.drawContours(picture, outline, -1, (255, 255, 255), 1)
        axis.imshow(picture)
        here = step.image[negatives] == image
        pixels, counts = negatives[here].unique(return_counts=True)
        colours = [COLOURS[kind] for kind in step.kinds(own, pixels[None])[0].tolist()]
        axis.scatter(
            *step.centres(pixels),
            s=6 + 6 * counts.numpy(),
            c=colours,
            linewidths=0.3,
            edgecolors='k',
        )
        if image == own_image:
            axis.plot(*place, '*', color='magenta', markersize=11, markeredgecolor='white')
        false = int((kinds[here] == OWN).sum())
        mean = f', cosine {cosines[here].mean():.2f}' if here.any() else ''
        where = 'the same image' if image == own_image else 'another'
        axis.set_title(f'{where}: {int(here.sum())} ({false} false){mean}', fontsize=7)
