"""A hook that shows what the pixel loss does: margin, false negatives, similarities."""

from collections.abc import Sequence
from typing import Any

import torch
from mmdet.structures import SampleList
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import Tensor, nn

from mmcast.models.losses.diagnostics import pixel_statistics
from mmcast.registry import HOOKS


@HOOKS.register_module()
class PixelDiagnosticsHook(Hook):
    """Log ``pxl_*`` at an interval, see :func:`pixel_statistics`; the report draws them.

    It measures the batch that is trained on, against its labels: ground truth on labeled images,
    pseudo-labels on others. In a distributed run the figures are rank 0's. It has random numbers of
    its own, so a run with it trains exactly as one without. Without a pixel loss it does nothing.

    Args:
        interval: Iterations between two measurements; those of the logger, or some are not written.
        num_anchors: Pixels sampled as anchors.
        num_negatives: Negatives sampled for each.
    """

    def __init__(
        self, interval: int = 50, num_anchors: int = 1024, num_negatives: int = 64
    ) -> None:
        self.interval = interval
        self.num_anchors = num_anchors
        self.num_negatives = num_negatives
        self._statistics: dict[str, float] = {}

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Measure this iteration, if it is due."""
        contrast = self._contrast(runner)
        if contrast is not None and self.every_n_train_iters(runner, self.interval):
            contrast.observer = lambda *seen: self._look(contrast.loss, runner.iter, *seen)

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Pass the figures to the logger."""
        contrast = self._contrast(runner)
        if contrast is not None:
            contrast.observer = None
        for name, value in self._statistics.items():
            runner.message_hub.update_scalar(f'train/pxl_{name}', value)
        self._statistics = {}

    @staticmethod
    def _contrast(runner: Runner) -> nn.Module | None:
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        return getattr(model, 'pixel_contrast', None)

    def _look(
        self,
        loss: nn.Module,
        iteration: int,
        z_weak: Tensor,
        z_strong: Tensor,
        mask_logits: Tensor,
        class_logits: Tensor,
        data_samples: SampleList,
    ) -> None:
        size = z_weak.shape[-2:]
        weak, strong = (z.float().permute(0, 2, 3, 1).flatten(0, 2) for z in (z_weak, z_strong))
        generator = torch.Generator(z_weak.device).manual_seed(iteration)
        pseudo = torch.tensor(
            [s.metainfo.get('source', 'labeled') != 'labeled' for s in data_samples]
        )
        # As in the loss: in half precision, pixels that differ little would be no negatives.
        with torch.autocast(z_weak.device.type, enabled=False):
            y, _ = loss.compare(mask_logits, class_logits, size)
            self._statistics = pixel_statistics(
                weak,
                strong,
                y,
                instance_map(data_samples, size).to(z_weak.device),
                pseudo.repeat_interleave(size[0] * size[1]).to(z_weak.device),
                self.num_anchors,
                self.num_negatives,
                generator,
            )


def instance_map(data_samples: SampleList, size: Sequence[int]) -> Tensor:
    """(B h w,) the instance on which the centre of each pixel of a feature map lies, -1 for none.

    Args:
        data_samples: With ``gt_instances.masks`` on the padded canvas (H, W).
        size: (h, w) of the feature map.
    """
    maps, count = [], 0
    for sample in data_samples:
        masks = sample.gt_instances.masks.to_tensor(torch.bool, 'cpu')  # (G, H, W)
        rows, columns = (
            ((torch.arange(n) + 0.5) * (side / n)).long() for n, side in zip(size, masks.shape[1:])
        )
        masks = masks[:, rows][:, :, columns].flatten(1)
        label = torch.full(masks.shape[1:], -1)
        if len(masks):
            label = masks.int().argmax(0).add(count).where(masks.any(0), label)
        maps.append(label)
        count += len(masks)
    return torch.cat(maps)
