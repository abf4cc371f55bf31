# Installs this checkout into its own .venv, with Python and tmux if they are missing. `sh conf/install.sh [extra]`:
# quickstart.sh calls it with nothing, test.sh with `dev`. Running it again installs only what has changed since.
set -eu
cd "$(dirname "$0")/.."

say() { printf '%s\n' "$*" >&2; }
give_up() { say "tmuxjobs: $*"; exit 1; }
has() { command -v "$1" >/dev/null 2>&1; }

as_root() {
    if [ "$(id -u)" -eq 0 ]; then "$@"
    elif ! has sudo; then say "Installing it needs root, and there is no sudo here."; return 1
    elif [ -t 0 ]; then sudo "$@"
    else sudo -n "$@"
    fi
}

apt_lock_s=300
apt_get() { as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=$apt_lock_s "$@"; }
apt_install() { apt_get install -y --no-install-recommends "$1"; }

# The timeout above is not for the lock of the package lists, which another `apt-get update` holds for a while.
apt_update() {
    left=$apt_lock_s
    while said=$(LC_ALL=C apt_get update 2>&1) || true; do
        case $said in *"Could not get lock"*) ;; *) break ;; esac
        [ "$left" -gt 0 ] || break
        left=$((left - 1))
        sleep 1
    done
    [ -z "$said" ] || say "$said"
}

# system_install NAME: the package that has this name on most systems; the few that differ are named here.
system_install() {
    if has apt-get; then
        say "Installing $1 (another installation that runs now is waited for, up to $apt_lock_s s) ..."
        # A fresh image has no package lists, and old lists name files that are gone: update only then.
        apt_install "$1" >/dev/null 2>&1 || { apt_update; apt_install "$1"; } >/dev/null
    elif has dnf; then as_root dnf install -q -y "$1" >&2
    elif has pacman; then as_root pacman -S --noconfirm --needed "$(echo "$1" | sed 's/^python3$/python/')" >&2
    elif has apk; then as_root apk add -q "$1" >&2
    elif has zypper; then as_root zypper -n -q install "$1" >&2
    elif has brew; then brew install -q "$(echo "$1" | sed 's/^python3$/python@3.13/')" >&2
    else say "No package manager found (looked for apt-get, dnf, pacman, apk, zypper, brew)."; return 1
    fi
}

# Runs each candidate: a version manager may leave commands on the PATH that only print an error.
find_python() {
    for name in python3.13 python3.12 python3.11 python3 python3.14; do
        if "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then
            command -v "$name"
            return
        fi
    done
    return 1
}

python=$(find_python) || {
    system_install python3 || true
    python=$(find_python) || give_up "Python 3.11 or newer is needed and could not be installed; please install it."
}

has tmux || system_install tmux || true
has tmux || give_up "tmux 3.2a or newer is needed and could not be installed; please install it."
case $(tmux -V) in
    "tmux 1."* | "tmux 2."* | "tmux 3.0"* | "tmux 3.1"* | "tmux 3.2") give_up "$(tmux -V) is too old; 3.2a or newer is needed." ;;
esac

if ! .venv/bin/python -c 'import sys, pip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then
    # Debian ships venv without ensurepip, in a package named for the Python version.
    if ! "$python" -c 'import ensurepip, venv' >/dev/null 2>&1; then
        venv_package=$("$python" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')
        system_install "$venv_package" || true
        "$python" -c 'import ensurepip, venv' >/dev/null 2>&1 ||
            give_up "$python cannot make virtual environments; please install $venv_package."
    fi
    say "Creating .venv with $("$python" -V) ..."
    "$python" -m venv --clear .venv || give_up "the virtual environment .venv could not be created in $PWD."
fi

# The tests of Slurm and of other hosts need one, and rsync. Debian's packages are unpacked here and not installed, which would start
# services; where they cannot be fetched, those tests are skipped.
unpack_s=40
apt_quick() { timeout "$unpack_s" apt-get -qq -o Debug::NoLocking=1 -o Acquire::Retries=0 -o Acquire::http::Timeout=10 "$@"; }
unpacked() { [ -x ".venv/debian/usr/bin/$1" ] || [ -x ".venv/debian/usr/sbin/$1" ]; }
lacks() { has "$1" || [ -x "/usr/sbin/$1" ] || unpacked "$1" || unpacked "$1-wlm" || missing="$missing $2"; }
look() {
    missing=
    lacks slurmctld "slurmctld slurmd slurm-client munge"
    lacks sshd openssh-server
    lacks ssh openssh-client
    lacks rsync rsync
}
look
debs() {
    # shellcheck disable=SC2086 # several names
    apt_quick -o "Dir::Cache::archives=$PWD/.venv/debian/debs" --no-install-recommends --download-only -y install $missing
}
if [ "${1:-}" = dev ] && [ -n "$missing" ] && has apt-get; then
    say "Unpacking$missing for tests (up to $unpack_s s) ..."
    mkdir -p .venv/debian/debs/partial
    debs >/dev/null 2>&1 || { [ "$(id -u)" -eq 0 ] && apt_quick update && debs; } >/dev/null 2>&1 || true
    for deb in .venv/debian/debs/*.deb; do
        [ ! -f "$deb" ] || dpkg-deb -x "$deb" .venv/debian
    done
    rm -rf .venv/debian/debs
    look
    [ -z "$missing" ] || say "They could not be fetched, so those tests will be skipped."
fi

# What is installed, and from where: a moved folder has commands in .venv that name the old place.
wanted="$PWD
$(cat pyproject.toml)"
is_installed() { [ -f "$1" ] && [ "$(cat "$1")" = "$wanted" ]; }
if is_installed ".venv/installed${1:+-$1}" || is_installed .venv/installed-dev; then exit 0; fi

say "Installing tmuxjobs and the packages it needs into .venv (a minute or so the first time) ..."
rm -f .venv/installed .venv/installed-*
.venv/bin/python -m pip install --quiet --disable-pip-version-check -e ".${1:+[$1]}" ||
    give_up "pip could not install the packages tmuxjobs needs; its message is above."

# Byte code now, or the first start takes 3 s instead of 1. Packages may carry files no Python can compile: not our error.
PYTHONDONTWRITEBYTECODE='' .venv/bin/python -m compileall -qq -j 0 \
    tmuxjobs "$(.venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')" >/dev/null 2>&1 || true
printf '%s\n' "$wanted" > ".venv/installed${1:+-$1}"
