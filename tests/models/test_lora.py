"""LoRA: what learns, what stays as it is bit for bit, and what loads into it."""

import copy
import logging

import pytest
import torch
from devices import GPU, comparable
from mmengine.config import Config, ConfigDict
from tiny_sam3 import CONFIG as SAM3_CONFIG
from tiny_sam3 import sam3_config
from tiny_teacher import CLASSES, CONFIG, teacher_config

from mmcast.adapter_files import is_adapter, merge, plain_name
from mmcast.errors import CASTError
from mmcast.models.encoders.timm_encoder import TimmEncoder
from mmcast.models.lora import LoRA, adapted_layers, add_adapters
from mmcast.testing.data import make_samples
from mmcast.testing.models import (
    build_model,
    build_without_memory,
    tiny_cast_config,
    tiny_student_config,
)
from mmcast.training.optimizers import PartsOptimWrapperConstructor

SIZE = (64, 96)


def copy_state(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


def cast(detector, lora=None, **options):
    """Weights of both forms are the same; the adapters' B are not zeros, as after training."""
    plain = ConfigDict(type='CASTDetector', detector=detector, **options)
    adapted = plain if lora is None else dict(plain, lora=lora)
    model = build_model(copy.deepcopy(adapted))
    if lora is not None:
        model.load_state_dict(build_model(plain).state_dict())
        for _, layer in adapted_layers(model):
            torch.nn.init.normal_(layer.lora_B['default'].weight, std=0.05)
    return model


def loss_of(model, images, samples, seed=3):
    torch.manual_seed(seed)
    return sum(model.loss(images, samples).values())


def train(model, images, samples, steps, lr):
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(learning, lr=lr)
    for step in range(steps):
        optimizer.zero_grad()
        loss_of(model, images, samples, seed=step).backward()
        optimizer.step()


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp('teacher')


BUILD = dict(grounded_sam=teacher_config, sam3=sam3_config)
ON_GPU = [pytest.param((name, GPU), marks=pytest.mark.gpu) for name in BUILD]


@pytest.fixture(scope='module', params=[*((name, 'cpu') for name in BUILD), *ON_GPU], ids='-'.join)
def adapted(request, folder):
    """A tiny teacher: how it is built, it after training, its state before, its losses."""
    name, device = request.param
    build = BUILD[name]
    model = cast(build(folder), dict(rank=2)).train().to(device)
    images, samples = make_samples([2, 1], size=SIZE)
    images, samples = images.to(device), [sample.to(device) for sample in samples]
    start, first = copy_state(model), loss_of(model, images, samples).item()
    train(model, images, samples, steps=12 if build is teacher_config else 30, lr=3e-3)
    return build, model, start, (first, loss_of(model, images, samples).item())


# ---- the teachers


def test_the_loss_falls_and_only_what_learns_changes(adapted):
    build, model, start, (first, last) = adapted
    assert last < 0.8 * first
    learning = {name for name, part in model.named_parameters() if part.requires_grad}
    changed = {name for name, value in model.state_dict().items() if not value.equal(start[name])}
    assert changed == learning
    rest = sorted(name for name in learning if not is_adapter(name))
    biases = [f'detector.grounding_dino.bbox_head.cls_branches.{i}.bias' for i in range(3)]
    assert rest == (biases if build is teacher_config else [])


def raw_predictions(network, images):
    """Scores, boxes and mask logits, of all queries or of given boxes."""
    pixels = network._pixels(images)
    if hasattr(network, 'sam2'):
        boxes = images.new_tensor([[4.0, 4, 40, 30], [20, 10, 90, 60]])
        embeddings = [part[:1] for part in network.sam2.encode(pixels)]
        found = network.grounding_dino.queries(pixels)
        return (*found, *network.sam2.decode(embeddings, boxes, SIZE))
    encoded = network.network.encode(pixels)
    found = network._find(encoded, torch.tensor([0, 1]), torch.tensor([0, 2]))
    masks = network.network.masks(found, encoded, 0, 0, torch.arange(4, device=images.device))
    return found.scores, found.boxes, found.presence, masks


def test_merged_predictions_are_those_of_the_adapters(adapted, folder):
    build, model, *_ = adapted
    model.eval()
    plain = build_model(ConfigDict(type='CASTDetector', detector=build(folder)), seed=9).eval()
    plain.load_state_dict(merge(model.state_dict(), model.lora.scaling))
    device = next(model.parameters()).device
    images = make_samples([1, 1], size=SIZE, seed=4)[0].to(device)
    with torch.no_grad(), comparable():
        found = [raw_predictions(each.detector, images) for each in (model, plain.to(device))]
    for with_adapters, merged in zip(*found):
        torch.testing.assert_close(with_adapters, merged, atol=1e-5, rtol=1e-5)


def test_merging_is_what_peft_makes_of_each_layer(adapted):
    model = copy.deepcopy(adapted[1])
    merged = merge(model.state_dict(), model.lora.scaling)
    for name, layer in adapted_layers(model):
        layer.merge()
        torch.testing.assert_close(layer.base_layer.weight, merged[f'{name}.weight'])


@pytest.mark.parametrize('frozen', ['sam2', 'grounding_dino'])
def test_a_frozen_components_adapters_are_frozen_too(folder, frozen):
    model = cast(teacher_config(folder, frozen=(frozen,)), dict(rank=1))
    by_component = {name: set() for name in ('sam2', 'grounding_dino')}
    for name, part in model.detector.named_parameters():
        if is_adapter(name):
            by_component[name.split('.')[0]].add(part.requires_grad)
    assert by_component == {name: {name != frozen} for name in by_component}


@pytest.mark.parametrize('build', [teacher_config, sam3_config])
def test_activation_checkpointing_leaves_the_adapters_gradients_as_they_are(folder, build):
    images, samples = make_samples([2, 1], size=SIZE)
    found = []
    for checkpointing in (False, True):
        model = cast(build(folder, activation_checkpointing=checkpointing), dict(rank=2)).train()
        loss_of(model, images, samples).backward()
        found.append({name: p.grad for name, p in model.named_parameters() if p.requires_grad})
    plain, checkpointed = found
    assert plain.keys() == checkpointed.keys()
    assert all(grad.equal(checkpointed[name]) for name, grad in plain.items())
    assert all(grad.any() for name, grad in plain.items() if '.lora_A.' in name)


@pytest.mark.parametrize('build', [teacher_config, sam3_config])
def test_adapters_learn_in_float32_under_bf16(folder, build):
    images, samples = make_samples([2, 1], size=SIZE)
    model = cast(build(folder), dict(rank=2)).train()
    with torch.autocast('cpu', torch.bfloat16):
        loss_of(model, images, samples).backward()
    for name, part in model.named_parameters():
        if is_adapter(name):
            assert part.grad.dtype == torch.float32 and part.grad.isfinite().all(), name


@pytest.mark.parametrize('path, whole', [(CONFIG, 560.0e6), (SAM3_CONFIG, 840.4e6)], ids=str)
def test_at_full_size_a_checkpoint_with_the_optimizer_has_under_2_percent(folder, path, whole):
    """AdamW keeps two numbers for each that learns."""
    config = Config.fromfile(path).model
    config.detector.classes, config.pixel_contrast, config.lora = list(CLASSES), None, dict()
    if path == CONFIG:  # its language model is tiny here
        name = teacher_config(folder).grounding_dino.language_model.name
        config.detector.grounding_dino.language_model.name = name
        config.detector.grounding_dino.backbone.pop('init_cfg', None)
    else:
        config.detector.tokenizer = sam3_config(folder).tokenizer
    model = build_without_memory(config)
    adapters = sum(p.numel() for name, p in model.named_parameters() if is_adapter(name))
    learning = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert 3e6 < adapters <= learning <= adapters + 7
    assert 3 * learning < 0.02 * whole


# ---- any network


def test_of_another_network_the_encoder_is_adapted_and_the_rest_learns():
    model = cast(tiny_student_config(), dict(rank=2))
    for name, part in model.detector.named_parameters():
        expected = is_adapter(name) or not name.startswith('backbone.')
        assert part.requires_grad is expected, name


def test_plain_weights_load_and_the_adapters_then_add_nothing():
    model, plain = cast(tiny_student_config(), dict(rank=2)), cast(tiny_student_config())
    images, samples = make_samples([2, 1])
    with torch.no_grad():
        expected = loss_of(plain.train(), images, samples)
        assert loss_of(model.train(), images, samples) != expected
        # of a CASTDetector, of its network alone, and of the encoder alone, as init_cfg loads it
        for part, source in (
            ('', plain),
            ('', plain.detector),
            ('detector.backbone', plain.detector.backbone),
        ):
            loaded = copy.deepcopy(model)
            loaded.get_submodule(part).load_state_dict(source.state_dict())
            assert loss_of(loaded, images, samples) == expected


def test_the_networks_initialisation_does_not_reach_the_adapters(folder):
    """mmdet's would fill every matrix of the transformer, mmpretrain's asks for biases."""
    model = build_model(
        ConfigDict(type='CASTDetector', detector=teacher_config(folder), lora=dict(rank=1))
    )
    before = copy_state(model)
    logging.disable(logging.INFO)  # MMEngine names every parameter
    try:
        model.init_weights()
    finally:
        logging.disable(logging.NOTSET)
    for name, value in model.state_dict().items():
        drawn = name.startswith('detector.grounding_dino.encoder.') and name.endswith('r.weight')
        if is_adapter(name) or drawn:
            assert value.equal(before[name]) is not drawn, name


def test_a_copy_keeps_its_own_adapters():
    model = cast(tiny_student_config(), dict(rank=2))
    other = copy.deepcopy(model)
    other.load_state_dict(cast(tiny_student_config()).state_dict())
    assert any(layer.lora_B['default'].weight.any() for _, layer in adapted_layers(model))
    assert not any(layer.lora_B['default'].weight.any() for _, layer in adapted_layers(other))


def test_a_teacher_of_the_same_config_gets_adapters_another_one_none():
    same = build_model(dict(tiny_cast_config(teacher=True), lora=dict(rank=1)))
    other = tiny_cast_config(teacher=True)
    other.teacher.test_cfg.max_per_image = 3
    other = build_model(dict(other, lora=dict(rank=1)))
    assert list(adapted_layers(same.teacher)) and not list(adapted_layers(other.teacher))
    assert not any(part.requires_grad for part in same.teacher.parameters())


@pytest.mark.parametrize(
    'lora, message',
    [
        (dict(ranks=4), 'lora has no ranks; did you mean rank'),
        (dict(rank=0), 'lora.rank=0 must be a whole number above 0'),
        (dict(dropout=1.0), 'dropout=1.0 in'),
        (dict(alpha='eight'), 'lora.alpha=eight must be a number'),
        (dict(layers=[]), 'lora.layers is empty'),
        (
            dict(layers=['backbone.nothing']),
            'no linear layer .* begins with backbone.nothing; names',
        ),
        (dict(layers=['backbone.(']), r'backbone.\( is no regular expression'),
        (dict(learn_in_full=['head.']), 'lora.learn_in_full: no parameter .* begins with head'),
        (
            dict(layers=[r'.*cross_attn\.attn\.out_proj']),
            r'no linear layer \(nn.MultiheadAttention has none\)',
        ),
    ],
    ids=lambda value: str(value)[:30],
)
def test_settings_that_fit_nothing_are_refused(lora, message):
    with pytest.raises(CASTError, match=message):
        build_model(dict(type='CASTDetector', detector=tiny_student_config(), lora=lora))


def test_the_parts_of_multihead_attention_are_left_out():
    network = build_model(tiny_student_config())
    add_adapters(network, LoRA(rank=1, layers=['panoptic_head.transformer_decoder.']))
    names = [name for name, _ in adapted_layers(network)]
    assert names and all('.ffn' in name for name in names)


# ---- the optimizer


def groups(model, **paramwise):
    settings = dict(type='OptimWrapper', optimizer=dict(type='AdamW', lr=1.0, weight_decay=0.1))
    wrapper = PartsOptimWrapperConstructor(settings, paramwise or None)(model)
    names = {id(part): name for name, part in model.named_parameters()}
    return {
        names[id(part)]: (group['lr'], group['weight_decay'])
        for group in wrapper.optimizer.param_groups
        for part in group['params']
    }


def test_adapters_learn_by_their_own_factor_in_all_layers_alike():
    model = cast(tiny_student_config(), dict(rank=1))
    parts = dict(parts={'backbone.': dict(lr_mult=0.1, layer_decay=0.5)})
    given = dict(adapters=dict(lr_mult=5.0, weight_decay=0.2))
    for options, expected in (
        (parts, (1.0, 0.0)),
        (parts | given, (0.5, 0.2)),
        (given, (5.0, 0.2)),
        ({}, (10.0, 0.0)),
    ):
        found = groups(model, **options)
        for name, settings in found.items():
            assert settings == (expected if is_adapter(name) else (1.0, 0.1)), name
        assert {plain_name(name).split('.')[1] for name in found} == {'backbone', 'panoptic_head'}


def test_layer_decay_beside_adapters_on_an_encoder_of_timm():
    """timm's groups have the names without adapters."""
    small = dict(embed_dim=16, depth=2, num_heads=2, img_size=32)
    encoder = TimmEncoder('vit_tiny_patch16_224', **small)
    network = torch.nn.ModuleDict(dict(backbone=encoder))
    add_adapters(network, LoRA(rank=1, learn_in_full=['.*norm1']))
    found = groups(network, parts={'backbone.': dict(layer_decay=0.5)})
    blocks = 'backbone.model.blocks.'
    assert found[f'{blocks}1.norm1.weight'] == (0.5, 0.1)
    assert found[f'{blocks}0.norm1.weight'] == (0.25, 0.1)
    assert found[f'{blocks}0.attn.qkv.lora_A.default.weight'] == (10.0, 0.0)


def test_an_unknown_option_of_adapters_is_refused():
    with pytest.raises(
        CASTError, match='paramwise_cfg.adapters has no lr; there are lr_mult, weight_decay'
    ):
        groups(cast(tiny_student_config(), dict(rank=1)), adapters=dict(lr=1.0))
