"""The verbs of `gessl data`, thin; each imports only what it needs."""

import argparse

from gessl.errors import printable
from gessl.layout import WORK


def data_add(options: argparse.Namespace) -> None:
    from gessl.data.own.command import add

    for line in add(options):
        print(printable(line))


def data_list(options: argparse.Namespace) -> None:
    from gessl.data.overview import overview

    for line in overview():
        print(printable(line))


def data_verify(options: argparse.Namespace) -> int:
    from gessl.data.overview import overlaps, verified

    failed = 0
    for name, problem in verified(options.dataset):
        print(printable(f"✗ {problem}" if problem else f"✓ {name}: as pinned"))
        for line in overlaps(name):
            print(printable(f"  {line}"))
        failed += bool(problem)
    return int(failed > 0)


def data_show(options: argparse.Namespace) -> None:
    from gessl.data.show import show as run
    from gessl.grid.policies import view_policy

    out = options.out or WORK / "show" / f"{options.dataset}.html"
    run(options.dataset, view_policy(options.views) if options.views else (), out)
    print(out)
