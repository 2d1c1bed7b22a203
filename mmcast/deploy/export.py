"""The student on its own: weights without what only training has, and a config that stock mmdet
runs.
"""

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from mmengine.config import Config, ConfigDict
from mmengine.registry import DefaultScope
from torch import Tensor, nn

from mmcast import registry
from mmcast.configs import load_config
from mmcast.data.config_data import classes_of
from mmcast.errors import CASTError
from mmcast.files import (
    WriteError,
    prepare_out_dir,
    sha256_of_file,
    write_atomically,
)
from mmcast.models.lora import without_adapters
from mmcast.models.weights.loading import TRAINING_ONLY
from mmcast.models.weights.reading import describe_mismatch, read_state_dict
from mmcast.pipeline.state import STATE_FILE, Fingerprint, read_fingerprint, read_state
from mmcast.version import __version__

CONFIG, WEIGHTS, SAFETENSORS = 'student.py', 'student.pth', 'student.safetensors'
# What loads the same pixels in mmcv and mmdet; DetInferencer looks for the first.
_STOCK = dict(LoadImage='LoadImageFromFile', LoadCompressedAnnotations='LoadAnnotations')
# Transforms that leave pixels alone.
_PLAIN = (
    'LoadImage',
    'LoadImageFromFile',
    'LoadAnnotations',
    'LoadCompressedAnnotations',
    'PackDetInputs',
)
# What a config of testing needs; schedules and training data stay behind.
_KEPT = ('test_dataloader', 'test_evaluator', 'test_cfg', 'env_cfg', 'log_level')


@dataclass
class Source:
    """What is exported: a config, a checkpoint and, of a pipeline, the name of the step that made
    it.
    """

    config: Path
    checkpoint: Path
    step: str | None = None


def export_student(source: Source, out_dir: str | Path, force: bool = False) -> Path:
    """Write ``student.py``, ``student.pth`` and ``student.safetensors``.

    mmdet's ``DetInferencer`` and its ``tools/test.py`` run the first two with nothing but the
    config's ``custom_imports``, and predict bit by bit what the checkpoint predicts. The weights
    hold tensors and plain data only and load with ``weights_only=True``.

    Args:
        source: see :func:`find_source`.
        out_dir: a folder.
        force: replace files that an earlier export left there.

    Returns:
        The folder.

    Raises:
        CASTError: the checkpoint is damaged, holds no student or not that of the config, or the
            files exist or cannot be written.
    """
    folder = prepare_out_dir(out_dir, (CONFIG, WEIGHTS, SAFETENSORS), force)
    cfg = student_config(load_config(source.config))
    state = student_state(source.checkpoint, evaluated_part(load_config(source.config)))
    check_fits(build_network(cfg), state, source)
    facts = dict(
        mmcast=__version__, checkpoint_sha256=sha256_of_file(source.checkpoint), step=source.step
    )
    meta = dict(dataset_meta=dataset_meta(cfg), mmcast=facts)
    buffer = io.BytesIO()
    torch.save(dict(state_dict=state, meta=meta), buffer)
    contents = {
        WEIGHTS: buffer.getvalue(),
        SAFETENSORS: safetensors.torch.save(state, {'meta': json.dumps(meta)}),
        CONFIG: cfg.pretty_text,
    }
    _write_all(folder, contents)
    return folder


def find_source(paths: list[str], step: str | None = None) -> Source:
    """What ``WORK_DIR`` of a pipeline, the folder of an exported student, or ``CONFIG CHECKPOINT``
    means.

    Args:
        paths: one of them.
        step: of a pipeline; by default the last finished one that trains the student, in the order
            of the config, see :meth:`~mmcast.pipeline.plan.Plan.students`.

    Raises:
        CASTError: no such work directory, config, checkpoint or finished step, or a step of what
            has none.
    """
    if len(paths) == 2:
        if step:
            raise CASTError(
                f'step {step} is for the work directory of a pipeline; leave it out, or give that '
                'folder'
            )
        return Source(Path(paths[0]), Path(paths[1]))
    work_dir = Path(paths[0])
    is_pipeline = (work_dir / STATE_FILE).is_file()
    if not is_pipeline and (work_dir / CONFIG).is_file() and (work_dir / WEIGHTS).is_file():
        if step:
            raise CASTError(
                f'{work_dir} is an exported student, which has no steps: leave --step {step} out, '
                'or give the work directory of the pipeline'
            )
        return Source(work_dir / CONFIG, work_dir / WEIGHTS)
    if not is_pipeline:
        raise CASTError(
            f'{work_dir} is not a work directory of a pipeline (no {STATE_FILE} in it); give one, '
            'or a config and a checkpoint'
        )
    content = read_state(work_dir / STATE_FILE)
    trained = {
        name: record
        for name, record in content['steps'].items()
        if record['status'] == 'finished' and 'checkpoint' in record['outputs']
    }
    if step is None:
        step = _last_student(work_dir, content, trained)
    if step not in trained:
        raise CASTError(
            f'{work_dir} has no finished training step {step}; it has '
            f'{", ".join(trained) or "none"}'
        )
    return step_source(work_dir, step, trained[step])


def step_source(work_dir: Path, step: str, record: dict) -> Source:
    """The files of one finished training step; its best checkpoint where it kept one."""
    folder = work_dir / record['folder']
    outputs = record['outputs']
    checkpoint = outputs.get('best_checkpoint', outputs['checkpoint']).replace(
        '{work_dir}', str(work_dir)
    )
    # A run dumps its whole config in its folder, the name is that of the file it came from.
    configs = sorted(folder.glob('*.py'))
    if len(configs) != 1:
        raise CASTError(
            f'{folder} has {len(configs)} configs (*.py) in place of one; give CONFIG CHECKPOINT'
        )
    return Source(configs[0], Path(checkpoint), step)


def _last_student(work_dir: Path, content: dict, trained: dict) -> str:
    """The last of the student's steps that is finished."""
    students = content.get('students')
    if students is None:
        students = _guessed_students(work_dir, content['steps'], trained)
    finished = [name for name in students if name in trained]
    if not finished:
        wanted = f", the student's are {', '.join(students)}" if students else ''
        raise CASTError(
            f'{work_dir} has no finished student: the training steps finished are '
            f'{", ".join(trained) or "none"}{wanted}; finish the pipeline, or name one with --step'
        )
    return finished[-1]


def _guessed_students(work_dir: Path, records: dict, trained: dict) -> list[str]:
    """In a work directory of an earlier version, which does not say which steps train the student:
    those that are finished and whose network makes no pseudo-labels, as a teacher's does.
    """
    networks = {
        name: _network_settings(read_fingerprint(work_dir / record['folder'], name))
        for name, record in records.items()
    }
    teachers = [
        networks[name]
        for name, record in records.items()
        if networks[name].get('step.kind') == repr('pseudo_label')
    ]
    # Folders are numbered as the steps were; the records are in the order in which they last began.
    return [
        name
        for name in sorted(trained, key=lambda name: trained[name]['folder'])
        if not any(_same_network(networks[name], each) for each in teachers)
    ]


def _same_network(one: dict[str, str], other: dict[str, str]) -> bool:
    return all(
        one.get(key) == other.get(key) for key in one.keys() | other.keys() if key != 'step.kind'
    )


def _network_settings(fingerprint: Fingerprint) -> dict[str, str]:
    return {
        key: value
        for key, value in fingerprint.settings.items()
        if key.startswith('model.detector.') or key == 'step.kind'
    }


def student_config(cfg: Config) -> Config:
    """A plain config for testing the network that learns in ``cfg``, self-contained and of mmdet's
    default scope.

    Raises:
        CASTError: ``cfg`` has no model or no test data set.
    """
    for key in ('model', 'test_dataloader', 'test_evaluator'):
        if not cfg.get(key):
            raise CASTError(
                f'{cfg.filename} has no {key}; give a config of one run, not of a pipeline'
            )
    model = cfg.model.to_dict()
    if 'detector' in model:  # CASTDetector
        part = model[evaluated_part(cfg).removesuffix('.')]
        network = part if isinstance(part, dict) else model['detector']  # teacher='detector'
        model = dict(
            network,
            data_preprocessor=model.get('data_preprocessor') or network.get('data_preprocessor'),
        )
    imports = cfg.get('custom_imports', {}).get('imports', [])
    imports = dict.fromkeys(['mmcast', *([imports] if isinstance(imports, str) else imports)])
    content = dict(
        default_scope='mmdet',
        custom_imports=dict(imports=list(imports)),
        model=_without_init(model),
        visualizer=dict(
            type='DetLocalVisualizer',
            vis_backends=[dict(type='LocalVisBackend')],
            name='visualizer',
        ),
    )
    content |= {key: cfg[key] for key in _KEPT if key in cfg}
    content.setdefault('test_cfg', dict(type='TestLoop'))
    # Stock mmdet looks for the names of mmcast's own classes in mmdet, unless they say where they
    # are from.
    with DefaultScope.overwrite_default_scope('mmcast'):
        return Config(_with_scopes(Config(content).to_dict()))


def _without_init(value: Any) -> Any:
    """Weights to start from are files that a student does not need."""
    if isinstance(value, Mapping):
        return {key: _without_init(item) for key, item in value.items() if key != 'init_cfg'}
    return [_without_init(item) for item in value] if isinstance(value, (list, tuple)) else value


def _with_scopes(value: Any) -> Any:
    if isinstance(value, Mapping):
        scoped = {key: _with_scopes(item) for key, item in value.items()}
        if isinstance(scoped.get('type'), str):
            # mmcv's loader has no value_range, and would keep the high byte of such images.
            own_loader = scoped.get('value_range') is not None
            if not own_loader:
                scoped.pop('value_range', None)
            scoped['type'] = _scoped(scoped['type'], {} if own_loader else _STOCK)
        return scoped
    return (
        type(value)(_with_scopes(item) for item in value)
        if isinstance(value, (list, tuple))
        else value
    )


def _scoped(name: str, stock: Mapping[str, str]) -> str:
    name = stock.get(name, name)
    own = [each for each in vars(registry).values() if isinstance(each, registry.Registry)]
    for each in own:
        each.import_from_location()
    return f'mmcast.{name}' if any(each.has_own(name) for each in own) else name


def evaluated_part(cfg: Config) -> str:
    """What the names of the network that a run evaluates begin with: of a ``CASTDetector``,
    ``teacher.`` with ``semi_test_cfg.predict_on='teacher'``, an online teacher's average.
    """
    predict_on = (cfg.model.get('semi_test_cfg') or {}).get('predict_on', 'student')
    return 'teacher.' if predict_on == 'teacher' else 'detector.'


def student_state(checkpoint: Path, part: str = 'detector.') -> dict[str, Tensor]:
    """The network's own weights of any checkpoint: no other network, no projector.

    Args:
        checkpoint: of a ``CASTDetector`` or a plain network.
        part: of the former, see :func:`evaluated_part`.

    Raises:
        CASTError: it cannot be read, or holds a teacher only.
    """
    state = read_state_dict(checkpoint)
    if any(key.startswith(part) for key in state):
        state = {
            key.removeprefix(part): value for key, value in state.items() if key.startswith(part)
        }
    plain = {
        key: value.contiguous() for key, value in state.items() if not key.startswith(TRAINING_ONLY)
    }
    if not plain:
        raise CASTError(
            f'{checkpoint} holds no student, only '
            f'{", ".join(sorted({key.split(".")[0] for key in state}))}; give the checkpoint of a '
            'step that trains the student'
        )
    return plain


def check_fits(network: nn.Module, state: Mapping[str, Tensor], source: Source) -> None:
    """Raises CASTError unless the weights are those of the network, all of them and no others."""
    expected = {
        key: value
        for key, value in network.state_dict().items()
        if not key.startswith(TRAINING_ONLY)
    }
    mismatch = describe_mismatch(expected, state)
    if mismatch:
        raise CASTError(
            f'{source.checkpoint} is not a checkpoint of the student in {source.config} '
            f'({mismatch}); give the config it was trained with'
        )


def build_network(cfg: Config) -> nn.Module:
    """The network of an exported or any other mmdet config, with random weights, in eval mode."""
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope', 'mmcast')):
        return registry.MODELS.build(ConfigDict(without_adapters(cfg.model))).eval()


def dataset_meta(cfg: Config) -> dict[str, list]:
    """Class names and, where the config has them, colours: what mmdet keeps as ``dataset_meta``."""
    dataset = cfg.test_dataloader.dataset
    with DefaultScope.overwrite_default_scope('mmcast'):
        meta = dict(classes=list(classes_of(dataset)))
    palette = (dataset.get('metainfo') or {}).get('palette')
    return meta | (dict(palette=[list(colour) for colour in palette]) if palette else {})


def resize_scale(cfg: Config) -> list[int] | None:
    """The ``scale`` to whose size the test pipeline fits images; None where it leaves them.

    Raises:
        CASTError: it does something else with them.
    """
    scale = None
    for step in cfg.test_dataloader.dataset.pipeline:
        name = step['type'].split('.')[-1]
        if name == 'Resize' and step.get('keep_ratio') and 'scale' in step and scale is None:
            scale = list(step['scale'])
        elif name not in _PLAIN:
            raise CASTError(
                f'the test pipeline has {name} ({dict(step)}), which a student outside of mmdet '
                'cannot follow; it may have one Resize with scale and keep_ratio=True'
            )
    return scale


def _write_all(folder: Path, contents: dict[str, str | bytes]) -> None:
    """All files or, where one cannot be written, none that was not there before."""
    written = []
    try:
        for name, content in contents.items():
            new = not (folder / name).exists()
            write_atomically(folder / name, content)
            written += [folder / name] if new else []
    except WriteError:
        for path in written:
            path.unlink()
        raise
