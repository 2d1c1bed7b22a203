"""What other hooks see of the weights that a run starts from."""

from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmcast.models.weights.loading import without_new_parameters


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
        if 'state_dict' not in checkpoint:
            state = dict(checkpoint.get('model', checkpoint))
            checkpoint.clear()
            checkpoint['state_dict'] = state
        checkpoint['state_dict'] = without_new_parameters(
            checkpoint['state_dict'], self.new_parameters
        )
