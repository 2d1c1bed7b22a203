"""How large and how fast are these models? Every one in a process of its own, all measured in
turns.
"""

import contextlib
import json
import multiprocessing
import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from mmcast.configs import find_config
from mmcast.errors import CASTError
from mmcast.files import write_atomically
from mmcast.memory import PeakMemory
from mmcast.processes import end_with_parent


@dataclass(frozen=True)
class Entry:
    """A line of the table: ``path`` is an ONNX file or a config, ``backend`` is onnx, eager or
    compiled.
    """

    name: str
    path: str
    checkpoint: str | None
    backend: str


@dataclass(frozen=True)
class Setting:
    """What all entries share; ``size`` is height and width in pixels, ``image`` a file, None for
    noise.
    """

    size: tuple[int, int] = (512, 1024)
    batch: int = 1
    runs: int = 20
    warmup: int = 2
    threads: int = 0
    device: str = 'cpu'
    image: str | None = None


def parse_entries(texts: Sequence[str], backends: Sequence[str] = ('eager',)) -> list[Entry]:
    """``[NAME=]PATH``: an ONNX file, the folder of an exported student, ``CONFIG`` (random weights)
    or ``CONFIG,CHECKPOINT``; torch models once with each backend. Two that would have one name are
    named as they were given.

    Raises:
        CASTError: a path does not exist.
    """
    entries = []
    for text in texts:
        name, _, spec = text.rpartition('=')
        path, _, checkpoint = spec.partition(',')
        if Path(path).is_dir():
            path, checkpoint = str(Path(path, 'student.py')), str(Path(path, 'student.pth'))
        with contextlib.suppress(CASTError):  # what is not there is named below
            path = str(find_config(path))
        for needed in filter(None, (path, checkpoint)):
            if not Path(needed).is_file():
                raise CASTError(
                    f'{needed} of {text!r} not found; give [NAME=]FILE.onnx, a folder of '
                    'mmcast export, CONFIG or CONFIG,CHECKPOINT'
                )
        kinds = ['onnx'] if path.endswith('.onnx') else backends
        named = (name or Path(spec.partition(',')[0]).stem, spec)
        entries += [(named, path, checkpoint or None, kind) for kind in kinds]
    places: dict[str, set[str]] = {}
    for (name, spec), *_ in entries:
        places.setdefault(name, set()).add(spec)
    return [
        Entry(name if len(places[name]) == 1 else spec, *rest) for (name, spec), *rest in entries
    ]


def benchmark(
    entries: Sequence[Entry],
    setting: Setting = Setting(),
    show: Callable[[str], None] = lambda line: None,
) -> list[dict]:
    """Measure models from an image in memory to masks of its size.

    Every model lives in a process of its own; they take turns, run by run, so that other load slows
    all of them alike, each time after one run that is not measured. Time is wall clock;
    ``cpu_s`` is processor time, which other processes hardly disturb.

    Args:
        entries: The models.
        setting: Image size, batch, runs and device, the same for all.
        show: Called with a line for people whenever something is done.

    Returns:
        One dict per entry: name, backend, parameters and flops (by part; None for ONNX), latency_ms
        (median, p90, p99, mean), runs (seconds and processor seconds of each turn), fps (images
        per second, of the median), cpu_s (median per run),
        peak_memory_mb (of the process up to the last run; on a GPU, what torch allocated); or name,
        backend and ``problem``.
    """
    workers = []
    for entry in entries:
        show(f'{entry.name} ({entry.backend}): loading')
        workers.append(_Worker(entry, setting))
    for number in range(setting.runs):
        for worker in workers:
            worker.run()
        show(f'run {number + 1} of {setting.runs}')
    return [worker.row(setting.batch) for worker in workers]


class _Worker:
    """The process of one entry, ready when this is made; ``problem`` says why it is not."""

    def __init__(self, entry: Entry, setting: Setting) -> None:
        context = multiprocessing.get_context('spawn')
        self.entry, self.times, self.problem = entry, [], None
        self.pipe, there = context.Pipe()
        self.process = context.Process(target=_work, args=(there, entry, setting), daemon=True)
        self.process.start()
        there.close()
        self._answer()

    def run(self) -> None:
        """One measured run."""
        seconds = self._ask('run')
        if not self.problem:
            self.times.append(seconds)

    def row(self, batch: int) -> dict:
        """The entry's row; the process ends."""
        facts = self._ask('describe')
        self.process.join(10)
        row = dict(name=self.entry.name, backend=self.entry.backend)
        return row | (
            dict(problem=self.problem) if self.problem else facts | _statistics(self.times, batch)
        )

    def _ask(self, what: str) -> Any:
        if self.problem:
            return None
        with contextlib.suppress(OSError):  # it is gone, which reading tells as well
            self.pipe.send(what)
        return self._answer()

    def _answer(self) -> Any:
        """What the process says; a string is a problem."""
        try:
            answer = self.pipe.recv()
        except (EOFError, OSError):
            answer = 'its process died, perhaps for want of memory'
        if isinstance(answer, str):
            self.problem = answer
        return answer


def _statistics(times: list[tuple[float, float]], batch: int) -> dict:
    wall, cpu = zip(*times)
    latency = {
        name: round(1000 * float(value), 2)
        for name, value in (
            ('median', np.median(wall)),
            ('p90', np.quantile(wall, 0.9)),
            ('p99', np.quantile(wall, 0.99)),
            ('mean', np.mean(wall)),
        )
    }
    return dict(
        runs=[[round(seconds, 4) for seconds in run] for run in times],
        latency_ms=latency,
        fps=round(batch / statistics.median(wall), 2),
        cpu_s=round(statistics.median(cpu), 4),
    )


# ---- in a process of its own


def _work(pipe: Connection, entry: Entry, setting: Setting) -> None:
    """Load a model, then serve the parent: ``run`` gives the seconds of one, ``describe`` the last
    word.
    """
    end_with_parent()
    try:
        with PeakMemory() as peak:
            images = _images(setting)
            kind = _OnnxModel if entry.backend == 'onnx' else _TorchModel
            model = kind(entry, setting)
            for _ in range(setting.warmup):
                model.run(images)
            pipe.send(True)
            _serve_runs(pipe, model, images)
        # taken before operations are counted, which needs more
        memory = model.gpu_memory_mb() or peak.megabytes
        pipe.send(dict(peak_memory_mb=memory, **model.describe(images)))
    except Exception as error:  # whatever it is, the other models are to be measured
        pipe.send(' '.join(f'{type(error).__name__}: {error}'.split())[:300])


def _serve_runs(pipe: Connection, model: Any, images: np.ndarray) -> None:
    while pipe.recv() == 'run':
        # After the others' turns its memory has left the caches, on some machines RAM as well.
        model.run(images)
        wall, cpu = time.perf_counter(), time.process_time()
        model.run(images)
        pipe.send((time.perf_counter() - wall, time.process_time() - cpu))


def _images(setting: Setting) -> np.ndarray:
    """A batch (B, H, W, 3) of uint8, RGB."""
    height, width = setting.size
    if setting.image is None:
        return np.random.default_rng(0).integers(
            0, 256, (setting.batch, height, width, 3), dtype=np.uint8
        )
    import cv2

    from mmcast.images import read_image

    image = cv2.resize(read_image(setting.image), (width, height), interpolation=cv2.INTER_AREA)
    return np.stack([image] * setting.batch)


class _OnnxModel:
    """An ONNX file; torch is not part of the process, whose memory is measured."""

    def __init__(self, entry: Entry, setting: Setting) -> None:
        from mmcast.deploy.onnx_student import OnnxStudent

        self.student = OnnxStudent(entry.path, threads=setting.threads or None)

    def run(self, images: np.ndarray) -> None:
        self.student.run(images, -1.0)  # all masks, empty ones too, as torch makes them

    def gpu_memory_mb(self) -> None:
        return None

    def describe(self, images: np.ndarray) -> dict:
        return dict(
            parameters=None, flops=None, precision=self.student.metadata.get('precision', 'fp32')
        )


class _TorchModel:
    """A config with or without weights, run as mmdet runs it, from the data preprocessor to the
    masks.
    """

    def __init__(self, entry: Entry, setting: Setting) -> None:
        import torch

        from mmcast.configs import load_config
        from mmcast.deploy.export import build_network
        from mmcast.models.weights.initialization import initialization_unlogged
        from mmcast.models.weights.loading import load_weights

        self.torch, self.device = torch, setting.device
        if setting.threads:
            torch.set_num_threads(setting.threads)
        cfg = load_config(Path(entry.path))
        if not cfg.get('model'):
            raise CASTError(f'{entry.path} has no model; give a config of one run')
        torch.manual_seed(0)
        model = build_network(cfg)
        if entry.checkpoint:
            load_weights(model, entry.checkpoint)
        elif hasattr(model, 'init_weights'):
            with initialization_unlogged():
                without_files(model).init_weights()
        student = getattr(model, 'detector', model)  # of a CASTDetector
        self.model = student.to(setting.device).eval()
        if entry.backend == 'compiled':
            for name in ('backbone', 'neck', 'panoptic_head'):
                if isinstance(getattr(self.model, name, None), torch.nn.Module):
                    getattr(self.model, name).compile(dynamic=False)

    def run(self, images: np.ndarray) -> None:
        from mmcast.deploy.agreement import run_torch

        run_torch(self.model, images)
        if self.device.startswith('cuda'):
            self.torch.cuda.synchronize(self.device)

    def gpu_memory_mb(self) -> int | None:
        if self.device.startswith('cuda'):
            return self.torch.cuda.max_memory_allocated(self.device) // 2**20
        return None

    def describe(self, images: np.ndarray) -> dict:
        from mmcast.deploy.flops import count_flops, parameters_by_part

        self.torch.compiler.set_stance('force_eager')  # the counter sees nothing in compiled code
        flops = count_flops(self.model, lambda: self.run(images))
        return dict(parameters=parameters_by_part(self.model), flops=flops, precision='fp32')


def without_files(model: Any) -> Any:
    """Random weights all over, where the config would take some from a file."""
    for module in model.modules():
        if getattr(module, 'init_cfg', None) and 'Pretrained' in str(module.init_cfg):
            module.init_cfg = None
    return model


# ---- showing

HEADERS = (
    'model',
    'backend',
    'parameters (M)',
    'GFLOPs',
    'median (ms)',
    'p90',
    'p99',
    'FPS',
    'CPU (s)',
    'memory (MB)',
)


def cells(row: dict) -> list[str]:
    """A row as text, under :data:`HEADERS`."""
    if 'problem' in row:
        return [row['name'], row['backend'], row['problem'], *[''] * (len(HEADERS) - 3)]
    latency = row['latency_ms']
    backend = (
        row['backend'] if row['precision'] == 'fp32' else f'{row["backend"]}, {row["precision"]}'
    )
    parameters, flops = (
        f'{row[key]["total"] / unit:.1f}' if row[key] else ''
        for key, unit in (('parameters', 1e6), ('flops', 1e9))
    )
    return [
        row['name'],
        backend,
        parameters,
        flops,
        *(f'{latency[key]:.1f}' for key in ('median', 'p90', 'p99')),
        f'{row["fps"]:.2f}',
        f'{row["cpu_s"]:.3f}',
        str(row['peak_memory_mb']),
    ]


def machine(setting: Setting) -> str:
    """One line: where and how it was measured."""
    name = platform.processor() or platform.machine()
    try:
        lines = Path('/proc/cpuinfo').read_text(encoding='utf-8').splitlines()
        name = next(
            line.partition(':')[2].strip() for line in lines if line.startswith('model name')
        )
    except (OSError, StopIteration):
        pass  # not Linux
    threads = setting.threads or os.cpu_count()
    where = f'{name}, {threads} threads'
    if setting.device.startswith('cuda'):
        import torch

        where = f'{torch.cuda.get_device_name(setting.device)}; {where}'
    return (
        f'{setting.size[0]}x{setting.size[1]}, batch {setting.batch}, {setting.runs} runs in '
        f'turns, {setting.device}: {where}'
    )


def to_markdown(rows: Sequence[dict], setting: Setting) -> str:
    """The table, and one of the parts of every model that has any."""
    lines = [machine(setting), '', _line(HEADERS), _line(['---'] * len(HEADERS))]
    lines += [_line(cells(row)) for row in rows]
    lines += [
        '',
        (
            'GFLOPs: two a multiply-add, attention counted. Memory: of the process, libraries '
            'included.'
        ),
        '',
    ]
    lines += [_line(('model', 'part', 'parameters (M)', 'GFLOPs')), _line(['---'] * 4)]
    seen = set()
    for row in rows:
        if row.get('flops') and row['name'] not in seen:
            seen.add(row['name'])
            lines += [
                _line(
                    (
                        row['name'],
                        part,
                        f'{row["parameters"].get(part, 0) / 1e6:.2f}',
                        f'{row["flops"].get(part, 0) / 1e9:.1f}',
                    )
                )
                for part in dict.fromkeys([*row['parameters'], *row['flops']])
                if part != 'total'
            ]
    return '\n'.join(lines) + '\n'


def _line(texts: Sequence[str]) -> str:
    return f'| {" | ".join(texts)} |'


def write_results(
    rows: Sequence[dict], setting: Setting, json_file: str | None, markdown_file: str | None
) -> None:
    """The rows and the machine as JSON, the tables as Markdown."""
    if json_file:
        content = dict(setting=vars(setting), machine=machine(setting), rows=list(rows))
        write_atomically(json_file, json.dumps(content, indent=1))
    if markdown_file:
        write_atomically(markdown_file, to_markdown(rows, setting))
