"""Training steps of a student against mmdet's stock head and losses on the same modules and batch.

    python benchmarks/training_step.py --student lite --threads 1

Both have the same encoder, pixel decoder, transformer decoder, assigner, weights, batch and number
of points; what differs is how the head goes through them and takes its losses. At equal points the
losses must agree to 1e-4, which is checked. 'head' is from the pixel decoder's output to its
gradient: transformer decoder, matching, losses. 'step' is encoder, pixel decoder, head, backward,
clipping and AdamW as in configs/_base_/schedules/toy.py. With a TimmEncoder there is a second
baseline: mmdet's head on timm's own convolutions and normalisations, where ours fold fixed
statistics and take depthwise gradients by parts. Last, the step of CASTDetector with and without
the pixel loss (its strong pass included).

All take turns; times are CPU seconds (on a GPU: seconds until it is idle), medians with their
range, and ratios are medians of the turns' own with theirs. Memory is the peak of a process that
takes two steps, above what it had before them.
"""

import argparse
import functools
import logging
import multiprocessing
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from unittest import mock

import mmcast  # noqa: F401  isort: skip  before mmdet
import torch
from mmdet.models.dense_heads import Mask2FormerHead
from mmengine.config import Config
from mmengine.optim import OptimWrapper, build_optim_wrapper
from mmengine.registry import init_default_scope
from torch import Tensor

from mmcast.cli.errors import report_errors
from mmcast.memory import PeakMemory, keep_freed_memory
from mmcast.registry import MODELS
from mmcast.testing.data import make_samples, same_points

CONFIGS = Path(__file__).parents[1] / 'configs/_base_'
STUDENTS = dict(
    toy=(CONFIGS / 'models/toy_student.py', (112, 224)),
    lite=(CONFIGS / 'models/cast_lite.py', (160, 320)),
    full=(CONFIGS / 'models/cast_student.py', (518, 1036)),
)
SCHEDULE = CONFIGS / 'schedules/toy.py'
TIMM = 'mmcast.models.encoders.timm_encoder.replace_convolutions'


class Head:
    """The part of a student that is compared: mmdet's way or ours through the same modules."""

    def __init__(self, student, samples, stock: bool) -> None:
        self.head, self.samples, self.stock = student.panoptic_head, samples, stock

    def losses(self, features: list[Tensor]) -> dict[str, Tensor]:
        cls = Mask2FormerHead if self.stock else type(self.head)
        gt = cls.preprocess_gt(
            self.head, [s.gt_instances for s in self.samples], [None] * len(self.samples)
        )
        if self.stock:
            outputs = cls.forward(self.head, features, self.samples)
        else:
            outputs = self.head.decode(*self.head.pixel_decoder(features))
        losses = cls.loss_by_feat(self.head, *outputs, gt, [s.metainfo for s in self.samples])
        return {name: loss.squeeze() for name, loss in losses.items()}


def seconds(function: Callable[[], object], device: str) -> float:
    clock = time.process_time if device == 'cpu' else time.perf_counter
    start = clock()
    function()
    if device != 'cpu':
        torch.cuda.synchronize()
    return clock() - start


def compare(
    functions: dict[str, Callable[[], object]], repeats: int, device: str
) -> dict[str, list[float]]:
    """Seconds of each in every turn, after one round to warm up."""
    times = {name: [] for name in functions}
    for turn in range(repeats + 1):
        for name, function in functions.items():
            spent = seconds(function, device)
            if turn:
                times[name].append(spent)
    return times


def check_equal(heads: dict[str, Head], features: list[Tensor]) -> float:
    """The largest difference of a loss, relative to mmdet's."""
    with same_points():
        ours, theirs = (heads[name].losses(features) for name in ('mmcast', 'mmdet'))
    difference = max(float(abs(ours[name] - theirs[name]) / abs(theirs[name])) for name in theirs)
    if difference > 1e-4:
        raise AssertionError(f'losses differ by {difference:.1e}')
    return difference


def head_alone(student, head: Head, features: list[Tensor]) -> Callable[[], object]:
    """The head's step on the pixel decoder's outputs, made once."""
    with torch.no_grad():
        mask_features, memories = student.panoptic_head.pixel_decoder(features)
    leaves = [t.requires_grad_() for t in (mask_features, *memories)]

    def step():
        decoder = student.panoptic_head.pixel_decoder
        decoder.forward = lambda _: (leaves[0], leaves[1:])
        try:
            sum(head.losses(features).values()).backward()
        finally:
            del decoder.forward

    return step


class Steps:
    """The steps that are compared, by name, on one batch.

    Args:
        args: Of the command line.
        only: The one step that is wanted; default all.
    """

    def __init__(self, args: argparse.Namespace, only: str | None = None) -> None:
        torch.set_num_threads(args.threads)
        logging.disable(logging.INFO)  # MMEngine lists every parameter of an optimizer
        init_default_scope('mmcast')
        if args.device == 'cpu':
            keep_freed_memory()  # as training does
        path, size = STUDENTS[args.student]
        images, samples = make_samples(
            [args.objects] * args.batch, size=tuple(args.size or size), num_classes=8
        )
        self.images = images.to(args.device)
        self.samples = [sample.to(args.device) for sample in samples]
        self.detector = build(path, args.device)
        self.student = self.detector.detector
        self.heads = {
            name: Head(self.student, self.samples, name == 'mmdet') for name in ('mmdet', 'mmcast')
        }
        optimizer = make_optimizer(self.detector)
        self.steps = {
            name: self._step(self.student, head, optimizer) for name, head in self.heads.items()
        }
        uses_timm = type(self.student.backbone).__name__ == 'TimmEncoder'
        if uses_timm and only in (None, 'mmdet, timm'):
            with mock.patch(TIMM, lambda model: None):
                stock = build(path, args.device)
            stock.load_state_dict(self.detector.state_dict())
            head = Head(stock.detector, self.samples, True)
            self.steps['mmdet, timm'] = self._step(stock.detector, head, make_optimizer(stock))
        contrast = self.detector.pixel_contrast
        self.cast_steps = {
            'without the pixel loss': self._cast_step(None, optimizer),
            'with it': self._cast_step(contrast, optimizer),
        }

    def _step(self, student, head: Head, optimizer: OptimWrapper) -> Callable[[], object]:
        def step():
            optimizer.update_params(sum(head.losses(student.extract_feat(self.images)).values()))

        return step

    def _cast_step(self, contrast, optimizer: OptimWrapper) -> Callable[[], object]:
        def step():
            with mock.patch.object(self.detector, 'pixel_contrast', contrast):
                losses = self.detector.loss(self.images, self.samples)
            optimizer.update_params(sum(losses.values()))

        return step


def build(path: Path, device: str):
    torch.manual_seed(0)
    config = Config.fromfile(path)
    contrast = config.model.get('pixel_contrast') or config.pixel_contrast
    return MODELS.build(dict(config.model, pixel_contrast=contrast)).to(device).train()


def make_optimizer(detector) -> OptimWrapper:
    return build_optim_wrapper(detector, Config.fromfile(SCHEDULE).optim_wrapper)


def memory_of(name: str, args: argparse.Namespace) -> float:
    """MiB that two steps take at most, above what was there before; in a process of its own."""
    steps = Steps(args, name)
    step = (steps.steps | steps.cast_steps)[name]
    if args.device != 'cpu':
        before = torch.cuda.memory_allocated()
        step(), step()
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    with PeakMemory() as idle:
        pass
    with PeakMemory() as peak:
        step(), step()
    return peak.megabytes - idle.megabytes


def memory_apart(name: str, args: argparse.Namespace) -> float:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context('spawn')) as pool:
        return pool.submit(memory_of, name, args).result()


def spread(values: list[float], digits: int) -> str:
    return (
        f'{statistics.median(values):.{digits}f} ({min(values):.{digits}f} to '
        f'{max(values):.{digits}f})'
    )


def ratios(of: list[float], to: list[float]) -> list[float]:
    return [a / b for a, b in zip(of, to)]


def show(
    title: str,
    times: dict[str, list[float]],
    baseline: str,
    memory: Callable[[str], float] | None = None,
) -> None:
    print(title)
    for name, spent in times.items():
        line = (
            f'  {name:24s}{spread(spent, 3)} s, {spread(ratios(times[baseline], spent), 2)} x the '
            f'throughput of {baseline}'
        )
        print(line + (f', {memory(name):.0f} MiB' if memory else ''), flush=True)


@report_errors
def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--student', choices=STUDENTS, default='toy')
    parser.add_argument(
        '--size', type=int, nargs=2, metavar=('HEIGHT', 'WIDTH'), help='of the images'
    )
    parser.add_argument('--batch', type=int, default=6)
    parser.add_argument('--objects', type=int, default=8, help='objects per image')
    parser.add_argument('--repeats', type=int, default=7)
    parser.add_argument('--threads', type=int, default=2)
    parser.add_argument('--device', default='cuda' if torch.cuda.is_available() else 'cpu')
    args = parser.parse_args()
    steps = Steps(args)
    with torch.no_grad():
        features = [f.detach() for f in steps.student.extract_feat(steps.images)]
    difference = check_equal(steps.heads, features)
    print(
        f'{STUDENTS[args.student][0].name}, {args.batch} images of '
        f'{steps.images.shape[2]}x{steps.images.shape[3]} with {args.objects} objects, '
        f'{args.device}, {args.threads} threads; losses differ by {difference:.1e}'
    )
    heads = {name: head_alone(steps.student, head, features) for name, head in steps.heads.items()}
    show('head', compare(heads, args.repeats, args.device), 'mmdet')
    memory = functools.partial(memory_apart, args=args)
    show('step', compare(steps.steps, args.repeats, args.device), 'mmdet', memory)
    times = compare(steps.cast_steps, args.repeats, args.device)
    show('step of CASTDetector', times, 'without the pixel loss', memory)
    added = [100 * (ratio - 1) for ratio in ratios(*reversed(times.values()))]
    print(f'  the pixel loss adds {spread(added, 0)} %')


if __name__ == '__main__':
    main()
