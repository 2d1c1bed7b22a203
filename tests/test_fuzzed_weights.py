"""Damaged weights and ONNX files: one line or what is left of them, and never code.

By hand: ``PYTHONPATH=tests/helpers python tests/test_fuzzed_weights.py 2000``.
"""

import functools
import io
import json
import struct
import sys
import tempfile
import zipfile
from pathlib import Path

import fuzzing
import numpy as np
import onnx
import safetensors.torch
import torch
from exploit import Exploit

from mmcast.deploy.onnx_files import CHECKSUM, KIND, UNSEALED, seal
from mmcast.deploy.onnx_student import OnnxStudent
from mmcast.models.weights.loading import load_weights

CASES = 100
FORMATS = ('zip', 'records', 'legacy', 'safetensors', 'header', 'onnx', 'sealed onnx')


def network():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.BatchNorm2d(8))


def checkpoint(legacy: bool, marker: Path | None = None) -> bytes:
    content = dict(state_dict=network().state_dict(), meta=dict(iter=3, seed=[1.5, 'x', None]))
    if marker is not None:
        content['extra'] = Exploit(marker)
    file = io.BytesIO()
    torch.save(content, file, _use_new_zipfile_serialization=not legacy)
    return file.getvalue()


def student(path: Path) -> None:
    """An ONNX file that says it is a student: one convolution, whose mean is the score."""
    helper, types = onnx.helper, onnx.TensorProto
    weight = np.random.default_rng(0).normal(size=(1, 3, 3, 3)).astype(np.float32)
    constants = dict(
        weight=weight,
        boxes=np.array([[0, 0, 4, 4]], np.float32),
        labels=np.array([0], np.int64),
        image_indices=np.array([0], np.int64),
        first=np.array([1], np.int64),
        score_threshold=np.array(0.5, np.float32),  # the default of that input
    )
    graph = helper.make_graph(
        [
            helper.make_node('Cast', ['images'], ['floats'], to=types.FLOAT),
            helper.make_node('Transpose', ['floats'], ['planes'], perm=[0, 3, 1, 2]),
            helper.make_node('Conv', ['planes', 'weight'], ['found'], pads=[1, 1, 1, 1]),
            helper.make_node('Squeeze', ['found', 'first'], ['logits']),
            helper.make_node('Greater', ['logits', 'score_threshold'], ['masks']),
            helper.make_node('ReduceMax', ['logits'], ['scores'], axes=[1, 2], keepdims=0),
        ],
        'student',
        [
            helper.make_tensor_value_info('images', types.UINT8, [1, 'height', 'width', 3]),
            helper.make_tensor_value_info('score_threshold', types.FLOAT, []),
        ],
        [
            helper.make_tensor_value_info('boxes', types.FLOAT, [1, 4]),
            helper.make_tensor_value_info('masks', types.BOOL, [1, 'height', 'width']),
            helper.make_tensor_value_info('scores', types.FLOAT, [1]),
            helper.make_tensor_value_info('labels', types.INT64, [1]),
            helper.make_tensor_value_info('image_indices', types.INT64, [1]),
        ],
        [onnx.numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid('', 17)], ir_version=9)
    metadata = dict(classes=['a', 'b'], score_threshold=0.5, resize=None, windows=None)
    metadata[CHECKSUM] = UNSEALED
    helper.set_model_props(
        model, dict(kind=KIND, **{key: json.dumps(value) for key, value in metadata.items()})
    )
    onnx.save(model, path)
    seal(path)


def damage_records(data: bytes, rng: np.random.Generator) -> bytes:
    """Another zip archive, intact in itself, of damaged records."""
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(file, 'w') as new:
        for record in old.infolist():
            content = old.read(record)
            if record.filename.endswith('data.pkl') or rng.random() < 0.1:
                content = fuzzing.damage_bytes(content, rng)
            if rng.random() > 0.02:
                new.writestr(record.filename, content)
    return file.getvalue()


def damage_header(data: bytes, rng: np.random.Generator) -> bytes:
    """safetensors with a header of damaged values, and the length that it says."""
    (length,) = struct.unpack('<Q', data[:8])
    header = fuzzing.damage_json_file(json.loads(data[8 : 8 + length]), rng)
    return struct.pack('<Q', len(header)) + header + data[8 + length :]


def run_case(folder: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    kind = FORMATS[seed % len(FORMATS)]
    marker = folder / 'ran'
    if kind in ('zip', 'records', 'legacy'):
        data = checkpoint(kind == 'legacy', marker if rng.random() < 0.3 else None)
        damage = damage_records if kind == 'records' else fuzzing.damage_bytes
    elif kind in ('safetensors', 'header'):
        data = safetensors.torch.save(network().state_dict())
        damage = damage_header if kind == 'header' else fuzzing.damage_bytes
    else:
        student(folder / 'student.onnx')
        data, damage = (folder / 'student.onnx').read_bytes(), fuzzing.damage_bytes
    path = folder / ('student.onnx' if 'onnx' in kind else 'weights.pth')
    path.write_bytes(damage(data, rng))
    try:
        if 'onnx' in kind:
            run_student(path, sealed_again=kind == 'sealed onnx')
        else:
            model = network()
            load_weights(model, str(path))
            if kind == 'zip':  # whatever was damaged, it was none of the weights
                for key, value in network().state_dict().items():
                    assert model.state_dict()[key].equal(value), f'{key} is not as it was saved'
    finally:
        assert not marker.exists(), 'code was run'


def run_student(path: Path, sealed_again: bool) -> None:
    if sealed_again:  # as if somebody had made it so
        data = path.read_bytes()
        before = CHECKSUM.encode() + b'\x12\x42"'
        place = data.rfind(before) + len(before)
        if place >= len(before) and len(data) > place + 64:
            path.write_bytes(data[:place] + UNSEALED.encode() + data[place + 64 :])
            seal(path)
    found = OnnxStudent(path)(np.zeros((8, 9, 3), np.uint8))
    if not sealed_again and CHECKSUM in OnnxStudent(path).metadata:
        assert found.masks.shape == (1, 8, 9)


def test_undamaged_files_are_read(tmp_path, monkeypatch):
    monkeypatch.setattr(fuzzing, 'damage_bytes', lambda data, rng: data)
    monkeypatch.setattr(
        fuzzing, 'damage_json_file', lambda content, rng: json.dumps(content).encode()
    )
    seeds = [seed for seed in range(40) if np.random.default_rng(seed).random() > 0.3]
    for number in range(len(FORMATS)):
        run_case(tmp_path, next(seed for seed in seeds if seed % len(FORMATS) == number))


def test_a_damaged_file_is_refused_in_one_line(tmp_path):
    failures = fuzzing.run_cases(functools.partial(run_case, tmp_path), range(CASES))
    assert not failures, '\n'.join(map(str, failures))


if __name__ == '__main__':
    with tempfile.TemporaryDirectory() as folder:
        seeds = range(1000, 1000 + int(sys.argv[1]))
        for failure in fuzzing.run_cases(functools.partial(run_case, Path(folder)), seeds):
            print(failure)
