"""The hook in a real run: what is logged, that training is not touched, and where pixels lie."""

import logging
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample
from mmdet.structures.mask import BitmapMasks
from mmengine.optim import OptimWrapper
from mmengine.runner import Runner
from mmengine.structures import InstanceData
from sample_loader import loader_of

from mmcast.testing.data import make_samples
from mmcast.testing.models import build_model, tiny_cast_config
from mmcast.training.curves import read_curves
from mmcast.training.hooks.pixel_diagnostics import PixelDiagnosticsHook, instance_map


class HalfPrecision(OptimWrapper):
    """What ``AmpOptimWrapper`` does on a GPU."""

    @contextmanager
    def optim_context(self, model):
        with super().optim_context(model), torch.autocast('cpu', torch.bfloat16):
            yield


def run(model, hooks, folder, steps=4, **wrapper):
    """Train on a labeled and a pseudo-labeled image, logging every other step."""
    images, samples = make_samples([3, 2], ['labeled', 'pseudo'])
    loader = loader_of(images, samples, steps)
    model._is_init = True
    logging.disable(logging.INFO)
    try:
        runner = Runner(
            model,
            str(folder),
            train_dataloader=loader,
            custom_hooks=hooks,
            default_scope='mmcast',
            train_cfg=dict(type='IterBasedTrainLoop', max_iters=steps),
            randomness=dict(seed=0),
            optim_wrapper=dict(
                dict(type='OptimWrapper', optimizer=dict(type='AdamW', lr=1e-3)), **wrapper
            ),
            log_processor=dict(by_epoch=False, window_size=2),
            visualizer=dict(type='Visualizer', vis_backends=[dict(type='LocalVisBackend')]),
            default_hooks=dict(checkpoint=None, logger=dict(type='LoggerHook', interval=2)),
            experiment_name=folder.name,
        )
        runner.train()
    finally:
        logging.disable(logging.NOTSET)
    return runner


@pytest.mark.parametrize(
    'wrapper',
    [dict(), dict(accumulative_counts=2), dict(type=HalfPrecision)],
    ids=['plain', 'accumulated', 'half'],
)
def test_figures_are_logged_at_the_interval(wrapper, tmp_path):
    """The interval counts iterations, as the logger's does, also where two make a step."""
    run(
        build_model(tiny_cast_config(semi_weight=1.0, pixel_weight=0.1)),
        [dict(type='PixelDiagnosticsHook', interval=2)],
        tmp_path,
        **wrapper,
    )
    curves = {
        key: points for key, points in read_curves(tmp_path).items() if key.startswith('pxl_')
    }
    assert set(curves) == {
        'pxl_' + name
        for name in (
            'margin',
            'fnr',
            'fnr_labeled',
            'fnr_pseudo',
            'positive',
            'negative',
            'no_negative',
        )
    }
    for points in curves.values():
        assert [step for step, _ in points] == [2, 4]
        assert all(-1 <= value <= 2 for _, value in points)
    assert 0 <= curves['pxl_fnr'][0][1] < 1


def test_half_precision_changes_the_figures_by_its_rounding_alone(tmp_path):
    """The network's outputs are rounded, what is computed of them is not."""
    figures = []
    for name, wrapper in dict(full={}, half=dict(type=HalfPrecision)).items():
        model = build_model(tiny_cast_config(semi_weight=1.0, pixel_weight=0.1))
        run(model, [PixelDiagnosticsHook(interval=1)], tmp_path / name, steps=2, **wrapper)
        curves = read_curves(tmp_path / name)
        figures.append({key: curves[key][0][1] for key in curves if key.startswith('pxl_')})
    assert figures[0] == pytest.approx(figures[1], abs=0.05)


def test_training_is_the_same_with_and_without(tmp_path):
    weights = []
    for name, hooks in dict(without=[], with_it=[PixelDiagnosticsHook(interval=1)]).items():
        model = build_model(tiny_cast_config(semi_weight=1.0, pixel_weight=0.1))
        run(model, hooks, tmp_path / name, steps=3)
        weights.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    assert torch.equal(*weights)


def test_without_a_pixel_loss_it_does_nothing(tmp_path, monkeypatch):
    def refuse(*args):
        raise AssertionError('looked at a model without a pixel loss')

    monkeypatch.setattr(PixelDiagnosticsHook, '_look', refuse)
    run(
        build_model(tiny_cast_config(semi_weight=1.0)), [PixelDiagnosticsHook(interval=1)], tmp_path
    )
    assert not any(key.startswith('pxl_') for key in read_curves(tmp_path))


def test_nothing_is_observed_between_the_intervals(tmp_path):
    model = build_model(tiny_cast_config(semi_weight=1.0, pixel_weight=0.1))
    hook = PixelDiagnosticsHook(interval=3)
    looks = []
    hook._look = lambda *args: looks.append(args[1])
    run(model, [hook], tmp_path, steps=4)
    assert looks == [2] and model.pixel_contrast.observer is None


@pytest.mark.parametrize('size', [(2, 4), (4, 8)])
def test_instances_of_pixels_by_hand(size):
    """Two images of 8 x 16: the right half; nothing; the top left quarter over the whole."""
    canvas = np.zeros((3, 8, 16), np.uint8)
    canvas[0, :, 8:] = canvas[1, :4, :8] = canvas[2] = 1
    samples = []
    for masks in (canvas[:1], canvas[:0], canvas[1:]):
        samples.append(DetDataSample(gt_instances=InstanceData(masks=BitmapMasks(masks, 8, 16))))
    h, w = size
    found = instance_map(samples, size).view(3, h, w)
    assert (found[0, :, w // 2 :] == 0).all() and (found[0, :, : w // 2] == -1).all()
    assert (found[1] == -1).all()
    assert (found[2, : h // 2, : w // 2] == 1).all() and (found[2, h // 2 :] == 2).all()
