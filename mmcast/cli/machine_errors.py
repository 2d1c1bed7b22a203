"""Errors of the system and of libraries that a user can do something about: what, in one line."""

import errno
import io
import os
import re
import traceback
from pathlib import Path

_WORKERS = (
    'load images in fewer processes, with --num-workers for labels, else with --cfg-options '
    'train_dataloader.num_workers=0 (in a pipeline step_options.train_dataloader.num_workers=0)'
)
_FULL = 'no space is left; free some, then call the same command again'
# By number: what is wrong, and what to do.
_SYSTEM = {
    getattr(errno, 'EDQUOT', errno.ENOSPC): f'the quota is used up: {_FULL}',
    errno.ENOSPC: _FULL,
    errno.EMFILE: 'too many open files',
    errno.ENFILE: 'too many open files on this machine',
    errno.EACCES: 'permission denied; choose another path, or change who may read and write it',
    errno.EPERM: 'permission denied; choose another path, or change who may read and write it',
    errno.EROFS: 'the disk is read-only; choose another path',
    errno.ENOENT: 'not found; check the path',
    errno.EISDIR: 'is a folder; give a file',
    errno.ENOTDIR: 'a part of the path is a file, not a folder; check the path',
    errno.ENAMETOOLONG: 'the name is too long; shorten it',
    errno.EIO: 'the disk or network drive cannot be read or written; check it',
}
_FILES_LIMIT = f'raise the limit with `ulimit -n 4096` in the same shell, or {_WORKERS}'
_SHARED_MEMORY = (
    f'the shared memory is full: {_WORKERS}, or enlarge /dev/shm (docker run --shm-size=8g)'
)
# By what the message of a library has in it.
_LIBRARIES = {
    r'DataLoader worker.*(Bus error|shared memory)': _SHARED_MEMORY,
    r'DataLoader worker.*(killed by signal|exited unexpectedly)': (
        f'a process that loads images was killed, mostly because the memory is full: {_WORKERS}'
    ),
    r'Too many open files|received 0 items of ancdata': f'too many open files; {_FILES_LIMIT}',
    r'unable to (mmap|write to file|open shared memory|allocate shared memory)': _SHARED_MEMORY,
    r'Found no NVIDIA driver|not compiled with \w+ enabled|No CUDA GPUs|invalid device ordinal': (
        'this device cannot be used here; leave --device out, or choose another: `mmcast env` says '
        'what there is'
    ),
    r'does not have a deterministic implementation|CUBLAS_WORKSPACE_CONFIG': (
        'randomness.deterministic=True asks for operators that the GPU does not have: leave it '
        'out; the seed then repeats all random numbers, and results up to rounding'
    ),
}
# What functions call the file that they write.
_PATHS = ('path', 'filepath', 'filename', 'file_path', 'f', 'out_file', 'folder', 'work_dir')
_BUILDER = os.path.join('mmengine', 'registry', 'build_functions.py')
_GPU_FULL = (
    'the GPU is out of memory; make train_dataloader.batch_size or the images smaller with '
    '--cfg-options, train with --amp, or stop what else uses the GPU'
)
# Of torch's allocator, of the driver (other processes hold it all), of the libraries.
_FULL_GPU = re.compile(r'CUDA (error: )?out of memory|(CUBLAS|CUDNN)\w*_ALLOC_FAILED')
_MEMORY_FULL = 'the memory is full; make the batch or the images smaller, or ' + _WORKERS


def one_line(error: BaseException) -> str:
    """The message of an error as one line; of a data loader's worker's, the original message.

    torch re-raises a worker's error as the same type with the worker's traceback as its message;
    the last line of that is ``package.SomeError: message``.
    """
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    if 'Original Traceback' in str(error):
        return re.sub(r'^[\w.]+: ', '', lines[-1])
    return ' '.join(lines)


def of_system(error: OSError) -> str | None:
    """The line of an error of the operating system; None where it has none."""
    number = error.errno
    if number is None:  # of a data loader's worker: the number is in the text
        found = re.search(r'\[Errno (\d+)\]', str(error))
        number = int(found[1]) if found else None
    if number not in _SYSTEM:
        return None
    message = _SYSTEM[number]
    if number in (errno.EMFILE, errno.ENFILE):
        return f'{message}; {_FILES_LIMIT}'
    name = error.filename2 or error.filename or _file_of(error)
    return f'{os.fsdecode(name)}: {message}' if name else one_line(error)


def _file_of(error: BaseException) -> str | None:
    """The file that an error is about, where the system does not say: that which a function in its
    traceback, the innermost first, has open or was given.
    """
    named = re.search(r"\[Errno \d+\].*: '(.*)'$", one_line(error))
    if named:
        return named[1]
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    for frame in reversed(frames):
        values = frame.f_locals
        opened = [
            value.name
            for value in values.values()
            if isinstance(value, io.IOBase) and hasattr(value, 'name')
        ]
        given = [values[key] for key in _PATHS if key in values]
        for name in (*opened, *given):
            if isinstance(name, (str, Path)) and str(name):
                return str(name)
    return None


def _is_full(path: str) -> bool:
    """Whether the disk that a path lies on has less than a megabyte left."""
    from mmcast.files import free_bytes  # here, as --help does without it

    free = free_bytes(path)
    return free is not None and free < 2**20


def of_libraries(error: Exception) -> str | None:
    """The line of an error that torch or OpenMMLab raises as one of its own; None for any other."""
    text = str(error)
    if type(error).__name__ == 'OutOfMemoryError' or _FULL_GPU.search(text):
        return _GPU_FULL
    if isinstance(error, MemoryError) or 'DefaultCPUAllocator' in text:
        return _MEMORY_FULL
    if 'PytorchStreamWriter failed' in text or 'inline_container' in text:
        path = _file_of(error)
        return f'{path}: {_FULL}' if path and _is_full(path) else None
    if isinstance(error, (RuntimeError, AssertionError, KeyError, OSError)):
        for pattern, message in _LIBRARIES.items():
            if re.search(pattern, text, re.DOTALL):
                return message
    return _of_registry(error)


def _of_registry(error: Exception) -> str | None:
    """The line where a config names a class that there is not, or arguments that it does not
    take.
    """
    missing = re.search(r'([\w.]+) is not in the (\S+) registry', str(error))
    if missing and isinstance(error, KeyError):
        return (
            f'{missing[1]} is not in the registry {missing[2]}: correct `type` in the config, or '
            'name the module that registers it under custom_imports'
        )
    frames = [
        frame  # others are of compiled code
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename.endswith('.py')
    ]
    if not frames:
        return None
    builds = isinstance(error, TypeError) and frames[-1].filename.endswith(_BUILDER)
    refuses = isinstance(error, (ValueError, AssertionError)) and _takes_settings(frames[-1])
    return f'{one_line(error)}: correct the config' if builds or refuses else None


def _takes_settings(frame: traceback.FrameSummary) -> bool:
    """Whether code of a library checks there what a config says."""
    packages = Path(frame.filename).parts
    return frame.name in ('__init__', 'set_random_seed') and any(
        package in packages for package in ('torch', 'mmengine', 'mmcv', 'mmdet', 'mmpretrain')
    )
