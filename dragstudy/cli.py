"""The command `dragstudy`: edit | replay | study | fetch | curate | train | finetune | sweep | evaluate.

What a user gets wrong ends in exit code 2 and one line on stderr; `dragstudy.commands` has what each does.
"""

import argparse
import sys
from collections.abc import Sequence
from typing import NoReturn

from dragstudy import __version__
from dragstudy.commands.data import add_curate, add_fetch
from dragstudy.commands.edit import add_edit, add_replay
from dragstudy.commands.study import add_evaluate, add_study, add_sweep
from dragstudy.commands.train import add_finetune, add_train

COMMANDS = (  # in the order of --help
    add_edit,
    add_replay,
    add_study,
    add_fetch,
    add_curate,
    add_train,
    add_finetune,
    add_sweep,
    add_evaluate,
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: Arguments without the program's name; those of the process by default.

    Returns:
        The exit code: 0, 1 if a notebook failed or a replay differs, 2 if the user's input was refused.
    """
    args = _parser().parse_args(argv)
    try:
        return args.run(args)
    except (ValueError, OSError) as error:
        if args.traceback:
            raise
        print(f"dragstudy {args.command}: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="dragstudy", description="Drag-based image editing: edit, train, ablate, compare.")
    parser.add_argument("--version", action="version", version=f"dragstudy {__version__}")
    parser.add_argument("--traceback", action="store_true", help="show where an error comes from")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for add in COMMANDS:
        add(commands)
    return parser


if __name__ == "__main__":
    sys.exit(main())
