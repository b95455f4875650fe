"""Choose the fonts of pictures, and measure text."""

from __future__ import annotations

FALLBACK_FAMILIES = (
    *("Noto Sans CJK SC", "Noto Sans CJK TC", "Noto Sans CJK JP", "Noto Sans CJK KR"),
    *("Noto Sans SC", "Noto Sans TC", "Noto Sans JP", "Noto Sans KR"),
    *("Source Han Sans SC", "Source Han Sans", "WenQuanYi Micro Hei", "WenQuanYi Zen Hei", "Droid Sans Fallback"),
    *("Microsoft YaHei", "Microsoft JhengHei", "Yu Gothic", "Meiryo", "MS Gothic", "Malgun Gothic", "SimHei"),
    *("PingFang SC", "Hiragino Sans GB", "Hiragino Sans", "Apple SD Gothic Neo", "Arial Unicode MS"),
    *("Noto Sans Thai", "Noto Sans Devanagari", "Leelawadee UI", "Nirmala UI", "Segoe UI"),
)
"""Fonts of Linux, Windows and macOS with characters that DejaVu Sans lacks."""


def font_families() -> list[str]:
    """Return DejaVu Sans, which is part of matplotlib, and the installed `FALLBACK_FAMILIES`."""
    from matplotlib.font_manager import fontManager

    installed = set(fontManager.get_font_names())
    return ["DejaVu Sans", *(family for family in FALLBACK_FAMILIES if family in installed)]


def missing_characters(text: str) -> str:
    """Return the characters of `text` that no font of `font_families` has, each once."""
    from matplotlib.font_manager import FontProperties, findfont, get_font

    missing = [c for c in dict.fromkeys(text) if not c.isspace()]
    for family in font_families():
        if missing:  # A font with many characters loads slowly.
            known = get_font(findfont(FontProperties(family=[family]))).get_charmap()
            missing = [c for c in missing if ord(c) not in known]
    return "".join(missing)


def text_width(text: str, points: float, weight: str = "normal") -> float:
    """Return the width of a line of text in inches."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    font = FontProperties(family=font_families(), size=points, weight=weight)
    width, _, _ = text_to_path.get_text_width_height_descent(text, font, ismath=False)
    return float(width) / 72
