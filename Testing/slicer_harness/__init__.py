"""Simulate the Slicer application in tests.

If the tests run in a real Slicer, only `Person` and `pip.replace_pip_of_slicer()` replace parts of Slicer. See
README.md.

Call `install()` before anything that imports `qt`, `ctk` or a module of the extension.
"""

from importlib import import_module

from .installation import in_real_slicer, install

__all__ = [
    "LoopMonitor",
    "Pause",
    "Person",
    "Question",
    "UnexpectedQuestion",
    "announce_quitting",
    "assert_stays_responsive",
    "choose",
    "click",
    "close_scene",
    "delete_pending",
    "expect_no_hidden_errors",
    "in_real_slicer",
    "install",
    "longest_step",
    "open_module",
    "pause_of",
    "pip",
    "process_events",
    "process_events_until",
    "reload_scene",
    "scene_saved_and_closed",
    "shortest_pause",
    "start_afresh",
    "type_keys",
]


_SUBMODULES = {
    "LoopMonitor": "loop_monitor",
    "Pause": "loop_monitor",
    "assert_stays_responsive": "loop_monitor",
    "longest_step": "loop_monitor",
    "pause_of": "loop_monitor",
    "shortest_pause": "loop_monitor",
    "Person": "person",
    "Question": "person",
    "UnexpectedQuestion": "person",
    "pip": "pip_recorder",
}


def __getattr__(name: str) -> object:
    # Submodules are imported on first use: some import slicer, which may be missing when pytest only collects tests.
    if name not in __all__:
        raise AttributeError(name)
    return getattr(import_module(f".{_SUBMODULES.get(name, 'driving')}", __name__), name)
