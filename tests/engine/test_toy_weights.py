import pytest
import torch

from mmcast.engine.toy_weights import make_toy_weights, pack_weights
from mmcast.errors import CASTError


def test_packed_weights_are_the_plain_network_in_half_precision(tmp_path):
    state = {'detector.a.weight': torch.tensor([1.0, 1 / 3]), 'detector.a.steps': torch.tensor(7),
             'pixel_contrast.projector.0.weight': torch.ones(2), 'teacher.a.weight': torch.zeros(2)}
    torch.save(dict(state_dict=state, meta=dict()), tmp_path / 'iter_1.pth')
    pack_weights(tmp_path / 'iter_1.pth', tmp_path / 'packed.pth')
    packed = torch.load(tmp_path / 'packed.pth', weights_only=True)
    assert packed.keys() == {'a.weight', 'a.steps'}, 'neither projector nor teacher belongs to the network'
    assert packed['a.weight'].dtype == torch.float16 and packed['a.steps'] == 7
    torch.testing.assert_close(packed['a.weight'].float(), torch.tensor([1.0, 1 / 3]), rtol=1e-3, atol=0)


def test_existing_weights_are_not_overwritten(tmp_path):
    (tmp_path / 'toy_student.pth').write_bytes(b'mine')
    with pytest.raises(CASTError, match='toy_student.pth exists'):
        make_toy_weights('configs', str(tmp_path), str(tmp_path / 'work'))
    assert (tmp_path / 'toy_student.pth').read_bytes() == b'mine'
