"""The paper's whole pipelines, by the shipped configs, with tiny networks and few iterations."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from mmengine.config import Config
from tiny_networks import STUDENT, backbone, write_downloads

from mmcast.checkpoints import load_plain
from mmcast.configs import find_config
from mmcast.files import sha256_of_file
from mmcast.pipeline.pipeline import run_pipeline
from mmcast.pipeline.plan import Plan
from mmcast.testing.teacher import tiny_teacher_sizes
from mmcast.toy.cityscapes import generate_toy_cityscapes
from mmcast.training.overrides import nested
from mmcast.typed_values import Typed

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope='module')
def downloads(tmp_path_factory):
    """Data and weights as a person has them after downloading, in small."""
    folder = tmp_path_factory.mktemp('downloads')
    generate_toy_cityscapes(
        folder / 'cityscapes', num_train=8, num_val=2, size=(64, 128), progress=False
    )
    found = dict(write_downloads(folder), data_root=str(folder / 'cityscapes'))
    return {name: path for name, path in found.items() if name not in ('sam3', 'tokenizer')}


def sizes(path, iterations):
    """Options that make a step small, by its own config."""
    config = Config.fromfile(path)
    options = {
        'train_cfg.max_iters': iterations,
        'train_cfg.val_interval': iterations,
        'train_dataloader.batch_size': 2,
        'train_dataloader.num_workers': 0,
        'train_dataloader.persistent_workers': False,
        'val_dataloader.num_workers': 0,
        'val_dataloader.persistent_workers': False,
        'test_dataloader.num_workers': 0,
        'test_dataloader.persistent_workers': False,
        'val_dataloader.dataset.pipeline.1.scale': (128, 64),
        'test_dataloader.dataset.pipeline.1.scale': (128, 64),
    }
    train = config.train_dataloader.dataset
    if 'datasets' in train:
        options['train_dataloader.sampler.batch_size'] = 2
    if config.model.detector.type == 'GroundedSAM':
        options |= {
            'model.detector': tiny_teacher_sizes(),
            'model.detector.sam2.boxes_per_chunk': 32,
            'model.detector.grounding_dino.test_cfg.score_thr': 0.0,
        }
        if 'sam2' in config.model.detector.get('frozen', ()):
            options['model.pixel_contrast.in_channels'] = 64  # Swin's coarsest map
        return options
    for i, _ in enumerate(train.get('datasets', [train])):
        prefix = (
            f'train_dataloader.dataset.{f"datasets.{i}." if "datasets" in train else ""}pipeline'
        )
        options |= {f'{prefix}.2.scale': (128, 64), f'{prefix}.3.crop_size': (70, 56)}
    pretrained = config.model.detector.backbone.get('init_cfg')
    options |= {
        'model.detector': STUDENT,
        'model.detector.backbone': backbone(pretrained and dict(type='Pretrained')),
    }
    if config.model.get('pixel_contrast'):
        options |= {'model.pixel_contrast.in_channels': 16, 'model.pixel_contrast.pool': 1}
    return options


def tiny_pipeline(name, folder, downloads, iterations=2, **teacher_options):
    """A config of one's own that inherits the shipped pipeline: nothing but sizes, iterations and
    paths differ.
    """
    plan = Plan(name)
    steps = dict(data=dict(kwargs=dict(num_workers=0)))
    for step, definition in plan.definitions.items():
        if 'config' in definition:
            small = sizes(
                find_config(plan.templates.resolve(definition['config'], step)), iterations
            )
            own = (
                {**plan.config.variables.teacher_options, **teacher_options}
                if definition.get('cfg_options') == '{teacher_options}'
                else definition.get('cfg_options', {})
            )
            steps[step] = dict(cfg_options={**small, **own, '_delete_': True})
            if not isinstance(definition.get('cfg_options'), dict):
                steps[step] = dict(definition, cfg_options={**small, **own}, _delete_=True)
    path = folder / 'tiny.py'
    path.write_text(
        f'_base_ = {str(find_config(name))!r}\nwork_dir = {str(folder / "run")!r}\nvariables = '
        f'{dict(downloads, percent=50)!r}\nsteps = {steps!r}\nreport = dict(images=1)\n'
    )
    return path


def test_the_pipeline_goes_from_downloads_to_the_table(tmp_path, downloads):
    """Both rounds of teacher and pseudo-labels, both steps of the student, COCO's and Cityscapes'
    metric.
    """
    path = tiny_pipeline('cast_cityscapes.py', tmp_path, downloads)
    done = subprocess.run(
        [sys.executable, 'tools/train.py', str(path)], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    records = json.loads((tmp_path / 'run/pipeline.json').read_text())['steps']
    assert [name for name, record in records.items() if record['status'] == 'finished'] == [
        *Plan(path).definitions
    ]
    assert {'cityscapes/mAP', 'coco/segm_mAP_50'} <= set(records['zero_shot']['metrics'])
    assert {'cityscapes/mAP', 'coco/segm_mAP_50'} <= set(records['refine']['metrics'])
    rows = json.loads((tmp_path / 'run/summary.json').read_text())
    steps = [row['step'] for row in rows]
    assert steps == ['zero_shot', 'adapt_labeled', 'adapt_self_training', 'transfer', 'refine']
    assert rows[0]['parameters'] > 10 * rows[-1]['parameters']
    assert (tmp_path / 'run/report.html').exists()


def test_adapters_go_from_step_to_step(tmp_path, downloads):
    """On one GPU the boxes' adapters are learned first and stay as they are while the masks' learn;
    the teacher then labels with both. The checkpoints of neither hold the teacher.
    """
    path = tiny_pipeline(
        'cast_cityscapes_single_gpu.py', tmp_path, downloads, 1, model=dict(lora=dict(rank=1))
    )
    steps = ['data', 'start', 'boxes_labeled', 'adapt_labeled', 'pseudo_label_1']
    run_pipeline(path, step=steps)
    records = json.loads((tmp_path / 'run/pipeline.json').read_text())['steps']
    boxes, both = (
        load_plain(records[step]['outputs']['checkpoint'].format(work_dir=tmp_path / 'run'))
        for step in steps[2:4]
    )
    start = tmp_path / 'run/start/teacher.pth'
    for content in (boxes, both):
        assert content['lora']['base']['sha256'] == sha256_of_file(start)
    for name, value in boxes['state_dict'].items():
        if name.startswith('detector.grounding_dino.'):
            assert value.equal(both['state_dict'][name])
    learned = [name for name in both['state_dict'] if name.startswith('detector.sam2.')]
    assert any(not both['state_dict'][name].equal(boxes['state_dict'][name]) for name in learned)


def test_one_option_lets_a_foundation_pipeline_adapt_by_lora():
    option = {'variables.teacher_options.model.lora.rank': Typed('2')}
    plan = Plan('cast_ade20k_single_gpu.py', cfg_options=option)
    for name in ('boxes_labeled', 'adapt_labeled', 'boxes_self_training', 'adapt_self_training'):
        definition = plan.definitions[name]
        config = Config.fromfile(find_config(plan.templates.resolve(definition['config'], name)))
        assert definition['cfg_options'] == '{teacher_options}'
        config.merge_from_dict(nested(plan.config.variables.teacher_options))
        assert config.model.lora == dict(rank=2)


def test_a_missing_download_stops_the_pipeline_before_anything_trains(tmp_path, downloads):
    path = tiny_pipeline(
        'cast_cityscapes.py',
        tmp_path,
        {**downloads, 'dinov2': 'weights/dinov2_vits14_pretrain.pth'},
    )
    done = subprocess.run(
        [sys.executable, 'tools/train.py', str(path), '--step', 'data', 'start'],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert (
        done.stderr.strip()
        .splitlines()[-1]
        .startswith(
            'error: weights file weights/dinov2_vits14_pretrain.pth not found; download '
            'https://dl.fbaipublic'
        )
    )
