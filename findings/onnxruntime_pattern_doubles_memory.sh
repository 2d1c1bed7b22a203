#!/usr/bin/env bash
# onnxruntime 1.32.0: the "memory pattern", on by default and meant to save memory, costs it on a CPU. The first run of a
# session leaves its blocks in the arena. The second one, with the same input, has learned the pattern and takes one
# more block that holds all of it, beside those of the first run, which nobody gives back: resident memory grows once
# more by about as much. Images of other sizes then need blocks and patterns of their own. With
# `SessionOptions.enable_mem_pattern = False` every later run lives in what the first one took, with equal outputs.
# The script runs a chain of convolutions six times, on one size of images, with each setting, in processes of their
# own, and exits with 1 when that changes. Linux (/proc).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check onnxruntime==1.32.0 onnx==1.22.0 numpy
cat > "$folder/run.py" <<'PYTHON'
import re
import sys
from pathlib import Path

import numpy as np
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

rng = np.random.default_rng(0)
nodes, weights, name = [], [], 'image'
for layer, (inputs, outputs) in enumerate([(3, 32), *[(32, 32)] * 5, (32, 3)]):
    kernel = rng.normal(0, (9 * inputs) ** -0.5, (outputs, inputs, 3, 3)).astype(np.float32)
    weights.append(numpy_helper.from_array(kernel, f'kernel{layer}'))
    nodes.append(helper.make_node('Conv', [name, f'kernel{layer}'], [f'map{layer}'], pads=[1, 1, 1, 1]))
    nodes.append(helper.make_node('Relu', [f'map{layer}'], [f'out{layer}']))
    name = f'out{layer}'
shape = [1, 3, 'height', 'width']
ends = (helper.make_tensor_value_info(each, TensorProto.FLOAT, shape) for each in ('image', name))
graph = helper.make_graph(nodes, 'chain', *([end] for end in ends), weights)
model = helper.make_model(graph, opset_imports=[helper.make_opsetid('', 17)], ir_version=9)

options = ort.SessionOptions()
options.intra_op_num_threads = 1
if sys.argv[1] == 'off':
    options.enable_mem_pattern = False
session = ort.InferenceSession(model.SerializeToString(), options, providers=['CPUExecutionProvider'])


def resident() -> float:
    return int(re.search(r'VmRSS:\s+(\d+)', Path('/proc/self/status').read_text())[1]) / 1024


image = rng.random((1, 3, 512, 512), dtype=np.float32)
memory = [resident()]
for _ in range(6):  # nobody holds an output of an earlier run
    total = np.abs(session.run(None, dict(image=image))[0]).sum()
    memory.append(resident())
first, second, later = memory[1] - memory[0], memory[2] - memory[1], memory[-1] - memory[2]
print(f'{first:.0f} {second:.0f} {later:.0f} {total:.3f}')
PYTHON
read -r first second later result < <("$folder/venv/bin/python" "$folder/run.py" on)
echo "pattern on (default): the first run takes $first MiB, the second $second more, four more $later"
read -r first_off second_off later_off result_off < <("$folder/venv/bin/python" "$folder/run.py" off)
echo "pattern off: the first run takes $first_off MiB, the second $second_off more, four more $later_off"
[ "$result" = "$result_off" ] || { echo 'outputs differ'; exit 1; }
[ $((2 * second)) -gt "$first" ] || { echo 'the second run takes little more now'; exit 1; }
[ $((10 * second_off)) -lt "$first_off" ] || { echo 'the second run takes more without a pattern, too'; exit 1; }
echo 'As described.'
