import copy
import functools
import json
import os
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from damage import plant
from folder_content import files_of
from PIL import Image
from shared_data import DSB2018

from mmcast.coco.checks.run import check_dataset
from mmcast.coco.findings import NOTES
from mmcast.errors import CASTError
from mmcast.reports.data_set import write_sheet

ROOT = Path(__file__).parents[3]


def make_set(folder: Path, count: int = 24) -> dict:
    """A sound set: small images of noise, in each a square and a triangle as polygons and a bar as
    runs.
    """
    (folder / 'images').mkdir(parents=True)
    rng, images, annotations = np.random.default_rng(0), [], []
    for i in range(count):
        pixels = rng.integers(0, 255, (20, 30, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f'images/{i}.png')
        images.append(dict(id=i, file_name=f'{i}.png', width=30, height=20))
        for segmentation, bbox, area in (
            ([[2, 3, 12, 3, 12, 13, 2, 13]], [2, 3, 10, 10], 100),
            ([[15, 2, 25, 2, 15, 12]], [15, 2, 10, 10], 50),
            (dict(size=[20, 30], counts=[0, 4, 16, 4, 576]), [0, 0, 2, 4], 8),
        ):
            annotations.append(
                dict(
                    id=len(annotations) + 1,
                    image_id=i,
                    category_id=1,
                    iscrowd=0,
                    segmentation=segmentation,
                    bbox=bbox,
                    area=area,
                )
            )
    coco = dict(images=images, annotations=annotations, categories=[dict(id=1, name='thing')])
    (folder / 'train.json').write_text(json.dumps(coco))
    return coco


@pytest.fixture
def data(tmp_path: Path) -> Path:
    make_set(tmp_path / 'data')
    return tmp_path / 'data'


def check(folder: Path, **options):
    options = dict(workers=1, progress=False) | options
    return check_dataset(folder / 'train.json', folder / 'images', **options)


def found(report) -> set[tuple]:
    """Kind, file, image id, annotation id; the annotation file only by its name."""
    source = report.ann_file
    return {
        (
            finding.kind,
            Path(source).name if finding.file == source else finding.file,
            finding.image_id,
            finding.annotation_id,
        )
        for finding in report.findings
    }


def change(folder: Path, edit) -> None:
    coco = json.loads((folder / 'train.json').read_text())
    edit(coco)
    (folder / 'train.json').write_text(json.dumps(coco))


def test_a_valid_set_is_clean(data):
    report = check(data)
    assert not report.findings and report.problems == 0
    assert report.statistics['classes'] == dict(thing=dict(instances=72, images=24))
    assert report.statistics['area']['small'] == 72
    assert report.statistics['area']['quantiles']['50'] == 50
    assert report.summary().endswith('train.json: clean')


def expect_all(folder: Path, expected: set[tuple], **options) -> None:
    expected = {(kind, Path(name).name, *ids) for kind, name, *ids in expected}
    before = files_of(folder)
    report = check(folder, val=folder / 'val.json', unlabeled=folder / 'unlabeled', **options)
    assert found(report) == expected
    assert len({kind for kind, *_ in expected} - NOTES) >= 15
    summary = report.summary()
    for kind, name, *_ in expected:
        assert f'{kind}: ' in summary and name in summary
    assert files_of(folder) == before, 'nothing is modified'


def test_every_planted_mistake_is_found_and_no_other(data):
    expect_all(data, plant(data))


def test_processes_find_the_same(data, monkeypatch):
    monkeypatch.setattr('mmcast.coco.scanner._CHUNK', 7)
    expect_all(data, plant(data), workers=2)


@pytest.mark.shared_data
def test_the_nuclei_are_clean():
    train, val = (DSB2018 / f'annotations/instances_{part}.json' for part in ('train', 'val'))
    for checked, other in ((train, val), (val, train)):
        assert not check_dataset(checked, DSB2018 / 'images', val=other, progress=False).findings


@pytest.mark.shared_data
def test_every_mistake_planted_in_the_nuclei_is_found_and_no_other(tmp_path):
    shutil.copytree(DSB2018 / 'images', tmp_path / 'images', copy_function=shutil.copyfile)
    shutil.copyfile(DSB2018 / 'annotations/instances_train.json', tmp_path / 'train.json')
    (tmp_path / 'images').chmod(0o755)
    expect_all(tmp_path, plant(tmp_path), workers=2)


@pytest.mark.parametrize(
    'content, kind',
    [
        ('', 'invalid-json'),
        ('{"images": [', 'invalid-json'),
        ('{"images": [1,]}', 'invalid-json'),
        ('{} x', 'invalid-json'),
        ('[' * 100000, 'not-coco'),
        ('{"images": ' + '[' * 100000, 'invalid-json'),
        (b'{"\xff": 1}', 'invalid-json'),
        ('[]', 'not-coco'),
        ('{}', 'not-coco'),
        ('{"images": 3, "annotations": [], "categories": []}', 'not-coco'),
        ('{"images": [], "annotations": [], "categories": []}', 'not-coco'),
    ],
)
def test_a_file_that_is_no_coco_json_is_a_finding(data, content, kind):
    (data / 'broken.json').write_bytes(content if isinstance(content, bytes) else content.encode())
    report = check_dataset(data / 'broken.json', data / 'images', workers=1, progress=False)
    assert [finding.kind for finding in report.findings] == [kind]
    assert 'broken.json' in report.summary()
    assert [finding.kind for finding in check(data, val=data / 'broken.json').findings] == [kind]


def test_invalid_json_says_where(data):
    text = (data / 'train.json').read_text()
    (data / 'train.json').write_text(text.replace('"area": 8', '"area": oops', 1))
    (finding,) = check(data).findings
    assert finding.kind == 'invalid-json' and 'line 1 column' in finding.detail


def test_junk_anywhere_never_crashes_the_check_or_the_sheet(data, tmp_path):
    """Replaces random values of the file by values of other types, and cuts images short."""
    junk = [
        None,
        [],
        {},
        -1,
        0,
        True,
        'x',
        '',
        '\ud800\n<b>',
        1e308,
        -1e308,
        float('nan'),
        10**30,
        [[]],
        [1, 2, 3],
        [None] * 6,
        ['1'] * 8,
        {'size': [20, 30]},
        {'size': [20, 30], 'counts': 'zz'},
        {'counts': [1]},
        {'size': [20, 30], 'counts': [-5, 605]},
        {'size': [10**9, 10**9], 'counts': [0, 10**18]},
    ]
    for seed in range(12):
        rng = np.random.default_rng(seed)
        folder = tmp_path / str(seed)
        coco = make_set(folder, 6)
        for _ in range(8):
            entry = coco
            while isinstance(entry, (dict, list)) and entry:
                parent = entry
                key = (
                    rng.choice(list(entry)) if isinstance(entry, dict) else rng.integers(len(entry))
                )
                entry = parent[key]
                if parent is not coco and rng.random() < 0.4:
                    break
            parent[key] = copy.deepcopy(junk[rng.integers(len(junk))])
        (folder / 'train.json').write_text(json.dumps(coco))
        path = folder / f'images/{rng.integers(6)}.png'
        path.write_bytes(path.read_bytes()[: rng.integers(2000)])
        report = check(folder)
        assert report.problems
        report.summary().encode()
        write_sheet(report, folder / 'sheet.html', 4, progress=False)


@pytest.mark.parametrize(
    'edit',
    [
        lambda coco: coco['annotations'][0].update(
            area=99.5, bbox=[2.4, 2.8, 10, 10]
        ),  # rounded otherwise
        lambda coco: coco['annotations'][1].update(area=100),  # of the box, as some tools write
        lambda coco: coco['annotations'][0].update(
            segmentation=[[-0.5, -0.5, 30, 0, 30, 20.5, 0, 20]], bbox=[0, 0, 30, 20], area=600
        ),
        lambda coco: coco['annotations'][2].update(iscrowd=1),
        lambda coco: coco['annotations'][0].update(
            segmentation=[[2, 3, 7, 3, 7, 8], [12, 13, 8, 13, 12, 8]], area=22
        ),
        lambda coco: [
            image.update(file_name=f'./{image["file_name"]}') for image in coco['images']
        ],
    ],
)
def test_what_tools_do_differently_is_no_problem(data, edit):
    change(data, edit)
    assert not check(data).findings


def test_turned_photos_have_the_size_that_the_trainer_sees(data):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.open(data / 'images/0.png').save(data / 'images/0.jpg', exif=exif)
    change(data, lambda coco: coco['images'][0].update(file_name='0.jpg'))
    (finding,) = check(data).findings
    assert (
        finding.kind == 'image-size-mismatch'
        and 'listed as 30x20, the file has 20x30: EXIF orientation 6 turns' in finding.detail
    )


def test_more_than_8_bits_are_a_finding_unless_a_range_is_given(data, monkeypatch, capsys):
    values = np.linspace(0, 4095, 600).reshape(20, 30).astype(np.uint16)
    Image.fromarray(values).save(data / 'images/0.png')
    report = check(data)
    assert found(report) == {('more-than-8-bits', '0.png', 0, None)} and report.problems == 1
    assert 'uint16 values from 0 to 4095' in report.summary()
    assert 'variables.value_range' in report.summary()
    write_sheet(report, data / 'sheet.html', 3, progress=False)
    assert (data / 'sheet.html').read_text().count('data:image/jpeg') == 3
    assert not check(data, value_range='0,4095').findings
    call = functools.partial(run_tool, monkeypatch=monkeypatch, capsys=capsys)
    options = data / 'train.json', '--img-dir', data / 'images', '--value-range'
    assert call(*options, 'percentile')[0] == 0
    code, _, error = call(*options, '4095,0')
    assert code == 2 and "value_range is '4095,0'" in error


def test_hidden_files_of_a_folder_are_counted_and_odd_names_told(data, tmp_path):
    others = tmp_path / 'others'
    others.mkdir()
    for number, name in enumerate(('a.png', '._a.png', 'new\nline.png')):
        Image.new('RGB', (5 + number, 5)).save(others / name)
    report = check(data, unlabeled=others)
    assert {finding.kind for finding in report.findings} == {'files-left-out', 'unusable-name'}
    assert report.problems == 1 and r'new\nline.png' in report.summary()


@pytest.mark.skipif(sys.platform != 'linux', reason='other systems do not write such names')
def test_a_name_that_is_not_unicode_ends_neither_the_check_nor_its_page(data):
    """It is named, read, drawn and escaped; training refuses it."""
    name = os.fsdecode(b'caf\xe9.png')
    os.rename(data / 'images/0.png', data / 'images' / name)
    change(data, lambda coco: coco['images'][0].update(file_name=name))
    report = check(data)
    assert {(finding.kind, finding.image_id) for finding in report.findings} == {
        ('unusable-name', 0)
    }
    write_sheet(report, data / 'sheet.html', 24, progress=False)
    page = (data / 'sheet.html').read_text()
    assert page.count('data:image/jpeg') == 24 and r'caf\udce9.png' in page


def test_same_name_in_another_folder_is_a_problem_only_if_the_pixels_are_not_known_to_differ(
    data, tmp_path
):
    shutil.copytree(data / 'images', tmp_path / 'more')
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(tmp_path / 'more/0.png')
    kinds = {
        finding.image_id: finding.kind for finding in check(data, val=tmp_path / 'more').findings
    }
    assert kinds == {0: 'same-name-in-val'} | dict.fromkeys(range(1, 24), 'in-val')
    unread = check_dataset(
        data / 'train.json', None, val=tmp_path / 'more', workers=1, progress=False
    )
    assert {finding.kind for finding in unread.findings} == {'in-val'} and len(
        unread.findings
    ) == 24


def test_broken_images_of_the_other_sets_are_found_with_their_source(data):
    val = dict(images=[dict(id=1, file_name='gone.png', width=3, height=3)])
    (data / 'val.json').write_text(json.dumps(val))
    report = check(data, val=data / 'val.json')
    assert found(report) == {('missing-image', 'gone.png', 1, None)}
    assert str(data / 'val.json') in report.summary()


def test_sheet_is_one_file_that_shows_images_and_findings(data):
    change(data, lambda coco: coco['annotations'][0].update(bbox=[9, 9, 9, 9]))
    change(data, lambda coco: coco['categories'][0].update(name='<script>'))
    report = check(data)
    write_sheet(report, data / 'sheet.html', 5, progress=False)
    page = (data / 'sheet.html').read_text()
    assert page.count('data:image/jpeg') == 5 and 'src="http' not in page and '<script>' not in page
    assert 'bad-box, annotation 1' in page


def test_the_sheet_draws_groups_where_they_are_taken_for_objects(data):
    def pictures(**options):
        write_sheet(check(data, **options), data / 'sheet.html', 4, progress=False)
        return re.findall(r'data:image/jpeg;base64,[^"\']+', (data / 'sheet.html').read_text())

    objects = pictures()
    change(data, lambda coco: [ann.update(iscrowd=1) for ann in coco['annotations']])
    assert len(objects) == 4 and pictures(crowd_as_instances=True) == objects
    assert not {*pictures()} & {*objects}


def run_tool(*arguments, monkeypatch, capsys) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, 'argv', ['check_dataset.py', *map(str, arguments)])
    monkeypatch.setattr(sys.stdout, 'reconfigure', lambda **_: None, raising=False)
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(str(ROOT / 'tools/check_dataset.py'), run_name='__main__')
    return stop.value.code, *capsys.readouterr()


def test_exit_status(data, monkeypatch, capsys):
    def call(*arguments):
        return run_tool(data / 'train.json', *arguments, monkeypatch=monkeypatch, capsys=capsys)

    assert call('--no-images', '--workers', 1)[0] == 0
    for wrong in (
        ('--img-dir', data / 'nowhere'),
        ('--no-images', '--val', data / 'nowhere.json'),
        ('--no-images', '--json', data / 'train.json', '--force'),
    ):
        status, _, error = call(*wrong)
        assert (
            status == 2
            and error.startswith('error: ')
            and error.count('\n') == 1
            and str(data) in error
        )
    assert call()[0] == call('--no-images', '--sheet', data / 'sheet.html')[0] == 2
    change(data, lambda coco: coco['annotations'][0].update(bbox=[9, 9, 9, 9]))
    assert call('--no-images', '--json', data / 'out.json')[0] == 1
    assert json.loads((data / 'out.json').read_text())['counts'] == {'bad-box': 1}
    status, _, error = call('--no-images', '--json', data / 'out.json')
    assert status == 2 and 'out.json exists' in error


def test_command_line_in_a_process_of_its_own(data):
    plant(data)
    command = [
        sys.executable,
        'tools/check_dataset.py',
        data / 'train.json',
        '--img-dir',
        data / 'images',
        '--val',
        data / 'val.json',
        '--unlabeled',
        data / 'unlabeled',
        '--workers',
        '2',
        '--sheet',
        data / 'sheet.html',
        '--json',
        data / 'found.json',
    ]
    done = subprocess.run(list(map(str, command)), cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1, done.stderr
    assert 'problem missing-image: 1' in done.stdout and 'Traceback' not in done.stderr
    result = json.loads((data / 'found.json').read_text())
    assert not result['clean'] and len(result['counts']) >= 18
    assert (data / 'sheet.html').read_text().count('<figure>') > 10


def test_wrong_paths_are_errors_of_the_caller(data):
    with pytest.raises(CASTError, match='nowhere.json'):
        check_dataset(data / 'nowhere.json', None, progress=False)
    with pytest.raises(CASTError, match='holds no image'):
        (data / 'empty').mkdir()
        check(data, unlabeled=data / 'empty')


def test_what_training_mends_is_no_problem(data, monkeypatch, capsys):
    def damage(coco):
        del coco['images'][0]['height']
        for annotation in coco['annotations']:
            annotation.update(id=annotation['id'] - 1, area=None)
        coco['annotations'][0].update(segmentation=[2, 3, 12, 3, 12, 13, 2, 13], iscrowd=None)
        coco['annotations'][1]['segmentation'].append([])
        coco['annotations'][4]['segmentation'] = [[1, 1, 5, 5]]
        coco['categories'].append(dict(id=7, name='thing'))

    change(data, damage)
    report = check(data)
    counts = {kind: len(found) for kind, found in report.by_kind().items()}
    assert counts == {
        'duplicate-category': 1,
        'annotation-ids': 1,
        'no-size': 1,
        'crowd-value': 1,
        'polygon-layout': 1,
        'empty-part': 1,
        'degenerate-polygon': 1,
        'no-area': 71,
    }
    assert report.problems == 0 and report.statistics['instances'] == 71
    assert 'mended no-area: 71' in report.summary() and report.summary().endswith(': clean')
    command = data / 'train.json', '--img-dir', data / 'images', '--workers', 1
    assert run_tool(*command, monkeypatch=monkeypatch, capsys=capsys)[0] == 0


@pytest.mark.parametrize('number, kinds', [(35, []), (36, ['many-crowds']), (72, ['no-instances'])])
def test_many_groups_are_a_problem(data, number, kinds):
    def crowd(coco):
        for annotation in coco['annotations'][:number]:
            annotation['iscrowd'] = 1

    change(data, crowd)
    report = check(data)
    assert [kind for kind in report.by_kind() if kind not in NOTES] == kinds
    assert not kinds or f'{number} of 72 annotations have iscrowd 1' in report.summary()
    taken = check(data, crowd_as_instances=True)
    assert not [kind for kind in taken.by_kind() if kind not in NOTES]
    assert taken.statistics['instances'] == 72


def test_a_file_without_an_annotation_is_a_problem(data):
    change(data, lambda coco: coco.update(annotations=[]))
    found_kinds = check(data).by_kind()
    assert [kind for kind in found_kinds if kind not in NOTES] == ['no-instances']
    assert found_kinds['no-instances'][0].detail == 'there is no annotation'


def test_a_photo_upside_down_is_a_note(data):
    """Its size is the same either way."""
    image, exif = Image.open(data / 'images/3.png'), Image.Exif()
    exif[0x0112] = 3
    image.save(data / 'images/3.png', exif=exif)
    report = check(data)
    (finding,) = report.findings
    assert (finding.kind, finding.file) == ('turned-image', '3.png') and not report.problems


def test_masks_that_reach_out_are_a_note_and_those_far_outside_a_problem(data):
    def move(coco):
        first, second = coco['annotations'][0], coco['annotations'][3]
        first.update(segmentation=[[2, 3, 35, 3, 35, 13, 2, 13]], bbox=[2, 3, 33, 10], area=330)
        second.update(segmentation=[[2, 3, 65, 3, 65, 13, 2, 13]])

    change(data, move)
    report = check(data)
    assert {finding.kind: finding.annotation_id for finding in report.findings} == {
        'mask-outside-image': 1,
        'mask-far-outside': 4,
    }
    assert report.problems == 1


def test_very_many_instances_are_a_note(data):
    def repeat(coco):
        first = coco['annotations'][0]
        coco['annotations'] += [dict(first, id=100 + number) for number in range(299)]

    change(data, repeat)
    (finding,) = check(data).findings
    assert (finding.kind, finding.image_id) == ('many-instances', 0)
    assert finding.detail == '302 instances' and finding.kind in NOTES


def test_images_beside_the_validation_file_are_found(data):
    """As Roboflow exports them."""
    coco = make_set(data / 'valid', 2)
    for image in coco['images']:
        (data / 'valid/images' / image['file_name']).rename(data / f'valid/v{image["id"]}.png')
        image['file_name'] = f'v{image["id"]}.png'
    (data / 'valid/_annotations.coco.json').write_text(json.dumps(coco))
    report = check(data, val=data / 'valid/_annotations.coco.json')
    assert [*report.by_kind()] == ['in-val-copy'], 'both sets are of one seed'


def test_versions_of_validation_photos_are_a_problem(data, tmp_path):
    names = {0: 'car_png.rf.0123456789abcdef.png', 1: 'bus_png.rf.0123456789abcdef.png'}
    for number, name in names.items():
        shutil.copy(data / f'images/{number}.png', data / f'images/{name}')

    def rename(coco):
        for number, name in names.items():
            coco['images'][number]['file_name'] = name

    change(data, rename)
    for part, name in (('val', 'car'), ('unlabeled', 'bus')):
        folder = tmp_path / part
        folder.mkdir()
        noise = np.random.default_rng(1).integers(0, 255, (20, 30, 3), dtype=np.uint8)
        Image.fromarray(noise).save(folder / f'{name}_png.rf.fedcba9876543210.png')
    report = check(data, val=tmp_path / 'val', unlabeled=tmp_path / 'unlabeled')
    assert {finding.kind: finding.image_id for finding in report.findings} == {
        'in-val-version': 0,
        'in-unlabeled-version': 1,
    }
    assert report.problems == 1
