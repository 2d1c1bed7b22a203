# What a training step of a foundation teacher changes for a GPU of 16, 24 or 80 GB: options of a step config, as
# on the command line. All have bf16 and activation checkpointing, which the configs of schedules and models have,
# and the recipe's batch of 8 of what fits. Iterations count forward passes: who accumulates gradients multiplies
# them, as cast_custom_foundation.py does. `python benchmarks/memory.py` computes what they need.
presets = dict(
    grounded_sam={
        16: {
            'model.lora': dict(rank=4), 'model.detector.sam2.boxes_per_chunk': 8,
            'model.detector.grounding_dino.train_box_scales': [(1000, side) for side in range(480, 601, 24)],
            'train_dataloader.batch_size': 2, 'optim_wrapper.accumulative_counts': 4},
        24: {
            'model.detector.sam2.boxes_per_chunk': 16, 'train_dataloader.batch_size': 2,
            'optim_wrapper.accumulative_counts': 4},
        80: {'train_dataloader.batch_size': 8, 'optim_wrapper.accumulative_counts': 1},
    },
    sam3={
        16: {
            'model.lora': dict(rank=4), 'train_dataloader.batch_size': 2,
            'optim_wrapper.accumulative_counts': 4},
        24: {'train_dataloader.batch_size': 2, 'optim_wrapper.accumulative_counts': 4},
        80: {'train_dataloader.batch_size': 8, 'optim_wrapper.accumulative_counts': 1},
    })
