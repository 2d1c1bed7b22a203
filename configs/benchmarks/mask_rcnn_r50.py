# Mask R-CNN with ResNet-50 and FPN for eight classes, at random: what `mmcast benchmark` compares with the student.
num_classes = 8
strides = [4, 8, 16, 32]
box_roi = dict(
    type='SingleRoIExtractor', out_channels=256, featmap_strides=strides,
    roi_layer=dict(type='RoIAlign', output_size=7, sampling_ratio=0))
mask_roi = dict(box_roi, roi_layer=dict(type='RoIAlign', output_size=14, sampling_ratio=0))
roi_head = dict(
    type='StandardRoIHead', bbox_roi_extractor=box_roi, mask_roi_extractor=mask_roi,
    bbox_head=dict(
        type='Shared2FCBBoxHead', in_channels=256, fc_out_channels=1024, roi_feat_size=7,
        num_classes=num_classes,
        bbox_coder=dict(type='DeltaXYWHBBoxCoder', target_stds=(0.1, 0.1, 0.2, 0.2)),
        loss_cls=dict(type='CrossEntropyLoss'), loss_bbox=dict(type='L1Loss')),
    mask_head=dict(
        type='FCNMaskHead', num_convs=4, in_channels=256, conv_out_channels=256, num_classes=num_classes,
        loss_mask=dict(type='CrossEntropyLoss', use_mask=True)))
anchors = dict(type='AnchorGenerator', scales=[8], ratios=[0.5, 1.0, 2.0], strides=[*strides, 64])
rpn_head = dict(
    type='RPNHead', in_channels=256, feat_channels=256, anchor_generator=anchors,
    bbox_coder=dict(type='DeltaXYWHBBoxCoder'),
    loss_cls=dict(type='CrossEntropyLoss', use_sigmoid=True), loss_bbox=dict(type='L1Loss'))
model = dict(
    type='MaskRCNN',
    data_preprocessor=dict(
        type='DetDataPreprocessor', mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True, pad_size_divisor=32),
    backbone=dict(type='ResNet', depth=50, out_indices=(0, 1, 2, 3), norm_eval=True, style='pytorch'),
    neck=dict(type='FPN', in_channels=[256, 512, 1024, 2048], out_channels=256, num_outs=5),
    rpn_head=rpn_head, roi_head=roi_head, train_cfg=None,
    # No score is too low: untrained or not, it segments 100 instances, as many as the others in the table.
    test_cfg=dict(
        rpn=dict(nms_pre=1000, max_per_img=1000, nms=dict(type='nms', iou_threshold=0.7), min_bbox_size=0),
        rcnn=dict(
            score_thr=0.0, nms=dict(type='nms', iou_threshold=0.5), max_per_img=100, mask_thr_binary=0.5)))
