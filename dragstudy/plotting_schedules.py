"""Figures of what changes from step to step of a sampling."""

from collections.abc import Mapping, Sequence
from typing import get_args

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from dragstudy.drags import DragInstruction
from dragstudy.guidance import GuidanceSchedule, ScheduleTime, guidance_weight, schedule_times
from dragstudy.plotting import CYCLE, MAX_WIDTH, METHOD_COLORS, AnyImage, _show, styled
from dragstudy.plotting_sheets import _draw_arrows, _zoom

MANY = 50  # more values than this are a line without dots
SCHEDULE_COLORS = dict(zip(get_args(GuidanceSchedule), CYCLE, strict=False))


@styled
def schedule_curves(
    samplings: Mapping[str, Sequence[int]],
    largest: float,
    *,
    num_train_timesteps: int = 1000,
    title: str = "",
) -> Figure:
    r"""Show the guidance schedules over time, and what each step of some samplings gets of them.

    The first panel has $\omega(\tau)$, sampling from left to right, $\tau$ from 1 to 0. Every other is a
    sampling: dots where time is read off the timestep, rings where off the step.

    Args:
        samplings: Timesteps by the label of their panel.
        largest: $\omega_\mathrm{max}$.
        num_train_timesteps: That the timesteps are counted in.
        title: The message.
    """
    count = 1 + len(samplings)
    size = min(MAX_WIDTH, 3.6 * count), 3.1
    fig, axes = plt.subplots(1, count, figsize=size, squeeze=False, sharey=True)
    fig.suptitle(title)
    for name, color in SCHEDULE_COLORS.items():
        times = np.linspace(1, 0, 101)
        weights = [guidance_weight(name, largest, time) for time in times]
        axes[0, 0].plot(times, weights, color=color, label=name.replace("_", " "))
        for ax, timesteps in zip(axes[0, 1:], samplings.values(), strict=True):
            for reading in get_args(ScheduleTime):
                known = schedule_times(timesteps, num_train_timesteps, reading)
                weights = [guidance_weight(name, largest, time) for time in known]
                look = {"markersize": 3} if reading == "timestep" else {"markersize": 6, "fillstyle": "none"}
                ax.plot(range(1, len(known) + 1), weights, "o", color=color, **look)
    axes[0, 0].set(xlim=(1, 0), xlabel=r"time $\tau$", ylabel=r"guidance scale $\omega$")
    fig.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=5)
    for ax, label in zip(axes[0, 1:], samplings, strict=True):
        ax.set(xlabel="step", title=label)
        ax.xaxis.get_major_locator().set_params(integer=True)
    return fig


@styled
def timestep_curves(
    functions: Mapping[str, Mapping[int, float]], ylabel: str, *, title: str = "", cleanest: int = 0
) -> Figure:
    """Show what is known at the timesteps of a few samplings, from noise at the left to the picture.

    Args:
        functions: By name, values by timestep.
        ylabel: Label of the vertical axis.
        title: The message.
        cleanest: Where the picture's side of the axis ends; the other ends at 1000.
    """
    fig, ax = plt.subplots(figsize=(5.8, 3.0))
    for name, values in functions.items():
        look = {"color": METHOD_COLORS[name]} if name in METHOD_COLORS else {}
        if len(values) <= MANY:
            look |= {"marker": "o", "markersize": 3}
        ax.plot(list(values), list(values.values()), label=name, **look)
    ax.set(xlim=(1000, cleanest), ylim=(0, None), xlabel="timestep", ylabel=ylabel, title=title)
    ax.legend()
    return fig


@styled
def guided_step(
    images: Mapping[str, AnyImage],
    schedule: str,
    largest: float,
    timesteps: Sequence[int],
    step: int,
    *,
    drags: Mapping[str, DragInstruction] | None = None,
    faces: Mapping[str, np.ndarray] | None = None,
    num_train_timesteps: int = 1000,
) -> Figure:
    """Show a step of a guided sampling: some images, and where it stands on its schedule among the others.

    Args:
        images: By what stands above them.
        schedule: The `GuidanceSchedule` of the sampling.
        largest: Its largest scale.
        timesteps: Those of the sampling.
        step: Which of them, counted from 1.
        drags: By the name of an image, what to draw on it.
        faces: By the name of an image, the landmarks `(68, 2)` that it is cropped around.
        num_train_timesteps: That the timesteps are counted in.
    """
    fig, axes = plt.subplots(1, len(images) + 1, figsize=(MAX_WIDTH, 0.4 + MAX_WIDTH / (len(images) + 1)))
    for ax, (name, image) in zip(axes, images.items(), strict=False):
        _show(ax, image, name)
        ax.axis("off")
        if drags and name in drags:
            _draw_arrows(ax, drags[name])
        if faces and name in faces:
            _zoom(ax, faces[name])
    known = schedule_times(timesteps, num_train_timesteps)
    for name, color in SCHEDULE_COLORS.items():
        look = {"color": color, "zorder": 3} if name == schedule else {"color": "#cccccc", "linewidth": 1}
        times = np.linspace(1, 0, 101)
        axes[-1].plot(times, [guidance_weight(name, largest, time) for time in times], **look)
    scales = [guidance_weight(schedule, largest, time) for time in known]
    axes[-1].plot(known, scales, "o", color=SCHEDULE_COLORS[schedule], markersize=4, zorder=4)
    ring = {"color": "black", "markersize": 9, "fillstyle": "none"}
    axes[-1].plot(known[step - 1], scales[step - 1], "o", zorder=5, **ring)
    label = f"{schedule.replace('_', ' ')}: ω = {scales[step - 1]:.2f} at step {step}"
    axes[-1].set(xlim=(1.05, -0.05), xlabel=r"time $\tau$", title=label)
    axes[-1].yaxis.set_major_formatter("{x:.1f}")  # of one width: nothing jumps from one step to the next
    return fig
