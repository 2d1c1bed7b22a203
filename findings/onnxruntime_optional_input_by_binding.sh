#!/usr/bin/env bash
# onnxruntime 1.32.0: an input with a default value (in ONNX, a name that is both a graph input and an initializer) can
# be given to `run` by name, and `get_overridable_initializers` lists it. `io_binding`, the way to feed a session
# without copies, does not know it: `bind_cpu_input` raises that there is no such NodeArg. Nor does `get_inputs` list
# it. `run_with_ort_values` takes it, so that this is the way to outputs without a copy for such a graph.
# The script adds such an optional number to an image in all three ways, and exits with 1 when one of them changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check onnxruntime==1.32.0 onnx==1.22.0 numpy
"$folder/venv/bin/python" - <<'PYTHON'
import sys

import numpy as np
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

image, offset, result = (
    helper.make_tensor_value_info(name, TensorProto.FLOAT, [2]) for name in ('image', 'offset', 'result')
)
default = numpy_helper.from_array(np.float32([1, 1]), 'offset')
node = helper.make_node('Add', ['image', 'offset'], ['result'])
graph = helper.make_graph([node], 'sum', [image, offset], [result], [default])
model = helper.make_model(graph, opset_imports=[helper.make_opsetid('', 17)], ir_version=9)
options = ort.SessionOptions()
options.log_severity_level = 3
session = ort.InferenceSession(model.SerializeToString(), options, providers=['CPUExecutionProvider'])
feed = dict(image=np.float32([10, 20]), offset=np.float32([5, 5]))

listed = [item.name for item in session.get_inputs()]
optional = [item.name for item in session.get_overridable_initializers()]
print(f'inputs {listed}, optional ones {optional}')
by_run = session.run(None, feed)[0].tolist()
print(f'run with the default: {session.run(None, dict(image=feed["image"]))[0].tolist()}, with another: {by_run}')
values = {name: ort.OrtValue.ortvalue_from_numpy(value) for name, value in feed.items()}
by_values = session.run_with_ort_values(None, values)[0].numpy().tolist()
print(f'run_with_ort_values: {by_values}')
binding = session.io_binding()
binding.bind_cpu_input('image', feed['image'])
try:
    binding.bind_cpu_input('offset', feed['offset'])
    refused = ''
except RuntimeError as error:
    refused = str(error)
print(f'io_binding: {refused or "takes it"}')
same = by_run == by_values == [15, 25] and listed == ['image'] and optional == ['offset']
sys.exit(0 if same and 'offset' in refused else 1)
PYTHON
