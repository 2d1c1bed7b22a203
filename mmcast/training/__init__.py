"""Single MMEngine runs: training, testing, hooks and optimisers."""
