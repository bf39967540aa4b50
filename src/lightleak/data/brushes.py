"""The brushes of a portrait: each yields the layers of one part of it, from back to front."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from lightleak.data.scene import Scene, bump, ellipse, fade, palette, rounded, tint


@dataclass(frozen=True)
class Layer:
    """A layer of paint: coverage in [0, 1] (N x H x W; None is everywhere) and the sum of map x colour."""

    coverage: Tensor | None
    paints: tuple[tuple[Tensor | None, Tensor], ...]  # (light N x H x W or None for 1, colour N x 3 x 1)


Layers = Iterator[Layer]


def paint(coverage: Tensor | None, colour: Tensor, light: Tensor | None = None) -> Layer:
    """A layer of one colour."""
    return Layer(coverage, ((light, colour),))


def background(s: Scene) -> Layers:
    """A wall with a soft spot of light."""
    c = s.c
    tone = 0.58 + 0.13 * c["background_tone"] + 0.05 * c["background_slope"] * s.column - 0.06 * s.row
    spot = torch.sqrt((s.column - 0.2).square() + (s.row + 0.3).square())
    warm, green = 0.07 * c["background_warmth"], 0.035 * c["background_green"]
    cast = torch.cat((0.98 + warm - green, 1.0 + green, 1.03 - warm - green), 1)
    yield paint(None, cast, tone + 0.07 * bump(spot / 0.9))


def clothes(s: Scene) -> Layers:
    """Shoulders in a plain shirt."""
    x2 = s.x * s.x
    light = 1.06 + (0.16 * s.light) * s.x - 0.25 * x2 + 0.10 * torch.sin(5 * s.x + 3 * s.y) * (s.y - 0.6)
    yield paint(s.inside(0.85 * (0.69 + 0.30 * x2 - s.y)), _cloth(s, 0.38), light)


def collar(s: Scene) -> Layers:
    """The rim of the shirt's neckline."""
    x2 = s.x * s.x
    rim = s.line(0.8 * (s.y - 0.84 + 1.6 * x2) - 0.014, 0.016)
    reach = s.inside(s.x.abs() - 0.34 - 0.05 * s.p["neck_width"]) * s.inside(0.70 + 0.30 * x2 - s.y)
    yield paint(rim * reach, _cloth(s, 0.30))


def _cloth(s: Scene, tone: float) -> Tensor:
    hue = 0.18 * s.c["clothes_hue"]
    return (tone + 0.12 * s.c["clothes_tone"]) * torch.cat((1 + hue, 1 - 0.3 * hue.abs(), 1.1 - hue), 1)


def _volume(s: Scene) -> Tensor:
    """Distance of the hair's outline from the skull."""
    waves = torch.sin(15 * s.x + 4) * torch.sin(13 * s.y)
    return 0.058 + 0.045 * s.p["hair_volume"] + (0.014 + 0.016 * s.p["hair_curl"]) * waves


def hair_behind(s: Scene) -> Layers:
    """The hair that falls behind the face."""
    spread = s.width + _volume(s)
    end = 0.50 * (1 + s.p["hair_length"]) - 0.16
    above = (s.y + 0.08).clamp(max=0) / (s.height + 0.05 + 0.04 * s.p["hair_volume"])
    below = (s.y - end).clamp(min=0) / 0.27
    across = s.x / spread
    d = (torch.sqrt(across * across + above * above + below * below + 1e-4) - 1) * s.width
    light = 0.72 + 0.16 * s.strands + (0.10 * s.light) * s.x - 0.10 * s.y
    yield paint(s.inside(d), s.hair, light)


def neck(s: Scene) -> Layers:
    """The neck, in the shadow of the chin."""
    width = 0.265 + 0.035 * s.p["neck_width"]
    x2, flare = s.x * s.x, (s.y - 0.60).clamp(min=0)
    shape = s.inside(s.x.abs() - width - 0.9 * flare * flare) * s.inside(s.y - 0.84 + 1.6 * x2)
    chin = bump(s.face.clamp(min=0) / 0.17)
    throat = bump((s.x.abs() - 0.5 * width + 0.4 * (s.y - 0.62)) / 0.035) * torch.sigmoid((s.y - 0.68) / 0.05)
    light = 0.95 - (0.17 / width**2) * x2 + (0.18 * s.light) * s.x - 0.36 * chin - 0.07 * throat
    yield paint(shape * s.inside(0.2 - s.y), s.skin, light)


def ears(s: Scene) -> Layers:
    """Both ears, shifted against the turn of the head."""
    x = s.x + 0.10 * s.turn
    size = 1 + 0.38 * s.p["ear_size"]
    dx, dy = x.abs() - s.width - 0.012 * size, s.y - 0.04 + 0.1 * s.nod
    yield paint(s.inside(ellipse(dx, dy, 0.055 * size, 0.115 * size)), 0.88 * s.skin, s.shade)
    yield paint(0.5 * s.inside(ellipse(dx, dy, 0.026 * size, 0.07 * size)), 0.62 * s.skin)


def skin(s: Scene) -> Layers:
    """The face: sockets, cheeks, jaw and lines as light and shadow; blush, freckles and a mole as colour."""
    p, c = s.p, s.c
    rim = (1 + s.face * (1 / s.width)).clamp(min=0)
    rim = rim * rim
    light = s.shade + 0.05 - 0.17 * rim * rim
    light = light - 0.15 * bump((s.ax - s.eye_x + 0.01) / 0.13) * bump((s.fy - s.eye_y + 0.035) / 0.085)
    cheek_x, cheek_y = (s.ax - 0.26) / 0.12, (s.fy - 0.14 + 0.01 * c["smile"]) / 0.10
    cheek = torch.reciprocal(1 + cheek_x * cheek_x + cheek_y * cheek_y)
    cheek = cheek * cheek
    light = light + cheek * (0.04 + 0.015 * c["smile"] + (0.03 * s.light) * s.side)
    hollow = bump((s.ax - 0.31) / 0.09) * bump((s.fy - 0.30) / 0.12)
    light = light - (0.07 - 0.07 * p["cheekbones"]) * hollow
    middle = bump(s.fx / 0.2)
    light = light + middle * (0.05 * bump((s.fy + 0.30) / 0.12) - 0.07 * bump((s.fy - s.mouth_y - 0.105) / 0.035))
    # lines: folds beside the nose, and across the forehead
    lined = torch.sigmoid(3.5 * p["wrinkles"] - 1)
    fold = bump((s.ax - 1.30 * s.nose_width - 0.34 * (s.fy - s.nose_y + 0.02) - 0.012 * c["smile"]) / 0.016)
    fold = fold * bump((s.fy - 0.5 * (s.nose_y + s.mouth_y) + 0.01) / 0.11)
    forehead = torch.sin(52 * s.fy + 6 * s.fx * s.fx).clamp(min=0) * bump((s.fy - s.eye_y + 0.29) / 0.08)
    light = light - (0.04 + 0.30 * lined + 0.03 * c["smile"]) * fold
    light = light - (0.26 * fade(40, s.pixel) * lined) * forehead * middle
    mole = s.inside(ellipse(s.fx - 0.27 * p["mole"], s.fy - 0.20, 0.021, 0.021))
    light = light * (1 - (0.64 * p["mole"].square().square()) * mole)
    red = (0.12 + 0.12 * p["blush"]) * (cheek + 0.7 * bump(s.fx / 0.07) * bump((s.fy - s.nose_y) / 0.07))
    dots = torch.sin(50 * s.fx + 20 * s.fy + 1.5 * torch.sin(13 * s.fy))
    dots = dots * torch.sin(52 * s.fy - 19 * s.fx + 1.5 * torch.sin(11 * s.fx + 1))
    dots = torch.sigmoid(9 * fade(45, s.pixel) * dots - 4) * bump(s.fx / 0.30) * bump((s.fy - 0.10) / 0.13)
    dots = (0.8 * torch.sigmoid(4 * p["freckles"] - 1.2)) * dots
    yield Layer(
        s.inside(s.face),
        (
            (light, s.skin),
            (light * red, s.skin * tint(s.skin, 0, -0.75, -0.75)),
            (light * dots, s.skin * tint(s.skin, -0.25, -0.42, -0.5)),
        ),
    )


def beard(s: Scene) -> Layers:
    """Stubble to full beard, and a moustache."""
    p = s.p
    amount = 0.93 * torch.sigmoid(4.5 * p["beard"] - 1.6)
    cheek_line = 0.27 - 0.55 * (s.ax - 0.12).clamp(min=0) + 0.10 * bump(s.fx / 0.12)
    lips = ellipse(s.fx, s.fy - s.mouth_y - 0.005, 0.17, 0.075)
    growth = s.inside(s.face - 0.035 * amount, softer=0.014) * s.inside(0.8 * (cheek_line - s.fy), softer=0.014)
    light = 0.84 + 0.14 * s.strands + (0.10 * s.light) * s.fx - 0.15 * (s.fy - 0.4)
    yield paint(amount * growth * s.inside(-lips, softer=0.014), torch.lerp(s.hair, s.skin, 0.12), light)
    amount = 0.9 * torch.sigmoid(5 * p["moustache"] - 2.2)
    x, y = s.ax - 0.065, s.fy - 0.5 * (s.nose_y + s.mouth_y) - 0.028
    d = ellipse(x, y - (0.35 - 0.048 * s.c["smile"]) * x, 0.105, 0.033)
    yield paint(amount * s.inside(d, softer=0.006), torch.lerp(s.hair, s.skin, 0.12), light)


def mouth(s: Scene) -> Layers:
    """Two lips, the line between them, and teeth where it opens."""
    p, c = s.p, s.c
    width = 0.155 + 0.036 * p["mouth_width"] + 0.012 * c["smile"]
    full = 0.037 + 0.021 * p["lip_fullness"]
    gap = 0.085 * torch.sigmoid(2.2 * c["mouth_open"] - 2.2)
    u = s.fx * (1 / width)
    u2 = u * u
    arch, ends = 1 - u2, s.ax - width
    middle = s.fy - s.mouth_y + (0.03 * c["smile"] + 0.008) * (u2 - 0.45)
    above, below = middle + (0.35 * gap) * arch, middle - (0.75 * gap) * arch
    top = above + (0.85 * full) * arch * (1 - 0.30 * bump(s.fx / 0.022))
    bottom = below - (1.1 * full) * arch
    within = s.inside(ends)
    colour = palette(p["lip_colour"], (0.80, 0.60, 0.56), (0.76, 0.42, 0.40), (0.64, 0.17, 0.20))
    colour = colour * (0.45 + 0.73 * s.skin.mean(1, keepdim=True))
    light = s.shade * (0.84 + 0.2 * torch.sigmoid(middle / 0.012))
    light = light + 0.16 * bump((middle - 0.75 * gap - 0.5 * full) / 0.018) * bump(s.fx / 0.07)
    yield paint(0.9 * within * s.inside(-0.9 * top) * s.inside(0.9 * bottom), colour, light)
    opening = torch.tanh(gap / 0.012) * within * s.inside(-above) * s.inside(below)
    teeth = s.inside(middle - 0.2 * gap, softer=0.004)
    dark, white = tint(s.skin, 0.26, 0.10, 0.10), tint(s.skin, 0.90, 0.87, 0.83)
    yield Layer(opening, ((None, dark), (teeth, white - dark)))
    closed = 0.8 - 0.64 * torch.tanh(gap / 0.02)
    yield paint(closed * s.line(middle, 0.004) * within, 0.33 * colour)
    yield paint(0.35 * bump(ends / 0.022) * bump(middle / 0.025), 0.5 * s.skin)


def nose(s: Scene) -> Layers:
    """A shadow on the side away from the light, the edges of tip and wings, nostrils, and a shine on the ridge."""
    x, dy = s.fx - 0.12 * s.turn, s.fy - 0.10 * s.nod - s.nose_y
    side = torch.sign(x).detach()
    ax = x * side
    along = torch.sigmoid((dy + (s.nose_y - s.eye_y) + 0.06) / 0.035) * torch.sigmoid((0.02 - dy) / 0.02)
    flank = bump((ax - 0.045 - 0.25 * s.nose_width - 0.02 * dy) / 0.045) * along
    away = 0.02 + 0.30 * torch.sigmoid((-1.4 * s.light) * side)
    tip = ellipse(x, dy - 0.005, 0.62 * s.nose_width, 0.045)
    wing = ellipse(ax - 0.66 * s.nose_width, dy - 0.012, 0.42 * s.nose_width, 0.034)
    under = s.line(torch.minimum(tip, wing), 0.006) * torch.sigmoid((dy - 0.012) / 0.014)
    rim = s.line(wing, 0.004) * torch.sigmoid((ax - 0.8 * s.nose_width) / 0.012)
    shadow = away * (0.85 + 0.70 * s.p["nose_bridge"]) * flank
    shadow = shadow + 0.42 * under + 0.30 * rim + 0.16 * bump(x / 0.10) * bump((dy - 0.075) / 0.028)
    yield paint(shadow, 0.52 * s.skin)
    nostril = ellipse(ax - 0.46 * s.nose_width, dy - 0.036, 0.24 * s.nose_width, 0.013)
    yield paint(0.8 * s.inside(nostril), 0.2 * s.skin)
    shine = bump((x - 0.012 * s.light) / 0.022) * (bump((dy + 0.01) / 0.028) + 0.5 * along)
    yield paint(0.22 * shine, 0.35 + 0.75 * s.skin)


def eyes(s: Scene) -> Layers:
    """Both eyes: white, iris, pupil and its light within the lids; then lashes, crease and lower edge."""
    p, c, width = s.p, s.c, s.eye_width
    dx = s.ax - s.eye_x
    dy = s.fy - s.eye_y + (0.16 * p["eye_tilt"] + 0.03) * dx
    t = dx * (1 / width)
    arch, ends = 1 - t * t, dx.abs() - width
    opening = torch.sigmoid(1.1 + 0.9 * c["eyes_open"]) / 0.75
    lid = dy + (width * (0.43 + 0.13 * p["eye_shape"]) * opening) * arch
    low = dy - (width * (0.29 + 0.07 * p["eye_shape"]) * (0.6 + 0.4 * opening)) * arch
    eye = s.inside(-0.88 * lid) * s.inside(0.88 * low) * s.inside(ends)
    under_lid = bump(lid / 0.022)
    yield paint(eye, tint(s.skin, 0.97, 0.955, 0.94), (0.83 + 0.14 * arch - 0.30 * under_lid) * (0.88 + 0.12 * s.shade))
    # both eyes look the same way and reflect the same lamp
    radius = 0.033 + 0.126 * width
    ix, iy = dx - (0.022 * c["gaze"]) * s.side, dy + 0.006
    distance = torch.sqrt(ix * ix + iy * iy + 1e-5)
    iris = palette(p["eye_colour"], (0.27, 0.15, 0.085), (0.40, 0.42, 0.22), (0.36, 0.57, 0.80))
    rays = 0.72 + 0.5 * bump((distance - 0.55 * radius) / 0.016) - 0.25 * under_lid
    yield paint(eye * s.inside(distance - radius), iris, rays)
    yield paint(eye * s.inside(distance - 0.45 * radius), tint(s.skin, 0.06, 0.06, 0.06))
    gx, gy = ix + 0.014 * s.side, iy + 0.016
    glint = torch.sqrt(gx * gx + gy * gy + 1e-5) - 0.011
    yield paint(0.9 * eye * s.inside(glint), tint(s.skin, 0.98, 0.98, 0.98))
    thick = (0.007 + 0.005 * p["lashes"]) * (1 + 0.6 * t)
    lashes = s.line(0.9 * lid + 0.004, thick) * s.inside((dx - 0.01).abs() - width - 0.012)
    yield paint((0.68 + 0.24 * p["lashes"]) * lashes, 0.25 * s.hair + 0.12 * s.skin)
    crease = s.line(lid + 0.028 + 0.012 * arch, 0.003)
    yield paint((0.34 * crease + 0.28 * s.line(low - 0.004, 0.003)) * s.inside(ends + 0.09 * width), 0.5 * s.skin)


def brows(s: Scene) -> Layers:
    """Both brows."""
    p = s.p
    length = 0.125 + 0.2 * (s.eye_width - 0.098)
    dx = s.ax - s.eye_x - 0.012
    t = dx * (1 / length)
    rise = 0.118 + 0.022 * p["brow_height"] + 0.016 * s.c["brow_raise"] + 0.35 * (s.eye_width - 0.098)
    curve = (0.026 + 0.022 * p["brow_arch"]) * (1 - t * t) + (0.012 + 0.028 * p["brow_tilt"]) * t
    thick = (0.020 + 0.012 * p["brow_thickness"]) * (1 - 0.35 * t)
    stroke = s.inside((s.fy - (s.eye_y - rise) + curve).abs() - thick, softer=0.003)
    hairs = 1 + (0.22 * fade(100, s.pixel)) * torch.sin(95 * s.ax + 60 * s.fy)
    yield paint(0.86 * stroke * s.inside(dx.abs() - length, softer=0.003), 0.62 * s.hair, hairs)


def hair_front(s: Scene) -> Layers:
    """The hair on top: hairline, fringe, parting, sideburns, and the shadow they cast on the forehead."""
    p = s.p
    volume = _volume(s)
    u, v = s.x / (s.width + volume), (s.y + 0.08) / (s.height - 0.02 + volume)
    outer = (torch.sqrt(u * u + v * v + 1e-4) - 1) * s.width
    # 1. the hairline: an arc that opens at the parting and falls steeply at the temples; the fringe flattens it
    fringe = torch.sigmoid(3.5 * p["fringe"] - 0.8)
    t = s.fx * (1 / s.width)
    t2 = t * t
    t4 = t2 * t2
    ragged = 0.020 * torch.sin(26 * s.fx + 3 * p["parting"]) + (0.012 * fade(61, s.pixel)) * torch.sin(61 * s.fx + 1)
    open_at = s.fx - 0.2 * p["parting"]
    line = (0.19 * fringe - 0.43 - 0.05 * p["hairline"] + 0.024 * fringe) + 0.62 * t4 * t2
    line = line + (0.25 + 0.75 * fringe) * ragged + (0.10 * p["parting"] * (1 + fringe)) * s.fx
    line = line + (0.95 - 0.76 * fringe) * open_at * open_at
    line = line - (1 - fringe) * (0.05 + 0.03 * p["hairline"]) * bump((s.ax - 0.24) / 0.09)
    steep = torch.rsqrt(1 + (3.7 / s.width).square() * t4 * t4 * t2)
    above = s.fy - line
    sideburn = s.fy - (0.04 + 0.10 * (1 + p["hair_length"]) * (1.3 + p["hair_length"]))
    hang = above * steep
    yield paint(0.28 * torch.sigmoid((0.035 - hang) / 0.022) * s.inside(s.face), 0.45 * s.skin)
    # 2. light: strands, a band of shine, a darker rim, the line of the parting
    shine = bump((s.y + 0.47 - 0.45 * s.x * s.x) / 0.14)
    rim = 1 - (outer / -0.16).clamp(0, 1)
    parting = bump((s.x - 0.2 * p["parting"] - 0.12 * p["parting"] * (s.y + 0.62)) / 0.016)
    light = 0.95 + (0.22 * s.light) * s.x + (0.20 + 0.25 * shine) * s.strands + 0.22 * shine - 0.30 * rim * rim
    light = light - 0.32 * parting * torch.sigmoid((-0.05 - above) / 0.03)
    yield paint(s.inside(outer) * s.inside(hang) * s.inside(sideburn), s.hair + 0.03, light)


def glasses(s: Scene) -> Layers:
    """Lenses, rims, bridge and arms."""
    p = s.p
    wear = torch.sigmoid(10 * p["glasses"] - 2.5)
    rx, ry = 0.148 + 0.012 * p["glasses_shape"], 0.128 - 0.022 * p["glasses_shape"]
    dx, dy = s.ax - s.eye_x - 0.008, s.fy - s.eye_y - 0.012
    u, v = dx * (1 / rx), dy * (1 / ry)
    d = (torch.sqrt(rounded(u * u, v * v, 0.42 + 0.42 * p["glasses_shape"]) + 1e-4) - 1) * ry
    yield paint((0.10 * wear) * s.inside(d), tint(s.skin, 0.95, 0.95, 0.95))
    bridge = s.line(dy + 0.03 - 0.5 * s.fx * s.fx, 0.009) * s.inside(s.ax - s.eye_x + rx)
    arms = s.line(dy + 0.025, 0.009) * s.inside(s.eye_x + rx - s.ax) * s.inside(s.face - 0.01)
    for part in (s.line(d, 0.010), bridge + arms):
        yield paint((0.92 * wear) * part, tint(s.skin, 0.12, 0.12, 0.12))


# From back to front.
BRUSHES = (
    background,
    clothes,
    hair_behind,
    neck,
    collar,
    ears,
    skin,
    beard,
    mouth,
    nose,
    eyes,
    brows,
    hair_front,
    glasses,
)
