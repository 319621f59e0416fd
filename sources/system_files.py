"""Which files and folders are a system's own, and none of the user's pictures and tables."""

from __future__ import annotations

# In lower case: what Synology, QNAP, macOS, Windows and Linux put into folders without a dot.
_NAMES = frozenset(
    [
        "@eadir",
        "@tmp",
        "@__thumb",
        "@synoresource",
        "@recycle",
        "@recently-snapshot",
        "#recycle",
        "#snapshot",
        "__macosx",
        "icon\r",
        "network trash folder",
        "temporary items",
        "thumbs.db",
        "ehthumbs.db",
        "ehthumbs_vista.db",
        "desktop.ini",
        "$recycle.bin",
        "recycler",
        "system volume information",
        "lost+found",
    ]
)


def is_of_system(name: str) -> bool:
    """Whether a file or folder of this name is hidden, or made by a system: "._a.jpg", "@eaDir".

    Excel keeps a file such as `~$prices.xlsx` beside a workbook that is open.
    """
    return name.startswith((".", "~$")) or name.lower() in _NAMES
