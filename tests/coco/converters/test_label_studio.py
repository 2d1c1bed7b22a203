import json
from pathlib import Path

import numpy as np
import pytest
from export_scene import DISC, SCENE, box
from exports import assert_same_objects, copy_export, objects_of

from mmcast.coco.converters.label_studio import brush_mask, convert_label_studio
from mmcast.errors import CASTError


@pytest.fixture
def file(tmp_path) -> Path:
    return copy_export('label_studio_sdk-2.1.2/json', tmp_path) / 'tasks.json'


def convert(file: Path, **options):
    (counts,) = convert_label_studio(file, progress=False, **options).values()
    return counts


def found(file: Path) -> dict:
    return objects_of(file.parent / 'annotations/instances.json')


@pytest.fixture
def tasks(file) -> list[dict]:
    return json.loads(file.read_text())


def results(tasks: list[dict], task: int) -> list[dict]:
    return tasks[task]['annotations'][0]['result']


def test_brush_masks_are_those_of_the_sdks_encoder(file, tasks):
    (brush,) = [result for result in results(tasks, 1) if result['type'] == 'brushlabels']
    mask = brush_mask(brush['value']['rle'], 32, 48, '')
    assert np.array_equal(mask, DISC)


@pytest.mark.parametrize(
    'rle, size',
    [
        ('whole', (48, 33)),
        ('half', (32, 48)),
        ([], (32, 48)),
        ([300], (32, 48)),
        ([[1, 2]], (32, 48)),
        ('text', (32, 48)),
        (None, (32, 48)),
    ],
)
def test_a_brush_mask_of_something_else_is_refused(file, tasks, rle, size):
    if rle in ('whole', 'half'):
        whole = results(tasks, 1)[1]['value']['rle']
        rle = whole if rle == 'whole' else whole[: len(whole) // 2]
    with pytest.raises(CASTError, match=f'its RLE is not that of an image of {size[1]}x{size[0]}'):
        brush_mask(rle, *size, 'task 2')


def test_turned_rectangles_and_ellipses(file, tasks):
    """Turned about their first corner and their centre, in hundredths of width and height."""
    base = {k: v for k, v in results(tasks, 1)[0].items() if k != 'value'}
    place = dict(x=50, y=25, width=25, height=12.5, rotation=90)  # 12 x 4 pixels at (24, 8)
    ellipse = dict(x=50, y=50, radiusX=12.5, radiusY=6.25)  # 6 x 2 about (24, 16)
    results(tasks, 1)[:] = [
        dict(base, type='rectanglelabels', value=dict(place, rectanglelabels=['cell'])),
        dict(base, type='ellipselabels', value=dict(ellipse, ellipselabels=['cell'])),
    ]
    file.write_text(json.dumps(tasks))
    convert(file)
    (_, rectangle), (_, round_one) = found(file)['b.png']
    assert np.array_equal(rectangle, box(8, 20, 20, 24))
    rows, columns = np.nonzero(round_one)
    assert (columns.min(), columns.max(), rows.min(), rows.max()) == (18, 29, 14, 17)


def test_labels_apart_from_their_polygon_belong_to_it(file, tasks):
    """The tag Labels beside Polygon: two results with one id."""
    polygon = results(tasks, 1)[0]
    value = {key: polygon['value'][key] for key in ('points', 'closed')}
    results(tasks, 1)[0] = dict(polygon, type='polygon', value=value)
    results(tasks, 1).append(dict(polygon, type='labels', value=dict(value, labels=['nucleus'])))
    file.write_text(json.dumps(tasks))
    convert(file)
    assert_same_objects(found(file)['b.png'], SCENE['b.png'])


def test_tasks_that_nobody_annotated_are_left_out_and_said(file, tasks):
    tasks[0]['annotations'] = []
    tasks[0]['predictions'] = [dict(result=results(tasks, 1))]
    tasks[2]['annotations'][0]['was_cancelled'] = True
    results(tasks, 1).append(dict(type='choices', value=dict(choices=['good'])))
    results(tasks, 1).append(dict(results(tasks, 1)[0], type='keypointlabels'))
    file.write_text(json.dumps(tasks))
    counts = convert(file)
    assert (counts.images, counts.objects) == (1, 2)
    assert counts.notes == {
        'tasks without an annotation left out': 2,
        'shapes of the type keypoint left out': 1,
    }


def test_of_several_annotations_the_ground_truth_counts(file, tasks):
    second = dict(tasks[1]['annotations'][0], id=9, result=[])
    tasks[1]['annotations'].append(second)
    file.write_text(json.dumps(tasks))
    with pytest.raises(CASTError, match='task 2 has 2 annotations: mark one as ground truth'):
        convert(file)
    second['ground_truth'] = True
    file.write_text(json.dumps(tasks))
    convert(file)
    assert found(file)['b.png'] == []


@pytest.mark.parametrize(
    'image',
    [
        '/data/local-files/?d=some%20where/a.png',
        's3://bucket/some/a.png',
        'https://example.org/a.png?signature=1',
        'C:\\\\photos\\\\a.png',
    ],
)
def test_an_image_is_found_by_the_end_of_its_address(file, tasks, image):
    tasks[0]['data'] = dict(image=image, note='seen')
    file.write_text(json.dumps(tasks))
    convert(file)
    assert_same_objects(found(file)['a.png'], SCENE['a.png'])


def test_an_uploaded_name_in_a_folder_wins_over_another_picture_of_the_plain_name(file, tasks):
    """Label Studio puts eight characters before what is uploaded."""
    plain = next(file.parent.rglob('a.png'))
    (plain.parent / 'night').mkdir()
    (plain.parent / 'night/0a1b2c3d-a.png').write_bytes(plain.read_bytes())
    tasks[0]['data'] = dict(image='/data/upload/3/0a1b2c3d-a.png')
    file.write_text(json.dumps(tasks))
    convert(file, images=plain.parent)
    assert_same_objects(found(file)['0a1b2c3d-a.png'], SCENE['a.png'])


def test_an_export_may_lack_the_sizes_of_images(file, tasks):
    for result in results(tasks, 0):
        del result['original_width']
    file.write_text(json.dumps(tasks))
    convert(file)
    assert_same_objects(found(file)['a.png'], SCENE['a.png'])


def broken(tasks: list[dict], kind: str) -> object:
    result = results(tasks, 0)[0]
    if kind == 'min':
        return [dict(data=task['data']) for task in tasks]
    if kind == 'dict':
        return dict(tasks=tasks)
    if kind == 'size':
        results(tasks, 0)[:] = [dict(result, original_width=96)]
    if kind == 'sizes':
        result['original_width'] = 96
    if kind == 'rotated':
        result['image_rotation'] = 90
    if kind == 'labels':
        result['value']['polygonlabels'] = ['cell', 'nucleus']
    if kind == 'empty':
        result['value']['polygonlabels'] = ['']
    if kind == 'far':
        result['value']['points'][0] = [9000, 0]
    if kind == 'image':
        tasks[0]['data'] = dict(image='/data/upload/1/gone.png')
    if kind == 'text':
        tasks[0]['data'] = dict(text='no image')
    return tasks


@pytest.mark.parametrize(
    'kind, message',
    [
        ('min', 'has no annotations in its tasks: export as "JSON", not "JSON-MIN"'),
        ('dict', 'is not a list of tasks'),
        ('size', 'a.png is 48x32, .* says 96x32'),
        ('sizes', 'task 1: its shapes are of images of several sizes'),
        ('rotated', 'task 1: its image was rotated in Label Studio'),
        ('labels', 'task 1, polygon p1 has 2 labels, not one'),
        ('empty', 'task 1, polygon p1 has 0 labels, not one'),
        ('far', 'task 1, polygon p1: coordinates up to 9000 lie far outside'),
        ('image', 'has no image /data/upload/1/gone.png of'),
        ('text', 'task 1: its data names 0 images, not one'),
    ],
)
def test_a_fault_is_named(file, tasks, kind, message):
    file.write_text(json.dumps(broken(tasks, kind)))
    with pytest.raises(CASTError, match=message):
        convert(file)
    assert not (file.parent / 'annotations').exists()
