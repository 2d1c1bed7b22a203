"""Learning rates and weight decay of the teacher's parts."""

import pytest
import torch
import toy_run  # noqa: F401  registers the one-layer model
from mmengine.config import Config
from mmengine.optim import (
    DefaultOptimWrapperConstructor,
    OptimWrapper,
    OptimWrapperDict,
    build_optim_wrapper,
)
from tiny_teacher import teacher_config
from torch import nn
from torch.optim import SGD

from mmcast.errors import CASTError
from mmcast.registry import OPTIM_WRAPPER_CONSTRUCTORS
from mmcast.testing.models import build_model, tiny_cast_config
from mmcast.training.optimizers import check_optimizer_type, check_parameter_groups
from mmcast.training.runner import train_run, use_full_precision


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.patch_embed = nn.Linear(2, 2)
        self.blocks = nn.ModuleList(nn.LayerNorm(2) if i else nn.Linear(2, 2) for i in range(3))

    def get_layer_depth(self, param_name, prefix=''):
        """As mmpretrain's encoders have it."""
        name = param_name.removeprefix(prefix)
        return int(name.split('.')[1]) + 1 if name.startswith('blocks.') else 0, 5


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.detector = nn.Module()
        self.detector.boxes = nn.Linear(2, 2)
        self.detector.masks = nn.Module()
        self.detector.masks.encoder = Encoder()
        self.detector.masks.neck = nn.Linear(2, 2)
        self.projector = nn.Linear(2, 2)


def settings_of(optimizer, **paramwise):
    return dict(
        type='OptimWrapper',
        optimizer=optimizer,
        constructor='PartsOptimWrapperConstructor',
        **(dict(paramwise_cfg=paramwise) if paramwise else {}),
    )


def groups(parts, model=None):
    """Learning rate and weight decay of every parameter by name, at 1.0 and 0.5."""
    model = model or Network()
    optimizer = dict(type='AdamW', lr=1.0, weight_decay=0.5)
    wrapper = build_optim_wrapper(model, settings_of(optimizer, parts=parts))
    of = {
        id(p): (group['lr'], group['weight_decay'])
        for group in wrapper.optimizer.param_groups
        for p in group['params']
    }
    return {name: of.get(id(p)) for name, p in model.named_parameters()}


def test_the_longest_prefix_counts_and_the_rest_has_the_optimizers_values():
    found = groups(
        {
            'boxes.': dict(lr_mult=0.1),
            'masks.': dict(lr_mult=0.2, weight_decay=0.3),
            'masks.neck.': dict(lr_mult=0.5),
        }
    )
    assert found['projector.weight'] == (1.0, 0.5) and found['detector.boxes.bias'] == (0.1, 0.5)
    assert found['detector.masks.encoder.blocks.0.weight'] == (0.2, 0.3)
    assert found['detector.masks.neck.weight'] == (0.5, 0.5)


def test_layer_decay_by_hand():
    found = groups({'masks.': dict(layer_decay=0.9)})
    rates = {
        name.removeprefix('detector.masks.'): rate
        for name, (rate, _) in found.items()
        if 'masks' in name
    }
    assert rates['neck.weight'] == 1 and rates['encoder.blocks.2.weight'] == pytest.approx(0.9)
    assert rates['encoder.blocks.0.weight'] == pytest.approx(0.9**3)
    assert rates['encoder.patch_embed.weight'] == pytest.approx(0.9**4)


def test_layer_decay_of_mmpretrains_encoders_is_as_they_tell():
    """DINOv2's blocks are called layers."""
    found = groups(
        {'backbone.': dict(layer_decay=0.5)}, build_model(tiny_cast_config(pixel_weight=1.0))
    )
    rates = {
        name.removeprefix('detector.backbone.'): rate
        for name, (rate, _) in found.items()
        if 'detector.backbone.' in name
    }
    assert rates['ln1.weight'] == 1 and rates['layers.3.attn.qkv.weight'] == 0.5
    assert rates['layers.0.ffn.layers.1.weight'] == 0.5**4
    assert (
        rates['pos_embed'] == rates['cls_token'] == rates['patch_embed.projection.bias'] == 0.5**5
    )
    others = [rate for name, (rate, _) in found.items() if 'detector.backbone.' not in name]
    assert set(others) == {1}


def test_layer_decay_of_sam2_is_that_of_its_image_encoder(tmp_path):
    """Blocks as numbered over all stages; the mask embedding of prompts is no embedding of it."""
    model = build_model(
        teacher_config(tmp_path, sam2=dict(teacher_config(tmp_path).sam2, reprompts=1))
    )
    found = groups({'sam2.': dict(layer_decay=0.5)}, model)
    rates = {name: found[name][0] for name in found if name.startswith('sam2.') and found[name]}
    encoder = 'sam2.model.vision_encoder.backbone.'
    assert len(model.sam2.blocks) == 5
    for number in range(5):
        assert rates[f'{encoder}blocks.{number}.mlp.proj_in.weight'] == 0.5 ** (5 - number)
    embeddings = [name for name in rates if name.startswith(encoder) and 'blocks' not in name]
    assert len(embeddings) == 4 and {rates[name] for name in embeddings} == {0.5**6}
    assert {rate for name, rate in rates.items() if not name.startswith(encoder)} == {1}


def test_layer_decay_where_no_module_tells_its_depth_is_refused():
    with pytest.raises(CASTError, match="layer_decay of 'boxes.': no module there has get_layer"):
        groups({'boxes.': dict(layer_decay=0.9)})


def test_parameters_of_one_name_within_and_without_the_detector_both_learn():
    model = Network()
    model.detector.projector = nn.Linear(2, 2)
    found = groups({}, model)
    assert found['projector.weight'] == found['detector.projector.weight'] == (1.0, 0.5)


def wrapper_of(*parameters):
    return OptimWrapper(SGD([dict(params=[p]) for p in parameters], lr=0.1))


def test_parameters_that_learn_are_in_exactly_one_group():
    model = nn.ModuleDict(dict(a=nn.Linear(1, 1), b=nn.Linear(1, 1), frozen=nn.Linear(1, 1)))
    model['frozen'].requires_grad_(False)
    a, b = list(model['a'].parameters()), list(model['b'].parameters())
    check_parameter_groups(model, wrapper_of(*a, *b))
    check_parameter_groups(model, OptimWrapperDict(a=wrapper_of(*a), b=wrapper_of(*b)))
    with pytest.raises(CASTError, match='b.weight, b.bias are in no parameter group'):
        check_parameter_groups(model, wrapper_of(*a))
    with pytest.raises(CASTError, match='a.weight, a.bias are in several parameter groups'):
        check_parameter_groups(model, OptimWrapperDict(a=wrapper_of(*a), b=wrapper_of(*a, *b)))


def test_a_run_whose_optimizer_leaves_parameters_out_does_not_start(tmp_path, monkeypatch):
    """Whatever its constructor."""

    @OPTIM_WRAPPER_CONSTRUCTORS.register_module(force=True)
    class Forgetful(DefaultOptimWrapperConstructor):
        def add_params(self, params, module, **kwargs):
            params.append(dict(params=[module.layer.weight]))

    monkeypatch.setattr('mmengine.runner.runner.collect_env', dict)
    cfg = Config(
        dict(
            default_scope='mmcast',
            work_dir=str(tmp_path),
            model=dict(type='ToyModel'),
            train_dataloader=dict(
                batch_size=2,
                num_workers=0,
                dataset=dict(type='ToyDataset'),
                sampler=dict(type='InfiniteSampler'),
            ),
            train_cfg=dict(type='IterBasedTrainLoop', max_iters=1),
            optim_wrapper=dict(
                optimizer=dict(type='SGD', lr=0.1, weight_decay=0.0),
                constructor='Forgetful',
                paramwise_cfg=dict(norm_decay_mult=0.0),
            ),
            log_level='ERROR',
        )
    )
    with pytest.raises(
        CASTError, match='layer.bias, pixel_contrast.weight, .* are in no parameter'
    ):
        train_run(cfg)


def test_norms_and_biases_may_go_without_decay():
    found = groups({'masks.': dict(decay_norm_and_bias=False)})
    decay = {
        name.removeprefix('detector.masks.encoder.'): decay for name, (_, decay) in found.items()
    }
    assert (
        decay['blocks.0.weight'] == 0.5 and decay['blocks.0.bias'] == decay['blocks.1.weight'] == 0
    )


@pytest.mark.parametrize('paramwise', [{}, dict(parts={'boxes.': dict(lr_mult=0.1)})], ids=str)
def test_an_optimizer_without_weight_decay_takes_a_step(paramwise):
    """Its own default holds, AdamW's."""
    model = Network()
    wrapper = build_optim_wrapper(model, settings_of(dict(type='AdamW', lr=1.0), **paramwise))
    model.projector(torch.ones(1, 2)).sum().backward()
    wrapper.step()
    assert {group['weight_decay'] for group in wrapper.param_groups} == {0.01}


def test_settings_that_the_constructor_does_not_know_are_refused():
    adamw = dict(type='AdamW', lr=1.0, weight_decay=0.5)
    for wrong, message in (
        (settings_of(adamw, norm_decay_mult=0.0), 'paramwise_cfg has no norm_decay_mult; there ar'),
        (settings_of(dict(type='AdamW')), 'optim_wrapper.optimizer has no lr'),
    ):
        with pytest.raises(CASTError, match=message):
            build_optim_wrapper(Network(), wrong)


def test_frozen_parameters_are_in_no_group():
    model = Network()
    model.detector.boxes.requires_grad_(False)
    assert groups({}, model)['detector.boxes.weight'] is None


@pytest.mark.parametrize('parts', [{'mask.': dict()}, {'masks.': dict(lr=1e-4)}], ids=str)
def test_a_mistyped_part_or_option_is_named(parts):
    with pytest.raises(CASTError, match='mask\\.|lr: no such option'):
        groups(parts)


def test_without_a_gpu_mixed_precision_is_full_precision():
    wrapper = dict(
        type='AmpOptimWrapper',
        dtype='bfloat16',
        loss_scale=1.0,
        accumulative_counts=2,
        optimizer=dict(type='SGD', lr=1.0),
    )
    use_full_precision(wrapper)
    assert build_optim_wrapper(nn.Linear(1, 1), wrapper)._accumulative_counts == 2


def test_an_optimizer_that_no_registry_has_is_one_line():
    check_optimizer_type(dict(optimizer=dict(type='AdamW', lr=1)))
    with pytest.raises(CASTError, match='optimizer AdamX is in no registry: .*; did you mean Adam'):
        check_optimizer_type(dict(optimizer=dict(type='AdamX', lr=1)))
