"""The command line behind run_all.sh: ``python -m kdutils --help``."""

import argparse
import contextlib
import errno
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from kdutils.errors import CONTROL, INTERRUPTED, StudyError, first_line, masked, printable
from kdutils.packages import missing_requirements
from kdutils.runs import PROJECT, called_path, check_run, read_json

if TYPE_CHECKING:
    from kdutils.experiments.cost import Plan
    from kdutils.experiments.grid import Experiment, Job


def main(arguments: list[str] | None = None) -> int:
    """Run one command; return the exit code: 0 done, 1 a run failed, 2 wrong input, 3 already running, 130 stopped."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    cut = words.index("--") if "--" in words else len(words)
    options = parser().parse_args(words[:cut])
    options.snakemake = words[cut + 1:]
    try:
        return options.command(options)
    except KeyboardInterrupt:
        print("\nstopped by Ctrl-C; the same command goes on from here: what is finished is kept", file=sys.stderr)
        return INTERRUPTED
    except StudyError as error:
        for line in getattr(error, "lines", [error]):
            print(f"error: {line}", file=sys.stderr)
        return error.code
    except BrokenPipeError:  # of `| head`, which has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:  # a full or read-only disk, most of all
        print(f"error: {_disk_error(error)}", file=sys.stderr)
        return 1


def _disk_error(error):
    """Return one line on an error of the file system: where, what, and what to do."""
    advice = {errno.ENOSPC: "make room", errno.EDQUOT: "make room", errno.EROFS: "write where it is allowed",
              errno.EACCES: "see the permissions"}.get(error.errno, "correct what is wrong there")
    return (f"{error.filename or PROJECT / 'outputs'}: {error.strerror or error}; {advice} and give the same command "
            "again: what is finished is kept")


class _Parser(argparse.ArgumentParser):
    """A parser that knows options by their whole names and tells an error in a line."""

    def __init__(self, **settings):
        super().__init__(**{**settings, "allow_abbrev": False})

    def error(self, message):
        program = self.prog if " store" in self.prog else "./run_all.sh"  # which does not offer the store
        self.exit(2, f"error: {message}; {program} --help says what there is\n")


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    top = _Parser(prog="python -m kdutils", description="Run, list and show the experiments of the study.")
    commands = top.add_subparsers(required=True)

    def command(name, function, text, **more):
        added = commands.add_parser(name, help=text, description=text, **more)
        added.set_defaults(command=function)
        return added

    run = argparse.ArgumentParser(add_help=False)
    run.add_argument("experiment", nargs="?", default="mini")
    run.add_argument("--cores", type=_cores, default=os.cpu_count(), help="jobs at a time (default: all cores)")
    run.add_argument("--dry-run", action="store_true", help="check the experiment and say what would run")
    run.add_argument("--force", action="store_true", help="run everything again")
    run.add_argument("--tiny", action="store_true", help="try it to its end with tiny models and few questions")
    run.add_argument("--retry-unusable", action="store_true",
                     help="ask servers again for completions from which no explanation could be read")
    run.add_argument("--leave-out-too-long", action=argparse.BooleanOptionalAction,
                     help="leave out questions whose prompts do not fit into a teacher's context, also in later runs")
    run.add_argument("--ratings", action="append", metavar="FOLDER", help="what raters of the human study sent back; "
                     "'' forgets what an earlier call named, and raters are simulated again if the file names none")
    command("run", run_experiment, "run an experiment to its end, or go on where it was; what follows -- goes to "
                                   "snakemake", parents=[run])
    # The same words as for run, but no --help: what is printed here is installed.
    command("packages", print_missing_packages, "print what to install for an experiment: the packages that ship its "
                                                "models and are not here", parents=[run], add_help=False)
    command("list", list_experiments, "list the experiments, what each needs and how long it took")
    pages = command("index", index_experiment, "write the pages of an experiment as far as it has come")
    pages.add_argument("experiment")
    executing = command("execute", execute_job, "execute one job of the experiment recorded in the current folder")
    executing.add_argument("folder")
    executing.add_argument("--finished-only", action="store_true", help="compare the evaluations that are finished")
    checking = command("check-data", check_data_table, "say how a table of your own is read, list its faulty rows with "
                                                       "remedies, write a cleaned copy")
    checking.add_argument("table", help="CSV, TSV, Excel, JSON, JSON lines or Parquet")
    making = command("new", make_experiment, "write an experiment and its prompt for a table of your own, beside it")
    making.add_argument("name", help="of the experiment")
    making.add_argument("--data", required=True, metavar="TABLE", help="the table, see check-data")
    making.add_argument("--teacher", default="", metavar="URL", help="a server with the OpenAI API")
    making.add_argument("--model", default="", help="the teacher's model: a name on the server, or a folder or Hub id")
    for one in (checking, making):
        one.add_argument("--labels", choices=("gold", "teacher"), default="gold",
                         help="teacher: keep questions of train and dev without an answer, a teacher answers them")
    keeping = command("keep", keep_results, "keep the tables and the figure of a finished run in outputs/results")
    keeping.add_argument("name", help="an experiment, or bench/NAME for a benchmark")
    keeping.add_argument("--note", default="", help="a sentence on this run, such as what else ran on the machine")
    asking = command("ask", ask_students, "ask trained students a question of your own")
    exporting = command("export", export_cell, "export a trained student with a model card and an example; nothing is "
                                               "uploaded")
    for chosen, several in ((asking, True), (exporting, False)):
        chosen.add_argument("experiment", help="a finished experiment, or `example` for the student that ships")
        chosen.add_argument("--cell", action="append", default=[], metavar="NAME",
                            help="as in the tables of the report, such as 'multitask (few_shot)'"
                                 + ("; several are allowed, and `all`" * several) + " (default: the cell that explains "
                                 "and is best on dev)")
        chosen.add_argument("--seed", type=int, help="seed of the student (default: the best one on dev)")
    asking.add_argument("--from", dest="questions", metavar="FILE",
                        help="a table with the columns question, choices and context, or a text with lines such as "
                             "'question | choice | choice' (default: the keyboard)")
    asking.add_argument("--json", action="store_true", help="print one JSON object per question and student")
    exporting.add_argument("--to", required=True, metavar="FOLDER", help="a new folder")
    command("write-results", write_results, "write RESULTS.md, and the results that README.md names, from "
                                            "outputs/results")
    _add_store(commands)
    return top


def _add_store(commands):
    """Add the command `store` with its own commands."""
    text = "look at the stored completions of teachers, forget or export them"
    kinds = commands.add_parser("store", help=text, description=text).add_subparsers(required=True)

    def command(name, function, text, *more):
        added = kinds.add_parser(name, help=text, description=text)
        for word, options in more:
            added.add_argument(word, **options)
        added.add_argument("--teacher", default="", help="only of teachers with this in their name or address")
        added.add_argument("--text", default="", help="only with this text in prompt, completion or thinking")
        added.add_argument("--unusable", action="store_true", help="only those without a usable explanation")
        added.set_defaults(command=function)

    keys = ("keys", {"nargs": "*", "help": "keys or their beginnings, as `list` prints them", "metavar": "KEY"})
    command("list", list_completions, "count the completions per teacher; with a condition, list them", (
        "--all", {"action": "store_true", "help": "list every one"}))
    command("show", show_completions, "print completions in full", keys)
    command("forget", forget_completions, "delete completions, so that a teacher is asked again", keys, (
        "--yes", {"action": "store_true", "help": "do it; without it, they are only counted"}))
    command("export", export_completions, "write completions to a file", (
        "file", {"type": Path, "help": "a name that ends in .jsonl or .csv"}))


def list_completions(options: argparse.Namespace) -> int:
    """Print how many completions each teacher has written, or a line for each that is asked for."""
    from kdutils.teacher.store_contents import line_of, summary_lines

    with _store(read_only=True) as store:
        if options.all or options.teacher or options.text or options.unusable:
            lines = [line_of(row) for row in _chosen(store, options)]
            print("\n".join([*lines, f"{len(lines)} completions in {store.path}"]))
        else:
            print("\n".join([*summary_lines(store), f"{store.size()} completions in {store.path}"]))
    return 0


def show_completions(options: argparse.Namespace) -> int:
    """Print completions in full."""
    from kdutils.teacher.store_contents import describe

    with _store(read_only=True) as store:
        print("\n\n".join(map(describe, _chosen(store, options, needs_condition=True))))
    return 0


def forget_completions(options: argparse.Namespace) -> int:
    """Delete completions from the store; without --yes say how many it would be."""
    from kdutils.teacher.store_contents import line_of

    with _store(read_only=not options.yes) as store:
        chosen = _chosen(store, options, needs_condition=True)
        if options.yes:
            print(f"{store.forget([row['key'] for row in chosen])} completions are forgotten; a teacher is asked again "
                  "when a job that needs them runs")
        else:
            lines = [*map(line_of, chosen), f"{len(chosen)} completions would be forgotten; --yes forgets them"]
            print("\n".join(lines))
    return 0


def export_completions(options: argparse.Namespace) -> int:
    """Write completions to a file."""
    from kdutils.teacher.store_contents import export

    with _store(read_only=True) as store:
        chosen = _chosen(store, options)
        print(f"{len(chosen)} completions: {export(chosen, options.file)}")
    return 0


def _store(read_only):
    from kdutils.teacher.store import Store, store_path

    if not store_path().exists():
        raise StudyError(f"{store_path()}: no completions are stored yet (KDUTILS_STORE names another file)")
    return Store(store_path(), read_only)


def _chosen(store, options, needs_condition=False):
    from kdutils.teacher.store_contents import choose

    keys = getattr(options, "keys", [])
    if needs_condition and not (keys or options.teacher or options.text or options.unusable):
        raise StudyError("say which completions: keys, --teacher, --text or --unusable")
    return choose(store, keys, options.teacher, options.text, options.unusable)


def _cores(text):
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 on")
    return int(text)


def list_experiments(options: argparse.Namespace) -> int:
    """Print every experiment with what it needs and how long it took."""
    from kdutils.errors import short
    from kdutils.experiments.loading import experiment_names, load_experiment
    from kdutils.results.document import time_taken
    from kdutils.results.keeping import read_kept

    kept = read_kept()
    for name in experiment_names():
        try:
            settings = load_experiment(name).settings
            about, needs = (short(settings[key], 500) for key in ("about", "needs"))
            took = short(time_taken(kept[name]), 500) if name in kept else "not measured"
            print(f"{name}: {about}\n    needs: {needs}; took: {took}")
        except StudyError as error:
            print(f"{short(name)}: cannot run: {error}")
    return 0


def print_missing_packages(options: argparse.Namespace) -> int:
    """Print the packages, with versions, that ship models of an experiment (its key extras) and are not installed."""
    from kdutils.experiments.loading import extras_of

    print("\n".join(missing_requirements(extras_of(options.experiment))), end="")
    return 0


def check_data_table(options: argparse.Namespace) -> int:
    """Print how a table is read, all its faulty rows, and where its cleaned copy is; return 2 if rows are faulty."""
    from kdutils.data.table_check import check_table

    checked = check_table(called_path(options.table), options.labels == "teacher")
    for line in checked.lines:
        print(printable(masked(line)))
    if checked.copy or not checked.faulty:
        words = ["--new", "NAME", "--data", checked.copy or str(called_path(options.table))]
        print(f"next: ./run_all.sh {shlex.join(words + ['--labels', 'teacher'] * (options.labels == 'teacher'))}")
    return 2 if checked.faulty else 0


def make_experiment(options: argparse.Namespace) -> int:
    """Write an experiment for a table of one's own; say what was written and what to do next."""
    from kdutils.experiments.new_experiment import new_experiment

    for line in new_experiment(options.name, called_path(options.data), options.teacher, options.model,
                               options.labels == "teacher"):
        print(line)
    return 0


def keep_results(options: argparse.Namespace) -> int:
    """Keep the results of a finished experiment or benchmark and say where they are."""
    from kdutils.results.keeping import keep, read_kept

    kept = read_kept()
    folder = keep(options.name, options.note)
    before = kept.get(folder.name, {}).get("note", "")
    print(f"kept: {folder}\nRESULTS.md is written from it by ./run_all.sh --write-results")
    if before and not options.note:
        print(f"the results kept before had a note, which is not kept: {printable(before)}\n--note keeps it, if it "
              "still holds")
    return 0


def ask_students(options: argparse.Namespace) -> int:
    """Ask the chosen students every question from the keyboard or a file, and print what they say."""
    from kdutils.experiments.trained import select_cells, trained_cells

    cells = trained_cells(options.experiment)
    chosen = select_cells(cells, options.cell)
    from kdutils.data.questions import full_question
    from kdutils.deployment.asking import ask, load_to_ask, read_asked
    from kdutils.report.answers import answer_lines

    with contextlib.redirect_stdout(sys.stderr):
        students = [load_to_ask(cell.name, cell.folders[cell.seed(options.seed)]) for cell in chosen]
        why = " (best on dev)" if options.seed is None else ""
        print("asking " + "; ".join(f"{cell.name}, seed {cell.seed(options.seed)}{why}" for cell in chosen))
        if len(chosen) < len(cells) and not options.cell:
            print(f"--cell asks others: {'; '.join(cell.name for cell in cells)}")
    for item in read_asked(called_path(options.questions)) if options.questions else _typed_questions(students):
        if not options.json:
            print(printable(full_question(item)))
        for student in students:
            record = ask(student, item)
            print(_json_line(record) if options.json else "\n".join(answer_lines(record)), flush=True)
    return 0


def _json_line(record):
    """Return a record as JSON on a line, with an escape for every control character: a terminal would obey it."""
    return CONTROL.sub(lambda found: f"\\u{ord(found[0]):04x}", json.dumps(record, ensure_ascii=False))


def _typed_questions(students):
    """Yield the questions from the standard input: asked for one by one in a terminal, else one per line.

    A terminal asks for a passage, too, if one of the `students` has learnt to read one.
    """
    from kdutils.deployment.asking import make_question, read_lines, reads_passages

    if not sys.stdin.isatty():
        yield from read_lines(sys.stdin, "standard input")
        return
    passages = False
    with contextlib.suppress(StudyError):  # the questions of their training are not here any more
        passages = any(reads_passages(student.folder) for student in students)
    print("An empty question ends.", file=sys.stderr)
    while True:
        try:
            question = _typed("question").strip()
            if not question:
                return
            context = _typed("its passage, on one line (empty for none)") if passages else ""
            choices = _typed("choices, with | between them (none for a free answer)")
            item = make_question({"question": question, "context": context, "choices": choices})
        except (EOFError, KeyboardInterrupt):
            return
        except StudyError as error:
            print(f"error: {error}", file=sys.stderr)
            continue
        yield item


def _typed(what):
    print(f"{what}: ", end="", file=sys.stderr, flush=True)
    return input()


def export_cell(options: argparse.Namespace) -> int:
    """Export one student of an experiment and say where it is."""
    from kdutils.errors import short
    from kdutils.experiments.trained import select_cells, trained_cells

    cells = trained_cells(options.experiment)
    chosen = select_cells(cells, options.cell)
    if len(chosen) > 1:
        raise StudyError(f"--cell {short(' '.join(options.cell))}: it fits {len(chosen)} cells: "
                         f"{short('; '.join(cell.name for cell in chosen), 1000)}; name one")
    cell = chosen[0]
    seed = cell.seed(options.seed)
    from kdutils.deployment.export import export_student

    title = f"{Path(options.experiment).stem}: {cell.name}"
    folder = export_student(cell.folders[seed], called_path(options.to), title, cell.evaluations)
    print(f"exported: {cell.name}, seed {seed}, to {folder}\nnothing was uploaded; README.md there says how to")
    return 0


def write_results(options: argparse.Namespace) -> int:
    """Write RESULTS.md and the results in README.md; say which of them changed."""
    from kdutils.results.document import write_documents

    changed = ", ".join(path.name for path in write_documents())
    print(f"written: {changed}" if changed else "RESULTS.md and README.md are as the kept results say")
    return 0


def execute_job(options: argparse.Namespace) -> int:
    """Execute one job of the experiment in the current folder; return 0 if its notebook ran to the end."""
    from kdutils.experiments.execution import execute

    return 0 if execute(Path.cwd(), options.folder, options.finished_only) else 1


def index_experiment(options: argparse.Namespace) -> int:
    """Write the pages of an experiment as far as it has come."""
    from kdutils.experiments.execution import RECORD
    from kdutils.experiments.loading import load_experiment

    experiment = load_experiment(options.experiment)
    if not (experiment.folder / RECORD).is_file():
        raise StudyError(f"{experiment.folder}: this experiment was never run; run {experiment.command} first")
    write_pages(experiment)
    return 0


def run_experiment(options: argparse.Namespace) -> int:
    """Check, lock, repair and run an experiment; write its pages whatever happened; say where they are."""
    from kdutils.experiments.snakemake_runs import printing_goes_on

    with printing_goes_on():
        return _run_experiment(options)


def _run_experiment(options):
    from kdutils.experiments import slurm
    from kdutils.experiments.execution import RECORD, check_folder, held, record
    from kdutils.experiments.finished import comparison_of_finished, is_finished
    from kdutils.experiments.inputs import check_data
    from kdutils.experiments.loading import load_experiment, ratings_source
    from kdutils.experiments.reruns import made_first, rerun_lines
    from kdutils.experiments.snakemake_runs import missing_executor, run_snakemake, stop_orphans

    if missing := missing_executor(options.snakemake):
        raise StudyError(missing)
    experiment = load_experiment(options.experiment, options.tiny, options.ratings, options.leave_out_too_long)
    changed = check_folder(experiment)
    smaller = check_data(experiment)
    if changed:
        print(changed, flush=True)
    if source := ratings_source(experiment, options.ratings is not None):
        print(source, flush=True)
    for line in smaller:
        print(line, flush=True)
    again: set[str] = set()
    for line in [] if options.force else rerun_lines(experiment, again):
        print(line, flush=True)
    if options.dry_run:
        _retry(experiment, options)
        return _dry_run(experiment, options)
    begun = time.time()
    with held(experiment.folder):
        slurm.stop_jobs(experiment.folder)
        record(experiment, experiment.folder / RECORD)
        stop_orphans(experiment)
        slurm.stop_jobs(experiment.folder)  # what an orphan has handed in meanwhile
        if options.force:
            print("everything runs again (--force)", flush=True)
        for job in experiment.jobs if options.force else []:
            _remove_run(experiment.folder / job.folder)
        if not (experiment.folder / "index.html").is_file():
            write_pages(experiment)  # before anything is paid: what these runs will be able to show
        _retry(experiment, options)
        invalidate_damaged(experiment)
        todo = [job for job in experiment.jobs if not is_finished(experiment, job)]
        say_costs(experiment, todo)
        code, failed = 0, []
        for folders in list(made_first(experiment, {*again, *(job.folder for job in todo)})):
            if code != INTERRUPTED:
                code = run_snakemake(experiment, options, *(f"{folder}/metrics.json" for folder in folders),
                                     changed=again, failed=failed)
                again.difference_update(folders)
                failed += [folder for folder in folders if not (experiment.folder / folder / "metrics.json").is_file()]
        if code != INTERRUPTED:
            code = run_snakemake(experiment, options, changed=again, failed=failed)
        if code == 1:
            slurm.say_ended(experiment.folder)
            if comparison_of_finished(experiment):
                run_snakemake(experiment, options, "comparison/metrics.json", finished_only=1)
        try:
            page = write_pages(experiment)
        except OSError as error:  # the pages of before, where there are any, are better than none
            print(f"error: the pages cannot be written: {_disk_error(error)}", file=sys.stderr)
            page, code = experiment.folder / "index.html", code or 1
    _report(experiment, code, page, time.time() - begun)
    return code


def _remove_run(folder):
    """Remove the files of a run except the key of a human study, without which its ratings could not be read."""
    from kdutils.report.study_page import FORM, KEY

    keep = {folder / KEY, folder / FORM} if (folder / KEY).is_dir() else set()
    for path in set(folder.iterdir()) - keep if keep else [folder]:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _retry(experiment, options):
    from kdutils.experiments.retrying import retry_unusable

    for line in retry_unusable(experiment, options.dry_run) if options.retry_unusable else []:
        print(line, flush=True)


def invalidate_damaged(experiment: "Experiment") -> None:
    """Mark as unfinished every run whose files differ from its manifest."""
    for job in experiment.jobs:
        folder = experiment.folder / job.folder
        if not (folder / "metrics.json").is_file():
            continue
        problems = check_run(folder)
        if problems:
            print(f"to be made again: {problems[0]}", flush=True)
            (folder / "metrics.json").unlink()


def _dry_run(experiment, options):
    """Say which jobs Snakemake would run; an experiment that was never run is planned in a passing folder."""
    import tempfile

    from kdutils.experiments.execution import RECORD, record
    from kdutils.experiments.planned import job_lines, power_lines
    from kdutils.experiments.protocol_lines import protocol_lines
    from kdutils.experiments.snakemake_runs import environment_of, snakemake_command

    with tempfile.TemporaryDirectory() as scratch:
        record(experiment, Path(scratch) / RECORD)
        command = [word for word in snakemake_command(experiment, options, "--dry-run")
                   if word not in ("--quiet", "-q")]  # the plan is read from what it prints
        if options.force or not experiment.folder.is_dir():
            command[command.index("--directory") + 1] = scratch
        done = subprocess.run(command, capture_output=True, text=True,
                              env=environment_of(experiment) | {"KDUTILS_RECORD": str(Path(scratch) / RECORD)})
    if done.returncode:
        print(masked(done.stdout + done.stderr), file=sys.stderr)
        return 1
    planned = set(re.findall(r"wildcards: folder=(\S+)", done.stdout + done.stderr))
    todo = [job for job in experiment.jobs if job.folder in planned]
    print("\n".join(job_lines(experiment.jobs, todo)))
    if todo:
        print("\n".join(power_lines(experiment)))
    plans, faulty = say_costs(experiment, todo)
    print("".join(f"{line}\n" for line in protocol_lines(experiment.settings)), end="")
    if faulty:
        print(f"error: a run would fail: {len(faulty)} of {len(experiment.jobs)} jobs would stop for the reasons above"
              "; nothing was run", file=sys.stderr)
        return 2
    if todo:
        _say_duration(experiment, todo, options.cores, plans)
    print(f"{len(experiment.jobs)} jobs, {len(todo)} of them to do; nothing was run")
    return 0


def _say_duration(experiment, jobs, cores, plans):
    """Print how long `jobs` will take on this machine; no fault of this guess stops a dry run."""
    from kdutils.experiments.duration import duration_lines

    try:
        print("\n".join(duration_lines(experiment, jobs, cores, plans)))
    except Exception as error:  # of a model, a full disk, too little memory
        print(f"how long it will take cannot be told: {masked(first_line(error))}")


def say_costs(experiment: "Experiment", jobs: list["Job"]) -> tuple[dict[str, "Plan"], list[str]]:
    """Print, per explaining job, how many completions the store has and what asking for the rest would cost.

    Before that, what the students that will be trained can never write of their questions.

    Returns ({folder: what is printed} of those whose cost is known, the folders of jobs that would stop at a fault).
    """
    from kdutils.experiments.cost import cannot_ask, planned_cost
    from kdutils.experiments.planned import vocabulary_lines

    for line in vocabulary_lines(experiment, jobs):
        print(line, flush=True)
    plans, faulty = {}, []
    for job in jobs:
        if job.kind not in ("explanations", "labels"):
            continue
        try:
            cost = planned_cost(experiment, job)
        except StudyError as error:  # of the questions or prompts, or of a model that may come later
            print(f"{job.folder}: cannot be told: {error}", flush=True)
            faulty += [job.folder] if cannot_ask(experiment, job) else []
            continue
        if cost:
            plans[job.folder] = cost
            print(f"{job.folder}: {cost}", flush=True)
    return plans, faulty


def write_pages(experiment: "Experiment") -> Path:
    """Render every executed notebook and the index page; return the index page's path."""
    from kdutils.experiments.finished import is_finished, outdated_runs
    from kdutils.experiments.planned import name_meanings, power_lines
    from kdutils.report.index import render_pages, write_index
    from kdutils.report.study_page import write_study_page

    outdated = outdated_runs(experiment)
    runs = [{"name": job.folder, "folder": experiment.folder / job.folder, "kind": job.kind, "notebook": job.notebook,
             "parameters": job.parameters, "labels": job.labels, "outdated": outdated.get(job.folder, "")}
            for job in experiment.jobs]
    render_pages(experiment.folder, runs)
    write_study_page(experiment.folder, runs, experiment.command, experiment.file)
    settings, last = experiment.settings, experiment.jobs[-1]
    compared = is_finished(experiment, last) and last.folder not in outdated
    return write_index(experiment.folder, runs, {
        "name": experiment.name, "about": settings["about"], "needs": settings["needs"],
        "command": experiment.command, "planned": [] if compared else power_lines(experiment),
        "names": name_meanings(settings)})


def _report(experiment, code, page, seconds):
    """Print what can be said, what is missing, how long this call took, and where the report is."""
    from kdutils.experiments.finished import unfinished_runs
    from kdutils.report.tables import duration

    missing, last = unfinished_runs(experiment), experiment.jobs[-1]
    with contextlib.suppress(StudyError):
        metrics = {} if last in missing else read_json(experiment.folder / last.folder / "metrics.json")
        for one in metrics.get("answer", {}).get("statements", []):
            print(f"{one['question']} {one['verdict']} {one['text']}")
    if code == INTERRUPTED:
        total = len(experiment.jobs)
        print(f"stopped by Ctrl-C: {total - len(missing)} of {total} runs are finished and kept; the same command goes "
              f"on from here:\n    {experiment.command}", file=sys.stderr)
    elif code:
        log = experiment.folder / "snakemake.log"
        print(f"{len(missing)} of {len(experiment.jobs)} runs are not finished; the report and {log} say what "
              "went wrong", file=sys.stderr)
    if line := _ratings_line(experiment):
        print(line)
    print(f"took {duration(seconds)}\nreport: {page}", flush=True)


def _ratings_line(experiment):
    """Return how many of the ratings that came back are used, "" without any or without their analysis."""
    from kdutils.report.study_page import ANALYSE, PAGE, mark_of_result

    job = next((job for job in experiment.jobs if job.notebook == ANALYSE and job.parameters.get("ratings")), None)
    try:
        result = read_json(experiment.folder / job.folder / "metrics.json") if job else {}
        kept = sum(count for status, count in result["raters"].items() if status.startswith("kept"))
        problems = sum(kind["times"] for kind in result["left_out"])
        mark = f"{mark_of_result(result)}: " if mark_of_result(result) else ""
        return (f"ratings: {mark}{kept} of {sum(result['raters'].values())} raters kept, {result['ratings']} ratings "
                f"used, {problems} problems: {experiment.folder / PAGE}")
    except (StudyError, LookupError, TypeError, AttributeError):
        return ""


if __name__ == "__main__":
    sys.exit(main())
