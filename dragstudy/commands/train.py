"""`dragstudy train` and `finetune`."""

import argparse
from pathlib import Path

from dragstudy.commands.shared import add_set

OWN_SETTINGS = {"out", "seed", "minutes"}  # of the training loop: they have options of their own


def add_train(commands) -> None:
    train = commands.add_parser("train", help="train one model; the same command goes on where it stopped")
    train.set_defaults(run=_train)
    train.add_argument("model", help="autoencoder, backbone, flowgen or flowdiffusion")
    train.add_argument("--data", type=Path, required=True, help="folder of pairs")
    train.add_argument("--out", type=Path, required=True, help="folder of weights, metrics and checkpoints")
    train.add_argument("--minutes", type=float, help="time budget")
    train.add_argument("--seed", type=int, default=0)
    add_set(train, "an option of the training, such as batch_size=16")


def _train(args: argparse.Namespace) -> int:
    from typing import get_type_hints

    from dragstudy._options import check_options, keywords, read_pairs
    from dragstudy.training import TRAINABLE, LoopSettings, train

    options = read_pairs(args.set)
    if function := TRAINABLE.get(args.model):
        known = get_type_hints(LoopSettings) | {"limit": int} | keywords(function)
        known = {name: hint for name, hint in known.items() if name not in OWN_SETTINGS}
        options = check_options(options, known, f"{args.model} has no option")
        if missing := [name for name in keywords(function, required=True) if name not in options]:
            raise ValueError(f"{args.model} needs {' and '.join(f'--set {name}=...' for name in missing)}")
    print(train(args.model, args.data, args.out, minutes=args.minutes, seed=args.seed, **options))
    return 0


def add_finetune(commands) -> None:
    finetune = commands.add_parser("finetune", help="adapt a method to one short video; the same goes on")
    finetune.set_defaults(run=_finetune)
    finetune.add_argument("clip", type=Path, metavar="CLIP", help="a video of 10 to 60 seconds")
    finetune.add_argument(
        "--out", type=Path, required=True, help="folder of the result, for edit --finetuned"
    )
    finetune.add_argument(
        "--method", default="instantdrag-splat", help="instantdrag-splat (default) or instantdrag"
    )
    finetune.add_argument(
        "--weights", default="tiny", help="what to start from: a name, a folder or a hub id"
    )
    finetune.add_argument("--minutes", type=float, help="time budget of the training")
    finetune.add_argument("--seed", type=int, default=0)
    add_set(finetune, "a field of FinetuneSettings, such as fps=20")


def _finetune(args: argparse.Namespace) -> int:
    from dragstudy._options import make_settings, read_pairs
    from dragstudy.training.finetune import FinetuneSettings, finetune

    settings = make_settings(FinetuneSettings, {"seed": args.seed} | read_pairs(args.set))
    start = {"method": args.method, "weights": args.weights}
    print(finetune(args.clip, args.out, settings, minutes=args.minutes, **start))
    return 0
