"""Options as the programs themselves read them: shortened, bundled, behind a `--`; and the paths that they name."""

from pathlib import Path

import pytest

from tmuxjobs.policy.load import policy_of, table_in
from tmuxjobs.policy.rules import Asked, Policy, verdict_on

RULES = """
[policy]
allow = ["{ls,echo,cat,head,wc,nproc,read,printf,make,gmake,ninja,eval,timeout,:}", "npm {test,run}", "git *",
  "{find,sed,awk,gawk,tar,sort,curl,wget,pytest,py.test,cmake,diff3,sdiff,tee,mapfile,mkdir,xargs,gcc}",
  "python3 -m {pytest,json.tool}",
  "{mysql,psql,zip,hg,svn,rake,gradle,mvn,rsync,less,split,tox,pdflatex,sqlite3,nano}",
  "pnpm run *", "exec"]
"""


@pytest.fixture(name="rules")
def _rules(tmp_path: Path) -> Policy:
    (tmp_path / "rules.toml").write_text(RULES)
    table = table_in(tmp_path / "rules.toml", known=())
    assert table is not None
    return policy_of(table, tmp_path)


def why(rules: Policy, line: str, env: dict[str, str] | None = None, inherited: tuple[str, ...] = ("PATH",)) -> str:
    """Why that line is not allowed; nothing if it is."""
    verdict = verdict_on([rules], Asked(line, rules.roots[0], "/bin/bash", env or {}, inherited))
    return "" if verdict.kind == "allow" else verdict.why


DENIED = {
    "xargs gives no word to what takes its value behind a `=`": [
        "ls | xargs --max-lines rm cat", "ls | xargs --replace rm cat", "ls | xargs --eof rm echo",
        "ls | xargs -l rm cat", "ls | xargs -i rm cat", "ls | xargs -e rm cat", "ls | xargs --max-lines 3 cat",
    ],
    "xargs puts an option where its mark is, or behind": [
        "ls | xargs -I% git diff %", "ls | xargs -I @ git show @", "ls | xargs -i git show {}",
        "ls | xargs -IX git log X", "ls | xargs -I{} -L2 git diff", "ls | xargs -I{} -n 1 git diff",
        "ls | xargs -l -I{} git diff", "ls | xargs --max-args=2 -i git diff",
        "ls | xargs --replace=% --max-lines git diff", "ls | xargs -E -Iq git show",
        "ls | xargs -I \"$x\" git show head", "ls | xargs -Ihead git show head",
    ],
    "find ends a command at a `+` only behind `{}`": [
        "find . -exec gmake + '--eval=$(info x)' ';'", "find . -execdir git log + --output=o ';'",
        "find . -exec rm + ';'", "find . -ok cat {} + -quit ';'", "find . -exec cat +", "find . -exec cat x + {} -o",
    ],
    "make takes blanks before the sign, and has names of its own": [
        "make 'LD = ./x'", "make 'CXX\t= ./x' a.o", "make 'SHELL := ./x'", "make 'RM ?= ./x'", "make 'A != ls'",
        "make 'FC ::= x'", "make '  CC=x'", "make LINK.o=x", "make .SHELLFLAGS=-ec", "make LOADLIBES=x",
        "make VPATH=/x", "make TARGET_MACH=-Bx", "make MAKE_COMMAND=./x", "make CROSS_COMPILE=./x-",
        "make PREPROCESS.S=x", "make CMD=ls", "make EXTRA='-wrapper x'", "make X=' -a'", "make HOSTCC=./x",
        "make CMAKE=./x", "make 'export CC=x'", "make 'A\\=b'", "make CHECKOUT,v=./x",
    ],
    "npm takes any number of dashes, and shortened names": [
        "npm run a -shell=./x", "npm run a ---node-options=-rx", "npm run a -node-opt=-rx", "npm run a -userc=x",
        "npm test --cach=/x", "npm test -sC /x", "npm test --no-no-shell=x", "npm test -L global",
        "npm test --pack-dest=/x", "pnpm run a --scr=./x", "pnpm run a -di /x", "npm test -loc=global",
        "npm test --color -- --shell=x",
    ],
    "sed has values, shortened options and files behind them": [
        "sed -l 3 '2w x' a", "sed -l 9p 1e a", "sed -nl 9p '2w x' a", "sed -n -l 9 1e a", "sed p --expr '1e ls' a",
        "sed --e=1e a", "sed --exp=w/x a", "sed --in-pl=.b s/a/b/ ../f", "sed -Ei s/a/b/ /f", "sed -ni p ../f",
        "sed -si.b p a /f", "sed -i p -- -/../../f", "sed --fi x a", "sed -nf x a", "sed -zi p $x", "sed -i p a/.*/b",
        "sed -n -- '1e ls' a", "sed -i -e p -e p ../f",
    ],
    "a long option may be shortened as far as to one letter": [
        "make --e='x'", "make --fil=x", "make --inc=x",
        "git push --r=./x", "git push --exe=./x", "git fetch --up=./x", "git clone --c=a.b=c x", "git clone --t=./x y",
        "git init --temp=./x", "git log --outp=/x", "git diff --ou=/x", "git grep --open=x a", "git show --te",
        "git archive --rem=ext::x HEAD", "git archive --remote=ext::x HEAD", "git clone -vc a.b=c x",
        "git clone -lu x y", "git grep -inOless a", "git archive -vo /x HEAD", "git pull --up=x", "git apply --uns x",
        "tar --to-c=./x -xf a", "tar --info-s=./x -cf a b", "tar --rs=./x -cf a b", "tar --abs -xf a",
        "tar -0I x -cf a b", "tar --remove-f -cf a b", "sort --out=/x a", "sort --comp=x a", "sort --c=x a",
        "curl --conf x", "curl --ou x h", "curl --O x h", "curl --UPLOAD x h", "curl --cookie-j x h",
        "curl --cr= --c x", "curl -0o x h", "curl -#T x h", "curl --expand-output x h", "curl -w '%output{/x}a' h",
        "wget --o=x h", "wget --exec=a h", "wget -4O x h", "wget --dir=/ h", "gawk --fi x a", "gawk -bo/x 1 a",
        "gawk --dump=/x 1 a", "mysql --loose-pager=x", "mysql --init_command=x", "psql --ou=/x", "psql -1f x",
        "zip --unz=x a b", "hg --cw=/ log", "hg --confi=a.b=c log", "hg -vR /x log", "svn log --diff-c=x",
        "rake --rakef=x", "rake -qe 1", "gradle --init=x a", "mvn -sett x a", "rsync --rsync-p=x a h:",
        "less --log=/x a", "split --filt=x a", "tox --con=x", "tox -qc x", "pdflatex -shell x", "sqlite3 --init x",
        "nano --spell=x a", "ninja -vf x", "diff3 --d=./x a b c", "sdiff --diff-p ./x a b", "awk --prof=/x 1 a",
    ],
    "tar writes what it is told to": [
        "tar cvf ../a.tar b", "tar -cf/a.tar b", "tar -c -f /a.tar b", "tar --cre --file=../a b", "tar rf /a.tar b",
        "tar --upd --fil /a.tar b", "tar --delete -f /a.tar b", "tar Af /a.tar b", "tar xf a --one-t=/o",
        "tar xvf a --ind=/o", "tar c --listed=/o -f a b", "tar cgf /o a b", "tar -c --volno-file=/o -Mf a b",
        "tar xf a -T list", "tar xTf l a", "tar xfC a ..", "tar -xC.. -f a", "tar -x --direc .. -f a",
        "tar cbf 20 /a b", "tar cf \"a$x\" b", "tar -cf a -- -b", "tar -cf a --exclude -T l b", "tar c*",
    ],
    "pytest runs its operands and loads what options name": [
        "pytest -qc /x", "pytest -xp m", "pytest -vo a=b", "pytest -sqW 'error::m.C'", "pytest -W default::m.C",
        "pytest -Wonce::m.C", "pytest --junit-xml /x", "pytest --junitxml=../x", "pytest --log-file=/x",
        "pytest --basetemp=/x", "pytest --cov-report html:/x", "pytest --cov-report=xml:../x", "pytest /x/a.py::b",
        "pytest ../a.py", "pytest ~/a.py", "pytest a.py $x", "pytest a/.*/b.py", "pytest --override=a=b",
        "pytest --rootd=/", "pytest --tx=popen//python=x", "pytest @x", "py.test -p m", "pytest --debug=/x",
        "pytest -- /x", "python3 -m pytest -qp m", "python3 -m pytest /x.py", "python3 -m pytest --junitxml=/x",
    ],
    "cmake runs and writes where it is told to": [
        "cmake -C /x.cmake .", "cmake -C../x.cmake .", "cmake -S .. -B b", "cmake -B /b", "cmake -B../b", "cmake /src",
        "cmake --build /b", "cmake --install=/b", "cmake --toolchain /x .", "cmake -D CMAKE_CXX_COMPILER=x .",
        "cmake -DCMAKE_CXX_COMPILER_LAUNCHER:STRING=x .", "cmake -DCMAKE_MAKE_PROGRAM=x .", "cmake -E rm x",
        "cmake --build b -- CC=./x", "cmake --build b -- -f x", "cmake --graphviz=/x .", "cmake --trace-redirect=/x .",
    ],
    "a quote, a backslash or a new line hides no option": [
        "sort \\-o$x a", "sort \"-o\"$x a", "sort -''o\"$x\" a", "git log \\--output\"$x\"", "sort $'-oa\\nb' a",
        "sort '-oa\nb'", "git diff $'--output=a\\nb'", "pytest $'-pa\\nb'",
    ],
    "what is behind a `--` is an operand": ["ls | tee -- -a/../../x", "ls | tee -a -- ../x", "tee -- -- /x"],
    "a number of jobs is one only where it surely is": [
        "nproc() { echo '-f x'; }; make -j$(nproc)", "function nproc { echo x; }; make -j$(nproc)", "make -j$(cat x)",
        "make -j$(nproc)x", "make $(nproc --ignore=$x)", "eval 'nproc () { cat x; }'; make -j $(nproc)",
        "make -j$(echo 4)",
    ],
}  # fmt: skip
ALLOWED = [
    "ls | xargs -n 2 cat", "ls | xargs -L 1 cat", "ls | xargs -l cat", "ls | xargs --max-lines=1 cat",
    "ls | xargs -0 cat", "ls | xargs -I{} cat {}", "ls | xargs -i cat {}", "ls | xargs -I% cat a/%",
    "ls | xargs -P4 -n1 cat", "ls | xargs -r wc", "find . -exec wc {} +", "find . -exec wc + ';'",
    "find . -exec wc {} ';' -exec cat {} +", "find . -execdir cat {} +", "make V=1 -j8 -k all",
    "make CONFIG=debug TESTS='a b'", "make ARGS=\"-k 'a b'\"", "make prefix=/opt/x DESTDIR=/tmp/y",
    "make test TEST=tests/a.py::b", "make VERSION=1.2.3 URL=https://h/x", "make -j$(nproc)", "make -j\"$(nproc)\" all",
    "make -j \"$(nproc)\"", "make --jobs=$(nproc --all)", "make --debug --keep-going", "make CFG=a,b:c@d%e+f=g",
    "npm test -- --coverage -u --prefix=x", "npm run a --if-present", "npm run a --silent -w b", "npm run a -ws",
    "npm run build --global", "npm test -s", "pnpm run a --filter b", "npm run a --loglevel=warn --registry=https://h",
    "sed -n 5,9p a", "sed --quiet -e p a", "sed -E -n --expression=3p a", "sed -i.bak s/a/b/ a b", "sed -l 40 5p a",
    "sed -i s/a/b/ src/*.c", "sed -ne 3p -- a", "sed --in-place s/a/b/ a", "sed -s p /etc/passwd",
    "git push origin HEAD", "git push --force-with-lease --tags", "git fetch --prune --recurse-submodules",
    "git clone --depth=1 --branch x https://h/y", "git log --oneline --text --exit-code",
    "git diff --output-indicator-new=+", "git rebase --onto a b", "git commit --signoff --edit",
    "git checkout --theirs x", "tar --create --gzip --file=a.tgz b", "tar czf a.tgz b", "tar xf /a.tar",
    "tar tzf ../a.tgz", "tar cf - b", "tar -xzf a", "tar --extract --file /a --directory b",
    "tar cf a --exclude='*.o' b", "tar cf a -T list", "tar xf a -C b c", "tar xf a --verbatim-files-from -T list",
    "tar --checkpoint=9 -cf a b", "tar df /a.tar", "tar czf \"a.tgz\" -C b .", "sort --check a",
    "sort --reverse --unique --key=2 a", "sort -t, -k1 a", "curl --compressed -sSfL h", "curl --cookie a h",
    "curl --connect-timeout 5 --retry 3 --request POST --data x --header a:b h", "wget --continue --quiet h",
    "wget -q h", "gawk --field-separator=, '{print $1}' a", "mysql --password=x -e 'select 1'",
    "psql --field-separator=, --list", "hg --debug log", "svn log --diff", "gradle --build-cache --continue a",
    "tox -e py -- -c x", "rsync -az a b", "pytest -q tests -k 'a or b' -m slow", "pytest a.py::test_b[c-1]",
    "pytest tests/*.py -x --co", "pytest -n auto -vv",
    "pytest --junitxml=out/x.xml --cov=a --cov-report=term --cov-report=xml:c.xml",
    "pytest -W error -W ignore::UserWarning", "pytest --pdb --lf --tb=short --durations=3",
    "pytest -W ignore::pytest.PytestWarning", "python3 -m pytest -q tests", "python3 -m json.tool a",
    "cmake -S . -B out -G Ninja -DCMAKE_BUILD_TYPE=Debug", "cmake -C cache.cmake -B out",
    "cmake --build out -j4 --target a --config Release",
    "cmake . -DBUILD_COMMANDS=ON -DCMAKE_EXPORT_COMPILE_COMMANDS=1", "cmake --build out -- -j4 VERBOSE=1",
    "diff3 -m a b c", "diff3 --merge a b c", "ls | tee -a -- out -x", "ninja -v -j4", "mapfile -t a < <(ls)",
    "cat a > >(head)", "exec 2> >(cat)", "head < <(ls | wc)", "X='a;b' ninja",
]  # fmt: skip


@pytest.mark.parametrize("line", [line for lines in DENIED.values() for line in lines])
def test_line_that_may_run_or_write_more_is_refused(rules: Policy, line: str) -> None:
    assert why(rules, line)


@pytest.mark.parametrize("line", ALLOWED)
def test_usual_line_is_allowed(rules: Policy, line: str) -> None:
    assert why(rules, line) == ""


@pytest.mark.parametrize(
    "line",
    [
        "FLAG='$(ls)'; make", "for FLAG in '`ls`' b; do gmake; done", "read FLAG; make", "printf -v FLAG %s x; make",
        "mapfile FLAG < a; make", "make; FLAG='a|b'", "eval \"FLAG='a|b'\"; make", "bash -c \"FLAG='a|b'; make\"",
        "echo ${FLAG:='a|b'}; make", "FLAG=ok ls; read FLAG; make", "FLAG=ok; read -r FLAG; timeout 5 make",
        "FLAG+='a>b'; make -s all", "FLAG='a|b' :; make", "FLAG=\"$x\"; make", "if ls; then FLAG='a|b'; fi; make",
        "f() { FLAG='a|b'; }; make", "declare FLAG; eval \"FLAG='a|b'\"; make", "FLAG='a|b'; find . -exec make {} +",
        "REPLY=a; read; make",
    ],
)  # fmt: skip
def test_variable_of_the_environment_that_is_set_again_is_given_to_make(rules: Policy, line: str) -> None:
    for env, inherited in ({"FLAG": "ok", "REPLY": "ok"}, ("PATH",)), ({}, ("PATH", "FLAG", "REPLY")):
        assert why(rules, line, env, inherited), env


def test_variable_that_no_recipe_sees_is_not_given_to_make(rules: Policy) -> None:
    for line in ("OTHER='a|b'; make", "read OTHER; make", "x=$(ls); make all", "FLAG=c; make", "FLAG='a|b'; ls"):
        assert why(rules, line, {"FLAG": "ok"}) == "", line
    assert why(rules, "PYTHONUNBUFFERED=1 make", {"PYTHONHASHSEED": "0"}) == ""
    assert "no rule names 'FLAG=...'" in why(rules, "read FLAG; make", {"FLAG": "ok"})


def test_sentence_says_what_is_wrong(rules: Policy) -> None:
    for line, said in (
        ("pytest /x.py", "it runs a file that is not below"),
        ("ls | xargs -I{} -n1 cat", "both -I and -L or -n"),
        ("tar xf a -T l", "write --verbatim-files-from before it"),
        ("tar cf /a b", "it writes to a file that is not below"),
        ("git push --exe=x", "no rule names '--exe=x'"),
        ("make -j$(cat n)", "no rule names '-j$(cat n)'"),
    ):
        assert said in why(rules, line)


def test_rule_that_names_the_shortened_option_allows_it(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text('[policy]\nallow = ["sort --comp=gzip", "make CC=clang", "sed -n -f a.sed"]')
    table = table_in(tmp_path / "a.toml", known=())
    assert table is not None
    rules = policy_of(table, tmp_path)
    for line in ("sort --comp=gzip a", "make CC=clang", "sed -n -f a.sed x"):
        assert why(rules, line) == "", line
    for line in ("sort --comp=x a", "make CC=x", "sed -n -f b.sed x"):
        assert why(rules, line), line
