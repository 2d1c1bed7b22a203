"""``mmcast predict`` killed at random moments: in the end, everything is as nobody disturbed it.

MMCAST_KILLS=30 MMCAST_IMAGES=500 makes it thorough.
"""

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import cv2
import psutil
import pytest
from bright_student import picture, write_onnx
from folder_content import files_of

KILLS = int(os.environ.get('MMCAST_KILLS', 6))
IMAGES = int(os.environ.get('MMCAST_IMAGES', 40))
SECONDS = 0.02  # of a picture
HELPERS = Path(__file__).parents[1] / 'helpers'


@pytest.fixture
def data(tmp_path) -> Path:
    (tmp_path / 'photos/deep').mkdir(parents=True)
    for number in range(IMAGES):
        folder = tmp_path / 'photos' / ('deep' if number % 3 else '')
        cv2.imwrite(str(folder / f'{number:03d}.png'), picture(number % 50))
    (tmp_path / 'photos/000.png').write_bytes(b'no image')
    write_onnx(tmp_path / 'student.onnx')
    return tmp_path


def start(data: Path, out: str, seconds: float = SECONDS) -> subprocess.Popen:
    arguments = [data / f'{out}.txt', seconds, data / 'student.onnx', data / 'photos']
    return subprocess.Popen(
        [sys.executable, HELPERS / 'bright_student.py', *map(str, arguments), '--out', data / out],
        env=dict(os.environ, PYTHONPATH=str(HELPERS.parents[1])),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob('shard*'))


def wait_and_kill(process: subprocess.Popen, out: Path, draw: random.Random, moment: str) -> None:
    """Kills soon after the start, while predictions are written, or while the JSON is."""
    shards = out / 'predictions.json.shards'
    before = size(shards)
    if moment == 'start':
        time.sleep(draw.uniform(0, 0.7))
    while moment != 'start' and process.poll() is None:
        if size(shards) > before if moment == 'writing' else (shards / 'merged.json').exists():
            time.sleep(draw.uniform(0, 0.25 if moment == 'writing' else 0.02))
            break
        time.sleep(0.0005)
    process.kill()
    process.communicate()


def test_killed_at_random_moments_ends_as_if_undisturbed(data):
    said, _ = start(data, 'whole', 0).communicate()
    assert 'whole: ' in said, said
    draw, out = random.Random(0), data / 'out'
    moments = draw.choices(['start', 'writing', 'writing'], k=KILLS * 3 // 4)
    moments += ['merging'] * (KILLS - len(moments))
    unfinished = 0
    for moment in moments:
        wait_and_kill(start(data, 'out'), out, draw, moment)
        unfinished += not (out / 'predictions.json').exists()
    print(f'{unfinished} of {len(moments)} kills before the end', moments)
    assert unfinished >= KILLS // 2
    process = start(data, 'out')
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 0 and f'{IMAGES - 1} pictures, 1 skipped' in said, said
    assert files_of(out) == files_of(data / 'whole')
    # A kill costs no more than the picture that was being predicted on.
    predicted = len((data / 'out.txt').read_text())
    print(f'{predicted} predictions on {IMAGES - 1} pictures')
    assert IMAGES - 1 <= predicted <= IMAGES - 1 + len(moments)
    assert not [
        p for p in psutil.process_iter(['cmdline']) if str(out) in (p.info['cmdline'] or ())
    ]
