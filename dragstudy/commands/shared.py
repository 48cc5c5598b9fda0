"""Options that several commands take."""

import argparse


def add_set(command: argparse.ArgumentParser, what: str) -> None:
    command.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help=f"{what}; may be repeated"
    )


def add_places(command: argparse.ArgumentParser) -> None:
    command.add_argument("--workers", type=int, default=1, metavar="N", help="processes (default: 1)")
    command.add_argument("--scheduler", metavar="ADDRESS", help="of a dask cluster, in place of processes")
    command.add_argument("--threads", type=int, default=1, metavar="N", help="of each process (default: 1)")
