"""The arithmetic of benchmarks/memory.py, on networks in which everything can be measured."""

import importlib.util
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from mmcast.errors import CASTError
from mmcast.models.activation_checkpointing import checkpoint_activations

ROOT = Path(__file__).parents[1]
LAYERS = r'layers\.\d+'


@pytest.fixture(scope='module')
def memory():
    spec = importlib.util.spec_from_file_location('memory_benchmark', ROOT / 'benchmarks/memory.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Transformer(nn.Module):
    """On patches of 4x4 pixels."""

    def __init__(self, layers):
        super().__init__()
        self.patches = nn.Conv2d(3, 16, 4, 4)
        options = dict(dropout=0.0, batch_first=True)
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(16, 2, 32, **options) for _ in range(layers)
        )

    def forward(self, images):
        tokens = self.patches(images).flatten(2).transpose(1, 2)
        for layer in self.layers:
            tokens = layer(tokens)
        return tokens.float().square().mean()


def run(memory, layers, images, side, checkpointed=False):
    """Counts and what is saved of a forward pass in bf16."""
    network = Transformer(layers).train()
    if checkpointed:
        checkpoint_activations(network.layers)
    with memory.saved_activations(network, [LAYERS]) as tell:
        with torch.autocast('cpu', torch.bfloat16):
            loss = network(torch.zeros(images, 3, side, side))
        saved = tell()
        del loss
    return memory.Counts(images, dict(image=side**2), {LAYERS: layers}), saved


def test_what_autograd_saves_is_counted_once_and_weights_are_not(memory):
    network = nn.Sequential(nn.Linear(10, 20), nn.ReLU(), nn.Linear(20, 5))
    with memory.saved_activations(network, ['0', '2']) as tell:
        total = network(torch.zeros(3, 10)).sum()
        kept = tell().kept
        del total
        assert sum(tell().kept.values()) == 0  # the graph is gone
    with memory.saved_activations(network, ['forward()']) as tell:
        total = network(torch.zeros(3, 10)).sum()
        assert tell().largest == {'forward()': 3 * 30 * 4, 'rest': 0}
        del total
    # The input for the first weights; ReLU's output, which serves ReLU and the second weights.
    assert kept == {'0': 3 * 10 * 4, '2': 0, 'rest': 3 * 20 * 4}


@pytest.mark.parametrize('checkpointed', [False, True])
def test_small_networks_tell_of_a_large_one(memory, checkpointed):
    runs = [run(memory, 2, *each, checkpointed) for each in ((1, 16), (1, 32), (2, 16))]
    counts, measured = run(memory, 5, 3, 64, checkpointed)
    computed = memory.extrapolate([(small, saved.kept) for small, saved in runs], counts)
    assert computed.keys() == measured.kept.keys()
    for group, size in measured.kept.items():
        assert computed[group] == pytest.approx(size, rel=0.01), group
    assert measured.kept[LAYERS] > 0


def test_a_checkpointed_layer_keeps_its_input_alone(memory):
    _, saved = run(memory, 4, 2, 32, checkpointed=True)
    _, whole = run(memory, 4, 2, 32)
    tokens = 2 * 8 * 8 * 16
    # Outputs of a layer that ends in a norm are in full precision, the patches are not.
    assert saved.kept[LAYERS] + saved.kept['rest'] < 5 * 4 * tokens + 2 * 3 * 32 * 32 * 4
    assert whole.largest[LAYERS] == pytest.approx(whole.kept[LAYERS] / 4, rel=0.05)
    assert whole.largest[LAYERS] > 5 * saved.largest[LAYERS]


def test_a_layer_that_sees_one_image_at_a_time_does_not_grow_with_the_batch(memory):
    runs = [
        (memory.Counts(images, dict(image=pixels)), memory.Saved({}, dict(batch=both, image=one)))
        for images, pixels, both, one in ((1, 10, 20, 30), (1, 20, 40, 60), (2, 10, 40, 30))
    ]
    found = memory.largest_layers(runs, memory.Counts(4, dict(image=100)))
    assert found == dict(batch=800, image=300)


def test_weights_gradients_and_states_are_those_of_a_real_step(memory):
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 2, 1))
    network[0].requires_grad_(False)
    optimizer = torch.optim.AdamW([p for p in network.parameters() if p.requires_grad])
    network(torch.rand(2, 3, 9, 9)).sum().backward()
    optimizer.step()
    static = memory.static_memory(network)
    assert static.weights == sum(each.nbytes for each in network.state_dict().values())
    assert static.gradients == sum(
        p.grad.nbytes for p in network.parameters() if p.grad is not None
    )
    assert static.optimizer == sum(
        state[name].nbytes
        for state in optimizer.state.values()
        for name in ('exp_avg', 'exp_avg_sq')
    )
    assert (static.parameters, static.learning) == (3 * 8 * 9 + 8 + 16 + 18, 16 + 18)
    with pytest.raises(CASTError, match='states of Lion are not known; known are AdamW'):
        memory.static_memory(network, 'Lion')
    assert memory.static_memory(network.to('meta')) == static


def test_the_sum(memory):
    static = memory.Static(weights=100, gradients=50, optimizer=100, parameters=25, learning=12)
    step = memory.Memory(static, dict(a=30.0, rest=20.0), dict(a=10.0), True, 0.1, 7.0)
    assert step.total == pytest.approx((250 + 50 + 2 * 10) * 1.1 + 7)
    assert replace(step, checkpointed=False).total == pytest.approx((250 + 50 + 10) * 1.1 + 7)


def test_presets_are_options_of_the_teachers_steps(memory):
    """Every preset has its config, and a batch of labeled and pseudo-labeled images."""
    from mmengine.config import Config

    presets = Config.fromfile(ROOT / 'configs/_base_/presets.py').presets
    assert presets.keys() == memory.TEACHERS.keys()
    for teacher, of_teacher in presets.items():
        assert list(of_teacher) == [16, 24, 80]
        for options in of_teacher.values():
            config = memory.step_config(teacher, options)
            batch = config.train_dataloader.batch_size
            assert batch % 2 == 0 and batch * config.optim_wrapper.accumulative_counts == 8
            assert config.optim_wrapper.dtype == 'bfloat16'
