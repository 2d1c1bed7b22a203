"""What benchmarks/gpu.py measures: one part in a process of its own, with random weights.

    python benchmarks/gpu_parts.py PART RESULT.json --options '{"device": "cpu", "tiny": true}'

is how gpu.py starts it. A part that has READY imports (and compiles) first, makes the file
RESULT.json.ready, and measures once it reads a line. Rows are written one by one, so that a part
that is stopped leaves those that it has.
"""

import argparse
import contextlib
import copy
import gc
import json
import logging
import os
import statistics
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

os.environ.setdefault('HF_HUB_OFFLINE', '1')
ROOT = Path(__file__).resolve().parent.parent
MODELS_DIR = 'configs/_base_/models'
TEACHERS = dict(
    grounded_sam='configs/cityscapes/cityscapes_teacher_adapt_labeled.py',
    sam3='configs/cityscapes/cityscapes_sam3_adapt_labeled.py',
)
STUDENTS = dict(
    student=f'{MODELS_DIR}/cast_student.py',
    student_registers=f'{MODELS_DIR}/cast_student_dinov2_registers.py',
    student_dinov3=f'{MODELS_DIR}/cast_student_dinov3.py',
    cast_lite=f'{MODELS_DIR}/cast_lite.py',
    mask2former_r50=f'{MODELS_DIR}/mask2former_r50_coco.py',
)
STEPS = dict(
    cityscapes=dict(
        folder='cityscapes',
        configs=(
            'cityscapes_teacher_adapt_labeled',
            'cityscapes_teacher_adapt_self_training',
            'cityscapes_student_transfer',
            'cityscapes_student_refine',
            'cityscapes_sam3_adapt_labeled',
        ),
    ),
    single_gpu=dict(
        folder='cityscapes_single_gpu',
        configs=(
            'cityscapes_single_gpu_teacher_boxes_labeled',
            'cityscapes_single_gpu_teacher_boxes_self_training',
            'cityscapes_single_gpu_teacher_masks_labeled',
            'cityscapes_single_gpu_teacher_masks_self_training',
            'cityscapes_single_gpu_student_transfer',
            'cityscapes_single_gpu_student_refine',
        ),
    ),
    custom=dict(
        folder='custom',
        configs=(
            'custom_teacher_adapt_labeled',
            'custom_teacher_adapt_self_training',
            'custom_student_transfer',
            'custom_student_refine',
        ),
    ),
)
# What is compiled: modules, and methods, whose names end in brackets.
COMPILED = dict(
    grounded_sam=('grounding_dino.backbone', 'sam2.model.vision_encoder'),
    sam3=('network.vision_encoder',),
)
STUDENT_COMPILED = ('backbone', 'neck', 'panoptic_head.pixel_decoder', 'panoptic_head.decode()')
GB = 2**30


@dataclass
class Options:
    """What gpu.py passes on.

    Attributes:
        device: ``cuda``, or ``cpu`` to rehearse.
        tiny: Small teachers and images.
        boxes: Instances that a teacher keeps in an image.
        objects: Labeled objects in an image of a training step.
        presets: Those that are measured: gigabytes, or of one teacher, such as sam3:16.
        accumulated: Most batches of a step; an iteration's time depends little on their number.
        rounds: Most measured runs of a prediction.
        step_seconds: Measured runs of a kind of step or prediction end after so many seconds.
        images: That are labeled.
        backend: Of torch.compile.
        until: ``time.time()`` at which the part has to end.
    """

    device: str = 'cuda'
    tiny: bool = False
    boxes: int = 20
    objects: int = 20
    presets: Sequence[str] = ('16', '24', '80')
    accumulated: int = 8
    rounds: int = 20
    step_seconds: float = 2.5
    images: int = 10
    backend: str = 'inductor'
    until: float = float('inf')

    @property
    def size(self) -> tuple[int, int]:
        return (64, 128) if self.tiny else (1024, 2048)


class Rows:
    """The rows of a part, in its result's file from the moment on when they are there."""

    def __init__(self, path: Path) -> None:
        self.path, self.rows = path, []

    def add(self, **row: Any) -> None:
        self.rows.append(row)
        part = self.path.with_suffix('.part')
        part.write_text(json.dumps(self.rows))
        os.replace(part, self.path)
        print(json.dumps(row), flush=True)

    def late(self, options: 'Options', **names: Any) -> bool:
        """Whether time is over, which becomes a row."""
        over = time.time() > options.until
        if over:
            self.add(**names, problem='left out, time was short')
        return over

    @contextlib.contextmanager
    def trial(self, **names: Any) -> Iterator[None]:
        """A failure within becomes a row, and its memory is free for the next."""
        try:
            yield
        except Exception as error:  # whatever it is, the others are to be measured
            traceback.print_exc()
            self.add(
                **names, problem=f'{type(error).__name__}: {" ".join(str(error).split())}'[:400]
            )
        finally:
            free_memory()


# ---- measuring


def synchronize(device: str) -> None:
    import torch

    if device == 'cuda':
        torch.cuda.synchronize()


def free_memory() -> None:
    import torch

    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def allocated(device: str) -> tuple[int, int]:
    """Bytes in tensors, and bytes that the allocator holds."""
    import torch

    free_memory()
    if device != 'cuda':
        return 0, 0
    return torch.cuda.memory_allocated(), torch.cuda.memory_reserved()


def seconds(device: str, function: Callable[[], object]) -> float:
    """Wall time of a call, what it started on the device included."""
    synchronize(device)
    start = time.perf_counter()
    function()
    synchronize(device)
    return time.perf_counter() - start


def measure(
    options: Options,
    before: tuple[int, int],
    function: Callable[[], object],
    least: int = 2,
    prepare: Callable[[], object] = lambda: None,
) -> dict[str, Any]:
    """Of a call that is warm: seconds (median, fastest, slowest), and memory in GB.

    Memory is the peak beyond what was there ``before``: of torch's tensors, and of what its
    allocator held; None on the CPU. What ``prepare`` does before each call is not measured.
    """
    import torch

    cuda = options.device == 'cuda'
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    times: list[float] = []
    start = time.perf_counter()
    while len(times) < options.rounds and (
        len(times) < least or time.perf_counter() - start < options.step_seconds
    ):
        if times and time.time() > options.until:
            break
        prepare()
        times.append(seconds(options.device, function))
    peaks = (None, None)
    if cuda:
        found = torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved()
        peaks = tuple(round((peak - old) / GB, 2) for peak, old in zip(found, before))
    return dict(spread(times), peak_gb=peaks[0], reserved_gb=peaks[1])


def spread(times: list[float]) -> dict[str, Any]:
    digits = dict(median=statistics.median(times), fastest=min(times), slowest=max(times))
    return dict({name: round(value, 5) for name, value in digits.items()}, runs=len(times))


# ---- building


class Builder:
    """Models of configs with random weights, on the device."""

    def __init__(self, options: Options, folder: Path) -> None:
        self.options, self.folder = options, folder

    def config(self, path: str) -> Any:
        """A config, ready to be built offline."""
        from mmcast.configs import load_config

        config = load_config(ROOT / path)
        self.prepare(config)
        return config

    def prepare(self, config: Any) -> None:
        """Takes out files of weights, and makes teachers small where that is asked for."""
        network = config.model.get('detector', config.model)
        if network.type == 'GroundedSAM':
            self._prepare_grounded_sam(config)
        elif network.type == 'SAM3':
            self._prepare_sam3(config)
        else:
            network.backbone.init_cfg = None

    def _prepare_grounded_sam(self, config: Any) -> None:
        from mmcast.testing.teacher import shrink_teacher, write_tiny_bert

        folder = write_tiny_bert(self.folder / 'bert')
        if self.options.tiny:
            config.model.detector = shrink_teacher(config.model.detector, folder)
            contrast = config.model.get('pixel_contrast') or {}
            if contrast.get('in_channels') == 1536:
                contrast.in_channels = 64  # Swin's coarsest map
        else:
            Path(folder, 'config.json').unlink()  # bert-base is the default
        detector = config.model.detector
        detector.grounding_dino.language_model.name = folder
        detector.grounding_dino.test_cfg.update(score_thr=0.0, max_per_img=self.options.boxes)

    def _prepare_sam3(self, config: Any) -> None:
        from mmcast.testing.teacher import shrink_sam3, write_tiny_clip

        folder = str(write_tiny_clip(self.folder / 'clip'))
        if self.options.tiny:
            config.model.detector = shrink_sam3(config.model.detector, folder)
            if config.model.get('pixel_contrast'):
                config.model.pixel_contrast.in_channels = 32
        detector = config.model.detector
        detector.tokenizer = folder
        detector.test_cfg.update(score_thr=0.0, max_per_img=self.options.boxes)

    def build(self, config: Any) -> Any:
        import torch

        from mmcast.registry import MODELS

        torch.manual_seed(0)
        # mmdet changes what it builds from.
        model = MODELS.build(copy.deepcopy(config.model)).to(self.options.device)
        settle_weights(model)
        return model


def settle_weights(model: Any) -> None:
    """mmdet leaves some parameters as memory was until a file or ``init_weights`` fills them."""
    import torch

    with torch.no_grad():
        for parameter in model.parameters():
            if not bool(torch.isfinite(parameter).all()) or float(parameter.abs().max()) > 100:
                parameter.normal_(std=0.02)


# ---- parts


def predictor(options: Options, model: Any, dtype: str) -> Callable[[], Any]:
    """A call that predicts on one image in memory, from the preprocessor to masks of its size."""
    import torch
    from mmdet.structures import DetDataSample

    generator = torch.Generator().manual_seed(0)
    image = torch.randint(0, 256, (3, *options.size), dtype=torch.uint8, generator=generator)
    meta = dict(img_shape=options.size, ori_shape=options.size, scale_factor=(1.0, 1.0))

    def once() -> Any:
        sample = DetDataSample(metainfo=dict(meta))
        with (
            torch.no_grad(),
            torch.autocast(options.device, torch.bfloat16, enabled=dtype == 'bf16'),
        ):
            return model.test_step(dict(inputs=[image], data_samples=[sample]))

    return once


def measure_prediction(
    options: Options, model: Any, dtype: str, before: tuple[int, int]
) -> dict[str, Any]:
    """Two runs to warm up, then those that count."""
    free_memory()
    once = predictor(options, model, dtype)
    found = once()[0].pred_instances
    once()
    measured = measure(options, before, once)
    return dict(
        dtype=dtype,
        instances=len(found),
        **measured,
        images_per_second=round(1 / measured['median'], 2),
    )


def predict(rows: Rows, builder: Builder) -> None:
    """All models, then teachers and the student in turns for the ratio of their speeds."""
    options, kept = builder.options, {}
    for name, path in {**STUDENTS, **TEACHERS}.items():
        if rows.late(options, model=name, how='eager'):
            continue
        model = None  # of one that failed
        with rows.trial(model=name, how='eager'):
            before = allocated(options.device)
            model = builder.build(builder.config(path)).eval()
            millions = round(sum(each.numel() for each in model.parameters()) / 1e6, 1)
            for dtype in ('bf16', 'fp32') if name in TEACHERS or name == 'student' else ('bf16',):
                row = measure_prediction(options, model, dtype, before)
                rows.add(model=name, how='eager', parameters=millions, **row)
            if name in TEACHERS or name == 'student':
                kept[name] = model
            del model
    student = kept.pop('student', None)
    if student is None:
        return
    for name, teacher in kept.items():
        if rows.late(options, ratio=name):
            continue
        with rows.trial(ratio=name):
            calls = [predictor(options, model, 'bf16') for model in (teacher, student)]
            pairs = []
            for number in range(options.rounds + 1):
                pair = [seconds(options.device, call) for call in calls]
                if number:
                    pairs.append(pair[0] / pair[1])
                if pairs and time.time() > options.until:
                    break
            rows.add(ratio=name, **spread(pairs))


def compile_part(model: Any, name: str, backend: str) -> bool:
    """Lets a module, or a method, be compiled when it is first called; whether there is one."""
    import torch

    owner, _, method = name.rpartition('.') if name.endswith('()') else (name, '', '')
    try:
        module = model.get_submodule(owner)
    except AttributeError:
        return False
    if method:
        method = method.removesuffix('()')
        function = torch.compile(getattr(module, method), dynamic=False, backend=backend)
        setattr(module, method, function)
    else:
        module.compile(dynamic=False, backend=backend)
    return True


def compiled(rows: Rows, builder: Builder, wait: Callable[[], None], name: str) -> None:
    """One model with its encoder and more compiled, in bf16."""
    import torch
    from torch._dynamo.utils import counters

    options = builder.options
    with rows.trial(model=name, how='compiled'):
        before = allocated(options.device)
        model = builder.build(builder.config({**STUDENTS, **TEACHERS}[name])).eval()
        parts = COMPILED.get(name, STUDENT_COMPILED)
        done = [part for part in parts if compile_part(model.detector, part, options.backend)]
        once = predictor(options, model, 'bf16')
        spent = [seconds(options.device, once) for _ in range(3)]
        wait()
        row = measure_prediction(options, model, 'bf16', before)
        rows.add(
            model=name,
            how='compiled',
            parts=done,
            compile_seconds=round(sum(spent[:2]) - 2 * row['median'], 1),
            graph_breaks=sum(counters['graph_break'].values()),
            reasons=[' '.join(str(reason).split())[:200] for reason in counters['graph_break']],
            graphs=counters['stats'].get('unique_graphs', 0),
            **row,
        )
        torch.compiler.reset()


class TrainingStep:
    """A config's training step on rectangles and noise: its batch, its optimizer, its autocast.

    Args:
        builder: Of the model.
        config: With ``model``, ``optim_wrapper`` and ``train_dataloader``.
        size: Height and width of the images.
        num_classes: Of the labels.
        objects: In an image.
    """

    def __init__(
        self,
        builder: Builder,
        config: Any,
        size: tuple[int, int],
        num_classes: int,
        objects: int,
    ) -> None:
        import torch
        from mmengine.optim import build_optim_wrapper

        from mmcast.testing.data import make_samples
        from mmcast.training.runner import use_full_precision

        self.device = builder.options.device
        self.model = builder.build(config).train()
        self.amp = config.optim_wrapper.type == 'AmpOptimWrapper'
        if 'accumulative_counts' in config.optim_wrapper:
            config.optim_wrapper.accumulative_counts = min(
                builder.options.accumulated, config.optim_wrapper.accumulative_counts
            )
        self.accumulated = config.optim_wrapper.get('accumulative_counts', 1)
        if self.amp and self.device == 'cpu':
            use_full_precision(config.optim_wrapper)
        self.wrapper = build_optim_wrapper(self.model, config.optim_wrapper)
        batch = config.train_dataloader.batch_size
        if builder.options.tiny:
            batch = min(batch, 2)
        sources = ['labeled'] * batch
        if config.model.get('semi_train_cfg'):
            sources = (['labeled', 'pseudo'] * batch)[:batch]
        images, self.samples = make_samples(
            [objects] * batch, sources, size=size, num_classes=num_classes
        )
        self.inputs = list((images * 50 + 120).clamp(0, 255).to(torch.uint8))

    def prepare(self) -> None:
        """What a step reads, as the preprocessor changes samples."""
        self.batches = [
            dict(inputs=list(self.inputs), data_samples=[each.clone() for each in self.samples])
            for _ in range(self.accumulated)
        ]

    def run(self) -> None:
        """As many batches as are accumulated, and the optimizer's step."""
        import torch

        with contextlib.ExitStack() as stack:
            if self.amp and self.device == 'cpu':
                stack.enter_context(torch.autocast('cpu', torch.bfloat16))
            for batch in self.batches:
                self.model.train_step(batch, self.wrapper)

    def measure(self, options: Options, before: tuple[int, int]) -> dict[str, Any]:
        """Warm after one step, which makes the optimizer's states; one batch's share of a step."""
        self.prepare()
        self.run()
        measured = measure(options, before, self.run, prepare=self.prepare)
        learn = sum(p.numel() for p in self.model.parameters() if p.requires_grad)
        return dict(
            batch=len(self.inputs),
            accumulated=self.accumulated,
            learn=round(learn / 1e6, 1),
            **measured,
            iteration=round(measured['median'] / self.accumulated, 5),
            # False: gradients were not finite, so the optimizer took no step and has no states.
            stepped=bool(self.wrapper.optimizer.state),
        )


def presets(rows: Rows, builder: Builder, teacher: str) -> None:
    """A step and a prediction of a teacher with the options for 16, 24 and 80 GB."""
    import memory
    from mmengine.config import Config

    options = builder.options
    of_gpu = Config.fromfile(ROOT / 'configs/_base_/presets.py').presets[teacher]
    for gpu, changes in of_gpu.items():
        if not {str(gpu), f'{teacher}:{gpu}'}.intersection(options.presets):
            continue
        if rows.late(options, teacher=teacher, preset=gpu):
            continue
        model = step = None  # of one that failed
        with rows.trial(teacher=teacher, preset=gpu):
            config = memory.step_config(teacher, changes)
            builder.prepare(config)
            before = allocated(options.device)
            objects = options.objects if options.tiny else memory.OBJECTS  # as it is computed
            step = TrainingStep(builder, config, options.size, len(memory.CLASSES), objects)
            row = step.measure(options, before)
            rows.add(teacher=teacher, preset=gpu, **row)
            model = step.model.eval()
            step.wrapper.zero_grad()
            del step
            before = tuple(
                now - weights
                for now, weights in zip(allocated(options.device), (bytes_of(model),) * 2)
            )
            row = measure_prediction(options, model, 'bf16', before)
            rows.add(teacher=teacher, preset=gpu, prediction=True, **row)
            del model


def bytes_of(model: Any) -> int:
    """Of parameters and buffers."""
    return sum(
        each.numel() * each.element_size() for each in (*model.parameters(), *model.buffers())
    )


def steps(rows: Rows, builder: Builder, group: str) -> None:
    """A training step of each config of a folder, and what the pixel loss adds to it."""
    options, folder = builder.options, STEPS[group]['folder']
    for name in STEPS[group]['configs']:
        if rows.late(options, config=name):
            continue
        step = None  # of one that failed
        with rows.trial(config=name):
            config = builder.config(f'configs/{folder}/{name}.py')
            detector = config.model.detector
            size = options.size
            if group == 'custom':
                size = (64, 64) if options.tiny else (256, 256)
            elif 'student' in name:  # crops
                size = tuple(side // (1 if options.tiny else 2) for side in size)
            classes = detector.get('classes') or range(detector.panoptic_head.num_things_classes)
            before = allocated(options.device)
            step = TrainingStep(builder, config, size, len(classes), options.objects)
            row = step.measure(options, before)
            hours = row['iteration'] * config.train_cfg.max_iters / 3600
            row.update(iterations=config.train_cfg.max_iters, hours=round(hours, 2))
            # Self-training differs from the step before in its images' origin alone.
            if step.model.pixel_contrast is not None and 'self_training' not in name:
                step.model.pixel_contrast = None
                without = measure(options, before, step.run, 1, step.prepare)
                row.update(without_pixel_loss=without['median'])
                row.update(pixel_loss_share=round(1 - without['median'] / row['median'], 3))
            rows.add(config=name, size=size, **row)
            del step


def labels(rows: Rows, builder: Builder) -> None:
    """Pseudo-labels a second: image files, prediction, encoding, and entries in the store."""
    import torch
    from pseudo_labels import write_images

    from mmcast.models.cast import CASTDetector
    from mmcast.pseudo_labels.generate import generate_pseudo_labels

    options, seen = builder.options, []

    def note(module: Any, _: Any) -> None:
        if isinstance(module, CASTDetector):
            seen.append(time.perf_counter())

    for teacher, path in TEACHERS.items():
        if rows.late(options, teacher=teacher):
            continue
        with rows.trial(teacher=teacher), tempfile.TemporaryDirectory() as folder:
            folder = Path(folder)
            config = builder.config(path)
            write_images(folder, options.images, options.size)
            model = builder.build(config)
            torch.save(model.state_dict(), folder / 'teacher.pth')
            del model
            for dtype in ('fp32', 'bf16'):
                if rows.late(options, teacher=teacher, dtype=dtype):
                    continue
                free_memory()
                hook = torch.nn.modules.module.register_module_forward_pre_hook(note)
                seen.clear()
                out = folder / f'{dtype}.json'
                with torch.autocast(options.device, torch.bfloat16, enabled=dtype == 'bf16'):
                    counts = generate_pseudo_labels(
                        config,
                        folder / 'teacher.pth',
                        out,
                        ann_file=folder / 'list.json',
                        img_dir=folder / 'images',
                        score_floor=0.0,
                        device=options.device,
                        progress=False,
                    )
                end = time.perf_counter()
                hook.remove()
                warm = 2  # images before the ones that count
                rate = (options.images - warm) / (end - seen[warm])
                rows.add(
                    teacher=teacher,
                    dtype=dtype,
                    images=options.images - warm,
                    instances=counts['instances'],
                    unreadable=counts['unreadable_images'],
                    images_per_second=round(rate, 3),
                    labels_per_second=round(rate * counts['instances'] / options.images, 1),
                    kilobytes_per_image=round(out.stat().st_size / 1000 / options.images, 1),
                )


def versions() -> dict[str, Any]:
    """Of what the figures depend on."""
    import importlib.metadata
    import platform

    import torch

    names = ('torch', 'torchvision', 'transformers', 'timm', 'peft', 'numpy', 'triton')
    names += ('onedl-mmengine', 'onedl-mmcv', 'onedl-mmdetection')
    found: dict[str, Any] = dict(python=platform.python_version(), cores=os.cpu_count())
    for name in names:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    if torch.cuda.is_available():
        card = torch.cuda.get_device_properties(0)
        found.update(
            gpu=card.name, gpu_memory_gb=round(card.total_memory / GB, 1), cuda=torch.version.cuda
        )
    return found


def import_all() -> None:
    """What takes long, before the part's turn."""
    import mmdet.models
    import transformers

    import mmcast.models
    import mmcast.pseudo_labels.generate
    import mmcast.testing
    import mmcast.training.runner  # noqa: F401

    del mmdet, transformers


def run(part: str, rows: Rows, builder: Builder, wait: Callable[[], None]) -> None:
    kind, _, of = part.partition(':')
    if kind == 'compiled':  # it waits when it has compiled
        compiled(rows, builder, wait, of)
        return
    wait()
    if kind == 'versions':
        rows.add(**versions())
    elif kind == 'predict':
        predict(rows, builder)
    elif kind == 'labels':
        labels(rows, builder)
    elif kind == 'presets':
        presets(rows, builder, of)
    else:
        steps(rows, builder, of)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('part')
    parser.add_argument('result', type=Path)
    parser.add_argument('--options', default='{}')
    args = parser.parse_args()
    from mmcast.processes import end_with_parent

    end_with_parent()
    given = json.loads(args.options)
    options = Options(**{f.name: given[f.name] for f in fields(Options) if f.name in given})
    import_all()
    import torch
    from mmengine.logging import MMLogger
    from mmengine.registry import init_default_scope

    if options.device == 'cpu':
        torch.set_num_threads(1)
    init_default_scope('mmcast')
    MMLogger.get_current_instance().setLevel('ERROR')
    logging.disable(logging.INFO)

    def wait() -> None:
        """Until it is this part's turn; the line says when it has to end."""
        Path(f'{args.result}.ready').touch()
        line = sys.stdin.readline()
        if not line:
            sys.exit('whoever started this is gone')
        options.until = float(line)

    with tempfile.TemporaryDirectory() as folder:
        run(args.part, Rows(args.result), Builder(options, Path(folder)), wait)


if __name__ == '__main__':
    main()
