"""The watch over damaged files sees what it is there for."""

import json
import os
import time

import fuzzing
import numpy as np

from mmcast.errors import CASTError


def misbehave(seed):
    if seed == 1:
        raise CASTError('refused')
    if seed == 2:
        raise KeyError('lost')
    if seed == 3:
        time.sleep(60)
    if seed == 4:
        os._exit(3)
    if seed == 5:
        raise CASTError('two\nlines')
    if seed == 6:
        held = b'x' * 2**29
        time.sleep(len(held))


def test_every_misbehaviour_is_reported():
    found = fuzzing.run_cases(misbehave, range(8), seconds=5, gigabytes=0.4)
    assert [failure.seed for failure in found] == [2, 3, 4, 5, 6]
    for failure, said in zip(
        found,
        ('KeyError: "\'lost\'"', 'more than 5 s', 'status 3', 'not one line', 'more than 0.4 GB'),
    ):
        assert said in str(failure)


def test_damage_depends_on_the_seed_alone():
    content = dict(images=[dict(id=1, size=[3, 4])], text='abc' * 50)
    first, again, other = (
        [
            function(content if function is fuzzing.damage_json_file else b'x' * 300, rng)
            for function in (fuzzing.damage_json_file, fuzzing.damage_bytes)
            for _ in range(20)
        ]
        for rng in map(np.random.default_rng, (1, 1, 2))
    )
    assert first == again != other
    assert all(isinstance(data, bytes) for data in first)
    assert sum(data != json.dumps(content).encode() for data in first[:20]) > 15
