#!/usr/bin/env bash
# onnxslim 0.1.98 (Ultralytics' exporter calls it by default): a graph that multiplies a convolution's output by a
# weight of each column, or of each row, computes something else afterwards if there are as many columns as channels.
# It merges the multiplication into the convolution's weights and looks at the length of the constant alone, not at its
# axis: the weight of column 3 becomes the one of channel 3. Such products are the windows by which tiles are blended,
# and weights of positions. Below, 16 channels of 16 x 16 pixels and a window that is 0 at the borders: of a constant
# map the borders stay, and channels fade. With 24 columns the result is exact; so is an addition in place of the
# product. Conv and ConvTranspose alike. `onnxslim` ends with status 0 and reports one Mul less; only --model-check,
# off by default, notices.
# Exits with 1 when that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check onnxslim==0.1.98 onnx==1.23.2 onnxruntime==1.32.0
cd "$folder"
cat > graphs.py <<'PYTHON'
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

CHANNELS, HEIGHT = 16, 16
CASES = [(kind, operator, axis, width) for kind in ('Conv', 'ConvTranspose') for operator, axis, width in (
    ('Mul', 'columns', 16), ('Mul', 'rows', 16), ('Mul', 'columns', 24), ('Add', 'columns', 16))]


def name(case):
    return '-'.join(map(str, case)) + '.onnx'


def write(kind, operator, axis, width):
    weight = np.zeros((CHANNELS, 3, 1, 1), np.float32)
    weight[:, 0] = 1  # each channel is the image's red
    if kind == 'ConvTranspose':
        weight = weight.transpose(1, 0, 2, 3)
    window = np.hanning(width if axis == 'columns' else HEIGHT).astype(np.float32)
    window = window.reshape((1, -1) if axis == 'columns' else (-1, 1))
    graph = helper.make_graph(
        [helper.make_node(kind, ['image', 'weight'], ['maps']),
         helper.make_node(operator, ['maps', 'window'], ['out'])],
        'window', [helper.make_tensor_value_info('image', TensorProto.FLOAT, [1, 3, HEIGHT, width])],
        [helper.make_tensor_value_info('out', TensorProto.FLOAT, [1, CHANNELS, HEIGHT, width])],
        [numpy_helper.from_array(np.ascontiguousarray(weight), 'weight'), numpy_helper.from_array(window, 'window')])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid('', 17)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, name((kind, operator, axis, width)))


if __name__ == '__main__':
    for case in CASES:
        write(*case)
PYTHON
"$folder/venv/bin/python" graphs.py
for graph in *.onnx; do
    "$folder/venv/bin/onnxslim" "$graph" "slim-$graph" > log 2>&1 || { cat log; exit 1; }
done
"$folder/venv/bin/python" - <<'PYTHON'
import sys

import numpy as np
import onnxruntime
from graphs import CASES, HEIGHT, name


def run(path, width):
    session = onnxruntime.InferenceSession(path, providers=['CPUExecutionProvider'])
    (output,) = session.run(None, {'image': np.ones((1, 3, HEIGHT, width), np.float32)})
    return output[0]


errors = {}
for case in CASES:
    before, after = (run(prefix + name(case), case[-1]) for prefix in ('', 'slim-'))
    errors[case] = round(float(np.abs(before - after).max()), 2)
    print('{}, then {} of {}, {} pixels wide:'.format(*case), 'largest difference', errors[case])
    if case == ('Conv', 'Mul', 'columns', 16):
        for word, maps in (('before', before), ('after', after)):
            rows = maps[[0, 8], 5, ::3].round(2)
            print(f'  {word}: every third pixel of a row of channel 0', rows[0], 'and of channel 8', rows[1])
if {case for case in CASES if errors[case] > 0.5} != {case for case in CASES if case[1] == 'Mul' and case[3] == 16}:
    sys.exit('changed: columns and rows keep their weights, or others lose theirs')
PYTHON
