"""Hooks that own the state of ``CASTDetector``'s online teacher."""

import hashlib
from collections.abc import Iterable
from typing import Any

import torch
from mmengine.hooks import EMAHook, Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import Tensor, nn

from mmcast.adapter_files import is_adapter, plain_name
from mmcast.checkpoints import weights_in
from mmcast.errors import CASTError
from mmcast.models.lora import plain_state
from mmcast.models.weights.initialization import split_init_cfg
from mmcast.models.weights.reading import describe_mismatch, read_state_dict
from mmcast.registry import HOOKS


def _model(runner: Runner) -> Any:
    return runner.model.module if is_model_wrapper(runner.model) else runner.model


def _networks(runner: Runner) -> tuple[nn.Module, nn.Module]:
    """Student and teacher of the running model."""
    model = _model(runner)
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
            student is taken). ``None`` leaves what ``init_cfg`` or ``load_from`` put there; of a
            plain detector's file ``load_from`` fills the student alone.

    Raises:
        CASTError: If the checkpoint does not fill the teacher exactly, or without one no file gives
            some of its weights.
        RuntimeError: After training, if any parameter or buffer of the teacher changed.
    """

    priority = 'HIGHEST'  # before LoadedWeightsHook, which adds what the file has not

    def __init__(self, checkpoint: str | None = None) -> None:
        self.checkpoint = checkpoint
        self._is_given = False
        self._in_file: set[str] = set()

    def before_run(self, runner: Runner) -> None:
        """Remember whether the model came with weights, which MMEngine leaves as they are."""
        self._is_given = getattr(_model(runner), 'is_init', False)

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Remember which names the file has that is loaded or resumed from."""
        self._in_file = set(weights_in(checkpoint))

    def before_train(self, runner: Runner) -> None:
        """Load, freeze and fingerprint the teacher."""
        _, teacher = _networks(runner)
        if self.checkpoint is None and not self._is_given:
            _check_that_none_is_random(_model(runner), self._in_file)
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
        momentum: m, in [0, 1). Guided Distillation (arXiv 2308.02668) has 0.9996, over tens of
            thousands of iterations.
        interval: Iterations between two updates.
        start_from_student: Copy the student when the teacher begins: before the first iteration,
            or at the end of the burn-in.
        burn_in: Iterations before the teacher labels anything: the student learns from human
            annotations and from pseudo-labels of files alone. Until then the teacher is the
            student, in validations with ``predict_on='teacher'`` and in checkpoints too.
        hand_over: Whether the student gets the teacher's weights after the last iteration, so that
            whatever reads the student from the last checkpoint (export, refinement) gets the
            averaged ones.

    Raises:
        CASTError: If student and teacher differ in names or shapes, the burn-in never ends, or
            MMEngine's ``EMAHook`` would save other weights than those that are handed over.
    """

    def __init__(
        self,
        momentum: float = 0.999,
        interval: int = 1,
        start_from_student: bool = True,
        burn_in: int = 0,
        hand_over: bool = False,
    ) -> None:
        if not 0 <= momentum < 1:
            raise CASTError(f'EMATeacherHook: momentum={momentum} must lie in [0, 1)')
        self.momentum = momentum
        self.interval = interval
        self.start_from_student = start_from_student
        self.burn_in = burn_in
        self.hand_over = hand_over

    def before_train(self, runner: Runner) -> None:
        """Check that the two networks pair up; start the teacher from the student."""
        student, teacher = _networks(runner)
        mismatch = describe_mismatch(teacher.state_dict(), student.state_dict())
        if mismatch:
            raise CASTError(
                f'EMATeacherHook: teacher and student differ, {mismatch}; give both the same config'
            )
        if self.burn_in and self.burn_in >= runner.max_iters:
            raise CASTError(
                f'EMATeacherHook: burn_in={self.burn_in} is not below train_cfg.max_iters='
                f'{runner.max_iters}, so the teacher would never label an image'
            )
        if self.hand_over and any(isinstance(hook, EMAHook) for hook in runner.hooks):
            raise CASTError(
                "EMATeacherHook: hand_over=True puts the teacher's weights into the last "
                "checkpoint, and EMAHook another average of the student's: leave out one of the two"
            )
        self._follow(runner)
        teacher.requires_grad_(False).eval()

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Begin at the end of the burn-in."""
        model = _model(runner)
        model.labels_online = runner.iter >= self.burn_in
        if runner.iter == self.burn_in:
            self._follow(runner)
            runner.logger.info(
                f'EMATeacherHook: the teacher labels images from iteration {runner.iter + 1} on'
            )

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """One update."""
        student, teacher = _networks(runner)
        if runner.iter < self.burn_in:
            self._follow(runner)
        elif self.every_n_train_iters(runner, self.interval):
            update_ema(teacher.named_parameters(), dict(student.named_parameters()), self.momentum)
            buffers = dict(student.named_buffers())
            for name, buffer in teacher.named_buffers():
                buffer.copy_(buffers[name])
        if self.hand_over and runner.iter + 1 == runner.max_iters:
            student.load_state_dict(teacher.state_dict())
            runner.logger.info(
                "EMATeacherHook: training is over, and the student has the teacher's weights in "
                'the last checkpoint'
            )

    def _follow(self, runner: Runner) -> None:
        """Make the teacher a copy of the student, unless it has begun."""
        if self.start_from_student and runner.iter <= self.burn_in:
            student, teacher = _networks(runner)
            teacher.load_state_dict(student.state_dict())


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


def _check_that_none_is_random(model: nn.Module, in_file: set[str]) -> None:
    """Raises CASTError where neither a file with these names nor ``init_cfg`` fills the teacher."""
    pretrained = {
        name
        for name, part in model.named_modules()
        if split_init_cfg(getattr(part, 'init_cfg', None))[1]
    }
    random = [
        name
        for name, _ in model.named_parameters()
        if name.startswith('teacher.')
        and not is_adapter(name)
        and plain_name(name) not in in_file
        and pretrained.isdisjoint(_parents(name))
    ]
    if random:
        raise CASTError(
            f'FrozenTeacherHook: {len(random)} parameters of the teacher, such as {random[0]}, are '
            'in no file that was loaded, and so are random: set checkpoint= of the hook to a '
            "checkpoint of this teacher (of a plain detector's, load_from fills the student alone)"
        )


def _parents(name: str) -> set[str]:
    """Names of the modules that a parameter is in: of ``a.b.weight`` nothing, ``a``, ``a.b``."""
    parts = name.split('.')
    return {'.'.join(parts[:length]) for length in range(len(parts))}


def _load_exactly(module: nn.Module, state: dict[str, Tensor], path: str) -> None:
    mismatch = describe_mismatch(plain_state(module), state)
    if mismatch:
        raise CASTError(
            f'{path} does not fit the teacher {type(module).__name__}: {mismatch}; '
            "give the checkpoint that was made with this teacher's config"
        )
    module.load_state_dict(state)
