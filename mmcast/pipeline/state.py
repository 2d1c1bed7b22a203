"""What a pipeline remembers between two calls: a record per step in one JSON file, and what its
inputs were.
"""

import copy
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmcast.configs import shipped_configs
from mmcast.errors import CASTError
from mmcast.files import move_aside, sha256_of_file, size_of_file, write_atomically
from mmcast.images import list_folder
from mmcast.pipeline.steps import Step, StepResult, has_progress
from mmcast.training.checkpoints import holds_run, move_elsewhere_aside

STATE_FILE = 'pipeline.json'
FINGERPRINT = 'fingerprint.json'  # in the folder of each step
# Files with these endings are inputs whose content matters; images are too many to read.
_INPUT_SUFFIXES = ('.json', '.pth', '.pt', '.bin', '.ckpt', '.onnx', '.safetensors', '.txt')


@dataclass
class Fingerprint:
    """What a result depends on: settings (flat key -> text), input files (path -> sha256), and
    folders of unlabeled images (path -> file name -> size in bytes).
    """

    settings: dict[str, str] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    folders: dict[str, dict[str, int]] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """sha256 (hex) of all of it."""
        parts: list[dict] = [self.settings, self.files]
        if self.folders:  # steps without any keep the digest of before there were folders
            parts.append(self.folders)
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    def changes(self, new: 'Fingerprint') -> list[str]:
        """One readable phrase for each setting or file in which ``new`` differs."""
        changes = []
        for key in sorted(self.settings.keys() | new.settings.keys()):
            old_text, new_text = self.settings.get(key, 'absent'), new.settings.get(key, 'absent')
            if old_text != new_text:
                changes.append(f'{key}: {_shorten(old_text)} -> {_shorten(new_text)}')
        changes += [
            f'the content of {path}'
            for path in sorted(self.files.keys() & new.files.keys())
            if self.files[path] != new.files[path]
        ]
        changes += [
            f'input file {path} is gone' for path in sorted(self.files.keys() - new.files.keys())
        ]
        changes += [
            f'new input file {path}' for path in sorted(new.files.keys() - self.files.keys())
        ]
        # Fingerprints of before folders counted have none; a folder that is new is in the settings.
        changes += [
            _change_of_folder(path, self.folders[path], new.folders.get(path))
            for path in sorted(self.folders)
            if self.folders[path] != new.folders.get(path)
        ]
        return changes


def read_state(path: Path) -> dict:
    """The content of a ``pipeline.json``: ``pipeline``, ``steps``, ``hashes`` and, unless an
    earlier version wrote it, ``students``.

    Raises:
        CASTError: the file is damaged.
    """
    try:
        content = json.loads(path.read_text(encoding='utf-8'))
        _ = content['pipeline']
        _check_records(content['steps'], content['hashes'])
        if not isinstance(content.get('students') or [], list):
            raise TypeError(f'{content["students"]!r} is no list')
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CASTError(
            f'{path} is damaged ({error!r}): bring back a copy of it, or move it away and run all '
            'steps anew (their old folders are kept)'
        ) from error
    return content


def read_fingerprint(folder: Path, step: str) -> Fingerprint:
    """The fingerprint in the folder of a step, empty if there is none.

    Raises:
        CASTError: the file is damaged.
    """
    path = folder / FINGERPRINT
    if not path.exists():
        return Fingerprint()
    try:
        return Fingerprint(**json.loads(path.read_text(encoding='utf-8')))
    except (OSError, ValueError, TypeError) as error:
        raise CASTError(
            f'{path} is damaged ({error}), so what changed since step {step} ran cannot be told: '
            f'run it again (the old folder is kept) with --rerun {step}'
        ) from error


class PipelineState:
    """The records of a pipeline's steps in ``<work_dir>/pipeline.json``.

    A record holds status ('started' or 'finished'), folder, fingerprint, outputs, metrics, seconds,
    peak memory and package versions. Paths below the work directory are stored as
    ``{work_dir}/...``, those below the config's folder as ``{config_dir}/...``, those below
    mmcast's configs as ``{configs}/...``, so that all may be moved or spelled differently.

    Args:
        work_dir: where the pipeline writes.
        config_path: the pipeline config.

    Raises:
        CASTError: the file cannot be read, or belongs to another pipeline config.
    """

    def __init__(self, work_dir: Path, config_path: Path) -> None:
        self.work_dir = work_dir
        self.path = work_dir / STATE_FILE
        self.pipeline = config_path.name
        self._places = {
            '{work_dir}': work_dir,
            '{config_dir}': config_path.parent,
            '{configs}': shipped_configs(),
        }
        # The first is without `..`, which is in the path of a config that another folder's call
        # names.
        self._spellings = {
            name: (os.path.abspath(place), str(place.absolute()), str(place))
            for name, place in self._places.items()
        }
        self.records: dict[str, dict] = {}
        self.students: list[str] | None = None
        self._hashes: dict[str, list] = {}
        self._folders: dict[str, dict[str, int]] = {}
        if self.path.exists():
            self._read()
        elif holds_run(work_dir):
            raise CASTError(
                f'{work_dir} holds a single training run, not a pipeline; choose another --work-dir'
            )

    def _read(self) -> None:
        content = read_state(self.path)
        owner, self.records, self._hashes = (
            content[key] for key in ('pipeline', 'steps', 'hashes')
        )
        self.students = content.get('students')
        if owner != self.pipeline:
            raise CASTError(
                f'{self.work_dir} belongs to the pipeline {owner}, not to {self.pipeline}; choose '
                'another --work-dir'
            )

    # What is there

    def finished(self, name: str) -> bool:
        """Whether a step is."""
        return self.records.get(name, {}).get('status') == 'finished'

    def folder(self, name: str, number: int = 0) -> Path:
        """A step's directory; a new one's is numbered, and keeps it when others are put before."""
        record = self.records.get(name, {})
        return self.work_dir / record.get('folder', f'{number:02d}_{name}')

    def without(self, names: Iterable[str]) -> 'PipelineState':
        """The same to read from, as it will be when some steps are about to run again."""
        state = copy.copy(self)
        state.records = {name: self.records[name] for name in self.records.keys() - set(names)}
        return state

    def outputs(self, name: str) -> dict[str, Any]:
        """The outputs of a finished step, with paths as they are now."""
        return self._expand(self.records[name]['outputs'])

    def read_fingerprint(self, name: str) -> Fingerprint:
        """The fingerprint that a step was run with; empty if it was killed before that was kept.

        Raises:
            CASTError: the file is damaged.
        """
        return read_fingerprint(self.folder(name), name)

    def changes(self, step: Step) -> list[str]:
        """Why what a step left is not valid any more; empty if it is, or if it left nothing."""
        record = self.records.get(step.name)
        if record is None or not (self.finished(step.name) or has_progress(step)):
            return []
        new = self.fingerprint(step.name, step.definition, step.settings)
        changes = []
        if new.digest != record['fingerprint']:
            changes = self.read_fingerprint(step.name).changes(new)
        outputs = self.outputs(step.name) if self.finished(step.name) else {}
        return changes + [
            f'its output {path} is gone'
            for path in record.get('output_files', [])
            if path in outputs and not Path(outputs[path]).exists()
        ]

    def fingerprint(self, name: str, definition: dict, settings: dict) -> Fingerprint:
        """What a result depends on now.

        Args:
            name: the step; files that it wrote itself are not inputs.
            definition: the step with its templates resolved.
            settings: its whole MMEngine config; empty for a 'call' step.
        """
        own = _written(self.outputs(name)) if self.finished(name) else set()
        inputs = {path for part in (definition, settings) for path in input_files(part)} - own
        return Fingerprint(
            flatten(self.portable({**settings, 'step': definition})),
            {self.portable(path): self._sha256(Path(path)) for path in sorted(inputs)},
            {self.portable(path): self._images_of(path) for path in unlabeled_folders(definition)},
        )

    # What changes it

    def keep_students(self, names: list[str]) -> None:
        """Writes down which steps train the student, in the order of the plan: what is exported is
        chosen without the config.
        """
        if names != self.students:
            self.students = names
            if self.path.exists():
                self._save()

    def begin(self, step: Step) -> bool:
        """Makes folder and record of a step that is about to run; True if it resumes."""
        resumed = step.name in self.records and has_progress(step)
        step.folder.mkdir(exist_ok=True)
        self.records[step.name] = dict(status='started', folder=step.folder.name, resumed=resumed)
        self._write_fingerprint(
            step.name, self.fingerprint(step.name, step.definition, step.settings)
        )
        self._save()
        return resumed

    def forget(self, name: str, folder: Path) -> dict[Path, Path]:
        """Drops the record of a step that is to run again; returns where its folder, and those of
        its checkpoints that are elsewhere, are kept.
        """
        self.records.pop(name, None)
        kept = move_elsewhere_aside(folder)  # first: the folder says where they are
        if backup := move_aside(folder):
            kept[folder] = backup
        self._save()
        return kept

    def finish(self, name: str, result: StepResult, **facts: Any) -> None:
        """Writes down what a step gave, and ``facts`` about the run."""
        files = [
            key
            for key, value in result.outputs.items()
            if isinstance(value, str) and Path(value).exists()
        ]
        self.records[name].update(
            status='finished',
            outputs=self.portable(result.outputs),
            output_files=files,
            metrics=result.metrics,
            parameters=result.parameters,
            **facts,
        )
        # The files that it wrote itself seemed inputs if it was interrupted.
        fingerprint = self.read_fingerprint(name)
        for path in _written(self.records[name]['outputs']):
            fingerprint.files.pop(path, None)
        self._write_fingerprint(name, fingerprint)
        self._save()

    def _save(self) -> None:
        """Writes everything, atomically."""
        content = dict(
            pipeline=self.pipeline,
            steps=self.records,
            students=self.students,
            hashes=self._hashes,
        )
        write_atomically(self.path, json.dumps(content, indent=1))

    def _write_fingerprint(self, name: str, fingerprint: Fingerprint) -> None:
        """Keeps the hash in the record, and the whole in the step's folder to tell what changed."""
        self.records[name]['fingerprint'] = fingerprint.digest
        content = json.dumps(vars(fingerprint), indent=1)
        write_atomically(self.folder(name) / FINGERPRINT, content)

    def _sha256(self, path: Path) -> str:
        """The file's hash, computed again only when its size or modification time changed."""
        stat = path.stat()
        known = self._hashes.get(str(path))
        # The time of the change too: a copy may bring the time of its content with it.
        facts = [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns]
        if known and known[:-1] == facts:
            return known[-1]
        digest = sha256_of_file(path)
        self._hashes[str(path)] = [*facts, digest]
        return digest

    def _images_of(self, folder: str) -> dict[str, int]:
        """Names and sizes in bytes of a folder's images, read once: it may have very many."""
        if folder not in self._folders:
            root = os.path.abspath(folder)
            start = len(os.path.join(root, ''))  # relative_to takes as long as the listing
            own = os.path.join(os.path.abspath(self.work_dir), '')  # whose pictures are no input
            names = (str(path) for path in list_folder(root).images)
            self._folders[folder] = {
                name[start:]: size_of_file(name) for name in names if not name.startswith(own)
            }
        return self._folders[folder]

    # Paths

    def portable(self, value: Any) -> Any:
        """The same nested value with names such as ``{work_dir}`` in place of these folders."""
        if isinstance(value, dict):
            return {key: self.portable(item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [self.portable(item) for item in value]
        if isinstance(value, (str, Path)):
            for name, spellings in self._spellings.items():
                for spelling in spellings:
                    if str(value) == spelling or _is_below(str(value), spelling):
                        return name + str(value)[len(spelling) :]
            return str(value)
        return value

    def _expand(self, value: Any) -> Any:
        """What :meth:`portable` made portable, with the paths as they are now."""
        if isinstance(value, dict):
            return {key: self._expand(item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [self._expand(item) for item in value]
        if isinstance(value, str):
            for name, place in self._places.items():
                if value == name or _is_below(value, name):
                    return str(place) + value[len(name) :]
        return value


def _check_records(records: Any, hashes: Any) -> None:
    """Raises TypeError, KeyError or ValueError where they are not what ``PipelineState`` writes."""
    for part in (records, hashes):
        if not isinstance(part, dict):
            raise TypeError(f'{part!r} is no dict')
    for name, record in records.items():
        needed: dict[str, type | tuple] = dict(status=str, folder=str, fingerprint=str)
        if record['status'] == 'finished':
            needed |= dict(outputs=dict, metrics=dict, seconds=(int, float), iterations=int)
            needed |= dict(parameters=(int, type(None)), resumed=bool)
        for key, kind in needed.items():
            if not isinstance(record[key], kind):
                raise TypeError(f'{name}.{key} is {record[key]!r}')


def _is_below(path: str, folder: str) -> bool:
    """Whether a path begins with a folder; configs write slashes on Windows too."""
    return path.startswith((folder + os.sep, folder + '/'))


def flatten(value: Any, prefix: str = '') -> dict[str, str]:
    """Nested dicts and lists as ``{'a.b.0': text}``; empty ones too, so that nothing is lost."""
    items = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    flat = {}
    for key, item in items:
        flat.update(flatten(item, f'{prefix}.{key}' if prefix else str(key)))
    return flat if flat or not prefix else {prefix: repr(value)}


def _written(outputs: Mapping[str, Any]) -> set[str]:
    """Paths that a step left, and other texts; not those of ``weights``, which it has read."""
    return set(strings_in({key: value for key, value in outputs.items() if key != 'weights'}))


def strings_in(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        for item in value:
            yield from strings_in(item)
    elif isinstance(value, str):
        yield value


def input_files(value: Any, root: str = '') -> Iterator[str]:
    """Paths of existing label and weight files; a dataset's file names are relative to its
    ``data_root``.
    """
    if isinstance(value, dict):
        root = value.get('data_root') or root
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        for item in value:
            yield from input_files(item, root)
    elif isinstance(value, str) and value.endswith(_INPUT_SUFFIXES):
        path = os.path.join(root, value)
        if os.path.isfile(path):
            yield path


def unlabeled_folders(definition: dict) -> Iterator[str]:
    """Paths of the folders, rather than label files, that a 'call' step takes as ``unlabeled``."""
    given = definition.get('kwargs') or {}
    path = os.path.join(str(given.get('data_root') or ''), str(given.get('unlabeled') or ''))
    if given.get('unlabeled') and os.path.isdir(path):
        yield path


def _change_of_folder(path: str, old: dict[str, int], new: dict[str, int] | None) -> str:
    """How a folder of images differs, in words."""
    if new is None:
        return f'folder {path} is gone'
    numbers = dict(
        more=len(new.keys() - old.keys()),
        fewer=len(old.keys() - new.keys()),
        changed=sum(old[name] != new[name] for name in old.keys() & new.keys()),
    )
    first, *others = [f'{number} {word}' for word, number in numbers.items() if number]
    return ', '.join([first.replace(' ', ' images '), *others]) + f' in {path}'


def _shorten(text: str, limit: int = 60) -> str:
    return text if len(text) <= limit else text[: limit - 3] + '...'
