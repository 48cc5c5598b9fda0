"""The commands: `add_X(commands)` says what X takes; `_X(args)` does it and gives the exit code.

Everything heavy is imported by the command that needs it, so that `dragstudy --help` is quick.
"""
