"""Every shipped config builds, trains one step and predicts; every pipeline names steps and files
that exist.

New files under configs/ are picked up by themselves.
"""

from pathlib import Path

import pytest
import torch
from data_plans import any_plan
from mmdet.datasets.samplers import MultiSourceSampler
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from small_models import CONFIGS, SMALL, batch, build, language_model, without_pretrained

from mmcast.configs import find_config
from mmcast.images import parse_value_range
from mmcast.pipeline.plan import Plan
from mmcast.registry import DATA_SAMPLERS
from mmcast.registry import MODELS as MODELS_REGISTRY
from mmcast.testing.data import make_samples
from mmcast.testing.models import build_model, build_without_memory
from mmcast.testing.teacher import write_tiny_clip
from mmcast.training.optimizers import check_parameter_groups
from mmcast.training.runner import use_full_precision

ROOT = CONFIGS
FILES = [path for path in sorted(ROOT.rglob('*.py')) if '_base_' not in path.parts]
PIPELINES = [path for path in FILES if 'steps' in Config.fromfile(path)]
BENCHMARKS = [path for path in FILES if 'benchmarks' in path.parts]
MODELS = [path for path in FILES if path not in PIPELINES + BENCHMARKS]
STUDENTS = sorted((ROOT / '_base_' / 'models').glob('cast_*.py'))


def relative(path):
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize('path', MODELS, ids=relative)
def test_config_trains_a_step_and_predicts(path, tmp_path):
    """From raw images of odd size; the loss has all terms of the objective that the config switches
    on.
    """
    config, model = build(path, tmp_path)
    data = model.data_preprocessor(batch(config, size=(61, 75)), True)
    losses = model(**data, mode='loss')
    total, _ = model.parse_losses(losses)
    total.backward()
    assert total.isfinite() and total > 0
    assert all(
        p.grad is not None and p.grad.isfinite().all()
        for p in model.parameters()
        if p.requires_grad
    )
    prefixes = {key.split('_')[0] for key in losses}
    semi, pixel = model.semi_train_cfg['semi_weight'], model.pixel_contrast
    expected = {'sup': True, 'unsup': semi, 'loss': pixel, 'online': model.teacher}
    assert prefixes == {prefix for prefix, is_there in expected.items() if is_there}

    model.eval()
    with torch.no_grad():
        predicted = model.test_step(batch(config, size=(61, 75)))
    assert all(sample.pred_instances.masks.shape[1:] == (61, 75) for sample in predicted)
    labels = torch.cat([sample.pred_instances.labels for sample in predicted])
    assert labels.min() >= 0 and labels.max() < len(config.metainfo.classes)


@pytest.mark.parametrize('path', STUDENTS, ids=relative)
def test_student_trains_a_step_and_predicts(path):
    """Each student that a config may inherit, with its pixel loss; ViTs in miniature."""
    config = Config.fromfile(path)
    detector = config.model.detector
    config.model.pixel_contrast = dict(config.pixel_contrast, in_channels=None)
    if detector.backbone.type == 'DINOv2' or detector.backbone.name.startswith('vit'):
        small = dict(
            SMALL, backbone={}, panoptic_head=dict(SMALL['panoptic_head'], in_channels=None)
        )
        config.merge_from_dict(dict(model=dict(detector=small)))
        if detector.backbone.type == 'DINOv2':
            detector.backbone.update(SMALL['backbone'])
        else:
            detector.backbone.update(embed_dim=16, depth=4, num_heads=2)
    model = build_model(config.model)
    images, samples = make_samples([2, 1], size=(61, 75), num_classes=8)
    data = dict(inputs=list((images * 50 + 120).clamp(0, 255).byte()), data_samples=samples)
    data = model.data_preprocessor(data, True)
    losses = model(**data, mode='loss')
    total, _ = model.parse_losses(losses)
    total.backward()
    assert total.isfinite() and 'loss_pxl' in losses
    assert [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None] == []
    with torch.no_grad():
        predicted = model.eval().test_step(batch(config, size=(61, 75), sources=['labeled']))
    assert predicted[0].pred_instances.masks.shape[1:] == (61, 75)


@pytest.mark.parametrize('path', MODELS, ids=relative)
def test_config_that_learns_of_more_than_labels_has_the_data_and_no_other_has(path):
    config = Config.fromfile(path)
    dataset = config.train_dataloader.dataset
    others = ['PseudoLabelDataset'] + ['UnlabeledDataset'] * ('teacher' in config.model)
    pseudo = [part for part in dataset.get('datasets', []) if part.type in others]
    assert bool(pseudo) == (config.model.get('semi_train_cfg', {}).get('semi_weight', 0) > 0)
    for part in pseudo:
        packed = part.pipeline[-1]
        assert packed.type == 'PackDetInputs' and 'source' in packed.meta_keys


@pytest.mark.parametrize('path', FILES, ids=relative)
def test_a_resumed_run_need_not_load_again_what_it_has_trained_on(path):
    """MMEngine winds a sampler forward that can ``skip``, as its own ``InfiniteSampler`` can."""
    loader = Config.fromfile(path).get('train_dataloader')
    if loader is None:
        return
    if loader.dataset.type == 'ConcatDataset':
        sampler = DATA_SAMPLERS.get(loader.sampler.type)
        assert issubclass(sampler, MultiSourceSampler) and callable(sampler.skip)
    else:
        assert loader.sampler.type == 'InfiniteSampler'


@pytest.mark.parametrize('path', MODELS, ids=relative)
def test_the_pixel_loss_is_watched_wherever_it_is_on(path):
    """By one hook, at an interval of the logger's; without a pixel loss it does nothing."""
    config = Config.fromfile(path)
    hooks = [hook for hook in config.custom_hooks if hook.type == 'PixelDiagnosticsHook']
    assert len(hooks) == 1 and hooks[0].interval % config.default_hooks.logger.interval == 0


@pytest.mark.parametrize('path', MODELS, ids=relative)
def test_config_builds_in_full_size_with_the_optimizer_that_it_names(path, tmp_path):
    """On the meta device; every part that has a learning rate of its own is there."""
    config = Config.fromfile(path)
    if config.model.detector.type == 'GroundedSAM':
        vocabulary = Path(language_model(config, tmp_path))
        (vocabulary / 'config.json').unlink()  # bert-base is the default
        config.model.detector.grounding_dino.language_model.name = str(vocabulary)
    if config.model.detector.type == 'SAM3':
        config.model.detector.tokenizer = write_tiny_clip(tmp_path)
    model = build_without_memory(Config(without_pretrained(config.to_dict())).model)
    if config.optim_wrapper.type == 'AmpOptimWrapper':
        use_full_precision(config.optim_wrapper)
    check_parameter_groups(model, build_optim_wrapper(model, config.optim_wrapper))


@pytest.mark.parametrize('path', MODELS, ids=relative)
def test_images_divide_into_the_encoders_patches(path):
    detector = Config.fromfile(path).model.detector
    if detector.type == 'GroundedSAM':  # brings images to its own sizes
        assert detector.sam2.get('image_size', 1024) % 32 == 0
        return
    if detector.type == 'SAM3':
        assert detector.image_size % 14 == 0
        return
    assert (
        detector.data_preprocessor.pad_size_divisor % detector.backbone.get('patch_size', 32) == 0
    )


@pytest.mark.parametrize('path', BENCHMARKS, ids=relative)
def test_benchmark_config_segments_a_hundred_instances(path):
    """Whatever the weights: all models in the table make as many masks."""
    torch.manual_seed(0)
    model = MODELS_REGISTRY.build(Config.fromfile(path).model).eval()
    model.init_weights()
    images, samples = make_samples([0], size=(64, 96))
    with torch.no_grad():
        predicted = model.test_step(
            dict(inputs=list((images * 50 + 120).byte()), data_samples=samples)
        )[0]
    assert predicted.pred_instances.masks.shape == (100, 64, 96)
    assert predicted.pred_instances.labels.max() < 8


def test_no_basename_occurs_twice():
    """Mim finds a config by its basename."""
    names = [path.name for path in ROOT.rglob('*.py') if path.name != '__init__.py']
    assert sorted(names) == sorted(set(names))


# Pipelines

DATA = (
    'train',
    'labeled',
    'unlabeled',
    'val',
    'train_images',
    'unlabeled_images',
    'val_images',
    'val_masks',
    'classes',
    'num_classes',
)


class AnyOutput(dict):
    """The outputs of a step that left whatever is asked for."""

    def __init__(self, step):
        self.step = step

    def __contains__(self, output):
        return True

    def __getitem__(self, output):
        return f'{self.step}/{output}'

    def get(self, output, default=None):
        return self[output]


class AllFinished:
    """A pipeline's state after its last step.

    Args:
        more: outputs of its data step that others do not have.
    """

    def __init__(self, more=()):
        self.more = more

    def finished(self, step):
        return True

    def outputs(self, step):
        if step == 'data':
            return {key: f'data/{key}' for key in (*DATA, *self.more)}
        if step == 'plan':
            return any_plan()
        return AnyOutput(step)


def test_there_is_a_pipeline():
    assert 'cast_toy.py' in map(relative, PIPELINES)


@pytest.mark.parametrize('path', PIPELINES, ids=relative)
def test_steps_use_what_earlier_steps_made(path):
    """Every step config exists; {step.output} is of an earlier step, every {name} a variable."""
    plan, before = Plan(path), set()
    for name in plan.definitions:
        assert plan.needs(name) <= before, name
        before.add(name)
    assert plan.rows and {row['step'] for row in plan.rows} <= before
    plan.templates.resolve(dict(plan.config.get('report', {})), 'report', AllFinished())
    for column in plan.report_columns():
        assert 'model' in plan.column_config(
            plan.templates.resolve(column, 'report', AllFinished()), AllFinished()
        )


@pytest.mark.parametrize('path', PIPELINES, ids=relative)
def test_step_options_change_values_that_the_step_configs_have(path):
    """An option with a mistyped name would be added beside the one that was meant, and change
    nothing.
    """
    plan = Plan(path)
    for name, definition in plan.definitions.items():
        if definition['kind'] == 'call':
            continue
        own = plan.templates.resolve(definition.get('cfg_options', {}), name, AllFinished())
        config = Config.fromfile(
            find_config(plan.templates.resolve(definition['config'], name), path.parent)
        )
        for option in [*plan.config.get('step_options', {}), *own]:
            node = config
            for key in option.split('.')[:-1]:
                node = node[int(key)] if key.isdigit() else node.get(key)
                assert node is not None, f'{name}: {definition["config"]} has no {option}'


@pytest.mark.parametrize('path', PIPELINES, ids=relative)
def test_every_step_reads_the_pipelines_data(path, tmp_path):
    """Labeled, pseudo-labeled, validation and test images of every step are those that the pipeline
    made or found.
    """
    plan = Plan(path)
    halved = plan.definitions['data']['function'].endswith('.prepare_cityscapes_small')
    state = AllFinished(('test', 'test_images') if halved else ())
    for name, definition in plan.definitions.items():
        if definition['kind'] == 'call':
            continue
        step = plan.step(name, tmp_path, state)
        for loop, images in (('val', 'val'), ('test', 'test' if halved else 'val')):
            metrics = step.config[f'{loop}_evaluator']
            first, *others = metrics if isinstance(metrics, list) else [metrics]
            assert first.ann_file == f'data/{images}'
            for metric in others:
                if metric.type == 'CocoMetric':
                    assert metric.ann_file == f'data/{images}' and metric.prefix != first.prefix
                else:
                    assert metric.seg_prefix == 'data/val_masks'
            dataset = step.config[f'{loop}_dataloader'].dataset
            assert (dataset.ann_file, dataset.data_prefix.img, dataset.data_root) == (
                f'data/{images}',
                f'data/{images}_images',
                '',
            )
        if definition['kind'] == 'pseudo_label':
            assert step.definition['ann_file'] == 'data/unlabeled'
            assert step.definition['img_dir'].startswith('data/')
        if definition['kind'] == 'train':
            dataset = step.config.train_dataloader.dataset
            for part in dataset.get('datasets', [dataset]):
                expected = dict(
                    PseudoLabelDataset=definition.get('pseudo_labels'),
                    UnlabeledDataset='{data.unlabeled}',
                    CocoDataset=definition.get('labeled', '{data.labeled}'),
                )[part.type]
                assert part.ann_file == plan.templates.resolve(expected, name, state)
                assert part.data_prefix.img == (
                    'data/train_images' if part.type == 'CocoDataset' else 'data/unlabeled_images'
                )


@pytest.mark.parametrize('given', [None, '0,4095', ('percentile', 1, 99)])
def test_a_value_range_reaches_every_step_for_custom_data(tmp_path, given):
    """Training, validation, pseudo-labels and the report see the same pixels."""
    path = next(path for path in PIPELINES if path.name == 'cast_custom.py')
    plan = Plan(path, cfg_options={'variables.value_range': given})
    for name, definition in plan.definitions.items():
        if definition['kind'] == 'call':
            continue
        config = plan.step(name, tmp_path, AllFinished()).config
        loaders = ['test_dataloader', 'val_dataloader']
        loaders += ['train_dataloader'] * (definition['kind'] == 'train')
        for loader in loaders:
            dataset = config[loader].dataset
            for part in dataset.get('datasets', [dataset]):
                (loading,) = [step for step in part.pipeline if step.type == 'LoadImage']
                assert parse_value_range(loading.value_range) == parse_value_range(given)


@pytest.mark.parametrize('name, folds', [('cast_toy.py', 'val'), ('cast_custom_foundation.py', 3)])
def test_one_variable_chooses_the_thresholds_of_both_steps_that_learn_from_pseudo_labels(
    tmp_path, name, folds
):
    """Labels are made and read in these steps as for the steps that the thresholds are for."""
    path = next(path for path in PIPELINES if path.name == name)
    plan = Plan(path, cfg_options={'variables.threshold_folds': folds})
    for number, user in (('1', 'adapt_self_training'), ('2', 'transfer')):
        label, choosing, using = (
            plan.step(step, tmp_path, AllFinished())
            for step in (f'pseudo_label_{number}', f'thresholds_{number}', user)
        )
        dataset = using.config.train_dataloader.dataset.datasets[1]
        assert dataset.thresholds_from == dict(held_out=f'thresholds_{number}/thresholds')
        assert choosing.definition['reading']['min_visible'] == dataset.get('min_visible', 0)
        assert choosing.definition['reading']['score_thr'] > dataset.score_thr == 0
        assert choosing.config.to_dict() == label.config.to_dict()
        checkpoint = label.definition['checkpoint'] if folds == 'val' else None
        assert choosing.definition['checkpoint'] == checkpoint
