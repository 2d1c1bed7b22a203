import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from cityscapesscripts.evaluation.instances2dict import instances2dict
from mmdet.datasets import CityscapesDataset
from PIL import Image
from pycocotools import mask as mask_api
from pycocotools.coco import COCO

from mmcast.coco.converters.cityscapes import CATEGORIES, convert_cityscapes
from mmcast.errors import CASTError
from mmcast.toy.cityscapes import generate_toy_cityscapes

REPOSITORY = Path(__file__).parents[3]
IDS = np.array(
    [
        [7, 7, 26001, 26001, 26],  # two cars, the second in two pieces, and a group of cars
        [23, 26000, 26000, 26001, 26],
        [24000, 0, 29000, 26001, 26001],  # a caravan (29) is not evaluated
        [24000, 24000, 34567, 65535, 26001],
    ],
    np.uint16,
)


@pytest.fixture
def tree(tmp_path):
    """One image with the ids above."""
    image, ids = (
        tmp_path / folder / 'train' / 'town' / f'town_000000_000019_{suffix}.png'
        for folder, suffix in (('leftImg8bit', 'leftImg8bit'), ('gtFine', 'gtFine_instanceIds'))
    )
    for path, pixels in ((image, np.zeros((*IDS.shape, 3), np.uint8)), (ids, IDS)):
        path.parent.mkdir(parents=True)
        Image.fromarray(pixels).save(path)
    return tmp_path, image, ids


def convert(root, **options):
    return convert_cityscapes(root, 'train', root / 'out.json', progress=False, **options)


def test_hand_made_map_by_the_official_rules(tree):
    root, _, _ = tree
    assert convert(root) == dict(images=1, instances=3, groups=1)
    coco = json.loads((root / 'out.json').read_text())
    assert coco['images'] == [
        dict(id=1, file_name='town/town_000000_000019_leftImg8bit.png', height=4, width=5)
    ]
    found = [
        (ann['category_id'], ann['iscrowd'], ann['area'], ann['bbox'])
        for ann in coco['annotations']
    ]
    assert found == [
        (26, 1, 2, [4, 0, 1, 2]),
        (24, 0, 3, [0, 2, 2, 2]),
        (26, 0, 2, [1, 1, 2, 1]),
        (26, 0, 6, [2, 0, 3, 4]),
    ]
    assert len({ann['id'] for ann in coco['annotations']}) == 4


def test_classes_are_mmdets_in_its_order():
    assert (
        tuple(category['name'] for category in CATEGORIES) == CityscapesDataset.METAINFO['classes']
    )
    assert [category['id'] for category in CATEGORIES] == [24, 25, 26, 27, 28, 31, 32, 33]


def test_every_instance_appears_once_with_its_pixels(tmp_path):
    generate_toy_cityscapes(tmp_path, num_train=25, num_val=0, size=(56, 112), progress=False)
    convert(tmp_path)
    coco = json.loads((tmp_path / 'out.json').read_text())
    groups = 0
    for image in coco['images']:
        name = image['file_name'].replace('_leftImg8bit.png', '_gtFine_instanceIds.png')
        ids = np.array(Image.open(tmp_path / 'gtFine' / 'train' / name)).tolist()
        expected = {}  # read pixel by pixel: id -> set of (row, column)
        for y, row in enumerate(ids):
            for x, value in enumerate(row):
                if value >= 24:
                    expected.setdefault(value, set()).add((y, x))
        annotations = [ann for ann in coco['annotations'] if ann['image_id'] == image['id']]
        assert sorted(ann['instance_id'] for ann in annotations) == sorted(expected)
        for ann in annotations:
            mask = mask_api.decode(ann['segmentation'])
            pixels = expected[ann['instance_id']]
            assert set(zip(*(axis.tolist() for axis in np.nonzero(mask)))) == pixels
            assert ann['area'] == len(pixels)
            x, y, width, height = ann['bbox']
            rows, columns = zip(*pixels)
            assert (x, y, x + width, y + height) == (
                min(columns),
                min(rows),
                max(columns) + 1,
                max(rows) + 1,
            )
            assert ann['iscrowd'] == (ann['instance_id'] < 1000)
            assert ann['category_id'] == (ann['instance_id'] // 1000 or ann['instance_id'])
            groups += ann['iscrowd']
    assert groups > 0


def test_pycocotools_and_mmdet_load_it(tmp_path):
    generate_toy_cityscapes(tmp_path, num_train=6, num_val=0, size=(56, 112), progress=False)
    counts = convert(tmp_path)
    assert len(COCO(tmp_path / 'out.json').getAnnIds()) == counts['instances'] + counts['groups']
    dataset = CityscapesDataset(
        ann_file=str(tmp_path / 'out.json'),
        pipeline=[],
        data_prefix=dict(img=str(tmp_path / 'leftImg8bit/train')),
    )
    assert len(dataset) == 6
    labels = {
        instance['bbox_label']
        for i in range(6)
        for instance in dataset.get_data_info(i)['instances']
    }
    assert labels <= set(range(8)) and 2 in labels
    assert all(Path(dataset.get_data_info(i)['img_path']).is_file() for i in range(6))


def test_cityscapesscripts_counts_the_same_pixels(tmp_path):
    """The official reader of instance maps, class by class."""
    generate_toy_cityscapes(tmp_path, num_train=3, num_val=0, size=(56, 112), progress=False)
    convert(tmp_path)
    coco = json.loads((tmp_path / 'out.json').read_text())
    names = {category['id']: category['name'] for category in CATEGORIES}
    for image in coco['images']:
        path = (
            tmp_path
            / 'gtFine/train'
            / image['file_name'].replace('_leftImg8bit', '_gtFine_instanceIds')
        )
        (official,) = instances2dict([str(path)]).values()
        for category_id, name in names.items():
            areas = {
                ann['instance_id']: ann['area']
                for ann in coco['annotations']
                if ann['image_id'] == image['id'] and ann['category_id'] == category_id
            }
            assert areas == {
                instance['instID']: instance['pixelCount'] for instance in official[name]
            }


def test_workers_give_the_same_file(tree):
    root, _, _ = tree
    convert(root)
    convert_cityscapes(root, 'train', root / 'parallel.json', num_workers=2, progress=False)
    assert (root / 'parallel.json').read_bytes() == (root / 'out.json').read_bytes()


def damage_label_missing(image, ids):
    os.unlink(ids)
    return ids.parents[1]  # was the only one


def damage_image_missing(image, ids):
    os.unlink(image)
    return image.parents[1]


def damage_label_8_bit(image, ids):
    Image.new('L', (5, 4)).save(ids)
    return ids


def damage_image_text(image, ids):
    image.write_text('not a picture')
    return image


def damage_image_truncated(image, ids):
    image.write_bytes(image.read_bytes()[:-20])
    return image


def damage_label_truncated(image, ids):
    ids.write_bytes(ids.read_bytes()[:50])
    return ids


def damage_size(image, ids):
    Image.new('RGB', (9, 9)).save(image)
    return image


def damage_label_colour(image, ids):
    Image.new('RGB', (5, 4)).save(ids)
    return ids


@pytest.mark.parametrize(
    'damage',
    [
        damage_label_missing,
        damage_image_missing,
        damage_image_text,
        damage_image_truncated,
        damage_label_truncated,
        damage_size,
        damage_label_colour,
        damage_label_8_bit,
    ],
)
def test_a_damaged_tree_is_named_and_nothing_written(tree, damage):
    root, image, ids = tree
    culprit = damage(image, ids)
    with pytest.raises(CASTError) as error:
        convert(root)
    assert str(culprit) in str(error.value) and '\n' not in str(error.value)
    assert sorted(path.name for path in root.iterdir()) == ['gtFine', 'leftImg8bit']


def test_missing_folder_is_named(tmp_path):
    with pytest.raises(CASTError, match='leftImg8bit/train.*unpack leftImg8bit_trainvaltest.zip'):
        convert(tmp_path)


@pytest.mark.parametrize(
    'pattern, archive',
    [
        ('leftImg8bit/train/*/*.png', 'leftImg8bit_trainvaltest.zip'),
        ('gtFine/train/*/*_instanceIds.png', 'gtFine_trainvaltest.zip'),
    ],
)
def test_a_download_unpacked_by_half_is_counted(tmp_path, pattern, archive):
    """Not converted as a smaller data set."""
    generate_toy_cityscapes(tmp_path, num_train=4, num_val=0, size=(32, 64), progress=False)
    files = sorted(tmp_path.glob(pattern))
    for path in files[1:]:
        os.unlink(path)
    with pytest.raises(CASTError, match=f'{files[1].name} and 2 more missing.*{archive} .*again'):
        convert(tmp_path)


def test_existing_file_is_refused_unless_forced(tree):
    root, _, _ = tree
    (root / 'out.json').write_text('{}')
    with pytest.raises(CASTError, match='out.json exists'):
        convert(root)
    assert (root / 'out.json').read_text() == '{}'
    convert(root, force=True)
    convert(root)  # the same content is no reason to refuse


def test_command_line(tree, monkeypatch, capsys):
    root, image, _ = tree
    arguments = ['tools/dataset_converters/cityscapes.py', str(root), '--splits', 'train']
    monkeypatch.setattr(sys, 'argv', arguments)
    runpy.run_path(str(REPOSITORY / arguments[0]), run_name='__main__')
    assert '1 images, 3 instances, 1 groups' in capsys.readouterr().out
    assert (root / 'annotations/instances_train.json').is_file()
    os.unlink(image)
    failed = subprocess.run(
        [sys.executable, *arguments], cwd=REPOSITORY, capture_output=True, text=True
    )
    assert failed.returncode == 1
    assert failed.stderr.startswith('error: ') and failed.stderr.count('\n') == 1
