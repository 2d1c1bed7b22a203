"""The wheel, what mim finds in it, the Makefile's set-up, what must not be in the repository."""

import json
import os
import re
import shutil
import stat
import subprocess
import sys
import zipfile
from collections import Counter
from email.parser import Parser
from pathlib import Path

import pytest

from mmcast.version import __version__

ROOT = Path(__file__).resolve().parent.parent
SOURCES = (
    'mmcast',
    'configs',
    'tools',
    'requirements',
    'setup.py',
    'pyproject.toml',
    'MANIFEST.in',
    'README.md',
    'CHANGELOG.md',
    'CITATION.cff',
    'model-index.yml',
    'LICENSE',
)
DIST_INFO = f'mmcast-{__version__}.dist-info'


def run(*command, cwd: Path, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        list(map(str, command)),
        cwd=cwd,
        env=dict(os.environ, **environment),
        capture_output=True,
        text=True,
    )


def pip(*args, cwd: Path) -> None:
    done = run(sys.executable, '-m', 'pip', *args, '--no-deps', '--quiet', cwd=cwd)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope='module')
def source(tmp_path_factory) -> Path:
    """The repository as it is checked out, with links as an editable install leaves them."""
    folder = tmp_path_factory.mktemp('source')
    skip = shutil.ignore_patterns('__pycache__', '.mim')
    for name in SOURCES:
        path = ROOT / name
        shutil.copytree(path, folder / name, ignore=skip) if path.is_dir() else shutil.copy(
            path, folder
        )
    (folder / 'mmcast' / '.mim').mkdir()
    (folder / 'mmcast' / '.mim' / 'configs').symlink_to(folder / 'configs')
    (folder / 'configs' / 'made_up_weights.pth').write_bytes(b'weights')
    return folder


@pytest.fixture(scope='module')
def wheel(source, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp('wheel')
    pip('wheel', '--no-build-isolation', '--wheel-dir', folder, source, cwd=folder)
    (path,) = folder.glob('mmcast-*-py3-none-any.whl')
    return path


@pytest.fixture(scope='module')
def site(wheel, tmp_path_factory) -> Path:
    """A folder of packages with mmcast as a user installs it."""
    folder = tmp_path_factory.mktemp('installed') / 'site'
    pip('install', '--target', folder, wheel, cwd=folder.parent)
    return folder


def config_names(root: Path) -> list[str]:
    return [path.name for path in (root / 'configs').rglob('*.py')]


def test_the_wheel_holds_the_mim_folder_twice_and_no_tests(wheel, source):
    names = set(zipfile.ZipFile(wheel).namelist())
    for home in ('mmcast', '+mmcast'):
        assert {
            f'{home}/.mim/{name}'
            for name in (
                'model-index.yml',
                'tools/train.py',
                'tools/test.py',
                'configs/made_up_weights.pth',
            )
        } <= names
        inside = [Path(name).name for name in names if name.startswith(f'{home}/.mim/configs/')]
        assert Counter(config_names(source)) <= Counter(inside)
    assert not [name for name in names if re.search(r'(^|/)(tests|build|__pycache__)/', name)]


def test_the_wheel_holds_every_file_of_the_package(wheel, source):
    files = [path.relative_to(source) for path in (source / 'mmcast').rglob('*') if path.is_file()]
    expected = {path.as_posix() for path in files if '.mim' not in path.parts}
    assert expected <= set(zipfile.ZipFile(wheel).namelist())


def test_a_wheel_from_the_source_distribution_is_the_same(wheel, source, tmp_path):
    code = 'import sys, setuptools.build_meta as b; b.build_sdist(sys.argv[1])'
    done = run(sys.executable, '-c', code, tmp_path, cwd=source)
    assert done.returncode == 0, done.stderr
    (archive,) = tmp_path.glob('mmcast-*.tar.gz')
    pip('wheel', '--no-build-isolation', '--wheel-dir', tmp_path, archive, cwd=tmp_path)
    (again,) = tmp_path.glob('*.whl')
    assert sorted(zipfile.ZipFile(again).namelist()) == sorted(zipfile.ZipFile(wheel).namelist())


def test_building_a_wheel_leaves_an_editable_installs_links_alone(wheel, source):
    assert (source / 'mmcast' / '.mim' / 'configs').is_symlink()


def test_the_openmmlab_stack_is_only_in_the_extra(wheel):
    metadata = Parser().parsestr(zipfile.ZipFile(wheel).read(f'{DIST_INFO}/METADATA').decode())
    plain = [line for line in metadata.get_all('Requires-Dist') if 'extra ==' not in line]
    assert plain and not [line for line in plain if re.match(r'torch|onedl|open?mm|mm|mim', line)]
    assert set(metadata.get_all('Provides-Extra')) == {
        'mm',
        'deploy',
        'encoders',
        'tests',
        'dev',
        'docs',
    }


def mim(site: Path, *args: str, cwd: Path) -> str:
    done = run(sys.executable, '-m', 'mim', *args, cwd=cwd, PYTHONPATH=str(site))
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_mim_finds_the_tool_and_every_config_by_its_name(site, source, tmp_path):
    done = run(
        sys.executable,
        '-c',
        'from mim.utils import get_installed_path as f; print(f("mmcast"))',
        cwd=tmp_path,
        PYTHONPATH=str(site),
    )
    found = Path(done.stdout.strip())
    assert found.parent == site, done.stderr
    assert (found / '.mim' / 'tools' / 'train.py').is_file()
    for name in config_names(source):  # mim refuses a name that it finds twice
        if not list((source / 'configs' / '_base_').rglob(name)):
            assert len(list(found.rglob(name))) == 1, name


SHORT_DATA = (
    '--step',
    'data',
    '--cfg-options',
    'steps.data.kwargs.num_train=4',
    'steps.data.kwargs.num_val=2',
    'variables.percent=50',
)


def finished_steps(work_dir: Path) -> list[str]:
    records = json.loads((work_dir / 'pipeline.json').read_text())['steps']
    return [name for name, record in records.items() if record['status'] == 'finished']


def test_the_installed_package_finds_its_configs_from_any_folder(site, tmp_path):
    code = (
        'import mmcast; from mmcast.configs import find_config as find; '
        'print(mmcast.__file__, find("cast_toy.py"), find("mmcast::toy/weights/toy_student.pth"))'
    )
    done = run(sys.executable, '-c', code, cwd=tmp_path, PYTHONPATH=str(site))
    package, *found = map(Path, done.stdout.split())
    assert package.is_relative_to(site), done.stderr
    configs = site / 'mmcast' / '.mim' / 'configs'
    assert found == [configs / 'cast_toy.py', configs / 'toy/weights/toy_student.pth']


def test_a_pipeline_of_ones_own_runs_on_the_installed_package(site, tmp_path):
    """From an empty folder; the config is all that is there."""
    (tmp_path / 'mine.py').write_text(
        "_base_ = 'mmcast::cast_toy.py'\nwork_dir = 'work_dirs/mine'\n"
    )
    tool = site / 'mmcast/.mim/tools/train.py'
    done = run(sys.executable, tool, 'mine.py', *SHORT_DATA, cwd=tmp_path, PYTHONPATH=str(site))
    assert done.returncode == 0, done.stdout + done.stderr
    assert finished_steps(tmp_path / 'work_dirs/mine') == ['data']
    assert len(list((tmp_path / 'data/toy_cityscapes/leftImg8bit/train').rglob('*.png'))) == 4


def test_mim_trains_a_config_by_its_bare_name(site, tmp_path):
    done = run(
        *(sys.executable, '-m', 'mim', 'train', 'mmcast', 'cast_toy.py'),
        *('--work-dir', tmp_path / 'run', *SHORT_DATA),
        cwd=tmp_path,
        PYTHONPATH=str(site),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert finished_steps(tmp_path / 'run') == ['data']


def test_the_console_script_runs_from_an_empty_folder(site, tmp_path):
    """By its path, as the folder of a virtual environment that is not activated."""
    script = site / 'bin' / 'mmcast'
    listed = run(script, '--help', cwd=tmp_path, PYTHONPATH=str(site))
    assert f'    {script} train cast_toy.py\n' in listed.stdout, listed.stderr
    data = tmp_path / 'all.json'
    size = '"height": 8, "width": 8'
    data.write_text(
        f'{{"images": [{{"id": 1, "file_name": "a.png", {size}}}, '
        f'{{"id": 2, "file_name": "b.png", {size}}}], "annotations": [], "categories": []}}'
    )
    arguments = ('split', data, 'labeled.json', 'unlabeled.json', '--count', 1)
    done = run(script, *arguments, cwd=tmp_path, PYTHONPATH=str(site))
    assert done.stdout.startswith('1 labeled and 1 unlabeled images'), done.stderr
    assert (tmp_path / 'labeled.json').exists() and done.returncode == 0
    shown = run(
        script,
        'split',
        '--help',
        cwd=tmp_path,
        PYTHONPATH=str(site),
        PATH=os.pathsep.join([str(site / 'bin'), os.environ['PATH']]),
    )
    assert shown.stdout.splitlines()[2].startswith('    mmcast split data/')


def test_shipped_configs_are_bases_by_name_after_pip_install(site, tmp_path):
    (tmp_path / 'own.py').write_text("_base_ = 'mmcast::cast_toy.py'\nseed = 7\n")
    code = (
        'import mmcast; from mmcast.pipeline.plan import Plan; from mmengine import hub; '
        'print(Plan("own.py").config.seed, '
        'hub.get_config("mmcast::toy/toy_student_refine.py").filename)'
    )
    done = run(sys.executable, '-c', code, cwd=tmp_path, PYTHONPATH=str(site))
    configs = site / 'mmcast' / '.mim' / 'configs'
    assert done.stdout.split() == ['7', str(configs / 'toy/toy_student_refine.py')], done.stderr


def test_an_installed_package_knows_its_requirements_without_any_other(site, tmp_path):
    code = (
        'import mmcast.environment as e; print(e.__file__, e.NEEDED["filelock"], e.TESTED["torch"])'
    )
    done = run(sys.executable, '-S', '-c', code, cwd=tmp_path, PYTHONPATH=str(site))
    place, *versions = done.stdout.split()
    assert Path(place).is_relative_to(site), done.stderr
    assert versions == ['>=3.30', '2.14.1']


def test_mim_search_finds_the_shipped_weights_and_their_configs(site, tmp_path):
    mim(site, 'search', 'mmcast', '--model', 'cast', '--json', 'found.json', cwd=tmp_path)
    found = json.loads((tmp_path / 'found.json').read_text())  # by field, then by model
    home = site / 'mmcast' / '.mim'
    weights = {(home / path).resolve() for path in found['weight'].values()}
    shipped = {path.resolve() for path in (home / 'configs').glob('*/weights/*.pth')}
    whole = {path for path in shipped if not path.stem.endswith('_decoder')}  # others are no model
    assert whole < shipped and weights == whole
    for name, config in found['config'].items():
        assert (home / config).is_file()
        figures = [found[field][name] for field in found if field.endswith('/mask_ap')]
        assert [figure for figure in figures if figure is not None], name


def test_mim_run_finds_mmdets_tools(site, tmp_path):
    output = mim(site, 'run', 'mmcast', 'mmdet', cwd=tmp_path)
    assert str(site) in output and '  confusion_matrix ' in output


def test_an_editable_install_links_to_the_repository(source, tmp_path):
    pip('install', '--no-build-isolation', '--editable', source, '--target', tmp_path, cwd=tmp_path)
    for name in ('configs', 'tools', 'requirements', 'model-index.yml'):
        assert (source / 'mmcast' / '.mim' / name).resolve() == source / name
    assert not list(source.glob('*.egg-info'))  # mim would take it for the installed distribution


def test_every_config_name_occurs_once():
    names = Counter(config_names(ROOT))
    assert names and set(names.values()) == {1}, [
        name for name, count in names.items() if count > 1
    ]


def test_setup_imports_no_torch(source):
    code = (
        'import runpy, sys; sys.argv = ["setup.py", "--name"]; runpy.run_path("setup.py"); '
        'print({"torch", "mmcv", "mmengine", "mmcast"} & set(sys.modules))'
    )
    done = run(sys.executable, '-c', code, cwd=source)
    assert done.stdout.splitlines() == ['mmcast', 'set()'], done.stderr


def test_no_committed_file_names_a_folder_of_one_machine():
    listed = run('git', 'ls-files', '-z', cwd=ROOT)
    if listed.returncode:
        pytest.skip('not a git checkout')
    pattern = re.compile(r'(?<![\w./}*-])/(work|root|home|tmp|opt)/')
    found = []
    for name in filter(None, listed.stdout.split('\0')):
        path = ROOT / name
        if path != Path(__file__) and path.is_file():
            text = path.read_bytes().decode('utf-8', errors='replace')
            found += [
                f'{name}: {line.strip()[:80]}' for line in text.splitlines() if pattern.search(line)
            ]
    assert not found


# ---- make

FAKE_PYTHON = """#!/bin/sh
# Stands for every program: logs what it is asked, makes a "virtual environment", fails if told to.
echo "${{0##*/}} $@" >> {log}
if [ "$2" = venv ]; then
    for last; do :; done
    mkdir -p "$last/bin"
    for tool in python ruff vermin lint-imports mypy mkdocs; do cp {python} "$last/bin/$tool"; done
fi
[ "$2" = pip ] && [ -e {fail} ] && exit 1
exit 0
"""


@pytest.fixture
def make(tmp_path):
    """Runs the Makefile in an empty project with a fake Python; returns what Python was asked to
    do.
    """
    (tmp_path / 'requirements').mkdir()
    for name in (
        'setup.py',
        'pyproject.toml',
        'requirements/runtime.txt',
        'requirements/docs.txt',
    ):
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / '.ci').mkdir()
    for name in ('Makefile', '.ci/run'):
        shutil.copy(ROOT / name, tmp_path / name)
    log, python = tmp_path / 'log', tmp_path / 'python'
    python.write_text(FAKE_PYTHON.format(log=log, python=python, fail=tmp_path / 'fail'))
    python.chmod(0o755)

    def call(*command) -> list[str]:
        log.write_text('')
        run(*(command or ('make', 'test')), cwd=tmp_path, PYTHON=str(python), MAKEFLAGS='')
        lines = [line.removeprefix('python ') for line in log.read_text().splitlines()]
        return [' '.join(line.split()[:2]) for line in lines]

    call.folder = tmp_path
    return call


SET_UP = ['-m venv', '-m pip']
TEST = [
    'ruff check',
    'ruff format',
    'vermin --target=3.11-',
    'lint-imports',
    'mypy',
    '-m pytest',
]


def test_make_sets_up_once(make):
    assert make() == [*SET_UP, *TEST]
    assert make() == TEST
    assert make('make', 'demo') == ['tools/train.py configs/cast_toy.py']


def test_docs_have_an_environment_of_their_own(make):
    assert make('make', 'docs') == [*SET_UP, 'mkdocs build']
    assert make('make', 'docs') == ['mkdocs build']
    assert not (make.folder / '.venv').exists()


def test_upstreams_environment_is_one_of_its_own(make):
    assert make('make', 'test-upstream') == [*SET_UP, '-m pytest']
    log = (make.folder / 'log').read_text()
    assert '-m venv .venv-upstream' in log
    assert '--requirement requirements/upstream.txt --editable .[deploy,encoders,tests]' in log
    assert make('make', 'test-upstream') == ['-m pytest']
    assert make() == [*SET_UP, *TEST]


def test_changed_requirements_set_up_again(make):
    make()
    future = (make.folder / '.venv' / '.mmcast-ready').stat().st_mtime + 10
    os.utime(make.folder / 'requirements' / 'runtime.txt', (future, future))
    assert make()[:2] == SET_UP


def test_an_interrupted_set_up_starts_over(make):
    (make.folder / 'fail').touch()
    assert make() == SET_UP
    (make.folder / '.venv' / 'half_a_package').touch()
    (make.folder / 'fail').unlink()
    assert make() == [*SET_UP, *TEST]
    assert not (make.folder / '.venv' / 'half_a_package').exists()


def test_continuous_integration_runs_make_test(make):
    assert stat.S_IMODE((ROOT / '.ci' / 'run').stat().st_mode) & stat.S_IXUSR
    assert make('bash', '.ci/run') == [*SET_UP, *TEST]
