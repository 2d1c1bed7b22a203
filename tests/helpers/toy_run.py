"""A one-layer model, eight numbers and some functions: what the pipeline tests run as steps."""

import copy
import json
import os
import signal
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.evaluator import BaseMetric
from mmengine.model import BaseModel
from mmengine.registry import DATASETS, METRICS, MODELS

# A config of one run of all of this.
SINGLE_RUN = """
custom_imports = dict(imports=['toy_run'])
default_scope = 'mmcast'
model = dict(type='ToyModel')
train_dataloader = dict(batch_size=2, num_workers=0, dataset=dict(type='ToyDataset'),
                        sampler=dict(type='InfiniteSampler', shuffle=True))
test_dataloader = dict(batch_size=4, num_workers=0, dataset=dict(type='ToyDataset'),
                       sampler=dict(type='DefaultSampler', shuffle=False))
test_evaluator = dict(type='ToyMetric')
train_cfg = dict(type='IterBasedTrainLoop', max_iters=4)
test_cfg = dict()
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.1))
default_hooks = dict(checkpoint=dict(type='CheckpointHook', interval=2, by_epoch=False))
log_processor = dict(by_epoch=False)
log_level = 'ERROR'
"""


def kill_once(marker: str) -> None:
    """Kills this process as the kernel does, unless the marker file says that it did before."""
    if marker and not Path(marker).exists():
        Path(marker).touch()
        os.kill(os.getpid(), signal.SIGKILL)


def make_data(folder: str, value: int = 1, marker: str = '', unlabeled: str = '') -> dict:
    """A 'call' step: writes a label file; its two outputs are a path and a number. What depends on
    ``unlabeled`` is not of interest here.
    """
    Path(folder).mkdir(parents=True, exist_ok=True)
    path = Path(folder, 'labels.json')
    path.write_text(json.dumps(dict(value=value)))
    kill_once(marker)
    return dict(labels=str(path), value=value)


def give(options: dict) -> dict:
    """A 'call' step that decides the options of others."""
    return dict(options=options)


@MODELS.register_module()
class ToyModel(BaseModel):
    def __init__(
        self,
        width: int = 1,
        scale: float = 1.0,
        kill_at: int = -1,
        marker: str = '',
        labels: str = '',
    ) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(1, width)
        self.pixel_contrast = torch.nn.Linear(1, 1)
        self.scale, self.kill_at, self.marker = scale, kill_at, marker
        self.seen = []

    def forward(self, inputs, mode='tensor', **kwargs):
        if mode == 'predict':
            return [dict(weight=self.layer.weight.mean().item())] * len(inputs)
        self.seen.append(len(inputs))
        if len(self.seen) == self.kill_at:
            kill_once(self.marker)
        x = torch.stack(inputs).float()[:, None]
        return dict(
            loss=self.scale * (self.layer(x).mean(1) - x[:, 0]).square().mean()
            + 0 * self.pixel_contrast(x).sum()
        )


@DATASETS.register_module()
class ToyDataset(BaseDataset):
    def load_data_list(self):
        return [
            dict(inputs=torch.tensor(index / 8), img_path=f'image_{index}.png')
            for index in range(8)
        ]


@METRICS.register_module()
class ToyMetric(BaseMetric):
    def process(self, data_batch, data_samples):
        self.results += data_samples

    def compute_metrics(self, results):
        return {'coco/segm_mAP': 0.25, 'coco/segm_mAP_50': 0.5}


@METRICS.register_module()
class WeightMetric(ToyMetric):
    """The weight of the network, which training changes, in place of AP."""

    def compute_metrics(self, results):
        return {'coco/segm_mAP': results[0]['weight'], 'coco/segm_mAP_50': 0.5}


def config(folder: Path, iterations: int = 4, **changes) -> Config:
    """A run of the one-layer model, with these settings changed."""
    data = dict(batch_size=2, num_workers=0, dataset=dict(type='ToyDataset'))
    cfg = Config(
        dict(
            default_scope='mmcast',
            work_dir=str(folder),
            model=dict(type='ToyModel'),
            train_dataloader=dict(data, sampler=dict(type='InfiniteSampler', shuffle=False)),
            val_dataloader=dict(data, sampler=dict(type='DefaultSampler', shuffle=False)),
            val_evaluator=dict(type='ToyMetric'),
            test_dataloader=dict(data, sampler=dict(type='DefaultSampler', shuffle=False)),
            test_evaluator=dict(type='ToyMetric'),
            train_cfg=dict(type='IterBasedTrainLoop', max_iters=iterations, val_interval=100),
            val_cfg=dict(),
            test_cfg=dict(),
            optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
            randomness=dict(seed=3),
            default_hooks=dict(
                checkpoint=dict(type='CheckpointHook', interval=100, by_epoch=False)
            ),
            log_processor=dict(by_epoch=False),
            log_level='ERROR',
        )
    )
    cfg.merge_from_dict(copy.deepcopy(changes))
    return cfg
