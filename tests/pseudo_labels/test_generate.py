"""A teacher that sees rectangles by colour writes pseudo-labels; killed, refused and finished runs of it."""
import json
import runpy
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.model import BaseModel
from mmengine.structures import InstanceData
from pycocotools import mask as mask_utils
from pycocotools.coco import COCO

import mmcast.models  # noqa: F401  (before mmdet)
from mmcast.errors import CASTError
from mmcast.pseudo_labels import generate_pseudo_labels
from mmcast.registry import MODELS

TOOL = Path(__file__).parents[2] / 'tools' / 'pseudo_label.py'
HEIGHT, WIDTH = 12, 20
CLASSES = ('person', 'car')


@MODELS.register_module(force=True)
class ColourTeacher(BaseModel):
    """Blue is a person with score `confidence`, green a car with 0.5; then an empty mask and a weak one."""

    def __init__(self, with_masks=True):
        super().__init__(data_preprocessor=dict(type='mmdet.DetDataPreprocessor'))
        self.confidence = torch.nn.Parameter(torch.tensor(0.0))
        self.with_masks = with_masks
        self.calls = 0

    def forward(self, inputs, data_samples, mode='predict'):
        blue, green = inputs[0, 0] > 128, inputs[0, 1] > 128
        masks = [blue, green, torch.zeros_like(blue), torch.ones_like(blue)]
        scores = torch.stack([self.confidence, *torch.tensor([0.5, 0.9, 0.05])])
        prediction = InstanceData(scores=scores, labels=torch.tensor([0, 1, 1, 0]))
        if self.with_masks:
            prediction.masks = torch.stack(masks)
        data_samples[0].pred_instances = prediction
        return data_samples


@pytest.fixture
def data(tmp_path):
    """Five images, the third black; category ids are not the labels, and car comes first."""
    images = []
    for number in range(5):
        image = np.zeros((HEIGHT, WIDTH, 3), dtype=np.uint8)
        if number != 2:
            image[2:6, number:number + 7, 0] = 255
            image[4:10, 10:14, 1] = 255
        (tmp_path / 'images' / 'sub').mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(tmp_path / f'images/sub/{number}.png'), image)
        images.append(dict(id=10 + number, file_name=f'sub/{number}.png', height=HEIGHT, width=WIDTH))
    secret = dict(id=1, image_id=10, category_id=7, bbox=[0, 0, 5, 5], area=25, iscrowd=0, segmentation=[])
    content = dict(images=images, annotations=[secret],
                   categories=[dict(id=7, name='car'), dict(id=3, name='person')])
    (tmp_path / 'images.json').write_text(json.dumps(content))
    torch.save(dict(state_dict=dict(confidence=torch.tensor(0.87654321)), meta={}), tmp_path / 'teacher.pth')
    return tmp_path


def make_config(**model):
    pipeline = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
                dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape'))]
    dataset = dict(type='CocoDataset', metainfo=dict(classes=CLASSES), pipeline=pipeline)
    return Config(dict(default_scope='mmcast', model=dict(type='ColourTeacher', **model),
                       test_dataloader=dict(dataset=dataset)))


def generate(data, out='labels.json', config=None, **kwargs):
    return generate_pseudo_labels(config or make_config(), data / 'teacher.pth', data / out, progress=False,
                                  **dict(ann_file=data / 'images.json', img_dir=data / 'images', device='cpu',
                                         **kwargs))


def test_file_is_coco_with_masks_scores_and_a_header(data):
    summary = generate(data)
    assert summary == dict(images=5, empty_images=1, instances=8, instances_per_class=dict(car=4, person=4))
    coco = COCO(str(data / 'labels.json'))
    assert coco.dataset['info']['kind'] == 'mmcast pseudo-labels'
    assert len(coco.dataset['info']['teacher_checkpoint']) == 64
    assert [coco.imgs[i]['file_name'] for i in coco.getImgIds()] == [f'sub/{n}.png' for n in range(5)]
    assert coco.getAnnIds(imgIds=[12]) == []
    person, car = coco.loadAnns(coco.getAnnIds(imgIds=[13]))
    expected = np.zeros((HEIGHT, WIDTH))
    expected[2:6, 3:10] = 1
    assert np.array_equal(coco.annToMask(person), expected)
    fields = ('category_id', 'score', 'bbox', 'area')
    assert [person[field] for field in fields] == [3, 0.876543, [3, 2, 7, 4], 28]
    assert [car[field] for field in fields] == [7, 0.5, [10, 4, 4, 6], 24]
    ids = coco.getAnnIds()
    assert len(set(ids)) == 8 and min(ids) == 1
    assert not (data / 'labels.json.partial.jsonl').exists()


def test_masks_are_stored_as_predicted(data):
    generate(data)
    coco = COCO(str(data / 'labels.json'))
    person, car = coco.loadAnns(coco.getAnnIds(imgIds=[14]))
    overlap = mask_utils.area(mask_utils.merge([person['segmentation'], car['segmentation']], intersect=True))
    assert overlap == 2  # rows 4 and 5 of column 10: claimed by both


@pytest.mark.parametrize('stop_at', [0, 1, 3, 4])
@pytest.mark.parametrize('tail', ['', '{"image": {"id": 1'])
def test_an_interrupted_run_ends_in_the_same_file(data, monkeypatch, stop_at, tail):
    generate(data, 'whole.json')
    predictions = []
    forward = ColourTeacher.forward

    def interrupted(self, inputs, data_samples, mode='predict'):
        predictions.append(data_samples[0].img_id)
        if len(predictions) == stop_at + 1:
            raise KeyboardInterrupt
        return forward(self, inputs, data_samples, mode)

    monkeypatch.setattr(ColourTeacher, 'forward', interrupted)
    with pytest.raises(KeyboardInterrupt):
        generate(data)
    assert not (data / 'labels.json').exists()
    with open(data / 'labels.json.partial.jsonl', 'a') as file:
        file.write(tail)
    generate(data)
    assert predictions[stop_at + 1:] == [10 + n for n in range(stop_at, 5)]
    assert (data / 'labels.json').read_bytes() == (data / 'whole.json').read_bytes()


def test_finished_file_is_left_alone_without_predicting(data, monkeypatch):
    first = generate(data)
    monkeypatch.setattr(ColourTeacher, 'forward', None)
    assert generate(data) == first


@pytest.mark.parametrize('change, field', [
    (dict(score_floor=0.2), 'score_floor'), (dict(limit=2), 'limit'),
    (dict(config=make_config(with_masks=False)), 'config')])
def test_file_of_something_else_is_refused(data, monkeypatch, change, field):
    generate(data)
    before = (data / 'labels.json').read_bytes()
    with pytest.raises(CASTError, match=rf'labels\.json was made with another {field}; delete it'):
        generate(data, **change)
    assert (data / 'labels.json').read_bytes() == before


def test_partial_file_of_another_teacher_is_refused(data, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(ZeroDivisionError):
        patch.setattr(ColourTeacher, 'forward', lambda *args, **kwargs: 1 / 0)
        generate(data)
    torch.save(dict(confidence=torch.tensor(0.7)), data / 'teacher.pth')
    with pytest.raises(CASTError, match=r'json\.partial\.jsonl was made with another teacher_checkpoint'):
        generate(data)


def test_another_coco_file_is_never_overwritten(data):
    before = (data / 'images.json').read_bytes()
    with pytest.raises(CASTError, match=r'images\.json is no pseudo-label file'):
        generate(data, out='images.json')
    assert (data / 'images.json').read_bytes() == before


def test_broken_image_is_named(data):
    whole = (data / 'images/sub/4.png').read_bytes()
    (data / 'images/sub/4.png').write_bytes(whole[:len(whole) // 2])  # its header is sound
    with pytest.raises(CASTError, match=r'4\.png cannot be read .*; replace it'):
        generate(data)
    (data / 'images/sub/4.png').write_bytes(whole)
    assert generate(data)['images'] == 5


@pytest.mark.parametrize('state, problem', [
    ({}, 'holds no state dict'), ({'other': torch.zeros(1)}, r'missing, such as confidence'),
    ({'confidence': torch.zeros(2)}, r'confidence is \(2,\), needs \(\)'),
    ({'confidence': torch.tensor(0.8), 'head': torch.zeros(1)}, 'unknown, such as head')])
def test_checkpoint_of_another_model_is_refused(data, state, problem):
    torch.save(state, data / 'teacher.pth')
    with pytest.raises(CASTError, match=problem) as error:
        generate(data)
    assert 'teacher.pth' in str(error.value)


def test_parts_that_only_training_has_may_be_in_the_checkpoint(data):
    weight = torch.zeros(1)
    torch.save({'confidence': torch.tensor(0.8), 'pixel_contrast.w': weight, 'teacher.w': weight},
               data / 'teacher.pth')
    assert generate(data)['instances'] == 8


def test_missing_checkpoint_and_model_without_masks(data):
    with pytest.raises(CASTError, match='ColourTeacher predicts no masks'):
        generate(data, config=make_config(with_masks=False))
    (data / 'teacher.pth').unlink()
    with pytest.raises(CASTError, match=r'teacher\.pth not found'):
        generate(data)


def test_class_that_the_image_list_lacks(data):
    config = make_config()
    config.test_dataloader.dataset.metainfo.classes = ('person', 'tram')
    with pytest.raises(CASTError, match=r'images\.json has no category tram, it has car, person'):
        generate(data, config=config)


def test_images_that_do_not_match_their_labels(data):
    cv2.imwrite(str(data / 'images/sub/3.png'), np.zeros((HEIGHT, WIDTH + 1, 3), np.uint8))
    with pytest.raises(CASTError, match=r'3\.png is 21x12, its label says 20x12'):
        generate(data)


def test_limit_takes_the_first_images(data):
    assert generate(data, limit=2)['images'] == 2


def run_tool(data, monkeypatch, checkpoint):
    make_config().dump(data / 'teacher.py')
    monkeypatch.setattr(sys, 'argv', [
        'pseudo_label.py', str(data / 'teacher.py'), str(data / checkpoint),
        '--out', str(data / 'labels.json'), '--ann-file', str(data / 'images.json'),
        '--img-dir', str(data / 'images'), '--device', 'cpu'])
    runpy.run_path(str(TOOL), run_name='__main__')


def test_tool_prints_the_summary(data, monkeypatch, capsys):
    run_tool(data, monkeypatch, 'teacher.pth')
    assert '"instances": 8' in capsys.readouterr().out
    assert (data / 'labels.json').exists()


def test_tool_fails_with_one_line(data, monkeypatch):
    with pytest.raises(SystemExit) as stop:
        run_tool(data, monkeypatch, 'nothing.pth')
    assert str(stop.value).startswith('error: checkpoint ') and '\n' not in str(stop.value)
