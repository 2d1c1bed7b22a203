"""Adapters that no gradient reaches are named."""

from types import SimpleNamespace

import pytest
import torch
from mmengine.runner.activation_checkpointing import turn_on_activation_checkpointing

from mmcast.errors import CASTError
from mmcast.registry import MODELS
from mmcast.testing.data import make_samples
from mmcast.testing.models import tiny_cast_config
from mmcast.training.hooks import adapters
from mmcast.training.hooks.adapters import AdapterSavingHook


def after_one_update(checkpointed):
    """A run at its first update, with what MMEngine's setting ``activation_checkpointing`` does:
    reentrant, so that a part whose input has no gradient gets none.
    """
    model = MODELS.build(dict(tiny_cast_config(), lora=dict(rank=1))).train()
    turn_on_activation_checkpointing(model, checkpointed)
    sum(model.loss(*make_samples([2])).values()).backward()
    learning = [part for part in model.parameters() if part.grad is not None]
    torch.optim.SGD(learning, lr=0.1).step()
    return SimpleNamespace(iter=0, model=model, optim_wrapper=None)


@pytest.fixture(autouse=True)
def early(monkeypatch):
    monkeypatch.setattr(adapters, '_CHECKED_AFTER', 1)


def test_adapters_without_gradient_are_named(capsys):
    AdapterSavingHook().after_train_iter(after_one_update(['detector.backbone.layers.0']), 0)
    said = capsys.readouterr().out
    assert (
        '4 of 16 adapters have not learned in 1 updates, such as detector.backbone.layers.0' in said
    )
    AdapterSavingHook().after_train_iter(after_one_update([]), 0)
    assert not capsys.readouterr().out


def test_a_run_whose_adapters_all_stay_is_stopped():
    with pytest.raises(CASTError, match='no adapter has learned in 1 updates: no gradient'):
        AdapterSavingHook().after_train_iter(after_one_update(['detector.backbone']), 0)
