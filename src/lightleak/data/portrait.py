"""A differentiable portrait painter: identity factors and circumstances in, antialiased faces out."""

from dataclasses import dataclass

import torch
from torch import Tensor

from lightleak.errors import UserError

SMALLEST, LARGEST = 32, 512  # pixels a side


@dataclass(frozen=True)
class Factor:
    """One number that the painter reads: what its low and its high end draw."""

    name: str
    low: str
    high: str
    draws: str


# Values in [-1, 1]; what is beyond is drawn as the end of the range.
FACTORS: tuple[Factor, ...] = (
    Factor("face_width", "narrow", "wide", "half-width of the face"),
    Factor("face_height", "short", "long", "height of the face from hairline to chin"),
    Factor("jaw_width", "tapered", "broad", "width of the lower face"),
    Factor("jaw_square", "round", "angular", "corners of the jaw"),
    Factor("chin", "receding", "long", "length of the chin"),
    Factor("cheekbones", "hollow", "full", "width and shading of the cheeks"),
    Factor("neck_width", "slender", "thick", "width of the neck"),
    Factor("skin_tone", "light", "dark", "melanin, from light to dark skin"),
    Factor("skin_warmth", "rosy", "golden", "undertone of the skin"),
    Factor("blush", "none", "rosy", "red of the cheeks and nose"),
    Factor("hair_lightness", "black", "blond", "hair colour from black over brown to blond"),
    Factor("hair_redness", "ashen", "red", "red in the hair, brows and beard"),
    Factor("hair_grey", "none", "grey", "grey in the hair, brows and beard"),
    Factor("hair_volume", "flat", "full", "distance of the hair's outline from the head"),
    Factor("hair_length", "cropped", "long", "how far the hair falls beside the neck"),
    Factor("hair_curl", "straight", "curly", "waves in strands and outline"),
    Factor("hairline", "low", "receding", "height of the hairline"),
    Factor("fringe", "none", "to the brows", "hair that falls over the forehead"),
    Factor("parting", "left", "right", "side of the parting and slant of the fringe"),
    Factor("eye_spacing", "close", "wide", "distance of the eyes"),
    Factor("eye_height", "high", "low", "height of the eyes in the face"),
    Factor("eye_size", "small", "large", "size of the eyes"),
    Factor("eye_shape", "narrow", "round", "natural opening of the lids"),
    Factor("eye_tilt", "drooping", "raised", "height of the outer corners of the eyes"),
    Factor("eye_colour", "brown", "blue", "iris from brown over hazel and green to blue"),
    Factor("lashes", "faint", "dark", "line of the lashes"),
    Factor("brow_thickness", "thin", "bushy", "thickness of the brows"),
    Factor("brow_height", "low", "high", "distance of the brows from the eyes"),
    Factor("brow_tilt", "falling outwards", "rising outwards", "slope of the brows"),
    Factor("brow_arch", "straight", "arched", "curvature of the brows"),
    Factor("nose_width", "narrow", "broad", "width of the nose's tip and wings"),
    Factor("nose_length", "short", "long", "height of the nose's tip"),
    Factor("nose_bridge", "flat", "strong", "shading of the bridge"),
    Factor("mouth_width", "small", "wide", "width of the mouth"),
    Factor("mouth_height", "high", "low", "height of the mouth in the face"),
    Factor("lip_fullness", "thin", "full", "thickness of the lips"),
    Factor("lip_colour", "pale", "deep red", "colour of the lips"),
    Factor("ear_size", "small", "large", "size and distance of the ears"),
    Factor("beard", "shaven", "full", "beard, with stubble in between"),
    Factor("moustache", "none", "full", "moustache"),
    Factor("glasses", "none", "glasses", "presence of glasses, from 0.3 on"),
    Factor("glasses_shape", "round", "rectangular", "shape of the rims (shows with glasses)"),
    Factor("freckles", "none", "many", "freckles on cheeks and nose"),
    Factor("mole", "on the left cheek", "on the right cheek", "place of a mole; none in the middle"),
    Factor("wrinkles", "smooth", "lined", "lines of forehead and cheeks, folds beside the nose"),
)

# In standard deviations; 0 is neutral. Values are squashed to (-2.5, 2.5) before they are drawn.
CIRCUMSTANCES: tuple[Factor, ...] = (
    Factor("roll", "left", "right", "head turned in the picture plane, 7 degrees a unit"),
    Factor("scale", "far", "near", "size in the picture, 7 % a unit"),
    Factor("shift_x", "left", "right", "place in the picture, 2.5 % of its width a unit"),
    Factor("shift_y", "up", "down", "place in the picture, 2.5 % of its height a unit"),
    Factor("yaw", "to the left", "to the right", "head turned sideways, about 11 degrees a unit"),
    Factor("pitch", "up", "down", "head nodding, about 8 degrees a unit"),
    Factor("light_x", "from the left", "from the right", "direction of the light"),
    Factor("light_y", "from above", "from below", "direction of the light"),
    Factor("brightness", "dim", "bright", "exposure, 14 % a unit"),
    Factor("light_warmth", "cold", "warm", "colour of the light"),
    Factor("smile", "frown", "smile", "corners of the mouth, with the cheeks"),
    Factor("mouth_open", "closed", "open", "opening of the mouth, with teeth"),
    Factor("eyes_open", "narrowed", "wide", "opening of the lids"),
    Factor("brow_raise", "lowered", "raised", "height of the brows"),
    Factor("gaze", "left", "right", "where the eyes look"),
    Factor("background_tone", "dark", "light", "brightness of the background"),
    Factor("background_warmth", "blue", "brown", "colour of the background"),
    Factor("background_green", "purplish", "greenish", "colour of the background"),
    Factor("background_slope", "lighter left", "lighter right", "gradient of the background"),
    Factor("clothes_tone", "dark", "light", "brightness of the clothes"),
    Factor("clothes_hue", "blue", "red", "colour of the clothes"),
    Factor("blur", "sharp", "soft", "focus"),
)


# Small tools of the painter. Distances are signed (negative inside), in half picture widths.


def _palette(position: Tensor, low: tuple, middle: tuple, high: tuple) -> Tensor:
    """Colours N x 3 x 1 x 1 on the parabola through three anchors at positions -1, 0 and 1."""
    a, b, c = (position.new_tensor(anchor).view(1, 3, 1, 1) for anchor in (low, middle, high))
    t = position[:, None]
    return b + t * (c - a) / 2 + t * t * ((a + c) / 2 - b)


def _bump(t: Tensor) -> Tensor:
    """A soft hill: 1 at 0, falling smoothly to 0 around |t| = 2."""
    return 1 / (1 + t * t).square()


def _ellipse(x: Tensor, y: Tensor, width: Tensor | float, height: Tensor | float) -> Tensor:
    """Distance to an ellipse around the origin, exact to first order at the edge's short axis."""
    ratio = torch.sqrt((x / width).square() + (y / height).square() + 1e-4)
    small = torch.minimum(torch.as_tensor(width), torch.as_tensor(height)).to(x)
    return (ratio - 1) * small


@dataclass
class _Scene:
    """Everything that the brushes share; tensors are N x 1 x 1 (numbers) or N x H x W (maps)."""

    p: dict[str, Tensor]  # identity
    c: dict[str, Tensor]  # circumstances
    x: Tensor  # head coordinates: the outline lives here
    y: Tensor
    fx: Tensor  # coordinates on the turned face: eyes, nose and mouth live here
    fy: Tensor
    turn: Tensor  # sine of yaw
    nod: Tensor
    edge: Tensor  # softness of an edge
    pixel: float
    side: Tensor  # -1 or 1: half of the face
    ax: Tensor  # |fx|: both halves are painted at once
    width: Tensor
    height: Tensor
    skin: Tensor
    hair: Tensor
    shade: Tensor
    strands: Tensor
    face: Tensor  # distance to the face's outline
    u2: Tensor
    eye_x: Tensor
    eye_y: Tensor
    eye_width: Tensor
    mouth_y: Tensor
    nose_y: Tensor
    nose_width: Tensor

    def mask(self, distance: Tensor) -> Tensor:
        return torch.sigmoid(distance / -self.edge)

    def stroke(self, distance: Tensor, thickness: Tensor | float) -> Tensor:
        return torch.sigmoid((distance.abs() - thickness) / -self.edge)


def _over(image: Tensor, mask: Tensor, colour: Tensor) -> Tensor:
    return torch.lerp(image, colour, mask[:, None])


def render(factors: Tensor, circumstances: Tensor | None = None, size: int = 64) -> Tensor:
    """Portraits N x 3 x size x size in [0, 1], differentiable in factors (N x F) and circumstances (N x K).

    Without circumstances the portrait is neutral. Raises UserError for other shapes, or a size outside
    32 to 512.
    """
    if factors.dim() != 2 or factors.shape[1] != len(FACTORS):
        raise UserError(f"expected factors of shape N x {len(FACTORS)}, got {tuple(factors.shape)}")
    if circumstances is None:
        circumstances = factors.new_zeros(len(factors), len(CIRCUMSTANCES))
    if circumstances.shape != (len(factors), len(CIRCUMSTANCES)):
        raise UserError(
            f"expected circumstances of shape {len(factors)} x {len(CIRCUMSTANCES)}, "
            f"got {tuple(circumstances.shape)}"
        )
    if not SMALLEST <= size <= LARGEST:
        raise UserError(f"expected a size from {SMALLEST} to {LARGEST} pixels, got {size}")
    scene, column, row = _set_up(factors, circumstances, size)
    image = _background(scene, column, row)
    image = _torso(scene, image)
    image = _hair_behind(scene, image)
    image = _neck(scene, image)
    image = _ears(scene, image)
    image = _skin(scene, image)
    image = _beard(scene, image)
    image = _mouth(scene, image)
    image = _nose(scene, image)
    image = _eyes(scene, image)
    image = _brows(scene, image)
    image = _hair_front(scene, image)
    image = _glasses(scene, image)
    return _expose(scene, image)


def _set_up(factors: Tensor, circumstances: Tensor, size: int) -> tuple[_Scene, Tensor, Tensor]:
    factors = factors.clamp(-1, 1)
    circumstances = 2.5 * torch.tanh(circumstances / 2.5)
    p = {factor.name: factors[:, i, None, None] for i, factor in enumerate(FACTORS)}
    c = {factor.name: circumstances[:, i, None, None] for i, factor in enumerate(CIRCUMSTANCES)}
    pixel = 2 / size
    line = (torch.arange(size, device=factors.device, dtype=factors.dtype) + 0.5) * pixel - 1
    column, row = line.view(1, 1, size), line.view(1, size, 1)
    # 1. the picture plane: shift, roll, scale
    angle, zoom = 0.12 * c["roll"], torch.exp(-0.07 * c["scale"])
    cos, sin = torch.cos(angle) * zoom, torch.sin(angle) * zoom
    dx, dy = column - 0.05 * c["shift_x"], row - 0.05 * c["shift_y"]
    x, y = cos * dx + sin * dy, cos * dy - sin * dx
    # 2. the head: a dome that turns; what is nearer to the viewer moves further
    width = 0.43 + 0.055 * p["face_width"]
    height = 0.58 + 0.045 * p["face_height"]
    turn, nod = torch.sin(0.19 * c["yaw"]), torch.sin(0.14 * c["pitch"])
    dome = 0.42 / (1 + 2.6 * x * x + 1.8 * y * y)
    fx, fy = x - turn * dome, y - nod * dome
    # 3. colours
    skin = _palette(p["skin_tone"], (0.97, 0.83, 0.74), (0.80, 0.60, 0.46), (0.38, 0.245, 0.175))
    warmth = factors.new_tensor((0.005, 0.018, -0.03)).view(1, 3, 1, 1) * p["skin_warmth"][:, None]
    hair = _palette(p["hair_lightness"], (0.085, 0.07, 0.065), (0.32, 0.20, 0.125), (0.84, 0.68, 0.44))
    red = torch.sigmoid(3 * p["hair_redness"] - 1)[:, None]
    hair = hair * (1 + red * factors.new_tensor((0.45, -0.12, -0.45)).view(1, 3, 1, 1))
    grey = 0.75 * torch.sigmoid(5 * p["hair_grey"] - 2.5)[:, None]
    hair = torch.lerp(hair, 0.3 + 0.5 * hair.mean(1, keepdim=True), grey)
    # 4. the face's outline: an ellipse with a tapered, more or less angular jaw
    lower = torch.sigmoid(9 * y)
    ramp = 0.5 * (y - 0.02 + torch.sqrt((y - 0.02).square() + 0.02))
    taper = 1 - (0.58 - 0.26 * p["jaw_width"]) * ramp + 0.05 * p["cheekbones"] * _bump((y - 0.1) / 0.22)
    u2 = (x / (width * taper)).square()
    v2 = (y / (height * (1 + 0.02 + 0.05 * (p["chin"] + 0.4) * lower))).square()
    corner = lower * (0.32 + 0.28 * p["jaw_square"])
    q2 = u2 + v2 - corner * u2.clamp(max=1) * v2.clamp(max=1)
    face = (torch.sqrt(q2 + 1e-4) - 1) * width
    # 5. light on a rounded head
    shade = 1 + 0.16 * c["light_x"] * (fx / width) + (0.10 * c["light_y"] - 0.05) * (fy / height)
    # 6. strands fan out from the parting and fade where they are finer than pixels
    fan = (x - 0.2 * p["parting"]) / (0.45 + (y + 0.85).clamp(min=0))
    wave = (0.25 + 0.25 * p["hair_curl"]) * torch.sin(16 * y + 9 * x)
    strands = 0.55 * torch.sin(34 * fan + 2 * wave + 1) * _fade(34, pixel)
    strands = strands + 0.45 * torch.sin(71 * fan + 5 * wave + 4 * y) * _fade(71, pixel)
    side = torch.sign(fx).detach()
    scene = _Scene(
        p=p,
        c=c,
        x=x,
        y=y,
        fx=fx,
        fy=fy,
        turn=turn,
        nod=nod,
        edge=0.33 * pixel + 0.004 * torch.exp(0.8 * c["blur"]),
        pixel=pixel,
        side=side,
        ax=fx * side,
        width=width,
        height=height,
        skin=skin + warmth,
        hair=hair,
        shade=shade,
        strands=strands,
        face=face,
        u2=u2,
        eye_x=0.185 + 0.022 * p["eye_spacing"] + 0.25 * (width - 0.43),
        eye_y=-0.05 + 0.035 * p["eye_height"],
        eye_width=0.098 + 0.016 * p["eye_size"],
        mouth_y=0.33 + 0.03 * p["mouth_height"] + 0.45 * (height - 0.58),
        nose_y=0.15 + 0.035 * p["nose_length"] + 0.2 * (height - 0.58),
        nose_width=0.082 + 0.024 * p["nose_width"],
    )
    return scene, column, row


def _fade(frequency: float, pixel: float) -> float:
    """What is left of a wave's contrast when pixels average over it."""
    return 1 / (1 + (frequency * pixel / 2.2) ** 4)


def _background(s: _Scene, column: Tensor, row: Tensor) -> Tensor:
    c = s.c
    tone = 0.58 + 0.13 * c["background_tone"] + 0.05 * c["background_slope"] * column - 0.06 * row
    tone = tone + 0.07 * _bump(torch.sqrt((column - 0.2).square() + (row + 0.3).square()) / 0.9)
    warm, green = 0.07 * c["background_warmth"], 0.035 * c["background_green"]
    cast = torch.stack((0.98 + warm - green, 1.0 + green, 1.03 - warm - green), 1)
    return tone[:, None] * cast


def _torso(s: _Scene, image: Tensor) -> Tensor:
    tone = 0.40 + 0.13 * s.c["clothes_tone"]
    hue = 0.16 * s.c["clothes_hue"]
    colour = torch.stack((tone * (1 + hue), tone * (1 - 0.25 * hue.abs()), tone * (1.08 - hue)), 1)
    shoulders = 0.8 * (0.74 + 0.34 * s.x.square() - 0.05 * s.p["neck_width"] - s.y)
    folds = 1 + 0.10 * s.c["light_x"] * s.x - 0.22 * s.x.square() - 0.12 * _bump((s.x.abs() - 0.5) / 0.08)
    return _over(image, s.mask(shoulders), colour * folds[:, None])


def _hair_light(s: _Scene) -> Tensor:
    shine = _bump((s.y + 0.50 - 0.35 * s.x.square()) / 0.13)
    light = 0.9 + 0.10 * s.c["light_x"] * s.x + 0.16 * s.strands
    return light + shine * (0.20 + 0.12 * s.strands)


def _hair_outline(s: _Scene) -> Tensor:
    waves = torch.sin(15 * s.x + 4) * torch.sin(13 * s.y) * (0.014 + 0.016 * s.p["hair_curl"])
    return 0.055 + 0.045 * s.p["hair_volume"] + waves


def _hair_behind(s: _Scene, image: Tensor) -> Tensor:
    spread = s.width + _hair_outline(s)
    end = -0.15 + 0.55 * (1 + s.p["hair_length"])
    below = torch.maximum(s.y + 0.08, torch.zeros_like(s.y))
    above = torch.minimum(s.y + 0.08, torch.zeros_like(s.y))
    fall = torch.nn.functional.softplus((below - end) * 12) / 12
    d = _ellipse(s.x, above + 1.1 * fall, spread, s.height + 0.06 + 0.04 * s.p["hair_volume"])
    light = 0.72 + 0.16 * s.strands + 0.08 * s.c["light_x"] * s.x
    return _over(image, s.mask(d), s.hair * light[:, None])


def _neck(s: _Scene, image: Tensor) -> Tensor:
    width = 0.225 + 0.035 * s.p["neck_width"]
    flare = width + 0.5 * (s.y - 0.62).clamp(min=0).square()
    d = torch.maximum(s.x.abs() - flare, s.y - 0.86 + 0.9 * s.x.square() * 1.2)
    d = torch.maximum(d, 0.2 - s.y)
    chin = _bump((s.face - 0.0).clamp(min=0) / 0.16)
    light = 0.92 - 0.2 * (s.x / width).square() + 0.14 * s.c["light_x"] * s.x - 0.32 * chin
    return _over(image, s.mask(d), s.skin * light[:, None])


def _ears(s: _Scene, image: Tensor) -> Tensor:
    x = s.x + 0.10 * s.turn
    side = torch.sign(x).detach()
    size = 1 + 0.28 * s.p["ear_size"]
    dx, dy = x * side - s.width - 0.012 * size, s.y - 0.04 + 0.1 * s.nod
    image = _over(
        image, s.mask(_ellipse(dx, dy, 0.055 * size, 0.115 * size)), s.skin * 0.88 * s.shade[:, None]
    )
    return _over(image, 0.5 * s.mask(_ellipse(dx, dy, 0.026 * size, 0.07 * size)), s.skin * 0.62)


def _skin(s: _Scene, image: Tensor) -> Tensor:
    p, c = s.p, s.c
    light_x = c["light_x"] * s.side
    limb = (1 + s.face / s.width).clamp(min=0)
    light = s.shade + 0.05 - 0.17 * limb.square().square()
    socket = _bump((s.ax - s.eye_x + 0.01) / 0.13) * _bump((s.fy - s.eye_y + 0.035) / 0.085)
    light = light - 0.15 * socket
    cheek_x, cheek_y = (s.ax - 0.26) / 0.12, (s.fy - 0.14 + 0.01 * c["smile"]) / 0.10
    cheek = _bump(torch.sqrt(cheek_x.square() + cheek_y.square() + 1e-4))
    light = light + cheek * (0.04 + 0.015 * c["smile"] + 0.03 * light_x)
    hollow = _bump((s.ax - 0.31) / 0.09) * _bump((s.fy - 0.30) / 0.12)
    light = light - hollow * (0.07 - 0.07 * p["cheekbones"])
    light = light + 0.05 * _bump(s.fx / 0.22) * _bump((s.fy + 0.30) / 0.12)
    light = light - 0.07 * _bump(s.fx / 0.16) * _bump((s.fy - s.mouth_y - 0.105) / 0.035)
    # lines of age
    lined = torch.sigmoid(3.5 * p["wrinkles"] - 1)
    fold = s.ax - 0.115 - 0.35 * (s.fy - s.nose_y) - 0.012 * c["smile"]
    fold = s.stroke(fold, 0.004) * _bump((s.fy - 0.5 * (s.nose_y + s.mouth_y)) / 0.13)
    brow_lines = (
        torch.sin(52 * s.fy + 6 * s.fx.square()).clamp(min=0) * _bump(s.fx / 0.2) * _fade(40, s.pixel)
    )
    brow_lines = brow_lines * _bump((s.fy - s.eye_y + 0.29) / 0.08)
    light = light - (0.06 + 0.25 * lined) * fold - 0.24 * lined * brow_lines
    colour = s.skin * light[:, None]
    # blush and freckles change the colour, not the light
    red = (cheek + 0.7 * _bump(s.fx / 0.07) * _bump((s.fy - s.nose_y) / 0.07)) * (0.10 + 0.09 * p["blush"])
    colour = colour * (1 - red[:, None] * colour.new_tensor((0.0, 0.75, 0.75)).view(1, 3, 1, 1))
    dots = torch.sin(47 * s.fx + 7 * torch.sin(9 * s.fy)) * torch.sin(
        53 * s.fy + 6 * torch.sin(11 * s.fx + 1)
    )
    dots = torch.sigmoid(9 * (dots - 0.45)) * _bump(s.fx / 0.30) * _bump((s.fy - 0.10) / 0.13)
    dots = dots * (0.55 * torch.sigmoid(4 * p["freckles"] - 1.2))
    colour = colour * (1 - dots[:, None] * colour.new_tensor((0.25, 0.42, 0.5)).view(1, 3, 1, 1))
    mole = _ellipse(s.fx - 0.27 * p["mole"], s.fy - 0.20, 0.021, 0.021)
    mole = 0.85 * p["mole"].square() * s.mask(mole)
    colour = colour * (1 - 0.75 * mole[:, None])
    return _over(image, s.mask(s.face), colour)


def _beard(s: _Scene, image: Tensor) -> Tensor:
    p = s.p
    amount = 0.93 * torch.sigmoid(4.5 * p["beard"] - 1.6)
    growth = s.face - 0.035 * amount
    line = 0.27 - 0.55 * (s.ax - 0.12).clamp(min=0) + 0.10 * _bump(s.fx / 0.12)
    lips = _ellipse(s.fx, s.fy - s.mouth_y - 0.005, 0.17, 0.075)
    d = torch.maximum(torch.maximum(growth, 0.8 * (line - s.fy)), -lips)
    soft = torch.sigmoid(d / -(s.edge + 0.014))
    light = 0.80 + 0.14 * s.strands + 0.10 * s.c["light_x"] * s.fx - 0.15 * (s.fy - 0.4)
    colour = torch.lerp(s.hair, s.skin, 0.12) * light[:, None]
    image = _over(image, amount * soft, colour)
    amount = 0.9 * torch.sigmoid(5 * p["moustache"] - 2.2)
    middle = 0.5 * (s.nose_y + s.mouth_y) + 0.028
    x = s.ax - 0.065
    d = _ellipse(x, s.fy - middle - 0.35 * x - 0.012 * s.c["smile"] * -x * 4, 0.105, 0.033)
    return _over(image, amount * torch.sigmoid(d / -(s.edge + 0.006)), colour)


def _mouth(s: _Scene, image: Tensor) -> Tensor:
    p, c = s.p, s.c
    width = 0.155 + 0.026 * p["mouth_width"] + 0.012 * c["smile"]
    full = 0.036 + 0.017 * p["lip_fullness"]
    gap = 0.085 * torch.sigmoid(2.2 * c["mouth_open"] - 2.2)
    u2 = (s.fx / width).square()
    arch = 1 - u2
    middle = s.fy - s.mouth_y + 0.035 * c["smile"] * (u2 - 0.45)
    bow = 1 - 0.30 * _bump(s.fx / 0.022)
    top = middle + 0.35 * gap * arch + 0.85 * full * arch * bow
    bottom = middle - 0.75 * gap * arch - 1.1 * full * arch
    lips = torch.maximum(-top, bottom)
    inside = torch.maximum(-(middle + 0.35 * gap * arch), middle - 0.75 * gap * arch)
    tint = _palette(p["lip_colour"], (0.80, 0.60, 0.56), (0.76, 0.42, 0.40), (0.64, 0.17, 0.20))
    tint = tint * (0.45 + 0.55 * s.skin.mean(1, keepdim=True) / 0.75)
    light = s.shade * (0.84 + 0.2 * torch.sigmoid(middle / 0.012))
    light = light + 0.16 * _bump((middle - 0.75 * gap - 0.5 * full) / 0.018) * _bump(s.fx / 0.07)
    image = _over(image, 0.9 * s.mask(0.9 * lips), tint * light[:, None])
    opening = s.mask(inside)
    teeth = torch.sigmoid((middle - 0.2 * gap) / -(s.edge + 0.004))
    dark = tint.new_tensor((0.26, 0.10, 0.10)).view(1, 3, 1, 1)
    white = tint.new_tensor((0.90, 0.87, 0.83)).view(1, 3, 1, 1)
    image = _over(image, opening * torch.tanh(gap / 0.012), torch.lerp(dark, white, teeth[:, None]))
    line = s.stroke(middle, 0.004) * s.mask(s.fx.abs() - width) * (1 - 0.8 * torch.tanh(gap / 0.02))
    image = _over(image, 0.8 * line, 0.33 * tint)
    corners = _bump((s.ax - width) / 0.022) * _bump(middle / 0.025)
    return _over(image, 0.35 * corners, 0.5 * s.skin)


def _nose(s: _Scene, image: Tensor) -> Tensor:
    p, c = s.p, s.c
    x, y = s.fx - 0.12 * s.turn, s.fy - 0.10 * s.nod
    side = torch.sign(x).detach()
    ax, dy = x * side, y - s.nose_y
    away = torch.sigmoid(-1.4 * c["light_x"] * side)
    along = torch.sigmoid((y - s.eye_y + 0.06) / 0.035) * torch.sigmoid((0.02 - dy) / 0.02)
    flank = _bump((ax - 0.042 - 0.22 * s.nose_width - 0.10 * (dy + 0.1)) / 0.030)
    shadow = (0.10 + 0.30 * away) * (0.62 + 0.38 * p["nose_bridge"]) * flank * along
    tip = _ellipse(x, dy - 0.005, 0.62 * s.nose_width, 0.045)
    wing = _ellipse(ax - 0.66 * s.nose_width, dy - 0.012, 0.42 * s.nose_width, 0.034)
    base = torch.minimum(tip, wing)
    under = s.stroke(base, 0.006) * torch.sigmoid((dy - 0.012) / 0.014)
    rim = s.stroke(wing, 0.004) * torch.sigmoid((ax - 0.8 * s.nose_width) / 0.012)
    shadow = shadow + 0.42 * under + 0.30 * rim + 0.16 * _bump(x / 0.10) * _bump((dy - 0.075) / 0.028)
    image = _over(image, shadow, 0.52 * s.skin)
    nostril = _ellipse(ax - 0.46 * s.nose_width, dy - 0.036, 0.24 * s.nose_width, 0.013)
    image = _over(image, 0.8 * s.mask(nostril), 0.2 * s.skin)
    shine = _bump((x - 0.012 * c["light_x"]) / 0.022) * (_bump((dy + 0.01) / 0.028) + 0.5 * along)
    return _over(image, 0.22 * shine, 0.35 + 0.75 * s.skin)


def _eyes(s: _Scene, image: Tensor) -> Tensor:
    p, c = s.p, s.c
    width = s.eye_width
    dx = s.ax - s.eye_x
    dy = s.fy - s.eye_y + (0.16 * p["eye_tilt"] + 0.03) * dx
    arch = 1 - (dx / width).square()
    opening = torch.sigmoid(1.1 + 0.9 * c["eyes_open"]) / 0.75
    upper = width * (0.47 + 0.10 * p["eye_shape"]) * opening * arch
    lower = width * (0.30 + 0.05 * p["eye_shape"]) * (0.6 + 0.4 * opening) * arch
    lid = dy + upper
    eye = torch.maximum(-lid, dy - lower)
    white = s.mask(0.88 * eye)
    ball = 0.97 - 0.30 * _bump(lid / 0.022) - 0.14 * (dx / width).square()
    tone = dx.new_tensor((0.97, 0.955, 0.94)).view(1, 3, 1, 1)
    image = _over(image, white, tone * (ball * (0.88 + 0.12 * s.shade))[:, None])
    # iris, pupil and the light in them look the same way in both eyes
    radius = 0.030 + 0.30 * width * 0.42
    ix, iy = dx - 0.022 * c["gaze"] * s.side, dy + 0.006
    distance = torch.sqrt(ix.square() + iy.square() + 1e-5)
    colour = _palette(p["eye_colour"], (0.27, 0.15, 0.085), (0.40, 0.42, 0.22), (0.36, 0.57, 0.80))
    rays = 0.72 + 0.5 * _bump((distance - 0.55 * radius) / 0.016) - 0.25 * _bump(lid / 0.02)
    image = _over(image, white * s.mask(distance - radius), colour * rays[:, None])
    image = _over(image, white * s.mask(distance - 0.45 * radius), 0.06 + 0 * colour)
    glint = torch.sqrt((ix + 0.014 * s.side).square() + (iy + 0.016).square() + 1e-5) - 0.011
    image = _over(image, 0.9 * white * s.mask(glint), 0.98 + 0 * colour)
    # lids: a line of lashes, longer outside, a crease above, a soft edge below
    reach = s.mask((dx - 0.01).abs() - width - 0.012)
    thick = (0.007 + 0.005 * p["lashes"]) * (1 + 0.6 * dx / width)
    lash = s.stroke(0.9 * lid + 0.004, thick) * reach
    image = _over(image, (0.68 + 0.24 * p["lashes"]) * lash, 0.25 * s.hair + 0.12 * s.skin)
    crease = s.stroke(lid + 0.028 + 0.012 * arch, 0.003) * s.mask(dx.abs() - 0.92 * width)
    below = s.stroke(dy - lower - 0.004, 0.003) * s.mask(dx.abs() - 0.9 * width)
    return _over(image, 0.34 * crease + 0.28 * below, 0.5 * s.skin)


def _brows(s: _Scene, image: Tensor) -> Tensor:
    p, c = s.p, s.c
    length = 0.125 + 0.2 * (s.eye_width - 0.098)
    dx = s.ax - s.eye_x - 0.012
    t = dx / length
    rise = 0.118 + 0.022 * p["brow_height"] + 0.016 * c["brow_raise"] + 0.35 * (s.eye_width - 0.098)
    curve = (0.026 + 0.022 * p["brow_arch"]) * (1 - t * t) + (0.012 + 0.028 * p["brow_tilt"]) * t
    thick = (0.0185 + 0.0095 * p["brow_thickness"]) * (1 - 0.35 * t)
    d = torch.maximum((s.fy - s.eye_y + rise + curve).abs() - thick, dx.abs() - length)
    soft = torch.sigmoid(d / -(s.edge + 0.003))
    hairs = 1 + 0.22 * torch.sin(95 * s.ax + 60 * s.fy) * _fade(100, s.pixel)
    return _over(image, 0.86 * soft, 0.62 * s.hair * hairs[:, None])


def _hair_front(s: _Scene, image: Tensor) -> Tensor:
    p = s.p
    outline = _hair_outline(s)
    outer = _ellipse(s.x, s.y + 0.08, s.width + outline, s.height - 0.02 + outline)
    fringe = torch.sigmoid(3.5 * p["fringe"] - 0.5)
    u = s.fx / s.width
    u2 = u.square()
    u6 = u2 * u2 * u2
    ragged = 0.02 * torch.sin(26 * s.fx + 3 * p["parting"]) + 0.012 * torch.sin(61 * s.fx + 1) * _fade(
        61, s.pixel
    )
    slant = (0.10 * p["parting"]) * s.fx * (1 + fringe)
    line = -0.40 - 0.05 * p["hairline"] + 0.19 * fringe + slant + (0.25 + 0.75 * fringe) * ragged + 0.62 * u6
    line = line - (1 - fringe) * (0.05 + 0.03 * p["hairline"]) * _bump((s.ax - 0.24) / 0.09)
    steep = torch.rsqrt(1 + (3.7 / s.width * u2 * u2 * u).square())
    sideburn = s.fy - 0.06 - 0.10 * p["hair_length"]
    hang = torch.maximum((s.fy - line) * steep, sideburn)
    d = torch.maximum(outer, hang)
    # a shadow of the hair on the forehead first
    image = _over(image, 0.28 * torch.sigmoid((hang - 0.035) / -0.022) * s.mask(s.face), 0.45 * s.skin)
    light = _hair_light(s)
    part = _bump((s.x - 0.2 * p["parting"] - 0.12 * p["parting"] * (s.y + 0.62)) / 0.016)
    light = light - 0.32 * part * torch.sigmoid((s.fy - line + 0.05) / -0.03)
    return _over(image, s.mask(d), s.hair * light[:, None])


def _glasses(s: _Scene, image: Tensor) -> Tensor:
    p = s.p
    wear = torch.sigmoid(7 * p["glasses"] - 2.1)
    square = 0.42 + 0.42 * p["glasses_shape"]
    rx, ry = 0.148 + 0.012 * p["glasses_shape"], 0.128 - 0.022 * p["glasses_shape"]
    dx, dy = s.ax - s.eye_x - 0.008, s.fy - s.eye_y - 0.012
    u2, v2 = (dx / rx).square(), (dy / ry).square()
    q2 = u2 + v2 - square * u2.clamp(max=1) * v2.clamp(max=1)
    d = (torch.sqrt(q2 + 1e-4) - 1) * ry
    image = _over(image, 0.10 * wear * s.mask(d), 0 * s.skin + 0.95)
    bridge = torch.maximum((dy + 0.03 - 0.5 * s.fx.square()).abs() - 0.009, s.ax - s.eye_x + rx)
    arms = torch.maximum((dy + 0.025).abs() - 0.009, s.eye_x + rx - s.ax)
    arms = torch.maximum(arms, s.face - 0.01)
    frame = torch.minimum(torch.minimum(d.abs() - 0.010, bridge), arms)
    return _over(image, 0.92 * wear * s.mask(frame), 0 * s.skin + 0.12)


def _expose(s: _Scene, image: Tensor) -> Tensor:
    warm = 0.05 * s.c["light_warmth"]
    gain = torch.exp(0.13 * s.c["brightness"])
    colour = torch.stack((gain * (1 + warm), gain, gain * (1 - 1.2 * warm)), 1)
    return (image * colour).clamp(0, 1)
