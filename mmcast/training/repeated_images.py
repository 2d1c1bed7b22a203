"""Before embeddings of training images are kept: do the images come again?"""

import hashlib

from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch.utils.data import Dataset

from mmcast.data.generators import generators_kept
from mmcast.errors import CASTError

DRAWS, VERSIONS = 8, 4  # an image may be flipped both ways


class RepeatedImagesHook(Hook):
    """Refuses an ``EmbeddingCache`` for data that look new each time that they are loaded, where
    nothing it keeps would be used again.

    Does nothing where the model has no such cache.
    """

    priority = 'HIGHEST'

    def before_train(self, runner: Runner) -> None:
        """Before the first batch.

        Raises:
            CASTError: An image of the training data has more than four versions.
        """
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        if any(getattr(each, 'embedding_cache', None) is not None for each in model.modules()):
            check_images_repeat(runner.train_dataloader.dataset)


def check_images_repeat(dataset: Dataset) -> None:
    """Loads the first image of each part of a data set several times; the generators of random
    numbers stay as they were.

    Raises:
        CASTError: An image has more than ``VERSIONS`` versions.
    """
    with generators_kept():
        for first in (0, *getattr(dataset, 'cumulative_sizes', ())[:-1]):
            items = [dataset[first] for _ in range(DRAWS)]
            name = items[0]['data_samples'].get('img_path')
            contents = {
                hashlib.sha256(item['inputs'].contiguous().numpy()).digest()
                for item in items
                if item['data_samples'].get('img_path') == name
            }
            if len(contents) > VERSIONS:
                raise CASTError(
                    f'cache_gb keeps embeddings of training images, but {name} is another one each '
                    f'time that it is loaded ({len(contents)} of {DRAWS}): leave out random '
                    'transforms but flips, or set cache_gb=0'
                )
