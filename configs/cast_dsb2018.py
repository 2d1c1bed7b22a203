# The whole method on real microscopy images: 33 labeled, 298 unlabeled, 114 for validation.
# Elsewhere than in ../shared: --cfg-options variables.data_root=FOLDER, which holds
# annotations/instances_{train,val}.json and images/.
_base_ = './_base_/pipelines/cast.py'

work_dir = 'work_dirs/cast_dsb2018'
seed = 0
variables = dict(
    data_root='../shared/data/dsb2018',
    percent=10,
    foundation_teacher='{config_dir}/dsb2018/weights/nuclei_teacher.pth',
    pretrained_student='{config_dir}/dsb2018/weights/nuclei_student.pth')

step_options = {**_base_.data_roots, **_base_.coco_metric}

# The teacher looks at every image in three sizes, for the student's labels also mirrored: docs/pseudo_labels.md says
# what that changes.
scales = [0.75, 1.0, 1.25]

steps = [
    dict(
        name='data',
        kind='call',
        function='mmcast.datasets.coco_folder.prepare',
        kwargs=dict(root='{data_root}', out_dir='{work_dir}/01_data', seed='{seed}', percent='{percent}')),
    dict(
        name='zero_shot',
        kind='test',
        config='dsb2018/dsb2018_teacher_adapt_labeled.py',
        checkpoint='{foundation_teacher}'),
    dict(
        name='zero_shot_student',
        kind='test',
        config='dsb2018/dsb2018_student_transfer.py',
        checkpoint='{pretrained_student}'),
    dict(
        name='adapt_labeled',
        kind='train',
        config='dsb2018/dsb2018_teacher_adapt_labeled.py',
        load_from='{foundation_teacher}',
        cfg_options=_base_.labeled),
    dict(
        name='pseudo_label_1',
        kind='pseudo_label',
        config='dsb2018/dsb2018_teacher_adapt_labeled.py',
        checkpoint='{adapt_labeled.checkpoint}',
        ann_file='{data.unlabeled}',
        img_dir='{data.train_images}',
        scales=scales),
    dict(
        name='adapt_self_training',
        kind='train',
        config='dsb2018/dsb2018_teacher_adapt_self_training.py',
        load_from='{adapt_labeled.checkpoint}',
        cfg_options={**_base_.semi, _base_.pseudo: '{pseudo_label_1.annotations}'}),
    dict(
        name='pseudo_label_2',
        kind='pseudo_label',
        config='dsb2018/dsb2018_teacher_adapt_self_training.py',
        checkpoint='{adapt_self_training.checkpoint}',
        ann_file='{data.unlabeled}',
        img_dir='{data.train_images}',
        flip=True,
        scales=scales),
    dict(
        name='transfer',
        kind='train',
        config='dsb2018/dsb2018_student_transfer.py',
        load_from='{pretrained_student}',
        cfg_options={**_base_.semi, _base_.pseudo: '{pseudo_label_2.annotations}'}),
    dict(
        name='refine',
        kind='train',
        config='dsb2018/dsb2018_student_refine.py',
        load_from='{transfer.checkpoint}',
        cfg_options=_base_.labeled),
]

summary = [
    dict(row='teacher, zero-shot', step='zero_shot'),
    dict(row='student, zero-shot', step='zero_shot_student'),
] + _base_.summary

report = dict(
    images=12,
    ann_file='{data.val}',
    img_dir='{data.val_images}',
    score_thr=0.3,
    # Nobody trains on the labels of {data.train}: they tell how good the pseudo-labels are.
    pseudo_labels=dict(labeled='{data.labeled}', hidden='{data.train}', score_thr=0.4, min_visible=0.5),
    columns=[
        dict(
            title='teacher pseudo-labels',
            config='dsb2018/dsb2018_teacher_adapt_self_training.py',
            checkpoint='{adapt_self_training.checkpoint}'),
        dict(title='student, transferred', config='dsb2018/dsb2018_student_transfer.py', checkpoint='{transfer.checkpoint}'),
        dict(title='student, refined', config='dsb2018/dsb2018_student_refine.py', checkpoint='{refine.checkpoint}'),
    ])

# What the card of the exported student says beside what it finds out by itself.
model_card = dict(
    data='DSB2018: nuclei of the 2018 Data Science Bowl, stage1_train (BBBC038v1).',
    licences={
        'nuclei_teacher.pth': 'Apache-2.0, made by mmcast',
        'nuclei_student.pth': 'Apache-2.0, made by mmcast',
    })
