# SAM3 as the teacher: finds the instances of every class by its name and segments them, 840 M parameters.
# Where the weights come from: docs/teacher.md.
model = dict(
    type='CASTDetector',
    detector=dict(
        type='SAM3',
        classes=None,  # the step configs put the data set's here
        prompts=None,  # other words than the names: dict(motorcycle=['motorbike', 'scooter'])
        tokenizer='weights/sam3',
        image_size=1008,
        geometry_token=False,  # True: as Meta's own network reads a text, see docs/teacher.md
        frozen=('text_encoder', ),
        texts_per_image=8,
        absent_texts=2,
        masks_per_image=32,
        activation_checkpointing=True,
        test_cfg=dict(score_thr=0.05, max_per_img=100),
        data_preprocessor=dict(
            type='DetDataPreprocessor', pad_mask=True, mask_pad_value=0,
            mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], bgr_to_rgb=True)),
    # The neck's map of stride 14 of the square, to the paper's stride of 28.
    pixel_contrast=dict(type='PixelContrast', in_channels=256, pool=2, loss_weight=0.1))
