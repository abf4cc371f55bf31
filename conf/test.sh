# Every check, then every test: `sh conf/test.sh [pytest arguments]`. Needs nothing but a checkout.
set -eu
cd "$(dirname "$0")/.."

sh conf/install.sh dev
PATH="$PWD/.venv/bin:$PATH"
export PATH

# By `python -m`: the commands beside it name the folder that they were installed in, which may have been moved.
python -m pytest --collect-only -qq > /dev/null & # compiles the tests, or each worker would
python -m ruff check
python -m ruff format --check
python -m mypy --strict tmuxjobs
wait
exec python -m pytest -n auto --dist worksteal "$@"
