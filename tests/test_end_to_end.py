"""The shipped pipelines, whole, with a few iterations a step, and what a power cut does to them."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from pipelines import records, start

STEPS = [
    'data',
    'zero_shot',
    'adapt_labeled',
    'pseudo_label_1',
    'adapt_self_training',
    'pseudo_label_2',
    'transfer',
    'refine',
]


def kill_in_step(process: subprocess.Popen, work_dir: Path, name: str) -> None:
    """SIGKILL as soon as the step has begun."""
    while process.poll() is None:
        if records(work_dir).get(name, {}).get('status') not in (None, 'finished'):
            os.kill(process.pid, signal.SIGKILL)
        time.sleep(0.05)
    process.communicate()
    assert process.returncode == -signal.SIGKILL


@pytest.mark.parametrize(
    'killed, processes', [((), 2), (STEPS, 1)], ids=['two processes', 'killed in every step']
)
def test_toy_pipeline_ends_in_the_table_and_the_report(tmp_path, killed, processes):
    """All eight steps finish in order, the table has a figure in every row, the report shows
    pictures.
    """
    options = [
        f'variables.data_root={tmp_path}/data',
        'variables.percent=25',
        'steps.data.kwargs.num_train=40',
        'steps.data.kwargs.num_val=4',
        'report.images=2',
    ]
    for name in killed:
        kill_in_step(start('cast_toy.py', tmp_path / 'run', *options), tmp_path / 'run', name)
    process = start('cast_toy.py', tmp_path / 'run', *options, processes=processes)
    output = process.communicate()[0]
    assert process.returncode == 0, output[-3000:]

    assert [
        name for name, record in records(tmp_path / 'run').items() if record['status'] == 'finished'
    ] == STEPS
    rows = json.loads((tmp_path / 'run/summary.json').read_text())
    assert [row['step'] for row in rows] == [
        'zero_shot',
        'adapt_labeled',
        'adapt_self_training',
        'transfer',
        'refine',
    ]
    assert all(0 <= row['mask_ap'] <= 100 for row in rows)
    assert rows[0]['mask_ap'] > 0, 'the shipped foundation teacher finds nothing'
    assert rows[0]['parameters'] > rows[-1]['parameters'], 'the student is to be the smaller one'
    page = (tmp_path / 'run/report.html').read_text()
    assert page.count('data:image') >= 2 and 'http://' not in page.replace('http://www.w3.org', '')
    assert 'student, refined' in output and 'report.html' in output
    inspection = json.loads((tmp_path / 'run/pseudo_labels.json').read_text())
    inspected, settings = inspection['stores'], inspection['settings']
    assert (settings['thresholds'], settings['min_visible']) == (dict(score=0.3), 0.5)  # transfer's
    assert list(inspected) == ['pseudo_label_1', 'pseudo_label_2']
    assert all(
        store['images'] == 30 and store['quality']['ap'] is not None for store in inspected.values()
    )
    assert 'href="pseudo_labels.html"' in page and (tmp_path / 'run/pseudo_labels.html').exists()
    assert 'Apache-2.0, made by mmcast' in (tmp_path / 'run/student/model_card.md').read_text()
