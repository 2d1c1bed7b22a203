# How much pixel loss: the transfer step of cast_toy.py with several weights, same start and pseudo-labels.
# The report has margin and false negatives of each; `python benchmarks/margin.py` draws them in one picture.
_base_ = './cast_toy.py'
work_dir = 'work_dirs/cast_toy_pixel_weight'
# 'none' is so little that not even Adam moves the projector; at 0 there would be no embeddings to measure.
weights = dict(low=0.01, usual=0.1, high=0.5, higher=3.0, highest=15.0, none=1e-12)
intervals = {'custom_hooks.0.interval': 25, 'default_hooks.logger.interval': 25}
steps = dict(transfer=None, refine=None, thresholds_2=dict(used_by='transfer_usual')) | {
    f'transfer_{name}': dict(
        _base_.steps.transfer, cfg_options={'model.pixel_contrast.loss_weight': weight, **intervals})
    for name, weight in weights.items()}
summary = {f'transfer_{name}': f'student, transferred, l_pxl {weight}' for name, weight in weights.items()}
report = dict(columns=[
    dict(title=f'student, l_pxl {weight}', step=f'transfer_{name}') for name, weight in weights.items()])
