"""The command `petseg`. Heavy packages are imported by the command that needs them, so that --help is quick."""

import argparse
import errno
import io
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from contextlib import ExitStack, redirect_stderr, redirect_stdout
from pathlib import Path

RUN_HELP = """\
Check the parameters, run the notebook with papermill, and prove that it finished.

  petseg run 03_unet_training --out runs/try/unet -f demo -p epochs 2 -p image_size 64

The run folder's last part names the section of the profile; a run without a section gets the profile's common
parameters. Exit status: 0 done, 1 the notebook failed, 2 a parameter is wrong (nothing was run), 130 interrupted.
"""

SWEEP_HELP = """\
Run every combination that a sweep names, each a papermill run with its own run folder, side by side as far as
cores and GPUs allow. The same command again does only what failed, is missing or has changed.
DATA, SET and FORCE are taken from the environment, as `make sweep` sets them.

  petseg sweep profiles/sweeps/ablations.yaml --dry-run
  petseg sweep ablations -- --jobs 1
"""

CHECK_HELP = """\
Read every listed photograph and trimap, and name all that is wrong with them at once.
Exit status: 0 training can start, 1 it would stop, 2 the command is wrong.
"""

MASKS_HELP = """\
Make a dataset folder, in the layout of Oxford-IIIT Pet, of photographs and of masks that are bright, or opaque, where the pet is.

  petseg data from-masks photographs masks --out mine
  petseg run 03_unet_training --out runs/mine/unet -f sample -p data mine
"""

NO_BROWSER = "no Chromium, Chrome or Edge here (on the PATH, where macOS and Windows install it, or as CHROME_PATH), and so no report.pdf: any browser prints report.html"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one subcommand; returns the exit status."""
    # A name that a pipe of Windows cannot encode is shown escaped, as Python does on stderr by itself.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    words = list(sys.argv[1:] if arguments is None else arguments)
    # What follows -- argparse itself refuses where an option stands between the sweep and it.
    end = words.index("--") if words[:1] == ["sweep"] and "--" in words else len(words)
    options = _parser().parse_args(words[:end])
    options.snakemake = words[end + 1 :]
    # A batch system ends jobs with SIGTERM: what holds for Ctrl-C shall hold for it too.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with ExitStack() as stack:
        if said := getattr(options, "said", None):
            try:
                Path(said).parent.mkdir(parents=True, exist_ok=True)
                stream = stack.enter_context(Path(said).open("w", encoding="utf-8", buffering=1))
            except OSError as error:
                return _unusable(error)
            stack.enter_context(redirect_stdout(stream))
            stack.enter_context(redirect_stderr(stream))
        try:
            return _answer(options)
        except Exception:
            if said:
                traceback.print_exc()
            raise


def _answer(options: argparse.Namespace) -> int:
    """Carry a subcommand out, and say in a sentence why it ended early."""
    try:
        status = options.command(options) or 0
        sys.stdout.flush()
        return status
    except BrokenPipeError:
        try:
            print(flush=True)  # is it this pipe, or one of the command's own?
        except BrokenPipeError:  # whoever read this, `head` say, has gone; Python shall not say so at its end
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 1
        raise
    except KeyboardInterrupt:
        print("petseg: interrupted", file=sys.stderr)
        return 130
    except OSError as error:
        if (
            sys.platform == "win32" and error.errno == errno.EINVAL and not error.filename
        ):  # there, of a pipe that `more` has left
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 1
        if not error.filename:
            raise
        return _unusable(error)
    except Exception as error:
        # Errors that a notebook shows as their sentence alone are meant for people: the same here.
        if not hasattr(error, "_render_traceback_"):
            raise
        print(f"petseg: {error}", file=sys.stderr)
        return 2


def _unusable(error: OSError) -> int:
    """Say which file or folder it was, and why; the exit status."""
    print(f"petseg: {error.filename} cannot be used: {error.strerror}", file=sys.stderr)
    return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="petseg", description="Run and measure the pet segmentation notebooks.")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    plain = argparse.RawDescriptionHelpFormatter

    run = commands.add_parser("run", help="run a notebook into a run folder", description=RUN_HELP, formatter_class=plain)
    run.add_argument("notebook", metavar="NOTEBOOK", help="path or name, e.g. 03_unet_training")
    run.add_argument("--out", metavar="RUN_DIR", required=True, help="run folder, relative to the workspace")
    run.add_argument("-f", "--profile", metavar="PROFILE", help="path or name of a profile, such as demo or sample")
    run.add_argument("-p", "--parameter", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"), help="set one")
    run.add_argument("--force", action="store_true", help="train again what stands finished, or under other parameters")
    run.add_argument("--said", metavar="FILE", help="write into this file what would be shown here")
    run.set_defaults(command=_run)

    evaluate = commands.add_parser("evaluate", help="measure a training run again, on any dataset folder")
    evaluate.add_argument("run_dir", metavar="RUN_DIR", help="folder of a finished training run")
    evaluate.add_argument("--data", metavar="DIR", required=True, help="dataset folder in the Oxford layout, or demo")
    evaluate.add_argument("--split", choices=["train", "valid", "trainval", "test"], default="test", help="default: test")
    evaluate.set_defaults(command=_evaluate)

    predict = commands.add_parser("predict", help="cut the pets out of photographs with a training run's network")
    predict.add_argument("run_dir", metavar="RUN_DIR", help="folder of a finished training run")
    predict.add_argument("photographs", metavar="PHOTOGRAPHS", help="folder of photographs, or one file")
    predict.add_argument("--out", metavar="DIR", required=True, help="folder for masks/, cutouts/ and cutouts.csv")
    predict.add_argument("--threshold", type=float, default=0.5, metavar="T", help="pet above this probability (default: 0.5)")
    predict.set_defaults(command=_predict)

    sweep = commands.add_parser("sweep", help="run a notebook many times", description=SWEEP_HELP, formatter_class=plain)
    sweep.add_argument("file", metavar="SWEEP", help="path or name of a sweep, e.g. profiles/sweeps/ablations.yaml")
    sweep.add_argument("--threads", type=int, default=0, metavar="N", help="CPU threads of a run (default: chosen)")
    sweep.add_argument("--dry-run", action="store_true", help="only say what there is to do, and about how long it takes")
    sweep.usage = "petseg sweep [-h] [--threads N] [--dry-run] SWEEP [-- OPTION ...]  (of Snakemake, after --)"
    sweep.set_defaults(command=_sweep)

    report = commands.add_parser("report", help="put the finished runs of runs/PROFILE into one report.html, and tables")
    report.add_argument(
        "runs_dir", metavar="PROFILE_RUNS_DIR", help="folder of run folders, relative to the workspace, e.g. runs/demo"
    )
    report.add_argument("--pdf", action="store_true", help="a report.pdf too, where there is a Chromium, Chrome or Edge")
    report.set_defaults(command=_report)

    pets = commands.add_parser("pets", help="draw synthetic pets in the layout of Oxford-IIIT Pet")
    pets.add_argument("folder", metavar="DIR", help="folder to write")
    pets.add_argument("--count", type=int, default=240, metavar="N", help="pictures to draw (default: 240)")
    pets.add_argument("--seed", type=int, default=0, metavar="S", help="seed of the drawing (default: 0)")
    pets.set_defaults(command=_pets)

    data = commands.add_parser("data", help="make a dataset folder, check one, or download Oxford-IIIT Pet")
    actions = data.add_subparsers(metavar="ACTION", required=True)
    check = actions.add_parser(
        "check", help="read every file, and say what training will do about it", description=CHECK_HELP, formatter_class=plain
    )
    check.add_argument("folder", metavar="DIR", help="dataset folder in the Oxford layout, or demo")
    check.add_argument("--json", metavar="FILE", help="write the problems to this file as well")
    check.set_defaults(command=_check)
    own = actions.add_parser(
        "from-masks", help="make a dataset of photographs and masks", description=MASKS_HELP, formatter_class=plain
    )
    own.add_argument("photographs", metavar="PHOTOGRAPHS", help="folder of photographs")
    own.add_argument("masks", metavar="MASKS", help="folder of masks of the same names, whatever their endings")
    own.add_argument("--out", metavar="DIR", required=True, help="folder to make")
    own.add_argument("--test", type=float, default=0.3, metavar="SHARE", help="of the photographs, to test on (default: 0.3)")
    own.add_argument("--seed", type=int, default=0, metavar="S", help="seed of the drawing of the split (default: 0)")
    own.add_argument("--species", choices=["cat", "dog"], default="cat", help="of all pets, for the tables (default: cat)")
    own.add_argument("--breed", default="pet", metavar="NAME", help="of all pets, for the tables (default: pet)")
    own.set_defaults(command=_from_masks)
    download = actions.add_parser("download", help="download Oxford-IIIT Pet")
    download.add_argument("folder", metavar="DIR", help="folder to write")
    download.set_defaults(command=_download)

    notebooks = commands.add_parser("notebooks", help="run the notebooks as they stand and keep their cleaned outputs")
    notebooks.add_argument("--check", action="store_true", help="only look for widget state, paths, timestamps")
    notebooks.set_defaults(command=_notebooks)
    return parser


def _run(options: argparse.Namespace) -> int:
    from petseg_lib.execute import NotebookError, run_notebook

    try:
        run_notebook(options.notebook, options.out, options.profile, dict(options.parameter), options.force)
    except NotebookError as error:
        print(f"petseg: {error}", file=sys.stderr)
        return 1
    return 0


def _sweep(options: argparse.Namespace) -> int:
    from petseg_lib.sweeps import run_sweep

    return run_sweep(options.file, options.threads, options.dry_run, options.snakemake)


def _evaluate(options: argparse.Namespace) -> None:
    from petseg_lib.evaluation import evaluate_run

    print(evaluate_run(options.run_dir, options.data, options.split).to_string(index=False))


def _predict(options: argparse.Namespace) -> int:
    from petseg_lib.cutouts import cut_out_folder
    from petseg_lib.data.pictures import passed_over
    from petseg_lib.words import in_words, some

    table, left_out = cut_out_folder(options.run_dir, options.photographs, options.out, options.threshold)
    print(table.to_string(index=False, float_format="{:.4f}".format))
    print(f"{in_words(len(table), 'photograph')}: {options.out}/cutouts, {options.out}/masks, {options.out}/cutouts.csv")
    for reason in left_out.values():
        print(f"petseg: left out: {reason}", file=sys.stderr)
    if others := passed_over(options.photographs):
        print(f"petseg: passed over: {some(others)}", file=sys.stderr)
    return 1 if left_out else 0


def _report(options: argparse.Namespace) -> None:
    from petseg_lib.config import shown, workspace
    from petseg_lib.report import NO_NOTEBOOK, find_browser, missing_runs, print_pdf, without_notebook, write_report, write_tables

    folder = workspace() / options.runs_dir
    page, tables = write_report(folder, folder / "report.html"), write_tables(folder)
    print(shown(page))
    if tables:
        print(shown(tables))
    if options.pdf:
        browser = find_browser()
        print(shown(print_pdf(browser, page, folder / "report.pdf")) if browser else NO_BROWSER)
    if missing := missing_runs(folder):
        print(f"petseg: not finished, and so not in the report: {', '.join(missing)}", file=sys.stderr)
    if others := without_notebook(folder):
        print(f"petseg: not shown in the report: {', '.join(others)}, {NO_NOTEBOOK}", file=sys.stderr)


def _pets(options: argparse.Namespace) -> None:
    from petseg_lib.data.synthetic import draw_pets

    print(draw_pets(options.folder, options.count, options.seed))


def _check(options: argparse.Namespace) -> int:
    from petseg_lib.data.check import check_folder
    from petseg_lib.data.pets import dataset_folder
    from petseg_lib.data.problems import write_json

    check = check_folder(dataset_folder(options.folder), progress=sys.stderr.isatty())
    print(check.table())
    if options.json:
        write_json(check, options.json)
    return 0 if check.trainable else 1


def _from_masks(options: argparse.Namespace) -> None:
    from petseg_lib.data.own import from_masks

    given = (options.test, options.seed, options.species, options.breed)
    print(from_masks(options.photographs, options.masks, options.out, *given))


def _download(options: argparse.Namespace) -> None:
    from petseg_lib.data.download import download

    print(download(options.folder))


def _notebooks(options: argparse.Namespace) -> int:
    from petseg_lib.notebooks import refresh_notebooks, unclean_notebooks

    if not options.check:
        from petseg_lib.config import workspace
        from petseg_lib.report import write_tables

        refresh_notebooks()
        write_tables(workspace() / "runs" / "demo")
    unclean = unclean_notebooks()
    for path in unclean:
        print(f"petseg: {path.name} has widget state, paths or timestamps: `make notebooks` cleans it", file=sys.stderr)
    return 1 if unclean else 0


if __name__ == "__main__":
    sys.exit(main())
