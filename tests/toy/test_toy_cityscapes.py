import json
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from folder_content import files_of
from PIL import Image

from mmcast.errors import CASTError
from mmcast.toy import cityscapes
from mmcast.toy.cityscapes import generate_toy_cityscapes, prepare_toy_cityscapes
from mmcast.toy.scenes import MIN_VISIBLE, draw_scene

SIZE = (56, 112)
REPOSITORY = Path(__file__).parents[2]


def generate(root: Path, **options) -> Path:
    generate_toy_cityscapes(
        root, **dict(dict(num_train=4, num_val=2, size=SIZE, progress=False), **options)
    )
    return root


def scene(domain: str, seed: int):
    return draw_scene(domain, np.random.default_rng(seed), (112, 224))


def test_same_seed_writes_the_same_bytes(tmp_path):
    assert files_of(generate(tmp_path / 'a')) == files_of(generate(tmp_path / 'b'))


@pytest.mark.parametrize('options', [dict(seed=1), dict(domain='source')])
def test_another_seed_or_domain_draws_other_images(tmp_path, options):
    first, second = (
        files_of(generate(tmp_path / 'a')),
        files_of(generate(tmp_path / 'b', **options)),
    )
    images = [
        [data for name, data in sorted(files.items()) if name.endswith('.png')]
        for files in (first, second)
    ]
    assert len(images[0]) == len(images[1]) == 18
    assert not set(images[0]) & set(images[1])


def test_scenes_of_the_varied_domain_do_not_look_alike():
    def tints(
        domain,
    ):  # (8, 2): how much redder than green and greener than blue each image is on the whole
        return -np.diff([scene(domain, seed)[0].mean((0, 1)) for seed in range(8)])

    assert tints('varied').std(0).mean() > 4 * tints('target').std(0).mean()


def test_an_image_does_not_depend_on_how_many_there_are(tmp_path):
    few, many = (
        files_of(generate(tmp_path / 'a')),
        files_of(generate(tmp_path / 'b', num_train=6, num_val=3)),
    )
    assert {name: many[name] for name in few if name.endswith('.png')} == {
        name: data for name, data in few.items() if name.endswith('.png')
    }


def test_layout_and_formats_are_those_of_cityscapes(tmp_path):
    root = generate(tmp_path, num_train=5, num_val=3)
    cities = {
        split: {path.name for path in (root / 'leftImg8bit' / split).iterdir()}
        for split in ('train', 'val')
    }
    assert (
        len(cities['train']) == 3
        and len(cities['val']) == 2
        and not cities['train'] & cities['val']
    )
    images = sorted((root / 'leftImg8bit').glob('*/*/*.png'))
    assert len(images) == 8
    for path in images:
        city, sequence, frame, kind = path.stem.split('_')
        assert (city, kind) == (path.parent.name, 'leftImg8bit') and len(sequence) == len(
            frame
        ) == 6
        image = Image.open(path)
        assert (image.mode, image.size) == ('RGB', SIZE[::-1])
        folder = root / 'gtFine' / path.parent.parent.name / city
        instance_ids = np.array(
            Image.open(folder / f'{city}_{sequence}_{frame}_gtFine_instanceIds.png')
        )
        label_ids = np.array(Image.open(folder / f'{city}_{sequence}_{frame}_gtFine_labelIds.png'))
        assert instance_ids.dtype == np.uint16 and label_ids.dtype == np.uint8
        assert instance_ids.shape == label_ids.shape == SIZE
        expected = [
            [value // 1000 if value >= 1000 else value for value in row]
            for row in instance_ids.tolist()
        ]
        assert label_ids.tolist() == expected


@pytest.mark.parametrize('domain', ['source', 'target'])
def test_scenes_have_all_classes_groups_and_no_hidden_instance(domain):
    seen, instances = set(), []
    for seed in range(80):
        _, ids = scene(domain, seed)
        values, counts = np.unique(ids, return_counts=True)
        assert counts[values >= 24].min(initial=MIN_VISIBLE) >= MIN_VISIBLE
        seen.update(values.tolist())
        instances.append(sum(values >= 1000))
    assert {value // 1000 for value in seen if value >= 1000} == {24, 25, 26, 27, 28, 31, 32, 33}
    assert {7, 8, 11, 21, 23} <= seen  # road, sidewalk, building, vegetation, sky
    assert {24, 26} & seen  # a group keeps the bare label id
    assert 3 <= np.mean(instances) <= 8


def test_near_objects_hide_far_ones_and_are_larger():
    """Areas of whole cars grow with the row that they stand on."""
    rows, areas = [], []
    for seed in range(120):
        _, ids = scene('source', seed)
        for value in np.unique(ids[ids // 1000 == 26]):
            ys, xs = np.nonzero(ids == value)
            if xs.min() > 0 and xs.max() < ids.shape[1] - 1:
                rows.append(ys.max())
                areas.append(len(ys))
    assert np.corrcoef(rows, areas)[0, 1] > 0.5


def test_domains_look_different():
    means = {
        domain: np.mean([scene(domain, seed)[0].mean() for seed in range(10)])
        for domain in ('source', 'target')
    }
    assert means['source'] > means['target'] + 20


def test_interrupted_generation_is_completed(tmp_path, monkeypatch):
    complete = files_of(generate(tmp_path / 'complete'))
    calls, write = [], cityscapes.write_atomically

    def interrupt(path, data):
        calls.append(path)
        if len(calls) > 7:
            raise KeyboardInterrupt
        write(path, data)

    monkeypatch.setattr(cityscapes, 'write_atomically', interrupt)
    with pytest.raises(KeyboardInterrupt):
        generate(tmp_path / 'partial')
    monkeypatch.undo()
    assert len(files_of(tmp_path / 'partial')) < len(complete)
    assert files_of(generate(tmp_path / 'partial')) == complete


def test_other_parameters_are_refused_and_nothing_changes(tmp_path):
    before = files_of(generate(tmp_path))
    with pytest.raises(CASTError, match=f'{tmp_path}.*seed.*another folder'):
        generate(tmp_path, seed=1)
    assert files_of(tmp_path) == before


def test_a_foreign_tree_is_refused(tmp_path):
    (tmp_path / 'leftImg8bit').mkdir()
    with pytest.raises(CASTError, match='is not Toy Cityscapes'):
        generate(tmp_path)
    assert not files_of(tmp_path)


@pytest.mark.parametrize('options', [dict(domain='night'), dict(size=(8, 8)), dict(num_train=-1)])
def test_impossible_parameters_are_refused(tmp_path, options):
    with pytest.raises(CASTError):
        generate(tmp_path / 'root', **options)
    assert not (tmp_path / 'root').exists()


def test_prepare_is_idempotent_and_seeds_share_the_images(tmp_path):
    options = dict(percent=50, num_train=24, num_val=2, size=SIZE)
    outputs = prepare_toy_cityscapes(tmp_path, seed=0, **options)
    before = files_of(tmp_path)
    assert (
        prepare_toy_cityscapes(tmp_path, seed=0, **options) == outputs
        and files_of(tmp_path) == before
    )
    other = prepare_toy_cityscapes(tmp_path, seed=1, **options)
    after = files_of(tmp_path)
    assert before.items() <= after.items() and len(after) == len(before) + 3

    labeled, unlabeled, second = (
        json.loads(Path(path).read_text())
        for path in (outputs['labeled'], outputs['unlabeled'], other['labeled'])
    )
    assert len(labeled['images']) == len(unlabeled['images']) == 12
    assert labeled['images'] != second['images']
    for image in labeled['images'] + unlabeled['images']:
        assert Path(outputs['train_images'], image['file_name']).is_file()


def test_command_line(tmp_path, monkeypatch):
    arguments = [
        'tools/dataset_converters/toy_cityscapes.py',
        str(tmp_path),
        '--num-train',
        '2',
        '--num-val',
        '1',
        '--size',
        '56',
        '112',
    ]
    monkeypatch.setattr(sys, 'argv', arguments)
    runpy.run_path(str(REPOSITORY / arguments[0]), run_name='__main__')
    assert len(list(tmp_path.glob('leftImg8bit/*/*/*.png'))) == 3
    refused = subprocess.run(
        [sys.executable, *arguments, '--seed', '3'], cwd=REPOSITORY, capture_output=True, text=True
    )
    assert refused.returncode == 1
    assert refused.stderr.startswith(f'error: {tmp_path}') and refused.stderr.count('\n') == 1
