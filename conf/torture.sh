# The long torture: `sh conf/torture.sh [minutes] [--seed N] [--case NAME]`, 30 minutes by default. Prints one table.
set -eu
cd "$(dirname "$0")/.."

sh conf/install.sh dev
exec .venv/bin/python tests/torture/long.py "$@"
