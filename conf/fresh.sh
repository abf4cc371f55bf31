# The two commands on a system that has nothing: `sudo sh conf/fresh.sh SUITE USER [FOLDER] [-- pytest arguments]`.
#
# SUITE is a Debian release (bookworm, trixie), USER `root` or the name of a user to make, who may use sudo. The system is
# made with debootstrap in FOLDER and kept there for the next time; without FOLDER it is a temporary one. The checkout is
# copied into a path with spaces; then quickstart.sh runs, once more without a network, after a move, and test.sh.
# MIRROR names the Debian mirror, by default the one that this machine uses. Variables PIP_*, SSL_CERT_* and *_proxy are
# handed on, with the files and folders that they name. Processes and mounts end with the script.
set -eu
cd "$(dirname "$0")/.."

give_up() { printf 'fresh.sh: %s\n' "$*" >&2; exit 2; }
[ $# -ge 2 ] || give_up "usage: sudo sh conf/fresh.sh SUITE USER [FOLDER] [-- pytest arguments]"
[ "$(id -u)" -eq 0 ] || give_up "mounting and debootstrap need root; run it with sudo."
for tool in debootstrap unshare git; do command -v $tool >/dev/null || give_up "$tool is not installed."; done

suite=$1 user=$2
shift 2
root=
if [ $# -gt 0 ] && [ "$1" != -- ]; then root=$1; shift; fi
[ "${1:-}" != -- ] || shift
if [ -z "$root" ]; then
    root=$(mktemp -d)
    trap 'rm -rf "$root"' EXIT
fi
mkdir -p "$root"
root=$(cd "$root" && pwd)

if [ ! -x "$root/usr/bin/apt-get" ]; then
    uris=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 2>/dev/null || true)
    mirror=${MIRROR:-$(printf '%s\n' "$uris" | grep -m 1 '/debian/$' || true)}
    # shellcheck disable=SC2086
    debootstrap --variant=minbase "$suite" "$root" $mirror >/dev/null || give_up "debootstrap failed."
fi

# The variables that lead to packages, and the places that they name.
handed=$(env | grep -E '^(PIP_|SSL_CERT_|REQUESTS_CA_BUNDLE=|[a-zA-Z]+_(proxy|PROXY)=)' || true)
places=$(printf '%s\n' "$handed" | sed -n 's/^[^=]*=\(\/.*\)/\1/p' | sort -u)

# inside [--net] WHO COMMAND: in namespaces of its own, with what every Linux has mounted.
inside() {
    network=
    if [ "$1" = --net ]; then network=--net; shift; fi
    # shellcheck disable=SC2016,SC2086
    unshare --mount --pid --fork --kill-child $network sh -ec '
        root=$1 places=$2 handed=$3 who=$4 command=$5
        # Where the root is not a mount itself, `unshare --mount` inside is refused.
        mount --bind "$root" "$root"
        mount -t proc proc "$root/proc"
        mount -t tmpfs -o mode=1777 tmp "$root/tmp"
        mount -t tmpfs dev "$root/dev"
        for name in null zero full random urandom tty; do
            touch "$root/dev/$name"
            mount --bind "/dev/$name" "$root/dev/$name"
        done
        mkdir "$root/dev/pts" "$root/dev/shm"
        mount -t devpts -o newinstance,ptmxmode=0666,mode=620,gid=5 devpts "$root/dev/pts"
        mount -t tmpfs -o mode=1777 shm "$root/dev/shm"
        ln -s pts/ptmx "$root/dev/ptmx"
        ln -s /proc/self/fd "$root/dev/fd"
        for place in $places; do
            if [ -d "$place" ]; then
                mkdir -p "$root$place"
            elif [ ! -e "$root$place" ]; then
                mkdir -p "$root${place%/*}"
                touch "$root$place"
            fi
            [ ! -e "$place" ] || mount --bind -o ro "$place" "$root$place"
        done
        cp -L /etc/resolv.conf /etc/hosts "$root/etc/"
        cd /
        home=$(chroot "$root" getent passwd "$who" | cut -d: -f6)
        # No locale, no terminal, and nothing of this machine but what was named.
        exec chroot "$root" setpriv --reuid="$who" --regid="$who" --init-groups \
            env -i HOME="$home" PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin $handed sh -ec "cd; $command"
    ' sh "$root" "$places" "$handed" "$@" </dev/null
}

step() { printf '== %s\n' "$*"; }

if [ "$user" != root ] && ! chroot "$root" getent passwd "$user" >/dev/null; then
    inside root "apt-get update -qq; DEBIAN_FRONTEND=noninteractive apt-get install -qq -y sudo >/dev/null 2>&1
        useradd -m -s /bin/sh $user; echo '$user ALL=(ALL) NOPASSWD:ALL' > /etc/sudoers.d/$user"
fi
home=$(chroot "$root" getent passwd "$user" | cut -d: -f6)
rm -rf "$root$home/a fresh clone" "$root$home/it's moved"
mkdir -p "$root$home/a fresh clone"
git ls-files -z | tar c --null -T - | tar x -C "$root$home/a fresh clone"
chroot "$root" chown -R "$user" "$home/a fresh clone"

step "quickstart.sh on bare $suite as $user"
inside "$user" 'cd "a fresh clone"; sh conf/quickstart.sh'
step "again without a network"
inside --net "$user" 'cd "a fresh clone"; sh conf/quickstart.sh' | tail -n 3
step "after a move"
inside "$user" 'mv "a fresh clone" "it'"'"'s moved"; cd "it'"'"'s moved"; sh conf/quickstart.sh' | grep completed
step "test.sh"
arguments=$(for one in "$@"; do printf "'%s' " "$(printf '%s' "$one" | sed "s/'/'\\\\''/g")"; done)
inside "$user" 'cd "it'"'"'s moved"; sh conf/test.sh '"$arguments"
