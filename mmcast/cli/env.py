"""Says what is installed, what is wrong, and what to type.

Exit status 1 where something needed is wrong.
"""

import argparse

EXAMPLES = {
    'a table, and the commands that mend what is wrong': '{command}',
    'for a bug report': '{command} --json',
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('--json', action='store_true', help='print JSON in place of the table')


def run(args: argparse.Namespace) -> int:
    from mmcast.environment import check, look, print_report

    report = check(look())
    if args.json:
        print(report.to_json())
    else:
        print_report(report, again=args.parser.call.command)
    return 0 if report.ok else 1
