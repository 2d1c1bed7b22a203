"""The folder that a pipeline leaves for others: its student, and a card that says what it is made
of.
"""

import ast
import hashlib
import json
import re
import statistics
import time
from pathlib import Path
from typing import Any

import jinja2
import torch
from mmdet.models.detectors import BaseDetector
from mmengine.config import Config
from mmengine.device import get_device
from torch import nn

from mmcast.checkpoints import load_plain
from mmcast.configs import load_config, shipped_configs
from mmcast.deploy.agreement import first_test_image, run_torch
from mmcast.deploy.export import (
    CONFIG,
    SAFETENSORS,
    WEIGHTS,
    Source,
    build_network,
    dataset_meta,
    export_student,
    step_source,
    student_state,
)
from mmcast.deploy.flops import count_flops
from mmcast.errors import CASTError
from mmcast.files import move_aside, sha256_of_file, write_atomically
from mmcast.models.weights.sources import NO_LICENCE
from mmcast.pipeline.pipeline import PipelineRun
from mmcast.reports.summary import cell
from mmcast.training.distributed import say

FOLDER, CARD = 'student', 'model_card.md'
_RUNS = 5
_WEIGHTS = ('.pth', '.pt', '.safetensors')
_FILES = ('.json', *_WEIGHTS)
# The settings of a step of each kind that name files it reads; a config that also trains names more
# of them.
_READ = dict(
    train=('train_dataloader.', 'val_', 'load_from', 'model.', 'step.'),
    test=('test_', 'step.'),
    pseudo_label=('step.',),
    call=('step.',),
    folds=('train_dataloader.', 'load_from', 'model.', 'step.'),
    thresholds=('step.',),
)
_WHAT = {CONFIG: 'config for mmdet', WEIGHTS: 'weights for mmdet', SAFETENSORS: 'the same weights'}


def write_student(run: PipelineRun, rows: list[dict]) -> Path | None:
    """Exports the network of the student's last step to ``<work_dir>/student``, with a model card.

    Files of the same checkpoint are left alone, a folder of another is kept as ``student.old<n>``,
    and a card that says something else as ``model_card.md.old<n>``. The pipeline config may have
    ``model_card`` with ``data`` (sentences about the data) and ``licences`` (file name of weights
    -> licence).

    Args:
        run: one of which every step is finished.
        rows: of the summary table.

    Returns:
        The folder; None if the pipeline trains no student.

    Raises:
        CASTError: the step's network cannot be exported.
    """
    students = run.plan.students()
    if not students:
        return None
    name = students[-1]
    source = step_source(run.plan.work_dir, name, run.state.records[name])
    folder = run.plan.work_dir / FOLDER
    whole = all((folder / name).exists() for name in _WHAT)
    if not whole or _origin(folder).get('checkpoint_sha256') != sha256_of_file(source.checkpoint):
        _keep(folder)
        export_student(source, folder)
    _write_card(run, rows, source, folder)
    return folder


def _origin(folder: Path) -> dict:
    """What an exported student says about its export."""
    try:
        return dict(load_plain(folder / WEIGHTS)['meta']['mmcast'])
    except Exception:  # whatever is there is not an export, and is kept next to the new one
        return {}


def _keep(path: Path) -> None:
    backup = move_aside(path)
    if backup:
        say(f'{path} is kept as {backup}')


def _write_card(run: PipelineRun, rows: list[dict], source: Source, folder: Path) -> None:
    """Writes the card, unless one of the same facts is there: a speed measured again differs."""
    cfg = load_config(folder / CONFIG)
    network = build_network(cfg)
    network.load_state_dict(student_state(folder / WEIGHTS), strict=False)
    facts = _facts(run, rows, source, folder) | dict(
        classes=dataset_meta(cfg)['classes'],
        network=type(network).__name__,
        parameters=sum(value.numel() for value in network.parameters()),
    )
    content = json.dumps(run.state.portable(facts), sort_keys=True, default=str)
    mark = f'<!-- facts: {hashlib.sha256(content.encode()).hexdigest()} -->'
    card = folder / CARD
    if card.exists() and mark.encode() in card.read_bytes():
        return
    text = _render(facts, folder=folder, speed=measure(network, cfg))
    _keep(card)
    write_atomically(card, f'{text}\n{mark}\n')


def plain(name: str) -> str:
    """A name as Markdown that shows it as it is, also in a table."""
    return re.sub(r'[\\`*<>&|\[\]$]|\b_|_\b', r'\\\g<0>', name)


def _facts(run: PipelineRun, rows: list[dict], source: Source, folder: Path) -> dict:
    """What the card says of the pipeline and of the exported files."""
    extra = run.plan.config.get('model_card', {})
    inputs = _files_read(run)
    licences = extra.get('licences', {})
    weights = [
        dict(path=path, sha256=digest, licence=licences.get(Path(path).name, licence))
        for path, digest, licence in [*_weights_read(inputs), *_weights_told(run)]
    ]
    return dict(
        title=f'Student of {run.plan.path.stem}',
        version=_origin(folder).get('mmcast'),
        pipeline=run.plan.path.name,
        step=source.step,
        seed=run.plan.config.get('seed'),
        files=[
            dict(name=name, what=what, sha256=sha256_of_file(folder / name))
            for name, what in _WHAT.items()
        ],
        megabytes=(folder / SAFETENSORS).stat().st_size / 1e6,
        rows=rows,
        data=extra.get('data'),
        labels=_labels(run, inputs),
        decisions=run.decisions,
        weights=weights,
        steps=[_step(run, name) for name in run.plan.definitions],
        teachers=_teachers(run),
    )


def _render(facts: dict, **others: Any) -> str:
    """The card as Markdown."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters['plain'] = plain
    return environment.get_template('model_card.md.j2').render(cell=cell, **facts, **others)


@torch.no_grad()
def measure(network: nn.Module, cfg: Config) -> dict | None:
    """Milliseconds and GFLOPs for an image of the test set, at the size that the test pipeline
    gives it.
    """
    try:
        image = first_test_image(cfg)
    except CASTError:  # its test pipeline does more than resize
        return None
    if image is None or not isinstance(network, BaseDetector):
        return None
    network.to(get_device())
    seconds = []
    for _ in range(1 + _RUNS):
        begin = time.perf_counter()
        run_torch(network, image[None])  # the masks come to the CPU, so a GPU has finished
        seconds.append(time.perf_counter() - begin)
    flops = count_flops(network, lambda: run_torch(network, image[None]))['total']
    device = f'CPU, {torch.get_num_threads()} threads'
    if torch.cuda.is_available():
        device = torch.cuda.get_device_name()
    return dict(
        latency_ms=1000 * statistics.median(seconds[1:]),
        gflops=flops / 1e9,
        runs=_RUNS,
        device=device,
        size=f'{image.shape[0]}x{image.shape[1]}',
    )


def _files_read(run: PipelineRun) -> dict[str, tuple[str, list[str]]]:
    """Every label and weights file that a step read: path -> SHA-256 and the steps."""
    files: dict[str, tuple[str, list[str]]] = {}
    for name, definition in run.plan.definitions.items():
        fingerprint = run.state.read_fingerprint(name)
        read = [
            _text_of(value)
            for key, value in fingerprint.settings.items()
            if key.startswith(_READ[definition['kind']]) and _text_of(value).endswith(_FILES)
        ]
        told = 'weights' in run.state.outputs(name)  # which of them it used
        for path, digest in fingerprint.files.items():
            if path.endswith(tuple(read)) and not (told and path.endswith(_WEIGHTS)):
                files.setdefault(path, (digest, []))[1].append(name)
    return files


def _text_of(value: str) -> str:
    """A setting of a fingerprint: of a text, which stands there as Python writes it, the text."""
    return ast.literal_eval(value) if value[:1] in ('"', "'") else value


def _weights_read(inputs: dict[str, tuple[str, list[str]]]) -> list[tuple[str, str, str]]:
    """Path, SHA-256 and licence, which is not known, of the weights among the files read."""
    return [
        (path, digest, NO_LICENCE)
        for path, (digest, _) in inputs.items()
        if path.endswith(_WEIGHTS) and not path.startswith('{work_dir}')
    ]


def _weights_told(run: PipelineRun) -> list[tuple[str, str, str]]:
    """The same of the weights that steps say they used: their output ``weights``, dicts with
    ``path`` (a file, a folder or a name), ``licence`` and, of a name, ``sha256``.
    """
    found = []
    for name in run.plan.definitions:
        for used in run.state.outputs(name).get('weights', []):
            path = Path(used['path'])
            files = sorted(path.glob('*')) if path.is_dir() else [path]
            found += [
                (
                    run.state.portable(str(file)),
                    sha256_of_file(file) if file.is_file() else used.get('sha256', '-'),
                    used['licence'],
                )
                for file in files
                if file.suffix in _WEIGHTS or not path.is_dir()
            ]
    return found


def _labels(run: PipelineRun, inputs: dict[str, tuple[str, list[str]]]) -> list[dict]:
    places = {
        '{work_dir}': run.plan.work_dir,
        '{config_dir}': run.plan.path.parent,
        '{configs}': shipped_configs(),
    }
    labels = []
    for path, (digest, steps) in inputs.items():
        place, _, rest = path.partition('/')
        real = places[place] / rest if place in places else Path(path)
        content = (
            json.loads(real.read_text(encoding='utf-8'))
            if path.endswith('.json') and real.is_file()
            else None
        )
        if isinstance(content, dict) and 'images' in content:
            labels.append(
                dict(
                    path=path,
                    sha256=digest,
                    steps=steps,
                    images=len(content['images']),
                    annotations=len(content.get('annotations', [])),
                )
            )
    return labels


def _step(run: PipelineRun, name: str) -> dict:
    definition = run.plan.definitions[name]
    return dict(
        name=name,
        kind=definition['kind'],
        source=definition.get('config') or definition['function'],
        fingerprint=run.state.records[name]['fingerprint'],
    )


def _teachers(run: PipelineRun) -> list[dict]:
    """Network and weights of every step that made pseudo-labels."""
    teachers = []
    for name, definition in run.plan.definitions.items():
        if definition['kind'] == 'pseudo_label':
            settings = run.state.read_fingerprint(name).settings
            network = _text_of(settings.get('model.detector.type', settings.get('model.type', '?')))
            checkpoint = _text_of(settings.get('step.checkpoint', definition['checkpoint']))
            teachers.append(dict(step=name, network=network, checkpoint=checkpoint))
    return teachers
