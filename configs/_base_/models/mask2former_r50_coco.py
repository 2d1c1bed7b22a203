# Another student: Mask2Former R-50 as mmdet released it, trained on COCO with its mask head; 44 M parameters.
# Every module and name is mmdet's (mask2former_r50_8xb2-lsj-50e_coco.py of 3.x), so that its file fits but for
# the class head; fit_coco_student makes start weights of it. Where it is to be had: docs/teacher.md.
_base_ = './mask2former_swin_l.py'
resnet = dict(
    type='ResNet', depth=50, num_stages=4, out_indices=(0, 1, 2, 3), frozen_stages=-1,
    norm_cfg=dict(type='BN', requires_grad=False), norm_eval=True, style='pytorch')
model = dict(
    detector=dict(
        backbone=dict(resnet, _delete_=True),
        panoptic_head=dict(in_channels=[256, 512, 1024, 2048], num_queries=100)),
    pixel_contrast=dict(in_channels=2048, hidden_dims=512))  # stride 32
