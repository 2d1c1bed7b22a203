"""``mmcast review export`` and ``merge`` as a person calls them."""

import argparse
import base64
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from review_scene import write_scene

from mmcast.cli.review import export, merge
from mmcast.cli.review.merge import next_command
from mmcast.coco.custom import prepare_custom_data
from mmcast.errors import CASTError

ROOT = Path(__file__).parents[2]


def mmcast(folder, *arguments):
    return subprocess.run(
        [sys.executable, '-m', 'mmcast', *arguments],
        cwd=folder,
        env=dict(os.environ, PYTHONPATH=str(ROOT)),
        text=True,
        capture_output=True,
    )


def pictures(page):
    found = re.findall(r'data:image/jpeg;base64,([^"]+)"', page.read_text())
    data = [np.frombuffer(base64.b64decode(each), np.uint8) for each in found]
    return [cv2.imdecode(each, cv2.IMREAD_COLOR) for each in data]


def test_the_next_command_reads_a_list_of_unlabeled_images(tmp_path):
    """Its names are relative to the folder of the images, which mmcast train calls data_root."""
    write_scene(tmp_path)
    photos = tmp_path / 'photos'
    content = json.loads((tmp_path / 'pseudo.json').read_text())
    (tmp_path / 'rest.json').write_text(json.dumps(dict(content, info={}, annotations=[])))
    command = next_command(tmp_path / 'labeled.json', photos, photos, str(tmp_path / 'rest.json'))
    words = command.partition('--cfg-options ')[2].split()
    options = dict(word.removeprefix('variables.').split('=', 1) for word in words)
    labeled = dict(val=tmp_path / 'labeled.json', val_images=photos)
    found = prepare_custom_data(out_dir=tmp_path / 'data', **options, **labeled)
    assert len(json.loads(Path(found['unlabeled']).read_text())['images']) == 3


def test_a_task_is_exported_corrected_and_merged(tmp_path):
    write_scene(tmp_path)
    export = ['review', 'export', 'pseudo.json', '--img-dir', 'photos', '--tool', 'coco']
    export += ['--number', '3', '--random-share', '0.4', '--out', 'task']
    done = mmcast(tmp_path, *export)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == 'task: 3 images, 1 of them random, with 5 proposals'
    assert len(pictures(tmp_path / 'task/review.html')) == 3

    corrected = json.loads((tmp_path / 'task/annotations.json').read_text())
    removed = corrected['annotations'].pop(0)
    (tmp_path / 'corrected.json').write_text(json.dumps(corrected))
    merge = ['review', 'merge', 'task', 'corrected.json', '--labeled', 'labeled.json']
    merge += ['--out', 'merged.json', '--labeled-images', 'photos']
    done = mmcast(tmp_path, *merge)
    assert done.returncode == 1 and done.stderr.count('\n') == 1
    assert 'give --reviewed all' in done.stderr and not (tmp_path / 'merged.json').exists()
    done = mmcast(tmp_path, *merge, '--reviewed', 'all')
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == '3 images were handed out, 3 are merged: 1 unchanged, 1 corrected, 1 empty'
    assert lines[1] == (
        '5 proposals became 4 objects: 4 unchanged (4 pixel by pixel), 0 changed (0 in class), '
        '0 added, 1 removed'
    )
    assert lines[-1].startswith('next: mmcast train cast_custom.py') and 'photos' in lines[-1]
    assert removed['score'] == 0.9 and 'cell removed, score 0.90' in (
        (tmp_path / 'merged.html').read_text()
    )
    assert len(pictures(tmp_path / 'merged.html')) == 4  # two images, before and after


def call(command, *words):
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    command.run(parser.parse_args([*words]))


def test_only_pages_of_an_earlier_call_are_replaced(tmp_path, monkeypatch):
    write_scene(tmp_path)
    monkeypatch.chdir(tmp_path)
    mine = tmp_path / 'notes.html'
    mine.write_text('<title>my notes</title>')
    exporting = ['pseudo.json', '--img-dir', 'photos', '--tool', 'coco', '--out', 'task']
    merging = ['task', 'task/annotations.json', '--labeled', 'labeled.json', '--out', 'merged.json']
    merging += ['--labeled-images', 'photos', '--reviewed', 'all']
    for command, words in ((export, exporting), (merge, merging)):
        for _ in range(2):  # the second time both the result and the page are there
            call(command, *words, '--page', 'page.html')
            with pytest.raises(CASTError, match='notes.html exists: delete it'):
                call(command, *words, '--page', 'notes.html')
        call(command, *words)
        call(command, *words)
        assert mine.read_text() == '<title>my notes</title>'
        (tmp_path / 'page.html').unlink()
    (tmp_path / 'merged.html').write_text('')
    with pytest.raises(CASTError, match='merged.html exists'):
        call(merge, *merging)
    call(merge, *merging, '--force')
    assert pictures(tmp_path / 'merged.html')
