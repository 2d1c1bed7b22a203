"""Errors cross the borders of processes: ranks, workers of data loaders."""

import ast
import importlib
import pickle
from pathlib import Path

import pytest
from torch._utils import ExceptionWrapper

import mmcast
from mmcast.errors import CASTError, NonFiniteError, is_of_machine
from mmcast.models.losses import NonFiniteInputError

ROOT = Path(mmcast.__file__).parent


def error_classes():
    """Every exception that a module of mmcast defines."""
    for path in sorted(ROOT.rglob('*.py')):
        text = path.read_text(encoding='utf-8')
        names = [node.name for node in ast.walk(ast.parse(text)) if isinstance(node, ast.ClassDef)]
        if not any('Error' in name or 'Exception' in text for name in names):
            continue
        module = importlib.import_module(
            '.'.join(('mmcast', *path.relative_to(ROOT).with_suffix('').parts))
        )
        found = (getattr(module, name, None) for name in names)
        yield from (kind for kind in found if kind and issubclass(kind, BaseException))


@pytest.mark.parametrize('kind', list(error_classes()), ids=lambda kind: kind.__name__)
def test_errors_are_made_of_their_message_alone(kind):
    error = kind('what is wrong; what to do')
    copied = pickle.loads(pickle.dumps(error))
    assert type(copied) is kind and str(copied) == str(error)
    with pytest.raises(kind, match='what is wrong'):  # as a data loader passes it on
        ExceptionWrapper((kind, error, None), 'in a worker').reraise()


@pytest.mark.parametrize(
    'error',
    [
        NonFiniteError.on_images('loss_pxl', [dict(img_path='a.png'), {}]),
        NonFiniteInputError.of(['z_weak'], [0, 2]),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_is_not_finite_is_still_named_in_another_process(error):
    copied = pickle.loads(pickle.dumps(error))
    assert isinstance(copied, CASTError) and isinstance(copied, FloatingPointError)
    assert str(copied) == str(error) and 'not finite' in str(copied)
    assert copied.__dict__ == error.__dict__


def test_there_are_errors_to_test():
    assert {'CASTError', 'NonFiniteError', 'LossInputError', 'NonFiniteInputError'} <= {
        kind.__name__ for kind in error_classes()
    }


@pytest.mark.parametrize(
    'cause, expected',
    [
        (RuntimeError('Reshape: sizes do not fit'), False),
        (RuntimeError('CUDA out of memory'), True),
        (MemoryError(), True),
        (None, False),
    ],
)
def test_the_name_of_a_file_does_not_blame_the_machine(cause, expected):
    """One image on which a student fails, in whatever folder it is, must not stop the others."""
    error = CASTError('cuda/student.onnx fails on images of 60x40 (why)')
    error.__cause__ = cause
    assert is_of_machine(error) is expected
