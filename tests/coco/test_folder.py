import json
from pathlib import Path

import pytest
from PIL import Image

from mmcast.coco.folder import prepare_coco_folder
from mmcast.errors import CASTError


@pytest.fixture
def root(tmp_path):
    """Ten images, one instance each, in the layout that is the default."""
    folder = tmp_path / 'data'
    (folder / 'images').mkdir(parents=True)
    (folder / 'annotations').mkdir()
    coco = dict(
        images=[dict(id=i, file_name=f'{i}.png', width=8, height=8) for i in range(10)],
        annotations=[
            dict(
                id=i,
                image_id=i,
                category_id=1,
                bbox=[0, 0, 2, 2],
                area=4,
                iscrowd=0,
                segmentation=[[0, 0, 2, 0, 2, 2, 0, 2]],
            )
            for i in range(10)
        ],
        categories=[dict(id=1, name='cell')],
    )
    for split in ('train', 'val'):
        (folder / f'annotations/instances_{split}.json').write_text(json.dumps(coco))
    return folder


def test_splits_beside_the_data_and_leaves_the_data_alone(root, tmp_path):
    before = sorted(root.rglob('*'))
    paths = prepare_coco_folder(root, tmp_path / 'out', percent=30, seed=1)
    assert sorted(root.rglob('*')) == before
    labeled, unlabeled = (
        json.loads(Path(paths[part]).read_text()) for part in ('labeled', 'unlabeled')
    )
    assert (len(labeled['images']), len(unlabeled['images']), unlabeled['annotations']) == (
        3,
        7,
        [],
    )
    assert paths['train_images'] == paths['val_images'] == str(root / 'images')
    assert prepare_coco_folder(root, tmp_path / 'out', percent=30, seed=1) == paths, (
        'a second call changes nothing'
    )


@pytest.mark.parametrize('missing', ['annotations/instances_val.json', 'images'])
def test_names_the_missing_part_and_the_setting(root, tmp_path, missing):
    (root / missing).rename(tmp_path / 'elsewhere')
    with pytest.raises(CASTError, match=f'{missing} not found.*variables.data_root'):
        prepare_coco_folder(root, tmp_path / 'out')
    assert not (tmp_path / 'out').exists()


def test_a_validation_file_with_faults_is_copied_mended(root, tmp_path, capsys):
    path = root / 'annotations/instances_val.json'
    coco = json.loads(path.read_text())
    for annotation in coco['annotations']:
        annotation['id'] += 1
    path.write_text(json.dumps(coco))
    assert prepare_coco_folder(root, tmp_path / 'one')['val'] == str(path)
    del coco['annotations'][0]['area'], coco['images'][4]['width']
    Image.new('RGB', (8, 8)).save(root / 'images/4.png')
    path.write_text(json.dumps(coco))
    capsys.readouterr()
    copy = Path(prepare_coco_folder(root, tmp_path / 'two')['val'])
    assert copy == tmp_path / 'two/val.json'
    mended = json.loads(copy.read_text())
    assert (mended['annotations'][0]['area'], mended['images'][4]['width']) == (4, 8)
    assert json.loads(path.read_text()) == coco
    assert 'instances_val.json: missing or unusable areas: 1' in capsys.readouterr().out
