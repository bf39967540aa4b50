"""`audit.json`: one schema, written, read and verified here alone.

The schema is additive: later versions add fields, none changes its meaning; a reader ignores what it does not know.
The record seals itself: `seal` is the sha256 of everything else as canonical JSON (sorted names, no spaces, UTF-8).
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from lightleak.data.listing import scan
from lightleak.errors import UserError
from lightleak.files import parsed, publish

SCHEMA, VERSION = "lightleak-audit", 1
RECORD, PAGE = "audit.json", "audit.html"
SECTIONS = (
    "answer", "model", "subjects", "release", "coverage", "members", "people", "verification", "judges", "measures",
    "residual_risk", "limits", "mapping", "provenance", "hashes",
)  # fmt: skip

# What can be looked at again, by its name in the record's `hashes`.
FILES = (
    ("the page", "page"), ("the model", "model"), ("the model's Python", "source"),
    ("the training list", "training_list"), ("the recogniser", "recogniser"),
)  # fmt: skip
FOLDERS = (("the pictures", "pictures"), ("the pictures of others", "public_pictures"))


@dataclass(frozen=True)
class Check:
    """One thing that a record says and that can be looked at again."""

    what: str
    state: Literal["as recorded", "changed", "not there"]
    told: str = ""

    @property
    def good(self) -> bool:
        """Whether nothing speaks against it."""
        return self.state != "changed"


def sealed(record: Mapping[str, Any]) -> dict[str, Any]:
    """The record with schema, version and its own hash."""
    whole = {"schema": SCHEMA, "version": VERSION, **{k: v for k, v in record.items() if k != "seal"}}
    return {**whole, "seal": seal_of(whole)}


def seal_of(record: Mapping[str, Any]) -> str:
    """The sha256 of a record without its seal, as canonical JSON."""
    bare = {name: value for name, value in record.items() if name != "seal"}
    text = json.dumps(bare, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def save(record: Mapping[str, Any], folder: Path) -> Path:
    """Write audit.json, sealed, whole or not at all."""
    text = json.dumps(sealed(record), indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    return publish(folder / RECORD, partial(Path.write_text, data=text, encoding="utf-8"), "the record")


def load(folder: str | Path) -> dict[str, Any]:
    """The record in a folder, or a file; UserError if it is none."""
    path = Path(folder)
    path = path / RECORD if path.is_dir() else path
    try:
        record = parsed(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"there is no record {path}; 'lightleak audit --out {folder}' writes one") from None
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} is no record of an audit ({' '.join(str(error).split())[:120]})") from None
    if not isinstance(record, dict) or record.get("schema") != SCHEMA:
        raise UserError(f"{path} is no record of an audit: its schema is not {SCHEMA!r}")
    absent = [name for name in (*SECTIONS, "seal") if name not in record]
    if absent:
        raise UserError(f"{path} is damaged: it lacks {', '.join(absent[:5])}")
    return record


def verify(folder: str | Path) -> list[Check]:
    """What of a record is still as it was: itself, its page, the model, the pictures; what is gone is said."""
    folder = Path(folder)
    record = load(folder)
    try:
        whole = seal_of(record) == record["seal"]
    except (ValueError, TypeError, RecursionError):
        whole = False
    checks = [Check("the record", "as recorded" if whole else "changed", "" if whole else "its own hash does not fit")]
    home = folder if folder.is_dir() else folder.parent
    hashes = record["hashes"] if isinstance(record["hashes"], dict) else {}
    for what, name in FILES:
        entry = hashes.get(name)
        if isinstance(entry, dict) and isinstance(entry.get("file"), str):
            path = home / entry["file"] if name == "page" else Path(entry["file"])
            checks.append(_same_file(what, path, entry.get("sha256")))
    for what, name in FOLDERS:
        entry = hashes.get(name)
        if isinstance(entry, dict) and isinstance(entry.get("folder"), str):
            checks.append(_same_pictures(what, Path(entry["folder"]), entry.get("sha256"), name == "public_pictures"))
    return checks


def pictures(folder: Path, loose: bool) -> dict[str, Any]:
    """How many pictures lie in a folder, and one hash of their names and bytes; `loose`: also those in no class."""
    total, names = hashlib.sha256(), scan(folder, loose).files
    for name in names:
        total.update(f"{name}\0".encode(errors="surrogateescape"))
        total.update(bytes.fromhex(sha256(folder / name)))
    return {"folder": str(folder), "files": len(names), "sha256": total.hexdigest()}


def sha256(path: str | Path) -> str:
    """Of a file's bytes; UserError if it cannot be read."""
    try:
        with Path(path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror or error})") from None


def _same_file(what: str, path: Path, recorded: Any) -> Check:
    if not path.is_file():
        return Check(what, "not there", f"{path} cannot be looked at")
    same = sha256(path) == recorded
    return Check(what, "as recorded" if same else "changed", "" if same else f"{path} is another file by now")


def _same_pictures(what: str, folder: Path, recorded: Any, loose: bool) -> Check:
    try:
        same = pictures(folder, loose)["sha256"] == recorded
    except UserError as error:
        return Check(what, "not there", str(error))
    return Check(what, "as recorded" if same else "changed", "" if same else f"{folder} holds others by now")
