"""The numbers that a portrait is painted from: who it is, and the circumstances of the picture."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Factor:
    """One number that the painter reads, with what its low and its high end draw."""

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
