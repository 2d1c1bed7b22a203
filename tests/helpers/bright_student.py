"""A student that segments what is bright, as one instance of class 'lamp' with a score of 0.8: in
Python, and as an ONNX file of a few nodes.

Run as a program, ``FILE SECONDS ARGUMENT...``: ``mmcast predict`` with these arguments, a letter in
the file for every picture predicted on, which takes at least so long.
"""

import json
import sys
import time
from pathlib import Path

import cv2
import numpy as np

from mmcast.deploy.instances import Instances


class BrightPixels:
    classes = ['dark', 'lamp']

    def __call__(self, image: np.ndarray, score_threshold: float | None = None) -> Instances:
        mask = image.min(axis=2) > 200
        kept = int(mask.any() and (score_threshold or 0.3) < 0.8)
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        box = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1] if kept else [0, 0, 0, 0]
        return Instances(
            np.array([box] * kept, np.float32).reshape(-1, 4),
            mask[None][:kept],
            np.full(kept, 0.8, np.float32),
            np.ones(kept, np.int64),
        )


def picture(x: int, size: tuple[int, int] = (40, 60)) -> np.ndarray:
    """A dark picture with ten bright rows, at columns x to x + 8."""
    image = np.full((*size, 3), 30, np.uint8)
    image[10:20, x : x + 8] = 255
    return image


def write_video(path: Path, frames: int) -> Path:
    """Ten frames per second, of 60x40 pixels."""
    codec = 'mp4v' if path.suffix == '.mp4' else 'MJPG'
    video = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*codec), 10, (60, 40))
    for number in range(frames):
        video.write(picture((5 + number) % 50))
    video.release()
    return path


def write_onnx(path: Path) -> Path:
    """The same student as ``mmcast onnx`` lays a file out; its boxes are all zero."""
    from onnx import TensorProto, helper, save

    def constant(name, value, kind):
        return helper.make_tensor(name, kind, np.shape(value), np.ravel(value).tolist())

    nodes = [
        helper.make_node('Cast', ['images'], ['pixels'], to=TensorProto.FLOAT),
        helper.make_node('ReduceMin', ['pixels', 'channels'], ['darkest'], keepdims=0),
        helper.make_node('Greater', ['darkest', 'limit'], ['masks']),
        helper.make_node('Shape', ['images'], ['batch'], end=1),
        helper.make_node('Expand', ['score', 'batch'], ['all_scores']),
        helper.make_node('Max', ['all_scores', 'score_threshold'], ['scores']),
        helper.make_node('Expand', ['label', 'batch'], ['labels']),
        helper.make_node('Concat', ['batch', 'four'], ['box_shape'], axis=0),
        helper.make_node('Expand', ['zero', 'box_shape'], ['boxes']),
        helper.make_node('Expand', ['first', 'batch'], ['image_indices']),
    ]
    values = [
        constant('score_threshold', 0.3, TensorProto.FLOAT),  # the default of the input
        constant('channels', [3], TensorProto.INT64),
        constant('limit', 200.0, TensorProto.FLOAT),
        constant('score', 0.8, TensorProto.FLOAT),
        constant('zero', 0.0, TensorProto.FLOAT),
        constant('label', 1, TensorProto.INT64),
        constant('first', 0, TensorProto.INT64),
        constant('four', [4], TensorProto.INT64),
    ]
    inputs = [
        helper.make_tensor_value_info('images', TensorProto.UINT8, ['b', 'h', 'w', 3]),
        helper.make_tensor_value_info('score_threshold', TensorProto.FLOAT, []),
    ]
    kinds = dict(
        boxes=TensorProto.FLOAT,
        masks=TensorProto.BOOL,
        scores=TensorProto.FLOAT,
        labels=TensorProto.INT64,
        image_indices=TensorProto.INT64,
    )
    outputs = [helper.make_tensor_value_info(name, kind, None) for name, kind in kinds.items()]
    graph = helper.make_graph(nodes, 'bright', inputs, outputs, values)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid('', 20)], ir_version=9)
    helper.set_model_props(
        model,
        dict(
            kind='mmcast student',
            classes=json.dumps(BrightPixels.classes),
            score_threshold='0.3',
            resize='null',
            mean='[0, 0, 0]',
            std='[1, 1, 1]',
            bgr_to_rgb='true',
            pad_size_divisor='1',
        ),
    )
    save(model, path)
    return path


def main() -> None:
    from mmcast.cli.main import main
    from mmcast.deploy.onnx_student import OnnxStudent

    (notes, seconds, *arguments), predict = sys.argv[1:], OnnxStudent.__call__

    def noted(self, *args):
        with open(notes, 'a') as file:
            file.write('x')
        time.sleep(float(seconds))
        return predict(self, *args)

    OnnxStudent.__call__ = noted
    main(['predict', *arguments])


if __name__ == '__main__':
    main()
