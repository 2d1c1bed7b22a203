"""The task that people get: which images and proposals, and that every tool's files hold them."""

import hashlib
import json
import shutil
from pathlib import Path
from xml.etree import ElementTree

import cv2
import numpy as np
import pytest
from export_scene import HEIGHT, NAMES, PARTS, RING, SCENE, WIDTH, disc, picture
from PIL import Image
from pycocotools import mask as mask_api
from review_scene import SCORES, write_scene, write_task

from mmcast.coco.converters.label_studio import brush_mask
from mmcast.errors import CASTError
from mmcast.pseudo_labels.store import make_info, write_store
from mmcast.review.export import export_review, task_names
from mmcast.review.formats import brush_rle, cvat_mask
from mmcast.review.returned import read_returned
from mmcast.review.task import TOOLS, read_task

FILES = dict(
    cvat='annotations.xml',
    label_studio='tasks.json',
    fiftyone='labels.json',
    labelme='images',
    coco='annotations.json',
)


def assert_objects_are_the_scene(objects):
    assert objects.keys() == SCENE.keys()
    for name, expected in SCENE.items():
        found = [(each.label, mask_api.decode(each.segmentation)) for each in objects[name]]
        assert len(found) == len(expected)
        for label, mask in expected:
            assert any(label == own and np.array_equal(mask, other) for own, other in found)


@pytest.mark.parametrize('tool', TOOLS)
def test_what_a_tool_gets_is_what_the_teacher_said(tool, tmp_path):
    done = write_task(tmp_path, tool)
    assert_objects_are_the_scene(
        {
            image.name: [
                type('Object', (), dict(label=each.label, segmentation=each.segmentation))
                for each in image.proposals
            ]
            for image in done.task.images
        }
    )
    assert done.task == read_task(tmp_path / 'task') and not done.unchanged
    assert [each.score for each in done.task.images[0].proposals] == list(SCORES)
    export = tmp_path / 'task' / FILES[tool]
    if tool == 'label_studio':  # as if every prediction had been submitted
        tasks = json.loads(export.read_text())
        for task in tasks:
            task['annotations'] = [dict(result=task['predictions'][0]['result'])]
        export = tmp_path / 'export.json'
        export.write_text(json.dumps(tasks))
    returned, (kind,) = read_returned([export], done.task, tmp_path / 'task')
    assert_objects_are_the_scene(returned.objects)
    assert kind == ('coco' if tool == 'fiftyone' else tool)
    for name in SCENE:
        shown = tmp_path / 'task' / done.task.image_folder / name
        assert shown.read_bytes() == (tmp_path / 'photos/new' / name).read_bytes()


@pytest.mark.parametrize(
    'mask',
    [RING, PARTS[0] | PARTS[1], disc(0, 0, 9), np.ones((HEIGHT, WIDTH), bool), np.eye(32, 48) > 0],
)
def test_run_lengths_of_the_tools_hold_every_mask(mask):
    assert np.array_equal(brush_mask(brush_rle(mask), *mask.shape, ''), mask)
    found = cvat_mask(mask)
    top, left, height, width = (int(found[key]) for key in ('top', 'left', 'height', 'width'))
    pixels, value = [], False
    for run in map(int, found['rle'].split(',')):
        pixels += [value] * run
        value = not value
    drawn = np.zeros_like(mask)
    drawn[top : top + height, left : left + width] = np.reshape(pixels, (height, width))
    assert np.array_equal(drawn, mask)


def test_label_studios_runs_longer_than_16_bits_hold():
    mask = np.zeros((300, 400), bool)
    mask[290:, 399:] = True
    assert np.array_equal(brush_mask(brush_rle(mask), 300, 400, ''), mask)


def test_the_classes_are_in_the_tools_configs(tmp_path):
    write_task(tmp_path / 'cvat', 'cvat')
    labels = json.loads((tmp_path / 'cvat/task/labels.json').read_text())
    assert [label['name'] for label in labels] == list(NAMES)
    write_task(tmp_path / 'label_studio', 'label_studio', image_url='http://host/x/')
    config = ElementTree.parse(tmp_path / 'label_studio/task/labeling_config.xml')
    assert [label.get('value') for label in config.iter('Label')] == list(NAMES)
    tasks = json.loads((tmp_path / 'label_studio/task/tasks.json').read_text())
    assert [task['data']['image'] for task in tasks] == [f'http://host/x/{name}' for name in SCENE]


def test_labelme_gets_polygons_but_for_holes_and_keeps_the_parts_together(tmp_path):
    write_task(tmp_path, 'labelme')
    shapes = json.loads((tmp_path / 'task/images/a.json').read_text())['shapes']
    assert [(each['shape_type'], each['group_id']) for each in shapes] == [
        ('polygon', None), ('mask', None), ('polygon', 3), ('polygon', 3),
    ]  # fmt: skip


def test_thresholds_and_images_that_are_labeled_or_there_twice(tmp_path):
    write_scene(tmp_path)
    photos = tmp_path / 'photos'
    shutil.copy(photos / 'new/a.png', photos / 'old/d.png')  # the labeled image is one of them
    labeled = json.loads((tmp_path / 'labeled.json').read_text())
    assert labeled['images'][0]['file_name'] == 'old/d.png'
    shutil.copy(photos / 'new/b.png', photos / 'new/c.png')
    done = export_review(
        tmp_path / 'pseudo.json', photos, tmp_path / 'task', 'coco', number=3,
        thresholds=dict(score=0.7), labeled=tmp_path / 'labeled.json',
    )  # fmt: skip
    (image,) = done.task.images
    assert len(image.proposals) == (1 if image.name == 'b.png' else 0)
    assert done.left_out.keys() == {'new/a.png', 'new/b.png', 'new/c.png'} - {image.file_name}
    assert done.left_out['new/a.png'].startswith('labeled already, as ')
    with pytest.raises(CASTError, match='no agreement'):
        export_review(
            tmp_path / 'pseudo.json', photos, tmp_path / 'x', 'coco', thresholds=dict(agreement=0.5)
        )


def test_frames_that_look_alike_are_handed_out_once(tmp_path):
    write_scene(tmp_path)
    pixels = picture('a.png')
    pixels[5:8, 40:45] = 130  # almost the same picture
    cv2.imwrite(str(tmp_path / 'photos/new/c.png'), pixels[..., ::-1])
    options = dict(number=3, max_similarity=0.95)
    scene = tmp_path / 'pseudo.json', tmp_path / 'photos'
    done = export_review(*scene, tmp_path / 'task', 'coco', random_share=0, **options)
    assert [image.name for image in done.task.images] == ['a.png', 'b.png']
    assert done.left_out['new/c.png'].startswith('looks like new/a.png (similarity 0.9')
    done = export_review(*scene, tmp_path / 'random', 'coco', random_share=1, **options)
    assert len(done.task.images) == 3 and not done.left_out


@pytest.mark.parametrize(
    ('options', 'said'),
    [
        (dict(margin=-1), 'margin is -1'),
        (dict(max_similarity=np.nan), 'similarity is nan'),
        (dict(number=0), '0 images'),
        (dict(random_share=2), 'a random share of 2'),
        (dict(thresholds=dict(score=50)), 'score has 50: give numbers up to 1'),
    ],
)
def test_options_out_of_range(options, said, tmp_path):
    write_scene(tmp_path)
    with pytest.raises(CASTError, match=said):
        export_review(
            tmp_path / 'pseudo.json', tmp_path / 'photos', tmp_path / 'task', 'coco', **options
        )
    assert not (tmp_path / 'task').exists()


def test_label_studio_finds_images_of_a_task_in_the_current_folder(tmp_path, monkeypatch):
    write_scene(tmp_path)
    (tmp_path / 'here').mkdir()
    monkeypatch.chdir(tmp_path / 'here')
    scene = tmp_path / 'pseudo.json', tmp_path / 'photos'
    done = export_review(*scene, '.', 'label_studio', number=1)
    assert done.task.settings['image_url'] == '/data/local-files/?d=here/images/'


def test_calling_again_resumes_and_another_task_is_refused(tmp_path):
    write_task(tmp_path, 'labelme')
    folder = tmp_path / 'task'
    (folder / 'images/a.json').write_text('what a person saved')
    assert write_task(tmp_path, 'labelme').unchanged
    assert (folder / 'images/a.json').read_text() == 'what a person saved'
    with pytest.raises(CASTError, match='has another review task'):
        write_task(tmp_path, 'labelme', seed=1)
    done = write_task(tmp_path, 'labelme', seed=1, force=True)
    assert (tmp_path / 'task.old1/images/a.json').read_text() == 'what a person saved'
    assert read_task(tmp_path / 'task.old1').settings['seed'] == 0
    # Interrupted: no task.json, an image cut short.
    (folder / '.unfinished').write_text(hashlib.sha256(done.task.to_json()).hexdigest())
    (folder / 'task.json').unlink()
    (folder / 'images/a.png').write_bytes(b'half')
    with pytest.raises(CASTError, match='is not a finished review task'):
        read_task(folder)
    assert not write_task(tmp_path, 'labelme', seed=1).unchanged
    assert not (folder / '.unfinished').exists()
    assert cv2.imread(str(folder / 'images/a.png')).shape == (HEIGHT, WIDTH, 3)


def test_a_folder_with_other_files_is_left_alone(tmp_path):
    (tmp_path / 'task/images').mkdir(parents=True)
    (tmp_path / 'task/images/a.png').write_bytes(b"somebody's")
    with pytest.raises(CASTError, match='has another review task, or other files'):
        write_task(tmp_path, 'coco')
    assert (tmp_path / 'task/images/a.png').read_bytes() == b"somebody's"
    (tmp_path / 'task/.unfinished').write_text('of another task')
    with pytest.raises(CASTError, match='has another review task, or other files'):
        write_task(tmp_path, 'coco')


def test_names_are_safe_and_unique_whatever_tools_make_of_them():
    names = task_names(
        {
            'one/a.png': '.png', 'two/A.jpg': '.jpg', 'x/größe 1.png': '.png', 'b.tif': '.png',
            '0001_a.png': '.png', 'x/...png': '.png',
        }
    )  # fmt: skip
    stems = [Path(name).stem.lower() for name in names.values()]
    assert len({*stems}) == 6 and all(name.isascii() for name in names.values())
    assert names['b.tif'] == 'b.png' and names['x/größe 1.png'] == 'gr_e_1.png'


def test_a_turned_photo_and_deep_values_are_shown_as_they_were_labeled(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    (tmp_path / 'photos').mkdir()
    pixels = picture('a.png')
    upright = pixels[:, :40]
    Image.fromarray(np.rot90(upright)).save(tmp_path / 'photos/turned.png', exif=exif)
    deep = np.linspace(0, 4095, HEIGHT * WIDTH).reshape(HEIGHT, WIDTH).astype(np.uint16)
    cv2.imwrite(str(tmp_path / 'photos/deep.tif'), deep)
    sizes = {'turned.png': (HEIGHT, 40), 'deep.tif': (HEIGHT, WIDTH)}
    records = [
        dict(
            image=dict(id=number, file_name=name, height=height, width=width),
            annotations=[],
        )
        for number, (name, (height, width)) in enumerate(sizes.items(), start=1)
    ]
    write_store(tmp_path / 'store.json', make_info(), [dict(id=1, name='cell')], records)
    done = export_review(
        tmp_path / 'store.json', tmp_path / 'photos', tmp_path / 'task', 'coco', number=2
    )
    assert not done.left_out and [each.name for each in done.task.images] == [
        'deep.png', 'turned.png',
    ]  # fmt: skip
    assert np.array_equal(np.asarray(Image.open(tmp_path / 'task/images/turned.png')), upright)
    assert cv2.imread(str(tmp_path / 'task/images/deep.png'), -1).dtype == np.uint8


def test_an_image_of_another_size_is_left_out_and_a_missing_one_is_an_error(tmp_path):
    write_scene(tmp_path)
    cv2.imwrite(str(tmp_path / 'photos/new/c.png'), np.zeros((HEIGHT + 1, WIDTH), np.uint8))
    done = export_review(
        tmp_path / 'pseudo.json', tmp_path / 'photos', tmp_path / 'task', 'coco', number=3
    )
    assert len(done.task.images) == 2 and 'is 48x33' in done.left_out['new/c.png']
    with pytest.raises(CASTError, match='not found: name the folder of the images with --img-dir'):
        export_review(tmp_path / 'pseudo.json', tmp_path, tmp_path / 'task2', 'coco')
