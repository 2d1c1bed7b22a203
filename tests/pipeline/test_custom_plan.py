"""Sizes, windows and queries of cast_custom.py are those that the data want."""

import json
from pathlib import Path

import pytest
from data_plans import CLASSES, NETWORKS, squares, why, write_files
from mmengine.config import Config

from mmcast.errors import CASTError
from mmcast.masks.tiling import Windows
from mmcast.pipeline.custom_plan import plan_sizes
from mmcast.pipeline.steps import Step


def sizes_of(folder, sizes, boxes, configs=NETWORKS, **options):
    return plan_sizes(
        folder / 'plan',
        classes=CLASSES,
        configs=configs,
        **write_files(folder, sizes, boxes),
        **options,
    )


def test_images_with_large_objects_are_brought_to_a_crop(tmp_path):
    size = (480, 640)
    plan = sizes_of(tmp_path, [size] * 3, [squares(4, 60, size)] * 3)
    assert (plan['short'], plan['crop'], plan['windows']) == (256, 256, None)
    assert plan['num_queries'] == 30
    assert plan['class_weight'] == [1.0, 1.0, 0.1]


def test_small_objects_are_enlarged_and_looked_for_in_windows(tmp_path):
    """Sixteen pixels are the aim, twice the image's pixels the limit."""
    size = (256, 320)
    boxes = [squares(80, 10, size)] * 3
    plan = sizes_of(tmp_path, [size] * 3, boxes)
    assert (plan['short'], plan['crop']) == (410, 256)  # 256 * 16 / 10
    assert plan['long'] >= 410 * 320 / 256
    assert plan['windows'] == dict(size=256, overlap=32)
    assert plan['class_weight'] == [1.0, 1.0, 0.01]
    assert 30 <= plan['num_queries'] < 88  # a window shows a part of the 80 objects
    plan = sizes_of(tmp_path, [size] * 3, [squares(80, 5, size)] * 3)
    assert plan['short'] == 512


def test_windows_are_a_little_larger_than_crops_if_fewer_do_then(tmp_path):
    """Two of 320 pixels cover 512 where large objects have 80; three of 256 would be needed."""
    size = (256, 256)
    boxes = [*squares(80, 5, size), *squares(20, 38, size)]
    plan = sizes_of(tmp_path, [size] * 3, [boxes] * 3)
    assert (plan['short'], plan['crop']) == (512, 256)
    assert plan['windows'] == dict(size=320, overlap=96)
    assert Windows(320, 96).starts(512) == [0, 192] and len(Windows(256, 96).starts(512)) == 3


def test_windows_that_would_enlarge_little_are_not_taken(tmp_path):
    size = (320, 640)
    boxes = [*squares(9, 6, size), *squares(1, 118, size)]
    plan = sizes_of(tmp_path, [size] * 3, [boxes] * 3)
    assert (plan['short'], plan['windows']) == (256, None)
    assert 'less than 1.5 times as large' in why(plan)['image_size']['why']


def test_long_images_among_others_keep_their_size_or_the_table_says_that_they_do_not(tmp_path):
    def plan_with(length, **options):
        sizes = [(256, 256)] * 12 + [(256, length)] * 8
        return sizes_of(tmp_path, sizes, [squares(3, 20, (256, 256))] * 20, **options)

    plan = plan_with(2560)
    assert (plan['short'], plan['long']) == (256, 2560) and 'longest_side' not in why(plan)
    plan = plan_with(16384)
    assert (plan['short'], plan['long']) == (256, 8192)  # two megapixels
    row = why(plan)['longest_side']
    assert row['value'] == 8192
    assert '8 of 121 images' in row['why'] and 'down to a short side of 128:' in row['why']
    plan = plan_with(16384, given=dict(window=256))  # as it advises
    assert plan['long'] > 16384 and plan['short'] == 256 and 'longest_side' not in why(plan)


def test_what_a_person_gives_wins(tmp_path):
    size = (256, 256)
    plan = sizes_of(
        tmp_path,
        [size] * 3,
        [squares(80, 5, size)] * 3,
        crop_size='200',
        given=dict(image_size='112', window=0),
    )
    assert (plan['short'], plan['crop'], plan['windows']) == (112, 128, None)
    assert why(plan)['image_size']['why'] == 'given by you'
    assert plan['num_queries'] == 90  # of whole images, with 80
    stored = json.loads(Path(plan['table']).with_name('plan.json').read_text())
    assert stored['decisions'] == plan['decisions'] and stored['facts']['most_instances'] == 80


def test_the_table_says_the_window_that_is_used(tmp_path):
    """A given one is brought to a multiple of 32."""
    data = [(256, 256)] * 3, [squares(80, 10, (256, 256))] * 3
    plan = sizes_of(tmp_path, *data, given=dict(window='150'))
    assert plan['windows']['size'] == why(plan)['window']['value'] == 160
    assert why(plan)['window']['why'] == 'given by you as 150, brought to a multiple of 32'
    plan = sizes_of(tmp_path, *data, given=dict(window=160))
    assert why(plan)['window']['why'] == 'given by you'


def test_windows_suit_the_patches_of_both_networks(tmp_path):
    """DINOv2's patches have 14 pixels, EfficientNet-Lite's largest stride is 32."""
    data = [(256, 256)] * 3, [squares(80, 10, (256, 256))] * 3
    dinov2 = tmp_path / 'dinov2.py'
    student = dict(detector=dict(data_preprocessor=dict(pad_size_divisor=14)))
    Config(dict(model=student)).dump(dinov2)
    plan = sizes_of(tmp_path, *data, configs=[str(dinov2)])
    assert plan['crop'] == plan['windows']['size'] == 252
    plan = sizes_of(tmp_path, *data, configs=[NETWORKS[0], str(dinov2)])
    assert plan['crop'] == plan['windows']['size'] == 224


def test_a_plan_is_made_again_for_another_network(tmp_path):
    """The names of the configs are the same; what their runs do does not matter."""

    def settings(patch, **others):
        model = dict(detector=dict(data_preprocessor=dict(pad_size_divisor=patch)))
        Config(dict(model=model, **others)).dump(tmp_path / 'student.py')
        kwargs = dict(configs=['student.py'], config_dir=str(tmp_path))
        return Step('plan', dict(kind='call', kwargs=kwargs), tmp_path).settings

    assert settings(32) == settings(32, train_cfg=dict(max_iters=5)) != settings(14)


def test_max_queries_may_be_fewer_than_the_usual_fewest(tmp_path):
    plan = sizes_of(tmp_path, [(400, 400)] * 2, [squares(5, 60, (400, 400))] * 2, max_queries=10)
    assert plan['num_queries'] == 10 and why(plan)['num_queries']['why'].endswith('10 to 10')


@pytest.mark.parametrize('objects, queries', [(1, 30), (28, 40), (151, 170)])
def test_there_are_queries_for_every_object(tmp_path, objects, queries):
    size = (400, 400)
    plan = sizes_of(tmp_path, [size] * 2, [squares(objects, 60, size), squares(1, 60, size)])
    assert (plan['windows'], plan['num_queries']) == (None, queries)


def test_more_objects_than_queries_are_looked_for_in_windows_or_said_to_be_lost(tmp_path):
    size = (400, 400)
    data = [size] * 2, [squares(400, 60, size)] * 2
    plan = sizes_of(tmp_path, *data)
    assert plan['windows']['size'] < 256 and plan['num_queries'] < 300
    plan = sizes_of(tmp_path, *data, given=dict(window=0))
    assert plan['num_queries'] == 300
    assert (
        'of which 100 cannot be found: raise variables.max_queries'
        in why(plan)['num_queries']['why']
    )


@pytest.mark.parametrize(
    'options, message',
    [
        (dict(crop_size='large'), 'variables.crop_size is a whole number from 32'),
        (dict(crop_size=16), 'variables.crop_size is a whole number from 32'),
        (dict(crop_size=None), 'variables.crop_size is a whole number from 32, not None'),
        (dict(given=dict(image_size=0)), 'variables.image_size is a whole number from 1, or None,'),
        (dict(given=dict(image_size=True)), 'image_size is a whole number .* not True'),
        (dict(given=dict(window=-1)), 'variables.window is a whole number from 0'),
    ],
)
def test_a_value_that_is_none_is_refused(tmp_path, options, message):
    with pytest.raises(CASTError, match=message):
        sizes_of(tmp_path, [(64, 64)] * 2, [squares(3, 20, (64, 64))] * 2, **options)
