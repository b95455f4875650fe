"""List, find, import and remove models."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ..errors import InputError, OutputError, shell_argument
from ..io.atomic import FileAppeared, atomic_paths
from ..io.file_identity import is_same_file
from ..io.file_names import is_file_name
from ..io.formats import AnyPath
from ..io.in_use import remove_file, wait_while_in_use
from ..typed_names import comparable_name
from .calibration import Calibration
from .package import (
    CALIBRATION,
    FOLDER_REMEDY,
    Card,
    calibration_path,
    check_description,
    find_calibration,
    holds_calibration,
    read_card,
    read_model,
)

DEFAULT_MODEL = "left-atrium"
MODEL_ENDING = ".dcamt"


@dataclass(frozen=True)
class StoredModel:
    """A model in the store; its name is the file name without the ending."""

    name: str
    path: Path
    shipped: bool


def shipped_folders() -> list[Path]:
    """Return the possible folders of shipped models: in the source tree, in Slicer's extension, in a pip package."""
    package = Path(__file__).parents[1]
    return [
        package.parent.parent / "Resources" / "Models",
        package.parent / "Resources" / "Models",
        package / "shipped_models",
    ]


def user_folder() -> Path:
    """Return the folder of imported models: $DCAMT_HOME/models, by default ~/.dcamt/models.

    Raises:
        InputError: DCAMT_HOME is not set, and the system does not know the user's home folder.
    """
    if home := os.environ.get("DCAMT_HOME"):
        return Path(os.path.expanduser(home)) / "models"
    try:
        return Path.home() / ".dcamt" / "models"
    except RuntimeError as error:
        what = "the folder of imported models is unknown, since the system names no home folder"
        raise InputError(what, remedy="Set the environment variable DCAMT_HOME to a folder.") from error


def stored_models() -> list[StoredModel]:
    """Return all models, shipped ones first. If a name occurs twice, only the first model is returned.

    If the folder of imported models cannot be read, only the shipped models are returned.
    """
    found = [(path, True) for folder in shipped_folders() for path in _model_files(folder)]
    with suppress(InputError):
        found += [(path, False) for path in _model_files(user_folder())]
    models: dict[str, StoredModel] = {}
    for path, shipped in found:
        models.setdefault(path.stem, StoredModel(path.stem, path, shipped))
    return list(models.values())


def check_store() -> None:
    """Raise InputError if the folder of imported models is unknown or cannot be read."""
    _model_files(user_folder())


def _model_files(folder: Path) -> list[Path]:
    try:
        with os.scandir(folder):  # `glob` would hide errors.
            pass
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        remedy = "Change its permissions, or set the environment variable DCAMT_HOME to another folder."
        raise InputError(f"cannot be read ({error.strerror})", path=folder, remedy=remedy) from error
    # A killed import leaves a temporary file whose name begins with a full stop. No model has such a name.
    return sorted(path for path in folder.glob(f"*{MODEL_ENDING}") if not path.name.startswith("."))


def model_path(name_or_file: AnyPath) -> Path:
    """Return the file of the model that has this name in the store, or else the file with this path.

    Raises:
        InputError: neither exists, or the folder of imported models is unknown or cannot be read.
    """
    models = stored_models()
    if (named := _model_named(str(name_or_file), models)) is not None:
        return named.path
    path = Path(os.path.expanduser(name_or_file))
    if not path.is_file():
        if path.name == str(name_or_file):
            # `stored_models` omits imported models if their folder cannot be read.
            check_store()
        available = ", ".join(model.name for model in models) or "none"
        what, remedy = "there is no such model file, nor a model of that name", ""
        if path.is_dir():
            what, remedy = "is a folder, and there is no model of that name", f"{FOLDER_REMEDY}. "
        raise InputError(what, path=path, remedy=f"{remedy}Available models: {available}.")
    return path


def _model_named(name: str, models: Sequence[StoredModel]) -> StoredModel | None:
    """Return the model with exactly this name, or else one whose name looks equal (`comparable_name`)."""
    look_equal = [model for model in models if comparable_name(model.name) == comparable_name(name)]
    return next((model for model in look_equal if model.name == name), next(iter(look_equal), None))


def import_model(
    path: Path,
    check: Callable[[Path, bytes], Card] = check_description,
    replace: bool = False,
    name: str | None = None,
) -> StoredModel:
    """Check a model file and copy it into the store.

    The same bytes are checked and stored, even if the file changes in between. A calibration file beside the model is
    copied, too, if it belongs to this model and the model contains no calibration.

    Args:
        check: returns the card; raises InputError if the model cannot be used. The default does not check whether the
            weights fit the recipe.
        replace: replace an imported model of the same name; the old model stays if the new one cannot be written.
        name: the model's name in the store; None for the name in its card.

    Raises:
        InputError: the model cannot be used, the name cannot be a file name, a model of that name is shipped with
            DCAMT, an imported model has that name and `replace` is False, or `user_folder` fails.
        OutputError: the file or its calibration file cannot be copied.
    """
    data = read_model(path)
    card = check(path, data)
    name = card.name if name is None else name
    calibration = _calibration_beside(path, data, card)
    other_name = "Import the model under another name (in a terminal: dcamt models import FILE --name NAME)."
    longest_file_name = f"{name}.{CALIBRATION}"
    if not is_file_name(longest_file_name):
        raise InputError(f"the model's name '{name}' cannot be a file name", path=path, remedy=other_name)
    existing = find_stored_model(name)
    if existing is not None and existing.shipped:
        raise InputError(f"a model '{name}' is shipped with DCAMT", path=path, remedy=other_name)
    if existing is not None and replace:
        name = existing.name
    if not replace and (existing is not None or os.path.lexists(_stored_path(name))):
        raise _name_taken(path, name, existing.name if existing is not None else name)
    return _store(path, name, data, calibration, replace)


def _name_taken(path: Path, name: str, stored_name: str) -> InputError:
    remove = f"dcamt models remove {shell_argument(stored_name)}"
    remedy = f"Import this model with --name NAME, replace the other one with --overwrite, or remove it with: {remove}"
    return InputError(f"a model '{name}' exists already", path=path, remedy=remedy)


def find_stored_model(name: str) -> StoredModel | None:
    """Return the shipped or imported model that has this name; None if there is none.

    On Windows and macOS, "atrium" also finds the imported model "Atrium".
    """
    path, models = _stored_path(name), stored_models()
    same = _model_named(name, models)
    return same or next((model for model in models if is_same_file(model.path, path)), None)


def copy_into_store(path: Path, name: str) -> StoredModel:
    """Copy a model file into the store, without the checks of `import_model`.

    The calibration file beside the model is treated as in `import_model`.

    Args:
        name: a name that no model in the store has.

    Raises:
        InputError: the file or its card cannot be read, another process imported a model of this name meanwhile, or
            `user_folder` fails.
        OutputError: the file, or the calibration file beside it, cannot be copied.
    """
    data = read_model(path)
    return _store(path, name, data, _calibration_beside(path, data, read_card(path)))


def _calibration_beside(path: Path, data: bytes, card: Card) -> Calibration | None:
    return None if holds_calibration(path, data) else find_calibration(path, card)[0]


def _stored_path(name: str) -> Path:
    return user_folder() / f"{name}{MODEL_ENDING}"


def _store(path: Path, name: str, data: bytes, calibration: Calibration | None, replace: bool = False) -> StoredModel:
    target = _stored_path(name)
    try:
        _write(target, data, calibration, replace)
    except FileAppeared as error:  # Another process imported a model of this name meanwhile.
        raise _name_taken(path, name, name) from error
    except OutputError as error:
        hint = "The environment variable DCAMT_HOME can name another folder."
        raise OutputError(f"{error} {hint}") from error
    return StoredModel(name, target, shipped=False)


def _write(target: Path, data: bytes, calibration: Calibration | None, replace: bool) -> None:
    beside = calibration_path(target)
    # The model is renamed first, so that no calibration file is written if this raises FileAppeared.
    files = [target] if calibration is None else [beside, target]
    with atomic_paths(files, new=() if replace else [target]) as partial:
        partial[target].write_bytes(data)
        if calibration is not None:
            partial[beside].write_text(calibration.to_json(), encoding="utf-8")
    if calibration is None:
        with suppress(OSError):
            remove_file(beside)


def remove_model(name: str) -> StoredModel:
    """Delete an imported model.

    Raises:
        InputError: there is no such model, it is shipped with DCAMT, or the folder of imported models is unknown or
            cannot be read.
        OutputError: the file cannot be deleted.
    """
    model = _model_named(name, stored_models())
    if model is None:
        check_store()
        raise InputError(f"there is no model '{name}'", remedy="List the models with: dcamt models list")
    if model.shipped:
        raise InputError(f"the model '{name}' is shipped with DCAMT and cannot be removed")
    try:
        wait_while_in_use(model.path.unlink)
    except OSError as error:
        what = (
            f"cannot be removed ({error.strerror})."
            " Close programs that use the file, or change the permissions of its folder."
        )
        raise OutputError(f"{model.path}: {what}") from error
    with suppress(OSError):  # A calibration without its model does no harm.
        remove_file(calibration_path(model.path))
    return model
