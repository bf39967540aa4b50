"""`lightleak report`: the page of a study, or one over many."""

import tyro

from lightleak.cli.kinds import Folder
from lightleak.cli.running import show
from lightleak.report import index as overview
from lightleak.report.study import NOTE
from lightleak.terminal import console


def main(folder: tyro.conf.Positional[Folder], show_private: bool = False, mixed_protocols: bool = False) -> None:
    """Make the page of a study's folder again, from what is finished so far; or one page over a folder of records.

    Example: lightleak report runs/demo, or: lightleak report results

    Args:
        folder: where a study or the demo kept its results; or a folder with records below it.
        show_private: do not blur private images on the page.
        mixed_protocols: let evaluations of several protocols share a table.
    """
    if not (folder / NOTE).exists() and next(folder.rglob("record.json"), None):
        console.print(f"[bold]{overview(folder, folder.resolve().name.capitalize())}[/] shows them all")
        return
    show(folder, show_private, mixed_protocols)
    for note in sorted(folder.glob(f"*/{NOTE}")):  # the same study with other settings
        show(note.parent, show_private, mixed_protocols)
