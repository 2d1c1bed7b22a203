# What configs/cast_toy.py is compared with: the same student trained on the labels only.
_base_ = '../_base_/pipelines/cast.py'

work_dir = 'work_dirs/cast_toy_baselines'
seed = 0
variables = dict(
    data_root='data/toy_cityscapes', percent=10, pretrained_student='{config_dir}/../toy/weights/toy_student.pth')

step_options = {
    **_base_.data_roots,
    **_base_.coco_metric,
    'train_dataloader.dataset.data_root': '',
    'train_dataloader.dataset.data_prefix.img': '{data_root}/leftImg8bit/train',
}

steps = [
    dict(
        name='data',
        kind='call',
        function='mmcast.datasets.toy_cityscapes.prepare',
        kwargs=dict(root='{data_root}', seed='{seed}', percent='{percent}', num_train=100)),
    dict(
        name='supervised',
        kind='train',
        config='toy_student_supervised.py',
        load_from='{pretrained_student}',
        cfg_options={'train_dataloader.dataset.ann_file': '{data.labeled}'}),
    dict(
        name='supervised_all',
        kind='train',
        config='toy_student_supervised_all.py',
        load_from='{pretrained_student}',
        cfg_options={'train_dataloader.dataset.ann_file': '{data.train}'}),
]

summary = [
    dict(row='student, supervised, 10 % of labels (best)', step='supervised'),
    dict(row='student, supervised, all labels (best)', step='supervised_all'),
]
