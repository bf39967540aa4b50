"""What the brushes of a portrait share: coordinates on the turned head, colours, light, and soft edges."""

from dataclasses import dataclass

import torch
from torch import Tensor

from lightleak.data.factors import CIRCUMSTANCES, FACTORS

# Distances are signed (negative inside), in half picture widths; y points down.


@dataclass(frozen=True)
class Scene:
    """Everything that brushes share: numbers are N x 1 x 1, maps N x H x W, colours N x 3 x 1."""

    p: dict[str, Tensor]  # identity factors
    c: dict[str, Tensor]  # circumstances
    column: Tensor  # the picture plane
    row: Tensor
    x: Tensor  # the upright head: outlines live here
    y: Tensor
    fx: Tensor  # the turned face: eyes, nose and mouth live here
    fy: Tensor
    ax: Tensor  # |fx|: both halves of the face are painted at once
    side: Tensor  # -1 or 1: which half
    turn: Tensor  # sines of yaw and pitch
    nod: Tensor
    light: Tensor  # where the light comes from: negative is left
    shade: Tensor  # map of light on a rounded head
    strands: Tensor  # map of hair, about -1 to 1
    width: Tensor  # half-width of the face
    height: Tensor
    face: Tensor  # distance to the outline of the face
    skin: Tensor
    hair: Tensor
    eye_x: Tensor
    eye_y: Tensor
    eye_width: Tensor
    nose_y: Tensor
    nose_width: Tensor
    mouth_y: Tensor
    edge: Tensor  # softness of edges: half a pixel, and the blur
    pixel: float

    def inside(self, distance: Tensor, softer: float = 0.0) -> Tensor:
        """Antialiased coverage of a shape, in [0, 1]."""
        return torch.sigmoid(distance * (-1 / (self.edge + softer)))

    def line(self, distance: Tensor, thickness: Tensor | float) -> Tensor:
        """Antialiased coverage of a line along a shape's edge."""
        return self.inside(distance.abs() - thickness)


def fade(frequency: float, pixel: float) -> float:
    """The contrast of a wave that remains when pixels average over it."""
    return 1 / (1 + (frequency * pixel / 2.2) ** 4)


def bump(t: Tensor) -> Tensor:
    """A soft hill: 1 at 0, a quarter at 1, next to nothing beyond 3."""
    hill = torch.reciprocal(t * t + 1)
    return hill * hill


def ellipse(x: Tensor, y: Tensor, width: Tensor | float, height: Tensor | float) -> Tensor:
    """Distance to an ellipse around the origin, to first order along its shorter axis."""
    u, v = x * (1 / width), y * (1 / height)
    if isinstance(width, Tensor) or isinstance(height, Tensor):
        shorter = torch.minimum(torch.as_tensor(width).to(x), torch.as_tensor(height).to(x))
    else:
        shorter = min(width, height)
    return (torch.sqrt(u * u + v * v + 1e-4) - 1) * shorter


def rounded(u2: Tensor, v2: Tensor, corner: Tensor | float) -> Tensor:
    """Squared radius of a squircle (Fernandez-Guasti 1992): an ellipse at corner 0, a rectangle at 1."""
    return u2 + v2 - corner * u2.clamp(max=1) * v2.clamp(max=1)


def palette(position: Tensor, *anchors: tuple[float, float, float]) -> Tensor:
    """Colours N x 3 x 1 on the parabola through three anchors at positions -1, 0 and 1 (N x 1 x 1)."""
    low, middle, high = (position.new_tensor(anchor).view(1, 3, 1) for anchor in anchors)
    return middle + position * (high - low) / 2 + position * position * ((low + high) / 2 - middle)


def tint(like: Tensor, *rgb: float) -> Tensor:
    """A fixed colour, 1 x 3 x 1."""
    return like.new_tensor(rgb).view(1, 3, 1)


def set_up(factors: Tensor, circumstances: Tensor, size: int) -> Scene:
    """Pose, colours and light of N portraits."""
    factors = factors.clamp(-1, 1)
    circumstances = 2.5 * torch.tanh(circumstances / 2.5)
    p = {factor.name: factors[:, i, None, None] for i, factor in enumerate(FACTORS)}
    c = {factor.name: circumstances[:, i, None, None] for i, factor in enumerate(CIRCUMSTANCES)}
    pixel = 2 / size
    line = (torch.arange(size, device=factors.device, dtype=factors.dtype) + 0.5) * pixel - 1
    column, row = line.view(1, 1, size), line.view(1, size, 1)

    # 1. the picture plane: shift, roll, scale
    angle, zoom = 0.12 * c["roll"], 0.89 * torch.exp(-0.07 * c["scale"])
    cos, sin = torch.cos(angle) * zoom, torch.sin(angle) * zoom
    dx, dy = column - 0.05 * c["shift_x"], row - 0.02 - 0.05 * c["shift_y"]
    x, y = cos * dx + sin * dy, cos * dy - sin * dx
    # 2. the head turns: what is nearer to the viewer, as on a dome, moves further
    turn, nod = torch.sin(0.19 * c["yaw"]), torch.sin(0.14 * c["pitch"])
    xx, yy = x * x, y * y
    dome = 0.42 * torch.reciprocal(2.6 * xx + 1.8 * yy + 1)
    fx, fy = x - turn * dome, y - nod * dome
    side = torch.sign(fx).detach()
    # 3. the outline of the face: an ellipse with a tapered, more or less angular jaw
    width, height = 0.455 + 0.055 * p["face_width"], 0.575 + 0.045 * p["face_height"]
    lower = torch.sigmoid(9 * y)
    ramp = 0.5 * (y - 0.02 + torch.sqrt((y - 0.02) * (y - 0.02) + 0.02))
    taper = 1 - (0.58 - 0.30 * p["jaw_width"]) * ramp + 0.05 * p["cheekbones"] * bump((y - 0.1) / 0.22)
    u = x / (width * taper)
    v = y / (height * (1.02 + 0.05 * (p["chin"] + 0.4) * lower))
    radius2 = rounded(u * u, v * v, lower * (0.32 + 0.28 * p["jaw_square"]))
    # 4. colours
    skin = palette(p["skin_tone"], (0.93, 0.775, 0.69), (0.78, 0.58, 0.45), (0.38, 0.245, 0.175))
    skin = skin + tint(skin, 0.005, 0.018, -0.03) * p["skin_warmth"]
    hair = palette(p["hair_lightness"], (0.085, 0.07, 0.065), (0.32, 0.20, 0.125), (0.84, 0.68, 0.44))
    ginger = palette(p["hair_lightness"], (0.17, 0.075, 0.055), (0.46, 0.20, 0.10), (0.78, 0.45, 0.25))
    hair = torch.lerp(hair, ginger, torch.sigmoid(4.5 * p["hair_redness"] - 2))
    grey = 0.75 * torch.sigmoid(5 * p["hair_grey"] - 2.5)
    hair = torch.lerp(hair, 0.3 + 0.5 * hair.mean(1, keepdim=True), grey)
    # 5. light on a rounded head, from the upper left when neutral
    light = c["light_x"] - 0.35
    shade = 1.02 + (0.15 * light / width) * fx + ((0.10 * c["light_y"] - 0.06) / height) * fy
    # 6. strands fan out from the parting; what is finer than pixels fades
    fan = (x - 0.2 * p["parting"]) / (0.42 + (y + 0.85).clamp(min=0))
    wave = (0.3 + 0.5 * p["hair_curl"]) * torch.sin(15 * y + 7 * x)
    strands = (0.26 * fade(40, pixel)) * torch.sin(26 * fan + 1.6 * torch.sin(13 * fan + 1) + 2.5 * wave + 1)
    strands = strands + (0.38 * fade(83, pixel)) * torch.sin(83 * fan + 3 * y + 4 * wave)
    if fade(170, pixel) > 0.05:
        strands = strands + (0.32 * fade(170, pixel)) * torch.sin(170 * fan - 5 * y + 5 * wave)
    return Scene(
        p=p,
        c=c,
        column=column,
        row=row,
        x=x,
        y=y,
        fx=fx,
        fy=fy,
        ax=fx * side,
        side=side,
        turn=turn,
        nod=nod,
        light=light,
        shade=shade,
        strands=strands,
        width=width,
        height=height,
        face=(torch.sqrt(radius2 + 1e-4) - 1) * width,
        skin=skin,
        hair=hair,
        eye_x=0.188 + 0.026 * p["eye_spacing"] + 0.25 * (width - 0.455),
        eye_y=-0.05 + 0.035 * p["eye_height"],
        eye_width=0.098 + 0.019 * p["eye_size"],
        nose_y=0.15 + 0.042 * p["nose_length"] + 0.2 * (height - 0.575),
        nose_width=0.084 + 0.030 * p["nose_width"],
        mouth_y=0.335 + 0.034 * p["mouth_height"] + 0.45 * (height - 0.575),
        edge=0.33 * pixel + 0.0035 * torch.exp(0.7 * c["blur"]),
        pixel=pixel,
    )
