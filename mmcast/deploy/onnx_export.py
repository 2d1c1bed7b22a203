"""From a student's config and weights to one ONNX file, checked against torch before it is put in
place.
"""

import contextlib
import io
import json
import logging
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.logging import MMLogger
from torch import nn

from mmcast.configs import load_config
from mmcast.data.loading import value_range_of
from mmcast.deploy.agreement import Agreement, compare_runtimes
from mmcast.deploy.export import (
    Source,
    build_network,
    check_fits,
    dataset_meta,
    evaluated_part,
    resize_scale,
    student_config,
    student_state,
)
from mmcast.deploy.exportable import ExportableStudent
from mmcast.deploy.inputs import check_score_threshold
from mmcast.deploy.onnx_files import CHECKSUM, KIND, OUTPUTS, UNSEALED, seal
from mmcast.deploy.onnx_student import OnnxStudent
from mmcast.deploy.quantization import CalibrationImages, quantize
from mmcast.errors import CASTError
from mmcast.files import replacing, sha256_of_file
from mmcast.optional import require
from mmcast.version import __version__

PRECISIONS = ('fp32', 'fp16', 'int8')
_STEEP = 3e38  # near the largest float32
#: Who attends, and the version of the standard operators around it: 20 is the first with GELU, 23
#: with attention.
OPSETS = dict(standard=20, onnxruntime=23)
INPUTS = ('images', 'score_threshold')
_INSTALL = 'pip install "mmcast[deploy]", or pip install onnx onnxscript onnxruntime'
# Names of the dimensions in the file.
_DIMENSIONS = dict(
    images=('batch', 'height', 'width', None),
    boxes=('instances', None),
    masks=('instances', 'height', 'width'),
    scores=('instances',),
    labels=('instances',),
    image_indices=('instances',),
)


def export_onnx(
    source: Source,
    out_file: str | Path,
    precision: str = 'fp32',
    score_threshold: float = 0.3,
    force: bool = False,
    attention: str = 'standard',
    calibration: CalibrationImages | None = None,
) -> Agreement:
    """Export, compare onnxruntime with torch at three sizes and two batch sizes, and remove what
    differs.

    Args:
        source: config and checkpoint, see :func:`mmcast.deploy.find_source`; those of an exported
            student serve too.
        out_file: the ONNX file.
        precision: ``fp32``; ``fp16`` (weights of half the size, for GPUs: a CPU computes in fp32
            all the same); or ``int8`` (for CPUs: weights of 8 bits; of matrix products alone, and
            activations quantised dynamically, or with ``calibration`` of convolutions too).
        score_threshold: the file's default; a caller may give another one with every image.
        force: replace an existing file.
        attention: of the encoder, of ``standard`` operators, or ``onnxruntime``'s own one, which is
            faster and which other runtimes may not know.
        calibration: for ``int8``: images for static quantisation.

    Returns:
        How far the two agree.

    Raises:
        CASTError: a package is missing, the checkpoint is not that of the config, the config
            resizes images in a way that cannot be written down, the file has another ending than
            ``.onnx``, exists or cannot be written, the threshold is none, or the two differ.
    """
    if calibration and precision != 'int8':
        raise CASTError(f'calibration images are for int8, not for {precision}')
    draft = Draft(source, out_file, score_threshold, force, attention)
    with replacing(draft.out_file, '.onnx') as temporary:
        draft.write(temporary, precision, calibration)
        return compare_runtimes(draft.network, OnnxStudent(temporary), draft.cfg, precision)


class Draft:
    """A student about to be written, in one precision or in several that are compared.

    Args:
        source, out_file, score_threshold, force, attention: see :func:`export_onnx`.

    Attributes:
        cfg: of :func:`~mmcast.deploy.export.student_config`.
        network: the student in torch.
        out_file: where it is to go.

    Raises:
        CASTError: see :func:`export_onnx`.
    """

    def __init__(
        self,
        source: Source,
        out_file: str | Path,
        score_threshold: float = 0.3,
        force: bool = False,
        attention: str = 'standard',
    ) -> None:
        for package in ('onnx', 'onnxscript', 'onnxruntime'):
            require(package, _INSTALL)
        self.out_file = Path(out_file)
        if self.out_file.suffix != '.onnx':
            raise CASTError(
                f'{out_file}: give a name that ends in .onnx, which mmcast predict needs'
            )
        check_score_threshold(score_threshold)
        if self.out_file.exists() and not force:
            raise CASTError(f'{out_file} exists: delete it, choose another --out or use --force')
        config = load_config(source.config)
        self.cfg = student_config(config)
        metadata = onnx_metadata(self.cfg, source, score_threshold)
        self._metadata = dict(metadata, attention=attention)
        self.network = load_network(self.cfg, source, evaluated_part(config))
        self._attention, self._graph = attention, None

    def write(
        self,
        path: Path,
        precision: str,
        calibration: CalibrationImages | None = None,
        kept: Sequence[str] = (),
        ranges: Path | None = None,
        **facts: Any,
    ) -> None:
        """Writes an ONNX file, with its checksum.

        Args:
            path: of the file.
            precision: one of :data:`PRECISIONS`.
            calibration: for ``int8``: images for static quantisation; None quantises dynamically.
            kept: parts of the student that stay in fp32, see
                :func:`~mmcast.deploy.quantization.quantize`.
            ranges: a file that keeps what the images showed, for several calls.
            facts: metadata besides the usual.
        """
        if self._graph is None:
            self._graph = to_onnx(self.network, self._attention)
        model = type(self._graph)()
        model.CopyFrom(self._graph)
        facts = dict(precision=precision, **facts)
        if precision == 'int8':
            facts['quantisation'] = 'static' if calibration else 'dynamic'
            facts['kept_fp32'] = list(kept)
        if not calibration:
            finish_graph(model, self._metadata | facts)
            write(model, path, precision)
        else:
            with tempfile.TemporaryDirectory() as folder:
                plain = Path(folder) / 'fp32.onnx'
                types = [*model.graph.value_info]
                finish_graph(model, self._metadata | facts)
                write(model, plain, 'fp32')
                seal(plain)
                student = OnnxStudent(plain)
                model.graph.value_info.extend(types)
                with quiet():
                    quantize(
                        model,
                        path,
                        calibration.feeds(student),
                        ranges or Path(folder) / 'ranges.json',
                        kept,
                    )
        seal(path)


def load_network(cfg: Config, source: Source, part: str = 'detector.') -> nn.Module:
    """The student with its weights.

    Args:
        cfg: of :func:`~mmcast.deploy.export.student_config`.
        source: where the weights are.
        part: which ones, see :func:`~mmcast.deploy.export.evaluated_part`.

    Raises:
        CASTError: they do not fit.
    """
    network, state = build_network(cfg), student_state(source.checkpoint, part)
    check_fits(network, state, source)
    network.load_state_dict(state)
    return network


def onnx_metadata(cfg: Config, source: Source, score_threshold: float) -> dict:
    """What the file says about itself, by key."""
    preprocessor = cfg.model.data_preprocessor
    return dict(
        mmcast=__version__,
        classes=dataset_meta(cfg)['classes'],
        score_threshold=score_threshold,
        resize=resize_scale(cfg),
        value_range=value_range_of(cfg),
        windows=cfg.model.test_cfg.get('windows'),
        input='uint8, batch x height x width x 3, RGB',
        mean=preprocessor.get('mean'),
        std=preprocessor.get('std'),
        bgr_to_rgb=preprocessor.get('bgr_to_rgb', False),
        pad_size_divisor=preprocessor.get('pad_size_divisor', 1),
        normalisation='inside the graph',
        max_per_image=cfg.model.test_cfg.get('max_per_image', 100),
        step=source.step,
        checkpoint_sha256=sha256_of_file(source.checkpoint),
        **{CHECKSUM: UNSEALED},
    )


def to_onnx(network: nn.Module, attention: str = 'standard') -> Any:
    """The ``onnx.ModelProto`` of a student, of any batch and image size."""
    student = ExportableStudent(network, fused_attention=attention == 'onnxruntime').eval()
    divisor = student.divisor
    # No side divides another or is a multiple of the patch: no accident is to become a rule.
    example = torch.randint(0, 256, (2, 7 * divisor + 3, 11 * divisor + 1, 3), dtype=torch.uint8)
    dynamic = torch.export.Dim.DYNAMIC
    with torch.no_grad(), quiet():
        program = torch.onnx.export(
            student,
            (example, torch.tensor(0.0)),
            dynamo=True,
            opset_version=OPSETS[attention],
            verbose=False,
            dynamic_shapes=({0: dynamic, 1: dynamic, 2: dynamic}, None),
            input_names=INPUTS,
            output_names=OUTPUTS,
        )
    return program.model_proto


def finish_graph(model: Any, metadata: dict) -> None:
    """Name the dimensions, make the threshold optional, count pixels faster, and write the
    metadata, in place.
    """
    onnx = require('onnx')
    graph = model.graph
    if metadata['precision'] != 'fp16':  # which has no number for the slope
        count_faster(model)
    for value in (*graph.input, *graph.output):
        for place, name in enumerate(_DIMENSIONS.get(value.name, ())):
            if name:
                value.type.tensor_type.shape.dim[place].dim_param = name
    del graph.value_info[:]  # they speak of dimensions by the exporter's names
    # An input that is an initializer too has a default.
    graph.initializer.append(
        onnx.helper.make_tensor(
            'score_threshold', onnx.TensorProto.FLOAT, [], [metadata['score_threshold']]
        )
    )
    del model.metadata_props[:]
    onnx.helper.set_model_props(
        model, dict(kind=KIND, **{key: json.dumps(value) for key, value in metadata.items()})
    )
    model.producer_name, model.producer_version = 'mmcast', __version__


def count_faster(model: Any) -> None:
    """Lets onnxruntime count the pixels of masks in 0.4 of the time, in place.

    :func:`~mmcast.deploy.exportable.full_size_masks` rounds numbers from 0 to 1 up. ``Ceil`` takes
    one at a time; a ``HardSigmoid`` that is 1 from the smallest numbers on is vectorised.
    """
    onnx = require('onnx')
    loops = [node for node in model.graph.node if node.op_type == 'Scan']
    for node in (node for loop in loops for part in loop.attribute for node in part.g.node):
        if node.op_type == 'Ceil':
            node.op_type = 'HardSigmoid'
            slope = dict(alpha=_STEEP, beta=0.0)
            node.attribute.extend(onnx.helper.make_attribute(*each) for each in slope.items())


def write(model: Any, path: Path, precision: str) -> None:
    """Save a graph in one of :data:`PRECISIONS`."""
    onnx = require('onnx')
    if precision == 'fp16':
        model = to_half(model)
    onnx.save(model, path)
    if precision == 'int8':
        quantization = require('onnxruntime.quantization', _INSTALL)
        with quiet():
            quantization.quantize_dynamic(
                path,
                path,
                op_types_to_quantize=['MatMul', 'Gemm'],
                extra_options=dict(DefaultTensorType=onnx.TensorProto.FLOAT),
            )


def to_half(model: Any) -> Any:
    """The same graph in float16, weights and arithmetic; inputs and outputs keep their types."""
    float16 = require('onnxruntime.transformers.float16', _INSTALL)
    with quiet():
        return float16.convert_float_to_float16(
            model, keep_io_types=True, op_block_list=[*float16.DEFAULT_OP_BLOCK_LIST]
        )


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Lets nobody print or log less than errors: the exporter and the quantiser describe their
    progress in hundreds of lines.
    """
    logger = MMLogger.get_current_instance()  # one made within would write to nowhere for ever
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    nowhere = io.StringIO()
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(nowhere),
        contextlib.redirect_stderr(nowhere),
    ):
        warnings.simplefilter('ignore')
        try:
            yield
        finally:
            logging.disable(level)
            logger.setLevel(logger.level)  # all of MMEngine's forget what was disabled
