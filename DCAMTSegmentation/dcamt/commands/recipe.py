"""`dcamt recipe`: suggest a recipe for a case list."""

from __future__ import annotations

import argparse

from ..cases.case_list import list_cases
from ..cases.suggestion import suggest_recipe
from ..io.atomic import write_text
from .console import Console
from .result_files import case_files, check_file, existing_rule, refuse_appeared_file


def run_recipe(options: argparse.Namespace) -> int:
    """Write the recipe suggested for the cases, and return 0.

    Raises:
        InputError: the cases or the device cannot be used, or the file must not be replaced.
        OutputError: the file cannot be written.
    """
    console = Console(options.json)
    cases = list_cases(options.cases, options.labels, console.print_note)
    task = options.cases.parent / "dataset.json"
    existing = existing_rule(options)
    check_file(options.output, [options.cases, task, *case_files(cases)], existing)
    # Imported after the checks above, since torch loads slowly.
    from ..devices import choose_device
    from ..training.estimate import available_memory

    memory = available_memory(choose_device(options.device, training=True))
    name = options.output.name.removesuffix(".json")
    folder = task.parent if task.exists() else None
    console.show_progress("reading the cases", 0)
    recipe = suggest_recipe(cases, memory, name, folder, console.print_note)
    refuse_appeared_file(options.output, existing)
    write_text(options.output, recipe.to_json() + "\n")
    console.print_event("recipe", path=str(options.output), recipe=recipe.to_dict(), notes=console.notes)
    spacing = " x ".join(f"{mm:g}" for mm in recipe.spacing)
    patch = " x ".join(map(str, recipe.training.patch))
    console.print_text(
        f"{recipe.title}: {spacing} mm, patch {patch} voxels, batch {recipe.training.batch}, "
        f"intensities '{recipe.intensity.rule}'",
        f"recipe: {options.output}",
    )
    return 0
