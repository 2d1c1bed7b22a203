"""A loader and the sampler of its sources have one batch size."""

import pytest
from mmengine.config import Config

from mmcast.configs import load_config, shipped_configs
from mmcast.errors import CASTError
from mmcast.pipeline.plan import Plan
from mmcast.training.batches import check_batch_sizes
from mmcast.training.overrides import override
from mmcast.typed_values import Typed

TRANSFER = 'custom/custom_student_transfer.py'


def sizes(config: Config) -> tuple[int, int]:
    return config.train_dataloader.batch_size, config.train_dataloader.sampler.batch_size


@pytest.mark.parametrize('batch, expected', [(2, 2), (8, 8), (1, 2), (3, 6)])
def test_the_sampler_follows_the_batch_size_of_the_loader(batch, expected):
    """Else batches of a labeled and of a pseudo-labeled half would take turns. Of an odd one, as
    many images of each source are in two batches.
    """
    config = load_config(shipped_configs() / TRANSFER)
    override(config, {'train_dataloader.batch_size': Typed(str(batch))}, TRANSFER)
    assert sizes(config) == (batch, expected)
    if batch == expected:
        check_batch_sizes(config)
    else:
        wrong = f'is {batch}, that of its sampler {expected}: steps .*batch_size that is a mul.* 2'
        with pytest.raises(CASTError, match=wrong):  # its sampler cannot have an odd one
            check_batch_sizes(config)
        override(config, {'optim_wrapper.accumulative_counts': 2}, TRANSFER)
        check_batch_sizes(config)


def test_a_batch_size_of_the_sampler_that_is_given_stays():
    config = load_config(shipped_configs() / TRANSFER)
    given = {'train_dataloader.batch_size': 8, 'train_dataloader.sampler.batch_size': 2}
    override(config, given, TRANSFER)
    assert sizes(config) == (8, 2)
    check_batch_sizes(config)  # four batches of the sampler


def test_one_option_changes_the_batches_of_every_step_of_a_pipeline():
    path = shipped_configs() / 'cast_custom.py'
    plan = Plan(path, cfg_options={'step_options.train_dataloader.batch_size': Typed('2')})
    options = plan.with_options('adapt_labeled', ('train_dataloader',))
    assert options.train_dataloader.batch_size == 2
    assert sizes(plan.with_options('transfer', ('train_dataloader',))) == (2, 2)
    key = 'steps.transfer.cfg_options.train_dataloader.sampler.batch_size'
    with pytest.raises(CASTError, match='step transfer: .* 16: steps would .*sampler.batch_size=8'):
        Plan(path, cfg_options={key: Typed('16')})
    key = 'step_options.train_dataloader.sampler.batch_size'
    with pytest.raises(CASTError, match='InfiniteSampler does not take it.* .step adapt_labeled'):
        Plan(path, cfg_options={key: Typed('8')})  # adapt_labeled would not start


def test_shipped_configs_take_whole_batches_of_their_sources():
    checked = 0
    for path in sorted(shipped_configs().glob('*/*.py')):
        config = load_config(path)
        if 'batch_size' in (config.get('train_dataloader') or {}).get('sampler', {}):
            check_batch_sizes(config)
            checked += 1
    assert checked > 15
