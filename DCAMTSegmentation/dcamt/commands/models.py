"""`dcamt models`: list, show, verify, calibrate, import and remove models."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

from ..cases.case_list import VALIDATION, Case, read_cases
from ..cases.uncorrected_labels import calibration_cases, uncorrected_label_notes
from ..errors import InputError
from ..io.atomic import atomic_path
from ..io.file_identity import is_same_file
from ..models.calibration import MIN_CASES, Calibration
from ..models.package import (
    ModelPackage,
    calibration_path,
    find_calibration,
    holds_calibration,
    open_model,
    read_card,
    write_package,
)
from ..models.store import check_store, import_model, model_path, remove_model, stored_models
from ..runs.trained_scans import find_trained_scans
from .console import Console
from .result_files import (
    REFUSE,
    case_files,
    check_file,
    check_result_paths,
    existing_rule,
    file_stamp,
    refuse_appeared_file,
)


def run_models(options: argparse.Namespace) -> int:
    """Run an action and return the exit status: 1 if `list` finds a model that cannot be opened, else 0."""
    console = Console(options.json)
    if options.action == "list":
        return _list_models(console)
    if options.action == "show":
        path = model_path(options.model)
        package = open_model(path)
        _show_card(package, console)
        _show_calibration(package.calibration, console)
        _print_notes(package, console)
    elif options.action == "verify":
        from ..networks.packaging import verify_model  # loads torch

        card = verify_model(options.model).card
        console.print_event("verified", name=card.name, checksum=card.checksum)
        console.print_text(f"{options.model}: intact (SHA-256 {card.checksum})")
    elif options.action == "calibrate":
        _calibrate(options, console)
    elif options.action == "import":
        from ..networks.packaging import check_package  # loads torch

        file = Path(os.path.expanduser(options.model))
        model = import_model(file, check_package, options.replace, options.name)
        notes = find_calibration(file, read_card(model.path))[1]
        console.print_event("imported", name=model.name, path=str(model.path), notes=notes)
        console.print_text(f"imported as '{model.name}': {model.path}")
        for note in notes:
            console.print_error(note)
    else:
        model = remove_model(options.model)
        console.print_event("removed", name=model.name)
        console.print_text(f"removed '{model.name}'")
    return 0


def _list_models(console: Console) -> int:
    status = 0
    for model in stored_models():
        try:
            package = open_model(model.path)
        except InputError as error:
            console.print_error(str(error))
            status = 1
            continue
        title = package.card.title
        console.print_event(
            "model", name=model.name, path=str(model.path), shipped=model.shipped, title=title, notes=package.notes
        )
        console.print_text(f"{model.name:<20} {title} ({'shipped' if model.shipped else 'imported'})")
        _print_notes(package, console)
    check_store()
    return status


def _calibrate(options: argparse.Namespace, console: Console) -> None:
    """Write the calibration to --output or into the model file."""
    path = model_path(options.model)
    if options.output is None and any(model.shipped and is_same_file(model.path, path) for model in stored_models()):
        remedy = "Write the calibration to a file with --output."
        raise InputError("is shipped with DCAMT and cannot be changed", path=path, remedy=remedy)
    listed = read_cases(
        options.cases, options.labels, for_training=False, roles_with_files=(VALIDATION,), on_note=console.print_note
    )
    validation_cases = [case for case in listed if case.role == VALIDATION]
    for note in uncorrected_label_notes(validation_cases):
        console.print_note(note)
    cases = calibration_cases(validation_cases)
    if len(cases) < MIN_CASES:
        which = " whose labels a person made or corrected" if len(cases) < len(validation_cases) else ""
        raise InputError(
            f"lists too few validation cases{which} ({len(cases)}); a calibration needs {MIN_CASES} or more",
            path=options.cases,
            remedy="Add labelled cases of the role validation.",
        )
    has_own_calibration = holds_calibration(path)
    if options.output is not None:
        if has_own_calibration:
            _report_unused_calibration(options.output, path, console)
        check_file(options.output, [path, options.cases, *case_files(listed)], existing_rule(options))
    elif existing_rule(options) == REFUSE and _would_remove_calibration(path):
        raise InputError("has a calibration already", path=path, remedy="To replace the calibration, add --overwrite.")
    else:
        check_result_paths([path], [options.cases, *case_files(listed)])
    _refuse_trained_scans(cases, path, console)  # Last, since it may read all scans.
    # Imported after the checks above, since torch loads slowly.
    from ..devices import choose_device
    from ..inference.calibrating import calibrate
    from ..inference.predictor import Predictor
    from ..networks.packaging import verify_model

    def progress(done: int, of: int) -> None:
        console.print_event("progress", step=done, of=of)
        console.show_progress("segmenting the validation cases", done / of)

    stamp = file_stamp(path)
    package = replace(verify_model(path), calibration=None, notes=())
    predictor = Predictor(package, choose_device(options.device))
    notes = f"{len(cases)} validation cases of {options.cases.name}, each also with simulated disturbances"
    calibration = calibrate(package, cases, predictor, notes, progress, on_note=console.print_note)
    if options.output is None:
        if file_stamp(path) != stamp:
            remedy = "Calibrate the model again, or write the calibration to a file with --output."
            raise InputError(
                "was changed or removed during the calibration; no calibration was stored", path=path, remedy=remedy
            )
        write_package(path, replace(package, calibration=calibration))
    else:
        refuse_appeared_file(options.output, existing_rule(options))
        with atomic_path(options.output) as temporary:
            temporary.write_text(calibration.to_json(), encoding="utf-8")
    console.clear_progress()
    if options.output is not None and not has_own_calibration and not _is_beside(options.output, path):
        console.print_note(f"{options.output}: is used only if moved to {calibration_path(path)}")
    console.print_event(
        "calibrated", file=str(options.output or path), **asdict(calibration), printed_notes=console.notes
    )
    for figure, value in calibration.measured.items():
        console.print_text(f"{figure}: {value:.3f}")
    console.print_text(_doubt_text(calibration))
    console.print_text(f"calibration: {options.output or path}")


def _would_remove_calibration(model: Path) -> bool:
    """Return whether `write_package` would remove a model's calibration or a calibration file beside the model."""
    return open_model(model).calibration is not None or calibration_path(model).exists()


def _refuse_trained_scans(cases: Sequence[Case], model: Path, console: Console) -> None:
    progress = partial(console.show_progress, "comparing the scans with the model's training scans")
    for _, error in find_trained_scans(cases, model, progress, console.print_note):
        raise error
    console.clear_progress()


def _report_unused_calibration(output: Path, model: Path, console: Console) -> None:
    """Report that the calibration in a model takes precedence over the calibration that `output` will contain.

    Raises InputError if `output` is the calibration file beside the model.
    """
    error = InputError(
        f"would not be used, since the model {model} contains a calibration, which takes precedence",
        path=output,
        remedy="Replace the model's own calibration: leave out --output, and add --overwrite.",
    )
    if _is_beside(output, model):
        raise error
    console.print_note(str(error))


def _is_beside(output: Path, model: Path) -> bool:
    return os.path.realpath(output) == os.path.realpath(calibration_path(model))


def _doubt_text(calibration: Calibration) -> str:
    scaling = calibration.doubt
    if scaling is None:
        return "map of doubt: not calibrated"
    return f"map of doubt: calibrated (bias {scaling.bias:.2f}, slope {scaling.slope:.2f})"


def _print_notes(package: ModelPackage, console: Console) -> None:
    for note in package.notes:
        console.print_error(note)


def _show_calibration(calibration: Calibration | None, console: Console) -> None:
    if calibration is None:
        console.print_text("calibration: none; the expected overlap of results is not computed")
        return
    console.print_event("calibration", **asdict(calibration))
    console.print_text(f"calibration: {calibration.notes}")
    groups: dict[str, list[str]] = {}
    for name, value in calibration.measured.items():
        group, _, figure = name.rpartition(": ")
        groups.setdefault(group, []).append(f"{figure} {value:.3f}")
    for group, figures in groups.items():
        console.print_text(f"  {group}: {', '.join(figures)}" if group else f"  {', '.join(figures)}")
    console.print_text(f"  {_doubt_text(calibration)}")


def _show_card(package: ModelPackage, console: Console) -> None:
    fields = asdict(package.card)
    console.print_event("card", **fields, printed_notes=package.notes)
    for key, value in fields.items():
        if value not in ("", (), {}):
            first, *others = _readable_lines(value)
            console.print_text(f"{key.replace('_', ' ') + ':':<12} {first}".rstrip())
            for line in others:
                console.print_text(f"  {line}")


def _readable_lines(value: object) -> list[str]:
    """Return a value of the card as lines. The caller prints the first line after the key and indents the others."""
    if isinstance(value, Mapping):
        lines = [""]
        for key, entry in value.items():
            first, *others = _readable_lines(entry)
            lines += [f"{str(key).replace('_', ' ')}: {first}".rstrip(), *(f"  {line}" for line in others)]
        return lines
    if isinstance(value, (list, tuple)):
        if not any(isinstance(entry, Mapping) for entry in value):
            return [", ".join(str(entry) for entry in value)]
        lines = [""]
        for entry in value:
            inner = [line for line in _readable_lines(entry) if line]
            lines += [f"{'-' if number == 0 else ' '} {line}" for number, line in enumerate(inner)]
        return lines
    return str(value).split("\n")
