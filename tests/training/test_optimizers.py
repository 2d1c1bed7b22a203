"""Learning rates and weight decay of the teacher's parts."""

import pytest
from mmengine.optim import build_optim_wrapper
from torch import nn

from mmcast.errors import CASTError
from mmcast.training.runner import use_full_precision


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.patch_embed = nn.Linear(2, 2)
        self.blocks = nn.ModuleList(nn.LayerNorm(2) if i else nn.Linear(2, 2) for i in range(3))


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.detector = nn.Module()
        self.detector.boxes = nn.Linear(2, 2)
        self.detector.masks = nn.Module()
        self.detector.masks.encoder = Encoder()
        self.detector.masks.neck = nn.Linear(2, 2)
        self.projector = nn.Linear(2, 2)


def groups(parts, model=None):
    """Learning rate and weight decay of every parameter by name, at 1.0 and 0.5."""
    model = model or Network()
    wrapper = build_optim_wrapper(
        model,
        dict(
            type='OptimWrapper',
            optimizer=dict(type='AdamW', lr=1.0, weight_decay=0.5),
            constructor='PartsOptimWrapperConstructor',
            paramwise_cfg=dict(parts=parts),
        ),
    )
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


def test_norms_and_biases_may_go_without_decay():
    found = groups({'masks.': dict(decay_norm_and_bias=False)})
    decay = {
        name.removeprefix('detector.masks.encoder.'): decay for name, (_, decay) in found.items()
    }
    assert (
        decay['blocks.0.weight'] == 0.5 and decay['blocks.0.bias'] == decay['blocks.1.weight'] == 0
    )


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
