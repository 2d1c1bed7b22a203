"""Steps that choose thresholds of pseudo-labels where a teacher has not learned the ground truth:
on folds of the labeled images, each labeled by a teacher adapted on the others, or on the
validation images.
"""

import copy
import gc
import itertools
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config

from mmcast.coco.folds import make_folds, without_images
from mmcast.coco.reading import read_coco
from mmcast.data.config_data import (
    check_config_data,
    classes_of,
    labeled_data,
    pseudo_labeled_data,
    set_labeled_data,
)
from mmcast.errors import CASTError
from mmcast.files import write_atomically
from mmcast.pseudo_labels.dataset import PseudoLabelDataset
from mmcast.pseudo_labels.filters import expand_threshold
from mmcast.pseudo_labels.generate import generate_pseudo_labels
from mmcast.pseudo_labels.quality import read_ground_truth
from mmcast.pseudo_labels.selection import match_classes
from mmcast.pseudo_labels.store import SCORES, read_pseudo_labels
from mmcast.pseudo_labels.threshold_file import write_thresholds
from mmcast.pseudo_labels.thresholds import (
    Choice,
    HeldOut,
    best_thresholds,
    compare_rankings,
    threshold_lines,
    total_counts,
)
from mmcast.training.checkpoints import resumable_checkpoint
from mmcast.training.distributed import on_main, say
from mmcast.training.runner import train_run

ON_VAL = 'val'
_FILE = 'thresholds.json'
_FILTERS = ('min_area', 'min_visible', 'top_k', 'resolve_overlaps')
# Lengths in the settings of a learning rate's schedule.
_LENGTHS = ('begin', 'end', 'T_max', 'total_iters', 'step_size')


def number_of_folds(value: Any, place: str) -> int | str:
    """What ``folds`` of a step means: a number from 2, 'val', or 0 for none.

    Args:
        value: a number, or a text as a command line gives it; None is 0.
        place: the setting, for the message.

    Raises:
        CASTError: it is none of these.
    """
    text = str(value).strip()
    if text in ('None', 'False', '0'):
        return 0
    if text == ON_VAL:
        return text
    if text.isdecimal() and int(text) > 1:
        return int(text)
    raise CASTError(
        f'{place} is {value}: give the number of folds, from 2; {ON_VAL}, for the validation '
        'images; or 0 for none'
    )


# Adapting a teacher without each fold.


def train_folds(configs: Sequence[Config], step: Mapping[str, Any], folder: Path) -> dict:
    """Adapts a teacher for each fold of the labeled images, on the images of all other folds.

    Called again after an interruption it resumes.

    Args:
        configs: of the training runs that adapt a teacher, one after the other.
        step: ``folds``, ``train`` (names of the runs), ``loads`` (by the name of a run, that of the
            earlier one that it starts from), ``fraction`` of the iterations, ``fewest_images``,
            ``seed``.
        folder: to write to.

    Returns:
        ``held_out``: for each fold a dict with ``ann_file``, the labels of its images, ``img_dir``
        and ``checkpoint``; None where there are too few images. ``decisions`` says why.

    Raises:
        CASTError: see :func:`~mmcast.training.runner.train_run`.
    """
    if number_of_folds(step['folds'], 'folds') in (0, ON_VAL):
        return dict(held_out=None, decisions=[])
    _, img_dir = labeled_data(configs[0])
    folds, why = on_main(lambda: _write_folds(configs[0], step, folder), share=True)
    say(why)
    decisions = [dict(setting='folds', value=len(folds), why=why)]
    if not folds:
        return dict(held_out=None, decisions=decisions)
    held_out = []
    for number, (labeled, left_out) in enumerate(folds, 1):
        say(f'fold {number} of {len(folds)}')
        checkpoint = _train_fold(configs, step, folder, number, labeled)
        held_out.append(dict(ann_file=left_out, img_dir=img_dir, checkpoint=checkpoint))
    return dict(held_out=held_out, decisions=decisions)


def _write_folds(
    config: Config, step: Mapping[str, Any], folder: Path
) -> tuple[list[tuple[str, str]], str]:
    """Writes for each fold the labels of all others and its own; their paths, and what to say."""
    ann_file, _ = labeled_data(config)
    coco = read_coco(ann_file)
    wanted = int(number_of_folds(step['folds'], 'folds'))
    images, fewest = len(coco['images']), step['fewest_images']
    folds = make_folds(coco, wanted, step['seed'], _classes(config)) if images >= fewest else []
    if len(folds) < 2:
        few = f'fewer than {fewest}' if images < fewest else 'too few with objects'
        return [], f'{ann_file} has {images} images, {few}: thresholds stay as they are'
    every = {image['id'] for image in coco['images']}
    paths = []
    for number, ids in enumerate(folds, 1):
        pair = {'labeled': set(ids), 'left_out': every - set(ids)}
        files = {name: folder / f'fold_{number}_{name}.json' for name in pair}
        for name, dropped in pair.items():
            write_atomically(files[name], json.dumps(without_images(coco, dropped)))
        paths.append((str(files['labeled']), str(files['left_out'])))
    sizes = ', '.join(str(len(ids)) for ids in folds)
    return paths, (
        f'{len(folds)} folds of the {images} labeled images ({sizes}); each labeled by a teacher '
        f'adapted on the others with {step["fraction"]:g} of the iterations'
    )


def _train_fold(
    configs: Sequence[Config], step: Mapping[str, Any], folder: Path, number: int, labeled: str
) -> str:
    """The checkpoint of a teacher that has not seen a fold."""
    finished = folder / f'fold_{number}.json'
    found = on_main(lambda: _read_finished(finished), share=True)
    if found:
        say(f'fold {number} is finished')
        return found
    checkpoints: dict[str, str] = {}
    for name, config in zip(step['train'], configs, strict=True):
        run = short_run(config, labeled, step['fraction'])
        work_dir = folder / f'fold_{number}_{name}'
        run.merge_from_dict(dict(work_dir=str(work_dir), experiment_name=work_dir.name))
        if name in step['loads']:
            run.load_from = checkpoints[step['loads'][name]]
        check_config_data(run, ('train_dataloader',))
        checkpoints[name] = str(train_run(run, resumable_checkpoint(run, work_dir)).checkpoint)
        gc.collect()  # a Runner is full of cycles
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    last = checkpoints[step['train'][-1]]
    place = os.path.relpath(last, folder)  # the work directory may be moved
    on_main(lambda: write_atomically(finished, json.dumps(dict(checkpoint=place))))
    return last


def _read_finished(path: Path) -> str | None:
    """The checkpoint of a finished fold, if it is still there."""
    if not path.exists():
        return None
    checkpoint = path.parent / json.loads(path.read_text(encoding='utf-8'))['checkpoint']
    return str(checkpoint) if checkpoint.exists() else None


def short_run(config: Config, labeled: str, fraction: float) -> Config:
    """A training config for some of its labels: a fraction of its iterations, with the learning
    rate's schedule as much shorter, and no validation.
    """
    run = copy.deepcopy(config)
    set_labeled_data(run, labeled)
    for key in ('max_iters', 'max_epochs'):
        if run.train_cfg.get(key):
            run.train_cfg[key] = shortened(run.train_cfg[key], fraction)
    for schedule in _schedules(run.get('param_scheduler') or []):
        _shorten_schedule(schedule, fraction)
    for key in ('val_cfg', 'val_dataloader', 'val_evaluator'):
        run[key] = None
    checkpoint = (run.get('default_hooks') or {}).get('checkpoint')
    if checkpoint:
        for key in ('save_best', 'rule'):
            checkpoint.pop(key, None)
        checkpoint['max_keep_ckpts'] = 1
    run.custom_hooks = [
        hook for hook in run.get('custom_hooks') or [] if hook['type'] != 'EarlyStoppingHook'
    ]
    return run


def _shorten_schedule(schedule: dict, fraction: float) -> None:
    """Makes a learning rate's schedule shorter, in place.

    Where a cycle ends is rounded, not how long it is: ``OneCycleLR`` refuses an iteration more
    than it knows of.
    """
    begin = schedule.get('begin', 0)
    for key in _LENGTHS:
        if isinstance(schedule.get(key), int):
            schedule[key] = shortened(schedule[key], fraction)
    if isinstance(schedule.get('total_steps'), int):
        schedule['total_steps'] = _shortened_parts(begin, [schedule['total_steps']], fraction)[0]
    if 'milestones' in schedule:
        schedule['milestones'] = [shortened(each, fraction) for each in schedule['milestones']]
    if 'periods' in schedule:
        schedule['periods'] = _shortened_parts(begin, schedule['periods'], fraction)


def _shortened_parts(begin: int, lengths: Sequence[int], fraction: float) -> list[int]:
    """Lengths one after the other, from ``begin`` on, so that the last ends at its rounded end."""
    ends = [shortened(end, fraction) for end in itertools.accumulate([begin, *lengths])]
    return [max(1, end - start) for start, end in itertools.pairwise(ends)]


def shortened(length: int, fraction: float) -> int:
    """A number of iterations or epochs, at least 1 where it was more than 0."""
    return max(1, round(length * fraction)) if length > 0 else length


def _schedules(part: Any) -> Iterator[dict]:
    """The learning rate's schedules of all optimisers."""
    if isinstance(part, dict) and 'type' in part:
        yield part
    elif isinstance(part, (dict, list, tuple)):
        for inner in part.values() if isinstance(part, dict) else part:
            yield from _schedules(inner)


def _classes(config: Config) -> list[str]:
    return list(classes_of(config.test_dataloader.dataset))


# Choosing thresholds.


def reading_options(config: Config) -> dict[str, Any]:
    """How a training config reads pseudo-labels: the options of its :class:`PseudoLabelDataset`
    that decide which labels are used.

    Raises:
        CASTError: it reads none, or several files in different ways.
    """
    defaults = PseudoLabelDataset.__init__.__kwdefaults__
    names = [*(f'{score}_thr' for score in SCORES), *_FILTERS]
    found = [
        {name: dataset.get(name, defaults[name]) for name in names}
        for dataset in pseudo_labeled_data(config)
    ]
    if not found or any(each != found[0] for each in found):
        problem = 'reads its pseudo-labels in several ways' if found else 'reads no pseudo-labels'
        raise CASTError(f'{config.filename} {problem}: no thresholds can be chosen for it')
    return found[0]


def choose_held_out(config: Config, step: Mapping[str, Any], folder: Path) -> dict:
    """Labels held-out images with the teachers that have not seen them, and chooses thresholds.

    Args:
        config: of the step that makes the pseudo-labels.
        step: ``folds``, ``held_out`` (see :func:`train_folds`), ``checkpoint`` (for the validation
            images), ``views`` (options of ``generate_pseudo_labels``), ``reading`` (see
            :func:`reading_options`), ``fewest_objects``, ``lowest``, ``used_by``.
        folder: to write to.

    Returns:
        ``thresholds``, the path of the file, None where none were chosen, and ``decisions``.

    Raises:
        CASTError: see :func:`~mmcast.pseudo_labels.generate.generate_pseudo_labels`.
    """
    parts = list(step.get('held_out') or [])
    if number_of_folds(step['folds'], 'folds') == ON_VAL:
        ann_file, img_dir = _validation_data(config)
        parts = [dict(ann_file=ann_file, img_dir=img_dir, checkpoint=step['checkpoint'])]
    if not parts:
        return dict(thresholds=None, decisions=[])
    files = []
    for number, part in enumerate(parts, 1):
        out_file = folder / f'held_out_{number}.json'
        say(f'held-out images, part {number} of {len(parts)}: {part["ann_file"]}')
        generate_pseudo_labels(
            config,
            part['checkpoint'],
            out_file,
            ann_file=part['ann_file'],
            img_dir=part['img_dir'],
            distributed=True,
            **step['views'],
        )
        files.append((out_file, part['ann_file']))
    return on_main(lambda: _choose(files, _classes(config), step, folder), share=True)


def _validation_data(config: Config) -> tuple[str, str]:
    """The file of the validation images, and their folder. Those of tests may be others, to report
    on.
    """
    dataset = (config.get('val_dataloader') or config.test_dataloader).dataset
    root = dataset.get('data_root') or ''
    folder = (dataset.get('data_prefix') or {}).get('img', '')
    return os.path.join(root, dataset.get('ann_file', '')), os.path.join(root, folder)


def _choose(
    files: Sequence[tuple[Path, str]], names: Sequence[str], step: Mapping[str, Any], folder: Path
) -> dict:
    """Reads labels and ground truth, and writes the thresholds."""
    held_out, ids = read_held_out(files, names, step['reading'], step['lowest'])
    found = best_thresholds(held_out, step['fewest_objects'])
    choices = {name: found[category] for name, category in ids.items()}
    rankings = compare_rankings(held_out)
    print('\n'.join(threshold_lines(choices, rankings)), flush=True)
    now, before = total_counts(found)
    path = folder / _FILE
    write_thresholds(
        path,
        settings=dict(
            step['reading'],
            views=step['views'],
            folds=step['folds'],
            lowest=step['lowest'],
            used_by=step['used_by'],
        ),
        num_images=len(held_out.truths),
        classes={name: choice.to_dict() for name, choice in choices.items()},
        all=dict(now.to_dict(), f1_at_score_thr=before.f1),
        rankings=rankings,
    )
    where = 'validation images' if step['folds'] == ON_VAL else 'held-out labeled images'
    if all(choice.chosen_on == 'score_thr' for choice in choices.values()):
        why = f'{now.objects} objects on {len(held_out.truths)} {where}: fewer than '
        why += f'{step["fewest_objects"]}, or none is found, so score_thr stays'
    else:
        why = f'F1 {100 * now.f1:.1f} on {len(held_out.truths)} {where} ({now.objects} objects), '
        why += f'{100 * before.f1:.1f} with score_thr; {_FILE} has each class'
    row = dict(setting=f'thresholds of {step["used_by"]}', value=_range(choices), why=why)
    return dict(thresholds=str(path), decisions=[row])


def _range(choices: Mapping[str, Choice]) -> str:
    values = sorted({f'{choice.threshold:.3f}' for choice in choices.values()})
    return values[0] if len(values) == 1 else f'{values[0]} to {values[-1]}'


def read_held_out(
    files: Sequence[tuple[str | os.PathLike, str | os.PathLike]],
    names: Sequence[str],
    reading: Mapping[str, Any],
    lowest: float | None = None,
) -> tuple[HeldOut, dict[str, int]]:
    """A teacher's labels of images with ground truth, and the category id of each class.

    Args:
        files: pseudo-label files, no two of one image, each with the COCO file of its images.
        names: of the classes.
        reading: see :func:`reading_options`.
        lowest: no threshold below it is chosen; by default that of ``reading``.

    Raises:
        CASTError: the files do not belong together, or labels lack a score that has a threshold.
    """
    labels: dict[int, list[dict]] = {}
    truths: dict[int, list[dict]] = {}
    ids: dict[str, int] = {}
    for path, ann_file in files:
        content = read_pseudo_labels(path)
        ids = match_classes(content, names, path, 'give files of the same classes')
        truths |= read_ground_truth(ann_file, content)
        for annotation in content['annotations']:
            labels.setdefault(annotation['image_id'], []).append(annotation)
    thresholds = {
        score: expand_threshold(reading[f'{score}_thr'], ids, f'{score}_thr')
        for score in SCORES
        if reading[f'{score}_thr'] is not None
    }
    options = {name: reading[name] for name in _FILTERS}
    return HeldOut(labels, truths, thresholds, options, lowest), ids
