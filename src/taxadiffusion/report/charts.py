"""Charts as inline SVG: curves over steps, and figures with their intervals.

Drawn here and not by a plotting library: words stay text that can be searched and read aloud, a point says its figure
where the pointer rests, colours follow the reader's dark mode, a chart adds a few kB to the page and nothing to what
must be installed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from taxadiffusion.metrics.intervals import Interval
from taxadiffusion.report.page import Html, escaped, svg_figure

NUM_COLOURS = 6  # --c0 … --c5 in style.css
_WIDTH, _LEFT, _RIGHT, _TOP, _BOTTOM = 860, 62, 20, 18, 44
_TALL = 320  # height of a chart of curves
_LETTER_PX = 6.6  # a letter of a chart's text, generously


@dataclass(frozen=True, slots=True)
class Series:
    """A named curve."""

    name: str
    x: Sequence[float]
    y: Sequence[float]


@dataclass(frozen=True, slots=True)
class Band:
    """A named stretch of the x axis: a training stage."""

    name: str
    start: float
    stop: float


@dataclass(frozen=True, slots=True)
class _Axis:
    """A straight or logarithmic map from values to pixels."""

    low: float
    high: float
    start_px: float
    stop_px: float
    log: bool = False

    def __call__(self, value: float) -> float:
        low, high, at = (math.log10(v) if self.log else v for v in (self.low, self.high, value))
        return self.start_px + (at - low) / (high - low) * (self.stop_px - self.start_px)

    def ticks(self, number: int = 5) -> list[float]:
        """Round values within the axis, about `number` of them."""
        if self.log:
            marks = [m * 10.0**e for e in range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
                     for m in (1, 2, 5)]  # fmt: skip
            return [mark for mark in marks if self.low <= mark <= self.high]
        raw = (self.high - self.low) / number
        magnitude = 10.0 ** math.floor(math.log10(raw))
        step = next(m * magnitude for m in (1, 2, 2.5, 5, 10) if m * magnitude >= raw * (1 - 1e-9))
        first = math.ceil(self.low / step - 1e-9)
        return [i * step for i in range(first, math.floor(self.high / step + 1e-9) + 1)]


def line_chart(
    series: Sequence[Series],
    *,
    x_label: str,
    y_label: str,
    bands: Sequence[Band] = (),
    log_x: bool = False,
    joined: bool = True,
    caption: str = "",
) -> Html:
    """Curves over a common x axis, with a legend where there are several and stages shaded by turns.

    Not `joined`: points alone, for things that do not follow from one another.

    Raises `ValueError` where there is no point, or a point that is not finite (or not positive on a logarithmic axis).
    """
    xs = [x for s in series for x in s.x]
    ys = [y for s in series for y in s.y]
    _check(xs, log_x)
    _check(ys, log=False)
    x_axis = _axis(xs, _LEFT, _WIDTH - _RIGHT, log_x, margin=0)
    y_axis = _axis(ys, _TALL - _BOTTOM, _TOP, log=False, margin=0.06)
    parts = [*_bands(bands, x_axis), *_frame(x_axis, y_axis, x_label, y_label)]
    for i, curve in enumerate(series):
        points = " ".join(f"{x_axis(x):.1f},{y_axis(y):.1f}" for x, y in zip(curve.x, curve.y, strict=True))
        colour = f"var(--c{i % NUM_COLOURS})"
        if joined:
            parts.append(
                f'<polyline class="curve" points="{points}" style="stroke:{colour}">'
                f"<title>{escaped(curve.name)}</title></polyline>"
            )
        if len(curve.x) <= 12 or not joined:
            parts += [
                f'<circle cx="{x_axis(x):.1f}" cy="{y_axis(y):.1f}" r="3.5" style="fill:{colour}">'
                f"<title>{escaped(curve.name)}: {_number(x)}, {_number(y)}</title></circle>"
                for x, y in zip(curve.x, curve.y, strict=True)
            ]
    return _figure(parts, _TALL, [s.name for s in series], caption)


@dataclass(frozen=True, slots=True)
class IntervalRow:
    """A row of an interval chart: its name, and one figure per series (None: not measured)."""

    name: str
    intervals: tuple[Interval | None, ...]


def interval_chart(
    rows: Sequence[IntervalRow],
    series: Sequence[str],
    *,
    x_label: str,
    marks: Sequence[tuple[str, float]] = (),
    caption: str = "",
) -> Html:
    """Dots with whiskers, one line per row and series; `marks` are named vertical lines (chance, real photographs)."""
    known = [i for row in rows for i in row.intervals if i is not None]
    values = [v for i in known for v in ((i.low, i.high) if i.known else (i.mean,))] + [value for _, value in marks]
    _check(values, log=False)
    left, line_px = 210, 15
    row_px = line_px * len(series) + 12
    height_px = _TOP + 14 + row_px * len(rows) + _BOTTOM
    axis = _axis(values, left, _WIDTH - _RIGHT - 10, log=False, margin=0.04)
    parts = []
    for tick in axis.ticks():
        x = axis(tick)
        parts.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP + 10}" y2="{height_px - _BOTTOM}"/>')
        parts.append(f'<text x="{x:.1f}" y="{height_px - _BOTTOM + 18}" text-anchor="middle">{_number(tick)}</text>')
    parts.append(f'<text x="{(left + _WIDTH) / 2}" y="{height_px - 6}" text-anchor="middle">{escaped(x_label)}</text>')
    for name, value in marks:
        x = axis(value)
        parts.append(
            f'<line class="axis" stroke-dasharray="4 3" x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP + 10}" '
            f'y2="{height_px - _BOTTOM}"/>{_label_within(name, x, _TOP + 4)}'
        )
    for r, row in enumerate(rows):
        top = _TOP + 20 + r * row_px
        middle = top + line_px * len(series) / 2
        parts.append(f'<text class="ink" x="0" y="{middle + 4:.1f}">{escaped(row.name)}</text>')
        for s, interval in enumerate(row.intervals):
            if interval is not None:
                parts.append(_whisker(interval, axis, top + line_px * (s + 0.5), s, f"{row.name}, {series[s]}"))
    return _figure(parts, height_px, series, caption)


def _whisker(interval: Interval, axis: _Axis, y: float, colour: int, name: str) -> str:
    stroke = f"var(--c{colour % NUM_COLOURS})"
    if not interval.known:
        interval = Interval(interval.mean, interval.mean, interval.mean)
        words = f"{name}: {_number(interval.mean)} (too few images for an interval)"
    else:
        words = f"{name}: {_number(interval.mean)} ({_number(interval.low)} to {_number(interval.high)})"
    return (
        f'<g><title>{escaped(words)}</title><line x1="{axis(interval.low):.1f}" x2="{axis(interval.high):.1f}" '
        f'y1="{y:.1f}" y2="{y:.1f}" style="stroke:{stroke};stroke-width:2"/>'
        f'<circle cx="{axis(interval.mean):.1f}" cy="{y:.1f}" r="4.5" style="fill:{stroke}"/></g>'
    )


def _check(values: Sequence[float], log: bool) -> None:
    if not values:
        raise ValueError("a chart needs one or more points")
    wrong = [v for v in values if not math.isfinite(v) or (log and v <= 0)]
    if wrong:
        raise ValueError(f"a chart cannot show {wrong[0]} on a {'logarithmic' if log else 'straight'} axis")


def _axis(values: Sequence[float], start_px: float, stop_px: float, log: bool, margin: float) -> _Axis:
    low, high = min(values), max(values)
    if low == high:
        low, high = (low / 2, high * 2) if log else (low - 0.5, high + 0.5) if low else (0.0, 1.0)
    if log:
        factor = (high / low) ** margin
        return _Axis(low / factor, high * factor, start_px, stop_px, log)
    space = (high - low) * margin
    return _Axis(low - space, high + space, start_px, stop_px)


def _bands(bands: Sequence[Band], x_axis: _Axis) -> list[str]:
    parts = []
    for i, band in enumerate(bands):
        start, stop = x_axis(max(band.start, x_axis.low)), x_axis(min(band.stop, x_axis.high))
        see_through = "" if i % 2 == 0 else ' fill-opacity="0"'
        parts.append(
            f'<rect class="band" x="{start:.1f}" y="{_TOP}" width="{stop - start:.1f}" '
            f'height="{_TALL - _TOP - _BOTTOM}"{see_through}><title>{escaped(band.name)}</title></rect>'
        )
        if len(band.name) * _LETTER_PX <= stop - start:  # a short stage is named where the pointer rests
            parts.append(_label_within(band.name, (start + stop) / 2, _TOP - 5))
    return parts


def _label_within(words: str, x: float, y: float) -> str:
    """Text centred at `x`, or as near to it as it fits."""
    half = len(words) * _LETTER_PX / 2
    x = min(max(x, half), _WIDTH - half)
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="middle">{escaped(words)}</text>'


def _frame(x_axis: _Axis, y_axis: _Axis, x_label: str, y_label: str) -> list[str]:
    bottom = _TALL - _BOTTOM
    parts = []
    for tick in y_axis.ticks():
        y = y_axis(tick)
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{_number(tick)}</text>')
    for tick in x_axis.ticks(8):
        parts.append(f'<text x="{x_axis(tick):.1f}" y="{bottom + 17}" text-anchor="middle">{_number(tick)}</text>')
    parts.append(f'<line class="axis" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{bottom}" y2="{bottom}"/>')
    parts.append(f'<text x="{(_LEFT + _WIDTH) / 2}" y="{_TALL - 6}" text-anchor="middle">{escaped(x_label)}</text>')
    middle = (_TOP + bottom) / 2
    parts.append(
        f'<text x="12" y="{middle}" text-anchor="middle" transform="rotate(-90 12 {middle})">{escaped(y_label)}</text>'
    )
    return parts


def _figure(parts: Sequence[str], height_px: float, names: Sequence[str], caption: str) -> Html:
    """With a legend where there are several names."""
    legend = [(i % NUM_COLOURS, name) for i, name in enumerate(names)] if len(names) > 1 else []
    return svg_figure(parts, _WIDTH, height_px, caption, legend)


def _number(value: float) -> str:
    """Short: thousands with commas, else three significant digits."""
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}"
