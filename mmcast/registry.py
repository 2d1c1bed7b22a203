"""Child registries of mmdet's: a plain type name finds ours first, then mmdet's, then mmengine's.

There is one for every kind of object that a config builds, also where mmcast adds nothing: MMEngine
warns about a scope that has no registry of some kind. Nothing is imported before the first object
of a kind is asked for.
"""

from importlib import import_module
from typing import Any

from mmdet import registry as mmdet_registry
from mmengine.registry import Registry


class LazyRegistry(Registry):
    """A registry that imports a module when a name of it is asked for.

    Args:
        lazy: Module by the name that it registers; for names behind large libraries.
        kwargs: Those of MMEngine's ``Registry``.
    """

    def __init__(self, *args: Any, lazy: dict[str, str], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._lazy = lazy

    def get(self, key: str) -> type | None:
        """The class of a name, with or without scope."""
        if isinstance(key, str):
            module = self._lazy.get(key.rpartition('.')[2])
            if module is not None:
                import_module(module)
        return super().get(key)

    def has_own(self, name: str) -> bool:
        """Whether mmcast registers a name itself, imported yet or not."""
        return name in self.module_dict or name in self._lazy


def _child(name: str, *locations: str, lazy: dict[str, str] | None = None) -> Registry:
    """A registry of mmcast's below mmdet's; the first location is mmdet's, which no child asks for
    by itself.
    """
    parent = getattr(mmdet_registry, name)
    return LazyRegistry(
        parent.name, parent=parent, scope='mmcast', locations=list(locations), lazy=lazy or {}
    )


DATA_SAMPLERS = _child('DATA_SAMPLERS', 'mmdet.datasets', 'mmcast.data')
DATASETS = _child('DATASETS', 'mmdet.datasets', 'mmcast.data', 'mmcast.pseudo_labels.dataset')
EVALUATOR = _child('EVALUATOR', 'mmdet.evaluation')
HOOKS = _child('HOOKS', 'mmdet.engine', 'mmcast.training.hooks')
LOG_PROCESSORS = _child('LOG_PROCESSORS', 'mmdet.engine')
LOOPS = _child('LOOPS', 'mmdet.engine')
METRICS = _child('METRICS', 'mmdet.evaluation', 'mmcast.data')
MODEL_WRAPPERS = _child('MODEL_WRAPPERS', 'mmdet.models')
MODELS = _child(
    'MODELS',
    'mmdet.models',
    'mmcast.models',
    lazy=dict(
        DINOv2='mmcast.models.encoders.dinov2',
        FoundationGuidedEncoder='mmcast.models.encoders.foundation_guided',
        TimmEncoder='mmcast.models.encoders.timm_encoder',
    ),
)
OPTIM_WRAPPER_CONSTRUCTORS = _child(
    'OPTIM_WRAPPER_CONSTRUCTORS', 'mmdet.engine', 'mmcast.training.optimizers'
)
OPTIM_WRAPPERS = _child('OPTIM_WRAPPERS', 'mmdet.engine')
OPTIMIZERS = _child('OPTIMIZERS', 'mmdet.engine')
PARAM_SCHEDULERS = _child('PARAM_SCHEDULERS', 'mmdet.engine')
RUNNERS = _child('RUNNERS', 'mmdet.engine')
TASK_UTILS = _child('TASK_UTILS', 'mmdet.models')
TRANSFORMS = _child('TRANSFORMS', 'mmdet.datasets', 'mmcast.data')
VISBACKENDS = _child('VISBACKENDS', 'mmdet.visualization')
VISUALIZERS = _child('VISUALIZERS', 'mmdet.visualization')
WEIGHT_INITIALIZERS = _child('WEIGHT_INITIALIZERS', 'mmdet.models')
