"""The table at the end of a pipeline."""

import json
import math
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from mmcast.files import write_atomically
from mmcast.pipeline.pipeline import PipelineRun
from mmcast.pipeline.state import PipelineState
from mmcast.training.curves import not_finite

# Key of a row -> what stands above it.
COLUMNS = dict(
    row='',
    mask_ap='mask AP',
    mask_ap50='AP50',
    parameters='parameters (M)',
    minutes='minutes',
    note='',
)


def summary_rows(run: PipelineRun) -> list[dict]:
    """The rows of a pipeline's summary.

    Returns:
        Dicts with row, step, mask_ap and mask_ap50 (percent), parameters (millions, deployed
        model), minutes (of the step's last start) and note; None for what is not known (yet).
    """
    return [_row(run.state, item['row'], item['step']) for item in run.plan.rows]


def _row(state: PipelineState, title: str, name: str) -> dict:
    row = dict(
        row=title, step=name, mask_ap=None, mask_ap50=None, parameters=None, minutes=None, note=''
    )
    if not state.finished(name):
        row['note'] = 'not finished'
        return row
    record = state.records[name]
    row['mask_ap'] = _percent(record['metrics'], 'segm_mAP')
    row['mask_ap50'] = _percent(record['metrics'], 'segm_mAP_50')
    if record['parameters'] is not None:
        row['parameters'] = round(record['parameters'] / 1e6, 2)
    row['minutes'] = round(record['seconds'] / 60, 2)
    broken = [key for key, value in record['metrics'].items() if not math.isfinite(value)]
    broken += not_finite(state.folder(name))
    notes = [f'not finite: {", ".join(broken)}'] if broken else []
    row['note'] = '; '.join(notes + (['resumed'] if record['resumed'] else []))
    return row


def _percent(metrics: dict[str, float], ending: str) -> float | None:
    """The metric with this name, whatever the evaluator's prefix, in percent as papers print it."""
    for key, value in metrics.items():
        if key.split('/')[-1] == ending:
            return round(100 * value, 2) if math.isfinite(value) else None
    return None


def write_summary(work_dir: Path, rows: list[dict]) -> str:
    """Saves summary.txt and summary.json and returns the text of the table."""
    table = Table(*COLUMNS.values())
    for row in rows:
        table.add_row(*(Text(cell(row[key])) for key in COLUMNS))  # a name may have [ in it
    console = Console(width=120, color_system=None)
    with console.capture() as capture:
        console.print(table)
    write_atomically(work_dir / 'summary.txt', capture.get())
    write_atomically(work_dir / 'summary.json', json.dumps(rows, indent=1))
    return capture.get()


def cell(value: str | float | None) -> str:
    """A value as it stands in the table; '-' for an unknown one."""
    return '-' if value is None else value if isinstance(value, str) else f'{value:.1f}'
