"""Static quantisation of a student's graph: weights and activations of 8 bits, the latter by ranges
that were seen on images (onnxruntime's QDQ format).
"""

import ast
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from mmcast.coco.custom import find_images, image_paths
from mmcast.coco.reading import read_image_list
from mmcast.deploy.onnx_student import OnnxStudent
from mmcast.errors import CASTError
from mmcast.images import read_image
from mmcast.images.folders import image_files
from mmcast.optional import require

#: Parts of a student that can stay in fp32, from the input on. The products of attention and of
#: masks always do: what they multiply has no weights.
PARTS = ('encoder', 'pixel decoder', 'queries', 'last layers')
# What the names of a graph's modules begin with, the first that fits counts.
_MODULES = {
    'backbone': 'encoder',
    'neck': 'encoder',
    'head.pixel_decoder.mask_feature': 'last layers',
    'head.mask_embed': 'last layers',
    'head.cls_embed': 'last layers',
    'head.pixel_decoder': 'pixel decoder',
    'head': 'queries',
}
_WEIGHTED, _BETWEEN = ('Conv', 'MatMul'), ('Relu', 'Clip', 'Add')


class CalibrationImages:
    """Images whose activations say what range 8 bits have to cover; they need no labels.

    Args:
        source: a folder, with its subfolders, or a COCO file, whose images are up to two folders
            below its own or the one above.
        count: images used, evenly spread over all of them.

    Attributes:
        paths: of these images.

    Raises:
        CASTError: there are none, or the number is none.
    """

    def __init__(self, source: str | Path, count: int = 32) -> None:
        source = Path(source)
        if count < 1:
            raise CASTError(f'{count} calibration images: give at least 1')
        if source.is_file():
            listed = read_image_list(source)['images']
            try:
                folder = find_images(listed, source, source.resolve().parent.parent)
            except CASTError as error:
                raise CASTError(
                    f'the images of {source} are not to be found beside it; give their folder for '
                    'calibration'
                ) from error
            paths = [Path(path) for path in image_paths(listed, folder)]
        else:
            paths = image_files(source)
        if not paths:
            raise CASTError(
                f'{source} has no images to calibrate int8 with: give a folder of images like '
                'those that the student is for, or a COCO file that lists some'
            )
        chosen = np.linspace(0, len(paths) - 1, min(count, len(paths))).round().astype(int)
        self.paths = [paths[index] for index in chosen]

    def feeds(self, student: OnnxStudent) -> Iterator[dict[str, np.ndarray]]:
        """Inputs of the student's graph, one image or its windows after the other.

        Raises:
            CASTError: an image cannot be read.
        """
        threshold = np.array(1, np.float32)  # nothing reaches it: no mask of full size is made
        for path in self.paths:
            for images in student.batches(read_image(path, student.value_range)):
                yield dict(images=images, score_threshold=threshold)


def quantize(
    model: Any,
    path: Path,
    feeds: Iterator[dict[str, np.ndarray]],
    ranges: Path,
    kept: Collection[str] = (),
) -> None:
    """Writes a graph with weights and activations of 8 bits.

    Weights have a scale for each channel. Activations are unsigned: with signed ones onnxruntime
    leaves convolutions in fp32 whose input two nodes read. Products of matrices give fp32, as only
    convolutions gain from outputs of 8 bits.

    Args:
        model: ``onnx.ModelProto`` with the types of its tensors (``value_info``): what has none is
            not quantised.
        path: of the file.
        feeds: inputs, read if ``ranges`` does not exist.
        ranges: a file that keeps what was seen; the same for all calls on a graph.
        kept: which of :data:`PARTS` stay in fp32.
    """
    onnx, quantization = require('onnx'), require('onnxruntime.quantization')
    chosen = nodes_to_quantize(model, kept)
    # Its sessions of calibration warn that the score threshold has a default.
    require('onnxruntime').set_default_logger_severity(3)
    quantization.quantize_static(
        model,
        path,
        _Reader(feeds),
        quant_format=quantization.QuantFormat.QDQ,
        op_types_to_quantize=[*_WEIGHTED, *_BETWEEN],
        nodes_to_quantize=chosen,
        per_channel=True,
        activation_type=quantization.QuantType.QUInt8,
        weight_type=quantization.QuantType.QInt8,
        extra_options=dict(OpTypesToExcludeOutputQuantization=['MatMul']),
        calibration_cache_path=ranges,
    )
    require('onnxruntime').set_default_logger_severity(2)
    written = onnx.load(path)
    del written.graph.value_info[:]  # they speak of dimensions by the exporter's names
    onnx.save(written, path)


def nodes_to_quantize(model: Any, kept: Collection[str] = ()) -> list[str]:
    """Names of the nodes of all parts but ``kept``: convolutions and products with constant
    weights, and what is computed between convolutions.
    """
    weights = {each.name for each in model.graph.initializer}
    names, from_convolution = [], set()
    for node in model.graph.node:  # in the order of computation
        part = part_of(node)
        if part in kept:
            continue
        weighted = part and node.op_type in _WEIGHTED and node.input[1] in weights
        between = node.op_type in _BETWEEN and from_convolution.intersection(node.input)
        if weighted or between:
            names.append(node.name)
        if between or (weighted and node.op_type == 'Conv'):
            from_convolution.add(node.output[0])
    return names


def part_of(node: Any) -> str | None:
    """Which of :data:`PARTS` a node belongs to, by the module that the exporter says it is from."""
    for entry in node.metadata_props:
        if entry.key.endswith('name_scopes'):
            scopes = ast.literal_eval(entry.value)
            # From the outermost module in; the last that is known is the most precise.
            module = scopes[-2] if len(scopes) > 1 else ''
            for prefix, part in _MODULES.items():
                if module == prefix or module.startswith(f'{prefix}.'):
                    return part
    return None


class _Reader:
    """onnxruntime's interface to inputs."""

    def __init__(self, feeds: Iterator[dict[str, np.ndarray]]) -> None:
        self.feeds = feeds

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self.feeds, None)
