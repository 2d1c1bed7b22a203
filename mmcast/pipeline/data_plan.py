"""The step that chooses sizes, windows, queries, iterations, batches and thresholds for own images,
and says why.

A rule is a function of the data's numbers. It is short because it has to be believed: the table
that is printed and stored names the number that each value comes from.
"""

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmengine.dist import get_world_size

from mmcast.coco.data_facts import DataFacts, MeasuredData, measure_data
from mmcast.errors import CASTError
from mmcast.models.lora import LoRA
from mmcast.models.teacher.prompts import read_texts
from mmcast.pipeline.decisions import GIVEN, Decisions, number
from mmcast.pipeline.held_out import number_of_folds
from mmcast.pipeline.state import flatten
from mmcast.pipeline.views import FINEST_WINDOW, SMALLEST, WHOLE, Limit, View, choose_view, rounded
from mmcast.spelling import hint
from mmcast.training.batches import sampler_batch_size
from mmcast.training.overrides import nested

EFFECTIVE_BATCH = 8  # images of an optimiser's step, in the paper's recipes
SOURCES = 2  # labeled and pseudo-labeled images, in equal numbers


@dataclass(frozen=True)
class Teacher:
    """What the plan has to know of a teacher.

    Attributes:
        network: Its class.
        short, long: Sides in pixels that it brings an image to, at most.
        most_objects: So many in an image it can find.
        score_thr: Lowest score of a pseudo-label that is learned from.
        why_score: Where that is from.
    """

    network: str
    short: int
    long: int
    most_objects: int
    score_thr: float
    why_score: str


@dataclass(frozen=True)
class Student:
    """What the plan has to know of a student.

    Attributes:
        divisor: Sides of its input are multiples of it.
        passes: So often it sees an image in step ``transfer``.
        fewest, most: Optimiser's steps, whatever the number of images.
        start_queries: So many its start weights have, and all of them stay.
    """

    divisor: int
    passes: int = 242
    fewest: int = 5000
    most: int = 90000
    start_queries: int = 0


TEACHERS = dict(
    grounded_sam=Teacher(
        'GroundedSAM', 800, 1333, 300, 0.3, "the paper's threshold for Grounding-DINO"
    ),
    sam3=Teacher('SAM3', 1008, 1008, 200, 0.5, "SAM3's own threshold for what it reports"),
)
STUDENTS = dict(
    cast_student=Student(14),
    cast_lite=Student(32),
    mask2former_r50_coco=Student(32, passes=60, fewest=2500, most=40000, start_queries=100),
)
# Side of a training crop in pixels and images that go through a student at a time, by GB.
CROPS = {16: 512, 24: 640, 80: 1024}
STUDENT_BATCH = {16: 2, 24: 4, 80: 8}
# Steps of the teacher in 1a: the paper's 1,000 of 8 images see its 297 labeled ones 27 times.
TEACHER_PASSES, TEACHER_STEPS = 27, (250, 1000)
LARGEST_TEACHER_INPUT = (1024, 2048)  # no teacher looks at more pixels of a whole image
ENOUGH = 20  # labeled images, and objects of a class, from which a class's frequency is estimated
# Variables that decide an option of the training steps; any other goes by
# teacher_options and student_options.
VARIABLES = {
    'train_dataloader.batch_size': ['teacher_batch_size', 'student_batch_size'],
    'train_cfg.max_iters': [
        'teacher_iterations',
        'self_training_iterations',
        'student_iterations',
        'refine_iterations',
    ],
    'model.detector.panoptic_head.num_queries': ['num_queries'],
}
LARGEST_NUMBER_OF_POINTS = 12544  # the recipe's, of a mask; three quarters of a smaller crop's


@dataclass(frozen=True)
class Choices:
    """What the pipeline's variables say about teacher, student and classes, see
    :func:`plan_from_data`.
    """

    teacher: str
    student: str
    gpu: int
    classes: Sequence[str]
    prompts: Mapping[str, str | Sequence[str]]
    self_training: bool
    processes: int


def plan_from_data(
    out_dir: str | os.PathLike,
    labeled: str,
    val: str,
    unlabeled: str,
    classes: Sequence[str],
    teacher: str,
    student: str,
    gpu: int | str,
    prompts: Mapping[str, str | Sequence[str]] | None = None,
    presets: Mapping[str, Mapping[int, Mapping[str, Any]]] | None = None,
    given: Mapping[str, Any] | None = None,
    max_queries: int | str = 300,
    weights: Mapping[str, Any] | None = None,
    teacher_options: Mapping[str, Any] | None = None,
    student_options: Mapping[str, Any] | None = None,
    self_training: bool = True,
    processes: int | None = None,
) -> dict:
    """A pipeline's step: looks at the data and decides what the training steps need to be told.

    Args:
        out_dir: Folder of ``plan.json`` and ``plan.txt``.
        labeled: COCO file of the data step.
        val: Likewise.
        unlabeled: Likewise.
        classes: Names to learn.
        teacher: One of ``TEACHERS``.
        student: One of ``STUDENTS``.
        gpu: Memory in GB, one of ``CROPS``.
        prompts: Class names to a text or several, for the teacher.
        presets: Options of the teacher's training steps by teacher and memory.
        given: Values that win over the rules, by the setting's name; None where a rule decides.
        max_queries: Most objects that the student finds in an image or window.
        weights: ``dinov2``, ``language_model`` and ``tokenizer``, which configs name by path.
        teacher_options: Options of the teacher's steps, which win over all others.
        student_options: The same of the student's.
        self_training: Whether ``adapt_self_training`` runs, so that its length is decided.
        processes: That train together, each with as much memory; default those of this run.

    Returns:
        Options of each step, by its name (``zero_shot``, ``adapt_labeled``,
        ``adapt_self_training``, ``transfer``, ``refine``); ``teacher_transforms`` and
        ``student_transforms`` of the data; ``num_queries``; ``variables``, those that decide an
        option of the steps, by its key; ``decisions``, the rows of the table, and ``table``, the
        file with it.

    Raises:
        CASTError: There is no such teacher, student or preset, a value is not what its setting
            takes, or a class cannot be asked for by its texts.
    """
    gpu = check_choices(teacher, student, gpu)
    processes = processes or get_world_size()
    choices = Choices(teacher, student, gpu, classes, prompts or {}, self_training, processes)
    read_texts(TEACHERS[teacher].network, classes, prompts)  # here, not after the downloads
    data = measure_data(labeled, val, unlabeled, classes)
    decisions = Decisions(given or {})
    if not self_training and decisions.given.get('self_training_iterations') is not None:
        raise CASTError(
            'variables.self_training_iterations would do nothing, as variables.self_training is '
            'False'
        )
    describe(decisions, data.facts, choices)
    preset = dict((presets or {}).get(teacher, {}).get(gpu, {}))
    seen = _teacher_view(decisions, data, TEACHERS[teacher])
    taken = STUDENTS[student]
    limit = Limit(CROPS[gpu] // taken.divisor * taken.divisor, f'{gpu} GB', taken.divisor)
    most = int(number(max_queries, 'max_queries'))
    shown = choose_view(decisions, data, limit, most, taken.start_queries)
    steps = dict(
        _teacher_steps(decisions, data.facts, choices, preset, seen),
        **_student_steps(decisions, data.facts, choices, shown),
    )
    _set_metrics(steps, decisions.max_dets(data.facts))
    _set_pseudo_labels(decisions, data.facts, TEACHERS[teacher], labeled, steps)
    _set_weights(steps, teacher, student, weights or {})
    for name, options in steps.items():
        extra = student_options if name in ('transfer', 'refine') else teacher_options
        _add_options(options, extra or {})
    _check_lora(steps['adapt_labeled'])
    for name, extra in (('teacher_options', teacher_options), ('student_options', student_options)):
        for key, value in flatten(nested(extra or {})).items():
            decisions.add(f'{name}.{key}', value, GIVEN)
    outputs = dict(
        steps,
        teacher_transforms=seen.transforms(),
        student_transforms=shown.transforms(),
        num_queries=shown.num_queries,
    )
    table = decisions.write(Path(out_dir), outputs, data.facts)
    # It only names weights: step `start` says which were used.
    rows = [vars(row) for row in decisions.rows]
    return dict(outputs, variables=VARIABLES, decisions=rows, table=table, weights=[])


def _add_options(options: dict[str, Any], extra: Mapping[str, Any]) -> None:
    """A person's options, in place; those of the pixel loss are not for a step that has none."""
    added = nested(extra)
    if 'model.pixel_contrast' in options:
        added.get('model', {}).pop('pixel_contrast', None)
    options.update(added)


def _check_lora(options: Mapping[str, Any]) -> None:
    """Raises CASTError on settings that the first training step would refuse, a test later."""
    settings = nested(options)['model'].get('lora')
    if isinstance(settings, Mapping):
        LoRA.of({name: value for name, value in settings.items() if name != '_delete_'})


def check_choices(teacher: str, student: str, gpu: int | str) -> int:
    """The memory of the GPU as a number.

    Raises:
        CASTError: One of the three is unknown.
    """
    for setting, value, known in (
        ('teacher', teacher, TEACHERS),
        ('student', student, STUDENTS),
        ('gpu', str(gpu), [str(size) for size in CROPS]),
    ):
        if value not in known:
            raise CASTError(f'variables.{setting} is {value}; {hint(value, known)}')
    return int(gpu)


def describe(decisions: Decisions, facts: DataFacts, choices: Choices) -> None:
    """Rows on what was chosen and what the data are."""
    decisions.add(
        'teacher, student, gpu',
        f'{choices.teacher}, {choices.student}, {choices.gpu} GB',
        'variables.teacher, variables.student, variables.gpu',
    )
    decisions.describe(facts)
    for name in choices.classes:
        texts = choices.prompts.get(name)
        asked = [texts] if isinstance(texts, str) else list(texts or [])
        why = 'asked for by ' + ', '.join(map(repr, asked)) if asked else 'asked for by its name'
        decisions.add(f'class {name}', f'{facts.instances[name]} labeled', why)


# The teacher


def _teacher_view(decisions: Decisions, data: MeasuredData, teacher: Teacher) -> View:
    facts = data.facts
    factor = min(teacher.short, teacher.long / facts.aspect)  # pixels of a short side that it sees
    window = int(
        decisions.choose('teacher_window', lambda: _teacher_window(facts, teacher, factor), 0)
    )
    if not window:
        short = min(round(facts.short_side), LARGEST_TEACHER_INPUT[0])
        view = View(short, LARGEST_TEACHER_INPUT[1], LARGEST_TEACHER_INPUT[1], (1.0, 1.0))
        most = facts.most_instances
    else:
        short = round(facts.short_side)
        overlap = min(rounded(facts.large_extent * short, 32), window // 2)
        view = View(short, WHOLE, window, (0.8, 1.25), window, overlap)
        most = data.most_in_windows(window / short, overlap / short)
    number = max(100, min(-(-most * 11 // 100) * 10, teacher.most_objects))
    decisions.add(
        'teacher_image_size',
        f'short side {view.short}' + (f', overlap of windows {view.overlap}' if window else ''),
        f'the teacher brings each {"window" if window else "image"} to its own size, '
        f'{teacher.short} x {teacher.long} at most; at most {most} objects there',
    )
    return View(**{**vars(view), 'num_queries': number})


def _teacher_window(facts: DataFacts, teacher: Teacher, factor: float) -> tuple[int, str]:
    """Side of its windows in pixels of the image, 0 for whole images."""
    seen = facts.small_side * factor
    crowded = facts.most_instances > teacher.most_objects
    if seen >= SMALLEST and not crowded:
        return 0, f'whole images: it sees small objects {seen:.0f} px large, {SMALLEST} are enough'
    by_size = facts.small_side * teacher.short / SMALLEST
    by_number = math.sqrt(0.8 * teacher.most_objects / facts.most_instances)
    wanted = min(by_size, by_number) if crowded else by_size
    # Of long images a square window shows objects larger, whatever they want.
    side = max(min(wanted, 1), 2 * facts.large_extent, 1 / FINEST_WINDOW)
    if 2 * facts.large_extent >= 1:
        return 0, (
            f'whole images: it sees small objects {seen:.0f} px large, but windows would cut large '
            f'ones of {facts.large_extent * facts.short_side:.0f} px'
        )
    why = f'on whole images it would see small objects {seen:.0f} px large, in windows '
    why += f'{facts.small_side / side * teacher.short:.0f} px'
    if crowded:
        why += f'; it finds {teacher.most_objects} objects at most'
    return rounded(side * facts.short_side, 32), why


def _teacher_steps(
    decisions: Decisions,
    facts: DataFacts,
    choices: Choices,
    preset: Mapping[str, Any],
    view: View,
) -> dict[str, dict]:
    batch, accumulate = _batch(
        decisions,
        'teacher',
        choices.processes,
        preset.get('train_dataloader.batch_size', 1),
        preset.get('optim_wrapper.accumulative_counts'),
        f'the preset of {choices.teacher}',
    )
    prompts = choices.prompts
    common: dict[str, Any] = {
        'model.detector.classes': list(choices.classes),
        'model.detector.prompts': dict(prompts, _delete_=True) if prompts else None,
        'model.detector.windows': view.windows(batch_size=1),
    }
    boxes = 'grounding_dino.' if choices.teacher == 'grounded_sam' else ''
    common[f'model.detector.{boxes}test_cfg.max_per_img'] = view.num_queries

    fewest, most = TEACHER_STEPS

    def first() -> tuple[int, str]:
        wanted = math.ceil(TEACHER_PASSES * facts.labeled / EFFECTIVE_BATCH)
        steps = min(max(wanted, fewest), most)
        return _iterations(steps, wanted, batch, accumulate, facts.labeled, TEACHER_PASSES)

    def second() -> tuple[int, str]:
        images = facts.labeled + facts.unlabeled
        wanted = math.ceil(TEACHER_PASSES * images / EFFECTIVE_BATCH)
        steps = min(max(wanted, fewest), most)
        return _iterations(steps, wanted, batch, accumulate, images, TEACHER_PASSES)

    training = dict(preset, **common, **_batches(batch, accumulate))
    labeled = dict(training, **_schedule(decisions.choose('teacher_iterations', first), accumulate))
    both = dict(training, **_sampler(batch))
    if choices.self_training:  # else the teacher of 1a labels with them
        both |= _schedule(decisions.choose('self_training_iterations', second), accumulate)
    return dict(
        zero_shot={**common, 'model.pixel_contrast': None},
        adapt_labeled=labeled,
        adapt_self_training=both,
    )


# The student


def _student_steps(
    decisions: Decisions, facts: DataFacts, choices: Choices, view: View
) -> dict[str, dict]:
    student, fits = STUDENTS[choices.student], STUDENT_BATCH[choices.gpu]
    number_of_classes = len(choices.classes)
    batch, accumulate = _batch(
        decisions, 'student', choices.processes, fits, None, f'{choices.gpu} GB'
    )
    detector = {
        'panoptic_head.num_things_classes': number_of_classes,
        'panoptic_head.num_queries': view.num_queries,
        'panoptic_head.loss_cls.class_weight': [1.0] * number_of_classes + [0.1],
        'panoptic_fusion_head.num_things_classes': number_of_classes,
        'train_cfg.num_points': min(LARGEST_NUMBER_OF_POINTS, 3 * (view.crop // 4) ** 2 // 4),
        'test_cfg.max_per_image': view.num_queries,
        'test_cfg.windows': view.windows(batch_size=min(batch, fits)),
    }
    common = {
        **{f'model.detector.{key}': value for key, value in detector.items()},
        **_batches(batch, accumulate),
    }

    def iterations() -> tuple[int, str]:
        images = facts.labeled + facts.unlabeled
        wanted = math.ceil(student.passes * images / EFFECTIVE_BATCH)
        steps = min(max(wanted, student.fewest), student.most)
        return _iterations(steps, wanted, batch, accumulate, images, student.passes)

    transfer = int(decisions.choose('student_iterations', iterations))
    refine = int(
        decisions.choose(
            'refine_iterations', lambda: (-(-transfer // 10), 'a tenth of student_iterations')
        )
    )
    return dict(
        transfer={
            **common,
            **_schedule(transfer, accumulate),
            **_sampler(batch),
        },
        refine={**common, **_schedule(refine, accumulate)},
    )


# Both


def _batch(
    decisions: Decisions, who: str, processes: int, fits: int, accumulate: int | None, source: str
) -> tuple[int, int]:
    """Images that go through the network of all processes at a time, and how many such gradients
    make a step.

    Args:
        decisions: The table.
        who: ``teacher`` or ``student``.
        processes: That train together.
        fits: Images that one process has memory for.
        accumulate: Gradients that make a step of one process, if that is decided.
        source: Where ``fits`` is from.
    """
    batch = fits
    if processes > 1:  # not more than a step has, but of each process an image of either source
        share = SOURCES * processes
        batch = max(share, min(fits * processes, EFFECTIVE_BATCH) // share * share)
        batch = min(batch, fits * processes)
        source += f', {batch // processes} for each of {processes} processes'
    chosen = int(decisions.choose(f'{who}_batch_size', lambda: (batch, source)))
    turn = sampler_batch_size(chosen, SOURCES) // chosen
    if chosen != fits or accumulate is None or accumulate % turn:
        accumulate = turn * max(1, round(EFFECTIVE_BATCH / (chosen * turn)))
    why = f'{chosen * accumulate} images in a step of the optimiser'
    if turn > 1:
        why += ', so that it has as many labeled as pseudo-labeled ones'
    decisions.add(f'{who}_accumulation', accumulate, why)
    return chosen, accumulate


def _iterations(
    steps: int, wanted: int, batch: int, accumulate: int, images: int, passes: int
) -> tuple[int, str]:
    """So many forward passes, and why."""
    why = f'{passes} passes over {images} images, in steps of {EFFECTIVE_BATCH}'
    if steps < wanted:
        why = f"at most {steps:,} steps, the recipe's number"
    elif steps > wanted:
        why = f'{steps:,} steps at least; there are only {images} images'
    value = math.ceil(steps * EFFECTIVE_BATCH / (batch * accumulate)) * accumulate
    return value, why + (f'; {accumulate} iterations a step' if accumulate > 1 else '')


def _batches(batch: int, accumulate: int) -> dict[str, int]:
    return {
        'train_dataloader.batch_size': batch,
        'optim_wrapper.accumulative_counts': accumulate,
    }


def _sampler(batch: int) -> dict[str, int]:
    """Labeled and pseudo-labeled images by turns where a batch is too small for both."""
    return {'train_dataloader.sampler.batch_size': sampler_batch_size(batch, SOURCES)}


def _schedule(iterations: float, accumulate: int) -> dict[str, int]:
    """Length of a training step; a long one is validated on the way, and saved between steps of
    the optimiser, which accumulates so many gradients.
    """
    iterations = int(iterations)
    interval = iterations if iterations < 5000 else -(-iterations // 5)
    return {
        'train_cfg.max_iters': iterations,
        'train_cfg.val_interval': interval,
        'default_hooks.checkpoint.interval': -(-iterations // (10 * accumulate)) * accumulate,
    }


def _set_metrics(steps: Mapping[str, dict], max_dets: int) -> None:
    for options in steps.values():
        options |= {f'{name}.max_dets': max_dets for name in ('val_evaluator', 'test_evaluator')}


def _set_pseudo_labels(
    decisions: Decisions, facts: DataFacts, teacher: Teacher, labeled: str, steps: dict[str, dict]
) -> None:
    """Thresholds of pseudo-labels in the two steps that learn from them."""
    given = decisions.given.get('score_thr') is not None
    lowest = decisions.choose('score_thr', lambda: (teacher.score_thr, teacher.why_score), 0.0)
    if lowest >= 1:
        raise CASTError(f'variables.score_thr is {lowest}: scores are below 1; give less')
    options: dict[str, Any] = dict(score_thr=lowest, thresholds_from=None)
    rarest = min(facts.instances, key=lambda name: facts.instances[name])
    folds = decisions.given.get('threshold_folds')
    if number_of_folds(folds, 'variables.threshold_folds'):
        how = 'thresholds of each class chosen on held-out images'
        why = f'threshold_folds is {folds}'
    elif given:
        how, why = 'the same for all classes', 'score_thr is given by you'
    elif facts.labeled < ENOUGH or facts.instances[rarest] < ENOUGH:
        how = 'the same for all classes'
        why = (
            f'{facts.labeled} labeled images with {facts.instances[rarest]} of {rarest}: fewer '
            f'than {ENOUGH} do not tell how frequent a class is'
        )
    else:
        options['thresholds_from'] = dict(labeled=labeled)
        how = 'as many per image and class as labels, above score_thr, less overlaps'
        why = 'labeled and unlabeled images are taken to show as many'
    decisions.add('pseudo_labels', how, why)
    for name in ('adapt_self_training', 'transfer'):
        steps[name] |= {
            f'train_dataloader.dataset.datasets.1.{key}': value for key, value in options.items()
        }


def _set_weights(
    steps: dict[str, dict], teacher: str, student: str, weights: Mapping[str, Any]
) -> None:
    """The files that configs name by path."""
    key, weight = dict(
        grounded_sam=('grounding_dino.language_model.name', 'language_model'),
        sam3=('tokenizer', 'tokenizer'),
    )[teacher]
    if weights.get(weight):
        for name in ('zero_shot', 'adapt_labeled', 'adapt_self_training'):
            steps[name][f'model.detector.{key}'] = weights[weight]
    if student == 'cast_student' and weights.get('dinov2'):
        steps['transfer']['model.detector.backbone.init_cfg'] = dict(
            type='Pretrained', checkpoint=weights['dinov2']
        )
