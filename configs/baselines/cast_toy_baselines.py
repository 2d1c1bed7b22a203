# What configs/cast_toy.py is compared with: the same student on the labels only, and on all labels.
_base_ = '../_base_/pipelines/baselines.py'
work_dir = 'work_dirs/cast_toy_baselines'
variables = dict(
    data_root='data/toy_cityscapes', student='baselines/toy_student',
    pretrained_student='{configs}/toy/weights/toy_student.pth')
steps = dict(
    data=dict(
        function='mmcast.toy.cityscapes.prepare_toy_cityscapes',
        kwargs=dict(_delete_=True, root='{data_root}', seed='{seed}', percent='{percent}', num_train=100)),
    supervised_all=dict(
        kind='train', config='{student}_supervised_all.py', load_from='{pretrained_student}',
        labeled='{data.train}'))
summary = dict(supervised_all='student, supervised, all labels (best)')
