"""Weights of a network that somebody else exported to ONNX, under the names that they had."""

import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mmcast.checkpoints import describe_not_finite
from mmcast.errors import CASTError
from mmcast.optional import require

_UNNAMED = re.compile(r'onnx::\w+_\d+')


def read_onnx_weights(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a graph that torch's TorchScript exporter has written, on the CPU.

    Most keep their names there. Not so matrices of linear layers, which the exporter transposes,
    and what it computes beforehand; both are found by the module that uses them, which the name of
    a node tells. Position embeddings of transformers' ViTs (``embeddings.position_embeddings``) are
    stored as two tensors, of the class token and of the patches.

    Args:
        path: of the ONNX file. No code in it is run.

    Raises:
        CASTError: the file is missing or no ONNX file, or a tensor is not finite or of a type that
            numpy lacks.
    """
    onnx = require('onnx', 'pip install "mmcast[deploy]"')
    path = Path(path)
    if not path.is_file():
        raise CASTError(f'weights file {path} not found; give the path of an existing file')
    try:
        graph = onnx.load(str(path)).graph
    except Exception as error:  # protobuf's error class differs between its implementations
        raise CASTError(f'{path} is no ONNX file ({error}); give one, or a checkpoint') from error
    try:
        tensors = {
            each.name: torch.from_numpy(onnx.numpy_helper.to_array(each).copy())
            for each in graph.initializer
        }
    except TypeError as error:
        raise CASTError(f'{path} cannot be read ({error}); export it as float32') from error
    problem = describe_not_finite(tensors)
    if problem:
        raise CASTError(f'{path}: {problem}; get the file again')
    for node in graph.node:
        if node.op_type == 'Identity' and node.input[0] in tensors:  # equal ones are stored once
            tensors[node.output[0]] = tensors[node.input[0]]
    state = {name: value for name, value in tensors.items() if not _UNNAMED.fullmatch(name)}
    return state | _of_modules(graph, tensors)


def _of_modules(graph: Any, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tensors that belong to a module without having its name there, under that name."""
    found: dict[str, Tensor] = {}
    positions: dict[str, list[Tensor]] = {}
    for node in graph.node:
        module = '.'.join(node.name.strip('/').split('/')[:-1])
        unnamed = [
            tensors[name] for name in node.input if _UNNAMED.fullmatch(name) and name in tensors
        ]
        for value in unnamed:
            if node.op_type == 'MatMul' and value.ndim == 2:
                found[f'{_without_repeats(module)}.weight'] = value.T.contiguous()
            elif module.endswith('embeddings') and value.ndim == 3 and value.shape[0] == 1:
                positions.setdefault(module, []).append(value)
    for module, parts in positions.items():
        parts.sort(key=lambda part: part.shape[1])  # the class token's is one
        found[f'{module}.position_embeddings'] = torch.cat(parts, dim=1)
    return found


def _without_repeats(module: str) -> str:
    """``encoder.layer.0`` of ``encoder.layer.0.layer.0``, as lists of modules are written."""
    return re.sub(r'\b(\w+\.\d+)\.(?:\1\.)+', r'\1.', f'{module}.').rstrip('.')
