"""Provide `slicer.app`: event loop, folders, settings, layout, access to modules and files."""

from __future__ import annotations

import os
import tempfile
from typing import Any

import slicer
from PySide6 import QtCore, QtWidgets

from .conversion import wrap
from .io_manager import IOManager
from .layout_manager import LayoutManager
from .signals import Signal


class qSlicerApplication(QtWidgets.QApplication):
    startupCompleted = QtCore.Signal()


class _QuitSignal(Signal):
    def emit(self, *args: Any) -> None:
        from .modules import unload_scripted_modules

        super().emit(*args)
        slicer.app.layoutManager().store()
        unload_scripted_modules()


class Application:
    """Slicer's application, as far as the modules use it."""

    applicationName = "Slicer"

    def __init__(self, qt_application: QtWidgets.QApplication) -> None:
        self._qt = wrap(qt_application)
        self._folder = tempfile.TemporaryDirectory(prefix="slicer-harness-", ignore_cleanup_errors=True)
        self.temporaryPath = os.path.join(self._folder.name, "tmp")
        os.mkdir(self.temporaryPath)
        QtCore.QSettings.setDefaultFormat(QtCore.QSettings.Format.IniFormat)
        QtCore.QSettings.setPath(QtCore.QSettings.Format.IniFormat, QtCore.QSettings.Scope.UserScope, self._folder.name)
        qt_application.setOrganizationName("harness")
        qt_application.setApplicationName("Slicer")
        # `settings` returns this QSettings at every call, as in Slicer. If each call made a new QSettings, the deletion
        # of each QSettings would write the settings file.
        self._settings = QtCore.QSettings()
        self.restarts = 0
        self._application_logic = slicer.vtkMRMLApplicationLogic()
        self._application_logic.SetTemporaryPath(self.temporaryPath)
        self._application_logic.SetMRMLScene(slicer.mrmlScene)
        self._remote_io = slicer.vtkMRMLRemoteIOLogic()
        self._remote_io.GetDataIOManager().GetCacheManager().SetRemoteCacheDirectory(self.temporaryPath)
        self._remote_io.SetMRMLScene(slicer.mrmlScene)
        self._remote_io.AddDataIOToScene()
        self._io = IOManager(self._application_logic)
        self._layout = LayoutManager(slicer.mrmlScene, self._application_logic)
        self.testing = False
        self.aboutToQuit, self.startupCompleted = _QuitSignal(self._qt, "aboutToQuit"), self._qt.startupCompleted

    def connect(self, signal: str, receiver: Any) -> bool:
        return bool(self._qt.connect(signal, receiver))

    def disconnect(self, signal: str, receiver: Any) -> bool:
        return bool(self._qt.disconnect(signal, receiver))

    def processEvents(self, *flags: Any) -> None:
        self._qt.processEvents(*flags)

    def applicationLogic(self) -> Any:
        return self._application_logic

    def coreIOManager(self) -> IOManager:
        return self._io

    ioManager = coreIOManager

    def layoutManager(self) -> LayoutManager:
        return self._layout

    def moduleManager(self) -> Any:
        from .modules import module_manager

        return module_manager()

    def mrmlScene(self) -> Any:
        return slicer.mrmlScene

    def testingEnabled(self) -> bool:
        """Return the attribute `testing`, which a test sets to imitate a Slicer started with --testing."""
        return self.testing

    def settings(self) -> Any:
        return wrap(self._settings)

    userSettings = settings

    def topLevelWidgets(self) -> Any:
        return self._qt.topLevelWidgets()

    def clipboard(self) -> Any:
        return self._qt.clipboard()

    def setOverrideCursor(self, cursor: Any) -> None:
        self._qt.setOverrideCursor(cursor)

    def restoreOverrideCursor(self) -> None:
        self._qt.restoreOverrideCursor()

    def restart(self) -> None:
        self.restarts += 1


class qSlicerMainWindow(QtWidgets.QMainWindow):
    """The main window: a module selector and no other content."""

    def __init__(self) -> None:
        super().__init__()
        self.setObjectName("qSlicerMainWindow")

    def moduleSelector(self) -> Any:
        from .modules import module_selector

        return module_selector()
