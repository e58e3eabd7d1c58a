"""The same robot twice, answers taking 150 ms: it waits for each chunk, and it does not. One picture, one animation.

Usage:
    policyserve serve demo_flow
    python examples/realtime_vs_sync.py

A point follows a slow curve and passes an obstacle every 3 s, left or right of it. First it moves as openpi's
ActionChunkBroker has it: half of each chunk is executed, then it stands still until the next one is there. Then in
real time: it asks as soon as the last answer is there, moves on meanwhile, and tells the policy which actions will
have run. Answers are asked for over the wire; when they come is virtual, so that each run is the same.
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from PIL import Image  # noqa: TID253

import policyserve
from policyserve.policies.demo_flow.scene import CONTROL_HZ, Scene, ways
from policyserve.realtime.settings import RealtimeSettings
from policyserve.realtime.smoothness import Smoothness
from policyserve.realtime.virtual import VirtualRealtime

SYNC_ROWS = 25  # of 50, as openpi's examples have it
WAITING, MOVING, PAUSE, WAY, BLOCK = "#d9822b", "#2a6fbb", "#ca3c25", "0.78", "0.35"
NAMES = {WAITING: "waits for each chunk", MOVING: "real time"}
FRAME_STEPS = 4  # of 20 ms, from one frame of the animation to the next
BEHIND_S, AHEAD_S = 2.2, 1.3  # what a frame shows


@dataclass
class Run:
    """What a robot did, a value for each step. off_m: from the nearer right way. age_s: of the action's observation."""

    scene: Scene
    colour: str
    smoothness: Smoothness = field(default_factory=Smoothness)
    positions: list[Any] = field(default_factory=list)
    ages_s: list[float] = field(default_factory=list)
    is_pause: list[bool] = field(default_factory=list)
    seams: list[int] = field(default_factory=list)
    off_m: list[float] = field(default_factory=list)

    def step(self, position: Any, action: Any, age_s: float, is_pause: bool, has_joined: bool) -> Any:
        """The robot is sent an action; returns where it is then."""
        number = len(self.positions)
        self.smoothness.sent(action, "hold" if is_pause else "chunk", age_s, has_joined)
        position = self.scene.moved(position, action)
        self.positions.append(position)
        self.ages_s.append(age_s)
        self.is_pause.append(is_pause)
        self.off_m.append(self.scene.error(number, position))
        self.seams += [number] if has_joined and number else []
        return position

    def told(self) -> str:
        """Its figures, in a line; the jumps, of which 95 in 100 are smaller, by the policy's own step."""
        figures = self.smoothness.figures()
        still = 100 * figures.starved_steps / figures.steps
        off_cm = 100 * float(np.sqrt(np.mean(np.square(self.off_m))))
        where = f"{off_cm:.0f} cm off its way, jumps at seams {figures.seam_p95 or 0:.1f} ×"
        return f"stands still {still:.0f} %, actions {1e3 * np.mean(self.ages_s):.0f} ms old, {where}"


def waiting(client: policyserve.Client, scene: Scene, steps: int, latency_s: float) -> Run:
    """Ask, stand still until the answer is there, execute half of it, ask again."""
    run, position, last = Run(scene, WAITING), scene.start, scene.start
    pause = round(latency_s * CONTROL_HZ)
    while len(run.positions) < steps:
        asked_at = len(run.positions)
        chunk = client.infer(scene.observation(asked_at, position)).actions
        run.smoothness.chunk(chunk)
        for number in range(pause if asked_at else 0):  # the first answer is there when the robot begins
            age_s = run.ages_s[asked_at - 1] + (number + 1) / CONTROL_HZ
            position = run.step(position, last, age_s, True, False)
        for number, last in enumerate(chunk[:SYNC_ROWS]):
            age_s = (len(run.positions) - asked_at) / CONTROL_HZ
            position = run.step(position, last, age_s, False, number == 0)
            if len(run.positions) == steps:
                break
    return run


def moving(client: policyserve.Client, scene: Scene, steps: int, latency_s: float) -> Run:
    """Move on while the policy is asked."""
    client.connect()
    settings = RealtimeSettings(CONTROL_HZ)
    realtime = VirtualRealtime(settings, itertools.repeat(latency_s), client.metadata)
    run, position = Run(scene, MOVING), scene.start
    for number in range(steps):
        ask = realtime.ask(scene.observation(number, position))
        if ask is not None:
            reply = client.infer(ask.observation)
            run.smoothness.chunk(reply.actions)
            realtime.answer(ask, reply.actions, reply)
        (action, source, age_s, _), has_joined = realtime.act()
        position = run.step(position, action, age_s, source == "hold", has_joined)
    return run


def draw_picture(runs: list[Run], latency_ms: float, path: Path) -> None:
    """Both ways through the obstacles over time, where the robot stood still, and how old its actions were."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.6, 7.2), layout="constrained")
    *upper, last = figure.subplots(3, 1, sharex=True, gridspec_kw={"height_ratios": (3, 3, 2)})
    seconds = np.arange(len(runs[0].positions)) / CONTROL_HZ
    for axes, run in zip(upper, runs, strict=True):
        draw_ways(axes, run, seconds)
        y = np.array(run.positions)[:, 1]
        axes.plot(seconds, y, color=run.colour, linewidth=2)
        axes.plot(seconds[run.seams], y[run.seams], "o", color=run.colour, markersize=4)
        for first, end in pauses(run):
            axes.axvspan(first / CONTROL_HZ, end / CONTROL_HZ, color=PAUSE, alpha=0.18, linewidth=0)
        axes.set_title(f"{NAMES[run.colour]}: {run.told()}", loc="left", fontsize="medium")
        axes.set_ylabel("y in m")
        axes.set_ylim(limits(run))
    for run in runs:
        last.plot(seconds, 1e3 * np.array(run.ages_s), color=run.colour, linewidth=1.5, label=NAMES[run.colour])
    last.set_title("age of the action that is executed", loc="left", fontsize="medium")
    last.set(ylabel="ms", xlabel="seconds", xlim=(0, seconds[-1]), ylim=(0, None))
    keys = [
        (NAMES[WAITING], {"color": WAITING, "linewidth": 2}),
        (NAMES[MOVING], {"color": MOVING, "linewidth": 2}),
        ("a chunk joins", {"color": "0.2", "marker": "o", "linestyle": "", "markersize": 4}),
        ("stands still", {"color": PAUSE, "alpha": 0.3, "linewidth": 8}),
        ("a right way", {"color": WAY, "linewidth": 5}),
        ("obstacle", {"color": BLOCK, "marker": "s", "linestyle": "", "markersize": 8}),
    ]
    handles = [last.plot([], [], label=name, **how)[0] for name, how in keys]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(keys), fontsize="small", frameon=False)
    figure.suptitle(f"One policy, one scene, answers after {latency_ms:.0f} ms", fontsize="large")
    figure.savefig(path, dpi=110)


def draw_ways(axes: Any, run: Run, seconds: Any) -> None:
    """Both right ways, and the obstacles between them."""
    right = right_ways(run.scene, len(seconds))[..., 1]
    axes.plot(seconds, right, color=WAY, linewidth=5, solid_capstyle="round")
    middle, is_there = right.mean(1), right[:, 0] - right[:, 1] > 0.7
    axes.fill_between(seconds, middle - 0.2, middle + 0.2, where=is_there, color=BLOCK, linewidth=0)


def right_ways(scene: Scene, steps: int) -> Any:
    """Where the point may be, (steps, 2 ways, 2): the curve on its stage, which drifts."""
    drift = np.array([scene.observation(step, scene.start)["stage"] for step in range(steps)])
    return ways(np.arange(steps) / CONTROL_HZ) + drift[:, None]


def limits(run: Run) -> tuple[float, float]:
    """The lowest and the highest y that is shown."""
    right = right_ways(run.scene, len(run.positions))[..., 1]
    return float(right.min()) - 0.25, float(right.max()) + 0.25


def pauses(run: Run) -> list[tuple[int, int]]:
    """First step and end of each pause."""
    edges = np.flatnonzero(np.diff([False, *run.is_pause, False]))
    return [(int(first), int(end)) for first, end in edges.reshape(-1, 2)]


def draw_animation(runs: list[Run], latency_ms: float, path: Path) -> None:
    """Both points as they move, one above the other; time runs from right to left."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.2), dpi=88)
    canvas = FigureCanvasAgg(figure)
    panels = figure.subplots(2, 1, sharex=True)
    figure.subplots_adjust(left=0.02, right=0.98, bottom=0.02, top=0.93, hspace=0.16)
    seconds = np.arange(len(runs[0].positions)) / CONTROL_HZ
    moments = [draw_panel(axes, run, seconds, latency_ms) for axes, run in zip(panels, runs, strict=True)]
    frames = []
    for number in range(0, len(seconds), FRAME_STEPS):
        for show in moments:
            show(number)
        canvas.draw()
        frames.append(Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3].copy()))
    frames = in_few_colours(frames)
    duration_ms = round(1e3 * FRAME_STEPS / CONTROL_HZ)
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=duration_ms, loop=0, optimize=True)


def in_few_colours(frames: list[Any]) -> list[Any]:
    """The frames with the same few colours each, which keeps their file small: greys, and what shades into white."""
    from matplotlib.colors import to_rgb

    shades = [np.linspace(to_rgb(colour), 1, 5)[:-1] for colour in (WAITING, MOVING, PAUSE)]
    colours = np.concatenate([np.linspace((0, 0, 0), 1, 12), *shades])
    palette = Image.new("P", (1, 1))
    palette.putpalette((255 * colours).astype(np.uint8).ravel().tolist())
    return [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]


def draw_panel(axes: Any, run: Run, seconds: Any, latency_ms: float) -> Callable[[int], None]:
    """One robot's half of the animation; returns what shows a step of it."""
    draw_ways(axes, run, seconds)
    y = np.array(run.positions)[:, 1]
    (trail,) = axes.plot([], [], color=run.colour, linewidth=2.5)
    (seams,) = axes.plot([], [], "o", color=run.colour, markersize=5)
    (point,) = axes.plot([], [], "o", markersize=14, zorder=5)
    told = axes.set_title("", fontsize=11, color="0.3", loc="right", pad=4)
    axes.set(ylim=limits(run), xticks=[], yticks=[])
    name = f"{NAMES[run.colour]}, answers after {latency_ms:.0f} ms"
    axes.set_title(name, fontsize=11, color=run.colour, loc="left", pad=4)

    def show(number: int) -> None:
        is_pause, joined = run.is_pause[number], [one for one in run.seams if one <= number]
        trail.set_data(seconds[: number + 1], y[: number + 1])
        seams.set_data(seconds[joined], y[joined])
        point.set_data([seconds[number]], [y[number]])
        point.set_color(PAUSE if is_pause else run.colour)
        told.set_text(f"{'stands still' if is_pause else 'moves'}, action {1e3 * run.ages_s[number]:.0f} ms old")
        axes.set_xlim(seconds[number] - BEHIND_S, seconds[number] + AHEAD_S)

    return show


def main(
    url: str = "ws://localhost:8000",
    latency_ms: float = 150.0,
    seconds: float = 9.0,
    seed: int = 3,
    picture: Path = Path("realtime.png"),
    animation: Path = Path("realtime.gif"),
) -> None:
    """Move the point both ways and draw what came of it."""
    steps = round(seconds * CONTROL_HZ)
    runs = []
    for way in (waiting, moving):
        with policyserve.Client(url) as client:
            runs.append(way(client, Scene(steps + 1, seed), steps, latency_ms / 1e3))
    for run in runs:
        print(f"{NAMES[run.colour]}: {run.told()}")
    draw_picture(runs, latency_ms, picture)
    draw_animation(runs, latency_ms, animation)
    print(f"written: {picture}, {animation} ({animation.stat().st_size / 1e3:.0f} kB)")


if __name__ == "__main__":
    tyro.cli(main)
