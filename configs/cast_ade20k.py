# The whole method on ADE20K with 10 % of the labels: `mim train mmcast configs/cast_ade20k.py`. Data:
# docs/data.md; the four downloads that lie in weights/: docs/teacher.md. Step `start` looks at all of them.
_base_ = './_base_/pipelines/cast.py'

work_dir = 'work_dirs/cast_ade20k'
seed = 0
variables = dict(
    data_root='data/ADEChallengeData2016',
    percent=10,
    grounding_dino='weights/grounding_dino_swin-l_pretrain_all-56d69e78.pth',
    sam2='weights/sam2.1_hiera_large.pt',  # or a folder or name of Hugging Face's
    language_model='weights/bert-base-uncased',
    dinov2='weights/dinov2_vits14_pretrain.pth')

step_options = _base_.data_roots
teacher = {'model.detector.grounding_dino.language_model.name': '{start.language_model}'}

steps = [
    dict(
        name='data',
        kind='call',
        function='mmcast.datasets.ade20k.prepare',
        kwargs=dict(root='{data_root}', out_dir='{work_dir}/labels', seed='{seed}', percent='{percent}')),
    dict(
        name='start',
        kind='call',
        function='mmcast.models.teacher_weights.prepare',
        kwargs=dict(
            out_dir='{work_dir}/start',
            grounding_dino='{grounding_dino}',
            sam2='{sam2}',
            language_model='{language_model}',
            dinov2='{dinov2}')),
    dict(
        name='zero_shot',
        kind='test',
        config='ade20k/ade20k_teacher_zero_shot.py',
        checkpoint='{start.teacher}',
        cfg_options={**teacher, **_base_.coco_metric}),
    dict(
        name='adapt_labeled',
        kind='train',
        config='ade20k/ade20k_teacher_adapt_labeled.py',
        load_from='{start.teacher}',
        cfg_options={**teacher, **_base_.labeled, **_base_.coco_metric}),
    dict(
        name='pseudo_label_1',
        kind='pseudo_label',
        config='ade20k/ade20k_teacher_adapt_labeled.py',
        checkpoint='{adapt_labeled.checkpoint}',
        ann_file='{data.unlabeled}',
        img_dir='{data.train_images}',
        cfg_options=teacher),
    dict(
        name='adapt_self_training',
        kind='train',
        config='ade20k/ade20k_teacher_adapt_self_training.py',
        load_from='{start.teacher}',
        cfg_options={
            **teacher, **_base_.semi, **_base_.coco_metric, _base_.pseudo: '{pseudo_label_1.annotations}'
        }),
    dict(
        name='pseudo_label_2',
        kind='pseudo_label',
        config='ade20k/ade20k_teacher_adapt_self_training.py',
        checkpoint='{adapt_self_training.checkpoint}',
        ann_file='{data.unlabeled}',
        img_dir='{data.train_images}',
        cfg_options=teacher),
    dict(
        name='transfer',
        kind='train',
        config='ade20k/ade20k_student_transfer.py',
        cfg_options={
            **_base_.semi, **_base_.coco_metric, _base_.pseudo: '{pseudo_label_2.annotations}',
            'model.detector.backbone.init_cfg.checkpoint': '{start.dinov2}'
        }),
    dict(
        name='refine',
        kind='train',
        config='ade20k/ade20k_student_refine.py',
        load_from='{transfer.checkpoint}',
        cfg_options={**_base_.labeled, **_base_.coco_metric}),
]

summary = [dict(row='teacher, zero-shot', step='zero_shot')] + _base_.summary

report = dict(
    images=12,
    ann_file='{data.val}',
    img_dir='{data.val_images}',
    score_thr=0.3,
    columns=[
        dict(
            title='teacher pseudo-labels',
            config='ade20k/ade20k_teacher_adapt_self_training.py',
            checkpoint='{adapt_self_training.checkpoint}',
            cfg_options=teacher),
        dict(
            title='student, transferred',
            config='ade20k/ade20k_student_transfer.py',
            checkpoint='{transfer.checkpoint}'),
        dict(
            title='student, refined',
            config='ade20k/ade20k_student_refine.py',
            checkpoint='{refine.checkpoint}'),
    ])
