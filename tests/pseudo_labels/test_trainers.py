"""Labels for other trainers: what is in the folder, what is not, and what is refused."""

import inspect
import json
import os
import re
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from drawn_polygons import draw_lightly
from exports import assert_same_objects, objects_of
from folder_content import files_of
from PIL import Image
from stored_labels import CAR, HEIGHT, PERSON, WIDTH, label, rectangle, write_labels

from mmcast.cli.main import main
from mmcast.cli.train import train
from mmcast.coco.converters.yolo import convert_yolo
from mmcast.coco.trainer_folder import SourceImage, flat_names
from mmcast.errors import CASTError
from mmcast.pipeline.plan import Plan
from mmcast.pseudo_labels.dataset import PseudoLabelDataset
from mmcast.pseudo_labels.trainers import export_labels

HOLE = rectangle(2, 2, 9, 9) & ~rectangle(4, 4, 3, 3)
PARTS = rectangle(0, 15, 5, 5) | rectangle(8, 22, 6, 8)
CORNER = rectangle(15, 25, 5, 5)
PIXEL = rectangle(12, 3, 1, 1)


def write_image(path, shade):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full((HEIGHT, WIDTH, 3), shade, np.uint8)
    pixels[:4] = 255  # up is not down
    cv2.imwrite(str(path), pixels)


def write_coco(path, labels, categories=((7, 'person'), (3, 'car'), (9, 'tree'))):
    """Human annotations: by file name, (category id, mask, further fields)."""
    images, annotations = [], []
    for number, (name, found) in enumerate(labels.items(), start=10):
        images.append(dict(id=number, file_name=name, height=HEIGHT, width=WIDTH))
        for category, mask, fields in found:
            ann = dict(label(category, mask), id=len(annotations) + 1, image_id=number)
            annotations.append(ann | fields)
    listed = [dict(id=own, name=name) for own, name in categories]
    path.write_text(json.dumps(dict(images=images, annotations=annotations, categories=listed)))


@pytest.fixture
def data(tmp_path):
    """Two labeled images, two for validation, three with pseudo-labels, of which one is labeled."""
    names = ('human/a/1', 'human/b/1', 'held/3', 'held/4', 'teacher/1', 'teacher/2')
    for number, name in enumerate(names):
        write_image(tmp_path / f'{name}.png', 20 * number)
    shutil.copy(tmp_path / 'human/a/1.png', tmp_path / 'teacher/5.png')
    write_coco(
        tmp_path / 'labeled.json',
        {
            'a/1.png': [
                (3, HOLE, {}),
                (3, HOLE, {}),
                (7, PARTS, {}),
                (7, CORNER, dict(iscrowd=1)),
            ],
            'b/1.png': [(7, CORNER, {}), (3, PIXEL, {})],
        },
    )
    write_coco(tmp_path / 'val.json', {'3.png': [(3, PARTS, {}), (9, PIXEL, {})], '4.png': []})
    write_labels(
        tmp_path / 'pseudo.json',
        {
            1: [label(CAR, HOLE | rectangle(4, 4, 3, 3), 0.9), label(PERSON, HOLE, 0.6)],
            2: [label(PERSON, PARTS, 0.2)],
            5: [label(CAR, CORNER, 0.9)],
        },
        unreadable=['6.png'],
    )
    return dict(
        labeled=tmp_path / 'labeled.json',
        labeled_images=tmp_path / 'human',
        pseudo_labels=tmp_path / 'pseudo.json',
        pseudo_images=tmp_path / 'teacher',
        val=tmp_path / 'val.json',
        val_images=tmp_path / 'held',
    )


def export(folder, data, **options):
    return export_labels(folder, **(data | options), progress=False)


def yolo_objects(root, split):
    """Class names and masks by image, drawn from the text files."""
    names = yaml.safe_load((root / 'data.yaml').read_text())['names']
    found = {}
    for path in sorted((root / split / 'images').iterdir()):
        lines = (root / split / 'labels' / f'{path.stem}.txt').read_text().splitlines()
        rows = [line.split() for line in lines]
        size = np.array([WIDTH, HEIGHT])
        found[path.name] = [
            (
                names[int(row[0])],
                draw_lightly(np.array(row[1:], float).reshape(-1, 2) * size, HEIGHT, WIDTH),
            )
            for row in rows
        ]
    return found


EXPECTED = {
    'a_1.png': [('car', HOLE), ('person', PARTS)],
    'b_1.png': [('person', CORNER), ('car', PIXEL)],
    '1.png': [('car', HOLE | rectangle(4, 4, 3, 3))],
    '2.png': [],
}


def test_the_folder(data, tmp_path, capsys):
    """Labels of people and of the teacher, both ways; images of three folders in one."""
    written = export(tmp_path / 'out', data)
    root = Path(written['folder'])
    assert yaml.safe_load(Path(written['data_yaml']).read_text()) == dict(
        train='train/images', val='valid/images', names={0: 'person', 1: 'car'}
    )
    in_coco, in_yolo = objects_of(Path(written['train'])), yolo_objects(root, 'train')
    assert list(in_coco) == list(EXPECTED) and in_yolo.keys() == EXPECTED.keys()
    for name, objects in EXPECTED.items():
        assert_same_objects(in_coco[name], objects)
        assert_same_objects(in_yolo[name], objects)
    assert_same_objects(objects_of(Path(written['val']))['3.png'], [('car', PARTS)])
    assert yolo_objects(root, 'valid')['4.png'] == []
    coco = json.loads(Path(written['train']).read_text())
    assert [each['supercategory'] for each in coco['categories']] == ['none', 'none']
    assert [image['origin'] for image in coco['images']] == ['human', 'human', 'pseudo', 'pseudo']
    assert [image['source_file'] for image in coco['images']][:2] == ['a/1.png', 'b/1.png']
    assert [ann.get('score') for ann in coco['annotations']] == [None] * 4 + [0.9]
    assert all((root / 'train' / image['file_name']).is_file() for image in coco['images'])
    told = capsys.readouterr().out
    for line in (
        'train: 4 images (2 human, 2 pseudo), 1 without objects; 5 objects',
        'person: 2 human, 0 pseudo',
        'car: 2 human, 1 pseudo',
        '1 groups (iscrowd 1) left out',
        '1 repeated objects left out',
        '1 objects in several parts, which lines join',
        '1 objects of other classes left out',
        '1 images that could not be labeled left out',
        '1 images that have human annotations left out',
        'kept 1 of 3 pseudo-labels',
    ):
        assert line in told


def test_parts_far_from_each_other_are_told(data, tmp_path, capsys):
    """Readers of YOLO would draw 20 pixels where there are two."""
    far = rectangle(3, 2, 1, 1) | rectangle(3, 22, 1, 1)
    write_coco(data['val'], {'3.png': [(3, far, {}), (7, PARTS, {}), (7, HOLE, {})]})
    export(tmp_path / 'out', data)
    told = capsys.readouterr().out.partition('valid:')[2]
    assert '2 objects in several parts' in told
    assert '1 of these grow there by more than a tenth' in told


def test_mmcast_reads_its_own_yolo_files(data, tmp_path):
    """Parts are put together again and holes stay, with outlines through centres of pixels."""
    root = Path(export(tmp_path / 'out', data)['folder'])
    train = objects_of(next(iter(convert_yolo(root / 'data.yaml', progress=False))))
    for name, objects in EXPECTED.items():
        assert_same_objects(train[name], objects)


@pytest.mark.parametrize(
    'filters',
    [
        dict(score_thr=0.1),
        dict(score_thr=dict(person=0.1, car=0.95)),
        dict(thresholds_from=dict(percentile=50), score_thr=0, min_area=20),
        dict(score_thr=0.1, resolve_overlaps=False, top_k=1),
        dict(score_thr=0.1, min_visible=0.5),
    ],
)
def test_the_pseudo_labels_are_those_that_mmcast_trains_on(data, tmp_path, filters):
    dataset = PseudoLabelDataset(
        ann_file=str(data['pseudo_labels']),
        data_prefix=dict(img='teacher'),
        metainfo=dict(classes=('person', 'car')),
        **filters,
    )
    expected = {
        Path(info['img_path']).name: [
            (instance['bbox_label'], instance['mask']['counts'], instance['score'])
            for instance in info['instances']
        ]
        for info in (dataset.get_data_info(number) for number in range(len(dataset)))
    }
    written = export(
        tmp_path / 'out',
        dict(data, labeled=None, labeled_images=None),
        classes=['person', 'car'],
        **filters,
    )
    coco = json.loads(Path(written['train']).read_text())
    found = {image['source_file']: [] for image in coco['images']}
    for ann in coco['annotations']:
        name = coco['images'][ann['image_id'] - 1]['source_file']
        found[name].append((ann['category_id'] - 1, ann['segmentation']['counts'], ann['score']))
    assert found == expected


def test_an_interrupted_call_is_resumed(data, tmp_path, monkeypatch):
    """Nothing is called as the folder before it is whole; then it is the folder of one call."""
    whole = files_of(Path(export(tmp_path / 'whole', data)['folder']))
    replaced = []

    def interrupted(*paths):
        replaced.append(paths)
        raise KeyboardInterrupt

    monkeypatch.setattr('mmcast.coco.trainer_folder.os.rename', interrupted)
    with pytest.raises(KeyboardInterrupt):
        export(tmp_path / 'out', data)
    monkeypatch.undo()
    assert replaced and not (tmp_path / 'out').exists()
    (image,) = (tmp_path / 'out.partial/valid/images').glob('3.png')
    before = image.stat().st_ino
    os.remove(tmp_path / 'out.partial/train/images/1.png')
    (tmp_path / 'out.partial/train/labels/1.txt').write_text('0 0.1')
    root = Path(export(tmp_path / 'out', data)['folder'])
    assert files_of(root) == whole and (root / 'valid/images/3.png').stat().st_ino == before
    assert not (tmp_path / 'out.partial').exists()


def test_the_same_call_again_changes_nothing(data, tmp_path, capsys):
    root = Path(export(tmp_path / 'out', data)['folder'])
    before = (root / 'manifest.json').stat().st_mtime_ns
    export(tmp_path / 'out', data)
    assert (root / 'manifest.json').stat().st_mtime_ns == before
    assert 'is complete already' in capsys.readouterr().out


def test_another_folder_is_moved_aside_only_when_asked(data, tmp_path):
    root = Path(export(tmp_path / 'out', data)['folder'])
    (root / 'weights.pt').touch()
    with pytest.raises(CASTError, match='exists with other content'):
        export(tmp_path / 'out', data, score_thr=0.1)
    with pytest.raises(CASTError, match='exists with other content'):
        export(tmp_path / 'out', data, crowd_as_instances=True)
    export(tmp_path / 'out', data, score_thr=0.1, force=True)
    assert (tmp_path / 'out.old1/weights.pt').is_file() and not (root / 'weights.pt').exists()


def test_a_link_to_an_empty_folder_is_filled_there(data, tmp_path):
    """As one to a larger disk."""
    (tmp_path / 'disk/big').mkdir(parents=True)
    (tmp_path / 'out').symlink_to(tmp_path / 'disk/big')
    export(tmp_path / 'out', data)
    assert (tmp_path / 'out').is_symlink() and (tmp_path / 'disk/big/manifest.json').is_file()


def test_other_images_of_the_same_names_are_another_call(data, tmp_path):
    """Be they in another folder of that name, or newer; a folder that was moved is the same."""
    export(tmp_path / 'out', data)
    moved = tmp_path / 'moved/held'
    shutil.copytree(tmp_path / 'held', moved)
    export(tmp_path / 'out', data, val_images=moved)
    write_image(moved / '3.png', 111)
    with pytest.raises(CASTError, match='exists with other content'):
        export(tmp_path / 'out', data, val_images=moved)


@pytest.mark.parametrize('link', ['auto', 'hardlink', 'symlink', 'copy'])
def test_links(data, tmp_path, link):
    root = Path(export(tmp_path / 'out', data, link=link)['folder'])
    source, image = tmp_path / 'held/3.png', root / 'valid/images/3.png'
    assert image.read_bytes() == source.read_bytes()
    assert image.is_symlink() == (link == 'symlink')
    assert image.samefile(source) == (link != 'copy')


def test_images_that_a_trainer_would_change_or_turn(data, tmp_path):
    """A JPEG that was cut at its end is copied, as Ultralytics mends it in its place. One with an
    orientation is written upright, as rfdetr and lightly-train do not turn it. One of 16 bits
    becomes one of 8.
    """
    held = tmp_path / 'held'
    upright = Image.open(held / '3.png')
    exif = Image.Exif()
    exif[0x0112] = 6  # stored turned to the left
    upright.transpose(Image.Transpose.ROTATE_90).save(held / '3.jpg', quality=100, exif=exif)
    Image.open(held / '4.png').save(held / '4.jpg')
    with (held / '4.jpg').open('ab') as file:
        file.write(b'\0')
    deep = np.zeros((HEIGHT, WIDTH), np.uint16)
    deep[:5] = 4000
    cv2.imwrite(str(held / 'deep.png'), deep)
    write_coco(tmp_path / 'val.json', {'3.jpg': [], '4.jpg': [], 'deep.png': []})
    with pytest.raises(CASTError, match='more than 8 bits'):
        export(tmp_path / 'out', data)
    root = Path(export(tmp_path / 'out', data, value_range='0,4000')['folder'])
    images = root / 'valid/images'
    assert not (images / '4.jpg').samefile(held / '4.jpg')
    with Image.open(images / '3.png') as image:
        assert image.size == (WIDTH, HEIGHT) and not image.getexif()
        assert np.abs(np.array(image, int) - np.array(upright, int)).max() < 20
    with Image.open(images / 'deep.png') as image:
        assert image.mode == 'RGB' and np.unique(image).tolist() == [0, 255]
    coco = json.loads((root / 'valid/_annotations.coco.json').read_text())
    assert coco['images'][0]['file_name'] == 'images/3.png'


def test_the_manifest_says_where_labels_come_from(data, tmp_path):
    written = export(tmp_path / 'out', data, score_thr=dict(car=0.5, person=0.4), min_area=3)
    manifest = json.loads(Path(written['manifest']).read_text())
    assert set(manifest['sources']) == {'labeled', 'pseudo_labels', 'val'}
    assert len(manifest['sources']['labeled']['sha256']) == 64
    pseudo = manifest['pseudo_labels']
    assert pseudo['thresholds'] == {'score': {'person': 0.4, 'car': 0.5}}
    assert (pseudo['min_area'], pseudo['score_floor']) == (3, 0.05)
    assert manifest['counts']['train']['objects']['car'] == {'human': 2, 'pseudo': 1}
    assert manifest['images']['train/images/a_1.png'] == dict(origin='human', source_file='a/1.png')
    assert str(tmp_path) not in Path(written['manifest']).read_text()


def test_processes_write_the_same(data, tmp_path):
    one, two = (
        files_of(Path(export(tmp_path / f'out{workers}', data, num_workers=workers)['folder']))
        for workers in (0, 2)
    )
    assert one == two


@pytest.mark.parametrize(
    ('options', 'said'),
    [
        (dict(val='labeled.json', val_images='human'), 'are the same image'),
        (dict(val_images='nowhere'), 'image folder .*nowhere of .*val.json not found'),
        (dict(val_images='human'), '3.png of .*val.json not found'),
        (dict(classes=['car', 'bus']), 'classes are car, bus: give some of person, car, tree'),
        (dict(classes=['tree']), 'pseudo.json has no class tree'),
        (
            dict(labeled=None, labeled_images=None, pseudo_labels=None, pseudo_images=None),
            'nothing to train on',
        ),
        (dict(link='move'), 'link is move: give one of auto, hardlink'),
        (dict(mask_quality_thr=0.5), 'labels have no mask_quality'),
        (dict(score_thr=dict(car=0.3)), 'give one number for each of person, car'),
        (dict(score_thr=50), 'score_thr of .*pseudo.json has 50: give numbers up to 1'),
        (dict(labeled=None), 'images .*human are given without labeled'),
        (dict(pseudo_labels=None), 'images .*teacher are given without pseudo_labels'),
        (
            dict(pseudo_labels=None, pseudo_images=None, thresholds_from=dict(percentile=50)),
            'thresholds_from is given without pseudo_labels',
        ),
        (dict(val='pseudo.json', val_images='teacher'), 'pseudo.json has pseudo-labels: give'),
        (dict(num_workers=-1), '--num-workers is -1'),
    ],
)
def test_refused_before_anything_is_there(data, tmp_path, options, said):
    paths = {
        name: tmp_path / value
        if str(value).startswith(('labeled', 'human', 'nowhere', 'pseudo', 'teacher'))
        else value
        for name, value in options.items()
    }
    with pytest.raises(CASTError, match=said):
        export(tmp_path / 'out', data, **paths)
    assert not (tmp_path / 'out').exists()


def test_exported_pseudo_labels_do_not_become_human_annotations(data, tmp_path):
    root = tmp_path / 'out'
    written = export(root, data)
    again = dict(labeled=written['train'], labeled_images=root / 'train')
    with pytest.raises(CASTError, match='coco.json has pseudo-labels'):
        export(tmp_path / 'again', data, **again)


def test_validation_images_of_other_classes_are_refused(data, tmp_path):
    write_coco(tmp_path / 'val.json', {'3.png': [(1, PARTS, {})]}, [(1, 'Person')])
    with pytest.raises(CASTError, match='val.json has none of the classes person, car, it has Per'):
        export(tmp_path / 'out', data)


def test_a_step_of_a_pipeline(data, tmp_path):
    """Its outputs are there for other steps; called again, it stays as it is."""
    kwargs = {name: str(path) for name, path in data.items()}
    kwargs = dict(kwargs, out_dir='{work_dir}/labels', progress=False)
    step = dict(kind='call', function='mmcast.pseudo_labels.trainers.export_labels', kwargs=kwargs)
    config = tmp_path / 'my_pipeline.py'
    config.write_text(f'steps = dict(labels={step!r})')
    for _ in range(2):
        train(config, tmp_path / 'work')
    state = json.loads((tmp_path / 'work/pipeline.json').read_text())
    outputs = state['steps']['labels']['outputs']
    assert outputs['train'] == '{work_dir}/labels/train/_annotations.coco.json'
    assert (tmp_path / 'work/labels/train/_annotations.coco.json').is_file()


def test_the_pipeline_of_the_page(tmp_path):
    """docs/labels.md: the step comes where it says, and takes what the function takes."""
    page = Path(__file__).parents[2] / 'docs/labels.md'
    (code,) = re.findall(r'```python\n(.*?)```', page.read_text(), re.DOTALL)
    config = tmp_path / 'my_pipeline.py'
    config.write_text(code)
    plan = Plan(config, tmp_path / 'work')
    names = list(plan.definitions)
    assert names.index('labels') == names.index('pseudo_label_2') + 1
    inspect.signature(export_labels).bind(**plan.definitions['labels']['kwargs'])


def test_names_in_one_folder():
    names = ['a/x.png', 'b/x.png', 'x.JPG', 'y.png', 'c/Y.jpg', 'a_x.tif', 'z.png']
    images = [SourceImage(0, Path(name), name, 1, 1) for name in names]
    found = flat_names(images)
    assert found[3:] != names[3:] and found[-2:] == ['a_x.tif', 'z.png']
    stems = [Path(name).stem.lower() for name in found]
    assert len({*stems}) == len(names)
    assert [Path(name).suffix for name in found] == [Path(name).suffix for name in names]


def test_the_command(data, tmp_path, capsys):
    """Its words reach the function, thresholds by class among them."""
    words = [
        word for name, value in data.items() for word in (f'--{name.replace("_", "-")}', str(value))
    ]
    out = tmp_path / 'my labels'
    main(['export-labels', *words, '--out', str(out), '--score-thr', 'person=0.1', 'car=0.95'])
    told = capsys.readouterr().out
    assert 'person: 2 human, 2 pseudo' in told and 'car: 2 human, 0 pseudo' in told
    assert f"Ultralytics: data='{out}/data.yaml'" in told
    with pytest.raises(SystemExit, match='exists with other content'):
        main(['export-labels', *words, '--out', str(out), '--score-thr', '0.5'])
