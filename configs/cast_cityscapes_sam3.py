# As cast_cityscapes.py with another teacher: SAM3. Its weights are gated: docs/teacher.md.
_base_ = './_base_/pipelines/cast.py'
work_dir = 'work_dirs/cast_cityscapes_sam3'
variables = dict(
    data_root='data/cityscapes',
    teacher='cityscapes/cityscapes_sam3',
    student='cityscapes/cityscapes_student',
    sam3='weights/sam3',  # a folder with the weights; or a file, or a name on Hugging Face
    tokenizer='weights/sam3',
    dinov2='weights/dinov2_vits14_pretrain.pth',
    foundation_teacher='{start.teacher}',
    teacher_options={'model.detector.tokenizer': '{start.tokenizer}'})
steps = dict(
    data=dict(function='mmcast.coco.converters.cityscapes.prepare_cityscapes'),
    start=dict(
        kind='call',
        function='mmcast.models.teacher.sam3_weights.prepare_sam3_weights',
        kwargs=dict(
            out_dir='{work_dir}/start', sam3='{sam3}', tokenizer='{tokenizer}', dinov2='{dinov2}')),
    zero_shot=dict(config='cityscapes/cityscapes_sam3_zero_shot.py'),
    transfer=dict(
        load_from=None, cfg_options={'model.detector.backbone.init_cfg.checkpoint': '{start.dinov2}'}))
