"""Everything about speed and memory that needs a GPU, in one run: one JSON, one Markdown table.

    python benchmarks/gpu.py                           # all parts, within 9 minutes
    python benchmarks/gpu.py --parts predict presets:sam3 --seconds 200
    python benchmarks/gpu.py --device cpu --tiny       # rehearsal, small teachers and images

Offline and with random weights, of which only the number of instances depends: a teacher keeps
--boxes in an image. Every part is a process of its own with a time limit; one that fails or is
stopped leaves the rows that it has and the end of its log. gpu.json and gpu.md are written after
every part; gpu.log has what the parts printed.

predict: latency and memory of teachers and students, one image of 1024x2048, then teacher and
student in turns (the paper's ratio of speeds is 4.56). presets: a training step and a prediction of
a teacher with the options for 16, 24 and 80 GB, beside what benchmarks/memory.py computes
(--computed: the file of its --json). steps: a training step of each config, and without the pixel
loss. labels: pseudo-labels a second, from image files to the store. compiled: as predict, encoders
and the student's decoders compiled; these processes compile at the same time and are measured in
turns.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmcast.cli.errors import report_errors
from mmcast.errors import CASTError

HERE = Path(__file__).resolve().parent
PAPER = 4.56
NETWORKS = (
    'grounded_sam', 'sam3', 'student', 'student_registers', 'student_dinov3', 'cast_lite',
    'mask2former_r50',
)  # fmt: skip
# Seconds that a part may take at most; the order if no parts are given.
LIMITS = {
    'versions': 60,
    'predict': 100,
    'presets:grounded_sam': 90,
    'presets:sam3': 90,
    'steps:cityscapes': 120,
    'labels': 100,
    'steps:single_gpu': 100,
    'steps:custom': 40,
    **{f'compiled:{name}': 30 for name in NETWORKS},
}
COMPILING = 240  # seconds that models may be compiled
START = 90  # seconds until a process has imported all


@dataclass
class Process:
    """The process of a part, which waits for its turn."""

    part: str
    result: Path
    log: Path
    process: subprocess.Popen

    @classmethod
    def start(cls, part: str, folder: Path, options: dict) -> 'Process':
        name = part.replace(':', '_')
        result, log = folder / f'{name}.json', folder / f'{name}.log'
        environment = dict(os.environ, HF_HUB_OFFLINE='1', PYTHONUNBUFFERED='1')
        environment.setdefault('TORCHINDUCTOR_COMPILE_THREADS', '4')
        root = str(HERE.parent)
        environment['PYTHONPATH'] = os.pathsep.join(
            [root, *filter(None, [environment.get('PYTHONPATH')])]
        )
        with open(log, 'wb') as stream:
            process = subprocess.Popen(
                [sys.executable, str(HERE / 'gpu_parts.py'), part, str(result)]
                + ['--options', json.dumps(options)],
                stdin=subprocess.PIPE,
                stdout=stream,
                stderr=subprocess.STDOUT,
                cwd=root,
                env=environment,
                start_new_session=True,
            )
        return cls(part, result, log, process)

    @property
    def ready(self) -> bool:
        return Path(f'{self.result}.ready').exists()

    @property
    def ended(self) -> bool:
        return self.process.poll() is not None

    def wait(self, condition: Callable[[], bool], limit: float) -> None:
        """Until the condition holds, the process ended, or the limit (of ``time.time``) is over."""
        while not condition() and not self.ended and time.time() < limit:
            time.sleep(0.05)

    def measure(self, limit: float) -> str:
        """Its turn, until a limit; then it is killed. What went wrong, or nothing."""
        self.wait(lambda: self.ready, limit)
        problem = ''
        if self.ready and not self.ended:
            # It stops by itself between two measurements, and has time for the one that it is at.
            spare = 0.25 * max(0.0, limit - time.time())
            try:
                self.process.stdin.write(f'{limit - spare}\n'.encode())
                self.process.stdin.flush()
            except OSError:
                pass  # it died just now
            self.wait(lambda: False, limit)
        if not self.ended:
            problem = 'stopped at its time limit'
            self.kill()
        elif self.process.returncode:
            problem = f'ended with status {self.process.returncode}'
        return problem

    def kill(self) -> None:
        if not self.ended:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def rows(self) -> list[dict]:
        return json.loads(self.result.read_text()) if self.result.exists() else []

    def last_lines(self, number: int = 12) -> list[str]:
        return self.log.read_text(errors='replace').splitlines()[-number:]


class Run:
    """The parts of a run, and the files that they go to."""

    def __init__(self, args: argparse.Namespace, folder: Path) -> None:
        self.args, self.folder = args, folder
        self.start = time.time()
        self.end = self.start + args.seconds
        self.parts: dict[str, dict] = {}
        self.computed = json.loads(args.computed.read_text()) if args.computed else []
        self.options = dict(
            device=args.device,
            tiny=args.tiny,
            boxes=args.boxes,
            objects=args.objects,
            presets=args.presets,
            accumulated=args.accumulated,
        )
        if args.tiny:
            self.options |= dict(
                boxes=6, objects=6, accumulated=2, rounds=2, step_seconds=0.0, images=4
            )
        backend = args.backend or ('eager' if args.device == 'cpu' else 'inductor')
        self.options |= dict(backend=backend)

    def all(self) -> None:
        alone = [part for part in self.args.parts if not part.startswith('compiled')]
        together = [part for part in self.args.parts if part.startswith('compiled')]
        self.one_after_the_other(alone)
        if together and time.time() > self.end - 60:
            say(f'time is short: {", ".join(together)} left out')
            for part in together:
                self.parts[part] = dict(problem='left out, time was short', rows=[])
        elif together:
            self.compiled(together)
        self.write()

    def started(self, part: str) -> Process:
        return Process.start(part, self.folder, self.options)

    def one_after_the_other(self, parts: Sequence[str]) -> None:
        """All import at the same time first: cores that import slow down what is measured."""
        processes = [self.started(part) for part in parts]
        limit = min(self.end, time.time() + START)
        for process in processes:
            process.wait(lambda process=process: process.ready, limit)
        for process in processes:
            self.measure(process, LIMITS[process.part])

    def compiled(self, parts: Sequence[str]) -> None:
        """Compile at the same time, which takes processor cores, then measure in turns."""
        jobs = self.args.jobs
        say(f'compiling {len(parts)} models, {jobs} at a time')
        processes: list[Process] = []
        limit = min(time.time() + COMPILING, self.end - 5 * len(parts))
        queue = list(parts)
        while queue:
            busy = [each for each in processes if not each.ready and not each.ended]
            if len(busy) < jobs:
                processes.append(self.started(queue.pop(0)))
            elif time.time() > limit:
                break
            time.sleep(0.2)
        for process in processes:
            process.wait(lambda process=process: process.ready, limit)
        slow = [each for each in processes if not each.ready and not each.ended]
        for process in slow:
            process.kill()
            self.keep(process, 'not compiled in time', time.time())
        for part in queue:
            self.parts[part] = dict(problem='left out, time was short', rows=[])
        for process in processes:
            if process not in slow:
                self.measure(process, LIMITS[process.part])

    def measure(self, process: Process, limit: float) -> None:
        begin = time.time()
        problem = process.measure(min(begin + limit, self.end))
        self.keep(process, problem, begin)

    def keep(self, process: Process, problem: str, begin: float) -> None:
        rows = process.rows()
        part = dict(seconds=round(time.time() - begin, 1), rows=rows)
        if problem:
            part.update(problem=problem, log=process.last_lines())
        self.parts[process.part] = part
        with open(self.args.out / 'gpu.log', 'a', encoding='utf-8') as log:
            log.write(f'==== {process.part}\n{process.log.read_text(errors="replace")}\n')
        bad = problem or '; '.join(row['problem'] for row in rows if 'problem' in row)
        say(
            f'{process.part}: {len(rows)} rows in {part["seconds"]:.0f} s, '
            f'{time.time() - self.start:.0f} s in all{": " + bad if bad else ""}'
        )
        for line in part.get('log', [])[-3:]:
            say(f'    {line[:200]}')
        self.write()

    def write(self) -> None:
        content = dict(
            options=self.options,
            seconds=round(time.time() - self.start, 1),
            computed=self.computed,
            parts=self.parts,
        )
        for name, text in {
            'gpu.json': json.dumps(content, indent=1),
            'gpu.md': to_markdown(content),
        }.items():
            partial = self.args.out / f'{name}.part'
            partial.write_text(text)
            os.replace(partial, self.args.out / name)


def say(line: str) -> None:
    print(line, flush=True)


# ---- tables


def to_markdown(content: dict) -> str:
    """All tables of a run."""
    parts = content['parts']

    def rows_of(kind: str) -> list[dict]:
        return [
            row
            for part, found in parts.items()
            if part.partition(':')[0] == kind
            for row in found['rows']
        ]

    facts = [f'{k} {v}' for row in rows_of('versions') for k, v in row.items()]
    lines = ['# Measured on a GPU', '', ', '.join(facts), '']
    options = content['options']
    size = '64x128 (rehearsal)' if options['tiny'] else '1024x2048'
    setting = (
        f'Images of {size}, random weights, {options["boxes"]} instances kept by a teacher, '
        f'{options["objects"]} labeled objects in an image of a training step (presets: 32). Times '
        "are medians with the fastest and the slowest run; memory is the peak of torch's tensors, "
        'and of what its allocator held, in GB (2^30 bytes).'
    )
    lines += [setting, '']
    predicted = rows_of('predict')
    lines += _predictions([row for row in predicted if 'ratio' not in row] + rows_of('compiled'))
    lines += _ratios([row for row in predicted if 'ratio' in row])
    lines += _presets(rows_of('presets'), content['computed'])
    lines += _steps(rows_of('steps'))
    lines += _labels(rows_of('labels'))
    for part, found in parts.items():
        if 'problem' in found:
            lines += ['', f'{part}: {found["problem"]}', '', '```', *found.get('log', []), '```']
    return '\n'.join(lines) + '\n'


def _table(title: str, heads: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    if not rows:
        return []
    texts = [heads, ['---'] * len(heads), *rows]
    return [
        f'## {title}',
        '',
        *(f'| {" | ".join("" if cell is None else str(cell) for cell in row)} |' for row in texts),
        '',
    ]


def _times(row: dict, unit: float = 1000, digits: int = 1) -> str:
    median, fastest, slowest = (
        f'{unit * row[name]:.{digits}f}' for name in ('median', 'fastest', 'slowest')
    )
    return f'{median} ({fastest} to {slowest})'


def _memory(row: dict) -> tuple:
    return row['peak_gb'], row['reserved_gb']


def _predictions(rows: Sequence[dict]) -> list[str]:
    cells = []
    for row in rows:
        if 'problem' in row:
            cells.append((row.get('model', row.get('ratio')), row.get('how'), row['problem']))
            continue
        compiled = ''
        if 'compile_seconds' in row:
            compiled = (
                f'{row["compile_seconds"]} s, {row["graphs"]} graphs: {", ".join(row["parts"])}'
            )
        cells.append(
            (row['model'], row['how'], row['dtype'], row.get('parameters'), row['instances'])
            + (_times(row), row['images_per_second'], *_memory(row), compiled)
        )
    heads = ('model', 'how', 'dtype', 'parameters (M)', 'instances', 'ms', 'images/s')
    return _table('Prediction, batch 1', (*heads, 'peak', 'held', 'compiled in'), cells)


def _ratios(rows: Sequence[dict]) -> list[str]:
    cells = [
        (row['ratio'], row.get('problem') or _times(row, 1, 2), row.get('runs'), PAPER)
        for row in rows
    ]
    heads = ('teacher', "the student's speed / its own, in turns, bf16 eager", 'rounds', 'paper')
    return _table('Teacher to student', heads, cells)


def _presets(rows: Sequence[dict], computed: Sequence[dict]) -> list[str]:
    totals = {(row['teacher'], row['gpu']): row['total'] for row in computed}
    cells = []
    for row in rows:
        key = row['teacher'], row['preset']
        if 'problem' in row:
            cells.append((*key, row['problem']))
            continue
        what, batch, learn, total = 'prediction', 1, None, None
        if 'prediction' not in row:
            what, batch = 'optimizer step', f'{row["batch"]} x {row["accumulated"]}'
            learn, total = row['learn'], totals.get(key)
            if not row['stepped']:
                what = 'step without optimizer (gradients were not finite)'
        cells.append((*key, what, batch, learn, _times(row, 1, 3), *_memory(row), total))
    heads = ('teacher', 'preset', 'what', 'batch', 'learn (M)', 's', 'peak', 'held', 'computed')
    return _table('Presets', heads, cells)


def _steps(rows: Sequence[dict]) -> list[str]:
    cells = []
    for row in rows:
        if 'problem' in row:
            cells.append((row['config'], row['problem']))
            continue
        share = row.get('pixel_loss_share')
        cells.append(
            (
                row['config'] + ('' if row['stepped'] else ' (gradients were not finite)'),
                f'{row["batch"]} x {row["accumulated"]}',
                'x'.join(map(str, row['size'])),
            )
            + (_times(row, 1, 3), f'{row["iteration"]:.3f}', row['iterations'], row['hours'])
            + (*_memory(row), None if share is None else f'{100 * share:.0f} %')
        )
    heads = (
        'config', 'batch', 'size', 's an optimizer step', 's an iteration', 'iterations',
        'hours (computed from the step, without loading)', 'peak', 'held', 'pixel loss',
    )  # fmt: skip
    return _table('Training steps', heads, cells)


def _labels(rows: Sequence[dict]) -> list[str]:
    cells = [
        (row['teacher'], row['problem'])
        if 'problem' in row
        else (row['teacher'], row['dtype'], row['images_per_second'], row['labels_per_second'])
        + (row['kilobytes_per_image'],)
        for row in rows
    ]
    heads = ('teacher', 'dtype', 'images/s', 'labels/s', 'kB an image in the store')
    title = 'Pseudo-labels, from files to the store (masks of random weights are ragged)'
    return _table(title, heads, cells)


@report_errors
def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--out', type=Path, default=Path('work_dirs/gpu'), help='folder')
    parser.add_argument(
        '--parts',
        nargs='+',
        default=list(LIMITS),
        metavar='PART',
        help=f'of {", ".join(LIMITS)}; or a kind such as compiled',
    )
    parser.add_argument(
        '--presets',
        nargs='+',
        default=['16', '24', '80'],
        metavar='GB',
        help='of the part presets: 16, sam3:24, ... (16 24 80)',
    )
    parser.add_argument(
        '--accumulated', type=int, default=8, help='most batches of a training step'
    )
    parser.add_argument('--seconds', type=float, default=540, help='for all parts (540)')
    parser.add_argument('--device', choices=['cuda', 'cpu'], default='cuda')
    parser.add_argument('--tiny', action='store_true', help='small teachers and images')
    parser.add_argument('--boxes', type=int, default=20, help='instances that a teacher keeps (20)')
    parser.add_argument('--objects', type=int, default=20, help='labeled objects an image (20)')
    parser.add_argument('--jobs', type=int, help='models compiled at a time (a half of the cores)')
    parser.add_argument(
        '--backend', help='of torch.compile (inductor; on a CPU eager, which only traces)'
    )
    parser.add_argument('--computed', type=Path, help='what benchmarks/memory.py --json wrote')
    args = parser.parse_args()
    chosen = [
        part for given in args.parts for part in LIMITS if given in (part, part.partition(':')[0])
    ]
    unknown = [
        part
        for part in args.parts
        if part not in chosen and part not in {p.partition(':')[0] for p in LIMITS}
    ]
    if unknown:
        raise CASTError(f'no part {unknown[0]}; there are {", ".join(LIMITS)}')
    args.parts = chosen
    args.jobs = args.jobs or max(1, (os.cpu_count() or 2) // 2)
    args.out = args.out.resolve()
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / 'gpu.log').unlink(missing_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        run = Run(args, Path(folder))
        run.all()
    say(f'{args.out / "gpu.json"}, {args.out / "gpu.md"}')
    print((args.out / 'gpu.md').read_text())
    failed = [
        part
        for part, found in run.parts.items()
        if 'problem' in found or any('problem' in row for row in found['rows'])
    ]
    if failed:
        sys.exit(f'with problems: {", ".join(failed)}')


if __name__ == '__main__':
    main()
