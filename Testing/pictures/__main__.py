"""Draw the tutorials' pictures into a folder: `make pictures`."""

from __future__ import annotations

import argparse
from pathlib import Path

from . import application


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m pictures", description=__doc__)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    application.start()
    from . import segmentation_tutorial

    for path in segmentation_tutorial.draw(folder):
        print(f"{path} ({path.stat().st_size // 1000} kB)")


if __name__ == "__main__":
    main()
