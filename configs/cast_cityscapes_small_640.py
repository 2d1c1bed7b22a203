# As cast_cityscapes_small.py, at 640x320: for a GPU.
_base_ = './cast_cityscapes_small.py'
work_dir = 'work_dirs/cast_cityscapes_small_640'
variables = dict(data_root='data/cityscapes_320', height=320, num_queries=100)
queries, instances = 'model.detector.panoptic_head.num_queries', 'model.detector.test_cfg.max_per_image'
step_options = {
    queries: '{num_queries}', instances: '{num_queries}', 'model.detector.train_cfg.num_points': 12544}
# The toy's teacher has queries of its own.
steps = dict(zero_shot=dict(_base_.steps.zero_shot, _delete_=True, cfg_options={queries: 24, instances: 24}))
