"""Do torch and onnxruntime find the same instances?"""

import contextlib
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import torch
from mmdet.structures import DetDataSample
from mmengine.config import Config
from torch import nn

from mmcast.coco.reading import read_image_list
from mmcast.data.loading import value_range_of
from mmcast.deploy.export import resize_scale
from mmcast.deploy.instances import Instances
from mmcast.deploy.onnx_student import OnnxStudent, scaled_size
from mmcast.errors import CASTError
from mmcast.images import read_image
from mmcast.masks.cropped import CroppedMasks

THRESHOLD = 0.05  # instances above it are compared
_BATCHES = (1, 3)


@dataclass(frozen=True)
class Tolerance:
    """Least mean and least single mask IoU, largest score difference, largest fraction without a
    partner.
    """

    mean_iou: float
    min_iou: float
    score: float
    alone: float


# Rounding changes what masked attention attends to, so that single instances can change altogether.
TOLERANCES = dict(
    fp32=Tolerance(0.99, 0.99, 0.01, 0),
    fp16=Tolerance(0.98, 0, 0.2, 0.03),
    int8=Tolerance(0.9, 0, 1, 0.1),
)


@dataclass
class Agreement:
    """How far two predictors agree on some images; see :func:`compare`."""

    images: int = 0
    instances: int = 0
    alone: int = 0
    ious: list[float] = field(default_factory=list)
    score_differences: list[float] = field(default_factory=list)

    def add(self, expected: Instances, found: Instances) -> None:
        """Count one image; an expected instance is compared with the most similar of its class."""
        self.images += 1
        self.instances += len(expected)
        for mask, score, label in zip(expected.masks, expected.scores, expected.labels):
            # Of equally similar ones (two queries may find one object) that of the nearest score.
            candidates = [
                (mask_iou(mask, found.masks[place]), -abs(float(score - found.scores[place])))
                for place in np.flatnonzero(found.labels == label)
            ]
            iou, difference = max(candidates, default=(0, 0))
            if iou >= 0.5:
                self.ious.append(iou)
                self.score_differences.append(-difference)
            elif (
                score > 1.2 * THRESHOLD
            ):  # nearer to it, it may be on the other side in one of the two
                self.alone += 1

    def problems(self, tolerance: Tolerance) -> list[str]:
        """In what respect they differ by more than ``tolerance``; empty where they agree."""
        if not self.ious:
            return (
                [f'none of {self.instances} instances is found by both'] if self.instances else []
            )
        checks = {
            f'mean mask IoU {np.mean(self.ious):.4f}': np.mean(self.ious) >= tolerance.mean_iou,
            f'smallest mask IoU {min(self.ious):.4f}': min(self.ious) >= tolerance.min_iou,
            f'scores differ by {max(self.score_differences):.4f}': max(self.score_differences)
            <= tolerance.score,
            f'{self.alone} of {self.instances} instances are found by torch alone': self.alone
            <= tolerance.alone * self.instances,
        }
        return [text for text, fine in checks.items() if not fine]

    def __str__(self) -> str:
        if not self.ious:
            return (
                f'{self.images} images without an instance above {THRESHOLD}: nothing was compared'
            )
        return (
            f'{self.instances} instances on {self.images} images: mask IoU mean '
            f'{np.mean(self.ious):.4f}, smallest {min(self.ious):.4f}; largest score difference '
            f'{max(self.score_differences):.4f}; {self.alone} found by torch alone'
        )


def mask_iou(one: np.ndarray, other: np.ndarray) -> float:
    """Of two masks (H, W) of bool; 1 where they differ in up to two pixels only, which rounding
    decides.
    """
    union, shared = np.count_nonzero(one | other), np.count_nonzero(one & other)
    if union == 0 or (shared and union - shared <= 2):
        return 1.0
    return shared / union


def compare_runtimes(
    network: nn.Module, student: OnnxStudent, cfg: Config, precision: str
) -> Agreement:
    """:func:`compare_instances`.

    Raises:
        CASTError: they differ by more than the precision's tolerance.
    """
    agreement = compare_instances(network, student, cfg)
    problems = agreement.problems(TOLERANCES[precision])
    if problems:
        fix = 'please report it, or try another --precision'
        if precision == 'int8':
            static = student.metadata['quantisation'] == 'static'
            fix = (
                f'try {"other or more calibration images" if static else "--calibration"} and let '
                'the AP decide with --max-ap-drop, or another --precision'
            )
        raise CASTError(
            f'the {precision} ONNX file does not agree with torch ({"; ".join(problems)}) and was '
            f'removed; {fix}'
        )
    return agreement


def compare_instances(network: nn.Module, student: OnnxStudent, cfg: Config) -> Agreement:
    """Compare at three image sizes and two batch sizes, on the test set's images where they are
    there.
    """
    divisor = student.metadata['pad_size_divisor']
    side = 16 * divisor
    agreement = Agreement()
    photos = example_images(cfg, sum(_BATCHES))
    for size in ((side, 2 * side), (side + 5, side + 3 * divisor - 1), (2 * side - 1, side)):
        images = np.stack(
            [cv2.resize(photo, size[::-1], interpolation=cv2.INTER_AREA) for photo in photos]
        )
        for batch in np.split(images, np.cumsum(_BATCHES)[:-1]):
            for expected, found in zip(run_torch(network, batch), student.run(batch, THRESHOLD)):
                agreement.add(expected[expected.scores > THRESHOLD], found)
    return agreement


@torch.no_grad()
def run_torch(network: nn.Module, images: np.ndarray) -> list[Instances]:
    """mmdet's own prediction of a batch (B, H, W, 3) of uint8, RGB."""
    size = images.shape[1:3]
    meta = dict(img_shape=size, ori_shape=size, scale_factor=(1.0, 1.0))
    inputs = [
        torch.from_numpy(np.ascontiguousarray(image[..., ::-1].transpose(2, 0, 1)))
        for image in images
    ]
    samples = network.test_step(
        dict(inputs=inputs, data_samples=[DetDataSample(metainfo=meta) for _ in images])
    )
    return [to_instances(sample) for sample in samples]


def to_instances(sample: DetDataSample) -> Instances:
    """mmdet's predictions in numpy, best first."""
    predicted = sample.pred_instances.cpu()
    if 'masks' not in predicted:
        raise CASTError('the model predicts boxes but no masks; give one that segments instances')
    boxes, scores, labels = (predicted[name].numpy() for name in ('bboxes', 'scores', 'labels'))
    masks = predicted['masks']
    if not isinstance(masks, CroppedMasks):
        masks = masks.numpy()
    return Instances(boxes, masks, scores, labels).best_first()


def read_test_images(cfg: Config, count: int) -> list[np.ndarray]:
    """At most ``count`` RGB images of a COCO test set, none without it: a student travels without
    data.
    """
    dataset = cfg.test_dataloader.dataset
    if not dataset.get('ann_file'):
        return []
    root = Path(dataset.get('data_root') or '')
    folder = root / (dataset.get('data_prefix') or {}).get('img', '')
    try:
        listed = read_image_list(root / dataset.ann_file)['images']
    except CASTError:
        return []
    chosen = listed[:: max(1, len(listed) // count)][:count]
    images, value_range = [], value_range_of(cfg)
    for image in chosen:
        with contextlib.suppress(CASTError):
            images.append(read_image(folder / image['file_name'], value_range))
    return images


def first_test_image(cfg: Config) -> np.ndarray | None:
    """An image of the test set at the size that the test pipeline gives it; None where there is
    none.
    """
    images = read_test_images(cfg, 1)
    if not images:
        return None
    size = scaled_size(images[0].shape[:2], resize_scale(cfg))
    return cv2.resize(images[0], size[::-1], interpolation=cv2.INTER_LINEAR)


def example_images(cfg: Config, count: int) -> list[np.ndarray]:
    """RGB images of the test set, else blurred noise."""
    images = read_test_images(cfg, count)
    rng = np.random.default_rng(0)
    while len(images) < count:
        noise = rng.integers(0, 256, (24, 24, 3), dtype=np.uint8)
        images.append(cv2.resize(noise, (256, 256), interpolation=cv2.INTER_CUBIC))
    return images
