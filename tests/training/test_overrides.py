"""Settings that replace those of a run's config."""

import pytest
from mmengine.config import Config

from mmcast.configs import load_config
from mmcast.errors import CASTError
from mmcast.training.overrides import nested, override
from mmcast.typed_values import Typed


@pytest.fixture(scope='module')
def shipped() -> Config:
    return load_config('toy/toy_student_refine.py')


def overridden(config: Config, *typed: str) -> Config:
    config = config.copy()
    options = dict(option.split('=', 1) for option in typed)
    override(config, {key: Typed(text) for key, text in options.items()}, 'config x.py')
    return config


@pytest.mark.parametrize(
    'option, message',
    [
        ('optim_wraper.optimizer.lr=1', 'optim_wraper: nothing reads it; did you mean optim'),
        ('optimizer.lr=1', 'optimizer: nothing reads it; did you mean optim_wrapper'),
        ('optim_wrapper.optimizer.lrr=1', 'lrr: AdamW does not take it; did you mean lr?'),
        ('train_cfg.max_itters=1', 'IterBasedTrainLoop does not take it; did you mean max_iters'),
        ('train_dataloader.num_wrokers=1', 'did you mean num_workers'),
        ('model.detectr.test_cfg.x=1', 'CASTDetector does not take it; did you mean detector'),
        ('model.detector.test_cfg.max_per_imge=1', 'is not there; did you mean max_per_image'),
        ('default_hooks.chekpoint.interval=1', 'is not there; did you mean checkpoint'),
        ('default_hooks.checkpoint.intervall=1', 'is not there; did you mean interval'),
        ('randomness.seeed=1', 'did you mean seed'),
        ('custom_hooks.9.interval=1', 'the list has the items 0 to'),
        ('train_cfg.max_iters=many', 'train_cfg.max_iters: is 100: give a number, not many'),
        ('train_dataloader.sampler.shuffle=no', 'is True: give True or False, not no'),
        ('train_cfg.max_iters.x=1', 'which has no x: give it whole'),
        # A name of the file alone, which OpenMMLab's configs have and nothing reads.
        ('data_root=elsewhere', 'copied when the file was read: set train_dataloader.dataset'),
    ],
)  # fmt: skip
def test_options_that_would_do_nothing_are_refused(shipped, option, message):
    with pytest.raises(CASTError) as error:
        overridden(shipped, option)
    assert message in str(error.value) and str(error.value).startswith('config x.py: ')


def test_names_of_the_file_that_nothing_reads_are_no_hints(shipped):
    with pytest.raises(CASTError) as error:
        overridden(shipped, 'seed=1')
    assert 'randomness' in str(error.value) and 'pseudo' not in str(error.value)


def test_all_are_named_at_once(shipped):
    with pytest.raises(CASTError, match='optimizer: .*; train_cfg.max_itters: '):
        overridden(shipped, 'optimizer.lr=1', 'train_cfg.max_itters=1')


@pytest.mark.parametrize(
    'option',
    [
        'optim_wrapper.accumulative_counts=2',  # arguments of the class that the config leaves out
        'optim_wrapper.paramwise_cfg.norm_decay_mult=0',
        'default_hooks.checkpoint.max_keep_ckpts=3',
        'default_hooks.mine.type=EMAHook',
        'train_dataloader.persistent_workers=False',
        'randomness.deterministic=True',
        'val_evaluator.classwise=True',
        'model.detector.test_cfg.mine=1',  # a dict without a class
        'env_cfg.mp_cfg.mp_start_method=spawn',
        'find_unused_parameters=True',
        'optim_wrapper.loss_scale=dynamic',  # with --amp
        'load_from=a.pth',
    ],
)
def test_new_keys_that_something_reads_are_taken(shipped, option):
    changed = overridden(shipped, option).to_dict()
    for part in option.partition('=')[0].split('.'):
        changed = changed[part]
    assert changed is not None


def test_another_class_brings_its_own_arguments(shipped):
    overridden(shipped, 'optim_wrapper.optimizer.type=SGD', 'optim_wrapper.optimizer.momentum=0.9')


def test_a_name_of_the_file_that_was_not_copied_is_a_warning(capsys):
    config = Config(dict(base_lr=0.1, optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.4))))
    assert overridden(config, 'base_lr=1').base_lr == 1
    assert 'base_lr is a name of the config file' in capsys.readouterr().out


def test_paths_keep_spaces_and_classes_are_a_list(shipped):
    changed = overridden(
        shipped, 'load_from=My Drive/a.pth', 'val_dataloader.dataset.metainfo.classes=traffic light'
    )
    assert changed.load_from == 'My Drive/a.pth'
    assert changed.val_dataloader.dataset.metainfo.classes == ['traffic light']


def test_dotted_keys_and_dicts_are_merged_and_the_later_wins():
    assert nested({'a.b': 1, 'a.c': 2, 'a': {'b': 3}}) == {'a': {'b': 3, 'c': 2}}
    with pytest.raises(CASTError, match='a.b: a is given as a value too'):
        nested({'a': 1, 'a.b': 2})


def test_configs_that_import_classes(tmp_path):
    """MMEngine's other style; the classes are names of the config too."""
    (tmp_path / 'base.py').write_text(
        'from mmengine.optim import OptimWrapper\nfrom torch.optim import SGD\n'
        'optim_wrapper = dict(type=OptimWrapper, optimizer=dict(type=SGD, lr=0.1))'
    )
    (tmp_path / 'new.py').write_text(
        'from mmengine.config import read_base\nwith read_base():\n    from .base import *'
    )
    config = load_config(tmp_path / 'new.py')
    overridden(config, 'optim_wrapper.optimizer.momentum=0.9')
    with pytest.raises(CASTError, match='SGD does not take it; did you mean momentum'):
        overridden(config, 'optim_wrapper.optimizer.momntum=0.9')
