"""Figures for notebooks, in one style and with alternative texts.

    figure = accuracy_by_method(table, chance=0.2)
    show(figure, "Accuracy per method: multitask is four points above label_only for both students.")

Accuracies and other shares are from 0 to 1. A function that draws raises StudyError if a column is missing or there is
nothing to draw.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from kdutils.errors import StudyError
from kdutils.report.tables import LONG_TEXT

if TYPE_CHECKING:
    from types import ModuleType

    import pandas as pd
    from matplotlib.figure import Figure

STYLE = Path(__file__).with_name("study.mplstyle")
LINES = ("-", "--", ":", "-.")
COLORS = 7  # of the style's eight; the last one, yellow, is too pale for dots and lines
INK, GRAY = "#1d2731", "#5a6673"
CONTROL = "#98a2ac"  # a lighter grey, for controls


def show(figure: Figure, alt: str) -> None:
    """Display `figure` in a notebook as PNG with the alternative text `alt`, and close it.

    Raises ValueError if `alt` is empty: without it a screen reader has nothing to read.
    """
    import base64
    import io

    from IPython.display import display

    if not alt or not alt.strip():
        raise ValueError("a figure needs an alternative text: describe in one or two sentences what it shows")
    picture = io.BytesIO()
    save(figure, picture)
    display({"image/png": base64.b64encode(picture.getvalue()).decode(), "text/plain": alt},
            metadata={"image/png": {"alt": alt}}, raw=True)


def save(figure: Figure, file: Path | BinaryIO) -> None:
    """Write `figure` as PNG to a path or an open file, and close it; equal figures give equal bytes."""
    figure.savefig(file, format="png", metadata={"Software": None})
    pyplot().close(figure)


def accuracy_by_method(table: pd.DataFrame, chance: float | Mapping[str, float]) -> Figure:
    """Return a figure of test accuracy: one dot per seed, the mean and its 95 % t-interval over seeds.

    `table` has one row per run with the columns method, student, dataset, prompting, seed and accuracy. `chance` is the
    accuracy of guessing, a number or {dataset: number}. Each data set and student has a panel, with the highest mean
    first. The axis is fitted to the data; chance may lie outside of it. A single seed has no interval, and its label
    says so.
    """
    _check(table, ("method", "student", "dataset", "prompting", "seed", "accuracy"))
    panels = list(table.groupby(["dataset", "student"], sort=False))
    groups = [sorted(rows.groupby(["method", "prompting"], sort=False, dropna=False),
                     key=lambda group: -group[1]["accuracy"].fillna(0).mean()) for _, rows in panels]
    heights = [0.36 * len(group) + 0.8 for group in groups]
    figure, axes = pyplot().subplots(len(panels), 1, squeeze=False, sharex=True, figsize=(8, sum(heights) + 0.4),
                                     height_ratios=heights)
    for axis, ((dataset, student), _), group in zip(axes[:, 0], panels, groups, strict=True):
        for row, (_, runs) in enumerate(group):
            _draw_seeds(axis, row, runs["accuracy"].dropna().astype(float).to_list())
        _label_methods(axis, group, several=table["prompting"].nunique(dropna=False) > 1)
        axis.set_title(f"{dataset} · {student}", pad=18)  # room for the label of chance
    axes[-1, 0].set_xlabel("accuracy (dot: one seed; bar: mean with 95 % t-interval over seeds)")
    low, high = axes[-1, 0].get_xlim()  # fitted by matplotlib; an interval may go beyond what an accuracy can be
    axes[-1, 0].set_xlim(max(low, 0), min(max(high, low + 0.02), 1.01))
    for axis, ((dataset, _), _) in zip(axes[:, 0], panels, strict=True):
        _draw_chance(axis, chance[dataset] if isinstance(chance, dict) else chance)
    return figure


def interval_half_width(values: Iterable[float]) -> float | None:
    """Return half the width of the 95 % t-interval of the mean of `values`, None for fewer than two values."""
    from kdutils.stats.accuracy import mean_interval

    mean, _, high = mean_interval(list(values))
    return None if math.isnan(high) else high - mean


def _draw_seeds(axis, row, values):
    if not values:
        return
    color, mean = f"C{row % COLORS}", sum(values) / len(values)
    axis.plot(values, [row + 0.2] * len(values), "o", color=color, alpha=0.5, markeredgewidth=0)
    axis.errorbar(mean, row - 0.08, xerr=interval_half_width(values), fmt="|", color=color, markersize=13,
                  markeredgewidth=2.4, capsize=4)


def _label_methods(axis, group, several):
    names = [method + (f" · {prompting}" if several and isinstance(prompting, str) and prompting else "")
             for (method, prompting), _ in group]
    counts = [int(runs["accuracy"].notna().sum()) for _, runs in group]
    labels = [f"{name} (n = {count}{', no interval' if count < 2 else ''})"
              for name, count in zip(names, counts, strict=True)]
    axis.set_yticks(range(len(labels)), labels)
    axis.set_ylim(len(labels) - 0.4, -0.6)
    axis.grid(False, axis="y")


def _draw_chance(axis, chance):
    low, high = axis.get_xlim()
    place, text = (low, f"← chance {chance:.2f}") if chance < low else (high, f"chance {chance:.2f} →") \
        if chance > high else (chance, f"chance {chance:.2f}")
    if place == chance:
        axis.axvline(chance, color=GRAY, linestyle="--", linewidth=1.2)
    to_left = place > low + 0.8 * (high - low)
    axis.annotate(text, (place, 1), xycoords=("data", "axes fraction"), xytext=(-3 if to_left else 3, 1),
                  textcoords="offset points", fontsize=8.5, color=GRAY, ha="right" if to_left else "left", va="bottom")


def learning_curves(table: pd.DataFrame) -> Figure:
    """Return a figure of dev accuracy and dev loss over optimiser steps, one line per seed.

    `table` has the columns seed, step, dev_accuracy and dev_loss. Columns ``loss_<task>`` add a panel with the dev loss
    of each task.
    """
    _check(table, ("seed", "step", "dev_accuracy", "dev_loss"))
    tasks = [name for name in table.columns if str(name).startswith("loss_")]
    figure, axes = pyplot().subplots(1, 3 if tasks else 2, figsize=(9 if tasks else 8, 3.3))
    for axis, column, title in zip(axes, ("dev_accuracy", "dev_loss"), ("dev accuracy", "dev loss"), strict=False):
        _draw_curves(axis, table, [column], by_seed=True)
        axis.set_title(title)
    axes[0].set_ylim(0, 1)
    if tasks:
        _draw_curves(axes[2], table, tasks, by_seed=False)
        axes[2].set_title("dev loss per task")
    for axis in axes:
        axis.set_xlabel("optimiser step")
    return figure


def _draw_curves(axis, table, columns, by_seed):
    """Draw each column once per seed; colours and line styles stand for seeds if `by_seed`, else for columns."""
    for place, column in enumerate(columns):
        for number, (seed, rows) in enumerate(table.groupby("seed", sort=True)):
            rows = rows.dropna(subset=[column]).sort_values("step")
            style = number if by_seed else place
            label = f"seed {seed}" if by_seed else (column.removeprefix("loss_") if number == 0 else "_")
            axis.plot(rows["step"], rows[column], color=f"C{style % COLORS}",
                      linestyle=LINES[style // COLORS % len(LINES)], marker="." if len(rows) < 30 else "", label=label)
    if len(axis.get_lines()) and (not by_seed or table["seed"].nunique() <= 8):
        axis.legend()


def length_histogram(series: Mapping[str, Iterable[float]], unit: str) -> Figure:
    """Return a figure with one outlined histogram per entry of `series`, {name: lengths}; `unit` labels the x axis.

    All histograms have the same bins. The legend gives number and median of the lengths.
    """
    import numpy as np

    values = {name: np.asarray(list(lengths), dtype=float) for name, lengths in series.items()}
    values = {name: lengths[np.isfinite(lengths)] for name, lengths in values.items()}
    if not any(len(lengths) for lengths in values.values()):
        raise StudyError("a histogram of lengths needs at least one length")
    bins = np.histogram_bin_edges(np.concatenate(list(values.values())), bins=30)
    figure, axis = pyplot().subplots(figsize=(8, 3.4))
    for place, (name, lengths) in enumerate(values.items()):
        about = f"n = {len(lengths)}" + (f", median {np.median(lengths):.3g}" if len(lengths) else "")
        axis.hist(lengths, bins=bins, histtype="step", linewidth=1.8, color=f"C{place % COLORS}",
                  linestyle=LINES[place % len(LINES)], label=f"{name} ({about})")
    axis.set_xlabel(unit)
    axis.set_ylabel("count")
    axis.legend()
    return figure


def reliability_diagram(bins: pd.DataFrame, error: float) -> Figure:
    """Return a figure of accuracy against mean probability, one dot per bin of calibration.calibration_bins.

    The area of a dot grows with the number of answers in the bin; bars are 95 % (Wilson) intervals. On the diagonal a
    student is calibrated. `error` is the expected calibration error, for the title.
    """
    from scipy.stats import binomtest

    _check(bins, ["probability", "accuracy", "n"])
    figure, axis = pyplot().subplots(figsize=(5, 4.2))
    spans = [binomtest(round(share * count), int(count)).proportion_ci(method="wilson")
             for share, count in zip(bins["accuracy"], bins["n"], strict=True)]
    axis.plot([0, 1], [0, 1], color="0.6", linestyle=":", label="perfect calibration")
    axis.vlines(bins["probability"], [span.low for span in spans], [span.high for span in spans], color="C0", alpha=0.5)
    axis.scatter(bins["probability"], bins["accuracy"], s=20 + 180 * bins["n"] / bins["n"].max(), color="C0",
                 label=f"answers (n = {int(bins['n'].sum())})")
    axis.set(xlim=(0, 1), ylim=(0, 1), xlabel="probability of the most likely choice", ylabel="accuracy",
             title=f"expected calibration error {error:.3f}")
    axis.legend(loc="upper left")
    return figure


def share_bars(table: pd.DataFrame) -> Figure:
    """Return a figure with one bar chart per column of `table` (shares from 0 to 1) and one bar per row.

    The index labels the bars. Rows keep their order from top to bottom. The value in percent is beside each bar; a
    missing share has no bar.
    """
    columns = [name for name in table if table[name].notna().any()]
    if not columns or table.empty:
        raise StudyError("a bar chart of shares needs a table with at least one share")
    figure, axes = _grid_of_panels(len(columns), 3, 0.8 + 0.24 * len(table), sharey=True)
    for axis, name in zip(axes.flat, columns, strict=False):
        shares = table[name].astype(float).fillna(0).to_numpy()
        bars = axis.barh(range(len(table)), shares)
        axis.bar_label(bars, [f" {share:.0%}" if known else " –" for share, known in
                              zip(shares, table[name].notna(), strict=True)], fontsize="x-small")
        axis.set(title=name, xlim=(0, 1.18), xticks=(0, 0.5, 1), xticklabels=("0", "50 %", "100 %"))
        axis.set_yticks(range(len(table)), list(table.index), fontsize="x-small")
    axes.flat[0].invert_yaxis()
    return figure


def token_heat_map(words: Sequence[Sequence[str]], scores: Sequence[Sequence[float]], labels: Sequence[str],
                   title: str = "") -> Figure:
    """Return a figure of words coloured by score: a block of lines per row of `words`, with its label above.

    `words`: lists of texts, one per question (or one per method, for the same question). `scores`: lists of numbers of
    the same lengths, each 0 or more. `labels`: one text per list. The colour is the share of the highest score in the
    list, because scores of different questions are not comparable. Raises StudyError if lengths differ.
    """
    if not words or [len(row) for row in words] != [len(row) for row in scores] or len(labels) != len(words):
        raise StudyError("a heat map of words needs as many scores as words in every row, and one label per row")
    figure = pyplot().figure(figsize=(8, 1), layout="none")
    renderer, placed, y = figure.canvas.get_renderer(), [], 0.42 if title else 0.14  # inches from the top
    for row, values, label in zip(words, scores, labels, strict=True):
        highest, x, y = max([*values, 0]) or 1, 0.15, y + 0.06
        placed.append((_shortened(label, 110), x, y, {"color": GRAY, "fontsize": 8.5}))
        y += 0.25
        for word, value in zip(map(_shortened, row), values, strict=True):
            width = figure.text(0, 0, word).get_window_extent(renderer).width / figure.dpi
            x, y = (0.15, y + 0.29) if x > 0.15 and x + width > figure.get_figwidth() - 0.15 else (x, y)
            placed.append((word, x, y, _shade(value / highest)))
            x += width + 0.14
        y += 0.32
    for text in list(figure.texts):
        text.remove()
    figure.set_size_inches(8, y + 0.06)
    for text, x, y_text, look in placed:
        figure.text(x / 8, 1 - y_text / (y + 0.06), text, va="baseline", **look)
    if title:
        figure.suptitle(title, x=0.15 / 8, y=1 - 0.1 / (y + 0.06), ha="left", va="top", fontsize=10.5, weight="bold")
    return figure


def _shortened(text, limit=LONG_TEXT):
    return text if len(text) <= limit else text[:limit - 1] + "…"


def _shade(share):
    """Return the look of a word with this share of the highest score: from white to the first colour of the style."""
    from matplotlib.colors import to_rgb

    blue = to_rgb("C0")
    color = tuple(1 - share * (1 - part) for part in blue)
    return {"color": "white" if share > 0.75 else INK,
            "bbox": {"facecolor": color, "edgecolor": "none", "boxstyle": "round,pad=0.22"}}


def difference_intervals(table: pd.DataFrame, xlabel: str, title: str = "", width: float = 8) -> Figure:
    """Return a figure of differences with their intervals: one row each, one panel per group, a line at 0.

    `table` has the columns group, label, difference, low, high (missing if there is no interval) and significant
    (filled dot; otherwise hollow). Rows keep their order. Those with a true value in a column `control` are grey.
    `width`: in inches.
    """
    _check(table, ("group", "label", "difference", "low", "high", "significant"))
    panels = list(table.groupby("group", sort=False))
    heights = [0.27 * len(rows) + 0.55 for _, rows in panels]
    figure, axes = pyplot().subplots(len(panels), 1, squeeze=False, sharex=True, height_ratios=heights,
                                     figsize=(width, sum(heights) + 0.7))
    for axis, (group, rows) in zip(axes[:, 0], panels, strict=True):
        axis.axvline(0, color=GRAY, linewidth=1)
        for place, row in enumerate(rows.to_dict("records")):
            color = CONTROL if row.get("control") else "C0"
            axis.hlines(place, float(row["low"]), float(row["high"]), color=color, linewidth=1.6)
            axis.plot(row["difference"], place, "o", color=color,
                      markerfacecolor=color if row["significant"] else "white")
        axis.set_yticks(range(len(rows)), [_shortened(label, 70) for label in rows["label"]], fontsize=8.5)
        for tick, control in zip(axis.get_yticklabels(), rows.get("control", [False] * len(rows)), strict=True):
            tick.set_color(GRAY if control else INK)
        axis.set_ylim(len(rows) - 0.4, -0.6)
        axis.grid(False, axis="y")
        axis.set_title(group, x=0)
    axes[-1, 0].set_xlabel(xlabel)
    if width < 8:  # a title has room where the labels begin, and the label of the axis further left
        figure.draw_without_rendering()
        below, frame = axes[-1, 0].xaxis.label, axes[-1, 0].get_window_extent()
        beyond = max(0, below.get_window_extent().x1 + 4 - figure.bbox.x1)
        below.set_x(0.5 - beyond / frame.width)
        for axis in axes[:, 0]:
            left = min(label.get_window_extent().x0 for label in axis.get_yticklabels())
            axis.set_title(axis.get_title(loc="left"), x=axis.transAxes.inverted().transform((left, 0))[0])
    if title:
        figure.suptitle(title, x=0.01, ha="left", fontsize=10.5, weight="bold")
    return figure


def accuracy_against_measure(table: pd.DataFrame, xlabel: str,
                             baselines: Mapping[tuple[str, str], float] | None = None) -> Figure:
    """Return a figure of accuracy against a measure of explanations, one panel per data set and student.

    `table` has one row per run: dataset, student, method, prompting, accuracy, value. Colours are methods, markers are
    promptings. Small dots are seeds; a large dot is the mean with 95 % t-intervals over seeds in both directions (none
    for a single seed). `baselines`: {(dataset, student): accuracy of label_only}, a dashed line.
    """
    _check(table, ("dataset", "student", "method", "prompting", "accuracy", "value"))
    panels = list(table.groupby(["dataset", "student"], sort=False))
    figure, axes = _grid_of_panels(len(panels), 2, 3.6, 0.4, sharex=True, sharey=True)
    methods, promptings = (list(dict.fromkeys(table[name])) for name in ("method", "prompting"))
    for axis, ((dataset, student), rows) in zip(axes.flat, panels, strict=False):
        for (method, prompting), runs in rows.groupby(["method", "prompting"], sort=False):
            color, marker = f"C{methods.index(method) % COLORS}", "osD^vP*X"[promptings.index(prompting) % 8]
            label = method + (f" · {prompting}" if prompting not in ("", "-") else "")
            x, y = runs["value"], runs["accuracy"]
            axis.plot(x, y, marker, color=color, alpha=0.35, markersize=4, markeredgewidth=0)
            axis.errorbar(x.mean(), y.mean(), xerr=interval_half_width(x), yerr=interval_half_width(y), fmt=marker,
                          color=color, markersize=8, capsize=3, label=label)
        if (level := (baselines or {}).get((dataset, student))) is not None:
            axis.axhline(level, color=GRAY, linestyle="--", linewidth=1.2, label="label_only, no explanations")
        axis.set_title(f"{dataset} · {student}")
        axis.set_xlabel(xlabel)
    for axis in axes[:, 0]:
        axis.set_ylabel("accuracy")
    handles = {label: handle for axis in axes.flat
               for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)}
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=2, fontsize=8.5)
    return figure


def heat_map(table: pd.DataFrame, label: str) -> Figure:
    """Return a heat map of a frame of numbers with the number in every cell; a missing one is a dash on white.

    Rows are labelled with the index, columns with the column names (data sets tested on). `label` names the scale, from
    the smallest to the largest number.
    """
    import numpy as np

    values = table.to_numpy(dtype=float)
    if not np.isfinite(values).any():
        raise StudyError("a heat map needs at least one number")
    low, high = np.nanmin(values), np.nanmax(values)
    figure, axis = pyplot().subplots(figsize=(8, 0.42 * len(table) + 1.5))
    image = axis.imshow(values, cmap="Blues", vmin=low, vmax=high if high > low else low + 1e-9, aspect="auto")
    for (row, column), value in np.ndenumerate(values):
        dark = np.isfinite(value) and value - low > 0.6 * (high - low)
        axis.text(column, row, f"{value:.2f}" if np.isfinite(value) else "–", ha="center", va="center", fontsize=9,
                  color="white" if dark else INK)
    axis.set_xticks(range(table.shape[1]), list(table.columns))
    axis.set_yticks(range(len(table)), [_shortened(str(name), 60) for name in table.index], fontsize=8.5)
    axis.grid(False)
    axis.set_xlabel("tested on")
    figure.colorbar(image, label=label)
    return figure


def _grid_of_panels(count, most, height, extra=0.0, **shared):
    """Return (figure, axes) of `count` panels of `height` inches, at most `most` of them side by side."""
    across = min(most, count)
    down = math.ceil(count / across)
    figure, axes = pyplot().subplots(down, across, squeeze=False, figsize=(8, down * height + extra), **shared)
    for axis in axes.flat[count:]:
        axis.set_visible(False)
    return figure, axes


def _check(table, columns):
    missing = [name for name in columns if name not in table.columns]
    if missing:
        raise StudyError(f"a figure needs the column '{missing[0]}'; there are {', '.join(map(str, table.columns))}")
    if not len(table):
        raise StudyError("a figure needs at least one row; the table is empty")


def pyplot() -> ModuleType:
    """Return pyplot with the style of the study; the import takes a second, so it waits until a figure is drawn."""
    import matplotlib.pyplot as plt

    plt.style.use(STYLE)
    return plt
