# The toy's small student, which a CPU trains in minutes. With a GPU and the public DINOv2 weights, inherit
# from cast_student.py instead.
_base_ = ['./toy_student.py', './tiled_nuclei.py']
model = dict(
    detector=_base_.tiled,
    pixel_contrast=dict(loss_weight=0.01))  # 0.1, the default, does worse here: docs/results.md
