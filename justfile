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

# The main job
quickstart *ARGS:
    hmseg-deploy quickstart {{ARGS}}
