"""The order in which the steps of a pipeline run."""

import pytest

from mmcast.errors import CASTError
from mmcast.pipeline.order import order_steps


def test_after_puts_a_step_behind_another_wherever_it_is_written():
    step = dict(kind='call')
    for config in (
        dict(a=step, b=step, c=dict(step, after='a'), d=dict(step, after='a')),
        dict(c=dict(step, after='a'), d=dict(step, after='a'), a=step, b=step),
    ):
        assert list(order_steps(config)) == ['a', 'c', 'd', 'b']
    chain = dict(x=dict(step, after='y'), y=dict(step, after='z'), z=step)
    assert list(order_steps(chain)) == ['z', 'y', 'x']
    assert 'after' not in order_steps(chain)['x']


@pytest.mark.parametrize('after', ['nobody', 'b'])
def test_after_that_leads_nowhere_is_named(after):
    steps = dict(a=dict(kind='call', after=after), b=dict(kind='call', after='a'))
    with pytest.raises(CASTError, match=f'step a is to run after {after}, .* there are a, b'):
        order_steps(steps)


def test_two_steps_of_one_name_in_a_list():
    with pytest.raises(CASTError, match='two steps of one name; names are a, a'):
        order_steps([dict(name='a', kind='call'), dict(name='a', kind='call')])
