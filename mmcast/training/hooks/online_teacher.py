"""Hooks that own the state of ``CASTDetector``'s online teacher."""

import hashlib
from collections.abc import Iterable
from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import Tensor, nn

from mmcast.errors import CASTError
from mmcast.models.lora import plain_state
from mmcast.models.weights.reading import describe_mismatch, read_state_dict
from mmcast.registry import HOOKS


def _networks(runner: Runner) -> tuple[nn.Module, nn.Module]:
    """Student and teacher of the running model."""
    model = runner.model.module if is_model_wrapper(runner.model) else runner.model
    if getattr(model, 'teacher', None) is None:
        raise CASTError(
            f'{type(model).__name__} has no teacher: set teacher= in CASTDetector or drop the '
            'teacher hook'
        )
    return model.detector, model.teacher


def state_hash(module: nn.Module) -> str:
    """SHA-256 over names, shapes and bytes of the parameters and buffers of ``module``."""
    digest = hashlib.sha256()
    for name, tensor in module.state_dict().items():
        digest.update(f'{name} {tuple(tensor.shape)} {tensor.dtype}'.encode())
        digest.update(
            tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()
        )
    return digest.hexdigest()


@HOOKS.register_module()
class FrozenTeacherHook(Hook):
    """Keep the teacher as it is: eval mode, no gradient, and checked bit by bit at the end of
    training.

    Args:
        checkpoint: The teacher's weights, a plain detector's or a ``CASTDetector``'s (of which the
            student is taken). ``None`` leaves what ``init_cfg`` or ``load_from`` put there.

    Raises:
        CASTError: If the checkpoint does not fill the teacher exactly.
        RuntimeError: After training, if any parameter or buffer of the teacher changed.
    """

    def __init__(self, checkpoint: str | None = None) -> None:
        self.checkpoint = checkpoint

    def before_train(self, runner: Runner) -> None:
        """Load, freeze and fingerprint the teacher."""
        _, teacher = _networks(runner)
        if self.checkpoint is not None:
            state = read_state_dict(self.checkpoint)
            student = {
                key.removeprefix('detector.'): value
                for key, value in state.items()
                if key.startswith('detector.')
            }
            _load_exactly(teacher, student or state, self.checkpoint)
        teacher.requires_grad_(False).eval()
        self._hash = state_hash(teacher)

    def after_train(self, runner: Runner) -> None:
        """Compare with the fingerprint."""
        if state_hash(_networks(runner)[1]) != self._hash:
            raise RuntimeError(
                'FrozenTeacherHook: the teacher changed during training; look for a hook or an '
                'optimiser that touches model.teacher'
            )


@HOOKS.register_module()
class EMATeacherHook(Hook):
    """Move the teacher towards the student after every step: ``t <- m t + (1 - m) s``.

    This is the mean teacher of Tarvainen and Valpola (2017). Parameters are paired by name; buffers
    (statistics of normalisation layers) are copied.

    Args:
        momentum: m, in [0, 1).
        interval: Iterations between two updates.
        start_from_student: Copy the student before the first iteration of a run that is not
            resumed.

    Raises:
        CASTError: If student and teacher differ in names or shapes.
    """

    def __init__(
        self, momentum: float = 0.999, interval: int = 1, start_from_student: bool = True
    ) -> None:
        if not 0 <= momentum < 1:
            raise CASTError(f'EMATeacherHook: momentum={momentum} must lie in [0, 1)')
        self.momentum = momentum
        self.interval = interval
        self.start_from_student = start_from_student

    def before_train(self, runner: Runner) -> None:
        """Check that the two networks pair up; start the teacher from the student."""
        student, teacher = _networks(runner)
        mismatch = describe_mismatch(teacher.state_dict(), student.state_dict())
        if mismatch:
            raise CASTError(
                f'EMATeacherHook: teacher and student differ, {mismatch}; give both the same config'
            )
        if self.start_from_student and runner.iter == 0:
            teacher.load_state_dict(student.state_dict())
        teacher.requires_grad_(False).eval()

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """One update."""
        if self.every_n_train_iters(runner, self.interval):
            student, teacher = _networks(runner)
            update_ema(teacher.named_parameters(), dict(student.named_parameters()), self.momentum)
            buffers = dict(student.named_buffers())
            for name, buffer in teacher.named_buffers():
                buffer.copy_(buffers[name])


@torch.no_grad()
def update_ema(
    teacher: Iterable[tuple[str, Tensor]], student: dict[str, Tensor], momentum: float
) -> None:
    """``t <- m t + (1 - m) s`` for every tensor t of the teacher, in place.

    A tensor that equals the student's stays as it is, bit for bit.

    Args:
        teacher: Its named parameters.
        student: Those of the student by the same names, s.
        momentum: m.
    """
    for name, tensor in teacher:
        tensor.lerp_(student[name], 1 - momentum)


def _load_exactly(module: nn.Module, state: dict[str, Tensor], path: str) -> None:
    mismatch = describe_mismatch(plain_state(module), state)
    if mismatch:
        raise CASTError(
            f'{path} does not fit the teacher {type(module).__name__}: {mismatch}; '
            "give the checkpoint that was made with this teacher's config"
        )
    module.load_state_dict(state)
