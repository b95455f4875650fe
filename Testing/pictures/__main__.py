"""Draw the pictures of the tutorials into a folder (`make pictures` runs this)."""

from __future__ import annotations

import argparse
from pathlib import Path

from . import application


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m pictures", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", choices=("segmentation", "training", "wall"), help="draw one tutorial's pictures")
    parser.add_argument("--first", action="store_true", help="stop after the first picture of each tutorial")
    parser.add_argument("--window", metavar="WxH", help="draw what a window of this size shows (example: 1366x740)")
    given = parser.parse_args()
    folder = given.folder
    folder.mkdir(parents=True, exist_ok=True)
    application.start()
    from . import segmentation_tutorial, training_tutorial, wall_tutorial, window

    if given.window:
        width, height = map(int, given.window.split("x"))
        window.limit_to_window(width, height)
    tutorials = {"segmentation": segmentation_tutorial, "training": training_tutorial, "wall": wall_tutorial}
    for name, tutorial in tutorials.items():
        if given.only in (None, name):
            drawing = tutorial.draw(folder)
            for path in drawing:
                print(f"{path} ({path.stat().st_size // 1000} kB)", flush=True)
                if given.first:
                    drawing.close()


if __name__ == "__main__":
    main()
