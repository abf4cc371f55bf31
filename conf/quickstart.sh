# From a fresh checkout to a first job: `sh conf/quickstart.sh`. Safe to run again; it then only updates.
set -eu
cd "$(dirname "$0")/.."

sh conf/install.sh
exec .venv/bin/python conf/first_job.py
