"""``init_cfg`` for classes whose own initialisation would overwrite what it loads."""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from mmengine.logging import MMLogger
from mmengine.model import BaseModule, PretrainedInit, initialize


def split_init_cfg(init_cfg: dict | Sequence[dict] | None) -> tuple[list[dict], list[dict]]:
    """The entries of an ``init_cfg`` that draw random weights, and those that load a file."""
    entries = [init_cfg] if isinstance(init_cfg, dict) else list(init_cfg or [])
    loads = [entry['type'] in ('Pretrained', PretrainedInit) for entry in entries]
    return (
        [entry for entry, load in zip(entries, loads) if not load],
        [entry for entry, load in zip(entries, loads) if load],
    )


def load_last(module: BaseModule, draw: Callable[[], None]) -> None:
    """Initialise a module at random by ``draw``, then load what its ``init_cfg`` loads.

    mmdet's overridden ``init_weights`` draw after MMEngine has loaded.
    """
    init_cfg = module.init_cfg
    random, pretrained = split_init_cfg(init_cfg)
    module.init_cfg = random
    try:
        draw()
    finally:
        module.init_cfg = init_cfg
    initialize(module, pretrained)


@contextmanager
def initialization_unlogged() -> Iterator[None]:
    """Within, MMEngine does not log how it initialises every parameter: four lines for each."""

    def drop(record: logging.LogRecord) -> bool:
        return False

    # Not logging.disable, which MMEngine's loggers remember after it is lifted.
    logger = MMLogger.get_current_instance()
    logger.addFilter(drop)
    try:
        yield
    finally:
        logger.removeFilter(drop)
