"""Make the harness's modules importable under the names of Slicer's modules, unless a real Slicer runs."""

from __future__ import annotations

import inspect
import os
import sys
import types

from . import slot_errors


def in_real_slicer() -> bool:
    """Return whether this Python runs inside Slicer; raise ImportError if there is no module `slicer`."""
    import slicer

    return hasattr(slicer, "app") and not getattr(slicer, "_harness", False)


def install() -> bool:
    """Make the harness's modules importable and return True; in a real Slicer, change nothing and return False.

    Raises ImportError if slicer-core or PySide6 is not installed.
    """
    import slicer

    if hasattr(slicer, "app"):
        return getattr(slicer, "_harness", False)
    os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
    from PySide6 import QtWidgets

    slicer._harness = True
    slicer.mrmlScene = slicer.vtkMRMLScene()
    slicer.selfTests = {}
    from .application import qSlicerApplication

    qt_application = QtWidgets.QApplication.instance() or qSlicerApplication(["Slicer"])
    _install_qt()
    _install_application(qt_application)
    _install_slicer_packages()
    slot_errors.watch_observers()
    return True


def _install_qt() -> None:
    import slicer

    from . import ctk_widgets, dialogs, modules, mrml_widgets, node_combo_box, qt_module, ui_files
    from .wrapping import wrapper_class

    qt = qt_module.make()
    qt.QUiLoader = ui_files.QUiLoader  # type: ignore[attr-defined]
    dialogs.install()
    sys.modules["qt"] = qt
    ctk = types.ModuleType("ctk")
    for name, member in vars(ctk_widgets).items():
        if name.startswith("ctk"):
            setattr(ctk, name, wrapper_class(member))
    sys.modules["ctk"] = ctk
    for source in (mrml_widgets, node_combo_box):
        for name, member in vars(source).items():
            if name.startswith(("qMRML", "qSlicer")):
                setattr(slicer, name, wrapper_class(member))
    slicer.qSlicerScriptedLoadableModule = modules.ScriptedModule


def _install_application(qt_application: object) -> None:
    import slicer

    from . import application, modules
    from .wrapping import wrapper_class

    slicer.app = application.Application(qt_application)  # type: ignore[arg-type]
    modules.install_core_modules(slicer.app.applicationLogic())
    slicer._main_window = wrapper_class(application.qSlicerMainWindow)()


def _tr(text: str) -> str:
    """Return the text; as in Slicer, a call takes about 10 µs, since it looks up the caller's source file."""
    inspect.getsourcefile(sys._getframe(1))
    return text


def _install_slicer_packages() -> None:
    import slicer

    from . import parameter_nodes, pip_recorder, sample_data, scripted_module

    i18n = types.ModuleType("slicer.i18n")
    i18n.tr = _tr  # type: ignore[attr-defined]
    i18n.translate = lambda context, text: text  # type: ignore[attr-defined]
    for name, module in (
        ("ScriptedLoadableModule", scripted_module.make_module()),
        ("parameterNodeWrapper", parameter_nodes),
        ("packaging", pip_recorder.make_module()),
        ("i18n", i18n),
    ):
        sys.modules[f"slicer.{name}"] = module
        setattr(slicer, name, module)
    sys.modules["slicer.parameterNodeWrapper.guiConnectors"] = parameter_nodes.gui_connectors
    sys.modules["SampleData"] = sample_data.make_module()
