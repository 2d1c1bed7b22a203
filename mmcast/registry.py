"""Child registries of mmdet's: a plain type name finds ours first, then mmdet's, then mmengine's.

There is one for every kind of object that a config builds, also where mmcast adds nothing: MMEngine warns about a
scope that has no registry of some kind.
"""
from mmdet import registry as mmdet_registry
from mmdet.utils import register_all_modules
from mmengine.registry import Registry

# A child asks its parents for what is registered already, it does not make them import their packages.
register_all_modules(init_default_scope=False)


def _child(name: str, *locations: str) -> Registry:
    parent = getattr(mmdet_registry, name)
    return Registry(parent.name, parent=parent, scope='mmcast', locations=list(locations))


DATA_SAMPLERS = _child('DATA_SAMPLERS', 'mmcast.datasets')
DATASETS = _child('DATASETS', 'mmcast.datasets')
EVALUATOR = _child('EVALUATOR')
HOOKS = _child('HOOKS', 'mmcast.engine.hooks')
LOG_PROCESSORS = _child('LOG_PROCESSORS')
LOOPS = _child('LOOPS')
METRICS = _child('METRICS', 'mmcast.evaluation')
MODEL_WRAPPERS = _child('MODEL_WRAPPERS')
MODELS = _child('MODELS', 'mmcast.models')
OPTIM_WRAPPER_CONSTRUCTORS = _child('OPTIM_WRAPPER_CONSTRUCTORS', 'mmcast.engine.optimizers')
OPTIM_WRAPPERS = _child('OPTIM_WRAPPERS')
OPTIMIZERS = _child('OPTIMIZERS')
PARAM_SCHEDULERS = _child('PARAM_SCHEDULERS')
RUNNERS = _child('RUNNERS')
TASK_UTILS = _child('TASK_UTILS')
TRANSFORMS = _child('TRANSFORMS', 'mmcast.datasets')
VISBACKENDS = _child('VISBACKENDS')
VISUALIZERS = _child('VISUALIZERS')
WEIGHT_INITIALIZERS = _child('WEIGHT_INITIALIZERS')
