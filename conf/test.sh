# Every check, then every test: `sh conf/test.sh [pytest arguments]`. Needs nothing but a checkout.
set -eu
cd "$(dirname "$0")/.."

sh conf/install.sh dev
PATH="$PWD/.venv/bin:$PATH"
export PATH

ruff check
ruff format --check
mypy --strict tmuxjobs
exec python -m pytest "$@"
