"""`dragstudy edit` and `replay`: one photograph, and a saved session once more."""

import argparse
from pathlib import Path

from dragstudy.commands.shared import add_set


def add_edit(commands) -> None:
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
    add_set(edit, "an argument of the pipeline, such as rounds=2, extra_points=4 or flow_guidance_scale=2.0")


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


def add_replay(commands) -> None:
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
