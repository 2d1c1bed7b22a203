"""What other hooks see of the weights that a run starts from."""

from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner

from mmcast.checkpoints import weights_in
from mmcast.models.weights.loading import TRAINING_ONLY, without_new_parameters


class LoadedWeightsHook(Hook):
    """Gives a loaded checkpoint the form of MMEngine's, whose hooks read its ``state_dict``.

    Start weights are often a bare dict of tensors, which MMEngine itself loads too, while its
    ``EMAHook`` does not.

    Args:
        new_parameters: beginnings of names that are to start at random, see ``load_weights``.
    """

    priority = 'HIGHEST'

    def __init__(self, new_parameters: tuple[str, ...] = ()) -> None:
        self.new_parameters = new_parameters

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """In place, before MMEngine copies it into the model."""
        state = without_new_parameters(weights_in(checkpoint), self.new_parameters)
        # What only training has may be absent; of a teacher MMEngine would list hundreds of names.
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        for key, value in model.state_dict().items():
            if key.startswith(TRAINING_ONLY):
                state.setdefault(key, value)
        if 'state_dict' not in checkpoint:
            checkpoint.clear()
        checkpoint['state_dict'] = state
