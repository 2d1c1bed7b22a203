from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from mmcast.errors import CASTError
from mmcast.toy.weights import RECIPES, make_toy_weights, pack_weights


def test_packed_weights_are_the_plain_network_in_half_precision(tmp_path):
    state = {
        'detector.a.weight': torch.tensor([1.0, 1 / 3]),
        'detector.a.steps': torch.tensor(7),
        'pixel_contrast.projector.0.weight': torch.ones(2),
        'teacher.a.weight': torch.zeros(2),
    }
    torch.save(dict(state_dict=state, meta=dict()), tmp_path / 'iter_1.pth')
    pack_weights(tmp_path / 'iter_1.pth', tmp_path / 'packed.pth')
    packed = torch.load(tmp_path / 'packed.pth', weights_only=True)
    assert packed.keys() == {'a.weight', 'a.steps'}, (
        'neither projector nor teacher belongs to the network'
    )
    assert packed['a.weight'].dtype == torch.float16 and packed['a.steps'] == 7
    torch.testing.assert_close(
        packed['a.weight'].float(), torch.tensor([1.0, 1 / 3]), rtol=1e-3, atol=0
    )


def test_existing_weights_are_not_overwritten(tmp_path):
    (tmp_path / 'toy_student.pth').write_bytes(b'mine')
    with pytest.raises(CASTError, match='toy_student.pth exists'):
        make_toy_weights('configs', str(tmp_path), str(tmp_path / 'work'))
    assert (tmp_path / 'toy_student.pth').read_bytes() == b'mine'


def test_an_interrupted_call_goes_on_and_leaves_no_half_set_of_files(tmp_path, monkeypatch):
    trained, out = [], tmp_path / 'out'

    def train(config, resume):
        trained.append(Path(config.work_dir).name)
        if trained.count('dsb2018_teacher_source') == 1 and trained[-1] == 'dsb2018_teacher_source':
            raise KeyboardInterrupt
        state = {
            'detector.panoptic_head.query_embed.weight': torch.full((2, 3), len(trained) * 1.0)
        }
        torch.save(dict(state_dict=state, meta=dict()), tmp_path / f'{len(trained)}.pth')
        return SimpleNamespace(checkpoint=tmp_path / f'{len(trained)}.pth')

    monkeypatch.setattr('mmcast.toy.weights.train_run', train)
    monkeypatch.setattr('mmcast.toy.weights._draw_data', lambda: None)
    with pytest.raises(KeyboardInterrupt):
        make_toy_weights('configs', str(out), str(tmp_path / 'work'))
    assert not out.exists()
    written = make_toy_weights('configs', str(out), str(tmp_path / 'work'))
    assert [path.name for path in written] == list(RECIPES) and all(
        path.is_file() for path in written
    )
    assert trained == [
        'toy_teacher_source',
        'toy_teacher_varied',
        'toy_student_source',
        'dsb2018_teacher_source',
        'dsb2018_teacher_source',
        'dsb2018_teacher_source_longer',
        'dsb2018_student_source',
    ]
    assert (
        make_toy_weights('configs', str(out), str(tmp_path / 'work')) == written
        and len(trained) == 7
    )
