"""What OpenMMLab's tools call by this name in every package: ``mmengine.hub.get_model`` does."""


def register_all_modules(init_default_scope: bool = True) -> None:
    """Registers every class of mmcast with MMEngine.

    Configs with ``default_scope = 'mmcast'`` need no such call.

    Args:
        init_default_scope: whether mmcast's registries become those of plain type names.
    """
    import mmcast.data
    import mmcast.models
    import mmcast.pseudo_labels.dataset
    import mmcast.training.hooks
    import mmcast.training.optimizers  # noqa: F401

    if init_default_scope:
        from mmengine.registry import init_default_scope as use_scope

        use_scope('mmcast')
