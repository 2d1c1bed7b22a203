"""The shipped transfer step learns from mixed images."""

import json
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmengine.runner import Runner

from mmcast.coco.converters.cityscapes import convert_cityscapes
from mmcast.data.mixing import build_mixing
from mmcast.pseudo_labels.store import make_info
from mmcast.registry import MODELS
from mmcast.toy.cityscapes import generate_toy_cityscapes
from mmcast.training.randomness import seed_all

STEP = Path(__file__).parents[2] / 'configs/toy/toy_student_transfer.py'


@pytest.fixture(scope='module')
def step(tmp_path_factory):
    """Model and loader of the step on street scenes; pseudo-labels have a score of 0.9."""
    root = tmp_path_factory.mktemp('streets')
    generate_toy_cityscapes(root, num_train=6, num_val=1, size=(64, 128), progress=False)
    convert_cityscapes(root, 'train', root / 'labeled.json', progress=False)
    content = json.loads((root / 'labeled.json').read_text())
    single = [dict(ann, score=0.9) for ann in content['annotations'] if not ann['iscrowd']]
    content |= dict(info=make_info(score_floor=0.05), annotations=single)
    (root / 'pseudo.json').write_text(json.dumps(content))
    config = Config.fromfile(STEP)
    for part, name in zip(config.train_dataloader.dataset.datasets, ('labeled', 'pseudo')):
        part.update(data_root=str(root), ann_file=f'{name}.json')
    config.train_dataloader.update(num_workers=0, persistent_workers=False)
    with DefaultScope.overwrite_default_scope('mmcast'):
        seed_all(0)
        return MODELS.build(config.model), Runner.build_dataloader(config.train_dataloader, seed=0)


@pytest.mark.parametrize(
    'options',
    [
        dict(copy_paste=dict(prob=1)),
        dict(mixup=dict(prob=1)),
        dict(mosaic=dict(prob=1), mixup=dict(prob=1)),  # more labels than the student has queries
    ],
    ids='-'.join,
)
def test_a_step_on_mixed_images(step, options):
    model, loader = step
    pseudo_labeled = loader.dataset.datasets[1]
    seed_all(1)
    pseudo_labeled.mixers = []
    plain = [len(pseudo_labeled[i]['data_samples'].gt_instances) for i in range(6)]
    pseudo_labeled.mixers = build_mixing(options)
    seed_all(1)
    mixed = [len(pseudo_labeled[i]['data_samples'].gt_instances) for i in range(6)]
    assert sum(mixed) > sum(plain)
    assert 'mosaic' not in options or max(mixed) > model.detector.panoptic_head.num_queries
    batch = model.data_preprocessor(next(iter(loader)), True)
    assert [s.metainfo.get('source') for s in batch['data_samples']] == [None] * 2 + ['pseudo'] * 4
    losses = model(**batch, mode='loss')
    total, _ = model.parse_losses(losses)
    model.zero_grad()
    total.backward()
    assert losses['unsup_loss_mask'] > 0 and losses['loss_pxl'] > 0
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    assert all(gradient.isfinite().all() for gradient in gradients)
    assert sum(gradient.abs().sum() for gradient in gradients) > 0
    assert torch.isfinite(total)
