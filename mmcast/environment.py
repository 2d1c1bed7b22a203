"""What is installed, what is wrong with it, and what to type.

``look`` reads the machine once and ``check`` judges what it saw, so that every judgement can be
tested without the environment it is about. Only the standard library is needed: the rest may be
what is missing.
"""

import functools
import importlib
import importlib.metadata
import json
import operator
import os
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from mmcast.errors import CASTError

_PACKAGE = Path(__file__).parent


def read_requirements(name: str) -> dict[str, str]:
    """Version specifiers by distribution, such as '==2.14.1' or '', of ``requirements/<name>.txt``.

    The file is next to the package in a checkout and in it after ``pip install``.

    Raises:
        CASTError: it is in neither place.
    """
    folders = (_PACKAGE / '.mim' / 'requirements', _PACKAGE.parent / 'requirements')
    paths = (folder / f'{name}.txt' for folder in folders)
    path = next((path for path in paths if path.is_file()), None)
    if path is None:
        raise CASTError(f'requirements/{name}.txt is not next to {_PACKAGE}: install mmcast again')
    lines = [line.strip() for line in path.read_text(encoding='utf-8').splitlines()]
    split = (re.fullmatch(r'([\w.-]+)(.*)', line) for line in lines if line[:1] not in ('', '#'))
    return {_normalise(found[1]): found[2].strip() for found in split if found}


def _normalise(name: str) -> str:
    return re.sub(r'[-_.]+', '-', name).lower()


def _pins(name: str) -> dict[str, str]:
    specifiers = read_requirements(name)
    return {name: spec[2:] for name, spec in specifiers.items() if spec.startswith('==')}


PYTHON = (3, 11), (3, 13)  # the first and the last that are supported
TESTED = _pins('mminstall')
UPSTREAM = _pins('upstream')
NEEDED = read_requirements('runtime')
# Module: its maintained distribution, the upstream ones, the oldest version with what mmcast calls.
OPENMMLAB = {
    'mmengine': ('onedl-mmengine', ('mmengine', 'mmengine-lite'), '0.10'),
    'mmcv': ('onedl-mmcv', ('mmcv', 'mmcv-full', 'mmcv-lite'), '2.0'),
    'mmdet': ('onedl-mmdetection', ('mmdet',), '3.3'),
    'mmpretrain': ('onedl-mmpretrain', ('mmpretrain',), '1.0'),
    'mim': ('onedl-mim', ('openmim',), '0'),
}
DEMO_MEMORY_GB = 6
_PIP = 'pip install '

OK, NOTE, WRONG = 'ok', 'note', 'wrong'


@dataclass(frozen=True)
class Machine:
    """What ``look`` saw; ``versions`` is by normalised distribution name ('faster-coco-eval')."""

    versions: dict[str, str]
    python: tuple[int, ...] = (3, 11)
    compiled_ops: bool = False
    torchvision_needs: str | None = (
        None  # the torch version that the installed torchvision was built for
    )
    torch_error: str | None = None
    gpu: str | None = None
    cores: int = 1
    memory_gb: float | None = None


@dataclass(frozen=True)
class Check:
    """One row: ``status`` is 'ok', 'note' (works, but know this) or 'wrong' (mmcast needs it
    otherwise).
    """

    name: str
    found: str
    status: str = OK
    problem: str = ''
    cure: str = ''


@dataclass(frozen=True)
class EnvironmentReport:
    """What ``check`` found, in the order in which to fix it."""

    findings: list[Check] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return all(finding.status != WRONG for finding in self.findings)

    def to_json(self) -> str:
        return json.dumps(
            dict(ok=self.ok, checks=[asdict(finding) for finding in self.findings]), indent=2
        )


# ---- looking


@functools.cache
def source_commit() -> str | None:
    """Git's commit of the checkout that mmcast runs from, as of the first call, with ``-dirty``
    where its files were changed since; None elsewhere.
    """
    if not (_PACKAGE.parent / '.git').exists():
        return None
    command = ['git', '-C', str(_PACKAGE.parent), 'describe', '--always', '--dirty', '--abbrev=40']
    try:
        done = subprocess.run([*command, '--exclude=*'], capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.SubprocessError):  # there is no git
        return None
    return done.stdout.strip() or None


def look() -> Machine:
    """Read the installed distributions, torch's devices, cores and memory of this machine."""
    # Python imports what comes first on its path, so the first of several versions counts.
    distributions: dict[str, importlib.metadata.Distribution] = {}
    for distribution in importlib.metadata.distributions():
        distributions.setdefault(_normalise(distribution.metadata['Name'] or ''), distribution)
    torch_error, gpu = _torch_devices() if 'torch' in distributions else (None, None)
    return Machine(
        versions={name: distribution.version for name, distribution in distributions.items()},
        python=sys.version_info[:3],
        compiled_ops=_has_compiled_ops(distributions),
        torchvision_needs=_exact_requirement(distributions.get('torchvision'), 'torch'),
        torch_error=torch_error,
        gpu=gpu,
        cores=len(os.sched_getaffinity(0))
        if hasattr(os, 'sched_getaffinity')
        else os.cpu_count() or 1,
        memory_gb=_memory_gb(),
    )


def _has_compiled_ops(distributions: dict[str, importlib.metadata.Distribution]) -> bool:
    owners = [distributions[name] for name in _owners('mmcv', distributions)]
    files = [str(path) for owner in owners for path in owner.files or ()]
    return any(re.fullmatch(r'mmcv/_ext\..*(so|pyd)', path) for path in files)


def _exact_requirement(
    distribution: importlib.metadata.Distribution | None, name: str
) -> str | None:
    """``2.14.1`` where the distribution requires ``name==2.14.1``."""
    for requirement in (distribution.requires if distribution else None) or ():
        match = re.match(rf'{name}\s*\(?==\s*([\w.]+)', requirement)
        if match:
            return match[1]
    return None


def _torch_devices() -> tuple[str | None, str | None]:
    """Why torch cannot be imported, and the GPUs that it sees; None for nothing."""
    try:
        torch = importlib.import_module('torch')
        cards = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
    except Exception as error:  # whatever a broken installation raises is the answer
        return f'{type(error).__name__}: {error}'.splitlines()[0], None
    return None, ', '.join(
        f'{card.name} ({card.total_memory / 2**30:.0f} GiB)' for card in cards
    ) or None


def _memory_gb() -> float | None:
    try:
        return importlib.import_module('psutil').virtual_memory().total / 2**30
    except ImportError:
        pass
    try:
        return os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30
    except (AttributeError, ValueError, OSError):  # not every system has these names
        return None


# ---- judging


def check(machine: Machine) -> EnvironmentReport:
    """Judge what ``look`` saw; the order of the findings is the order in which to fix them."""
    return EnvironmentReport(
        [
            _python(machine),
            *_torch(machine),
            *(_openmmlab(machine, module) for module in OPENMMLAB),
            *_known_traps(machine.versions),
            _operators(machine),
            *_others(machine.versions),
            *_hardware(machine),
        ]
    )


def _python(machine: Machine) -> Check:
    found = '.'.join(map(str, machine.python))
    first, last = ('.'.join(map(str, version)) for version in PYTHON)
    if machine.python[:2] < PYTHON[0]:
        cure = f'make setup PYTHON=python{first} (after installing Python {first})'
        return Check('Python', found, WRONG, 'too old', cure)
    if machine.python[:2] > PYTHON[1]:
        return Check('Python', found, NOTE, f'supported are {first} to {last}')
    return Check('Python', found)


def _torch(machine: Machine) -> Iterator[Check]:
    for name in ('torch', 'torchvision'):
        yield _required(machine.versions, name)
    if machine.torch_error:
        yield Check(
            'torch import',
            machine.torch_error,
            WRONG,
            'torch is installed but cannot be imported',
            _install('torch', 'torchvision', force=True),
        )
    torch, needed = machine.versions.get('torch', ''), machine.torchvision_needs
    if torch and needed and torch.split('+')[0] != needed.split('+')[0]:
        yield Check(
            'torchvision',
            f'built for torch {needed}',
            WRONG,
            f'does not fit torch {torch}',
            _install('torch', 'torchvision'),
        )


def _required(versions: dict[str, str], name: str) -> Check:
    version, specifier = versions.get(name), NEEDED.get(name, '')
    if version is None:
        return Check(name, 'not installed', WRONG, 'needed', _install(name))
    if not _satisfies(version, specifier):
        return Check(name, version, WRONG, f'mmcast needs {specifier}', _install(name))
    return _as_tested(name, version)


def _satisfies(version: str, specifier: str) -> bool:
    """Whether a version is within a specifier such as '>=4.57,<6'."""
    tests = {'==': operator.eq, '>=': operator.ge, '<=': operator.le, '<': operator.lt}
    for part in filter(None, specifier.split(',')):
        sign = ''.join(re.findall('[<>=]', part))
        if not tests[sign](_number(version), _number(part.strip().removeprefix(sign))):
            return False
    return True


def _as_tested(name: str, version: str) -> Check:
    tested = TESTED.get(name, version)
    if version.split('+')[0] != tested:  # 2.14.1+cpu is 2.14.1
        return Check(name, version, NOTE, f'tested with {tested}')
    return Check(name, version)


def _openmmlab(machine: Machine, module: str) -> Check:
    """One of the OpenMMLab modules: there, once, and new enough."""
    maintained, upstream, oldest = OPENMMLAB[module]
    owners = _owners(module, machine.versions)
    if not owners:
        if module == 'mim':
            return Check(
                'mim', 'not installed', NOTE, 'only `mim train` needs it', _install(maintained)
            )
        return Check(module, 'not installed', WRONG, 'needed', _install(maintained))
    found = ' and '.join(f'{owner} {machine.versions[owner]}' for owner in owners)
    if len(owners) > 1:
        return Check(
            module,
            found,
            WRONG,
            f'{len(owners)} distributions own the module {module}',
            _swap(module, owners),
        )
    version = machine.versions[owners[0]]
    if _number(version) < _number(oldest):
        return Check(module, found, WRONG, f'older than {oldest}', _swap(module, owners))
    if owners[0] != maintained:
        found = f'{found} (upstream)'
        if UPSTREAM.get(owners[0]) == version:
            return Check(module, found)
        tested = [f'{name} {pin}' for name, pin in UPSTREAM.items() if name in upstream]
        tested.append(f'{maintained} {TESTED[maintained]}')
        return Check(module, found, NOTE, f'tested with {" and ".join(tested)}')
    return _as_tested(maintained, version)


def _known_traps(versions: dict[str, str]) -> Iterator[Check]:
    """Combinations that install and then fail; each was seen or is a public issue."""
    mmdetection = versions.get('onedl-mmdetection')
    if mmdetection and (3, 4, 6) <= _number(mmdetection) <= (3, 5, 1):
        yield Check(
            'onedl-mmdetection',
            mmdetection,
            WRONG,
            '3.4.6 to 3.5.1 cannot load a released Grounding-DINO',
            _install('onedl-mmdetection'),
        )
    mmcv = next((versions[name] for name in _owners('mmcv', versions)), None)
    if 'mmdet' in versions and mmcv and _number(mmcv) >= (2, 2):  # mmdetection#11763
        yield Check(
            'mmdet',
            f'{versions["mmdet"]} with mmcv {mmcv}',
            WRONG,
            'upstream mmdet refuses mmcv 2.2 and later',
            _swap('mmdet', ['mmdet']),
        )
    setuptools = versions.get('setuptools')
    if 'mmengine' in versions and (not setuptools or _number(setuptools) >= (81,)):
        yield Check(
            'setuptools',
            setuptools or 'not installed',
            NOTE,
            "_base_ = 'mmdet::...' fails, as upstream mmengine needs setuptools below 81",
        )


def _operators(machine: Machine) -> Check:
    if not _owners('mmcv', machine.versions):
        return Check('mmcv operators', 'no mmcv')
    if machine.compiled_ops:
        return Check('mmcv operators', 'compiled')
    return Check(
        'mmcv operators',
        'plain torch, from mmcast',
        NOTE,
        'enough for everything here, slower on a GPU',
    )


def _others(versions: dict[str, str]) -> Iterator[Check]:
    if 'onedl-mmdetection' in versions:  # upstream's does without
        yield _required(versions, 'faster-coco-eval')
    if 'hotcoco' not in versions:
        slower = 'pycocotools evaluates, many times slower'
        yield Check('hotcoco', 'not installed', NOTE, slower, _install('hotcoco'))
    for name in NEEDED:
        check = _required(versions, name)
        if name in TESTED or check.status != OK:  # what nobody has to know of is not shown
            yield check
    if not any(name.startswith('opencv-') for name in versions):
        yield Check('OpenCV', 'not installed', WRONG, 'needed', _install('opencv-python'))
    if 'mmcast' in versions:
        yield Check('mmcast', versions['mmcast'])
    else:
        cure = 'pip install -e . (in the repository)'
        yield Check('mmcast', 'not installed', WRONG, 'only its folder was found', cure)


def _hardware(machine: Machine) -> Iterator[Check]:
    if machine.gpu:
        yield Check('GPU', machine.gpu)
    else:
        yield Check(
            'GPU', 'none that torch sees', NOTE, 'the demo needs none; training on real data does'
        )
    yield Check('CPU cores', str(machine.cores))
    if machine.memory_gb is not None:
        low = machine.memory_gb < DEMO_MEMORY_GB
        yield Check(
            'memory',
            f'{machine.memory_gb:.0f} GiB',
            NOTE if low else OK,
            f'the demo takes up to {DEMO_MEMORY_GB} GB' if low else '',
        )


def _owners(module: str, versions: Iterable[str]) -> list[str]:
    """Distributions among ``versions`` that install ``module``."""
    maintained, upstream, _ = OPENMMLAB[module]
    return [name for name in (maintained, *upstream) if name in versions]


def _number(version: str) -> tuple[int, ...]:
    """(2, 14, 1) of '2.14.1+cpu', enough to compare releases."""
    return tuple(int(part) for part in re.findall(r'\d+', re.sub(r'[^\d.].*', '', version)))


def install_command(module: str) -> str | None:
    """What to type where a top-level module is missing; None if mmcast does not need it."""
    name = {'cv2': 'opencv-python', 'PIL': 'pillow'}.get(module) or _normalise(module)
    if module in OPENMMLAB:
        name = OPENMMLAB[module][0]
    return _install(name) if name in {*TESTED, *NEEDED, 'opencv-python'} else None


def _install(*names: str, force: bool = False) -> str:
    pins = ' '.join(_requirement(name) for name in names)
    return f'{_PIP}{"--force-reinstall " if force else ""}{pins}'


def _requirement(name: str) -> str:
    """What pip is told to install; a shell would take '>' for its own."""
    if name in TESTED:
        return f'{name}=={TESTED[name]}'
    return f'"{name}{NEEDED[name]}"' if NEEDED.get(name) else name


def _swap(module: str, owners: list[str]) -> str:
    """Owners share files, so all of them have to go before one comes back."""
    return f'pip uninstall -y {" ".join(owners)} && {_install(OPENMMLAB[module][0])}'


# ---- showing


def print_report(report: EnvironmentReport, again: str = 'mmcast env') -> None:
    """A table where rich is installed, else plain lines; then what to type.

    Args:
        report: what :func:`check` returns.
        again: the command that looks once more.
    """
    try:
        _print_table(report.findings)
    except ImportError:
        for row in report.findings:
            print(
                f'{row.status:5}  {row.name:18}  '
                f'{row.found}{": " + row.problem if row.problem else ""}'
            )
    commands = to_type(report)
    if commands:
        print('\nTo type:', *commands, again, sep='\n  ')
    else:
        print('\nNothing needed is wrong.')


def to_type(report: EnvironmentReport) -> list[str]:
    """The commands that fix what is wrong, in order, with the plain ``pip install``s as one."""
    cures = list(dict.fromkeys(row.cure for row in report.findings if row.status == WRONG))
    plain = [cure for cure in cures if cure.startswith(_PIP) and ' -' not in cure]
    names = dict.fromkeys(name for cure in plain for name in cure.removeprefix(_PIP).split())
    return [cure for cure in cures if cure not in plain] + (
        [_PIP + ' '.join(names)] if names else []
    )


def _print_table(findings: list[Check]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE)
    for title in ('', 'what', 'found', 'to know'):
        table.add_column(title, overflow='fold')
    colours = {OK: 'green', NOTE: 'yellow', WRONG: 'bold red'}
    for row in findings:
        texts = map(Text, (row.name, row.found, row.problem))  # as they are, not as rich's markup
        table.add_row(Text(row.status, style=colours[row.status]), *texts)
    Console().print(table)
