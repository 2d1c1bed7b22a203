# As cast_cityscapes.py with another teacher: mmdet's Mask2Former Swin-L, pretrained on COCO. Its classes are
# COCO's, so there is no zero-shot teacher. The two weights files: docs/teacher.md.
_base_ = './_base_/pipelines/cast.py'
work_dir = 'work_dirs/cast_cityscapes_mask2former'
swin_l = 'mask2former_swin-l-p4-w12-384-in21k_16xb1-lsj-100e_coco-panoptic_20220407_104949-82f8d28d.pth'
variables = dict(
    data_root='data/cityscapes',
    teacher='cityscapes/cityscapes_mask2former',
    student='cityscapes/cityscapes_student',
    foundation_teacher='weights/' + swin_l,
    dinov2='weights/dinov2_vits14_pretrain.pth')
steps = dict(
    data=dict(function='mmcast.coco.converters.cityscapes.prepare_cityscapes'),
    zero_shot=None,
    transfer=dict(
        load_from=None, cfg_options={'model.detector.backbone.init_cfg.checkpoint': '{dinov2}'}))
