import json

import numpy as np
import pytest
import torch
from mmdet.datasets.samplers import GroupMultiSourceSampler
from mmengine.dataset import ConcatDataset
from mmengine.registry import init_default_scope
from PIL import Image

from mmcast.data.unlabeled import UnlabeledDataset
from mmcast.errors import CASTError
from mmcast.registry import DATASETS

PIPELINE = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='RandomFlip', prob=1.0),
    dict(
        type='PackDetInputs',
        meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'source', 'flip'),
    ),
]
CLASSES = dict(classes=('car', 'bus'))


@pytest.fixture(autouse=True)
def scope():
    init_default_scope('mmcast')


@pytest.fixture
def folder(tmp_path):
    """Three images of two shapes, in a tree with a text file; annotations that must not be seen."""
    sizes = {'a.png': (20, 30), 'deep/b.JPG': (30, 20), 'deep/er/c.png': (20, 30)}
    for name, (height, width) in sizes.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((height, width, 3), 7, np.uint8)).save(tmp_path / name)
    (tmp_path / 'notes.txt').write_text('no image')
    images = [
        dict(id=i, file_name=name, height=h, width=w)
        for i, (name, (h, w)) in enumerate(sizes.items())
    ]
    annotation = dict(
        id=1,
        image_id=0,
        category_id=1,
        bbox=[1, 1, 5, 5],
        area=25,
        iscrowd=0,
        segmentation=[[1, 1, 6, 1, 6, 6, 1, 6]],
    )
    (tmp_path / 'images.json').write_text(
        json.dumps(
            dict(
                images=images,
                annotations=[annotation],
                categories=[dict(id=1, name='car'), dict(id=2, name='bus')],
            )
        )
    )
    return tmp_path


def dataset(folder, ann_file='', **options):
    return DATASETS.build(
        dict(
            dict(
                type='UnlabeledDataset',
                data_root=str(folder),
                ann_file=ann_file,
                data_prefix=dict(img=''),
                metainfo=CLASSES,
                pipeline=PIPELINE,
                filter_cfg=dict(filter_empty_gt=True),
            ),
            **options,
        )
    )


@pytest.mark.parametrize('ann_file', ['', 'images.json'])
def test_every_image_is_kept_and_none_has_a_label(folder, ann_file):
    unlabeled = dataset(folder, ann_file)
    assert isinstance(unlabeled, UnlabeledDataset) and len(unlabeled) == 3
    infos = [unlabeled.get_data_info(i) for i in range(3)]
    names = ['a.png', 'deep/b.JPG', 'deep/er/c.png']
    assert [info['img_path'] for info in infos] == [str(folder / name) for name in names]
    assert [(info['height'], info['width']) for info in infos] == [(20, 30), (30, 20), (20, 30)]
    assert all(info['source'] == 'unlabeled' and info['instances'] == [] for info in infos)
    assert len({info['img_id'] for info in infos}) == 3


@pytest.mark.parametrize('ann_file', ['', 'images.json'])
def test_the_usual_pipeline_packs_it(folder, ann_file):
    sample = dataset(folder, ann_file)[0]
    assert sample['inputs'].shape == (3, 20, 30) and sample['data_samples'].flip
    assert sample['data_samples'].source == 'unlabeled'
    instances = sample['data_samples'].gt_instances
    assert len(instances) == 0 and instances.masks.masks.shape == (0, 20, 30)
    assert torch.as_tensor(instances.bboxes.tensor).shape == (0, 4)


def test_min_size_still_filters(folder):
    assert len(dataset(folder, filter_cfg=dict(min_size=20))) == 3
    Image.new('RGB', (40, 25)).save(folder / 'large.png')
    filtered = dataset(folder, filter_cfg=dict(min_size=21))
    assert len(filtered) == 1 and filtered.get_data_info(0)['img_path'].endswith('large.png')


def test_it_mixes_with_labeled_images_in_a_group_sampler(folder):
    labeled = DATASETS.build(
        dict(
            type='CocoDataset',
            data_root=str(folder),
            ann_file='images.json',
            metainfo=CLASSES,
            data_prefix=dict(img=''),
            pipeline=PIPELINE,
        )
    )
    both = ConcatDataset([labeled, dataset(folder, 'images.json')])
    batches = iter(GroupMultiSourceSampler(both, batch_size=4, source_ratio=[1, 3], seed=0))
    for _ in range(5):
        batch = [next(batches) for _ in range(4)]
        assert [index >= 3 for index in batch] == [False, True, True, True]
        assert len({both[index]['inputs'].shape for index in batch}) == 1


def test_missing_or_empty_folder_is_named(folder):
    with pytest.raises(CASTError, match='nowhere.*data_prefix'):
        dataset(folder, data_prefix=dict(img='nowhere'))


def test_unreadable_images_are_listed_at_once_and_left_out(folder, monkeypatch):
    lines = []
    monkeypatch.setattr('mmcast.data.unlabeled.print_log', lambda line, **_: lines.append(line))
    (folder / 'broken.png').write_text('not a picture')
    (folder / 'deep/empty.png').write_bytes(b'')
    (folder / 'deep/._b.jpg').write_bytes(b'resource fork')
    assert len(dataset(folder)) == 3
    hidden, unreadable = lines
    assert hidden.startswith('1 hidden files and copies of programs left out')
    title, *each = unreadable.splitlines()
    assert title == '2 images left out:' and 'broken.png' in each[0] and 'empty.png' in each[1]
    for name in ('a.png', 'deep/b.JPG', 'deep/er/c.png'):
        (folder / name).unlink()
    with pytest.raises(CASTError, match='no image that can be read'):
        dataset(folder)


@pytest.mark.parametrize(('value_range', 'count'), [(None, 3), ((0, 4095), 4)])
def test_more_than_8_bits_want_a_range(folder, value_range, count):
    Image.new('I;16', (30, 20), 4095).save(folder / 'deep.png')
    pipeline = [dict(type='LoadImage', value_range=value_range), *PIPELINE[1:]]
    unlabeled = dataset(folder, pipeline=pipeline)
    assert len(unlabeled) == count
    white = [bool((sample['inputs'] == 255).all()) for sample in unlabeled]
    assert sum(white) == count - 3


def test_faults_of_annotations_do_not_matter_and_sizes_come_from_the_images(folder):
    content = json.loads((folder / 'images.json').read_text())
    content['annotations'].append('nothing')
    del content['annotations'][0]['segmentation']
    content['images'][1].pop('height')
    (folder / 'images.json').write_text(json.dumps(content))
    unlabeled = dataset(folder, 'images.json')
    assert [unlabeled.get_data_info(i)['height'] for i in range(3)] == [20, 30, 20]


def test_names_that_cannot_be_used_are_told_before_training(folder):
    content = json.loads((folder / 'images.json').read_text())
    content['images'][1]['file_name'] = 'two\nlines.png'
    (folder / 'images.json').write_text(json.dumps(content))
    with pytest.raises(CASTError, match=r'images.json .*two\\nlines.png .has control characters'):
        dataset(folder, 'images.json')


def test_missing_file_is_named(folder):
    with pytest.raises(CASTError, match='absent.json.*check the path'):
        dataset(folder, 'absent.json')


def test_a_file_without_images_is_named(folder):
    (folder / 'none.json').write_text(json.dumps(dict(images=[], annotations=[], categories=[])))
    with pytest.raises(CASTError, match='none.json lists no image'):
        dataset(folder, 'none.json')
