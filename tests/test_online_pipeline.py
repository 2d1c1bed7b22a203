"""A pipeline with online teachers by its shipped config, with a few images and iterations."""

from pathlib import Path

import pytest
import torch
from devices import ON_GPU

from mmcast.checkpoints import load_plain
from mmcast.configs import load_config
from mmcast.data.config_data import unlabeled_images
from mmcast.deploy.export import evaluated_part, step_source, student_state
from mmcast.pipeline.pipeline import run_pipeline
from mmcast.training.curves import read_curves

PIPELINE = Path(__file__).parents[1] / 'configs/baselines/cast_toy_online.py'
EMA = 'custom_hooks.1'
SHORT = {
    'steps.data.kwargs.num_train': 12,
    'steps.data.kwargs.num_val': 2,
    'variables.percent': 50,
    # Labels of the teacher as it comes; the steps that adapt it are tested elsewhere.
    'steps.pseudo_label_2.checkpoint': '{foundation_teacher}',
    'step_options': {
        'train_cfg.max_iters': 2,
        'train_cfg.val_interval': 2,
        'default_hooks.logger.interval': 1,
        'train_dataloader.num_workers': 0,
        'train_dataloader.persistent_workers': False,
        'val_dataloader.num_workers': 0,
        'val_dataloader.persistent_workers': False,
    },
}
ONLINE = {f'{EMA}.burn_in': 1, 'model.semi_train_cfg.class_score_thr': 0.05}


@pytest.mark.parametrize('device', ['any', ON_GPU])  # MMEngine takes the GPU where there is one
def test_online_teachers_label_after_their_burn_in_alone_and_on_top_of_a_file(device, tmp_path):
    options = dict(SHORT, **{'variables.data_root': str(tmp_path / 'data')})
    for name in ('online', 'transfer_online'):
        options[f'steps.{name}.cfg_options'] = ONLINE
    steps = ['data', 'pseudo_label_2', 'online', 'transfer_online']
    run = run_pipeline(PIPELINE, tmp_path / 'run', steps, cfg_options=options)
    for name in steps[2:]:
        curves = read_curves(run.state.folder(name))
        images = [value for _, value in curves['online_images']]
        assert images == [0, 4], 'four of the six images of a batch'
        assert curves['online_labels'][1][1] > 0
        learned = [value > 0 for _, value in curves['unsup_loss_cls']]
        # In the burn-in there are a file's labels, or none.
        assert learned == [name == 'transfer_online', True]

        # The last checkpoint's student is the average, and the exported network too.
        checkpoint = run.state.outputs(name)['checkpoint']
        state = load_plain(checkpoint)['state_dict']
        source = step_source(tmp_path / 'run', name, run.state.records[name])
        exported = student_state(source.checkpoint, evaluated_part(load_config(source.config)))
        for key, value in exported.items():
            assert torch.equal(value, state[f'teacher.{key}'])
            assert torch.equal(value, state[f'detector.{key}'])
    data = run.plan.step('online', tmp_path, run.state).config.train_dataloader.dataset.datasets
    files = run.plan.files({}, run.state)
    assert data[1].ann_file == files['unlabeled']
    assert data[1].data_prefix.img == unlabeled_images(files)
