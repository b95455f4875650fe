"""The models at hand: those that come with DCAMT, and those that the person imported."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from ..errors import InputError, OutputError
from ..io.atomic import atomic_path
from .package import ModelPackage, check_weights, open_model, read_model

DEFAULT = "left-atrium"
ENDING = ".dcamt"
_NOT_IN_NAMES = frozenset('<>:"/\\|?*')  # what some system forbids in a file's name


@dataclass(frozen=True)
class StoredModel:
    """A model in the store: its name is its file's name without the ending."""

    name: str
    path: Path
    shipped: bool


def shipped_folders() -> list[Path]:
    """Where shipped models may lie: in the source tree, in an installed extension, in an installed package."""
    here = Path(__file__).parents[1]
    return [here.parent.parent / "Resources" / "Models", here.parent / "Resources" / "Models", here / "shipped_models"]


def user_folder() -> Path:
    """Where imported models lie: $DCAMT_HOME/models, by default ~/.dcamt/models."""
    return Path(os.environ.get("DCAMT_HOME") or Path.home() / ".dcamt") / "models"


def stored_models() -> list[StoredModel]:
    """All models at hand, shipped ones first, each name once."""
    found: dict[str, StoredModel] = {}
    for folder, shipped in [*((folder, True) for folder in shipped_folders()), (user_folder(), False)]:
        for path in sorted(folder.glob(f"*{ENDING}")) if folder.is_dir() else []:
            found.setdefault(path.stem, StoredModel(path.stem, path, shipped))
    return list(found.values())


def model_path(name_or_file: str | Path) -> Path:
    """The file of a model given by its name in the store or by its path.

    Raises:
        InputError: there is no such model.
    """
    by_name = {model.name: model.path for model in stored_models()}
    if str(name_or_file) in by_name:
        return by_name[str(name_or_file)]
    path = Path(name_or_file)
    if not path.is_file():
        raise InputError(
            "there is no such model file, nor a model of that name",
            path=name_or_file,
            remedy=f"At hand are: {', '.join(by_name) or 'none'}.",
        )
    return path


def verify_model(name_or_file: str | Path) -> ModelPackage:
    """Open a model and check all of it, its weights included; raises InputError that says what is wrong."""
    path = model_path(name_or_file)
    package = open_model(path)
    check_weights(package, path)
    return package


def import_model(path: Path, weights_too: bool = True, replace: bool = False) -> StoredModel:
    """Check a model file and copy it into the store under its card's name.

    `path` is a file's, never a stored model's name, and the very bytes that were checked are stored. Without
    `weights_too`, whether the weights fit the recipe's network is left to whoever loads it: no torch is needed.
    With `replace` it takes the place of an imported model of its name, which stays where anything goes wrong.

    Raises:
        InputError: the file is no sound model, or a model of that name is there already.
        OutputError: it cannot be copied.
    """
    data = read_model(path)
    package = open_model(path, data)
    if weights_too:
        check_weights(package, path)
    name = package.card.name
    if not name.strip() or not name.isprintable() or name.startswith(".") or set(name) & _NOT_IN_NAMES:
        raise InputError(f"its card names it '{name}', which cannot be a file's name", path=path)
    there = next((model for model in stored_models() if model.name == name), None)
    if there is not None and there.shipped:
        raise InputError(
            f"a model '{name}' comes with DCAMT and stays", path=path, remedy="Train it under another name."
        )
    if there is not None and not replace:
        remedy = f"Import it with --replace, or remove that one first: dcamt models remove {name}"
        raise InputError(f"a model '{name}' is there already", path=path, remedy=remedy)
    target = user_folder() / f"{name}{ENDING}"
    with atomic_path(target) as partial:
        partial.write_bytes(data)
    return StoredModel(name, target, shipped=False)


def remove_model(name: str) -> StoredModel:
    """Delete an imported model.

    Raises:
        InputError: there is none of that name, or it came with DCAMT.
        OutputError: it cannot be deleted.
    """
    for model in stored_models():
        if model.name == name:
            if model.shipped:
                raise InputError(f"the model '{name}' came with DCAMT and stays")
            try:
                model.path.unlink()
            except OSError as error:
                raise OutputError(f"{model.path}: cannot be removed ({error.strerror}).") from error
            return model
    raise InputError(f"there is no model '{name}'", remedy="See: dcamt models list")
