"""What a pipeline leaves beside its report: the exported student with a card that names where it is
from.
"""

import json
from pathlib import Path

import pytest
import torch

from mmcast.cli.train import train
from mmcast.errors import CASTError
from mmcast.files import sha256_of_file
from mmcast.reports import model_card
from mmcast.reports.model_card import plain

ROOT = Path(__file__).parents[2]
PIPELINE = """
seed = 7
steps = [
    dict(name='data', kind='call', function='mmcast.toy.cityscapes.prepare_toy_cityscapes',
         kwargs=dict(root='{root}', num_train=4, num_val=3, percent=50)),
    dict(name='label', kind='pseudo_label', config='{configs}/toy/toy_teacher_adapt_labeled.py',
         checkpoint='{configs}/toy/weights/toy_teacher.pth', ann_file='{{data.unlabeled}}',
         img_dir='{{data.train_images}}'),
    dict(name='refine', kind='train', config='{configs}/toy/toy_student_refine.py',
         load_from='{configs}/toy/weights/toy_student.pth', cfg_options={{
             'train_dataloader.dataset.data_root': '',
             'train_dataloader.dataset.ann_file': '{{data.labeled}}',
             'train_dataloader.dataset.data_prefix.img': '{{data.train_images}}'}}),
]
step_options = {{
    'train_cfg.max_iters': 1, 'train_cfg.val_interval': 1, 'train_dataloader.batch_size': 1,
    'train_dataloader.num_workers': 0, 'train_dataloader.persistent_workers': False,
    'val_dataloader.num_workers': 0, 'val_dataloader.persistent_workers': False,
    'test_dataloader.num_workers': 0, 'test_dataloader.persistent_workers': False,
    'val_dataloader.dataset.data_root': '{root}', 'test_dataloader.dataset.data_root': '{root}',
    'val_evaluator.ann_file': '{root}/annotations/instances_val.json',
    'test_evaluator.ann_file': '{root}/annotations/instances_val.json'}}
summary = [dict(row='student, refined', step='refine')]
model_card = dict(data='Toy scenes, drawn by mmcast.', licences={{'toy_student.pth': 'Apache-2.0'}})
"""


LABELED = "Tom's data/annotations/labeled_50percent_seed0.json"


@pytest.fixture
def config(tmp_path, monkeypatch) -> Path:
    monkeypatch.setattr(
        'mmengine.runner.runner.collect_env', dict
    )  # it asks compilers, for a second
    path = tmp_path / 'cast_card.py'
    root = str(tmp_path / "Tom's data").replace("'", r'\'')
    path.write_text(PIPELINE.format(root=root, configs=ROOT / 'configs'))
    return path


def test_a_pipeline_leaves_its_student_and_a_card(config, tmp_path, capsys, monkeypatch):
    work_dir = tmp_path / 'run'
    train(config, work_dir)
    folder = work_dir / 'student'
    assert f'student and model card: {folder}' in capsys.readouterr().out
    card = (folder / 'model_card.md').read_text()
    checkpoint = work_dir / '03_refine/iter_1.pth'
    meta = torch.load(folder / 'student.pth', weights_only=True)['meta']['mmcast']
    assert meta['checkpoint_sha256'] == sha256_of_file(checkpoint) and meta['step'] == 'refine'
    (row,) = json.loads((work_dir / 'summary.json').read_text())
    labels = json.loads((tmp_path / LABELED).read_text())
    (point,) = json.loads((work_dir / 'label_efficiency.json').read_text())['points']
    assert point['step'] == 'refine' and point['mask_ap'] == row['mask_ap']
    assert (point['images'], point['objects']) == (2, len(labels['annotations']))
    assert 'AP over the number of labels' in (work_dir / 'report.html').read_text()
    records = json.loads((work_dir / 'pipeline.json').read_text())['steps']
    for part in (
        'Instance segmentation of 8 classes: person, rider',
        'step `refine`, seed 7',
        '1.18 M parameters',
        f'| student, refined | refine | {row["mask_ap"]:.1f} | {row["mask_ap50"]:.1f} |',
        'ms per image of 112x224',
        'Toy scenes, drawn by mmcast.',
        'labeled_50percent_seed0.json` | 2 |',
        f'`{records["refine"]["fingerprint"][:16]}`',
        '| label | CASTMask2Former | ',
        sha256_of_file(folder / 'student.pth'),
        'GFLOPs',
    ):
        assert part in card, part
    weights = {
        line.split('|')[1].strip(): line
        for line in card.splitlines()
        if 'toy_' in line and '.pth' in line and line.startswith('|')
    }
    (student,) = (line for name, line in weights.items() if 'toy_student' in name)
    (teacher,) = (line for name, line in weights.items() if 'toy_teacher' in name)
    assert 'Apache-2.0' in student and 'not stated' in teacher

    before = (folder / 'model_card.md').stat().st_mtime_ns
    train(config, work_dir)  # nothing changed
    assert (folder / 'model_card.md').stat().st_mtime_ns == before
    assert not (work_dir / 'student.old1').exists()

    # What the config says is new, the student is not.
    weights = (folder / 'student.pth').stat().st_mtime_ns
    config.write_text(
        config.read_text()
        .replace('drawn by mmcast.', 'drawn by hand.')
        .replace("'Apache-2.0'", "'MIT', 'toy_teacher.pth': 'MIT'")
    )
    train(config, work_dir)
    old, card = card, (folder / 'model_card.md').read_text()
    assert 'Toy scenes, drawn by hand.' in card and 'Apache-2.0' not in card
    assert card.count('| MIT |') == 2 and 'not stated' not in card
    assert (folder / 'model_card.md.old1').read_text() == old
    assert (folder / 'student.pth').stat().st_mtime_ns == weights
    train(config, work_dir)
    assert not (folder / 'model_card.md.old2').exists()
    assert not (work_dir / 'student.old1').exists()

    config.write_text(
        config.read_text().replace(
            "'train_dataloader.dataset.data_root': ''",
            "'optim_wrapper.optimizer.lr': 1e-3, 'train_dataloader.dataset.data_root': ''",
        )
    )
    train(config, work_dir, rerun=['refine'])
    assert (work_dir / 'student.old1/model_card.md').read_text() == card
    assert sha256_of_file(folder / 'student.pth') != sha256_of_file(
        work_dir / 'student.old1/student.pth'
    )

    # The results of hours are not an error because of the folder beside them.
    def refuse(*args):
        raise CASTError('no room for it')

    monkeypatch.setattr(model_card, 'export_student', refuse)
    (folder / 'student.pth').unlink()
    train(config, work_dir)
    assert 'warning: no student was exported: no room for it' in capsys.readouterr().out


def test_names_in_the_card_show_as_they_are():
    assert plain('traffic light_2') == 'traffic light_2'
    assert plain('_a_|<b>*c*') == r'\_a\_\|\<b\>\*c\*'
