"""How things show themselves in a notebook: tables and pictures as HTML, with all text escaped."""

import base64
import io
from collections.abc import Iterable, Sequence
from html import escape

from PIL.Image import Image


def table(title: str, headings: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table with a caption."""
    head = "".join(f"<th>{escape(str(one))}</th>" for one in headings)
    body = "".join("<tr>" + "".join(f"<td>{escape(str(one))}</td>" for one in row) + "</tr>" for row in rows)
    return (
        f"<table><caption>{escape(title)}</caption>"
        + (f"<thead><tr>{head}</tr></thead>" if headings else "")
        + f"<tbody>{body}</tbody></table>"
    )


def figure(title: str, image: Image) -> str:
    """A picture with a caption, in the text itself."""
    file = io.BytesIO()
    image.save(file, format="PNG")
    source = f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
    said = escape(title)
    return f'<figure><img src="{source}" alt="{said}"><figcaption>{said}</figcaption></figure>'
