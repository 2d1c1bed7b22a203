# The student for the 100 instance classes of ADE20K.
_base_ = './cast_student.py'
num_classes = 100
model = dict(
    detector=dict(
        panoptic_head=dict(
            num_things_classes=num_classes,
            loss_cls=dict(class_weight=[1.0] * num_classes + [0.1])),
        panoptic_fusion_head=dict(num_things_classes=num_classes)))
