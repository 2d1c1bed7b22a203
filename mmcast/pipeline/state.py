"""What a pipeline remembers between two calls: a record a step in one JSON file, and what its
inputs were.
"""

import json
import os
from pathlib import Path
from typing import Any

from mmcast.configs import shipped_configs
from mmcast.errors import CASTError
from mmcast.files import sha256_of_file, write_atomically
from mmcast.pipeline.fingerprints import Fingerprint, flatten, input_files, strings_in
from mmcast.pipeline.templates import resolve

STATE_FILE = 'pipeline.json'


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
        self.records: dict[str, dict] = {}
        self._hashes: dict[str, list] = {}
        if self.path.exists():
            self._read()
        elif (work_dir / 'last_checkpoint').exists():
            raise CASTError(
                f'{work_dir} holds a single training run, not a pipeline; choose another --work-dir'
            )

    def _read(self) -> None:
        try:
            content = json.loads(self.path.read_text(encoding='utf-8'))
            owner, self.records, self._hashes = (
                content[key] for key in ('pipeline', 'steps', 'hashes')
            )
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise CASTError(
                f'{self.path} is damaged ({error!r}); move it away, then --rerun all'
            ) from error
        if owner != self.pipeline:
            raise CASTError(
                f'{self.work_dir} belongs to the pipeline {owner}, not to {self.pipeline}; choose '
                'another --work-dir'
            )

    def save(self) -> None:
        """Writes everything, atomically."""
        content = dict(pipeline=self.pipeline, steps=self.records, hashes=self._hashes)
        write_atomically(self.path, json.dumps(content, indent=1))

    def finished(self, name: str) -> bool:
        return self.records.get(name, {}).get('status') == 'finished'

    def outputs(self, name: str) -> dict[str, Any]:
        """The outputs of a step, with paths as they are now."""
        places = {name[1:-1]: str(place) for name, place in self._places.items()}
        return resolve(self.records[name]['outputs'], lambda name: places.get(name, f'{{{name}}}'))

    def portable(self, value: Any) -> Any:
        """The same nested value with ``{work_dir}`` and ``{config_dir}`` in place of these paths."""
        if isinstance(value, dict):
            return {key: self.portable(item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [self.portable(item) for item in value]
        if isinstance(value, (str, Path)):
            for name, place in self._places.items():
                for spelling in (str(place.absolute()), str(place)):
                    begins = (
                        spelling + os.sep,
                        spelling + '/',
                    )  # configs write the second on Windows too
                    if str(value) == spelling or str(value).startswith(begins):
                        return name + str(value)[len(spelling) :]
            return str(value)
        return value

    def fingerprint(self, name: str, definition: dict, config: dict | None) -> Fingerprint:
        """What a step depends on now.

        Args:
            name: the step; files that it wrote itself are no inputs.
            definition: the step with its templates resolved.
            config: its whole MMEngine config, None for a 'call' step.
        """
        own = set(strings_in(self.outputs(name))) if self.finished(name) else set()
        inputs = {path for part in (definition, config or {}) for path in input_files(part)} - own
        return Fingerprint(
            flatten(self.portable({**(config or {}), 'step': definition})),
            {self.portable(path): self._sha256(Path(path)) for path in sorted(inputs)},
        )

    def _sha256(self, path: Path) -> str:
        """The file's hash, computed again only when its size or modification time changed."""
        stat = path.stat()
        known = self._hashes.get(str(path))
        if known and known[:2] == [stat.st_size, stat.st_mtime_ns]:
            return known[2]
        digest = sha256_of_file(path)
        self._hashes[str(path)] = [stat.st_size, stat.st_mtime_ns, digest]
        return digest

    def write_fingerprint(self, name: str, fingerprint: Fingerprint) -> None:
        """Keeps the hash in the record and the whole in the step's folder, to tell later what
        changed.
        """
        self.records[name]['fingerprint'] = fingerprint.digest
        write_atomically(
            self.folder(name) / 'fingerprint.json', json.dumps(vars(fingerprint), indent=1)
        )

    def drop_own_outputs(self, name: str) -> None:
        """Takes the files that a step wrote out of its inputs; they seemed some when it was
        interrupted.
        """
        fingerprint = self.read_fingerprint(name)
        for path in set(strings_in(self.records[name]['outputs'])):
            fingerprint.files.pop(path, None)
        self.write_fingerprint(name, fingerprint)

    def read_fingerprint(self, name: str) -> Fingerprint:
        """The fingerprint with which a step was run; empty if it was killed before it was written."""
        path = self.folder(name) / 'fingerprint.json'
        return (
            Fingerprint(**json.loads(path.read_text(encoding='utf-8')))
            if path.exists()
            else Fingerprint()
        )

    def folder(self, name: str) -> Path:
        return self.work_dir / self.records[name]['folder']
