import json
from contextlib import nullcontext
from pathlib import Path

import pytest
from mmengine.config import Config
from PIL import Image

from mmcast.coco.consistency import check_labels
from mmcast.data.config_data import check_config_data
from mmcast.errors import CASTError


def annotation(**changes) -> dict:
    square = [[2, 2, 8, 2, 8, 8, 2, 8]]
    usual = dict(id=1, image_id=1, category_id=1, iscrowd=0, segmentation=square, area=36)
    return dict(usual, bbox=[2, 2, 6, 6]) | changes


@pytest.fixture
def labels(tmp_path: Path) -> dict:
    (tmp_path / 'images').mkdir()
    Image.new('RGB', (20, 10)).save(tmp_path / 'images/a.png')
    return dict(
        images=[dict(id=1, file_name='a.png', width=20, height=10)],
        annotations=[annotation(image_id=1)],
        categories=[dict(id=1, name='car')],
    )


def check(labels: dict, folder: Path, classes=('car',)) -> None:
    (folder / 'labels.json').write_text(json.dumps(labels))
    check_labels(str(folder / 'labels.json'), str(folder / 'images'), classes)


def test_fitting_labels_pass(labels, tmp_path):
    check(labels, tmp_path)
    check(dict(labels, annotations=[], categories=[]), tmp_path)  # an unlabeled set


@pytest.mark.parametrize(
    'change, message',
    [
        (
            dict(images=[dict(id=1, file_name='b.png', width=20, height=10)]),
            'b.png not found.*does not match the images',
        ),
        (
            dict(images=[dict(id=1, file_name='a.png', width=10, height=20)]),
            'is 20x10, its label file says 10x20',
        ),
        (dict(images=[], annotations=[]), 'lists no image'),
        (
            dict(annotations=[annotation(image_id=2)]),
            'of images that are not listed: 1, such as annotation 1 of image 2',
        ),
        (dict(categories=[dict(id=1, name='bus')]), 'has no category car, it has bus'),
    ],
)
def test_labels_that_do_not_fit_are_refused(labels, tmp_path, change, message):
    with pytest.raises(CASTError, match=message):
        check(dict(labels, **change), tmp_path)


def test_wrong_paths_are_named(labels, tmp_path):
    with pytest.raises(CASTError, match='label file none.json not found'):
        check_labels('none.json', str(tmp_path))
    (tmp_path / 'x.json').write_text('{"a": 1')
    with pytest.raises(CASTError, match='x.json is not a valid COCO annotation file'):
        check_labels(str(tmp_path / 'x.json'), str(tmp_path))
    with pytest.raises(CASTError, match='image folder nowhere of .*x.json not found'):
        check_labels(str(tmp_path / 'x.json'), 'nowhere')


def test_unreadable_image_is_named(labels, tmp_path):
    (tmp_path / 'images/a.png').write_bytes(b'nothing')
    with pytest.raises(CASTError, match='a.png cannot be read: replace it'):
        check(labels, tmp_path)


def test_all_datasets_of_a_config_are_checked(labels, tmp_path):
    (tmp_path / 'labels.json').write_text(json.dumps(labels))
    good = dict(
        type='CocoDataset',
        data_root=str(tmp_path),
        ann_file='labels.json',
        data_prefix=dict(img='images'),
        metainfo=dict(classes=('car',)),
    )
    bad = dict(good, ann_file='other.json')
    loaders = dict(
        train_dataloader=dict(dataset=dict(type='ConcatDataset', datasets=[good, bad])),
        val_dataloader=dict(dataset=dict(type='RepeatDataset', dataset=good)),
    )
    check_config_data(Config(loaders), ('val_dataloader', 'test_dataloader'))
    with pytest.raises(CASTError, match='other.json not found'):
        check_config_data(Config(loaders), ('train_dataloader',))
    # a data set without metainfo looks for the classes of its type
    loaders['val_dataloader']['dataset']['dataset'].pop('metainfo')
    with pytest.raises(CASTError, match='has no category person'):
        check_config_data(Config(loaders), ('val_dataloader',))


@pytest.mark.parametrize(
    'sampler, refused',
    [
        ('GroupMultiSourceSampler', True),
        ('ResumableGroupMultiSourceSampler', True),
        ('MultiSourceSampler', False),
    ],
)
def test_a_source_without_portrait_images_cannot_be_grouped(labels, tmp_path, sampler, refused):
    """The sampler would wait for ever for a portrait labeled image to go with the portrait
    unlabeled one.
    """
    Image.new('RGB', (10, 20)).save(tmp_path / 'images/b.png')
    portrait = dict(
        labels, images=[*labels['images'], dict(id=2, file_name='b.png', width=10, height=20)]
    )
    for name, content in dict(labeled=labels, pseudo=portrait).items():
        (tmp_path / f'{name}.json').write_text(json.dumps(content))
    parts = [
        dict(
            type='CocoDataset',
            data_root=str(tmp_path),
            ann_file=f'{name}.json',
            data_prefix=dict(img='images'),
            metainfo=dict(classes=('car',)),
        )
        for name in ('labeled', 'pseudo')
    ]
    cfg = Config(
        dict(
            train_dataloader=dict(
                sampler=dict(type=sampler, batch_size=2, source_ratio=[1, 1]),
                dataset=dict(type='ConcatDataset', datasets=parts),
            )
        )
    )
    expected = pytest.raises(CASTError, match='labeled.json lacks portrait.*MultiSourceSampler')
    with expected if refused else nullcontext():
        check_config_data(cfg, ('train_dataloader',))


def config(folder, content, **model) -> Config:
    (folder / 'labels.json').write_text(json.dumps(content))
    dataset = dict(
        type='CocoDataset',
        data_root=str(folder),
        ann_file='labels.json',
        data_prefix=dict(img='images'),
        metainfo=dict(classes=('car',)),
    )
    return Config(dict(train_dataloader=dict(dataset=dataset), model=model))


@pytest.mark.parametrize(
    'annotations, message',
    [
        ([annotation(iscrowd=1)], r'1 of 1 annotations have iscrowd 1, .*datumaro.*iscrowd 0'),
        ([], r'has no annotation'),
    ],
)
def test_labels_that_teach_nothing_are_refused(labels, tmp_path, annotations, message):
    cfg = config(tmp_path, dict(labels, annotations=annotations))
    with pytest.raises(CASTError, match=message):
        check_config_data(cfg, ('train_dataloader',))
    cfg.val_dataloader = cfg.pop('train_dataloader')
    check_config_data(cfg, ('val_dataloader',))


def test_annotations_of_unlabeled_images_are_not_looked_at(labels, tmp_path):
    cfg = config(tmp_path, dict(labels, annotations=[annotation(segmentation=None)]))
    with pytest.raises(CASTError, match='without a mask'):
        check_config_data(cfg, ('train_dataloader',))
    cfg.train_dataloader.dataset.type = 'UnlabeledDataset'
    check_config_data(cfg, ('train_dataloader',))


def test_more_instances_than_the_model_finds_are_said(labels, tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr('mmcast.data.config_data.print_log', lambda text, **_: said.append(text))
    cars = [annotation(id=number) for number in range(1, 6)]
    cfg = config(tmp_path, dict(labels, annotations=cars), head=dict(num_queries=3))
    check_config_data(cfg, ('train_dataloader',))
    assert len(said) == 1
    assert '1 of 1 images have more than 3 instances, up to 5; of these 2 cannot be f' in said[0]
    assert said[0].endswith('raise model.head.num_queries')
    cfg.model.head.num_queries = 5
    check_config_data(cfg, ('train_dataloader',))
    assert len(said) == 1


def test_windows_may_hold_fewer_instances_than_their_image(labels, tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr('mmcast.data.config_data.print_log', lambda text, **_: said.append(text))
    cars = [annotation(id=number) for number in range(1, 6)]
    head = dict(num_queries=3)
    cfg = config(tmp_path, dict(labels, annotations=cars), detector=dict(panoptic_head=head))
    cfg.model.detector.test_cfg = dict(windows=dict(size=256, overlap=64))
    check_config_data(cfg, ('train_dataloader',))
    assert not said
    cfg.model.detector.test_cfg.windows = None
    check_config_data(cfg, ('train_dataloader',))
    assert len(said) == 1
