"""The paper's Figure 3 on the toy: margin and true negatives over a transfer run, by weight of
L_pxl.

    python tools/train.py configs/cast_toy_pixel_weight.py
    python benchmarks/margin.py work_dirs/cast_toy_pixel_weight --out docs/images/toy_margin.png

Draws what PixelDiagnosticsHook logged in every step of the pipeline that has a pixel loss weight
among its options, and prints the mean of the last quarter of each run.
"""

import argparse
from pathlib import Path
from statistics import mean

from matplotlib.figure import Figure

from mmcast.cli.errors import report_errors
from mmcast.errors import CASTError
from mmcast.pipeline.plan import Plan
from mmcast.training.curves import read_curves

WEIGHT = 'model.pixel_contrast.loss_weight'
CONFIG = Path(__file__).parents[1] / 'configs/cast_toy_pixel_weight.py'


def curves_by_weight(plan: Plan, work_dir: Path) -> dict[float, dict]:
    """The logged curves of each step that sets the weight, which must have run."""
    found = {}
    for number, (name, step) in enumerate(plan.definitions.items(), 1):
        if WEIGHT in step.get('cfg_options', {}):
            folder = work_dir / f'{number:02d}_{name}'
            curves = read_curves(folder)
            if 'pxl_margin' not in curves:
                raise CASTError(
                    f'{folder} has no logged margin; run tools/train.py {plan.path} first'
                )
            found[step['cfg_options'][WEIGHT]] = curves
    return found


@report_errors
def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        'work_dir', type=Path, nargs='?', default=Path('work_dirs/cast_toy_pixel_weight')
    )
    parser.add_argument('--config', type=Path, default=CONFIG)
    parser.add_argument('--out', type=Path, default=Path('margin.png'), help='picture to write')
    args = parser.parse_args()
    runs = curves_by_weight(Plan(args.config), args.work_dir)

    figure = Figure(figsize=(9, 3.2), layout='constrained')
    margins, shares = figure.subplots(1, 2)
    for weight, curves in sorted(runs.items()):
        lines = dict(
            margin=curves['pxl_margin'], p=[(step, 1 - fnr) for step, fnr in curves['pxl_fnr']]
        )
        for axis, points in zip((margins, shares), lines.values()):
            axis.plot(*zip(*points), label=f'l_pxl {weight}', linewidth=1)
        late = {
            name: mean(value for _, value in points[-len(points) // 4 :])
            for name, points in lines.items()
        }
        print(
            f'l_pxl {weight}: margin {lines["margin"][0][1]:.3f} at first, {late["margin"]:.3f} in '
            f'the last quarter; p {late["p"]:.3f}, never under {min(p for _, p in lines["p"]):.3f}'
        )
    margins.set(xlabel='iteration', ylabel='margin')
    shares.set(xlabel='iteration', ylabel='p: true negatives of those sampled')
    margins.legend(fontsize='x-small')
    figure.savefig(args.out, dpi=120)
    print(args.out)


if __name__ == '__main__':
    main()
