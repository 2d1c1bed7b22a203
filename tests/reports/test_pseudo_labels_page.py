"""The inspection page and its JSON, through the command line."""

import json
import runpy
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from mmengine.config import Config, ConfigDict
from mmengine.registry import DefaultScope
from stored_labels import CAR, PERSON, label, rectangle, write_hidden, write_images, write_labels

from mmcast.registry import DATASETS
from mmcast.reports.run import write_inspection

TOOL = Path(__file__).parents[2] / 'tools' / 'inspect_pseudo_labels.py'
BOX = rectangle(2, 2, 10, 10)
HIDDEN = {1: [label(CAR, BOX)], 2: [label(PERSON, BOX)], 3: []}
BEFORE = {1: [label(CAR, BOX, 0.6)], 2: [label(CAR, BOX, 0.7)], 3: [label(PERSON, BOX, 0.2)]}
AFTER = {
    1: [label(CAR, BOX, 0.9, class_score=0.9, mask_quality=1.0)],
    2: [label(PERSON, rectangle(2, 2, 10, 8), 0.8, class_score=1.0, mask_quality=0.8)],
    3: [],
}


def inspect(monkeypatch, tmp_path, *options):
    page = str(tmp_path / 'page.html')
    monkeypatch.setattr(sys, 'argv', ['inspect_pseudo_labels.py', '--out', page, *options])
    runpy.run_path(str(TOOL), run_name='__main__')
    return (tmp_path / 'page.html').read_text()


@pytest.fixture
def files(tmp_path):
    write_labels(tmp_path / 'before.json', BEFORE, unreadable=['broken.png'])
    write_labels(tmp_path / 'after.json', AFTER)
    write_hidden(tmp_path / 'hidden.json', HIDDEN)
    write_images(tmp_path / 'images', HIDDEN)
    return tmp_path


def test_two_generations_side_by_side(files, monkeypatch, capsys):
    page = inspect(
        monkeypatch,
        files,
        str(files / 'before.json'),
        str(files / 'after.json'),
        '--titles',
        'before',
        'after',
        '--json',
        str(files / 'page.json'),
        '--hidden',
        str(files / 'hidden.json'),
        '--labeled',
        str(files / 'hidden.json'),
        '--img-dir',
        str(files / 'images'),
        '--images',
        '2',
    )
    report = json.loads((files / 'page.json').read_text())
    before, after = report['stores']['before'], report['stores']['after']
    assert [
        before[key] for key in ('images', 'unreadable', 'empty', 'stored', 'used', 'dropped')
    ] == [3, 1, 1, 3, 2, dict(score=1)]
    assert before['classes']['car'] == dict(
        stored=2,
        used=2,
        used_per_image=pytest.approx(2 / 3),
        area=[100, 100, 100],
        hidden_per_image=pytest.approx(1 / 3),
    )
    assert report['labeled'] == dict(
        images=3,
        classes=dict(
            car=dict(per_image=pytest.approx(1 / 3), area=[100, 100, 100]),
            person=dict(per_image=pytest.approx(1 / 3), area=[100, 100, 100]),
        ),
    )
    assert (before['quality']['precision'], after['quality']['precision']) == (0.5, 1)
    assert before['quality']['ap50'] == pytest.approx(
        0.25
    )  # the car comes second, after a wrong one
    assert after['quality']['ap50'] == pytest.approx(1)
    assert (
        sum(after['histograms']['mask_quality']) == 2 and 'mask_quality' not in before['histograms']
    )
    assert [image['file_name'] for image in report['images']['worst']] == ['2.png', '1.png']
    assert report['images']['worst'][0]['stores']['after'] == dict(
        used=1, quality=pytest.approx(0.8)
    )

    assert page.count('data:image/jpeg') == 2 * 2 * 3  # worst and best; hidden, before, after
    assert page.count('data:image/svg+xml') == 2  # histograms and calibration
    assert page.count('src="') == page.count('src="data:') and str(files) not in page
    assert 'http://' not in page and 'https://' not in page
    assert 'after: 2 of 2 labels used, on 3 images, ap ' in capsys.readouterr().out


def test_one_file_and_nothing_else(files, monkeypatch):
    page = inspect(monkeypatch, files, str(files / 'after.json'), '--mask-quality-thr', '0.9')
    assert 'mask_quality above 0.9' in page and 'left out by' in page and 'mask_quality 1' in page
    assert 'Calibration' not in page and 'AP50' not in page
    assert page.index('3.png') < page.index('1.png')  # without labels counts as worst


@pytest.mark.parametrize(
    'options, message',
    [
        (['after.json', '--out', 'after.json'], 'after.json is an input: name another file'),
        (['after.json', 'before.json', '--titles', 'x'], '2 files need as many different titles'),
        (['none.json'], 'none.json: cannot read'),
        (['hidden.json'], 'hidden.json is not a pseudo-label file'),
        (['after.json', 'other.json'], 'after.json and other.json are not of the same images'),
        (['after.json', '--img-dir', '.'], '.png not found; give the folder of the images'),
    ],
)
def test_mistakes_are_one_line(files, monkeypatch, options, message):
    monkeypatch.chdir(files)
    write_labels(files / 'other.json', {7: []})
    with pytest.raises(SystemExit, match='^error: .*' + message):
        inspect(monkeypatch, files, *options)


def test_existing_page_is_kept(files, monkeypatch):
    (files / 'page.html').write_text('mine')
    with pytest.raises(
        SystemExit, match='page.html exists: delete it, name another file or use --force'
    ):
        inspect(monkeypatch, files, str(files / 'after.json'))
    assert (files / 'page.html').read_text() == 'mine'
    assert 'after.json' in inspect(monkeypatch, files, str(files / 'after.json'), '--force')


def test_pipeline_inspects_its_generations_once(files, tmp_path):
    """Steps that label other images stay off the page, which is made again when a store changes."""
    step = dict(kind='pseudo_label', ann_file='list.json', img_dir=str(files / 'images'))
    steps = dict(
        data=dict(kind='call'),
        other=dict(step, ann_file='x.json'),
        fewer=dict(step, limit=1),
        before=step,
        after=step,
    )
    plan = SimpleNamespace(
        definitions=steps,
        work_dir=tmp_path,
        config=ConfigDict(
            report=dict(pseudo_labels=dict(hidden=str(files / 'hidden.json'), score_thr=0.5))
        ),
    )
    pipeline = SimpleNamespace(
        plan=plan,
        resolve=lambda value, user: value,
        definition=steps.get,
        state=SimpleNamespace(outputs=lambda name: dict(annotations=str(files / f'{name}.json'))),
    )
    report = write_inspection(pipeline)
    assert list(report['stores']) == ['before', 'after']
    assert report['settings']['thresholds'] == dict(score=0.5)
    page = tmp_path / 'pseudo_labels.html'
    made = page.stat().st_mtime_ns
    assert write_inspection(pipeline) == report and page.stat().st_mtime_ns == made
    write_labels(files / 'after.json', BEFORE)
    assert (
        write_inspection(pipeline)['stores']['after']['stored'] == 3
        and page.stat().st_mtime_ns > made
    )
    plan.config.report.pseudo_labels = None
    assert write_inspection(pipeline) is None
    plan.config.report.pseudo_labels = dict()
    plan.definitions = dict(data=steps['data'])
    assert write_inspection(pipeline) is None


def test_a_pipelines_page_counts_what_its_last_training_step_uses(files, tmp_path):
    path = str(files / 'before.json')
    dataset = dict(
        type='PseudoLabelDataset',
        ann_file=path,
        metainfo=dict(classes=('person', 'car')),
        data_prefix=dict(img=str(files / 'images')),
        score_thr=0.1,
        min_area=5,
        thresholds_from=dict(labeled=str(files / 'hidden.json')),
    )
    steps = dict(
        before=dict(kind='pseudo_label', ann_file='list.json', img_dir=str(files / 'images')),
        train=dict(kind='train', pseudo_labels=path),
        other=dict(kind='train', pseudo_labels='other.json'),
    )
    config = Config(dict(train_dataloader=dict(dataset=dataset)))
    run = SimpleNamespace(
        plan=SimpleNamespace(
            definitions=steps,
            work_dir=tmp_path,
            config=ConfigDict(report=dict(pseudo_labels=dict(min_area=6))),
            step=lambda name, folder, state: SimpleNamespace(config=config),
        ),
        resolve=lambda value, user: value,
        definition=steps.get,
        state=SimpleNamespace(
            outputs=lambda name: dict(annotations=path), folder=lambda name: tmp_path / name
        ),
    )
    report = write_inspection(run)
    with DefaultScope.overwrite_default_scope('mmcast'):
        used = sum(len(image['instances']) for image in DATASETS.build(dataset))
    assert report['stores']['before']['used'] == used == 2  # of 3: people drew one car
    assert report['settings']['min_area'] == 6, 'what the pipeline says itself wins'
    assert '0.60 (car)' in (tmp_path / 'pseudo_labels.html').read_text()
