# The toy's teacher network; its foundation model, configs/dsb2018/weights/nuclei_teacher.pth, has seen
# synthetic nuclei of any stain and light.
_base_ = ['./toy_teacher.py', './tiled_nuclei.py']
model = dict(detector=_base_.tiled)
