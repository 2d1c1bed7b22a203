# What configs/cast_dsb2018.py is compared with: the same student trained on the labels only.
_base_ = '../_base_/pipelines/cast.py'

work_dir = 'work_dirs/cast_dsb2018_baselines'
seed = 0
variables = dict(
    data_root='../shared/data/dsb2018',
    percent=10,
    pretrained_student='{config_dir}/../dsb2018/weights/nuclei_student.pth')

step_options = {
    **_base_.data_roots,
    **_base_.coco_metric,
    'train_dataloader.dataset.data_root': '',
    'train_dataloader.dataset.data_prefix.img': '{data_root}/images',
}

steps = [
    dict(
        name='data',
        kind='call',
        function='mmcast.datasets.coco_folder.prepare',
        kwargs=dict(root='{data_root}', out_dir='{work_dir}/01_data', seed='{seed}', percent='{percent}')),
    dict(
        name='supervised',
        kind='train',
        config='dsb2018_student_supervised.py',
        load_from='{pretrained_student}',
        cfg_options={'train_dataloader.dataset.ann_file': '{data.labeled}'}),
]

summary = [
    dict(row='student, supervised, 10 % of labels (best)', step='supervised'),
]
