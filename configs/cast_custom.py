# The whole method on your own images: set the first four values, here or with --cfg-options variables.NAME=VALUE.
# docs/own_data.md walks through it.
work_dir = 'work_dirs/cast_custom'
seed = 0
variables = dict(
    data_root='data/my_data',
    labeled='annotations.json',  # COCO JSON with masks, relative to data_root as all paths here
    unlabeled='unlabeled',  # a folder of images, or a COCO JSON
    classes=None,  # names to learn; None: all that the labels have
    val=None,  # COCO JSON; None: a fifth of the labeled images
    image_size=256,  # the short side in pixels that training and tests resize to
    foundation_teacher='{config_dir}/toy/weights/toy_teacher.pth',
    pretrained_student='{config_dir}/toy/weights/toy_student.pth')

# What the data decide, put into the step configs.
common = {
    'model.detector.panoptic_head.num_things_classes': '{data.num_classes}',
    'model.detector.panoptic_head.num_queries': '{data.num_queries}',
    'model.detector.panoptic_head.loss_cls.class_weight': '{data.class_weight}',
    'model.detector.panoptic_fusion_head.num_things_classes': '{data.num_classes}',
    'model.detector.test_cfg.max_per_image': '{data.num_queries}',
    **{
        f'{loader}.dataset.{key}': value
        for loader in ('val_dataloader', 'test_dataloader') for key, value in {
            'metainfo.classes': '{data.classes}',
            'ann_file': '{data.val}',
            'data_prefix.img': '{data.val_images}',
            'pipeline.1.scale': (2000, '{image_size}'),
        }.items()
    },
    **{
        f'{evaluator}.{key}': value
        for evaluator in ('val_evaluator', 'test_evaluator') for key, value in {
            'ann_file': '{data.val}',
            'proposal_nums': (100, 1, '{data.num_queries}'),
        }.items()
    },
}
sources = {
    'train_dataloader.dataset': ('{data.labeled}', '{data.train_images}'),
    'train_dataloader.dataset.datasets.0': ('{data.labeled}', '{data.train_images}'),
    'train_dataloader.dataset.datasets.1': (None, '{data.unlabeled_images}'),
}
training = {
    dataset: {
        f'{dataset}.metainfo.classes': '{data.classes}',
        f'{dataset}.data_prefix.img': folder,
        f'{dataset}.pipeline.2.scale': (2000, '{image_size}'),
        f'{dataset}.pipeline.3.crop_size': ('{image_size}', '{image_size}'),
        **({f'{dataset}.ann_file': ann_file} if ann_file else {}),
    }
    for dataset, (ann_file, folder) in sources.items()
}
labeled = {**common, **training['train_dataloader.dataset']}
semi = {
    **common,
    **training['train_dataloader.dataset.datasets.0'],
    **training['train_dataloader.dataset.datasets.1'],
}
pseudo = 'train_dataloader.dataset.datasets.1.ann_file'

steps = [
    dict(
        name='data',
        kind='call',
        function='mmcast.datasets.own_data.prepare',
        kwargs=dict(
            data_root='{data_root}',
            labeled='{labeled}',
            unlabeled='{unlabeled}',
            classes='{classes}',
            val='{val}',
            seed='{seed}',
            out_dir='{work_dir}/01_data')),
    dict(
        name='start',
        kind='call',
        function='mmcast.models.start_weights.prepare',
        kwargs=dict(
            out_dir='{work_dir}/02_start',
            num_queries='{data.num_queries}',
            teacher='{foundation_teacher}',
            student='{pretrained_student}')),
    dict(
        name='adapt_labeled',
        kind='train',
        config='custom/custom_teacher_adapt_labeled.py',
        load_from='{start.teacher}',
        cfg_options=labeled),
    dict(
        name='pseudo_label_1',
        kind='pseudo_label',
        config='custom/custom_teacher_adapt_labeled.py',
        checkpoint='{adapt_labeled.checkpoint}',
        ann_file='{data.unlabeled}',
        img_dir='{data.unlabeled_images}',
        cfg_options=common),
    dict(
        name='adapt_self_training',
        kind='train',
        config='custom/custom_teacher_adapt_self_training.py',
        load_from='{start.teacher}',
        cfg_options={**semi, pseudo: '{pseudo_label_1.annotations}'}),
    dict(
        name='pseudo_label_2',
        kind='pseudo_label',
        config='custom/custom_teacher_adapt_self_training.py',
        checkpoint='{adapt_self_training.checkpoint}',
        ann_file='{data.unlabeled}',
        img_dir='{data.unlabeled_images}',
        cfg_options=common),
    dict(
        name='transfer',
        kind='train',
        config='custom/custom_student_transfer.py',
        load_from='{start.student}',
        cfg_options={**semi, pseudo: '{pseudo_label_2.annotations}'}),
    dict(
        name='refine',
        kind='train',
        config='custom/custom_student_refine.py',
        load_from='{transfer.checkpoint}',
        cfg_options=labeled),
]

summary = [
    dict(row='teacher, adapted on labels (1a)', step='adapt_labeled'),
    dict(row='teacher, self-trained (1b)', step='adapt_self_training'),
    dict(row='student, transferred (2)', step='transfer'),
    dict(row='student, refined (3)', step='refine'),
]

report = dict(
    images=12,
    ann_file='{data.val}',
    img_dir='{data.val_images}',
    score_thr=0.3,
    columns=[
        dict(
            title='teacher pseudo-labels',
            config='custom/custom_teacher_adapt_self_training.py',
            checkpoint='{adapt_self_training.checkpoint}',
            cfg_options=common),
        dict(
            title='student, transferred',
            config='custom/custom_student_transfer.py',
            checkpoint='{transfer.checkpoint}',
            cfg_options=common),
        dict(
            title='student, refined',
            config='custom/custom_student_refine.py',
            checkpoint='{refine.checkpoint}',
            cfg_options=common),
    ])

# What the card of the exported student says beside what it finds out by itself.
model_card = dict(
    licences={
        'toy_teacher.pth': 'Apache-2.0, made by mmcast',
        'toy_student.pth': 'Apache-2.0, made by mmcast',
    })
