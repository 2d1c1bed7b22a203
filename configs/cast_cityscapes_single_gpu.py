# The whole method on Cityscapes with 10 % of the labels, on one GPU: the halves of the teacher learn one
# after the other. Numbers and weights as for cast_cityscapes.py.
_base_ = './cast_cityscapes.py'

work_dir = 'work_dirs/cast_cityscapes_single_gpu'

# After data, weights and the zero-shot teacher, as there.
steps = _base_.steps[:3] + [
    dict(
        name='boxes_labeled',
        kind='train',
        config='cityscapes_single_gpu/cityscapes_single_gpu_teacher_boxes_labeled.py',
        load_from='{start.teacher}',
        cfg_options={**_base_.teacher, **_base_.labeled, **_base_.coco_metric}),
    dict(
        name='adapt_labeled',
        kind='train',
        config='cityscapes_single_gpu/cityscapes_single_gpu_teacher_masks_labeled.py',
        load_from='{boxes_labeled.checkpoint}',
        cfg_options={**_base_.teacher, **_base_.labeled, **_base_.coco_metric}),
    dict(
        name='pseudo_label_1',
        kind='pseudo_label',
        config='cityscapes_single_gpu/cityscapes_single_gpu_teacher_masks_labeled.py',
        checkpoint='{adapt_labeled.checkpoint}',
        ann_file='{data.unlabeled}',
        img_dir='{data.train_images}',
        cfg_options=_base_.teacher),
    dict(
        name='boxes_self_training',
        kind='train',
        config='cityscapes_single_gpu/cityscapes_single_gpu_teacher_boxes_self_training.py',
        load_from='{start.teacher}',
        cfg_options={
            **_base_.teacher, **_base_.semi, **_base_.coco_metric, _base_.pseudo: '{pseudo_label_1.annotations}'
        }),
    dict(
        name='adapt_self_training',
        kind='train',
        config='cityscapes_single_gpu/cityscapes_single_gpu_teacher_masks_self_training.py',
        load_from='{boxes_self_training.checkpoint}',
        cfg_options={
            **_base_.teacher, **_base_.semi, **_base_.coco_metric, _base_.pseudo: '{pseudo_label_1.annotations}'
        }),
    dict(
        name='pseudo_label_2',
        kind='pseudo_label',
        config='cityscapes_single_gpu/cityscapes_single_gpu_teacher_masks_self_training.py',
        checkpoint='{adapt_self_training.checkpoint}',
        ann_file='{data.unlabeled}',
        img_dir='{data.train_images}',
        cfg_options=_base_.teacher),
    dict(
        name='transfer',
        kind='train',
        config='cityscapes_single_gpu/cityscapes_single_gpu_student_transfer.py',
        cfg_options={
            **_base_.semi, **_base_.coco_metric, _base_.pseudo: '{pseudo_label_2.annotations}',
            'model.detector.backbone.init_cfg.checkpoint': '{start.dinov2}'
        }),
    dict(
        name='refine',
        kind='train',
        config='cityscapes_single_gpu/cityscapes_single_gpu_student_refine.py',
        load_from='{transfer.checkpoint}',
        cfg_options={**_base_.labeled, **_base_.official_metric}),
]

report = dict(
    columns=[
        dict(
            title='teacher pseudo-labels',
            config='cityscapes_single_gpu/cityscapes_single_gpu_teacher_masks_self_training.py',
            checkpoint='{adapt_self_training.checkpoint}',
            cfg_options=_base_.teacher),
        dict(
            title='student, transferred',
            config='cityscapes_single_gpu/cityscapes_single_gpu_student_transfer.py',
            checkpoint='{transfer.checkpoint}'),
        dict(
            title='student, refined',
            config='cityscapes_single_gpu/cityscapes_single_gpu_student_refine.py',
            checkpoint='{refine.checkpoint}'),
    ])
