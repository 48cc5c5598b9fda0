"""`dragstudy study`, `sweep` and `evaluate`: what fills `results/`."""

import argparse
from pathlib import Path

from dragstudy.commands.shared import add_places, add_set


def add_study(commands) -> None:
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
    add_set(study, "a parameter of every notebook that runs")


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


def add_sweep(commands) -> None:
    sweep = commands.add_parser("sweep", help="train and measure what an ablation compares; the same goes on")
    sweep.set_defaults(run=_sweep)
    sweep.add_argument("name", metavar="NAME", help="such as normalisation, or all; flowgen for a grid of it")
    sweep.add_argument(
        "--grid", action="append", default=[], metavar="NAME=[VALUES]", help="a parameter to vary; repeatable"
    )
    sweep.add_argument("--out", type=Path, metavar="DIR", help="folder of the trainings; sweeps share it")
    sweep.add_argument("--only", nargs="+", default=[], metavar="TRIAL", help="names, or parts of them")
    sweep.add_argument("--list", action="store_true", help="only list the trials, with minutes on one core")
    sweep.add_argument("--minutes", type=float, help="time budget")
    sweep.add_argument("--seeds", nargs="+", type=int, metavar="SEED", help="default: 0 1 2")
    sweep.add_argument("--data", type=Path, help="folder of pairs (default: the recipe `ablations`)")
    sweep.add_argument("--held-out", type=Path, metavar="DIR", help="pairs, split test (default: the frozen)")
    sweep.add_argument(
        "--otherwise", default="refuse", help="trainings by other code or data: refuse (default), anew, keep"
    )
    add_places(sweep)
    add_set(sweep, "a parameter of all trainings, such as steps=20, or of what is measured")


def _sweep(args: argparse.Namespace) -> int:
    from dragstudy.metrics import workers

    workers.set_threads(args.threads)  # before anything numerical is imported
    from dragstudy import ablations, sweeps
    from dragstudy._options import read_pairs

    if not args.list and args.out is None:
        raise ValueError("--out is needed: the folder of the trainings")
    options = {"data": args.data, "held_out": args.held_out, "changed": read_pairs(args.set)}
    options |= {"varied": read_pairs(args.grid)}
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


def add_evaluate(commands) -> None:
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
    add_places(evaluate)
    evaluate.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the results")
    evaluate.add_argument(
        "--weights", action="append", default=[], metavar="METHOD=NAME", help="a name, a folder or a hub id"
    )
    evaluate.add_argument("--device", help="such as cuda (default: where the weights are loaded)")
    evaluate.add_argument("--clip", default="", metavar="NAME", help="a CLIP model, to measure by that too")
    evaluate.add_argument("--pixels", action="store_true", help="measure pixels only, without networks")
    evaluate.add_argument("--anew", action="store_true", help="drop edits that were made otherwise")
    add_set(evaluate, "an argument of every row's call, such as num_inference_steps=10")


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
