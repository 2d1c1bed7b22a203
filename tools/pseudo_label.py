"""Let a teacher label images. Interrupted, the same command goes on where it stopped."""
import argparse
import json

from mmengine.config import Config, DictAction

from mmcast.command_line import report_errors
from mmcast.pseudo_labels import generate_pseudo_labels


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config of the teacher: its model and test pipeline')
    parser.add_argument('checkpoint', help='weights of the teacher')
    parser.add_argument('--out', required=True, help='COCO JSON to make')
    parser.add_argument('--ann-file', help='COCO JSON that lists the images; default that of the test set')
    parser.add_argument('--img-dir', help='folder of the images; default that of the test set')
    parser.add_argument('--score-floor', type=float, default=0.05,
                        help='store masks with a score above (default 0.05)')
    parser.add_argument('--device', help='cpu, cuda, cuda:1 ...; default the accelerator if there is one')
    parser.add_argument('--limit', type=int, help='only the first so many images')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, default={}, metavar='KEY=VALUE',
                        help='changes to the config')
    return parser.parse_args()


@report_errors
def main() -> None:
    args = parse_args()
    cfg = Config.fromfile(args.config)
    cfg.merge_from_dict(args.cfg_options)
    summary = generate_pseudo_labels(cfg, args.checkpoint, args.out, ann_file=args.ann_file,
                                     img_dir=args.img_dir, score_floor=args.score_floor, device=args.device,
                                     limit=args.limit)
    print(json.dumps(summary, indent=2))


if __name__ == '__main__':
    main()
