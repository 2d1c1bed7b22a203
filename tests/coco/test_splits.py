import hashlib
import itertools
import json
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mmcast.coco.splits import halve_validation, make_split
from mmcast.errors import CASTError
from mmcast.version import __version__

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def all_images(tmp_path):
    """Writes a COCO file of n images: class 1 in all, class 2 in the last only, class 3 as a group
    only.
    """

    def write(n: int) -> Path:
        def annotation(ann_id, image_id, category_id, iscrowd=0):
            return dict(
                id=ann_id,
                image_id=image_id,
                category_id=category_id,
                iscrowd=iscrowd,
                bbox=[0, 0, 2, 2],
                area=4,
                segmentation=[[0, 0, 2, 0, 2, 2, 0, 2]],
            )

        annotations = [annotation(i + 1, i, 1) for i in range(n)]
        annotations += [annotation(n + 1, n - 1, 2), annotation(n + 2, 0, 3, iscrowd=1)]
        path = tmp_path / 'all.json'
        path.write_text(
            json.dumps(
                dict(
                    images=[dict(id=i, file_name=f'{i}.png', height=4, width=4) for i in range(n)],
                    annotations=annotations,
                    categories=[
                        dict(id=i, name=name) for i, name in ((1, 'car'), (2, 'train'), (3, 'bus'))
                    ],
                )
            )
        )
        return path

    return write


def split(path: Path, name='out', **options):
    outputs = path.parent / f'{name}_labeled.json', path.parent / f'{name}_unlabeled.json'
    counts = make_split(path, *outputs, **options)
    return counts, *(json.loads(output.read_text()) for output in outputs)


def ids_of(coco: dict) -> set[int]:
    return {image['id'] for image in coco['images']}


@pytest.mark.parametrize(
    'total, percent, expected',
    [(2975, 10, 298), (2975, 5, 149), (331, 10, 33), (10, 25, 3), (1000, 0.1, 1), (200, 100, 200)],
)
def test_percentage_is_exact_and_the_parts_are_complementary(all_images, total, percent, expected):
    counts, labeled, unlabeled = split(all_images(total), percent=percent)
    assert counts['labeled'] == len(labeled['images']) == len(ids_of(labeled)) == expected
    assert ids_of(labeled) | ids_of(unlabeled) == set(range(total))
    assert not ids_of(labeled) & ids_of(unlabeled)
    assert len(unlabeled['images']) == total - expected == counts['unlabeled']


def test_annotations_go_with_labeled_images_and_nowhere_else(all_images):
    path = all_images(50)
    _, labeled, unlabeled = split(path, count=20)
    everything = json.loads(path.read_text())
    assert labeled['annotations'] == [
        a for a in everything['annotations'] if a['image_id'] in ids_of(labeled)
    ]
    assert unlabeled['annotations'] == [] and unlabeled['categories'] == everything['categories']
    text = (path.parent / 'out_unlabeled.json').read_text()
    assert 'segmentation' not in text and 'bbox' not in text


def test_seed_decides_and_global_generators_are_left_alone(all_images):
    path = all_images(40)
    np.random.seed(5)
    expected = np.random.get_state()[1].tolist()
    first, again, other = (
        split(path, name, count=10, seed=seed)[1] for name, seed in (('a', 3), ('b', 3), ('c', 4))
    )
    assert first == again and ids_of(first) != ids_of(other)
    assert np.random.get_state()[1].tolist() == expected


def test_every_image_is_drawn_about_equally_often(all_images):
    path, drawn = all_images(8), np.zeros(8)
    for seed in range(400):
        drawn[sorted(ids_of(split(path, count=4, seed=seed, force=True)[1]))] += 1
    assert drawn.sum() == 1600 and abs(drawn - 200).max() < 50  # five standard deviations


def test_stratified_split_shows_every_class_that_has_instances(all_images):
    path = all_images(40)
    plain = [split(path, f'p{seed}', count=4, seed=seed) for seed in range(20)]
    stratified = [split(path, f's{seed}', count=4, seed=seed, stratify=True) for seed in range(20)]
    assert any(counts['instances']['train'] == 0 for counts, _, _ in plain)
    assert all(
        counts['instances']['train'] == 1 and counts['labeled'] == 4 for counts, _, _ in stratified
    )
    for (counts, labeled, _), (_, other, _) in zip(plain, stratified):
        changed = len(ids_of(labeled) - ids_of(other))
        assert changed == (1 if counts['instances']['train'] == 0 else 0)


def test_stratification_that_cannot_be_says_how_many_it_needs(all_images):
    path = all_images(40)
    content = json.loads(path.read_text())
    content['annotations'] = [
        a for a in content['annotations'] if a['category_id'] != 1 or a['image_id'] == 0
    ]
    path.write_text(json.dumps(content))
    with pytest.raises(CASTError, match='at least 2'):
        split(path, count=1, stratify=True)


@pytest.mark.parametrize('stratify', [False, True])
def test_draws_of_one_seed_nest(all_images, stratify):
    path = all_images(60)
    for seed in range(5):
        draws = [
            ids_of(split(path, percent=percent, seed=seed, stratify=stratify, force=True)[1])
            for percent in (5, 10, 20, 50, 100)
        ]
        assert [len(draw) for draw in draws] == [3, 6, 12, 30, 60]
        assert all(small < large for small, large in itertools.pairwise(draws))


def test_the_draws_that_configs_rely_on_stay_as_they_are(all_images):
    """Recorded before nesting and lists came: results name their seed, so a seed must keep its
    images.
    """
    path = all_images(40)
    assert sorted(ids_of(split(path, count=5, seed=3)[1])) == [17, 20, 23, 30, 32]
    assert sorted(ids_of(split(path, 's', count=5, seed=3, stratify=True)[1])) == [
        17,
        23,
        30,
        32,
        39,
    ]


def manifest_of(path: Path, name='out') -> dict:
    return json.loads((path.parent / f'{name}_labeled.manifest.json').read_text())


def test_manifest_says_how_the_split_was_made(all_images):
    path = all_images(20)
    counts, labeled, _ = split(path, percent=25, seed=2, stratify=True)
    assert manifest_of(path) == dict(
        mmcast=__version__,
        source='all.json',
        source_sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        percent=25,
        count=None,
        seed=2,
        stratify=True,
        nested=True,
        labeled_images=5,
        unlabeled_images=15,
        images_per_class=dict(car=5, train=1, bus=0),
        instances_per_class=dict(car=5, train=1, bus=0),
    )
    assert {image['id'] for image in labeled['images']} >= {19}, 'the one image with a train'
    assert counts['instances'] == dict(car=5, train=1, bus=0)


def test_a_new_version_of_mmcast_does_not_refuse_its_own_split(all_images):
    path = all_images(20)
    split(path, count=5)
    manifest = path.parent / 'out_labeled.manifest.json'
    older = json.dumps(dict(json.loads(manifest.read_text()), mmcast='0.0.1'))
    manifest.write_text(older)
    split(path, count=5)
    assert manifest.read_text() == older
    manifest.write_text(older.replace('"seed": 0', '"seed": 7'))
    with pytest.raises(CASTError, match='out_labeled.manifest.json exists'):
        split(path, count=5)


@pytest.fixture
def in_folders(all_images):
    """Five images in two folders; b/3.png and c/3.jpg share their base name without extension."""
    path = all_images(5)
    content = json.loads(path.read_text())
    for image, name in zip(
        content['images'], ('a/0.png', 'a/1.png', 'b/2.png', 'b/3.png', 'c/3.jpg')
    ):
        image['file_name'] = name
    path.write_text(json.dumps(content))
    return path


def named(path: Path, *lines: str) -> Path:
    names = path.parent / 'names.txt'
    names.write_bytes('\r\n'.join(lines).encode())
    return names


def test_a_list_of_names_chooses_exactly_these_images(in_folders):
    names = named(in_folders, 'a/1.png', '', ' 2 ', '3.jpg')
    counts, labeled, unlabeled = split(in_folders, from_list=names)
    assert (
        ids_of(labeled) == {1, 2, 4}
        and ids_of(unlabeled) == {0, 3}
        and unlabeled['annotations'] == []
    )
    assert counts['labeled'] == 3 and {ann['image_id'] for ann in labeled['annotations']} == {
        1,
        2,
        4,
    }
    manifest = manifest_of(in_folders)
    assert manifest['from_list'] == 'names.txt' and 'seed' not in manifest


@pytest.mark.parametrize(
    'lines, message',
    [
        (
            ['a/1.png', 'nowhere.png'],
            r"names.txt, line 2: 'nowhere.png' is not an image of .*all.json",
        ),
        (['b/0.png'], "line 1: 'b/0.png' is not an image"),
        (['3'], "line 1: '3' fits 2 images"),
        (['1', '2', 'a/1.png'], "line 3: 'a/1.png' is the image of line 1 again"),
        (['', ' '], 'names.txt names no image'),
    ],
)
def test_a_name_that_is_not_exactly_one_image_is_named(in_folders, lines, message):
    with pytest.raises(CASTError, match=message):
        split(in_folders, from_list=named(in_folders, *lines))
    assert not (in_folders.parent / 'out_labeled.json').exists()


def test_a_list_that_cannot_be_read_is_named(in_folders):
    with pytest.raises(CASTError, match='nowhere.txt'):
        split(in_folders, from_list=in_folders.parent / 'nowhere.txt')
    names = in_folders.parent / 'names.txt'
    names.write_bytes(b'\xff\xfe\x00')
    with pytest.raises(CASTError, match='names.txt is not a text file'):
        split(in_folders, from_list=names)


def test_existing_outputs_are_refused_unless_the_same_or_forced(all_images):
    path = all_images(20)
    _, first, _ = split(path, count=5)
    assert split(path, count=5)[1] == first
    with pytest.raises(CASTError, match='out_labeled.json exists'):
        split(path, count=6)
    assert json.loads((path.parent / 'out_labeled.json').read_text()) == first
    assert len(split(path, count=6, force=True)[1]['images']) == 6


def test_neither_output_is_written_if_one_cannot_be(all_images):
    path = all_images(20)
    (path.parent / 'out_unlabeled.json').write_text('{}')
    with pytest.raises(CASTError, match='out_unlabeled.json exists'):
        split(path, count=5)
    assert not (path.parent / 'out_labeled.json').exists()


def test_halves_of_validation_are_disjoint_and_complete(all_images, tmp_path):
    files = dict(val=str(all_images(7)), val_images=None, train='train.json')
    halves = halve_validation(files, tmp_path / 'halves')
    assert halves['train'] == 'train.json'
    val, test = (json.loads(Path(halves[name]).read_text()) for name in ('val', 'test'))
    ids = [{image['id'] for image in half['images']} for half in (val, test)]
    assert [len(half) for half in ids] == [3, 4] and ids[0] | ids[1] == set(range(7))
    for half, own in zip((val, test), ids):
        assert {ann['image_id'] for ann in half['annotations']} == own
    assert len(val['annotations']) + len(test['annotations']) == 9
    assert halve_validation(files, tmp_path / 'halves') == halves  # again: nothing changes
    other = halve_validation(files, tmp_path / 'halves', seed=1)
    assert Path(other['val']).read_text() != Path(halves['val']).read_text()


def test_versions_of_a_photo_are_in_one_half(all_images, tmp_path):
    path = all_images(12)
    content = json.loads(path.read_text())
    for number, image in enumerate(content['images']):
        image['file_name'] = f'p{number // 2}_jpg.rf.0a1b2c3d4e5f60{number:02d}.jpg'
    path.write_text(json.dumps(content))
    halves = halve_validation(dict(val=str(path), val_images=None), tmp_path / 'halves')
    for name in ('val', 'test'):
        ids = [image['id'] // 2 for image in json.loads(Path(halves[name]).read_text())['images']]
        assert len(ids) == 6 and len(set(ids)) == 3


def test_one_image_has_no_halves(all_images, tmp_path):
    with pytest.raises(CASTError, match='has 1 images of 1 photos: two halves need two'):
        halve_validation(dict(val=str(all_images(1))), tmp_path)


@pytest.mark.parametrize(
    'options',
    [
        {},
        dict(percent=10, count=2),
        dict(count=0),
        dict(count=21),
        dict(percent=-1),
        dict(percent=1),
        dict(count=2, from_list='names.txt'),
        dict(from_list='names.txt', stratify=True),
    ],
)
def test_impossible_numbers_are_refused(all_images, options):
    with pytest.raises(CASTError):
        split(all_images(20), **options)


@pytest.mark.parametrize('content', [None, 'no json', '[]', '{"images": []}'])
def test_a_file_that_is_not_coco_is_named(tmp_path, content):
    path = tmp_path / 'all.json'
    if content is not None:
        path.write_text(content)
    with pytest.raises(CASTError, match='all.json'):
        split(path, count=1)


def test_labels_of_unlisted_images_are_refused(all_images):
    path = all_images(5)
    content = json.loads(path.read_text())
    content['images'].pop()
    path.write_text(json.dumps(content))
    with pytest.raises(CASTError, match='not listed'):
        split(path, count=1)


def test_input_is_never_an_output(all_images):
    path = all_images(5)
    with pytest.raises(CASTError, match='different files'):
        make_split(path, path, path.parent / 'unlabeled.json', count=1, force=True)


def test_command_line(all_images, monkeypatch, capsys):
    path = all_images(20)
    arguments = [
        'tools/make_splits.py',
        str(path),
        str(path.parent / 'l.json'),
        str(path.parent / 'u.json'),
    ]
    monkeypatch.setattr(sys, 'argv', [*arguments, '--percent', '10'])
    runpy.run_path(str(REPOSITORY / arguments[0]), run_name='__main__')
    assert capsys.readouterr().out.startswith('2 labeled and 18 unlabeled images')
    failed = subprocess.run(
        [sys.executable, *arguments, '--count', '5'], cwd=REPOSITORY, capture_output=True, text=True
    )
    assert failed.returncode == 1
    assert failed.stderr.startswith('error: ') and failed.stderr.count('\n') == 1


def test_faults_are_mended_in_the_parts_and_said(all_images, capsys):
    path = all_images(10)
    content = json.loads(path.read_text())
    for image in content['images']:
        image['id'] = f'{image["id"]}'
    for annotation in content['annotations']:
        annotation.update(id=0, bbox=None)
    path.write_text(json.dumps(content))
    _, labeled, unlabeled = split(path, count=4)
    for part in (labeled, unlabeled):
        assert all(type(image['id']) is int for image in part['images'])
    assert {tuple(annotation['bbox']) for annotation in labeled['annotations']} == {(0, 0, 2, 2)}
    assert len({annotation['id'] for annotation in labeled['annotations']}) >= 4
    said = capsys.readouterr().out
    assert 'missing or unusable boxes: 12' in said and 'ids that are no whole numbers: 22' in said
    assert json.loads(path.read_text()) == content
