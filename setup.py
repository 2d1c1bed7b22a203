"""What pyproject.toml cannot say: the folder that ``mim`` looks into.

Imports neither torch nor OpenMMLab, as pip builds in an empty environment.
"""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
MIM_ENTRIES = ('configs', 'tools', 'requirements', 'model-index.yml')


def add_mim_extension(target: Path, link: bool) -> None:
    """Fill ``target`` (a ``.mim`` folder) with what ``mim`` looks for: ``MIM_ENTRIES``.

    ``link=True`` makes symbolic links into the repository: an editable install follows every edit.
    """
    shutil.rmtree(target, ignore_errors=True)  # nothing stale from an earlier build
    target.mkdir(parents=True)
    for name in MIM_ENTRIES:
        source, entry = ROOT / name, target / name
        if link:
            entry.symlink_to(Path('..', '..', name))
        elif source.is_dir():
            shutil.copytree(source, entry, ignore=shutil.ignore_patterns('__pycache__', '*.pyc'))
        else:
            shutil.copy2(source, entry)


class BuildPy(build_py):
    """Adds ``mmcast/.mim``: links for ``pip install -e``, else copies in the build folder."""

    def run(self) -> None:
        super().run()
        folder = ROOT if self.editable_mode else Path(self.build_lib)
        add_mim_extension(folder / 'mmcast' / '.mim', link=self.editable_mode)


class BdistWheel(bdist_wheel):
    """Puts a second ``.mim`` into the wheel, in the folder ``+mmcast``.

    onedl-mim takes the folder of RECORD's first entry for the package, and pip sorts RECORD: the
    command ``../../../bin/mmcast`` would come first, but '+' sorts before '.'. openmim and MMEngine
    look in ``mmcast``.
    """

    def write_wheelfile(self, wheelfile_base: str, *args, **kwargs) -> None:
        super().write_wheelfile(wheelfile_base, *args, **kwargs)
        if 'editable_wheel' not in self.distribution.commands:
            add_mim_extension(Path(wheelfile_base).parent / '+mmcast' / '.mim', link=False)


# In the repository's root a left-over .egg-info would hide the installed distribution from mim.
(ROOT / 'build').mkdir(exist_ok=True)
setup(
    options={'egg_info': {'egg_base': 'build'}},
    cmdclass={'build_py': BuildPy, 'bdist_wheel': BdistWheel},
)
