import json
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
from mmdet.datasets import ADE20KInstanceDataset
from PIL import Image
from pycocotools import mask as mask_api

from mmcast.coco.converters.ade20k import categories, convert_ade20k
from mmcast.errors import CASTError

REPOSITORY = Path(__file__).parents[3]
CLASSES = np.array(
    [
        [1, 1, 0, 4],  # bed, person
        [1, 4, 4, 4],
        [7, 100, 100, 0],
    ],
    np.uint8,
)  # class 7 without an instance: not annotated; flag
IDS = np.array([[2, 2, 0, 1], [2, 3, 3, 1], [0, 255, 255, 0]], np.uint8)


def write_pair(root, name, classes, ids, folder='training'):
    """An image and its map in the official format: red the class, green the instance, here noise in
    blue.
    """
    blue = np.arange(classes.size, dtype=np.uint8).reshape(classes.shape)
    image = root / f'images/{folder}/{name}.jpg'
    instances = root / f'annotations_instance/{folder}/{name}.png'
    for path, pixels in (
        (image, np.full((*classes.shape, 3), 90, np.uint8)),
        (instances, np.stack([classes, ids, blue], axis=-1)),
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    return image, instances


def convert(root, **options):
    return convert_ade20k(root, 'train', root / 'out.json', progress=False, **options)


def read(root):
    return json.loads((root / 'out.json').read_text())


def test_hand_made_map_by_the_official_rules(tmp_path):
    write_pair(tmp_path, 'ADE_train_00000001', CLASSES, IDS)
    assert convert(tmp_path) == dict(images=1, instances=4, groups=0)
    coco = read(tmp_path)
    assert coco['images'] == [dict(id=1, file_name='ADE_train_00000001.jpg', height=3, width=4)]
    found = [
        (ann['instance_id'], ann['category_id'], ann['area'], ann['bbox'], ann['iscrowd'])
        for ann in coco['annotations']
    ]
    assert found == [
        (1, 4, 2, [3, 0, 1, 2], 0),
        (2, 1, 3, [0, 0, 2, 2], 0),
        (3, 4, 2, [1, 1, 2, 1], 0),
        (255, 100, 2, [1, 2, 2, 1], 0),
    ]


def test_class_ids_and_names_are_the_challenges():
    """Lines of CSAILVision/placeschallenge instanceInfo100_train.txt, among them the first and the
    last.
    """
    names = {category['id']: category['name'] for category in categories()}
    assert list(names) == list(range(1, 101))
    official = {
        1: 'bed',
        4: 'person',
        9: 'car',
        33: 'pool table',
        58: 'television receiver',
        66: 'ship',
        92: 'ashcan',
        100: 'flag',
    }
    assert {number: names[number] for number in official} == official


def test_every_instance_appears_once_with_its_pixels(tmp_path):
    rng = np.random.default_rng(0)
    maps = {}
    for number in range(1, 7):
        # Instances in many pieces.
        ids = np.kron(rng.integers(0, 9, (5, 7)), np.ones((4, 3))).astype(np.uint8)
        classes = np.concatenate([[0], rng.integers(1, 101, 8)])[ids].astype(np.uint8)
        maps[f'ADE_train_{number:08d}'] = classes, ids
        write_pair(tmp_path, f'ADE_train_{number:08d}', classes, ids)
    convert(tmp_path)
    coco = read(tmp_path)
    assert [image['file_name'] for image in coco['images']] == [
        f'{name}.jpg' for name in sorted(maps)
    ]
    for image in coco['images']:
        # read from the PNG, one pixel after the other: (class, instance) -> set of (row, column)
        pixels = {}
        path = (
            tmp_path / 'annotations_instance/training' / image['file_name'].replace('.jpg', '.png')
        )
        with Image.open(path) as png:
            for y in range(png.height):
                for x in range(png.width):
                    red, green, _ = png.getpixel((x, y))
                    if green:
                        pixels.setdefault((red, green), set()).add((y, x))
        annotations = [ann for ann in coco['annotations'] if ann['image_id'] == image['id']]
        found = {
            (ann['category_id'], ann['instance_id']): set(
                map(tuple, np.argwhere(mask_api.decode(ann['segmentation'])).tolist())
            )
            for ann in annotations
        }
        assert len(annotations) == len(found) and found == pixels
    assert len({ann['id'] for ann in coco['annotations']}) == len(coco['annotations'])


def test_mmdet_loads_it(tmp_path):
    write_pair(tmp_path, 'ADE_train_00000001', CLASSES, IDS)
    convert(tmp_path)
    dataset = ADE20KInstanceDataset(
        ann_file=str(tmp_path / 'out.json'),
        pipeline=[],
        data_prefix=dict(img=str(tmp_path / 'images/training')),
    )
    info = dataset.get_data_info(0)
    assert Path(info['img_path']).is_file()
    assert [instance['bbox_label'] for instance in info['instances']] == [3, 0, 3, 99]


def test_workers_give_the_same_file(tmp_path):
    for number in range(10):  # more than one chunk of work
        write_pair(tmp_path, f'ADE_train_{number:08d}', CLASSES, IDS)
    convert(tmp_path)
    convert_ade20k(tmp_path, 'train', tmp_path / 'parallel.json', num_workers=2, progress=False)
    assert (tmp_path / 'parallel.json').read_bytes() == (tmp_path / 'out.json').read_bytes()


def test_image_without_instances_stays(tmp_path):
    write_pair(tmp_path, 'ADE_train_00000001', CLASSES * 0, IDS * 0)
    assert convert(tmp_path) == dict(images=1, instances=0, groups=0)


def damage_map_missing(image, instances):
    instances.unlink()
    return instances, 'annotations_instance.tar'


def damage_image_missing(image, instances):
    image.unlink()
    return image, 'ADEChallengeData2016.zip'


def damage_map_truncated(image, instances):
    instances.write_bytes(instances.read_bytes()[:40])
    return instances, 'unpack'


def damage_image_text(image, instances):
    image.write_text('not a picture')
    return image, 'unpack'


def damage_semantic_map(image, instances):
    Image.fromarray(CLASSES).save(instances)
    return instances, 'annotations_instance.tar'


def damage_size(image, instances):
    Image.new('RGB', (9, 9)).save(image)
    return image, 'same download'


def damage_two_classes(image, instances):
    Image.fromarray(np.stack([CLASSES, IDS * 0 + 1, IDS], axis=-1)).save(instances)
    return instances, 'instance 1 has class 0, 1, 4, 7, 100'


def damage_unknown_class(image, instances):
    Image.fromarray(np.stack([IDS * 0 + 101, IDS, IDS], axis=-1)).save(instances)
    return instances, 'instance 1 has class 101'


@pytest.mark.parametrize(
    'damage',
    [
        damage_map_missing,
        damage_image_missing,
        damage_map_truncated,
        damage_image_text,
        damage_semantic_map,
        damage_size,
        damage_two_classes,
        damage_unknown_class,
    ],
)
def test_a_damaged_tree_is_named_and_nothing_written(tmp_path, damage):
    write_pair(tmp_path, 'ADE_train_00000001', CLASSES, IDS)
    culprit, cure = damage(*write_pair(tmp_path, 'ADE_train_00000002', CLASSES, IDS))
    with pytest.raises(CASTError) as error:
        convert(tmp_path)
    message = str(error.value)
    assert str(culprit) in message and cure in message and '\n' not in message
    assert not (tmp_path / 'out.json').exists()


def test_command_line_converts_both_splits(tmp_path, monkeypatch, capsys):
    write_pair(tmp_path, 'ADE_train_00000001', CLASSES, IDS)
    write_pair(tmp_path, 'ADE_val_00000001', CLASSES, IDS, 'validation')
    script = REPOSITORY / 'tools/dataset_converters/ade20k.py'
    monkeypatch.setattr(sys, 'argv', [str(script), str(tmp_path)])
    runpy.run_path(str(script), run_name='__main__')
    assert capsys.readouterr().out.count('1 images, 4 instances') == 2
    val = json.loads((tmp_path / 'annotations/instances_val.json').read_text())
    assert val['images'][0]['file_name'] == 'ADE_val_00000001.jpg'

    monkeypatch.setattr(sys, 'argv', [str(script), str(tmp_path / 'images')])
    with pytest.raises(SystemExit, match='error: .*unpack ADEChallengeData2016.zip'):
        runpy.run_path(str(script), run_name='__main__')
