#!/usr/bin/env bash
# onnxruntime 1.32.0, all optimisations on: nodes whose results reach no output of the graph are not removed, they run,
# and so do those of an output that `run` is not asked for. `run(['scores'], ...)` of a graph that also makes masks costs
# as much as with the masks, and a graph that was cut by shortening its list of outputs costs as much as the whole.
# onnx.utils.Extractor, which takes the nodes out, is what makes it cheaper.
# The script counts the matrix products that the profiler sees of a graph with a cheap output and an expensive one: asked
# for the cheap one, with the expensive one struck from the outputs, and extracted; it exits with 1 when a count changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check onnxruntime==1.32.0 onnx==1.22.0 numpy
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime as ort
from onnx import ModelProto, TensorProto, helper, utils

image, scores, masks = (
    helper.make_tensor_value_info(name, TensorProto.FLOAT, ['rows', 'columns']) for name in ('image', 'scores', 'masks')
)
nodes = [
    helper.make_node('Relu', ['image'], ['scores']),
    helper.make_node('MatMul', ['image', 'image'], ['square']),
    helper.make_node('MatMul', ['square', 'image'], ['masks']),
]
graph = helper.make_graph(nodes, 'two outputs', [image], [scores, masks])
whole = helper.make_model(graph, opset_imports=[helper.make_opsetid('', 17)], ir_version=9)
struck = ModelProto()
struck.CopyFrom(whole)
del struck.graph.output[1]
extracted = utils.Extractor(whole).extract_model(['image'], ['scores'])


def products(model: ModelProto) -> int:
    options = ort.SessionOptions()
    options.enable_profiling = True
    session = ort.InferenceSession(model.SerializeToString(), options, providers=['CPUExecutionProvider'])
    session.run(['scores'], dict(image=np.ones((4, 4), np.float32)))
    events = json.loads(Path(session.end_profiling()).read_text())
    return sum(event['args'].get('op_name') == 'MatMul' for event in events if event.get('cat') == 'Node')


found = {
    'asked for one of two outputs': products(whole),
    'the other output struck from the list': products(struck),
    'extracted': products(extracted),
}
for name, number in found.items():
    print(f'{name}: {number} matrix products run, of which the output needs 0')
sys.exit(0 if list(found.values()) == [2, 2, 0] else 1)
PYTHON
