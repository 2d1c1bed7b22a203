"""Mask AP of a student in torch and in onnxruntime, by the evaluator of its config."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.evaluator import Evaluator
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from mmengine.structures import InstanceData

from mmcast.configs import load_config
from mmcast.data.config_data import check_config_data
from mmcast.deploy.export import Source, evaluated_part, student_config
from mmcast.deploy.instances import Instances
from mmcast.deploy.onnx_export import load_network
from mmcast.deploy.onnx_student import OnnxStudent
from mmcast.errors import CASTError


def compare_ap(source: Source, onnx_file: str | Path) -> dict[str, float]:
    """Mask AP (0 to 1) of ``torch`` and ``onnx`` on the test set of the config, every instance
    counted.

    Raises:
        CASTError: the test set is not there, or its evaluator gives no mask AP.
    """
    config = load_config(source.config)
    cfg = student_config(config)
    check_config_data(cfg, ('test_dataloader',))
    network, student = load_network(cfg, source, evaluated_part(config)), OnnxStudent(onnx_file)
    return dict(torch=mask_ap(cfg, network.test_step), onnx=mask_ap(cfg, predictor(student)))


def predictor(student: OnnxStudent) -> Callable[[dict], list[DetDataSample]]:
    """A student as :func:`mask_ap` takes it: images are as the test pipeline left them, their masks
    are brought back to the original size.
    """

    def predict(data: dict) -> list[DetDataSample]:
        samples = data['data_samples']
        for image, sample in zip(data['inputs'], samples):
            rgb = image.numpy()[::-1].transpose(1, 2, 0)
            sample.pred_instances = _to_mmdet(student.run(rgb[None], 0.0)[0], sample.ori_shape)
        return samples

    return predict


@torch.no_grad()
def mask_ap(cfg: Config, predict: Callable[[dict], list[DetDataSample]]) -> float:
    """Mask AP (0 to 1) of a function from batches to mmdet's predictions."""
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        loader = Runner.build_dataloader(cfg.test_dataloader, seed=0)
        evaluators = cfg.test_evaluator
        evaluator = Evaluator(evaluators if isinstance(evaluators, list) else [evaluators])
    evaluator.dataset_meta = loader.dataset.metainfo
    for data in loader:
        evaluator.process(data_samples=predict(data), data_batch=data)
    metrics = evaluator.evaluate(len(loader.dataset))
    for name, value in metrics.items():
        if name.split('/')[-1] == 'segm_mAP':
            return value
    raise CASTError(
        f'the test evaluator gives {", ".join(metrics)} but no segm_mAP; use CocoMetric'
    )


def _to_mmdet(found: Instances, size: tuple[int, int]) -> InstanceData:
    masks = torch.from_numpy(found.masks)
    if tuple(masks.shape[1:]) != tuple(size):
        masks = (
            torch.nn.functional.interpolate(masks[:, None].float(), size, mode='bilinear')[:, 0]
            > 0.5
        )
    return InstanceData(
        bboxes=torch.from_numpy(np.asarray(found.boxes)),
        masks=masks,
        scores=torch.from_numpy(found.scores),
        labels=torch.from_numpy(found.labels),
    )
