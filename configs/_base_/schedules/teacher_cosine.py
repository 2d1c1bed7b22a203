# Adaptation of a foundation teacher on own images: the recipe's learning rates, with a cosine to a tenth, which
# suits any number of iterations.
_base_ = './teacher.py'
param_scheduler = [dict(type='CosineAnnealingLR', by_epoch=False, eta_min_ratio=0.1)]
