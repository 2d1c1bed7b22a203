"""A student, or any mmdet instance segmentation model, in torch, called like one in onnxruntime."""

import copy
from pathlib import Path

import numpy as np
import torch
from mmcv.transforms import Compose
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.device import get_device
from mmengine.registry import DefaultScope

from mmcast.configs import load_config
from mmcast.data.loading import value_range_of
from mmcast.deploy.agreement import to_instances
from mmcast.deploy.export import build_network, dataset_meta
from mmcast.deploy.inputs import prepare_image
from mmcast.deploy.instances import Instances
from mmcast.errors import CASTError
from mmcast.models.weights.loading import load_weights


class TorchStudent:
    """A model with its test pipeline, predicting on images in memory.

    Args:
        config: of a model that segments instances, with ``test_dataloader``.
        checkpoint: its weights.
        device: by default the accelerator if there is one.

    Attributes:
        classes: names by label.
        score_threshold: the default, 0.3.
        value_range: what is black and white in images of more than 8 bits; None refuses them.

    Raises:
        CASTError: a file is missing or damaged, or the weights are not those of the config.
    """

    def __init__(
        self, config: str | Path, checkpoint: str | Path, device: str | None = None
    ) -> None:
        cfg = load_config(Path(config))
        if not cfg.get('model') or not cfg.get('test_dataloader'):
            raise CASTError(
                f'{config} has no model or no test_dataloader; give the config of one run'
            )
        self.model = build_network(cfg)
        load_weights(self.model, str(checkpoint))
        self.model.to(device or get_device()).eval()
        for part in self.model.modules():
            if hasattr(part, 'cropped_masks'):
                part.cropped_masks = True
        self.classes = dataset_meta(cfg)['classes']
        self.score_threshold = 0.3
        self.value_range = value_range_of(cfg)
        self.pipeline = _pipeline_of_arrays(cfg)

    @torch.no_grad()
    def __call__(self, image: np.ndarray, score_threshold: float | None = None) -> Instances:
        """Instances of an RGB image, (H, W, 3) of uint8 or what
        :func:`~mmcast.deploy.inputs.prepare_image` makes of others; masks of its size.

        Raises:
            CASTError: it is no image.
        """
        threshold = self.score_threshold if score_threshold is None else score_threshold
        image = prepare_image(image, self.value_range)
        data = self.pipeline(
            dict(img=np.ascontiguousarray(image[..., ::-1]), img_id=0, img_path='')
        )
        found = to_instances(self.model.test_step(pseudo_collate([data]))[0])
        return found[found.scores > threshold]


def _pipeline_of_arrays(cfg: Config) -> Compose:
    """The test pipeline with an array, BGR, in place of a file, and without annotations."""
    steps = copy.deepcopy(cfg.test_dataloader.dataset.pipeline)
    kept = [step for step in steps if 'Load' not in step['type']]
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope', 'mmcast')):
        return Compose([dict(type='mmdet.LoadImageFromNDArray'), *kept])
