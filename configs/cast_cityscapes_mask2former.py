# As cast_cityscapes.py with another teacher: mmdet's Mask2Former Swin-L, pretrained on COCO. Its classes are
# COCO's, so there is no zero-shot teacher. The two weights files: docs/teacher.md.
_base_ = './_base_/pipelines/cast.py'

work_dir = 'work_dirs/cast_cityscapes_mask2former'
seed = 0
variables = dict(
    data_root='data/cityscapes',
    percent=10,
    teacher='weights/mask2former_swin-l-p4-w12-384-in21k_16xb1-lsj-100e_coco-panoptic_20220407_104949-82f8d28d.pth',
    dinov2='weights/dinov2_vits14_pretrain.pth')

step_options = _base_.data_roots
official_metric = {
    'val_evaluator.0.ann_file': '{data_root}/annotations/instances_val.json',
    'test_evaluator.0.ann_file': '{data_root}/annotations/instances_val.json',
    'val_evaluator.1.seg_prefix': '{data_root}/gtFine/val',
    'test_evaluator.1.seg_prefix': '{data_root}/gtFine/val',
}

steps = [
    dict(
        name='data',
        kind='call',
        function='mmcast.datasets.cityscapes.prepare',
        kwargs=dict(root='{data_root}', out_dir='{work_dir}/labels', seed='{seed}', percent='{percent}')),
    dict(
        name='adapt_labeled',
        kind='train',
        config='cityscapes/cityscapes_mask2former_adapt_labeled.py',
        load_from='{teacher}',
        cfg_options={**_base_.labeled, **_base_.coco_metric}),
    dict(
        name='pseudo_label_1',
        kind='pseudo_label',
        config='cityscapes/cityscapes_mask2former_adapt_labeled.py',
        checkpoint='{adapt_labeled.checkpoint}',
        ann_file='{data.unlabeled}',
        img_dir='{data.train_images}'),
    dict(
        name='adapt_self_training',
        kind='train',
        config='cityscapes/cityscapes_mask2former_adapt_self_training.py',
        load_from='{teacher}',
        cfg_options={**_base_.semi, **_base_.coco_metric, _base_.pseudo: '{pseudo_label_1.annotations}'}),
    dict(
        name='pseudo_label_2',
        kind='pseudo_label',
        config='cityscapes/cityscapes_mask2former_adapt_self_training.py',
        checkpoint='{adapt_self_training.checkpoint}',
        ann_file='{data.unlabeled}',
        img_dir='{data.train_images}'),
    dict(
        name='transfer',
        kind='train',
        config='cityscapes/cityscapes_student_transfer.py',
        cfg_options={
            **_base_.semi, **_base_.coco_metric, _base_.pseudo: '{pseudo_label_2.annotations}',
            'model.detector.backbone.init_cfg.checkpoint': '{dinov2}'
        }),
    dict(
        name='refine',
        kind='train',
        config='cityscapes/cityscapes_student_refine.py',
        load_from='{transfer.checkpoint}',
        cfg_options={**_base_.labeled, **official_metric}),
]

report = dict(
    images=12,
    ann_file='{data.val}',
    img_dir='{data.val_images}',
    score_thr=0.3,
    columns=[
        dict(
            title='teacher pseudo-labels',
            config='cityscapes/cityscapes_mask2former_adapt_self_training.py',
            checkpoint='{adapt_self_training.checkpoint}'),
        dict(
            title='student, transferred',
            config='cityscapes/cityscapes_student_transfer.py',
            checkpoint='{transfer.checkpoint}'),
        dict(
            title='student, refined',
            config='cityscapes/cityscapes_student_refine.py',
            checkpoint='{refine.checkpoint}'),
    ])
