# The toy's teacher network. An image of up to 150 nuclei is predicted window by window, with queries for those of one.
# Its foundation model, configs/dsb2018/weights/nuclei_teacher.pth, has seen drawn nuclei of any stain and light.
_base_ = './toy_teacher.py'

model = dict(
    detector=dict(
        panoptic_head=dict(
            num_things_classes=1,
            num_queries=48,
            # Windows drop doubles, so "no object" (usually 0.1) need not: docs/results.md has what it cost.
            loss_cls=dict(class_weight=[1.0, 0.01])),
        panoptic_fusion_head=dict(num_things_classes=1),
        train_cfg=dict(num_points=1024),
        test_cfg=dict(max_per_image=48, windows=dict(size=320, overlap=128))))
