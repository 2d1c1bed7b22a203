"""What converters of annotation tools' exports have in common."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from export_scene import CORNER, DISC, PARTS, RING, SCENE, SQUARE, box
from exports import EXPORTS, assert_same_objects, copy_export, objects_of
from mmdet.datasets import CocoDataset
from PIL import Image
from pycocotools import mask as mask_api

from mmcast.cli.main import main
from mmcast.coco.converters.exports import ImageLabels, read_all, write_exports
from mmcast.coco.converters.shapes import polygon_rle
from mmcast.coco.custom import prepare_custom_data
from mmcast.errors import CASTError
from mmcast.masks.rle import encode_mask, encode_segmentation

THREE = box(2, 2, 8, 8) | box(12, 12, 20, 18) | box(22, 30, 30, 44)


def drawn(export: str) -> dict[str, list]:
    """Labelme's own masks; its third object of b.png is version 6's oriented rectangle."""
    names = {'a.png': ['cell', 'cell', 'nucleus'], 'b.png': ['nucleus', 'cell', 'nucleus']}
    found = {}
    for image in SCENE:
        ids = np.asarray(Image.open(EXPORTS / 'drawn' / export / image))
        found[image] = [(names[image][n - 1], ids == n) for n in range(1, ids.max() + 1)]
    return found


# Each export: the command, the file it writes, and the objects of it by image.
CONVERTED = {
    'datumaro-1.13.12-cvat': ('cvat', 'instances.json', SCENE),
    'label_studio_sdk-2.1.2/json': (
        'label_studio',
        'instances.json',
        SCENE,
    ),
    'label_studio_sdk-2.1.2/yolo': (
        'yolo --pixel-edges',
        'instances.json',
        {
            '0123abcd-a.png': [('cell', SQUARE), ('nucleus', PARTS[0])],
            '0123abcd-b.png': [('nucleus', CORNER)],
            '0123abcd-c.png': [],
        },
    ),
    'supervision-0.31.2-yolo': (
        'yolo',
        'instances_train.json',
        {
            'a.png': [
                ('cell', SQUARE),
                ('cell', RING),
                ('nucleus', PARTS[1]),  # it writes parts as objects of their own
                ('nucleus', PARTS[0]),
            ],
            'b.png': [('nucleus', CORNER), ('cell', DISC)],
            'c.png': [],
        },
    ),
    'ultralytics-8.4.190-yolo': (
        'yolo',
        'instances_train.json',
        {
            'a.png': [('cell', SQUARE), ('nucleus', PARTS[0] | PARTS[1])],
            'b.png': [('nucleus', THREE)],
        },
    ),
    'format-roboflow/yolo': (
        'yolo --pixel-edges',
        'instances_train.json',
        {
            'a_png.rf.0123456789abcdef0123456789abcdef.jpg': [
                ('cell', SQUARE),
                ('nucleus', PARTS[0]),
            ],
            'c_png.rf.00112233445566778899aabbccddeeff.jpg': [],
        },
    ),
    'format-voc2012': (
        'voc',
        'instances_train.json',
        {'a.jpg': [('dog', SQUARE), ('dog', RING), ('person', PARTS[0] | PARTS[1])]},
    ),
    'labelme-6.3.1': ('labelme', 'instances.json', drawn('labelme-6.3.1')),
    'labelme-5.11.4': ('labelme', 'instances.json', drawn('labelme-5.11.4')),
    'datumaro-1.13.12-voc': (
        'voc',
        'instances_val.json',
        {'b.png': SCENE['b.png'], 'c.png': []},
    ),
}


def convert(export: str, folder: Path) -> Path:
    """The file that the command writes."""
    command, file, _ = CONVERTED[export]
    root = copy_export(export, folder)
    source = root / 'tasks.json' if command == 'label_studio' else root
    main(['convert', *command.split(), str(source)])
    return root / 'annotations' / file


@pytest.mark.parametrize('export', CONVERTED)
def test_masks_are_those_that_were_labeled(export, tmp_path):
    found = objects_of(convert(export, tmp_path))
    expected = CONVERTED[export][2]
    assert list(found) == list(expected)
    for image, objects in expected.items():
        assert_same_objects(found[image], objects)


def move_image(file: Path, other: Path, number: int) -> None:
    """Writes one image of a COCO file, by its id, to another one."""
    coco = json.loads(file.read_text())
    for path, wanted in ((file, False), (other, True)):
        images = [image for image in coco['images'] if (image['id'] == number) == wanted]
        anns = [ann for ann in coco['annotations'] if (ann['image_id'] == number) == wanted]
        path.write_text(json.dumps(dict(coco, images=images, annotations=anns)))


@pytest.mark.parametrize(
    'export',
    [
        'datumaro-1.13.12-cvat',
        'format-voc2012',
        'label_studio_sdk-2.1.2/json',
        'labelme-6.3.1',
        'supervision-0.31.2-yolo',
    ],
)
def test_the_data_step_and_mmdet_read_what_was_written(export, tmp_path):
    file = convert(export, tmp_path)
    root, expected = file.parents[1], objects_of(file)
    (root / 'unlabeled').mkdir()
    Image.new('RGB', (48, 32), (9, 9, 9)).save(root / 'unlabeled/new.png')
    val = file.with_name('instances_val.json')
    if val.exists():
        expected |= objects_of(val)
    else:
        move_image(file, val, number=2)
    data = prepare_custom_data(
        root,
        f'annotations/{file.name}',
        'unlabeled',
        tmp_path / 'work',
        val=f'annotations/{val.name}',
    )
    assert data['classes'] == list(
        dict.fromkeys(sorted(n for o in expected.values() for n, _ in o))
    )
    assert_data_step_has(data, expected)


def assert_data_step_has(data: dict, expected: dict[str, list]) -> None:
    """mmdet's data set reads these objects from the files of the data step, by image."""
    seen = {}
    for part, images in (('labeled', 'train_images'), ('val', 'val_images')):
        dataset = CocoDataset(
            ann_file=data[part],
            data_prefix=dict(img=data[images]),
            metainfo=dict(classes=data['classes']),
            pipeline=[],
            test_mode=True,
        )
        for number in range(len(dataset)):
            info = dataset.get_data_info(number)
            assert Path(info['img_path']).is_file()
            seen[Path(info['img_path']).name] = [
                (
                    data['classes'][item['bbox_label']],
                    mask_api.decode(encode_segmentation(item['mask'], 32, 48)).astype(bool),
                )
                for item in info['instances']
                if not item['ignore_flag']
            ]
    assert seen.keys() == expected.keys()
    for image, objects in expected.items():
        assert_same_objects(seen[image], objects)


@pytest.mark.parametrize(
    'export, labeled, val, expected',
    [
        (
            'format-roboflow/coco',
            'train/_annotations.coco.json',
            'valid/_annotations.coco.json',
            {
                'a_png.rf.0123456789abcdef0123456789abcdef.jpg': [
                    ('cell', SQUARE),
                    ('nucleus', PARTS[0]),
                ],
                'b_png.rf.fedcba9876543210fedcba9876543210.jpg': [('nucleus', CORNER)],
                'c_png.rf.00112233445566778899aabbccddeeff.jpg': [],
            },
        ),
        (
            'label_studio_sdk-2.1.2/coco',
            'result.json',
            'val.json',
            CONVERTED['label_studio_sdk-2.1.2/yolo'][2],
        ),
    ],
)
def test_the_data_step_reads_coco_as_exported(export, labeled, val, expected, tmp_path):
    root = copy_export(export, tmp_path)
    if not (root / val).exists():
        move_image(root / labeled, root / val, number=1)
    (root / 'unlabeled').mkdir()
    Image.new('RGB', (48, 32), (9, 9, 9)).save(root / 'unlabeled/new.png')
    data = prepare_custom_data(root, labeled, 'unlabeled', tmp_path / 'work', val=val)
    assert data['classes'] == ['cell', 'nucleus']
    assert_data_step_has(data, expected)


def test_a_command_says_what_it_wrote_left_out_and_what_comes_next(tmp_path, capsys):
    root = copy_export('format-cvat-1.1', tmp_path)
    main(['convert', 'cvat', str(root / 'annotations.xml')])
    out = capsys.readouterr().out
    assert f'{root}/annotations/instances.json: 3 images, 6 objects\n' in out
    for line in (
        '1 shapes of the type polyline left out',
        '1 shapes of the type tag left out',
        '1 objects put together from parts of one group',
        '1 rectangles taken as masks of all their pixels',
    ):
        assert f'  {line}\n' in out
    assert (
        f'next: mmcast train cast_custom.py --cfg-options variables.data_root={root} '
        'variables.labeled=annotations/instances.json variables.unlabeled=FOLDER\n'
    ) in out


def test_splits_are_named_as_settings(tmp_path, capsys):
    root = copy_export('format-roboflow/yolo', tmp_path)
    (root / 'data.yaml').write_text((root / 'data.yaml').read_text().replace('test:', '#'))
    main(['convert', 'yolo', str(root / 'data.yaml')])
    assert (
        'variables.labeled=annotations/instances_train.json '
        'variables.val=annotations/instances_val.json'
    ) in capsys.readouterr().out


def test_a_second_call_writes_the_same_and_replaces_nothing(tmp_path):
    file = convert('datumaro-1.13.12-cvat', tmp_path)
    root, first = file.parents[1], file.read_bytes()
    main(['convert', 'cvat', str(root)])
    assert file.read_bytes() == first
    file.write_text('{}')
    with pytest.raises(SystemExit, match='exists with different content'):
        main(['convert', 'cvat', str(root)])
    main(['convert', 'cvat', str(root), '--force'])
    assert file.read_bytes() == first


def test_nothing_is_written_when_one_split_has_a_fault(tmp_path):
    root = copy_export('format-roboflow/yolo', tmp_path)
    (root / 'data.yaml').write_text((root / 'data.yaml').read_text().replace('test:', '#'))
    (file,) = (root / 'valid/labels').iterdir()
    file.write_text('7 0 0 0.5 0 0.5 0.5')
    with pytest.raises(SystemExit, match='line 1: class 7 is none of the 2 names, 0 to 1'):
        main(['convert', 'yolo', str(root)])
    assert not (root / 'annotations').exists()


def test_all_faults_are_one_line(tmp_path, capsys):
    root = copy_export('labelme-5.11.4', tmp_path)
    (root / 'a.png').unlink()
    (root / 'b.json').write_text('{"shapes": [')
    with pytest.raises(SystemExit) as error:
        main(['convert', 'labelme', str(root)])
    message = str(error.value)
    assert message.startswith('error: 2 faults: ') and '\n' not in message
    assert f'{root}/a.png, an image of {root}/a.json, is missing' in message
    assert f'{root}/b.json is not valid JSON' in message


@pytest.mark.parametrize('command', ['labelme', 'yolo', 'voc', 'cvat', 'label_studio'])
def test_a_folder_without_an_export_is_one_line(command, tmp_path):
    for source in (tmp_path, tmp_path / 'missing'):
        with pytest.raises(SystemExit, match='error: .*'):
            main(['convert', command, str(source)])


class Reader:
    """Reads nothing, and counts how often it is sent to a process."""

    sent = 0

    def __call__(self, name: str) -> ImageLabels:
        return ImageLabels(name, 8, 8)

    def __reduce__(self):
        Reader.sent += 1
        return Reader, ()


def test_every_process_gets_what_all_images_have_in_common_once():
    """The image paths of a whole data set are part of it: once for each image is quadratic."""
    names = [f'{number}.png' for number in range(100)]
    images = read_all(Reader(), names, 'test', num_workers=2, progress=False)
    assert [image.file_name for image in images] == names
    assert Reader.sent <= 2


def test_ids_of_classes_are_the_same_in_every_split(tmp_path):
    images = {
        tmp_path / f'{name}.json': [ImageLabels(f'{name}.png', 8, 8)] for name in ('train', 'val')
    }
    for (image,), name in zip(images.values(), ('b', 'a')):
        image.add(name, encode_mask(box(0, 0, 4, 4)[:8, :8]))
    write_exports(images, ['a', 'b'], 'test')
    for file, name in zip(images, ('b', 'a')):
        coco = json.loads(file.read_text())
        assert [category['name'] for category in coco['categories']] == ['a', 'b']
        assert coco['annotations'][0]['category_id'] == 'ab'.index(name) + 1


def test_an_object_without_a_pixel_is_counted_and_its_image_kept(tmp_path):
    image = ImageLabels('a.png', 8, 8)
    image.add('cell', encode_mask(box(0, 0, 0, 0)[:8, :8]))
    other = ImageLabels('b.png', 8, 8)
    other.add('cell', encode_mask(box(0, 0, 4, 4)[:8, :8]))
    file = tmp_path / 'a.json'
    counts = write_exports({file: [image, other]}, ['cell'], 'test')
    assert counts[file].notes == {'objects without a pixel left out': 1}
    assert [len(objects) for objects in objects_of(file).values()] == [0, 1]


def test_an_image_with_labels_twice_is_refused(tmp_path):
    images = [ImageLabels('a.png', 8, 8), ImageLabels('a.png', 8, 8)]
    with pytest.raises(CASTError, match='the image a.png has labels 2 times'):
        write_exports({tmp_path / 'a.json': images}, [], 'test')


def test_rectangles_alone_are_refused_until_they_are_meant(tmp_path):
    root = copy_export('format-cvat-1.1', tmp_path)
    file = root / 'annotations.xml'
    others = r'    <(polygon|mask|ellipse) .*\n    </\1>\n'
    file.write_text(re.sub(others, '', file.read_text()))
    with pytest.raises(SystemExit, match='all 1 objects are rectangles, and masks are needed'):
        main(['convert', 'cvat', str(file)])
    main(['convert', 'cvat', str(file), '--rectangles-are-masks'])
    assert objects_of(root / 'annotations/instances.json')['b.png'][0][1].sum() == 40


def test_a_polygon_that_leaves_the_image_is_cut_along_its_border():
    """COCO's API moves corners that are outside to the border, which bends the edges there."""
    part = polygon_rle(np.array([(-10.0, 4.0), (10.0, -6.0), (10.0, 14.0)]), 12, 12)
    whole = polygon_rle(np.array([(10.0, 14.0), (30.0, 4.0), (30.0, 24.0)]), 40, 40)
    assert np.array_equal(mask_api.decode(part), mask_api.decode(whole)[10:22, 20:32])
