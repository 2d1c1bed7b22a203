"""Static quantisation: what is in 8 bits and what is not, what is picked, and what is refused."""

import json
import shutil
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from mmcast.cli.main import main
from mmcast.deploy import agreement, precision_search
from mmcast.deploy.agreement import Tolerance
from mmcast.deploy.onnx_student import OnnxStudent
from mmcast.deploy.precision_search import table_file
from mmcast.deploy.quantization import PARTS, CalibrationImages, nodes_to_quantize, part_of
from mmcast.errors import CASTError


@pytest.fixture
def arguments(graph_at_hand, trained, toy_data, tmp_path) -> list[str]:
    """Of ``mmcast onnx``, which writes ``student.onnx`` with three calibration images."""
    return [
        'onnx',
        *map(str, (trained.config, trained.checkpoint)),
        *('--out', str(tmp_path / 'student.onnx'), '--precision', 'int8'),
        *('--calibration', toy_data['val_images'], '--calibration-images', '3'),
    ]


def call(monkeypatch, capsys, arguments) -> tuple[str, str]:
    """What a command prints, and the error it ends with."""
    monkeypatch.setattr(sys, 'argv', ['mmcast', *arguments])
    try:
        main()
    except SystemExit as stop:
        return capsys.readouterr().out, str(stop.code or '')
    return capsys.readouterr().out, ''


def operators(path: Path, tmp_path: Path) -> Counter:
    """What onnxruntime makes of a file."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / 'optimised.onnx')
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.log_severity_level = 3
    onnxruntime.InferenceSession(path, options, providers=['CPUExecutionProvider'])
    return Counter(node.op_type for node in onnx.load(tmp_path / 'optimised.onnx').graph.node)


def test_static_int8_is_calibrated_and_agrees_with_torch(
    arguments, onnx_file, tmp_path, monkeypatch, capsys
):
    printed, error = call(monkeypatch, capsys, arguments)
    assert not error and 'int8, agrees with torch: ' in printed
    path = tmp_path / 'student.onnx'
    student = OnnxStudent(path)  # the checksum is right
    assert student.metadata['precision'] == 'int8' and student.metadata['kept_fp32'] == []
    assert student.metadata['quantisation'] == 'static'
    assert path.stat().st_size < 0.55 * onnx_file.stat().st_size
    plain, found = operators(onnx_file, tmp_path), operators(path, tmp_path)
    convolutions = plain['Conv'] + plain['FusedConv']
    assert found['QLinearConv'] == convolutions > 20 and not found['Conv'] + found['FusedConv']
    # products of activations: attention, masks; they have no weights
    assert found['MatMul'] + found['FusedMatMul'] > 10 < found['MatMulIntegerToFloat']


def test_each_part_can_stay_in_fp32(graph):
    everything = {*nodes_to_quantize(graph)}
    seen: set[str] = set()
    for part in PARTS:
        left_out = everything - {*nodes_to_quantize(graph, (part,))}
        assert left_out and not left_out & seen
        seen |= left_out
    assert seen == everything and not nodes_to_quantize(graph, PARTS)
    weights = {each.name for each in graph.graph.initializer}
    last = [node for node in graph.graph.node if part_of(node) == 'last layers']
    assert {'Conv', 'MatMul'} <= {node.op_type for node in last if node.input[1:2]}
    for node in graph.graph.node:
        if node.name in everything and node.op_type in ('Conv', 'MatMul'):
            assert node.input[1] in weights


def test_what_is_kept_stays_in_fp32_in_onnxruntime(
    trained, toy_data, graph_at_hand, tmp_path, onnx_file
):
    from mmcast.deploy.onnx_export import Draft

    draft = Draft(trained, tmp_path / 'student.onnx')
    calibration = CalibrationImages(toy_data['val_images'], 1)
    draft.write(draft.out_file, 'int8', calibration, ('pixel decoder', 'last layers'))
    found, plain = operators(draft.out_file, tmp_path), operators(onnx_file, tmp_path)
    # the patch embedding alone is a convolution of the encoder
    assert found['QLinearConv'] <= 1 and found['MatMulIntegerToFloat'] > 10
    assert found['Conv'] + found['FusedConv'] >= plain['Conv'] + plain['FusedConv'] - 1
    assert OnnxStudent(draft.out_file).metadata['kept_fp32'] == ['pixel decoder', 'last layers']


@pytest.fixture
def few_mixes(monkeypatch):
    """Two files to try, measured once, of which the static one counts as the faster."""
    monkeypatch.setattr(precision_search, 'MIXES', ((),))
    monkeypatch.setattr(precision_search, '_IMAGES', 1)
    monkeypatch.setattr(precision_search, '_RUNS', 1)
    measure = precision_search._Search._time

    def then_as_if(search, fp32, tried):
        measure(search, fp32, tried)
        assert tried.speed > 0 and tried.seconds > 0
        tried.speed = 1.5 if tried.name == 'int8, static' else 1.2

    monkeypatch.setattr(precision_search._Search, '_time', then_as_if)


def test_the_fastest_within_the_loss_is_written(
    arguments, few_mixes, tmp_path, monkeypatch, capsys
):
    printed, error = call(monkeypatch, capsys, [*arguments, '--max-ap-drop', '100'])
    assert not error
    table = table_file(tmp_path / 'student.onnx').read_text()
    assert table in printed
    rows = [line.strip('| ').split(' | ') for line in table.splitlines() if line.startswith('|')]
    assert [(row[0], row[3]) for row in rows[2:]] == [
        ('int8, static, **written**', '1.50'),
        ('int8, dynamic', '1.20'),
        ('fp32', '1.00'),
    ]
    assert rows[3][4] == 'not needed'
    facts = OnnxStudent(tmp_path / 'student.onnx').metadata
    assert (facts['precision'], facts['quantisation']) == ('int8', 'static')
    assert facts['mask_ap_fp32'] > facts['mask_ap'] - 5 > 0
    assert float(rows[2][4]) == pytest.approx(facts['mask_ap'], abs=0.01)


def test_no_file_is_written_where_none_is_good_enough(
    arguments, few_mixes, tmp_path, monkeypatch, capsys
):
    """With an evaluator that likes fp32 alone."""
    values = iter((0.5, 0.25, 0.3))
    monkeypatch.setattr(precision_search, 'mask_ap', lambda cfg, predict: next(values))
    printed, error = call(monkeypatch, capsys, [*arguments, '--max-ap-drop', '0.5'])
    assert error.startswith('error: no 8-bit file is within 0.5 mask AP of fp32 (the best that is')
    assert 'int8, dynamic, is 20.00 below; all in ' in error and '\n' not in error
    assert [path.name for path in tmp_path.iterdir()] == ['student.tried.md']
    assert 'nothing was written' in printed


def test_a_loss_that_is_just_allowed_is_allowed():
    assert precision_search.is_within(25.7, 26.2, 0.5)
    assert not precision_search.is_within(25.6, 26.2, 0.5)


def test_what_cannot_be_measured_is_refused(arguments, trained, tmp_path, monkeypatch, capsys):
    _, error = call(monkeypatch, capsys, [*arguments, '--max-ap-drop', '-1'])
    assert error.startswith('error: a loss of -1.0 mask AP: give a number from 0 on')
    monkeypatch.setattr(precision_search, 'mask_ap', lambda cfg, predict: 0.0)
    _, error = call(monkeypatch, capsys, [*arguments, '--max-ap-drop', '1'])
    assert error.startswith('error: the student has a mask AP of 0.0 on the test set')
    assert not list(tmp_path.iterdir())


def test_the_table_of_an_earlier_run_is_not_printed(arguments, tmp_path, monkeypatch, capsys):
    """By a search that fails before it has one of its own."""
    table = table_file(tmp_path / 'student.onnx')
    table.write_text('the fastest of those is written')
    monkeypatch.setattr(precision_search, 'mask_ap', lambda cfg, predict: 0.0)
    printed, error = call(monkeypatch, capsys, [*arguments, '--max-ap-drop', '1'])
    assert error and 'fastest' not in printed
    assert table.read_text() == 'the fastest of those is written'


def test_a_static_file_that_differs_is_not_told_to_be_calibrated(
    arguments, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(agreement, 'TOLERANCES', dict(int8=Tolerance(1.1, 0, 1, 1)))
    _, error = call(monkeypatch, capsys, arguments)
    assert 'does not agree with torch' in error and 'try --calibration' not in error
    assert 'try other or more calibration images and let the AP decide with --max-ap' in error
    at = arguments.index('--calibration')
    _, error = call(monkeypatch, capsys, arguments[:at])
    assert 'try --calibration and let the AP decide with --max-ap-drop' in error
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    'change, message',
    [
        (['--precision', 'fp16'], '--calibration is for --precision int8'),
        (['--calibration-images', '0'], '0 calibration images: give at least 1'),
        (['--calibration', 'nowhere'], 'nowhere has no images to calibrate int8 with'),
    ],
)
def test_calibration_that_would_do_nothing_is_refused(
    arguments, change, message, monkeypatch, capsys
):
    monkeypatch.setattr(sys, 'argv', ['mmcast', *arguments, *change])
    with pytest.raises(SystemExit) as stop:
        main()
    assert message in f'{stop.value.code}{capsys.readouterr().err}'


def test_a_loss_without_calibration_is_refused(arguments, monkeypatch, capsys):
    without = arguments[: arguments.index('--calibration')]
    monkeypatch.setattr(sys, 'argv', ['mmcast', *without, '--max-ap-drop', '1'])
    with pytest.raises(SystemExit):
        main()
    assert '--max-ap-drop needs --precision int8 and --calibration' in capsys.readouterr().err


def test_calibration_images_are_spread_over_a_folder_or_file(toy_data, tmp_path):
    folder = Path(toy_data['val_images'])
    every = CalibrationImages(folder, 100).paths
    assert len(every) == 6 and CalibrationImages(folder, 2).paths == [every[0], every[-1]]
    names = [dict(id=1, file_name=every[3].name), dict(id=2, file_name=every[1].name)]
    (tmp_path / 'annotations').mkdir()
    (tmp_path / 'images').mkdir()
    for path in (every[1], every[3]):
        shutil.copy(path, tmp_path / 'images')
    listed = tmp_path / 'annotations' / 'unlabeled.json'
    listed.write_text(json.dumps(dict(images=names)))
    found = CalibrationImages(listed).paths
    assert [path.name for path in found] == [each['file_name'] for each in names]
    shutil.rmtree(tmp_path / 'images')
    with pytest.raises(CASTError, match='images of .*unlabeled.json are not to be found'):
        CalibrationImages(listed)


def test_an_image_in_windows_is_calibrated_window_by_window(onnx_file, photos, toy_data):
    student = OnnxStudent(onnx_file)
    (whole,) = student.batches(photos[0])
    assert np.array_equal(whole[0], photos[0])
    student.metadata['windows'] = dict(size=80, overlap=40, batch_size=3)
    parts = list(student.batches(photos[0]))
    assert {part.shape[1:] for part in parts} == {(80, 80, 3)} and max(map(len, parts)) <= 3
    calibration = CalibrationImages(toy_data['val_images'], 1)
    assert sum(1 for _ in calibration.feeds(student)) == len(parts)
