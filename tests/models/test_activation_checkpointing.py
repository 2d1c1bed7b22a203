"""A checkpointed module learns, copies, pickles and compiles as the plain one does."""

import copy
import pickle

import pytest
import torch
from mmengine.model import ExponentialMovingAverage
from torch import nn

from mmcast.models.activation_checkpointing import checkpoint_activations


class Block(nn.Module):
    """Counts how often it runs."""

    def __init__(self):
        super().__init__()
        self.linear, self.dropout, self.runs = nn.Linear(4, 4), nn.Dropout(0.5), 0

    def forward(self, x, scale=1.0):
        self.runs += 1
        return self.dropout(torch.tanh(self.linear(x))) * scale


class Network(nn.Module):
    def __init__(self, checkpointed=False):
        super().__init__()
        self.blocks = nn.ModuleList(Block() for _ in range(2))
        if checkpointed:
            checkpoint_activations(self.blocks)

    def forward(self, x):
        for block in self.blocks:
            x = block(x, scale=2.0)
        return x


def network(checkpointed=True):
    torch.manual_seed(0)
    return Network(checkpointed)


def learn(model):
    """Output and gradients of one step with seeded dropout."""
    torch.manual_seed(1)
    output = model(torch.ones(3, 4))
    output.square().sum().backward()
    return [output, *(p.grad for p in model.parameters())]


def runs(model):
    return [block.runs for block in model.blocks]


def same(one, other):
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_gradients_and_names_are_the_plain_ones_and_each_block_runs_twice():
    plain, model = network(checkpointed=False), network()
    assert same(learn(plain), learn(model))
    assert list(plain.state_dict()) == list(model.state_dict())
    assert runs(plain) == [1, 1] and runs(model) == [2, 2]
    assert repr(plain) == repr(model) and isinstance(model.blocks[0], Block)


def test_without_gradients_each_block_runs_once():
    model = network()
    with torch.no_grad():
        model(torch.ones(3, 4))
    model.eval()(torch.ones(3, 4)).sum().backward()
    assert runs(model) == [2, 2]


def test_twice_is_not_checkpointed_twice():
    model = network()
    checkpoint_activations(model.blocks)
    learn(model)
    assert runs(model) == [2, 2]


@pytest.mark.parametrize(
    'duplicate',
    [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))],
    ids=['deepcopy', 'pickle'],
)
def test_a_copy_runs_its_own_weights_and_is_checkpointed_too(duplicate):
    model = network()
    expected = learn(network())
    other = duplicate(model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    assert same(learn(other), expected)
    assert runs(model) == [0, 0] and runs(other) == [2, 2]


def test_a_moving_average_predicts_with_its_own_weights():
    model = network()
    average = ExponentialMovingAverage(model, momentum=0.5).eval()
    x, before = torch.ones(3, 4), model.eval()(torch.ones(3, 4))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    assert torch.equal(average(x), before) and not model(x).any()


def test_it_compiles():
    compiled = torch.compile(network(), backend='aot_eager')
    torch.testing.assert_close(learn(compiled), learn(network()))
