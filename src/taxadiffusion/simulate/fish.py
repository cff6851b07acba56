"""The animal itself: layers of coverage and colour over a grid of fish coordinates.

Fish coordinates: u runs along the body from the snout (0) to the tail base (1), v upwards from its axis, both in units
of the body's length. `edge` is the size of a grid cell in those units; coverages fall from 1 to 0 across one cell, so
that outlines are anti-aliased. Letters: H, W rows and columns of the grid.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from taxadiffusion.simulate.traits import Traits

Field = NDArray[np.floating[Any]]

_TABLE = 256  # entries of a tabulated profile


@dataclass(frozen=True, slots=True)
class Layers:
    """What is painted: premultiplied colour (3, H, W) and coverage (H, W), both 0 … 1."""

    colour: Field
    coverage: Field


@dataclass(frozen=True, slots=True)
class Outline:
    """The body's upper and lower profile, tabulated over u in 0 … 1, both as positive heights."""

    top: Field
    bottom: Field

    @classmethod
    def of(cls, traits: Traits) -> Outline:
        u = np.linspace(0.0, 1.0, _TABLE, dtype=np.float32)
        peak = traits.depth_position
        front = np.clip(u / peak, 0.0, 1.0)
        bluntness = 0.40 + 0.55 * (1.0 - traits.head_bluntness)
        head = np.sqrt(np.maximum(1.0 - (1.0 - front) ** 2, 0.0)) ** (2.0 * bluntness)
        beak = 0.62 * traits.snout_length
        head *= 1.0 - beak * np.exp(-((front / 0.42) ** 2))
        back = np.clip((u - peak) / (1.0 - peak), 0.0, 1.0)
        fall = 0.5 + 0.5 * np.cos(np.pi * back**1.15)

        def profile(share: float) -> Field:
            half = traits.body_depth * share
            base = traits.peduncle_depth / 2.0
            half_depth: Field = np.where(u < peak, half * head, base + (half - base) * fall).astype(np.float32)
            return half_depth

        return cls(profile(1.0 - traits.belly), profile(traits.belly))


def _index(u: Field) -> NDArray[np.int32]:
    cell: NDArray[np.int32] = np.clip(u * (_TABLE - 1) + 0.5, 0, _TABLE - 1).astype(np.int32)
    return cell


def _cover(distance: Field, edge: float) -> Field:
    """Coverage of a cell whose centre lies `distance` inside an outline."""
    coverage: Field = np.clip(distance / edge + 0.5, 0.0, 1.0)
    return coverage


def _fin_profile(peak: float, spines: int) -> Field:
    """Height of a fin along its base, 1 at its highest, with a saw-toothed front where spines carry it."""
    t = np.linspace(0.0, 1.0, _TABLE, dtype=np.float32)
    rise = np.clip(t / peak, 0.0, 1.0)
    fall = np.clip((1.0 - t) / (1.0 - peak), 0.0, 1.0)
    height = np.sin(np.pi / 2 * rise) ** 0.7 * np.sin(np.pi / 2 * fall) ** 0.7
    height = 0.45 * np.minimum(1.0, np.minimum(9.0 * t, 7.0 * (1.0 - t))) + 0.55 * height
    teeth = 0.10 * ((t * spines) % 1.0) * (t < 0.55)
    profile: Field = (height * (1.0 - teeth)).astype(np.float32)
    return profile


class Painter:
    """Paints one fish, back to front, into premultiplied colour and coverage."""

    def __init__(self, traits: Traits, u: Field, v: Field, edge: float, phase: float) -> None:
        self.traits, self.edge, self.phase = traits, edge, phase
        self.u, self.v = u, v  # (H, W)
        outline = Outline.of(traits)
        index = _index(u)
        self.top, self.bottom = outline.top[index], outline.bottom[index]
        self.outline, self.index = outline, index
        self.colour: Field = np.zeros((3, *u.shape), dtype=np.float32)
        self.coverage: Field = np.zeros(u.shape, dtype=np.float32)
        self.fin = traits.rgb("fin")[:, None, None]

    def paint(self) -> Layers:
        """All parts in their order."""
        self._tail()
        self._back_fin()
        self._belly_fin()
        self._leaf(0.37, -self._height(0.37, self.outline.bottom) * 0.9, -118.0, self.traits.pelvic_length, 0.34, 0.85)
        self._body()
        self._leaf(0.30, -0.06 * self.traits.body_depth, -152.0, self.traits.pectoral_length, 0.42, 0.55)
        self._face()
        return Layers(self.colour, self.coverage)

    def _height(self, u: float, table: Field) -> float:
        return float(table[round(u * (_TABLE - 1))])

    def _over(self, colour: Field, coverage: Field) -> None:
        """Put a layer of straight colour over what is there."""
        keep = 1.0 - coverage
        self.colour *= keep
        self.colour += colour * coverage
        self.coverage *= keep
        self.coverage += coverage

    def _rays(self, along: Field, count: float, share: Field) -> Field:
        """Fin colour with rays, darker towards the base: (3, H, W)."""
        ray = 0.90 + 0.14 * np.cos((2.0 * np.pi * count) * along)
        fin: Field = self.fin * (ray * (0.80 + 0.28 * share))
        return fin

    def _tail(self) -> None:
        t = self.traits
        w = (self.u - 1.0) / t.tail_length
        open_ = np.clip(w, 0.0, 1.2) ** 0.8
        half = t.peduncle_depth / 2.0 + (t.tail_height - t.peduncle_depth) / 2.0 * open_
        side = np.minimum(np.abs(self.v) / np.maximum(half, 1e-3), 1.0)
        forked = t.tail_fork > 0.0
        end = 1.0 - t.tail_fork * (1.0 - side**1.4) if forked else 1.0 + t.tail_fork * side**2.2  # of w, (H, W)
        inside = np.minimum(np.minimum(half - np.abs(self.v), (end - w) * (0.8 * t.tail_length)), self.u - 0.97)
        fan = self.v / np.maximum(half, 1e-3)
        self._over(
            self._rays(fan, 5.0, np.clip(w, 0.0, 1.0)), _cover(inside, self.edge) * (0.92 - 0.14 * np.clip(w, 0, 1))
        )

    def _edge_fin(self, height_above: Field, start: float, end: float, height: float, peak: float, spines: int) -> None:
        """A fin along the back or belly; `height_above` (H, W) is the distance beyond the body's outline."""
        swept = self.u - 0.75 * np.clip(height_above, 0.0, 1.0)
        t = (swept - start) / (end - start)
        profile = height * _fin_profile(peak, spines)[_index(t)]
        inside = np.minimum(profile - height_above, np.minimum(t, 1.0 - t) * (end - start))
        inside = np.minimum(inside, height_above + 0.05)
        share = np.clip(height_above / height, 0.0, 1.0)
        colour = self._rays(t, 15.0, share)
        colour += (self.traits.rgb("mark")[:, None, None] - colour) * (self._bars() * 0.45 * (1.0 - share))
        self._over(colour, _cover(inside, self.edge) * 0.88)

    def _back_fin(self) -> None:
        t = self.traits
        self._edge_fin(self.v - self.top, t.dorsal_start, 0.95, t.dorsal_height, t.dorsal_peak, 8)

    def _belly_fin(self) -> None:
        t = self.traits
        self._edge_fin(-self.v - self.bottom, 0.58, 0.94, t.anal_height, t.anal_peak, 3)

    def _leaf(self, u: float, v: float, angle: float, length: float, width: float, opacity: float) -> None:
        """A paired fin: a leaf of `length` from (u, v), `angle` in degrees from the direction of the snout."""
        radians = np.deg2rad(angle)
        du, dv = self.u - np.float32(u), self.v - np.float32(v)
        along = (-np.cos(radians) * du + np.sin(radians) * dv) / length
        across = (np.sin(radians) * du + np.cos(radians) * dv) / length
        inner = np.clip(along, 0.0, 1.0)
        half = width * np.sqrt(inner) * (1.0 - inner**2.5)
        inside = np.minimum(half - np.abs(across), np.minimum(along, 1.0 - along)) * length
        fan = across / (0.15 + inner)
        self._over(self._rays(fan, 5.0, inner), _cover(inside, self.edge) * opacity)

    def _bars(self) -> Field:
        """Opacity of bars or stripes (H, W)."""
        t = self.traits
        angle = np.deg2rad(t.bar_angle)
        bow = 0.10 * (self.v / t.body_depth) ** 2  # upright bars bow forward like a body's rings
        lengthwise = self.v / (0.95 * t.body_depth)
        position = np.cos(angle) * (self.u + bow) * 0.95 + np.sin(angle) * lengthwise
        wave = np.abs((position * round(t.bar_count) + self.phase) % 1.0 - 0.5)
        step = self.edge * round(t.bar_count) * (np.cos(angle) + np.sin(angle) / t.body_depth)
        bars: Field = np.clip((t.bar_width / 2.0 - wave) / max(step, 0.04) + 0.5, 0.0, 1.0) * t.bar_strength
        return bars

    def _spots(self) -> Field:
        """Opacity of spots on a staggered lattice and of the one large eyespot (H, W)."""
        t = self.traits
        a = self.u * t.spot_count + 0.3 * np.sin(9.0 * self.v + 5.0 * self.u)
        b = self.v * (1.12 * t.spot_count)
        row = np.floor(b)
        a = (a + 0.5 * (row % 2.0)) % 1.0 - 0.5
        distance = np.sqrt(a**2 + (b - row - 0.5) ** 2)
        soft = max(self.edge * t.spot_count, 0.06)
        spots: Field = np.clip((t.spot_size / 2.0 - distance) / soft + 0.5, 0.0, 1.0) * t.spot_strength
        return spots

    def _body(self) -> None:
        t = self.traits
        u, v = self.u, self.v
        inside = np.minimum(self.top - v, v + self.bottom)
        slope = np.abs(np.gradient(self.outline.top)) * _TABLE
        inside = inside / np.sqrt(1.0 + slope.astype(np.float32)[self.index] ** 2)
        cover = _cover(np.minimum(inside, np.minimum(u, 1.03 - u)), self.edge)
        level = np.where(v > 0, v / np.maximum(self.top, 1e-3), v / np.maximum(self.bottom, 1e-3))  # -1 belly … 1 back
        back = np.clip(level * 1.5 - 0.15, 0.0, 1.0)
        belly = np.clip(-level * 1.5 - 0.45, 0.0, 1.0)
        colour = np.empty_like(self.colour)
        colour[:] = t.rgb("body")[:, None, None]
        colour += (t.rgb("back")[:, None, None] - colour) * back
        colour += (t.rgb("belly")[:, None, None] - colour) * belly
        mark = t.rgb("mark")[:, None, None]
        pattern = self._bars() * np.clip((u - 0.04) / 0.06, 0.0, 1.0)
        pattern = np.maximum(pattern, self._spots() * np.clip((u - 0.22) / 0.05, 0.0, 1.0) * (level > -0.75))
        colour += (mark - colour) * pattern
        self._eyespot(colour)
        scales = np.cos(u * 150.0 + np.pi * np.floor(v * 48.0)) * np.cos(v * (48.0 * 2 * np.pi))
        fade = float(np.clip(0.012 / self.edge, 0.0, 1.0))
        round_ = np.sqrt(np.maximum(1.0 - level**2, 0.0))
        shade = 0.62 + 0.34 * round_ + 0.16 * level + (0.05 * fade) * scales
        gloss = 0.20 * np.exp(-(((level - 0.45) / 0.16) ** 2)) * np.clip((u - 0.08) * 4.0, 0.0, 1.0)
        colour *= shade
        colour += (1.0 - colour) * gloss
        self._over(np.clip(colour, 0.0, 1.0), cover)

    def _eyespot(self, colour: Field) -> None:
        t = self.traits
        if t.eyespot < 0.05:
            return
        radius = min(0.03 + 0.09 * t.body_depth, 0.9 * self._height(0.80, self.outline.top))
        distance = np.sqrt((self.u - 0.80) ** 2 + (self.v - 0.04 * t.body_depth) ** 2)
        ring = _cover(radius - distance, self.edge) * t.eyespot
        core = _cover(0.68 * radius - distance, self.edge) * t.eyespot
        colour += (np.float32(0.92) - colour) * (ring * 0.85)
        colour += (np.float32(0.04) - colour) * core

    def _face(self) -> None:
        """Gill cover, mouth, eye stripe and eye."""
        t = self.traits
        u, v, edge = self.u, self.v, self.edge
        eye_u = 0.125 + 0.10 * t.snout_length
        eye_v = 0.42 * self._height(eye_u, self.outline.top)
        body = np.minimum(self.top - v, v + self.bottom)
        on_body = _cover(body - 0.5 * edge, edge)
        dark = np.float32(0.06)
        gill_u = eye_u + 0.135
        arc = np.abs(np.hypot(u - gill_u + 0.16, v / max(0.9, 1.6 * t.body_depth)) - 0.16)
        side = np.clip((u - gill_u + 0.10) / 0.05, 0.0, 1.0) * on_body
        self._shadow(_cover(0.006 - arc, edge) * side * 0.45)
        mouth_v = -0.10 * self._height(0.06, self.outline.bottom)
        mouth = _cover(0.0075 - np.abs(v - mouth_v + 0.25 * u), edge) * _cover(0.055 - u, edge) * on_body
        self._shadow(mouth * 0.75)
        if t.eye_stripe > 0.05:
            stripe = _cover(0.8 * t.eye_size - np.abs(u - eye_u - 0.10 * (v - eye_v)), edge) * on_body
            self._shadow(stripe * (t.eye_stripe * 0.92))
        distance = np.hypot(u - eye_u, v - eye_v)
        iris = 0.55 * t.rgb("fin")[:, None, None] + np.float32(0.40)
        self._over(iris, _cover(t.eye_size - distance, edge))
        self._over(np.full_like(iris, dark), _cover(0.66 * t.eye_size - distance, edge))
        glint = np.hypot(u - eye_u + 0.25 * t.eye_size, v - eye_v - 0.28 * t.eye_size)
        self._over(np.full_like(iris, 0.97), _cover(0.24 * t.eye_size - glint, edge) * 0.95)

    def _shadow(self, opacity: Field) -> None:
        """Darken what is painted."""
        self.colour *= 1.0 - opacity
