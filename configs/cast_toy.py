# The whole method on Toy Cityscapes with 10 % of the labels: `python tools/train.py configs/cast_toy.py`.
# One entry a step, in order; each step's own config holds its numbers and also runs alone.
_base_ = './_base_/pipelines/cast.py'

work_dir = 'work_dirs/cast_toy'
seed = 0
variables = dict(
    data_root='data/toy_cityscapes',
    percent=10,
    foundation_teacher='{config_dir}/toy/weights/toy_teacher.pth',
    pretrained_student='{config_dir}/toy/weights/toy_student.pth')

step_options = {**_base_.data_roots, **_base_.coco_metric}

steps = [
    dict(
        name='data',
        kind='call',
        function='mmcast.datasets.toy_cityscapes.prepare',
        kwargs=dict(root='{data_root}', seed='{seed}', percent='{percent}', num_train=100)),
    dict(
        name='zero_shot',
        kind='test',
        config='toy/toy_teacher_adapt_labeled.py',
        checkpoint='{foundation_teacher}'),
    dict(
        name='adapt_labeled',
        kind='train',
        config='toy/toy_teacher_adapt_labeled.py',
        load_from='{foundation_teacher}',
        cfg_options=_base_.labeled),
    dict(
        name='pseudo_label_1',
        kind='pseudo_label',
        config='toy/toy_teacher_adapt_labeled.py',
        checkpoint='{adapt_labeled.checkpoint}',
        ann_file='{data.unlabeled}',
        img_dir='{data.train_images}'),
    dict(
        name='adapt_self_training',
        kind='train',
        config='toy/toy_teacher_adapt_self_training.py',
        load_from='{foundation_teacher}',
        cfg_options={**_base_.semi, _base_.pseudo: '{pseudo_label_1.annotations}'}),
    dict(
        name='pseudo_label_2',
        kind='pseudo_label',
        config='toy/toy_teacher_adapt_self_training.py',
        checkpoint='{adapt_self_training.checkpoint}',
        ann_file='{data.unlabeled}',
        img_dir='{data.train_images}'),
    dict(
        name='transfer',
        kind='train',
        config='toy/toy_student_transfer.py',
        load_from='{pretrained_student}',
        cfg_options={**_base_.semi, _base_.pseudo: '{pseudo_label_2.annotations}'}),
    dict(
        name='refine',
        kind='train',
        config='toy/toy_student_refine.py',
        load_from='{transfer.checkpoint}',
        cfg_options=_base_.labeled),
]

summary = [dict(row='teacher, zero-shot', step='zero_shot')] + _base_.summary

report = dict(
    images=12,
    ann_file='{data.val}',
    img_dir='{data.val_images}',
    score_thr=0.3,
    # Nobody trains on the labels of {data.train}: they tell how good the pseudo-labels are.
    pseudo_labels=dict(labeled='{data.labeled}', hidden='{data.train}', score_thr=0.3),
    columns=[
        dict(
            title='teacher pseudo-labels',
            config='toy/toy_teacher_adapt_self_training.py',
            checkpoint='{adapt_self_training.checkpoint}'),
        dict(title='student, transferred', config='toy/toy_student_transfer.py', checkpoint='{transfer.checkpoint}'),
        dict(title='student, refined', config='toy/toy_student_refine.py', checkpoint='{refine.checkpoint}'),
    ])

# What the card of the exported student says beside what it finds out by itself.
model_card = dict(
    data='Toy Cityscapes: street scenes that mmcast draws, rainy dusk.',
    licences={
        'toy_teacher.pth': 'Apache-2.0, made by mmcast',
        'toy_student.pth': 'Apache-2.0, made by mmcast',
    })
