"""Define the options of the commands on cases, recipes, runs and models."""

from __future__ import annotations

from ..models.store import DEFAULT_MODEL
from ..recipe_files import shipped_recipes
from ..runs.efforts import EFFORTS
from .options import (
    CASE_LIST,
    Commands,
    Parser,
    add_command,
    add_device,
    add_existing,
    add_json,
    add_label_mapping,
    parse_count,
    parse_name,
    parse_path,
)


def add_cases(commands: Commands[Parser]) -> None:
    """Add the command `dcamt cases`."""
    parser = add_command(
        commands,
        "cases",
        "Make a case list from a folder, or check a case list before training.",
        "dcamt cases find scans -o cases.csv",
    )
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    summary = (
        "Pair scans with labels by name, or by the folder layout of nnU-Net, BIDS or the Medical Segmentation"
        " Decathlon."
    )
    find = add_command(actions, "find", summary, "dcamt cases find scans -o cases.csv --validation 4")
    find.add_argument("folder", type=parse_path, metavar="FOLDER", help="folder of scans and labels, with subfolders")
    find.add_argument("-o", "--output", type=parse_path, metavar="CASES.csv", help="default: only print the pairs")
    find.add_argument(
        "--validation", type=parse_count, default=0, metavar="N", help="assign N labelled cases to validation"
    )
    add_label_mapping(find, column="")
    add_existing(find)
    summary = "Print size, spacing and problems of each case; exit status 1 if there is a problem."
    check = add_command(actions, "check", summary, "dcamt cases check cases.csv --recipe la")
    check.add_argument("cases", type=parse_path, metavar="CASES.csv", help=CASE_LIST)
    _add_recipe_options(check)
    check.add_argument(
        "--checksums",
        action="store_true",
        help="with --json: also print a checksum of each scan; scans with equal voxels have equal checksums, in any"
        " file format",
    )
    add_label_mapping(check)
    add_json(find)
    add_json(check)


def add_recipe(commands: Commands[Parser]) -> None:
    """Add the command `dcamt recipe`."""
    parser = add_command(
        commands,
        "recipe",
        "Suggest a complete recipe for a case list: spacing, intensities, classes, network, patch and batch.",
        "dcamt recipe suggest cases.csv -o recipe.json",
    )
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    suggest = add_command(
        actions,
        "suggest",
        "Write a recipe for the labelled cases of a list; its patch and batch fit into this machine's memory.",
        "dcamt recipe suggest cases.csv -o recipe.json",
    )
    suggest.add_argument("cases", type=parse_path, metavar="CASES.csv", help=CASE_LIST)
    suggest.add_argument(
        "-o",
        "--output",
        required=True,
        type=parse_path,
        metavar="FILE.json",
        help="file of the recipe, for train --recipe",
    )
    add_label_mapping(suggest)
    add_existing(suggest)
    add_device(suggest)
    add_json(suggest)


def add_estimate(commands: Commands[Parser]) -> None:
    """Add the command `dcamt estimate`."""
    parser = add_command(
        commands,
        "estimate",
        "Estimate time, memory and disk space of a run on this machine from a few iterations.",
        "dcamt estimate cases.csv --recipe la",
    )
    parser.add_argument("cases", type=parse_path, metavar="CASES.csv", help=CASE_LIST)
    _add_recipe_options(parser)
    parser.add_argument(
        "--effort",
        action="append",
        choices=EFFORTS,
        help="estimate only this effort; may be repeated (default: all three)",
    )
    add_label_mapping(parser)
    parser.add_argument(
        "--run", type=parse_path, metavar="FOLDER", help="where the run would be written (default: here)"
    )
    parser.add_argument(
        "--scene", action="store_true", help="for the cases of a scene in 3D Slicer: accept missing scans and labels"
    )
    add_device(parser)
    add_json(parser)


def _add_recipe_options(parser: Parser) -> None:
    parser.add_argument("--recipe", type=parse_name, metavar="NAME_OR_FILE", help="as for dcamt train")
    parser.add_argument("--start-from", type=parse_name, metavar="MODEL", help="as for dcamt train")
    parser.add_argument("--set", action="extend", nargs="+", default=[], metavar="key=value", help="as for dcamt train")


def add_train(commands: Commands[Parser]) -> None:
    """Add the command `dcamt train`."""
    parser = add_command(
        commands,
        "train",
        "Train a model on the labelled and unlabelled scans of a CSV file (name,image,label,role).",
        "dcamt train cases.csv --run runs/first --set iterations=2000",
    )
    parser.add_argument(
        "cases", type=parse_path, metavar="CASES.csv", nargs="?", help=f"{CASE_LIST}; only for a new run"
    )
    parser.add_argument(
        "--run",
        "--run-folder",  # torchrun takes `--run` for an abbreviation of one of its own options
        dest="run",
        required=True,
        type=parse_path,
        metavar="FOLDER",
        help="folder of the run; under torchrun, write --run-folder instead of --run",
    )
    parser.add_argument(
        "--recipe",
        type=parse_name,
        metavar="NAME_OR_FILE",
        help=f"{', '.join(shipped_recipes())} or a .json file (default: that of --start-from, or la)",
    )
    parser.add_argument(
        "--start-from", type=parse_name, metavar="MODEL", help="start with the weights and the recipe of this model"
    )
    parser.add_argument(
        "--set",
        action="extend",
        nargs="+",
        default=[],
        metavar="key=value",
        help="change settings of the recipe, for example patch=64,64,32",
    )
    add_device(parser)
    parser.add_argument(
        "--effort",
        choices=EFFORTS,
        help="fraction of the recipe's iterations: quick 1/12 (with smaller patches), standard 1/2, thorough all"
        " (default)",
    )
    add_label_mapping(parser)
    parser.add_argument("--resume", action="store_true", help="continue the run in the folder")
    parser.add_argument("--stop", action="store_true", help="end the run in the folder now, and write its models")
    parser.add_argument("--watch", action="store_true", help="only show the progress of the run in the folder")
    add_json(parser)


def add_rank(commands: Commands[Parser]) -> None:
    """Add the command `dcamt rank`."""
    parser = add_command(
        commands,
        "rank",
        "Rank unlabelled scans for outlining, by the disagreement of the model's two branches.",
        "dcamt rank --run runs/first --csv next.csv",
    )
    parser.add_argument(
        "cases", type=parse_path, metavar="CASES.csv", nargs="?", help=f"{CASE_LIST}; default: the cases of the run"
    )
    parser.add_argument(
        "--run",
        type=parse_path,
        metavar="FOLDER",
        help="run whose model and cases are used; --model replaces the model, CASES.csv replaces the cases",
    )
    parser.add_argument(
        "--model",
        type=parse_name,
        metavar="NAME_OR_FILE",
        help=f"model that ranks (default: the run's, or {DEFAULT_MODEL})",
    )
    parser.add_argument("--csv", type=parse_path, metavar="FILE", help="write the ranking to this table")
    parser.add_argument(
        "--segmentations", type=parse_path, metavar="FOLDER", help="write the proposed segmentations to this folder"
    )
    add_existing(parser)
    parser.add_argument(
        "--keep-corrected",
        action="store_true",
        help="with --overwrite: keep segmentations that DCAMT does not recognise as its own, such as corrected ones;"
        " their cases are not ranked",
    )
    add_device(parser)
    add_json(parser)


def add_report(commands: Commands[Parser]) -> None:
    """Add the command `dcamt report`."""
    parser = add_command(
        commands,
        "report",
        "Write a run's report again: one HTML file with charts, pictures and validation scores.",
        "dcamt report runs/first",
    )
    parser.add_argument("run", type=parse_path, metavar="FOLDER", help="folder of the run")
    add_device(parser)
    add_json(parser)


def add_models(commands: Commands[Parser]) -> None:
    """Add the command `dcamt models`."""
    parser = add_command(
        commands,
        "models",
        "List, show, verify, calibrate, import and remove models.",
        f"dcamt models show {DEFAULT_MODEL}",
    )
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    any_model = "name of an installed model, or a model file"

    add_json(add_command(actions, "list", "List the installed models.", "dcamt models list"))

    show = add_command(actions, "show", "Show the card of a model.", f"dcamt models show {DEFAULT_MODEL}")
    show.add_argument("model", type=parse_name, metavar="NAME_OR_FILE", help=any_model)
    add_json(show)

    example = "dcamt models verify runs/first/model.dcamt"
    verify = add_command(actions, "verify", "Check every part of a model file.", example)
    verify.add_argument("model", type=parse_name, metavar="NAME_OR_FILE", help=any_model)
    add_json(verify)

    summary = "Use validation cases to calibrate a model's expected overlap."
    example = "dcamt models calibrate runs/first/model.dcamt runs/first/cases.csv"
    calibrate = add_command(actions, "calibrate", summary, example)
    calibrate.add_argument("model", type=parse_name, metavar="NAME_OR_FILE", help=any_model)
    calibrate.add_argument(
        "cases",
        type=parse_path,
        metavar="CASES.csv",
        help="at least 8 cases of the role validation, with labels",
    )
    add_label_mapping(calibrate)
    calibrate.add_argument(
        "-o",
        "--output",
        type=parse_path,
        metavar="FILE.json",
        help="write the calibration to this file (default: the model file)",
    )
    add_existing(calibrate)
    add_device(calibrate)
    add_json(calibrate)

    example = "dcamt models import runs/first/model.dcamt"
    import_model = add_command(actions, "import", "Copy a model file to the installed models.", example)
    import_model.add_argument("model", type=parse_name, metavar="FILE", help="model file, such as model.dcamt of a run")
    replaces = "replace an imported model of the same name"
    import_model.add_argument(
        "--name",
        type=parse_name,
        help="name in the list of models; default: the name in the model's card"
        " (after a training: the name of the run's folder at that time)",
    )
    import_model.add_argument("--overwrite", "--replace", dest="replace", action="store_true", help=replaces)
    add_json(import_model)

    remove = add_command(actions, "remove", "Delete one of the imported models.", "dcamt models remove first")
    remove.add_argument("model", type=parse_name, metavar="NAME", help="name of an imported model")
    add_json(remove)
