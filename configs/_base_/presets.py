# What a training step of a foundation teacher changes for a GPU of 16, 24 or 80 GB: options of a step config, as
# on the command line. All have bf16 and activation checkpointing, which the models' and schedules' configs have.
# Batches of 8, the recipe's, made of what fits. What they need: python benchmarks/memory.py.
presets = dict(
    grounded_sam={
        16: {'train_dataloader.batch_size': 2, 'optim_wrapper.accumulative_counts': 4},
        24: {'train_dataloader.batch_size': 2, 'optim_wrapper.accumulative_counts': 4},
        80: {'train_dataloader.batch_size': 4, 'optim_wrapper.accumulative_counts': 2},
    },
    sam3={
        16: {'train_dataloader.batch_size': 2, 'optim_wrapper.accumulative_counts': 4},
        24: {'train_dataloader.batch_size': 2, 'optim_wrapper.accumulative_counts': 4},
        80: {'train_dataloader.batch_size': 4, 'optim_wrapper.accumulative_counts': 2},
    })
