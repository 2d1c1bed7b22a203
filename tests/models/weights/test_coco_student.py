"""mmdet's Mask2Former R-50 as the student's start weights: every tensor, every class row, the same
predictions.
"""

from pathlib import Path

import mmdet
import pytest
import torch
import yaml
from mmengine.config import Config

from mmcast.errors import CASTError
from mmcast.models.weights.coco_student import RELEASE, fit_coco_student, match_names
from mmcast.models.weights.loading import load_weights
from mmcast.testing.data import make_samples
from mmcast.testing.models import build_model, build_without_memory

CONFIGS = Path(__file__).parents[3] / 'configs'
MMDET = Path(mmdet.__file__).parent / '.mim/configs/mask2former'
THEIRS = MMDET / 'mask2former_r50_8xb2-lsj-50e_coco.py'
HEAD, QUERIES = 'panoptic_head.cls_embed.', 'panoptic_head.query_feat.weight'


def ours():
    return Config.fromfile(CONFIGS / '_base_/models/mask2former_r50_coco.py').model


@pytest.fixture(scope='module')
def shapes():
    """Of mmdet's own network."""
    state = build_without_memory(Config.fromfile(THEIRS).model).state_dict()
    return {key: tuple(value.shape) for key, value in state.items()}


@pytest.fixture(scope='module')
def released(shapes, tmp_path_factory):
    """A file laid out as mmdet publishes them; large tensors repeat one number, to be small."""
    torch.manual_seed(0)
    state = {key: torch.randn(()).expand(shape) for key, shape in shapes.items()}
    for key in (f'{HEAD}weight', f'{HEAD}bias', QUERIES, 'panoptic_head.query_embed.weight'):
        state[key] = torch.randn(shapes[key])
    path = tmp_path_factory.mktemp('released') / Path(RELEASE).name
    torch.save(dict(state_dict=state, meta=dict(mmdet_version='2.24.0')), path)
    return str(path), state


def test_the_network_is_mmdets_but_for_the_class_head(shapes):
    state = build_without_memory(ours()).detector.state_dict()
    assert set(state) == set(shapes)
    other = [key for key, value in state.items() if tuple(value.shape) != shapes[key]]
    assert other == [f'{HEAD}weight', f'{HEAD}bias']


def test_the_released_file_is_the_one_of_mmdets_metafile():
    models = yaml.safe_load((MMDET / 'metafile.yml').read_text())['Models']
    (found,) = [model for model in models if model['Name'] == THEIRS.stem]
    assert found['Weights'] == RELEASE


def test_predictions_are_mmdets_own_with_the_same_weights():
    """Both configs made narrower alike; images of a size that is padded to a multiple of 32."""
    attention = dict(embed_dims=16, num_heads=2)
    ffn = dict(embed_dims=16, feedforward_channels=32)
    narrow = dict(
        backbone=dict(base_channels=8, stem_channels=8),
        panoptic_head=dict(
            in_channels=[32, 64, 128, 256],
            feat_channels=16,
            out_channels=16,
            num_things_classes=3,
            loss_cls=dict(class_weight=[1.0] * 3 + [0.1]),
            pixel_decoder=dict(
                norm_cfg=dict(num_groups=4),
                positional_encoding=dict(num_feats=8),
                encoder=dict(num_layers=2, layer_cfg=dict(self_attn_cfg=attention, ffn_cfg=ffn)),
            ),
            positional_encoding=dict(num_feats=8),
            transformer_decoder=dict(
                layer_cfg=dict(self_attn_cfg=attention, cross_attn_cfg=attention, ffn_cfg=ffn)
            ),
        ),
        panoptic_fusion_head=dict(num_things_classes=3),
    )
    images, samples = make_samples([0], size=(70, 101))
    pixels = list((images * 50 + 120).clamp(0, 255).byte())
    networks = []
    for config in (ours().detector, Config.fromfile(THEIRS).model):
        config = Config(dict(model=config))
        config.merge_from_dict(dict(model=narrow))
        config.model.backbone.pop('init_cfg', None)
        networks.append(build_model(config.model).eval())
    networks[1].load_state_dict(networks[0].state_dict())
    mine, theirs = (
        network.test_step(dict(inputs=pixels, data_samples=[samples[0].clone()]))[0].pred_instances
        for network in networks
    )
    assert type(networks[1]).__name__ == 'Mask2Former' and len(mine) == len(theirs) == 100
    mine, theirs = (found[found.scores.argsort(descending=True)] for found in (mine, theirs))
    assert 0.01 < theirs.masks.float().mean() < 0.99
    torch.testing.assert_close(mine.scores, theirs.scores, rtol=1e-4, atol=1e-6)
    assert (mine.labels == theirs.labels).float().mean() > 0.97  # equal scores may change places
    assert mine.masks.shape == theirs.masks.shape == (100, 70, 101)
    assert (mine.masks.sum() - theirs.masks.sum()).abs() <= 1e-4 * theirs.masks.sum()


def test_rows_of_classes_that_coco_has_are_kept(released, tmp_path, capsys):
    path, state = released
    classes = ['leaf', 'Person', 'traffic_light', 'car']
    out = fit_coco_student(tmp_path, path, classes)
    fitted = torch.load(out['student'], weights_only=True)
    assert out['num_queries'] == 100
    for part in ('weight', 'bias'):
        old, new = state[HEAD + part], fitted[HEAD + part]
        assert len(new) == 5
        assert torch.equal(new[1:], old[[0, 9, 2, 80]])  # and "no object" is the last
        assert not any(torch.equal(new[0], row) for row in old)
        assert new[0].abs().max() <= 1 / 16
    rest = [key for key in state if not key.startswith(HEAD)]
    assert set(fitted) == set(state) and all(torch.equal(fitted[key], state[key]) for key in rest)
    said = capsys.readouterr().out
    assert 'class rows kept: Person, traffic_light, car; new, at random: leaf' in said
    assert '100 queries, as they are' in said


def test_more_queries_are_copies_and_fewer_are_not_asked_for(released, tmp_path, capsys):
    path, state = released
    out = fit_coco_student(tmp_path / 'more', path, ['leaf'], num_queries=130)
    fitted = torch.load(out['student'], weights_only=True)[QUERIES]
    assert out['num_queries'] == 130 and fitted.shape == (130, 256)
    assert torch.equal(fitted[:100], state[QUERIES])
    assert 'new, at random: leaf; 100 queries to 130' in capsys.readouterr().out
    assert fit_coco_student(tmp_path / 'few', path, ['leaf'], num_queries=30)['num_queries'] == 100


@pytest.mark.filterwarnings('ignore:for .*copying from a non-meta')
def test_the_start_weights_fit_the_custom_student(released, tmp_path):
    """Nothing is missing, nothing left over: the config needs no ``new_parameters``."""
    path, _ = released
    out = fit_coco_student(tmp_path, path, ['leaf', 'stem'])
    config = Config.fromfile(CONFIGS / 'foundation/foundation_mask2former_r50_coco_transfer.py')
    assert not config.get('new_parameters')
    head = config.model.detector.panoptic_head
    head.num_things_classes, head.loss_cls.class_weight = 2, [1.0, 1.0, 0.1]
    config.model.detector.panoptic_fusion_head.num_things_classes = 2
    load_weights(build_without_memory(config.model), out['student'])


def test_a_training_of_ones_own_names_its_classes(released, shapes, tmp_path):
    _, state = released
    state = dict(state)
    for part in ('weight', 'bias'):
        state[HEAD + part] = state[HEAD + part][:3].clone()
    own = tmp_path / 'own.pth'
    torch.save(dict(state_dict=state, meta=dict(dataset_meta=dict(classes=('stem', 'leaf')))), own)
    fitted = torch.load(
        fit_coco_student(tmp_path, str(own), ['leaf'])['student'], weights_only=True
    )
    assert torch.equal(fitted[f'{HEAD}bias'], state[f'{HEAD}bias'][[1, 2]])
    torch.save(dict(state_dict=state), own)
    with pytest.raises(CASTError, match=r'own.pth has 2 classes and does not name them'):
        fit_coco_student(tmp_path, str(own), ['leaf'])


def test_another_networks_file_and_a_missing_one_are_refused_with_the_address(released, tmp_path):
    _, state = released
    other = {key: value for key, value in state.items() if not key.startswith('backbone.layer4')}
    torch.save(dict(state_dict=other), tmp_path / 'other.pth')
    with pytest.raises(CASTError, match="other.pth is not mmdet's Mask2Former R-50 .missing: back"):
        fit_coco_student(tmp_path, str(tmp_path / 'other.pth'), ['leaf'])
    with pytest.raises(CASTError, match=f'absent.pth not found; download {RELEASE}'):
        fit_coco_student(tmp_path, str(tmp_path / 'absent.pth'), ['leaf'])


def test_names_are_compared_as_people_write_them():
    known = ['person', 'traffic light', 'hot dog']
    assert match_names(['Traffic_Light', 'hot-dog', 'dog', ' PERSON '], known) == [1, 2, None, 0]
