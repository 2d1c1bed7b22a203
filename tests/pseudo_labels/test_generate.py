"""A teacher that sees rectangles by colour writes pseudo-labels; killed, refused and finished runs
of it.
"""

import gc
import json
import multiprocessing
import os
import re
import resource
import runpy
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from colour_teacher import (
    CLASSES,
    HEIGHT,
    WIDTH,
    ColourTeacher,
    generate,
    make_config,
    make_data,
)
from pipelines import torchrun
from pycocotools import mask as mask_utils
from pycocotools.coco import COCO
from tiny_teacher import teacher, teacher_config

from mmcast.errors import CASTError
from mmcast.locks import hold_lock
from mmcast.pseudo_labels.generate import generate_pseudo_labels

TOOL = Path(__file__).parents[2] / 'tools' / 'pseudo_label.py'


@pytest.fixture
def data(tmp_path):
    # MMEngine's data sets collect garbage, and need not look through all of mmdet each time
    gc.freeze()
    return make_data(tmp_path)


def test_file_is_coco_with_masks_scores_and_a_header(data):
    summary = generate(data)
    assert summary == dict(
        images=5,
        empty_images=1,
        unreadable_images=0,
        instances=8,
        instances_per_class=dict(car=4, person=4),
    )
    coco = COCO(str(data / 'labels.json'))
    assert coco.dataset['info']['kind'] == 'mmcast pseudo-labels'
    assert len(coco.dataset['info']['teacher_checkpoint']) == 64
    assert [coco.imgs[i]['file_name'] for i in coco.getImgIds()] == [
        f'sub/{n:03d}.png' for n in range(5)
    ]
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
    assert not (data / 'labels.json.shards').exists()


def test_masks_are_stored_as_predicted(data):
    generate(data)
    coco = COCO(str(data / 'labels.json'))
    person, car = coco.loadAnns(coco.getAnnIds(imgIds=[14]))
    overlap = mask_utils.area(
        mask_utils.merge([person['segmentation'], car['segmentation']], intersect=True)
    )
    assert overlap == 2  # rows 4 and 5 of column 10: claimed by both


@pytest.mark.parametrize('stop_at', [0, 1, 3, 4])
@pytest.mark.parametrize('tail', ['', '00000000 1 {"image": {"id": 1'])
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
    with open(data / 'labels.json.shards/shard_0000.jsonl', 'a') as file:
        file.write(tail)
    generate(data)
    assert predictions[stop_at + 1 :] == [10 + n for n in range(stop_at, 5)]
    assert (data / 'labels.json').read_bytes() == (data / 'whole.json').read_bytes()


def test_finished_file_is_left_alone_without_predicting(data, monkeypatch):
    first = generate(data)
    monkeypatch.setattr(ColourTeacher, 'forward', None)
    assert generate(data) == first


@pytest.mark.parametrize(
    'change, field',
    [
        (dict(score_floor=0.2), 'score_floor'),
        (dict(limit=2), r'images \(were some added, .*\)'),
        (dict(config=make_config(with_masks=False)), 'config'),
    ],
)
def test_file_of_something_else_is_refused(data, monkeypatch, change, field):
    generate(data)
    before = (data / 'labels.json').read_bytes()
    with pytest.raises(CASTError, match=rf'labels\.json was made with another {field}; delete it'):
        generate(data, **change)
    assert (data / 'labels.json').read_bytes() == before


def test_partial_file_of_another_teacher_is_refused(data, monkeypatch):
    interrupt(data, monkeypatch)
    torch.save(dict(confidence=torch.tensor(0.7)), data / 'teacher.pth')
    with pytest.raises(
        CASTError, match=r'labels\.json\.shards was made with another teacher_checkpoint'
    ):
        generate(data)


def test_another_coco_file_is_never_overwritten(data):
    before = (data / 'images.json').read_bytes()
    with pytest.raises(CASTError, match=r'images\.json is not a pseudo-label file'):
        generate(data, out='images.json')
    assert (data / 'images.json').read_bytes() == before


def break_images(data):
    """The fifth is cut short, its header intact; the fourth is of another size than listed."""
    path = data / 'images/sub/004.png'
    path.write_bytes(path.read_bytes()[: len(path.read_bytes()) // 2])
    cv2.imwrite(str(data / 'images/sub/003.png'), np.zeros((HEIGHT, WIDTH + 1, 3), np.uint8))


def test_unreadable_images_are_named_and_left_out(data):
    break_images(data)
    summary = generate(data)
    assert (summary['images'], summary['unreadable_images'], summary['instances']) == (3, 2, 4)
    content = json.loads((data / 'labels.json').read_text())
    assert [image['id'] for image in content['images']] == [10, 11, 12]
    (other, cut) = content['unreadable']
    assert other['file_name'] == 'sub/003.png'
    assert other['reason'].startswith('is 21x12, its label file says 20x12: it was resized')
    assert cut['file_name'] == 'sub/004.png' and 'cannot be read' in cut['reason']
    assert generate(data) == summary  # read from the finished file


def test_strict_stops_at_an_unreadable_image_and_keeps_the_rest(data, monkeypatch):
    break_images(data)
    with pytest.raises(
        CASTError, match=r'003\.png .*\(is 21x12, its label file says 20x12: .*\); replace it'
    ):
        generate(data, strict=True)
    assert not (data / 'labels.json').exists()
    seen = []
    forward = ColourTeacher.forward
    monkeypatch.setattr(
        ColourTeacher, 'forward', lambda *args, **kw: seen.append(1) or forward(*args, **kw)
    )
    make_data(data)  # repaired
    assert generate(data)['instances'] == 8 and len(seen) == 2


def test_images_repaired_before_the_end_get_labels(data, monkeypatch):
    break_images(data)
    interrupt(data, monkeypatch)
    make_data(data)
    assert generate(data)['unreadable_images'] == 0
    generate(data, 'whole.json')
    assert (data / 'labels.json').read_bytes() == (data / 'whole.json').read_bytes()


@pytest.mark.parametrize(
    'state, problem',
    [
        ({}, 'holds no state dict'),
        ({'other': torch.zeros(1)}, r'missing, such as confidence'),
        ({'confidence': torch.zeros(2)}, r'confidence is \(2,\), needs \(\)'),
        ({'confidence': torch.tensor(0.8), 'head': torch.zeros(1)}, 'unknown, such as head'),
    ],
)
def test_checkpoint_of_another_model_is_refused(data, state, problem):
    torch.save(state, data / 'teacher.pth')
    with pytest.raises(CASTError, match=problem) as error:
        generate(data)
    assert 'teacher.pth' in str(error.value)


def test_parts_that_only_training_has_may_be_in_the_checkpoint(data):
    weight = torch.zeros(1)
    torch.save(
        {'confidence': torch.tensor(0.8), 'pixel_contrast.w': weight, 'teacher.w': weight},
        data / 'teacher.pth',
    )
    assert generate(data)['instances'] == 8


def test_missing_checkpoint_and_model_without_masks(data):
    with pytest.raises(CASTError, match='ColourTeacher predicts no masks'):
        generate(data, config=make_config(with_masks=False))
    (data / 'teacher.pth').unlink()
    with pytest.raises(CASTError, match=r'teacher\.pth not found'):
        generate(data)


def test_classes_that_the_teacher_does_not_know_are_no_categories(data):
    """Figures and exports would count their objects as missed."""
    config = make_config()
    config.test_dataloader.dataset.metainfo.classes = ('person', 'car')
    listed = json.loads((data / 'images.json').read_text())
    assert not generate(data, config=config)['instances_per_class'].keys() - {'person', 'car'}
    listed['categories'].append(dict(id=99, name='tree'))
    (data / 'images.json').write_text(json.dumps(listed))
    generate(data, 'others.json', config=config)
    stored = json.loads((data / 'others.json').read_text())
    assert {category['name'] for category in stored['categories']} == {'person', 'car'}


def test_class_that_the_image_list_lacks(data):
    config = make_config()
    config.test_dataloader.dataset.metainfo.classes = ('person', 'tram')
    with pytest.raises(CASTError, match=r'images\.json has no category tram, it has car, person'):
        generate(data, config=config)


def test_folder_of_other_images_is_refused(data):
    with pytest.raises(CASTError, match=r'images\.json does not match .* there is no sub/000\.png'):
        generate(data, img_dir=data)


def test_folder_without_a_list(data):
    summary = generate(data, ann_file=None)
    assert summary == dict(
        images=5,
        empty_images=1,
        unreadable_images=0,
        instances=8,
        instances_per_class=dict(person=4, car=4),
    )
    images = json.loads((data / 'labels.json').read_text())['images']
    assert images[1] == dict(id=2, file_name='sub/001.png', height=HEIGHT, width=WIDTH)
    cv2.imwrite(str(data / 'images/another.png'), np.zeros((HEIGHT, WIDTH, 3), np.uint8))
    with pytest.raises(CASTError, match='was made with another images .were some added'):
        generate(data, ann_file=None)


def replace_images(data):
    """Others of the same names, as another folder has them, in files of other sizes."""
    for path in sorted((data / 'images/sub').iterdir()):
        cv2.imwrite(str(path), np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3)))


def without_sizes(path):
    """As mmcast wrote it before it compared sizes of files."""
    content = json.loads(path.read_text())
    content.pop('image_sizes', None)
    content.get('info', {}).pop('image_sizes', None)
    path.write_text(json.dumps(content))


@pytest.mark.parametrize('ann_file', [None, 'images.json'])
def test_labels_of_other_images_with_the_same_names_are_refused(data, ann_file):
    given = dict(ann_file=ann_file and data / ann_file)
    generate(data, **given)
    replace_images(data)
    with pytest.raises(CASTError, match=r'another image_sizes \(is it another folder'):
        generate(data, **given)
    without_sizes(data / 'labels.json')
    assert generate(data, **given)['images'] == 5


def test_unfinished_labels_of_other_images_with_the_same_names_are_refused(data, monkeypatch):
    interrupt(data, monkeypatch)
    replace_images(data)
    message = r'labels\.json\.shards has labels of 5 images .* such as sub/000\.png: give'
    with pytest.raises(CASTError, match=message):
        generate(data)
    without_sizes(data / 'labels.json.shards/images.json')
    assert generate(data)['images'] == 5


def test_a_finished_file_is_said_to_be_kept(data, capsys):
    generate(data)
    generate_pseudo_labels(
        make_config(),
        data / 'teacher.pth',
        data / 'labels.json',
        ann_file=data / 'images.json',
        img_dir=data / 'images',
    )
    assert 'labels.json: finished before, left alone' in capsys.readouterr().out


def test_more_than_255_instances_in_an_image(data):
    """Pycocotools 2.0.11 counts the masks in 8 bits, which NumPy 2 refuses."""
    assert generate(data, config=make_config(copies=150))['instances'] == 8 * 150


def test_factors_of_the_score_are_stored_where_the_teacher_tells_them(data):
    generate(data, config=make_config(with_factors=True))
    _, car = json.loads((data / 'labels.json').read_text())['annotations'][:2]
    assert (car['score'], car['class_score'], car['mask_quality']) == (0.5, 0.707107, 0.707107)
    generate(data, 'plain.json')
    assert 'class_score' not in json.loads((data / 'plain.json').read_text())['annotations'][0]


def interrupt(data, monkeypatch):
    """A run that predicted everything and was stopped before its shard became the file."""
    with monkeypatch.context() as patch, pytest.raises(ZeroDivisionError):
        patch.setattr('mmcast.pseudo_labels.generate._merge', lambda job: 1 / 0)
        generate(data)
    return data / 'labels.json.shards/shard_0000.jsonl'


@pytest.mark.parametrize(
    'damage',
    [
        lambda whole: whole[:-5],
        lambda whole: whole[: len(whole) // 2],
        lambda whole: whole.replace(b'sub/001', b'sub/xxx'),
        lambda whole: whole + b'\0' * 100,
        lambda whole: b'',
        lambda whole: whole[:60],
    ],
    ids=['end', 'half', 'middle', 'zeros', 'empty', 'header'],
)
def test_damaged_shard_is_made_whole(data, monkeypatch, damage):
    generate(data, 'whole.json')
    shard = interrupt(data, monkeypatch)
    shard.write_bytes(damage(shard.read_bytes()))
    assert generate(data)['instances'] == 8
    assert (data / 'labels.json').read_bytes() == (data / 'whole.json').read_bytes()


def test_shard_whose_header_is_damaged_is_refused(data, monkeypatch):
    shard = interrupt(data, monkeypatch)
    shard.write_bytes(shard.read_bytes().replace(b'"info"', b'"xnfo"', 1))
    with pytest.raises(
        CASTError, match=r'header of .*shard_0000\.jsonl is damaged.*; delete the file'
    ):
        generate(data)


def in_child(function):
    """The message of the CASTError that a function raises in a forked process, which it may
    mistreat.
    """
    read, write = os.pipe()
    if os.fork() == 0:
        torch.set_num_threads(
            1
        )  # OpenMP's other threads did not come along, and would be waited for
        try:
            function()
        except CASTError as error:
            os.write(write, str(error).encode())
        finally:
            os._exit(0)
    os.close(write)
    with open(read) as pipe:
        message = pipe.read()
    os.wait()
    return message


@pytest.mark.parametrize(
    'step, message',
    [
        (
            '_label',
            r'cannot write to .*shard_0000\.jsonl \(File too large\); what is done is kept',
        ),
        (
            '_merge',
            (
                r'cannot write .*labels\.json \(File too large\); all labels are in '
                r'.*json\.shards: make'
            ),
        ),
    ],
)
def test_full_disk_is_named_and_nothing_is_lost(data, step, message):
    """A limit on the size of files stands for the disk: a write ends in the middle, the next one
    fails.
    """
    generate(data, 'whole.json')

    def fill_the_disk():
        module = sys.modules['mmcast.pseudo_labels.generate']
        function = getattr(module, step)

        def limited(*args):
            resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
            return function(*args)

        setattr(module, step, limited)
        generate(data)

    assert re.search(message, in_child(fill_the_disk))
    assert not (data / 'labels.json').exists()
    generate(data)
    assert (data / 'labels.json').read_bytes() == (data / 'whole.json').read_bytes()


def test_folder_that_cannot_be_written_is_named(data):
    with pytest.raises(
        CASTError, match=r'cannot write to /proc/labels\.json\.shards \(.*\); give an output'
    ):
        generate(data, '/proc/labels.json')


def test_two_runs_on_one_file_are_refused(data):
    context = multiprocessing.get_context('fork')
    locked = context.Event()

    def hold():
        with hold_lock(data / 'labels.json.shards/.lock', ''):
            locked.set()
            time.sleep(600)

    child = context.Process(target=hold)
    child.start()
    assert locked.wait(60)
    with pytest.raises(CASTError, match=r'labels\.json\.shards is being written by another run'):
        generate(data)
    child.kill()  # as by the kernel: nothing is tidied up
    child.join()
    assert generate(data)['images'] == 5


def test_killed_between_the_file_and_tidying_up(data, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(ZeroDivisionError):
        patch.setattr('shutil.rmtree', lambda path, ignore_errors: 1 / 0)
        generate(data)
    before = (data / 'labels.json').read_bytes()
    assert generate(data)['instances'] == 8
    assert (data / 'labels.json').read_bytes() == before and not (
        data / 'labels.json.shards'
    ).exists()


def test_limit_takes_the_first_images(data):
    assert generate(data, limit=2)['images'] == 2


@pytest.mark.parametrize(
    'options',
    [
        dict(limit=0),
        dict(score_floor=float('nan')),
        dict(score_floor=5.0),
        dict(num_workers=-1),
        dict(views_per_batch=0),
    ],
)
def test_numbers_that_would_label_nothing_are_refused(data, options):
    with pytest.raises(CASTError, match='give a number|give [01] or more'):
        generate(data, **options)
    assert not list(data.glob('labels.json*'))


def run_tool(data, monkeypatch, checkpoint):
    make_config().dump(data / 'teacher.py')
    monkeypatch.setattr(
        sys,
        'argv',
        [
            'pseudo_label.py',
            str(data / 'teacher.py'),
            str(data / checkpoint),
            '--out',
            str(data / 'labels.json'),
            '--ann-file',
            str(data / 'images.json'),
            '--img-dir',
            str(data / 'images'),
            '--device',
            'cpu',
        ],
    )
    runpy.run_path(str(TOOL), run_name='__main__')


def test_tool_prints_the_summary(data, monkeypatch, capsys):
    run_tool(data, monkeypatch, 'teacher.pth')
    assert '"instances": 8' in capsys.readouterr().out
    assert (data / 'labels.json').exists()


def test_tool_fails_with_one_line(data, monkeypatch):
    with pytest.raises(SystemExit) as stop:
        run_tool(data, monkeypatch, 'nothing.pth')
    assert str(stop.value).startswith('error: checkpoint ') and '\n' not in str(stop.value)


def test_tool_on_two_processes_names_what_it_left_out(data):
    """Through torchrun, with an image that cannot be read."""
    (data / 'images/sub/001.png').write_bytes(b'no image')
    imports = "custom_imports = dict(imports=['colour_teacher'])\n"
    (data / 'teacher.py').write_text(imports + make_config().pretty_text)
    command = [
        *torchrun(2),
        str(TOOL),
        str(data / 'teacher.py'),
        str(data / 'teacher.pth'),
        '--out',
        str(data / 'labels.json'),
        '--img-dir',
        str(data / 'images'),
        '--device',
        'cpu',
        '--launcher',
        'pytorch',
    ]
    path = os.pathsep.join([str(TOOL.parents[1] / 'tests/helpers'), str(TOOL.parents[1])])
    done = subprocess.run(
        command, capture_output=True, text=True, env=dict(os.environ, PYTHONPATH=path)
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count('"instances": 6') == 1
    assert done.stdout.count('1 images could not be used and have no labels; ') == 1
    assert (
        json.loads((data / 'labels.json').read_text())['unreadable'][0]['file_name']
        == 'sub/001.png'
    )


def test_loading_process_that_is_killed_is_named(data, monkeypatch):
    load = 'mmcast.pseudo_labels.images.ImagesToLabel.__getitem__'
    monkeypatch.setattr(load, lambda *args: os.kill(os.getpid(), signal.SIGKILL))
    with pytest.raises(
        CASTError, match='a process that loads images was killed.* fewer --num-workers'
    ):
        generate(data, num_workers=1)


def test_a_config_labels_twice_with_a_network_that_mmdet_builds(tmp_path):
    """mmdet's Grounding-DINO adds to the config that it is built from."""
    make_data(tmp_path, count=1)
    config = make_config()
    config.model = teacher_config(tmp_path, classes=CLASSES)
    model = teacher(tmp_path, classes=CLASSES)
    torch.save(dict(state_dict=model.state_dict()), tmp_path / 'teacher.pth')
    first = generate(tmp_path, config=config)
    (tmp_path / 'labels.json').rename(tmp_path / 'first.json')
    assert generate(tmp_path, config=config) == first
    assert (tmp_path / 'labels.json').read_text() == (tmp_path / 'first.json').read_text()
