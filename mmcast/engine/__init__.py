"""Everything that knows about a Runner: single runs, pipelines of steps, and their report."""
from .pipeline import run_pipeline
from .single import test, train

__all__ = ['run_pipeline', 'test', 'train']
