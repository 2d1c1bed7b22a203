# The method on images of one's own: what the data decide, put into the step configs.
_base_ = './cast.py'
variables = dict(
    val=None, classes=None, image_size=None, window=None, crop_size=256, labeled_images=None, val_images=None,
    crowd_as_instances=False, max_queries=300, value_range=None,
    teacher_encoder=None, student_encoder=None)
datasets = dict(
    _delete_=True,  # a dict cannot be merged into the base's string
    labeled='{data.labeled}', train_images='{data.train_images}',
    unlabeled='{data.unlabeled}', unlabeled_images='{data.unlabeled_images}',
    val='{data.val}', val_images='{data.val_images}', classes='{data.classes}',
    transforms=dict(
        LoadImage=dict(value_range='{value_range}'),
        Resize=dict(scale=('{plan.long}', '{plan.short}')),
        RandomResize=dict(scale=('{plan.long}', '{plan.short}')),
        RandomCrop=dict(crop_size=('{plan.crop}', '{plan.crop}'))))
step_options = {
    'model.detector.panoptic_head.num_things_classes': '{data.num_classes}',
    'model.detector.panoptic_head.num_queries': '{plan.num_queries}',
    'model.detector.panoptic_head.loss_cls.class_weight': '{plan.class_weight}',
    'model.detector.panoptic_fusion_head.num_things_classes': '{data.num_classes}',
    'model.detector.test_cfg.max_per_image': '{plan.num_queries}',
    'model.detector.test_cfg.windows': '{plan.windows}',
    'val_evaluator.max_dets': '{plan.max_dets}',
    'test_evaluator.max_dets': '{plan.max_dets}',
}
paths = dict(
    data_root='{data_root}', labeled='{labeled}', unlabeled='{unlabeled}', val='{val}',
    labeled_images='{labeled_images}', val_images='{val_images}')
steps = dict(
    data=dict(
        function='mmcast.coco.custom.prepare_custom_data',
        kwargs=dict(
            paths, _delete_=True, classes='{classes}', seed='{seed}', out_dir='{work_dir}/01_data',
            crowd_as_instances='{crowd_as_instances}', value_range='{value_range}')),
    plan=dict(
        kind='call',
        function='mmcast.pipeline.custom_plan.plan_sizes',
        kwargs=dict(
            out_dir='{work_dir}/02_plan', labeled='{data.labeled}', val='{data.val}',
            unlabeled='{data.unlabeled}', classes='{data.classes}',
            configs=['{teacher}_adapt_labeled.py', '{student}_transfer.py'], config_dir='{config_dir}',
            crop_size='{crop_size}', max_queries='{max_queries}',
            given=dict(image_size='{image_size}', window='{window}'))),
    start=dict(
        kind='call',
        function='mmcast.models.weights.start.fit_start_weights',
        kwargs=dict(
            out_dir='{work_dir}/03_start', num_queries='{plan.num_queries}', seed='{seed}',
            teacher='{teacher_weights}', student='{student_weights}',
            configs=dict(teacher='{teacher}_adapt_labeled.py', student='{student}_transfer.py'),
            encoders=dict(teacher='{teacher_encoder}', student='{student_encoder}'),
            config_dir='{config_dir}')),
    zero_shot=None)
