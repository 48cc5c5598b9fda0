"""Figures of what changes from step to step of a sampling."""

from collections.abc import Mapping, Sequence
from typing import get_args

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from dragstudy.guidance import GuidanceSchedule, ScheduleTime, guidance_weight, schedule_times
from dragstudy.plotting import CYCLE, MAX_WIDTH, METHOD_COLORS, styled

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
