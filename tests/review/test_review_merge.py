"""What people corrected becomes part of the labeled set, and the manifest tells all of it."""

import json
import shutil

import numpy as np
import pytest
from export_scene import CORNER, DISC, HEIGHT, NAMES, PARTS, RING, SCENE, SQUARE, WIDTH, box
from exports import EXPORTS
from pycocotools import mask as mask_api
from review_scene import WEAK, annotation, write_task

from mmcast.coco.reading import read_labels
from mmcast.errors import CASTError
from mmcast.files import sha256_of_file
from mmcast.review.merge import merge_review

REVIEW = EXPORTS / 'review'


def merge(folder, exports, **options):
    exports = exports if isinstance(exports, list) else [exports]
    options = (
        dict(labeled=folder / 'labeled.json', labeled_images=folder / 'photos', reviewed='all')
        | options
    )
    return merge_review(folder / 'task', exports, folder / 'merged.json', **options)


def merged_objects(folder):
    """Class names and masks of the merged set by file name, as training reads them."""
    content = read_labels(folder / 'merged.json').content
    names = {each['id']: each['name'] for each in content['categories']}
    files = {each['id']: each['file_name'] for each in content['images']}
    found = {name: [] for name in files.values()}
    for ann in content['annotations']:
        mask = mask_api.decode(ann['segmentation']).astype(bool)
        assert ann['area'] == mask.sum()
        found[files[ann['image_id']]].append((names[ann['category_id']], mask))
    return found


def has(objects, label, mask):
    return any(label == own and np.array_equal(mask, other) for own, other in objects)


def coco_of(objects, **extra):
    """An export as COCO: objects (label, mask) by image name."""
    images = [
        dict(id=number, file_name=name, height=HEIGHT, width=WIDTH)
        for number, name in enumerate(objects, start=1)
    ]
    annotations = [
        dict(annotation('cell', mask), image_id=image['id'], category_id=label)
        for image in images
        for label, mask in objects[image['file_name']]
    ]
    names = sorted({label for own in objects.values() for label, _ in own} | {*NAMES})
    ids = {name: number for number, name in enumerate(names, start=1)}
    annotations = [
        dict(ann, id=number, category_id=ids[ann['category_id']], **extra)
        for number, ann in enumerate(annotations, start=1)
    ]
    categories = [dict(id=number, name=name) for name, number in ids.items()]
    return dict(images=images, annotations=annotations, categories=categories)


def write_export(folder, objects, **extra):
    path = folder / 'export.json'
    path.write_text(json.dumps(coco_of(objects, **extra)))
    return path


# ---- real tools, which changed nothing, or little


@pytest.mark.parametrize(
    'tool, export, options, reviewed',
    [
        ('cvat', 'datumaro-1.13.12-cvat/annotations.xml', {}, 3),
        (
            'cvat',
            'datumaro-1.13.12-cvat/annotations.xml',
            dict(reviewed=None, jobs=REVIEW / 'cvat_sdk-2.80.0/jobs.json'),
            2,
        ),
        (
            'cvat',
            'datumaro-1.13.12-coco/annotations/instances_annotations.json',
            dict(crowds='objects'),
            3,
        ),
        ('label_studio', 'label-studio-1.23.2/unchanged.json', dict(reviewed=None), 3),
        ('fiftyone', 'fiftyone-1.22.1-masks/labels.json', dict(crowds='objects'), 3),
        ('labelme', 'labelme-6.3.1', dict(reviewed=None), 2),
    ],
)
def test_a_round_trip_without_changes_is_unchanged_pixel_by_pixel(
    tool, export, options, reviewed, tmp_path
):
    write_task(tmp_path, tool)
    source = REVIEW / export
    if tool == 'labelme':  # people save beside the images
        source = tmp_path / 'task/images'
        shutil.copytree(REVIEW / export, source, dirs_exist_ok=True)
    done = merge(tmp_path, source, **options)
    objects, images = done.manifest['objects'], done.manifest['images']
    assert objects['unchanged'] == objects['identical'] == objects['proposals'] == 5
    assert objects['lowest_unchanged_iou'] == 1 and objects['merged'] == 5
    assert (images['unchanged'], images['empty'], images['not_reviewed']) == (
        2, reviewed - 2, 3 - reviewed,
    )  # fmt: skip
    found = merged_objects(tmp_path)
    assert len(found) == 1 + reviewed and has(found['old/d.png'], 'cell', WEAK)
    for name, expected in list(SCENE.items())[:reviewed]:
        assert all(has(found[f'new/{name}'], *each) for each in expected)
        assert len(found[f'new/{name}']) == len(expected)


def test_what_label_studios_server_gives_back_of_corrections(tmp_path):
    write_task(tmp_path, 'label_studio')
    done = merge(tmp_path, REVIEW / 'label-studio-1.23.2/corrected.json', reviewed=None)
    found = merged_objects(tmp_path)
    assert has(found['new/a.png'], 'nucleus', SQUARE) and len(found['new/a.png']) == 2
    assert has(found['new/b.png'], 'cell', box(2, 30, 8, 44)) and len(found['new/b.png']) == 3
    objects, images = done.manifest['objects'], done.manifest['images']
    counts = {key: objects[key] for key in ('unchanged', 'changed', 'added', 'removed')}
    assert counts == dict(unchanged=3, changed=1, added=1, removed=1)
    assert objects['class_changed'] == 1 and images['not_reviewed'] == 1
    assert done.manifest['class_changes'] == [dict(proposed='cell', label='nucleus', number=1)]
    a, b, c = done.manifest['image_list']
    assert [each['state'] for each in (a, b, c)] == ['corrected', 'corrected', 'not reviewed']
    assert a['by'] == '1' and 'objects' not in c
    assert a['objects'][-1] == dict(outcome='removed', proposal=2, proposed='cell', score=0.6)


def test_polygons_of_fiftyone_are_a_pixel_off_and_lose_holes_and_parts(tmp_path):
    """That is its exporter's way, and told apart: outlines are unchanged, the rest is a change."""
    write_task(tmp_path, 'fiftyone')
    done = merge(tmp_path, REVIEW / 'fiftyone-1.22.1-polygons/labels.json')
    objects = done.manifest['objects']
    assert objects['identical'] == 0 and objects['unchanged'] + objects['changed'] == 5
    assert objects['unchanged'] == 3 and objects['lowest_unchanged_iou'] > 0.8
    found = merged_objects(tmp_path)
    assert has(found['new/b.png'], 'nucleus', CORNER)  # the proposal, not its conversion


# ---- which images were reviewed


def test_an_image_without_objects_is_told_from_one_that_nobody_looked_at(tmp_path):
    write_task(tmp_path, 'coco')
    export = write_export(tmp_path, {'a.png': [], 'c.png': []})
    with pytest.raises(CASTError, match='does not say which images were looked at'):
        merge(tmp_path, export, reviewed=None)
    (tmp_path / 'names.txt').write_text('new/a.png\n')
    done = merge(tmp_path, export, reviewed=tmp_path / 'names.txt')
    states = {each['name']: each['state'] for each in done.manifest['image_list']}
    assert states == {'a.png': 'empty', 'b.png': 'did not come back', 'c.png': 'not reviewed'}
    assert done.manifest['objects']['removed'] == 3
    assert merged_objects(tmp_path)['new/a.png'] == []
    (tmp_path / 'names.txt').write_text('b.png\n')
    with pytest.raises(CASTError, match='line 1: the image b.png is not in the export'):
        merge(tmp_path, export, reviewed=tmp_path / 'names.txt')


def test_skipped_and_unsubmitted_tasks_are_not_reviewed(tmp_path):
    write_task(tmp_path, 'label_studio')
    tasks = json.loads((tmp_path / 'task/tasks.json').read_text())
    tasks[0]['annotations'] = [dict(result=[], was_cancelled=True)]
    tasks[1]['annotations'] = [dict(result=[])]
    tasks[2]['annotations'] = []
    for task in tasks:  # as uploaded
        name = task['data']['image'].rpartition('/')[2]
        task['data']['image'] = f'/data/upload/3/0123abcd-{name}'
    (tmp_path / 'export.json').write_text(json.dumps(tasks))
    with pytest.raises(CASTError, match='leave --reviewed out'):
        merge(tmp_path, tmp_path / 'export.json')
    done = merge(tmp_path, tmp_path / 'export.json', reviewed=None)
    states = [each['state'] for each in done.manifest['image_list']]
    assert states == ['not reviewed', 'empty', 'not reviewed']


def test_coco_of_label_studios_brush_masks_is_refused(tmp_path):
    write_task(tmp_path, 'label_studio')
    with pytest.raises(CASTError, match='export as JSON'):
        merge(tmp_path, write_export(tmp_path, {'a.png': []}), reviewed=None)


def test_labelmes_flag_says_what_was_reviewed(tmp_path):
    write_task(tmp_path, 'labelme')
    with pytest.raises(CASTError, match='no image was reviewed'):
        merge(tmp_path, tmp_path / 'task/images', reviewed=None)
    done = merge(tmp_path, tmp_path / 'task/images')
    assert done.manifest['images']['unchanged'] == 2


def test_jobs_of_several_tasks_or_half_a_list_are_refused(tmp_path):
    write_task(tmp_path, 'cvat')
    jobs = json.loads((REVIEW / 'cvat_sdk-2.80.0/jobs.json').read_text())
    for change, message in (
        (dict(next='http://localhost/api/jobs?page=2'), 'only the first page'),
        (dict(results=[dict(jobs['results'][0], task_id=4), *jobs['results']]), 'several tasks'),
        (dict(results='x'), 'not a list of jobs'),
    ):
        (tmp_path / 'jobs.json').write_text(json.dumps(jobs | change))
        with pytest.raises(CASTError, match=message):
            merge(
                tmp_path, tmp_path / 'task/annotations.xml', reviewed=None,
                jobs=tmp_path / 'jobs.json',
            )  # fmt: skip


def test_several_exports_are_one_and_each_image_is_in_one(tmp_path):
    write_task(tmp_path, 'coco')
    paths = []
    for name in ('a.png', 'b.png'):
        paths.append(tmp_path / f'{name}.json')
        paths[-1].write_text(json.dumps(coco_of({name: SCENE[name]})))
    done = merge(tmp_path, paths)
    assert done.manifest['images']['unchanged'] == 2 and len(done.manifest['exports']) == 2
    with pytest.raises(CASTError, match='in another export too'):
        merge(tmp_path, [*paths, paths[0]])


# ---- the labeled set


def test_the_merged_set_keeps_the_old_one_its_ids_and_its_history(tmp_path):
    write_task(tmp_path, 'coco')
    before = {path: path.read_bytes() for path in tmp_path.rglob('*') if path.is_file()}
    export = write_export(tmp_path, SCENE)
    done = merge(tmp_path, export, reviewer='Ada')
    assert all(path.read_bytes() == content for path, content in before.items())
    content = json.loads((tmp_path / 'merged.json').read_text())
    old = json.loads((tmp_path / 'labeled.json').read_text())
    assert content['categories'] == old['categories'] and content['images'][0] == old['images'][0]
    assert content['annotations'][0] == old['annotations'][0]
    assert [each['id'] for each in content['images']] == [7, 8, 9, 10]
    assert [each['id'] for each in content['annotations']] == [5, 6, 7, 8, 9, 10]
    manifest = json.loads((tmp_path / 'merged.manifest.json').read_text())
    assert manifest == done.manifest and manifest['reviewer'] == 'Ada'
    assert manifest['exports'][0]['sha256'] == sha256_of_file(export)
    assert manifest['labeled']['sha256'] == sha256_of_file(tmp_path / 'labeled.json')
    assert [each['images'] for each in content['info']['reviews']] == [3]
    merge(tmp_path, export, reviewer='Ada')  # the same again is no fault
    with pytest.raises(CASTError, match='exists with different content'):
        merge(tmp_path, export, reviewer='Grace')
    with pytest.raises(CASTError, match='is an input'):
        merge_review(
            tmp_path / 'task', [export], tmp_path / 'labeled.json', reviewed='all', force=True,
            labeled=tmp_path / 'labeled.json',
        )  # fmt: skip


def test_images_that_are_labeled_already_are_refused_replaced_or_skipped(tmp_path):
    """Also a copy, under another name."""
    write_task(tmp_path, 'coco')
    photos = tmp_path / 'photos'
    shutil.copy(photos / 'new/a.png', photos / 'old/d.png')
    export = write_export(tmp_path, SCENE)
    with pytest.raises(CASTError, match='1 reviewed images, such as a.png, or copies of them'):
        merge(tmp_path, export)
    done = merge(tmp_path, export, already_labeled='skip')
    assert (
        done.manifest['images']['labeled_already'] == 1 and done.manifest['images']['merged'] == 2
    )
    assert merged_objects(tmp_path).keys() == {'old/d.png', 'new/b.png', 'new/c.png'}
    done = merge(tmp_path, export, already_labeled='replace', force=True)
    assert done.manifest['images']['replaced'] == 1 and done.manifest['images']['merged'] == 3
    assert merged_objects(tmp_path).keys() == {'new/a.png', 'new/b.png', 'new/c.png'}


def test_sets_in_two_folders_get_the_one_above_both(tmp_path):
    write_task(tmp_path, 'coco')
    labeled = json.loads((tmp_path / 'labeled.json').read_text())
    labeled['images'][0]['file_name'] = 'd.png'
    (tmp_path / 'photos/old/labeled.json').write_text(json.dumps(labeled))
    done = merge(
        tmp_path, write_export(tmp_path, SCENE), labeled_images=None,
        labeled=tmp_path / 'photos/old/labeled.json',
    )  # fmt: skip
    assert done.img_dir == (tmp_path / 'photos').resolve()
    assert all((done.img_dir / name).is_file() for name in merged_objects(tmp_path))


def test_a_folder_that_has_the_labeled_names_by_chance_is_not_guessed(tmp_path):
    write_task(tmp_path, 'coco')
    shutil.copytree(tmp_path / 'photos/old', tmp_path / 'old')
    with pytest.raises(CASTError, match='name their folder with --labeled-images'):
        merge(tmp_path, write_export(tmp_path, SCENE), labeled_images=None)
    export = write_export(tmp_path, SCENE)
    labeled = json.loads((tmp_path / 'labeled.json').read_text())
    labeled['images'][0]['height'] += 1
    labeled['annotations'][0]['segmentation'] = [[1, 1, 9, 1, 9, 9, 1, 9]]
    (tmp_path / 'labeled.json').write_text(json.dumps(labeled))
    with pytest.raises(CASTError, match='d.png is 48x32, its label says 48x33'):
        merge(tmp_path, export)


def test_without_a_labeled_set_the_reviewed_images_are_one(tmp_path):
    write_task(tmp_path, 'coco')
    merge(tmp_path, write_export(tmp_path, SCENE), labeled=None, labeled_images=None)
    content = json.loads((tmp_path / 'merged.json').read_text())
    assert [each['name'] for each in content['categories']] == list(NAMES)
    assert len(content['images']) == 3 and len(content['annotations']) == 5


def test_the_unlabeled_images_that_are_left(tmp_path):
    write_task(tmp_path, 'coco')
    images = json.loads((tmp_path / 'pseudo.json').read_text())['images']
    (tmp_path / 'unlabeled.json').write_text(
        json.dumps(dict(images=images, annotations=[], categories=[dict(id=1, name='cell')]))
    )
    export = write_export(tmp_path, {'b.png': SCENE['b.png']})
    done = merge(
        tmp_path,
        export,
        unlabeled=tmp_path / 'unlabeled.json',
        unlabeled_out=tmp_path / 'rest.json',
    )
    rest = json.loads((tmp_path / 'rest.json').read_text())
    assert [each['file_name'] for each in rest['images']] == ['new/a.png', 'new/c.png']
    assert done.files['unlabeled'] == tmp_path / 'rest.json'
    assert done.notes[-1] == '1 of 3 unlabeled images merged, 2 left'


@pytest.mark.parametrize('folder', ['.', 'photos/new'])  # of the list's names
@pytest.mark.parametrize('beside', [True, False])
def test_a_list_of_unlabeled_images_may_be_of_another_folder(folder, beside, tmp_path):
    write_task(tmp_path, 'coco')
    prefix = 'photos/new/' if folder == '.' else ''
    images = [
        dict(id=number, file_name=f'{prefix}{name}', height=HEIGHT, width=WIDTH)
        for number, name in enumerate(SCENE, start=1)
    ]
    shutil.copy(tmp_path / 'photos/old/d.png', tmp_path / 'photos/b.png')  # of no list
    path = tmp_path / (folder if beside else 'photos/old') / 'list.json'
    path.write_text(json.dumps(dict(images=images, annotations=[], categories=[])))
    export = write_export(tmp_path, {'b.png': SCENE['b.png']})
    given = dict(unlabeled=path, unlabeled_out=tmp_path / 'rest.json')
    if not beside and folder != '.':  # not above the images
        with pytest.raises(CASTError, match='list.json: not all of its images .* such as a.png'):
            merge(tmp_path, export, **given)
        assert not (tmp_path / 'merged.json').exists()
        return
    done = merge(tmp_path, export, **given)
    rest = json.loads((tmp_path / 'rest.json').read_text())['images']
    assert [each['file_name'] for each in rest] == [f'{prefix}a.png', f'{prefix}c.png']
    assert done.unlabeled_folder.samefile(tmp_path / folder)


# ---- what is refused


@pytest.mark.parametrize(
    'options', [dict(unlabeled_out='merged.json'), dict(page='merged.manifest.json')]
)
def test_two_results_in_one_file_are_refused(options, tmp_path):
    write_task(tmp_path, 'coco')
    export = write_export(tmp_path, {'b.png': SCENE['b.png']})
    options = {name: tmp_path / value for name, value in options.items()}
    with pytest.raises(CASTError, match='is to hold two results'):
        merge(tmp_path, export, unlabeled=tmp_path / 'pseudo.json', **options)
    assert not (tmp_path / 'merged.json').exists()


def test_results_and_inputs_are_different_files(tmp_path):
    write_task(tmp_path, 'coco')
    export = write_export(tmp_path, {'b.png': SCENE['b.png']})
    with pytest.raises(CASTError, match='labeled.json is an input'):
        merge(tmp_path, export, page=tmp_path / 'labeled.json')


def test_pseudo_labels_are_no_labeled_set(tmp_path):
    write_task(tmp_path, 'coco')
    export = write_export(tmp_path, {'b.png': SCENE['b.png']})
    with pytest.raises(CASTError, match='pseudo.json has pseudo-labels'):
        merge(tmp_path, export, labeled=tmp_path / 'pseudo.json', already_labeled='replace')


def test_masks_of_another_size_are_refused(tmp_path):
    write_task(tmp_path, 'coco')
    content = coco_of({'a.png': [('cell', np.ones((2 * HEIGHT, WIDTH), bool))]})
    content['images'][0]['height'] *= 2
    (tmp_path / 'export.json').write_text(json.dumps(content))
    with pytest.raises(CASTError, match='a.png has masks of 48x64 pixels and was handed out as 48'):
        merge(tmp_path, tmp_path / 'export.json')


def test_crowds_are_asked_about(tmp_path):
    write_task(tmp_path, 'coco')
    export = write_export(tmp_path, SCENE, iscrowd=1)
    with pytest.raises(CASTError, match='5 objects of the export have iscrowd 1'):
        merge(tmp_path, export)
    done = merge(tmp_path, export, crowds='groups')
    assert done.manifest['objects']['groups'] == done.manifest['objects']['changed'] == 5
    done = merge(tmp_path, export, crowds='objects', force=True)
    assert done.manifest['objects']['groups'] == 0 and done.manifest['objects']['unchanged'] == 5


def test_a_class_that_nobody_knows_is_refused_with_the_nearest(tmp_path):
    write_task(tmp_path, 'coco')
    objects = {'a.png': [('nuclues', PARTS[0]), ('debris', RING)]}
    export = write_export(tmp_path, objects)
    with pytest.raises(CASTError, match=r'the class nuclues \(is it nucleus\?\)'):
        merge(tmp_path, export)
    merge(tmp_path, export, add_classes=True)
    content = json.loads((tmp_path / 'merged.json').read_text())
    assert [(each['id'], each['name']) for each in content['categories']] == [
        (2, 'cell'), (4, 'nucleus'), (9, 'debris'), (10, 'nuclues'),
    ]  # fmt: skip
    assert has(merged_objects(tmp_path)['new/a.png'], 'debris', RING)


def test_another_tasks_export_and_changed_images_are_refused(tmp_path):
    write_task(tmp_path, 'coco')
    with pytest.raises(CASTError, match='image other.png was not handed out'):
        merge(tmp_path, write_export(tmp_path, {'other.png': []}))
    export = write_export(tmp_path, {'b.png': [('cell', DISC)]})
    shutil.copy(tmp_path / 'photos/new/a.png', tmp_path / 'photos/new/b.png')
    with pytest.raises(CASTError, match='has changed since it was handed out'):
        merge(tmp_path, export)
    (tmp_path / 'photos/new/b.png').unlink()
    with pytest.raises(CASTError, match='is missing: name the folder of the images with --img-dir'):
        merge(tmp_path, export)
    for name, message in (('x.zip', 'a zip archive: unpack it'), ('x.json', 'none of CVAT')):
        (tmp_path / name).write_text('{}')
        with pytest.raises(CASTError, match=message):
            merge(tmp_path, tmp_path / name)
