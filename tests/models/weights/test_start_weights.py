from pathlib import Path

import pytest
import torch

from mmcast.errors import CASTError
from mmcast.models.weights.start import fit_start_weights


@pytest.fixture
def weights(tmp_path):
    state = {
        'backbone.w': torch.randn(3),
        'panoptic_head.cls_embed.weight': torch.randn(9, 4),
        'panoptic_head.query_embed.weight': torch.randn(5, 4).half(),
        'panoptic_head.query_feat.weight': torch.randn(5, 4).half(),
    }
    torch.save(state, tmp_path / 'small.pth')
    return state, tmp_path / 'small.pth'


def test_queries_are_repeated_and_the_rest_is_kept(weights, tmp_path):
    state, path = weights
    out = fit_start_weights(tmp_path / 'start', num_queries=12, teacher=str(path))
    fitted = torch.load(out['teacher'], weights_only=True)
    assert set(fitted) == set(state) - {'panoptic_head.cls_embed.weight'}
    assert torch.equal(fitted['backbone.w'], state['backbone.w'])
    for key in ('panoptic_head.query_embed.weight', 'panoptic_head.query_feat.weight'):
        old, new = state[key].float(), fitted[key].float()
        assert new.shape == (12, 4) and fitted[key].dtype == torch.half
        assert torch.equal(new[:5], old), 'the learned queries themselves stay'
        copies = old.repeat(3, 1)[5:12]
        assert not torch.equal(new[5:], copies) and (new[5:] - copies).std() < 0.5 * old.std()
        assert len(new.unique(dim=0)) == 12, 'no two queries are alike, or they could never part'


def test_fewer_queries_are_the_first_ones(weights, tmp_path):
    state, path = weights
    out = fit_start_weights(tmp_path / 'start', num_queries=3, student=str(path))
    key = 'panoptic_head.query_feat.weight'
    assert torch.equal(torch.load(out['student'], weights_only=True)[key], state[key][:3])


def test_same_seed_same_file(weights, tmp_path):
    first, second = (
        fit_start_weights(tmp_path / name, num_queries=12, a=str(weights[1]))
        for name in ('one', 'two')
    )
    assert Path(first['a']).read_bytes() == Path(second['a']).read_bytes()


def test_missing_weights_are_named(tmp_path):
    with pytest.raises(CASTError, match='absent.pth'):
        fit_start_weights(tmp_path, num_queries=12, a=str(tmp_path / 'absent.pth'))
