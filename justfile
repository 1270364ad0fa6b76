# Everyday commands; `just` lists them.
default:
    @just --list

# Tests, as the README says
test *ARGS:
    pytest {{ARGS}}

# Lint, format check, types
lint:
    ruff check .
    ruff format --check .
    mypy

# Mend what can be mended by itself
fix:
    ruff check --fix .
    ruff format .

# The whole check in a fresh environment
ci:
    .ci/run

# Damaged files of every kind, by default 5,000
fuzz *ARGS:
    nice -n 19 python -m tests.fuzz {{ARGS}}

# docs/results.md anew, from benchmarks/results/
results *ARGS:
    python -m benchmarks.results_page {{ARGS}}

# docs/cli.md anew, from the programs' help
cli *ARGS:
    python -m docs.cli_page {{ARGS}}

# The main job
quickstart *ARGS:
    hmseg-deploy quickstart {{ARGS}}
