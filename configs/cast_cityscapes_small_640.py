# As cast_cityscapes_small.py, at 640x320: for a GPU.
_base_ = './cast_cityscapes_small.py'
work_dir = 'work_dirs/cast_cityscapes_small_640'
variables = dict(data_root='data/cityscapes_320', height=320, num_queries=100)
step_options = {
    'model.detector.panoptic_head.num_queries': '{num_queries}',
    'model.detector.train_cfg.num_points': 12544,
    'model.detector.test_cfg.max_per_image': '{num_queries}'}
# The toy's teacher has its own.
steps = dict(zero_shot=dict(cfg_options={
    'model.detector.panoptic_head.num_queries': 24, 'model.detector.test_cfg.max_per_image': 24}))
