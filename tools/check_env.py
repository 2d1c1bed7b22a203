"""Says what is installed, what is wrong, and what to type.

Exit status 1 where something needed is wrong.
"""

import argparse
import sys
from pathlib import Path

try:
    from mmcast.environment import check, look, print_report
except ModuleNotFoundError:  # not installed yet, which is a thing to report
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    from mmcast.environment import check, look, print_report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--json', action='store_true', help='print JSON in place of the table')
    args = parser.parse_args()
    report = check(look())
    if args.json:
        print(report.to_json())
    else:
        print_report(report)
    sys.exit(0 if report.ok else 1)


if __name__ == '__main__':
    main()
