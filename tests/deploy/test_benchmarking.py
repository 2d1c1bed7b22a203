"""Operations against a count by hand, parts that add up, and the table of a small benchmark."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mmengine.config import Config

from mmcast.deploy import benchmarking
from mmcast.deploy.benchmarking import Entry, Setting, benchmark, parse_entries, to_markdown
from mmcast.deploy.flops import count_flops, parameters_by_part
from mmcast.errors import CASTError
from mmcast.registry import MODELS
from mmcast.testing.data import make_samples

ROOT = Path(__file__).parents[2]
STUDENT = ROOT / 'configs/_base_/models/cast_student.py'


@pytest.fixture(scope='module')
def student():
    """The full-size student without values."""
    from mmengine.registry import DefaultScope

    with DefaultScope.overwrite_default_scope('mmcast'), torch.device('meta'):
        return MODELS.build(Config.fromfile(STUDENT).model.detector).eval()


def by_hand(tokens: int, width: int) -> int:
    """Operations of one transformer layer: query, key and value; two products of attention; output;
    two of the MLP.
    """
    multiply_adds = (
        tokens * width * 3 * width + 2 * tokens * tokens * width + tokens * width * width
    )
    return 2 * (multiply_adds + 2 * tokens * width * 4 * width)


def test_one_layer_of_the_encoder_is_what_a_hand_counts(student):
    tokens = torch.zeros(1, 2739, 384, device='meta')
    layer = student.backbone.layers[0]
    assert count_flops(layer, lambda: layer(tokens))['total'] == by_hand(2739, 384)


def test_the_encoder_is_within_two_percent_of_a_count_by_hand(student):
    """512x1024 pixels are padded to 37 x 74 patches of 14; a class token joins them."""
    images = torch.zeros(1, 3, 518, 1036, device='meta')
    hand = 12 * by_hand(1 + 37 * 74, 384) + 2 * 37 * 74 * 384 * 3 * 14 * 14
    counted = count_flops(student, lambda: student(images, None, mode='tensor'))
    assert counted['backbone'] == pytest.approx(hand, rel=0.02)


def test_parts_add_up_to_the_whole(student, monkeypatch):
    images = torch.zeros(1, 3, 266, 518, device='meta')
    # What predicting does, up to the masks, which a network without values cannot choose.
    monkeypatch.setattr(
        student, 'forward', lambda: student.panoptic_head(student.extract_feat(images), None)
    )
    counted = count_flops(student, student)
    assert set(counted) == {'total', 'backbone', 'panoptic_head.pixel_decoder', 'panoptic_head'}
    assert sum(count for part, count in counted.items() if part != 'total') == counted['total']
    parameters = parameters_by_part(student)
    assert parameters['total'] == pytest.approx(52e6, rel=0.01)
    assert (
        sum(count for part, count in parameters.items() if part != 'total') == parameters['total']
    )
    assert parameters['backbone'] == pytest.approx(22.06e6, rel=0.001)


def test_a_prediction_counts_for_the_head_what_its_decode_does(network):
    """Which torch's counter does not hear of; what resizes masks belongs to no part."""
    images, samples = make_samples([0], size=(112, 224))
    counted = count_flops(network, lambda: network(images, samples, mode='predict'))
    expected = count_flops(network, lambda: network(images, samples, mode='tensor'))
    assert counted['panoptic_head'] > 0.9 * expected['panoptic_head'] > 0
    assert counted['panoptic_head.pixel_decoder'] == expected['panoptic_head.pixel_decoder'] > 0
    assert any(value.requires_grad for value in network.parameters()) and 'decode' not in vars(
        network.panoptic_head
    )


def test_what_is_called_by_a_method_counts_too():
    """mmdet calls ``roi_head.predict``, of which torch's counter does not hear."""
    network = torch.nn.Module()
    network.head = torch.nn.Sequential(torch.nn.Linear(3, 5))
    network.forward = lambda: network.head[0](torch.zeros(2, 3)) @ torch.zeros(5, 7)
    assert count_flops(network, network) == dict(
        total=2 * 2 * 3 * 5 + 2 * 2 * 5 * 7, head=60, other=140
    )


def test_a_batch_of_two_has_twice_the_operations(student):
    def flops(batch: int) -> dict:
        images = torch.zeros(batch, 3, 140, 140, device='meta')
        return count_flops(student, lambda: student.extract_feat(images))

    one, two = flops(1), flops(2)
    assert two['total'] == 2 * one['total']


# ---- the table


def test_entries_are_files_folders_and_configs(onnx_file, exported, trained):
    entries = parse_entries(
        [f'mine={onnx_file}', str(exported), f'{trained.config},{trained.checkpoint}'],
        ['eager', 'compiled'],
    )
    assert entries[0] == Entry('mine', str(onnx_file), None, 'onnx')
    assert [entry.backend for entry in entries[1:]] == ['eager', 'compiled'] * 2
    assert entries[1] == Entry(
        'student', str(exported / 'student.py'), str(exported / 'student.pth'), 'eager'
    )
    assert entries[3].name == 'toy_student_transfer' and entries[3].checkpoint == str(
        trained.checkpoint
    )
    with pytest.raises(CASTError, match='nowhere.py of .* not found; give'):
        parse_entries(['a=nowhere.py'])


def test_entries_of_one_name_are_named_as_they_were_given(onnx_file, tmp_path):
    for folder in ('first', 'second'):
        (tmp_path / folder).mkdir()
        shutil.copy(onnx_file, tmp_path / folder / 'student.onnx')
    paths = [str(tmp_path / folder / 'student.onnx') for folder in ('first', 'second')]
    assert [entry.name for entry in parse_entries([*paths, f'mine={paths[0]}'])] == [*paths, 'mine']


def test_all_models_are_measured_and_a_broken_one_is_named(onnx_file, exported, tmp_path):
    (tmp_path / 'broken.onnx').write_bytes(b'no model')
    setting = Setting(size=(64, 96), runs=3, warmup=1, threads=1)
    rows = benchmark(
        parse_entries([f'file={onnx_file}', str(exported), str(tmp_path / 'broken.onnx')]), setting
    )
    file, student, broken = rows
    for row in (file, student):
        latency = row['latency_ms']
        assert 0 < latency['median'] <= latency['p90'] <= latency['p99']
        assert row['fps'] == pytest.approx(1000 / latency['median'], rel=0.01)
        assert row['peak_memory_mb'] > 10 and row['cpu_s'] > 0
    assert student['parameters']['total'] == 1177753 and file['parameters'] is None
    assert student['flops']['total'] > student['flops']['backbone'] > 0
    assert file['peak_memory_mb'] < student['peak_memory_mb']  # no torch in it
    assert 'broken.onnx is not an ONNX file but a text file' in broken['problem']
    text = to_markdown(rows, setting)
    assert '| file | onnx |' in text and '| student | panoptic_head.pixel_decoder |' in text
    assert '64x96, batch 1, 3 runs' in text and 'broken.onnx is not an ONNX file' in text


def test_a_process_that_dies_is_a_problem_of_its_row_alone(onnx_file, monkeypatch):
    entry = Entry('mine', str(onnx_file), None, 'onnx')
    workers = []
    start = benchmarking._Worker.__init__

    def remember(worker, *args):
        start(worker, *args)
        workers.append(worker)
        if len(workers) == 2:
            worker.process.kill()
            worker.process.join()

    monkeypatch.setattr(benchmarking._Worker, '__init__', remember)
    fine, dead = benchmark([entry, entry], Setting(size=(64, 96), runs=2, warmup=0, threads=1))
    assert fine['fps'] > 0 and dead['problem'] == 'its process died, perhaps for want of memory'


def test_the_tool_writes_json_and_markdown_and_overwrites_nothing(onnx_file, tmp_path):
    def run(*args):
        return subprocess.run(
            [sys.executable, ROOT / 'tools/benchmark.py', *map(str, args)],
            text=True,
            capture_output=True,
            env=dict(os.environ, PYTHONPATH=str(ROOT)),
        )

    options = (
        '--size',
        64,
        96,
        '--runs',
        2,
        '--json',
        tmp_path / 'a.json',
        '--md',
        tmp_path / 'a.md',
    )
    done = run(f'mine={onnx_file}', *options)
    assert done.returncode == 0, done.stderr
    assert (
        'mine' in done.stdout
        and 'FPS' in done.stdout
        and '| mine | onnx |' in (tmp_path / 'a.md').read_text()
    )
    content = json.loads((tmp_path / 'a.json').read_text())
    assert content['rows'][0]['name'] == 'mine' and content['setting']['size'] == [64, 96]
    again = run(f'mine={onnx_file}', *options)
    assert again.returncode == 1 and again.stderr.startswith(f'error: {tmp_path}/a.json exists')
