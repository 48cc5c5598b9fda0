"""The command `dragstudy`: edit | replay | study | fetch | curate | train | finetune | sweep | evaluate.

What a user gets wrong ends in exit code 2 and one line on stderr. Everything heavy is imported by the command
that needs it, so that `dragstudy --help` is quick.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from dragstudy import __version__

OWN_SETTINGS = {"out", "seed", "minutes"}  # of the training loop: they have options of their own
CURATE_FLAGS = ("fps", "size", "crop", "max_interval", "pairs_per_clip", "estimator", "mask", "seed")


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
    for add in (
        _add_edit,
        _add_replay,
        _add_study,
        _add_fetch,
        _add_curate,
        _add_train,
        _add_finetune,
        _add_sweep,
        _add_evaluate,
    ):
        add(commands)
    return parser


def _add_set(command: argparse.ArgumentParser, what: str) -> None:
    command.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help=f"{what}; may be repeated"
    )


def _add_edit(commands) -> None:
    edit = commands.add_parser("edit", help="edit a photograph by drags")
    edit.set_defaults(run=_edit)
    edit.add_argument("photo", type=Path, help="any image that Pillow reads, of any size")
    drags = edit.add_mutually_exclusive_group(required=True)
    drags.add_argument(
        "--drag", action="append", metavar="X,Y:X,Y", help="from handle to target, px; may be repeated"
    )
    drags.add_argument(
        "--drags", type=Path, metavar="JSON", help="drags (and mask) as DragInstruction writes them"
    )
    edit.add_argument("--mask", type=Path, help="an image of the same size; white may change")
    edit.add_argument(
        "--method", default="instantdrag", help="instantdrag (default), or any that `load` knows"
    )
    edit.add_argument("--weights", default="tiny", help="a name, a folder or a hub id")
    edit.add_argument("--finetuned", type=Path, metavar="DIR", help="what `dragstudy finetune` made")
    edit.add_argument("--seed", type=int, default=0)
    edit.add_argument("--steps", type=int, help="denoising steps (default: the method's own)")
    edit.add_argument("--device", help="such as cuda (default: where the weights are loaded)")
    edit.add_argument("-o", "--out", type=Path, default=Path("out.png"), help="default: out.png")
    edit.add_argument("--flow-out", type=Path, metavar="PNG", help="the dense flow as a picture")
    _add_set(edit, "an argument of the pipeline, such as rounds=2, extra_points=4 or flow_guidance_scale=2.0")


def _edit(args: argparse.Namespace) -> int:
    import torch

    from dragstudy import _edit as editing
    from dragstudy._options import check_options, read_pairs
    from dragstudy.images import load_image

    for path in filter(None, (args.out, args.flow_out)):
        editing.check_picture_path(path)
    image = load_image(args.photo)
    given = {"drag": args.drag, "drags": args.drags, "mask": args.mask}
    drags = editing.read_drags(args.photo, image.size, **given)
    options = read_pairs(args.set)
    if args.steps is not None:
        options["num_inference_steps"] = args.steps
    known = editing.settable_arguments(args.method)
    options = check_options(options, known, f"--set cannot give {args.method}")
    generator = torch.Generator().manual_seed(args.seed)
    pipe = editing.load_silently(args.method, args.weights, args.device, args.finetuned)
    out = pipe(
        image,
        handle_points=drags.handle_points,
        target_points=drags.target_points,
        mask=drags.mask,
        generator=generator,
        **options,
    )
    if args.flow_out:
        if out.flow is None:
            raise ValueError(f"--flow-out: {args.method} makes no dense flow")
        editing.save_flow(out.flow[0], args.flow_out)
    out.images[0].save(args.out, quality=95)  # of a JPEG
    print(args.out)
    return 0


def _add_replay(commands) -> None:
    replay = commands.add_parser("replay", help="make the rounds of a saved session once more")
    replay.set_defaults(run=_replay)
    replay.add_argument("session", type=Path, metavar="JSON", help="what the editor or `save_session` wrote")
    replay.add_argument(
        "-o", "--out", type=Path, metavar="DIR", help="write the results there, under their names"
    )
    replay.add_argument("--device", help="such as cuda (default: where the weights are loaded)")


def _replay(args: argparse.Namespace) -> int:
    from dragstudy.widgets.session_files import picture_name, replay

    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
    different = 0
    for one in replay(args.session, args.device):
        name = picture_name(args.session, one.round.result)
        if args.out:
            one.image.save(args.out / name)
        different += not one.same
        outcome = "the same bytes" if one.same else "DIFFERENT from what was saved"
        print(f"{one.number}  {one.round.edit.method:<18} {name}  {outcome}", flush=True)
    return int(different > 0)


def _add_study(commands) -> None:
    study = commands.add_parser("study", help="run the notebooks and write results/")
    study.set_defaults(run=_study)
    study.add_argument("--profile", default="tiny", help="a file in notebooks/profiles/ (default: tiny)")
    study.add_argument(
        "--only", nargs="+", default=[], metavar="NOTEBOOK", help="names or numbers, such as 03"
    )
    study.add_argument("--force", action="store_true", help="run also what is up to date")
    study.add_argument("--jobs", type=int, metavar="N", help="notebooks that run at a time (default: 2)")
    study.add_argument(
        "--refresh", action="store_true", help="run with the notebooks' own parameters, keep outputs in them"
    )
    _add_set(study, "a parameter of every notebook that runs")


def _study(args: argparse.Namespace) -> int:
    from dragstudy import runs
    from dragstudy._notebooks import notebook_paths
    from dragstudy._options import read_pairs

    if args.refresh:
        for name in args.only or notebook_paths(runs.ROOT):
            print(name, flush=True)
            runs.refresh(name)
        return 0
    options = {"force": args.force, "overrides": read_pairs(args.set), "jobs": args.jobs}
    outcomes = runs.study(args.profile, args.only, **options)
    return int(any(outcome.status == "failed" for outcome in outcomes))


def _add_fetch(commands) -> None:
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


def _add_curate(commands) -> None:
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
    _add_set(curate, "any other field of CurateSettings")


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


def _add_train(commands) -> None:
    train = commands.add_parser("train", help="train one model; the same command goes on where it stopped")
    train.set_defaults(run=_train)
    train.add_argument("model", help="autoencoder, backbone, flowgen or flowdiffusion")
    train.add_argument("--data", type=Path, required=True, help="folder of pairs")
    train.add_argument("--out", type=Path, required=True, help="folder of weights, metrics and checkpoints")
    train.add_argument("--minutes", type=float, help="time budget")
    train.add_argument("--seed", type=int, default=0)
    _add_set(train, "an option of the training, such as batch_size=16")


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


def _add_finetune(commands) -> None:
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
    _add_set(finetune, "a field of FinetuneSettings, such as fps=20")


def _finetune(args: argparse.Namespace) -> int:
    from dragstudy._options import make_settings, read_pairs
    from dragstudy.training.finetune import FinetuneSettings, finetune

    settings = make_settings(FinetuneSettings, {"seed": args.seed} | read_pairs(args.set))
    start = {"method": args.method, "weights": args.weights}
    print(finetune(args.clip, args.out, settings, minutes=args.minutes, **start))
    return 0


def _add_sweep(commands) -> None:
    sweep = commands.add_parser("sweep", help="train and measure what an ablation compares; the same goes on")
    sweep.set_defaults(run=_sweep)
    sweep.add_argument("name", metavar="NAME", help="such as normalisation, or all")
    sweep.add_argument("--out", type=Path, metavar="DIR", help="folder of the trainings; sweeps share it")
    sweep.add_argument("--only", nargs="+", default=[], metavar="TRIAL", help="names, or parts of them")
    sweep.add_argument("--list", action="store_true", help="only list the trials, with minutes on one core")
    sweep.add_argument("--minutes", type=float, help="time budget")
    sweep.add_argument("--seeds", nargs="+", type=int, metavar="SEED", help="default: 0 1 2")
    sweep.add_argument("--data", type=Path, help="folder of pairs to train on (default: those of tiny)")
    sweep.add_argument("--held-out", type=Path, metavar="DIR", help="pairs, split test (default: the frozen)")
    sweep.add_argument(
        "--otherwise", default="refuse", help="trainings by other code or data: refuse (default), anew, keep"
    )
    _add_places(sweep)
    _add_set(sweep, "a parameter of all trainings, such as steps=20, or of what is measured")


def _sweep(args: argparse.Namespace) -> int:
    from dragstudy.metrics import workers

    workers.set_threads(args.threads)  # before anything numerical is imported
    from dragstudy import ablations, sweeps
    from dragstudy._options import read_pairs

    if not args.list and args.out is None:
        raise ValueError("--out is needed: the folder of the trainings")
    options = {"data": args.data, "held_out": args.held_out, "changed": read_pairs(args.set)}
    options |= {"seeds": args.seeds} if args.seeds else {}
    trials = sweeps.only(ablations.sweep(args.name, **options), args.only)
    if args.list:
        print(sweeps.listing(trials, args.out))
        return 0
    run = {"threads": args.threads, "minutes": args.minutes, "otherwise": args.otherwise}
    with workers.place(args.workers, args.scheduler, args.threads) as mapper:
        states = sweeps.run_trials(trials, args.out, mapper=mapper, **run)["state"]
    print(", ".join(f"{count} {state}" for state, count in states.value_counts().items()))
    return int((states == "failed").any())


def _add_places(command: argparse.ArgumentParser) -> None:
    command.add_argument("--workers", type=int, default=1, metavar="N", help="processes (default: 1)")
    command.add_argument("--scheduler", metavar="ADDRESS", help="of a dask cluster, in place of processes")
    command.add_argument("--threads", type=int, default=1, metavar="N", help="of each process (default: 1)")


def _add_evaluate(commands) -> None:
    evaluate = commands.add_parser("evaluate", help="measure methods on a benchmark; the same goes on")
    evaluate.set_defaults(run=_evaluate)
    evaluate.add_argument(
        "--methods", nargs="+", default=["main"], metavar="ROW", help="rows of the table, or main, all, ..."
    )
    evaluate.add_argument(
        "--benchmark", default="talking-head", metavar="NAME[:PATH]", help="default: talking-head"
    )
    evaluate.add_argument("--points", type=int, default=68, help="landmarks dragged: 68 (default), 17, 5, 1")
    evaluate.add_argument("--count", type=int, metavar="N", help="only N samples, spread evenly over all")
    evaluate.add_argument("--seeds", nargs="+", type=int, default=[0], metavar="SEED", help="default: 0")
    _add_places(evaluate)
    evaluate.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the results")
    evaluate.add_argument(
        "--weights", action="append", default=[], metavar="METHOD=NAME", help="a name, a folder or a hub id"
    )
    evaluate.add_argument("--device", help="such as cuda (default: where the weights are loaded)")
    evaluate.add_argument("--clip", default="", metavar="NAME", help="a CLIP model, to measure by that too")
    evaluate.add_argument("--pixels", action="store_true", help="measure pixels only, without networks")
    evaluate.add_argument("--anew", action="store_true", help="drop edits that were made otherwise")
    _add_set(evaluate, "an argument of every row's call, such as num_inference_steps=10")


def _evaluate(args: argparse.Namespace) -> int:
    from dragstudy.metrics import workers

    workers.set_threads(args.threads)  # before anything numerical is imported
    from functools import partial

    from dragstudy._edit import settable_arguments
    from dragstudy._options import check_options, read_pairs, split_pairs
    from dragstudy._results import markdown_table
    from dragstudy.data.edit_benchmarks import open_benchmark
    from dragstudy.metrics import comparison_tables
    from dragstudy.metrics.comparison import Settings, compare
    from dragstudy.metrics.measures import Tools, all_tools
    from dragstudy.metrics.rows import find_rows
    from dragstudy.pipelines import find_method

    rows, options, weights = find_rows(args.methods), read_pairs(args.set), split_pairs(args.weights)
    for method in weights:
        find_method(method)
    for row in rows:
        if row.method:
            options = check_options(options, settable_arguments(row.method), f"--set cannot give {row.name}")
    name, _, path = args.benchmark.partition(":")
    benchmark = open_benchmark(name, points=args.points, path=Path(path) if path else None, count=args.count)
    settings = Settings(weights, args.device, options, args.threads)
    place = workers.place(args.workers, args.scheduler, args.threads)
    tools = Tools if args.pixels else partial(all_tools, args.clip)
    shared = {"seeds": args.seeds, "settings": settings, "tools": tools}
    with place as mapper:
        frame = compare(rows, benchmark, args.out, mapper=mapper, anew=args.anew, **shared)
    table = comparison_tables.summary(frame)
    table.to_csv(args.out / "summary.csv", index=False)
    comparison_tables.set_distances(frame, args.out).to_csv(args.out / "sets.csv", index=False)
    print(markdown_table(comparison_tables.headline(table)), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
