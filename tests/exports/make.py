"""Makes the exports in this folder, each with the tool itself in an environment of its own.

    python -m venv tool && tool/bin/pip install labelme==6.3.1
    tool/bin/python tests/exports/make.py labelme

README.md says which versions these are. The images are of ``tests/helpers/export_scene.py``.
"""

import json
import os
import sys
from pathlib import Path

import numpy as np
from PIL import Image

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / 'helpers'))

from export_scene import (  # noqa: E402
    CORNER,
    DISC,
    HEIGHT,
    NAMES,
    PARTS,
    RING,
    SCENE,
    SQUARE,
    WIDTH,
    box,
    picture,
)


def write_images(folder: Path, prefix: str = '') -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in SCENE:
        Image.fromarray(picture(name)).save(folder / f'{prefix}{name}', optimize=True)


def corners(mask: np.ndarray) -> tuple[int, int, int, int]:
    """First and last column and row of a mask: left, top, right, bottom."""
    rows, columns = np.nonzero(mask)
    return columns.min(), rows.min(), columns.max(), rows.max()


def labelme() -> None:
    """Its main window, without a screen, with shapes in it, and its own saving."""
    os.environ['QT_QPA_PLATFORM'] = 'offscreen'
    import labelme
    import labelme.app
    from labelme.utils import shapes_to_label
    from PyQt5 import QtCore, QtWidgets

    six = labelme.__version__.startswith('6')
    Shape = __import__('labelme._shape' if six else 'labelme.shape', fromlist=['Shape']).Shape
    application = QtWidgets.QApplication([])
    folder = HERE / f'labelme-{labelme.__version__}'
    images, labels = (folder / 'images', folder / 'labels') if six else (folder, folder)
    write_images(images)

    def shape(label, shape_type, points, group_id=None, mask=None, flags=None):
        made = Shape(
            label=label, shape_type=shape_type, group_id=group_id, mask=mask, flags=flags or {}
        )
        for x, y in points:
            (made.add_point if six else made.addPoint)(QtCore.QPointF(x, y))
        made.close()
        return made

    left, top, right, bottom = map(int, corners(RING))
    shapes = {
        'a.png': [
            shape('cell', 'rectangle', [(13, 12), (4, 3)] if six else [(4, 3), (13, 12)]),
            shape(  # as the AI tool leaves it: first and last corner, and the pixels in between
                'cell',
                'mask',
                [(left, top), (right, bottom)],
                mask=RING[top : bottom + 1, left : right + 1],
            ),
            shape('nucleus', 'polygon', [(2, 18), (9, 18), (9, 23), (2, 23)], group_id=1),
            shape('nucleus', 'polygon', [(14.4, 25.2), (21.3, 25), (21, 30), (14, 30)], group_id=1),
            shape('nucleus', 'point', [(40, 5)]),
            shape('cell', 'linestrip', [(35, 5), (40, 9), (44, 5)]),
        ],
        'b.png': [
            shape(
                'nucleus', 'polygon', [(0, 0), (9.2, 0.3), (9, 7), (0.4, 7.4)], flags={'hard': True}
            ),
            shape('cell', 'circle', [(34, 16), (39, 21)]),
            *(
                [shape('nucleus', 'oriented_rectangle', [(20, 2), (26, 5), (24, 9), (18, 6)])]
                if six
                else []
            ),
        ],
        'c.png': [],
    }
    configuration = {'with_image_data' if six else 'store_data': False, 'auto_save': False}
    for name, drawn in shapes.items():
        image, file = images / name, labels / f'{Path(name).stem}.json'
        if name == 'b.png':  # the default of labelme 5: the image is in the file too
            configuration = dict.fromkeys(configuration, True) | dict(auto_save=False)
        opened = {'file_or_dir' if six else 'filename': str(image)}
        window = labelme.app.MainWindow(config_overrides=configuration, **opened)
        for _ in range(50):
            application.processEvents()
        window._load_shapes(drawn)
        saved = (window.save_labels if six else window.saveLabels)(str(file))
        assert saved
        read = labelme._label_file.LabelFile(str(file)).shapes
        objects = [item for item in read if item['shape_type'] not in ('point', 'linestrip')]
        _, ids = shapes_to_label(
            (HEIGHT, WIDTH), objects, {name: n for n, name in enumerate(NAMES)}
        )
        drawings = HERE / 'drawn' / folder.name
        drawings.mkdir(parents=True, exist_ok=True)
        Image.fromarray(ids.astype(np.uint8)).save(drawings / name, optimize=True)


def datumaro() -> None:
    """Pascal VOC and CVAT XML, as datumaro writes them."""
    import importlib.metadata

    from datumaro import Bbox, Dataset, DatasetItem, Mask, Points, Polygon
    from datumaro import Image as Media

    version = importlib.metadata.version('datumaro')
    items = []
    for name, objects in SCENE.items():
        masks = [
            Mask(mask, label=NAMES.index(label), id=number, group=number, attributes={})
            for number, (label, mask) in enumerate(objects, start=1)
        ]
        items.append(
            DatasetItem(
                Path(name).stem,
                subset='train' if name == 'a.png' else 'val',
                media=Media.from_numpy(picture(name)[..., ::-1], ext='.png'),
                annotations=masks,
            )
        )
    folder = HERE / f'datumaro-{version}-voc'
    Dataset.from_iterable(items, categories=list(NAMES)).export(
        str(folder), 'voc', save_media=True, image_ext='.png'
    )
    shapes = {
        'a.png': [
            Bbox(4, 3, 10, 10, label=0),
            Mask(RING, label=0),
            *(Polygon([*outline(part)], label=1, group=7) for part in PARTS),
            Points([40, 5], label=1),
        ],
        'b.png': [Polygon([*outline(CORNER)], label=1), Mask(DISC, label=0)],
        'c.png': [],
    }
    items = [
        DatasetItem(
            Path(name).stem,
            media=Media.from_numpy(picture(name)[..., ::-1], ext='.png'),
            annotations=drawn,
        )
        for name, drawn in shapes.items()
    ]
    for kind, written in (('cvat', 'cvat'), ('coco', 'coco_instances')):
        Dataset.from_iterable(items, categories=list(NAMES)).export(
            str(HERE / f'datumaro-{version}-{kind}'), written, save_media=True, image_ext='.png'
        )


def outline(mask: np.ndarray) -> tuple[int, ...]:
    """The corners of a box along the edges of its pixels."""
    left, top, right, bottom = corners(mask)
    return tuple(map(int, (left, top, right + 1, top, right + 1, bottom + 1, left, bottom + 1)))


def supervision() -> None:
    """YOLO-seg and COCO; with OpenCV installed beside it."""
    import supervision as sv

    folder = HERE / f'supervision-{sv.__version__}-yolo'
    annotations, images = {}, {}
    write_images(folder / 'train' / 'images')
    for name, objects in SCENE.items():
        path = str(folder / 'train' / 'images' / name)
        images[path] = picture(name)[..., ::-1]
        masks = np.array([mask for _, mask in objects]).reshape(-1, HEIGHT, WIDTH).astype(bool)
        annotations[path] = sv.Detections(
            xyxy=sv.mask_to_xyxy(masks) if len(masks) else np.zeros((0, 4)),
            mask=masks,
            class_id=np.array([NAMES.index(label) for label, _ in objects], int),
        )
    dataset = sv.DetectionDataset(list(NAMES), list(images), annotations)
    dataset.as_yolo(None, str(folder / 'train' / 'labels'), str(folder / 'data.yaml'))
    folder = HERE / f'supervision-{sv.__version__}-coco'
    write_images(folder / 'images')
    dataset.as_coco(None, str(folder / 'annotations.json'))


def formats() -> None:
    """What its tool does not write without its server, written after the format it publishes."""
    roboflow(HERE / 'format-roboflow')
    cvat(HERE / 'format-cvat-1.1')
    voc2012(HERE / 'format-voc2012')


def roboflow(folder: Path) -> None:
    """Its COCO and its YOLO export: photos of three splits, one of them in two versions."""
    copies = dict(
        train=[
            'a_png.rf.0123456789abcdef0123456789abcdef.jpg',
            'c_png.rf.00112233445566778899aabbccddeeff.jpg',
        ],
        valid=['b_png.rf.fedcba9876543210fedcba9876543210.jpg'],
    )
    for split, names in copies.items():
        coco = dict(
            info=dict(year='2026', version='1', description='Exported from roboflow.com'),
            licenses=[dict(id=1, url='', name='Private')],
            categories=[
                dict(id=0, name='objects', supercategory='none'),
                *(
                    dict(id=n, name=name, supercategory='objects')
                    for n, name in enumerate(NAMES, 1)
                ),
            ],
            images=[],
            annotations=[],
        )
        for number, name in enumerate(names):
            source = f'{name[0]}.png'
            for kind in ('coco', 'yolo'):
                images = folder / kind / split / ('images' if kind == 'yolo' else '')
                images.mkdir(parents=True, exist_ok=True)
                Image.fromarray(picture(source)).save(images / name, quality=90)
            coco['images'].append(
                dict(
                    id=number,
                    license=1,
                    file_name=name,
                    height=HEIGHT,
                    width=WIDTH,
                    date_captured='2026-11-29T12:00:00+00:00',
                    extra=dict(name=source),
                )
            )
            lines = []
            for label, mask in SCENE[source]:
                if label != 'nucleus' and mask is not SQUARE:
                    continue  # a polygon has no hole and no round edge
                part = PARTS[0] if source == 'a.png' and label == 'nucleus' else mask
                points = outline(part) + outline(part)[:2]
                coco['annotations'].append(
                    dict(
                        id=len(coco['annotations']),
                        image_id=number,
                        category_id=NAMES.index(label) + 1,
                        bbox=[points[0], points[1], points[2] - points[0], points[5] - points[1]],
                        area=int(part.sum()),
                        segmentation=[list(points)],
                        iscrowd=0,
                    )
                )
                normalised = np.array(points).reshape(-1, 2) / (WIDTH, HEIGHT)
                lines.append(' '.join(map(str, [NAMES.index(label), *normalised.ravel().tolist()])))
            labels = folder / 'yolo' / split / 'labels'
            labels.mkdir(parents=True, exist_ok=True)
            (labels / name).with_suffix('.txt').write_text('\n'.join(lines))
        (folder / 'coco' / split / '_annotations.coco.json').write_text(json.dumps(coco))
    (folder / 'yolo' / 'data.yaml').write_text(
        'train: ../train/images\nval: ../valid/images\ntest: ../test/images\n\nnc: 2\n'
        "names: ['cell', 'nucleus']\n"
    )


def cvat(folder: Path) -> None:
    """An export of a task with attributes in the order in which CVAT's server writes them."""
    write_images(folder / 'images')
    left, top, right, bottom = corners(RING)
    inside = RING[top : bottom + 1, left : right + 1].ravel()
    starts = np.flatnonzero(np.diff(np.r_[False, inside, not inside[-1]]))
    runs = np.diff(np.r_[0, starts]).tolist()

    def element(kind, label, end='', **attributes):
        common = dict(label=label, source='manual', occluded=0) | attributes | dict(z_order=0)
        text = ' '.join(f'{key}="{value}"' for key, value in common.items())
        return f'<{kind} {text}{end}>\n    </{kind}>'

    def polygon(mask, label, end=''):
        points = np.array(outline(mask)).reshape(-1, 2)
        text = ';'.join(f'{x:.2f},{y:.2f}' for x, y in points)
        return element('polygon', label, end, points=text)

    place = dict(left=left, top=top, width=right - left + 1, height=bottom - top + 1)
    shapes = {
        'a.png': [
            polygon(SQUARE, 'cell'),
            element('mask', 'cell', rle=', '.join(map(str, runs)), **place),
            *(polygon(part, 'nucleus', ' group_id="1"') for part in PARTS),
            element('polyline', 'cell', points='35.00,5.00;40.00,9.00'),
        ],
        'b.png': [
            polygon(CORNER, 'nucleus'),
            element('box', 'cell', xtl=20.0, ytl=10.0, xbr=30.0, ybr=14.0, rotation=90.0),
            element('ellipse', 'cell', cx=40.0, cy=20.0, rx=6.0, ry=3.0),
            '<tag label="cell" source="manual">\n    </tag>',
        ],
        'c.png': [],
    }
    labels = ''.join(
        f'<label><name>{name}</name><color>#33ddff</color><type>any</type><attributes></attributes>'
        '</label>'
        for name in NAMES
    )
    images = ''.join(
        f'  <image id="{number}" name="{name}" width="{WIDTH}" height="{HEIGHT}">\n'
        + ''.join(f'    {shape}\n' for shape in drawn)
        + '  </image>\n'
        for number, (name, drawn) in enumerate(shapes.items())
    )
    job = f'<job><id>1</id><size>3</size><mode>annotation</mode><labels>{labels}</labels></job>'
    (folder / 'annotations.xml').write_text(
        f'<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n  <version>1.1</version>\n'
        f'  <meta>\n    {job}\n  </meta>\n{images}</annotations>\n'
    )


def voc2012(folder: Path) -> None:
    """Palette images with VOC's 20 classes and a border of 255 around the objects: as VOC 2012."""
    import cv2

    sys.path.insert(0, str(HERE.parents[1]))
    from mmcast.coco.converters.voc import voc_colours

    classes = dict(cell=12, nucleus=15)  # dog and person
    for part in ('JPEGImages', 'SegmentationObject', 'SegmentationClass', 'ImageSets/Segmentation'):
        (folder / part).mkdir(parents=True, exist_ok=True)
    for name in ('a.png', 'b.png'):
        stem = Path(name).stem
        Image.fromarray(picture(name)).save(folder / f'JPEGImages/{stem}.jpg')
        ids, kinds = (np.zeros((HEIGHT, WIDTH), np.uint8) for _ in range(2))
        for number, (label, mask) in enumerate(SCENE[name], start=1):
            border = cv2.dilate(mask.astype(np.uint8), np.ones((3, 3), np.uint8)) > mask
            ids[border] = kinds[border] = 255
            ids[mask], kinds[mask] = number, classes[label]
        for part, values in (('SegmentationObject', ids), ('SegmentationClass', kinds)):
            image = Image.fromarray(values)
            image.putpalette(voc_colours().ravel().tolist())
            image.save(folder / part / f'{stem}.png', optimize=True)
    for split, stems in dict(train='a', val='b', trainval='ab').items():
        (folder / f'ImageSets/Segmentation/{split}.txt').write_text('\n'.join(stems) + '\n')


def ultralytics() -> None:
    """YOLO-seg by Ultralytics' own converter, from COCO polygons of objects in parts.

    It joins the parts of an object by lines there and back. ``data.yaml`` is ours: the converter
    writes none.
    """
    import shutil
    import tempfile

    import ultralytics
    from ultralytics.data.converter import convert_coco

    folder = HERE / f'ultralytics-{ultralytics.__version__}-yolo'
    three = (box(2, 2, 8, 8), box(12, 12, 20, 18), box(22, 30, 30, 44))
    objects = {'a.png': [(1, [SQUARE]), (2, list(PARTS))], 'b.png': [(2, list(three))]}
    coco = dict(
        images=[
            dict(id=number, file_name=name, height=HEIGHT, width=WIDTH)
            for number, name in enumerate(objects, start=1)
        ],
        categories=[dict(id=number, name=name) for number, name in enumerate(NAMES, start=1)],
        annotations=[],
    )
    for image_id, drawn in enumerate(objects.values(), start=1):
        for category, parts in drawn:
            segmentation = [
                [
                    int(value)
                    for left, top, right, bottom in [corners(part)]
                    for value in (left, top, right, top, right, bottom, left, bottom)
                ]
                for part in parts
            ]
            left, top, right, bottom = map(int, corners(np.any(parts, axis=0)))
            coco['annotations'].append(
                dict(
                    id=len(coco['annotations']) + 1,
                    image_id=image_id,
                    category_id=category,
                    segmentation=segmentation,
                    bbox=[left, top, right + 1 - left, bottom + 1 - top],
                    iscrowd=0,
                )
            )
    with tempfile.TemporaryDirectory() as temporary:
        Path(temporary, 'labels').mkdir()
        Path(temporary, 'labels/instances_train.json').write_text(json.dumps(coco))
        out = Path(temporary, 'out')
        convert_coco(f'{temporary}/labels', str(out), use_segments=True, cls91to80=False)
        shutil.copytree(out / 'labels/train', folder / 'labels/train')
    write_images(folder / 'images/train')
    (folder / 'data.yaml').write_text(
        'path: .\ntrain: images/train\nval: images/train\nnames:\n  0: cell\n  1: nucleus\n'
    )


def label_studio() -> None:
    """Its SDK's exports, from tasks in the server's JSON; brush masks by the SDK's own encoder."""
    import importlib.metadata

    from label_studio_sdk.converter import Converter
    from label_studio_sdk.converter.brush import mask2rle

    folder = HERE / f'label_studio_sdk-{importlib.metadata.version("label-studio-sdk")}'
    write_images(folder / 'json' / 'images')
    config = (
        '<View><Image name="image" value="$image"/>'
        '<PolygonLabels name="label" toName="image"><Label value="cell"/><Label value="nucleus"/>'
        '</PolygonLabels><BrushLabels name="brush" toName="image"><Label value="cell"/>'
        '<Label value="nucleus"/></BrushLabels></View>'
    )
    size = dict(original_width=WIDTH, original_height=HEIGHT, image_rotation=0)

    def polygon(number, label, mask):
        x, y = outline(mask)[::2], outline(mask)[1::2]
        points = [[100 * a / WIDTH, 100 * b / HEIGHT] for a, b in zip(x, y)]
        value = dict(points=points, closed=True, polygonlabels=[label])
        return dict(
            size,
            id=f'p{number}',
            type='polygonlabels',
            value=value,
            origin='manual',
            to_name='image',
            from_name='label',
        )

    def brush(number, label, mask):
        rle = mask2rle(mask.astype(np.uint8) * 255)
        value = dict(format='rle', rle=rle, brushlabels=[label])
        return dict(
            size,
            id=f'b{number}',
            type='brushlabels',
            value=value,
            origin='manual',
            to_name='image',
            from_name='brush',
        )

    def tasks(results):
        return [
            dict(
                id=number,
                data=dict(image=f'/data/upload/1/{"0123abcd"}-{name}'),
                annotations=[
                    dict(
                        id=number,
                        result=result,
                        was_cancelled=False,
                        ground_truth=False,
                        created_at='2026-11-29T12:00:00.000000Z',
                        updated_at='2026-11-29T12:00:00.000000Z',
                        completed_by=1,
                        task=number,
                    )
                ],
                predictions=[],
                file_upload=f'0123abcd-{name}',
            )
            for number, (name, result) in enumerate(results.items(), start=1)
        ]

    mixed = tasks(
        {
            'a.png': [
                polygon(1, 'cell', SQUARE),
                brush(2, 'cell', RING),
                brush(3, 'nucleus', PARTS[0] | PARTS[1]),
            ],
            'b.png': [polygon(1, 'nucleus', CORNER), brush(2, 'cell', DISC)],
            'c.png': [],
        }
    )
    (folder / 'json' / 'tasks.json').write_text(json.dumps(mixed))
    polygons = tasks(
        {
            'a.png': [polygon(1, 'cell', SQUARE), polygon(2, 'nucleus', PARTS[0])],
            'b.png': [polygon(1, 'nucleus', CORNER)],
            'c.png': [],
        }
    )
    for task in polygons:  # where the server has put the uploaded images by then
        task['data']['image'] = f'images/{task["file_upload"]}'
    converter = Converter(config, '.', download_resources=False)
    for name, tool_format, exported in (
        ('yolo', 'YOLO', polygons),
        ('coco', 'COCO', polygons),
        ('brush_coco', 'BRUSH_TO_COCO', mixed),
    ):
        write_images(folder / name / 'images', '0123abcd-')
        os.chdir(folder / name)
        Path('tasks.json').write_text(json.dumps(exported))
        converter.convert('tasks.json', '.', tool_format, is_dir=False)
        Path('tasks.json').unlink()


if __name__ == '__main__':
    globals()[sys.argv[1]]()
