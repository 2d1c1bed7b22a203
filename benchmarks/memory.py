"""GPU memory of a training step of a foundation teacher, computed on the CPU.

    python benchmarks/memory.py                                   # the presets of both teachers
    python benchmarks/memory.py --teacher sam3 --gpu 24 --size 1024 2048
    python benchmarks/memory.py --cfg-options model.lora.rank=8   # other options

Nothing of this is measured on a GPU. Parameters, gradients and AdamW's two states are counted in
the full network, built without memory (``meta``). Activations are what autograd saves in forward
and losses: measured, in the CPU's bf16, in networks of full width with few layers and small images,
and extrapolated by the numbers of layers, pixels and images. With activation checkpointing one
layer is computed again at a time, and its activations have gradients: that layer counts twice.
Deformable attention is in plain torch, as mmcv runs it in bf16 on a GPU too. A share is added for
what the allocator cannot use and for passing tensors, and a fixed part for CUDA itself.
"""

import argparse
import copy
import itertools
import json
import re
import tempfile
import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from unittest import mock

import torch
from torch import Tensor, nn

from mmcast.cli.errors import report_errors
from mmcast.errors import CASTError
from mmcast.files import write_atomically

ROOT = Path(__file__).resolve().parent.parent
GB = 2**30
REST = 'rest'
# States of an optimiser, in numbers per parameter.
STATES = dict(AdamW=2, Adam=2, SGD=1)


# What autograd saves


class _Saved:
    """A tensor in the graph, under a name of its own, so that it is seen when the graph is gone."""

    def __init__(self, tensor: Tensor, group: str, call: int) -> None:
        self.tensor, self.group, self.call = tensor.detach(), group, call


@dataclass(frozen=True)
class Saved:
    """Bytes by group: of all that is in the graph, and of the call of a module that saved most."""

    kept: dict[str, int]
    largest: dict[str, int]


@contextmanager
def saved_activations(model: nn.Module, groups: Iterable[str]) -> Iterator[Callable[[], Saved]]:
    """Within the block, notes what autograd saves; parameters and buffers do not count.

    Args:
        model: Whose modules' names are the groups' names.
        groups: Regular expressions that fit whole names of modules, or names of a module's methods
            that end in brackets; what is saved within is counted there, the innermost one wins, and
            all else is ``rest``.

    Yields:
        A function that tells what is in the graph by then.
    """
    held: weakref.WeakSet[_Saved] = weakref.WeakSet()
    patterns, calls = list(groups), itertools.count(1)
    stack = [(REST, 0)]
    own = {each.untyped_storage().data_ptr() for each in (*model.parameters(), *model.buffers())}

    def pack(tensor: Tensor) -> _Saved:
        saved = _Saved(tensor, *stack[-1])
        held.add(saved)
        return saved

    def enter(group: str) -> Callable:
        return lambda *_: stack.append((group, next(calls)))

    def leave(*_) -> None:
        stack.pop()

    def tell() -> Saved:
        kept, of_call, seen = dict.fromkeys((*patterns, REST), 0), Counter(), set(own)
        for saved in sorted(held, key=lambda saved: saved.call):
            storage = saved.tensor.untyped_storage()
            if storage.data_ptr() not in seen:
                seen.add(storage.data_ptr())
                kept[saved.group] += storage.nbytes()
                of_call[saved.group, saved.call] += storage.nbytes()
        largest = dict.fromkeys(kept, 0)
        for (group, _), size in of_call.items():
            largest[group] = max(largest[group], size)
        return Saved(kept, largest)

    def method(function: Callable, group: str) -> Callable:
        def run(*args):
            enter(group)()
            try:
                return function(*args)
            finally:
                leave()

        return run

    with ExitStack() as undo:
        for group in patterns:
            if group.endswith('()'):
                owner, _, name = group.removesuffix('()').rpartition('.')
                module = model.get_submodule(owner)
                undo.enter_context(
                    mock.patch.object(module, name, method(getattr(module, name), group))
                )
        for name, module in model.named_modules():
            group = next((each for each in patterns if re.fullmatch(each, name)), None)
            if group is not None:
                before = module.register_forward_pre_hook(enter(group))
                after = module.register_forward_hook(leave, always_call=True)
                undo.callback(before.remove)
                undo.callback(after.remove)
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda saved: saved.tensor):
            yield tell


# Extrapolation


@dataclass(frozen=True)
class Counts:
    """What activations are in proportion to.

    Attributes:
        images: Of a batch.
        pixels: By the name of an input, such as ``square``: of one image.
        layers: By group: layers of the network that the group stands for.
    """

    images: int
    pixels: Mapping[str, int]
    layers: Mapping[str, int] = field(default_factory=dict)


def extrapolate(runs: Sequence[tuple[Counts, Mapping[str, int]]], full: Counts) -> dict[str, float]:
    """Bytes by group at other counts.

    A group has w + images * (c + sum of p_k * pixels_k) bytes a layer: weights in bf16, what an
    image has whatever its size, and what grows with each input.

    Args:
        runs: Counts and bytes by group: the first, and one for each input with that input's pixels
            changed alone, and one with the images changed alone.
        full: The counts that are asked for.
    """
    (base, first), *others = runs
    result = {}
    for group, measured in first.items():
        rates, per_image = {}, None
        for counts, sizes in others:
            changed = [name for name in base.pixels if counts.pixels[name] != base.pixels[name]]
            difference = sizes[group] - measured
            if changed:
                (name,) = changed
                step = counts.pixels[name] - base.pixels[name]
                rates[name] = difference / (step * base.images)
            else:
                per_image = difference / (counts.images - base.images)
        image = per_image + sum(
            rate * (full.pixels[name] - base.pixels[name]) for name, rate in rates.items()
        )
        fixed = measured - base.images * per_image
        layers = full.layers.get(group, 1) / base.layers.get(group, 1)
        result[group] = layers * (fixed + full.images * image)
    return result


def largest_layers(runs: Sequence[tuple[Counts, Saved]], full: Counts) -> dict[str, float]:
    """Bytes by group of the call that saves most.

    Most calls see the batch; those that see one image have as much in a batch of two.

    Args:
        runs: As in :func:`extrapolate`; the last one has other images.
        full: The counts that are asked for.
    """
    single = [(replace(counts, layers={}), saved.largest) for counts, saved in runs]
    full = replace(full, layers={})
    together = extrapolate(single, full)
    alone = extrapolate(single, replace(full, images=1))
    first, last = single[0][1], single[-1][1]
    return {
        group: (together if last[group] > 1.5 * size else alone)[group]
        for group, size in first.items()
    }


# What does not depend on images


@dataclass(frozen=True)
class Static:
    """Bytes of the network and of what learns."""

    weights: int
    gradients: int
    optimizer: int
    parameters: int
    learning: int


def static_memory(model: nn.Module, optimizer: str = 'AdamW') -> Static:
    """Of a network, which may be on the ``meta`` device.

    Raises:
        CASTError: The optimiser is not in ``STATES``.
    """
    if optimizer not in STATES:
        raise CASTError(f'states of {optimizer} are not known; known are {", ".join(STATES)}')
    parameters = list(model.parameters())
    learning = [each for each in parameters if each.requires_grad]
    gradients = sum(each.numel() * each.element_size() for each in learning)
    return Static(
        weights=sum(each.numel() * each.element_size() for each in (*parameters, *model.buffers())),
        gradients=gradients,
        optimizer=STATES[optimizer] * gradients,
        parameters=sum(each.numel() for each in parameters),
        learning=sum(each.numel() for each in learning),
    )


@dataclass(frozen=True)
class Memory:
    """A training step's, in bytes.

    Attributes:
        static: What does not depend on images.
        kept: Activations from forward to backward, by group.
        layers: Activations of one layer of a group that is not checkpointed.
        checkpointed: Whether layers are made again in the backward pass.
        slack: What is added to all, as a share.
        context: What CUDA itself takes.
    """

    static: Static
    kept: Mapping[str, float]
    layers: Mapping[str, float]
    checkpointed: bool
    slack: float
    context: float

    @property
    def activations(self) -> float:
        """Of all groups."""
        return sum(self.kept.values())

    @property
    def largest_layer(self) -> float:
        """What is made again at a time, at most."""
        return max(self.layers.values())

    @property
    def total(self) -> float:
        """The activations of the layer in the backward pass have gradients; with checkpointing they
        are not among those kept.
        """
        static = self.static.weights + self.static.gradients + self.static.optimizer
        layer = (2 if self.checkpointed else 1) * self.largest_layer
        return (static + self.activations + layer) * (1 + self.slack) + self.context


# The teachers


@dataclass(frozen=True)
class Teacher:
    """How a teacher is measured.

    Attributes:
        config: Of the model.
        schedule: Of its training.
        groups: Regular expression of the modules of a group (of layers that are alike) to the
            number of them in the network, and in the one that is measured.
        small: Options of the model that is measured, beside those of ``inputs``.
        inputs: For each input its name, options and pixels at two sizes.
        full: Pixels of an image's inputs in training, from its height and width.
        image: Height and width of the images that are measured.
    """

    config: str
    schedule: str
    groups: Mapping[str, tuple[int, int]]
    small: Mapping[str, object]
    inputs: Mapping[str, Sequence[tuple[Mapping[str, object], int]]]
    full: Callable[[object, tuple[int, int]], dict[str, int]]
    image: tuple[int, int] = (384, 384)


def _grounded_sam_pixels(detector, size: tuple[int, int]) -> dict[str, int]:
    from mmcv.image import rescale_size

    network = detector.grounding_dino
    scales = network.get('train_box_scales') or [network.box_scale]
    sizes = [rescale_size(size[::-1], tuple(scale)) for scale in scales]
    return dict(
        boxes=max(width * height for width, height in sizes),
        square=detector.sam2.get('image_size', 1024) ** 2,
    )


_HIERA = r'sam2\.model\.vision_encoder\.backbone\.blocks\.'
_BOXES = 'grounding_dino.train_box_scales'
TEACHERS = dict(
    grounded_sam=Teacher(
        config='configs/_base_/models/grounded_sam.py',
        schedule='configs/_base_/schedules/teacher.py',
        groups={
            **{
                rf'grounding_dino\.backbone\.stages\.{stage}\.blocks\.\d+': (depth, 1)
                for stage, depth in enumerate((2, 2, 18, 2))
            },
            r'grounding_dino\.encoder\.layers\.\d+': (6, 1),
            r'grounding_dino\.encoder\.text_layers\.\d+': (6, 1),
            r'grounding_dino\.encoder\.fusion_layers\.\d+': (6, 1),
            r'grounding_dino\.decoder\.layers\.\d+': (6, 6),
            # The first block of a stage has the pixels and the width of the stage before.
            _HIERA + r'[01]': (2, 2),
            _HIERA + '2': (1, 1),
            _HIERA + '3': (5, 1),
            _HIERA + '4': (1, 1),
            _HIERA + '[56]': (35, 2),
            _HIERA + '7': (1, 1),
            _HIERA + '8': (3, 1),
            'sam2._losses_of_prompts()': (1, 1),  # a chunk of prompts
        },
        small={
            'grounding_dino.backbone.depths': [1, 1, 1, 1],
            'grounding_dino.encoder.num_layers': 1,
            'sam2.encoder': dict(blocks_per_stage=[2, 2, 3, 2], global_attention_blocks=[6]),
        },
        inputs=dict(
            boxes=[({_BOXES: [(384, 384)]}, 384**2), ({_BOXES: [(768, 768)]}, 768**2)],
            square=[({'sam2.image_size': 256}, 256**2), ({'sam2.image_size': 512}, 512**2)],
        ),
        full=_grounded_sam_pixels,
    ),
    sam3=Teacher(
        config='configs/_base_/models/sam3.py',
        schedule='configs/_base_/schedules/sam3_adaptation.py',
        groups={
            r'network\.vision_encoder\.backbone\.layers\.\d+': (32, 2),
            r'network\.detr_encoder\.layers\.\d+': (6, 1),
            r'network\.detr_decoder\.layers\.\d+': (6, 6),
            r'network\.mask_decoder': (1, 1),
        },
        small={
            'network': dict(
                vision_config=dict(
                    backbone_config=dict(num_hidden_layers=2, global_attn_indexes=[1])
                ),
                text_config=dict(num_hidden_layers=1),
                detr_encoder_config=dict(num_layers=1),
            ),
        },
        inputs=dict(square=[({'image_size': 336}, 336**2), ({'image_size': 672}, 672**2)]),
        full=lambda detector, size: dict(square=detector.get('image_size', 1008) ** 2),
    ),
)
OBJECTS = 32  # of an image, as many as may prompt SAM2 or have mask losses
CLASSES = [f'class {letter}' for letter in 'abcdefghij']


def step_config(teacher: str, options: Mapping[str, object]):
    """A teacher's training step as a config: the model's, the schedule's, and options of a step."""
    from mmengine.config import Config

    config = Config.fromfile(ROOT / TEACHERS[teacher].schedule)
    config.merge_from_dict(dict(Config.fromfile(ROOT / TEACHERS[teacher].config)))
    config.merge_from_dict(dict(train_dataloader=dict(batch_size=1)))
    config.merge_from_dict(dict(options))
    config.model.detector.classes = CLASSES
    return config


def compute(
    teacher: str,
    options: Mapping[str, object],
    size: tuple[int, int],
    folder: Path,
    slack: float = 0.1,
    context: float = 1.0,
) -> Memory:
    """Memory of a training step.

    Args:
        teacher: Of ``TEACHERS``.
        options: Of the step's config.
        size: Height and width of its images.
        folder: For the files of language models.
        slack: What is added to all, as a share.
        context: What CUDA itself takes, in GB.
    """
    from accelerate import init_empty_weights

    from mmcast.registry import MODELS

    how, config = TEACHERS[teacher], step_config(teacher, options)
    detector = config.model.detector
    _write_language_models(teacher, detector, folder)
    with init_empty_weights():
        static = static_memory(
            MODELS.build(copy.deepcopy(config.model)),  # mmdet changes it
            config.optim_wrapper.optimizer.type,
        )
    checkpointed = bool(detector.get('activation_checkpointing'))
    full = Counts(
        config.train_dataloader.batch_size,
        how.full(detector, size),
        {group: number for group, (number, _) in how.groups.items()},
    )
    with_it = _runs(teacher, config.model, checkpointed)
    without = _runs(teacher, config.model, False)
    kept = extrapolate([(counts, saved.kept) for counts, saved in with_it], full)
    layers = largest_layers(without, full)
    del layers[REST]
    return Memory(static, kept, layers, checkpointed, slack, context * GB)


_known_runs: dict[str, list[tuple[Counts, Saved]]] = {}


def _runs(teacher: str, model, checkpointing: bool) -> list[tuple[Counts, Saved]]:
    """What :func:`measure` tells, once for steps that differ in their batches alone."""
    key = f'{teacher} {checkpointing} {model}'
    if key not in _known_runs:
        _known_runs[key] = measure(TEACHERS[teacher], model, checkpointing)
    return _known_runs[key]


def measure(how: Teacher, model, checkpointing: bool) -> list[tuple[Counts, Saved]]:
    """The runs that :func:`extrapolate` needs, of a model's config."""
    layers = {group: number for group, (_, number) in how.groups.items()}
    base = dict.fromkeys(how.inputs, 0)
    variants = [(base, 1), *((dict(base, **{name: 1}), 1) for name in how.inputs), (base, 2)]
    runs = []
    for chosen, images in variants:
        options = dict(how.small, activation_checkpointing=checkpointing)
        for name, which in chosen.items():
            options.update(how.inputs[name][which][0])
        pixels = {name: how.inputs[name][which][1] for name, which in chosen.items()}
        runs.append((Counts(images, pixels, layers), _measure_once(how, model, options, images)))
    return runs


def _measure_once(how: Teacher, model, options: Mapping[str, object], images: int) -> Saved:
    """What a step of a network with few layers saves, in forward and losses."""
    from mmengine.config import Config

    from mmcast.registry import MODELS
    from mmcast.testing.data import make_samples

    config = Config(dict(model=copy.deepcopy(model)))
    config.merge_from_dict({f'model.detector.{name}': value for name, value in options.items()})
    config.model.pixel_contrast = None  # its strong view has no graph, and its maps are small
    torch.manual_seed(0)
    network = MODELS.build(config.model).train()
    batch, samples = make_samples([OBJECTS] * images, size=how.image, num_classes=len(CLASSES))
    groups = {_in_detector(group): group for group in how.groups} | {REST: REST}
    names = [name for name in groups if name != REST]
    with saved_activations(network, names) as tell, torch.autocast('cpu', torch.bfloat16):
        loss = sum(network.loss(batch, samples).values())
        saved = tell()
        del loss
    return Saved(
        *(
            {groups[name]: size for name, size in sizes.items()}
            for sizes in (saved.kept, saved.largest)
        )
    )


def _in_detector(group: str) -> str:
    return f'detector.{group}' if group.endswith('()') else rf'detector\.{group}'


def _write_language_models(teacher: str, detector, folder: Path) -> None:
    """Small vocabularies, in networks of full size."""
    if teacher == 'grounded_sam':
        from mmcast.testing.teacher import write_tiny_bert

        Path(write_tiny_bert(folder / 'bert'), 'config.json').unlink()  # bert-base is the default
        detector.grounding_dino.language_model.name = str(folder / 'bert')
    else:
        from mmcast.testing.teacher import write_tiny_clip

        detector.tokenizer = str(write_tiny_clip(folder / 'clip'))


@report_errors
def main() -> None:
    from mmengine.config import Config, DictAction
    from mmengine.logging import MMLogger
    from mmengine.registry import init_default_scope

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--teacher', choices=TEACHERS, nargs='+', default=list(TEACHERS))
    parser.add_argument('--gpu', type=int, nargs='+', help='presets in GB (all)')
    parser.add_argument(
        '--size', nargs=2, type=int, default=[1024, 2048], metavar=('HEIGHT', 'WIDTH')
    )
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, default={})
    parser.add_argument('--groups', action='store_true', help='also activations by group of layers')
    parser.add_argument('--slack', type=float, default=0.1, help='added to all, as a share (0.1)')
    parser.add_argument('--context', type=float, default=1.0, help='of CUDA itself, in GB (1)')
    parser.add_argument(
        '--json', type=Path, help='also write the totals here, for benchmarks/gpu.py'
    )
    args = parser.parse_args()
    MMLogger.get_current_instance().setLevel('ERROR')
    init_default_scope('mmcast')
    presets = Config.fromfile(ROOT / 'configs/_base_/presets.py').presets
    print(
        f'computed, not measured on a GPU: a training step on images of {args.size[0]}x'
        f'{args.size[1]}, {OBJECTS} objects, in GB\n\n'
        '| teacher | preset | batch | parameters | learn | weights | gradients | optimiser | '
        'activations | largest layer | total |\n|---|---|---|---|---|---|---|---|---|---|---|'
    )
    totals = []
    with tempfile.TemporaryDirectory() as folder:
        for teacher in args.teacher:
            for gpu, options in presets[teacher].items():
                if args.gpu and gpu not in args.gpu:
                    continue
                options = {**options, **args.cfg_options}
                memory = compute(
                    teacher, options, tuple(args.size), Path(folder), args.slack, args.context
                )
                batch = options.get('train_dataloader.batch_size', 1)
                print(_row(teacher, gpu, batch, memory), flush=True)
                total = round(memory.total / GB, 2)
                totals.append(dict(teacher=teacher, gpu=gpu, batch=batch, total=total))
                if args.groups:
                    for group, size in memory.kept.items():
                        layer = memory.layers.get(group, 0)
                        print(f'    {size / GB:7.3f}, a layer {layer / GB:.3f}: {group}')
    if args.json:
        write_atomically(args.json, json.dumps(totals, indent=1))


def _row(teacher: str, gpu: int, batch: int, memory: Memory) -> str:
    static = memory.static
    sizes = (
        static.weights,
        static.gradients,
        static.optimizer,
        memory.activations,
        memory.largest_layer,
        memory.total,
    )
    cells = [
        teacher,
        gpu,
        batch,
        f'{static.parameters / 1e6:.1f} M',
        f'{static.learning / 1e6:.1f} M',
        *(f'{size / GB:.2f}' for size in sizes),
    ]
    return f'| {" | ".join(map(str, cells))} |'


if __name__ == '__main__':
    main()
