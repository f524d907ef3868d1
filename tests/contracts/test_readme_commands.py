"""The README's commands: every command line in a fenced block is checked against the tree.

A make target must stand in the Makefile, a script must exist and know each flag by its own `--help`, files
it names must exist, and a command that nobody taught this file to check is refused. Commands are read, never
run (but for `--help`, once per script). The second half feeds the checker READMEs that lie.
"""

import contextlib
import functools
import io
import multiprocessing
import os
import re
import runpy
import shlex
import sys
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

COMMAND_LANGUAGES = {"bash", "sh", "shell", "console"}
# Taken as they are, by first words: they concern other people's programs.
ALLOWED = (
    ("git", "clone"),
    ("cd",),
    ("curl",),
    ("pip",),
    ("ray",),
    ("export",),
    ("source", ".venv/bin/activate"),
    ("serve", "status"),
    ("serve", "shutdown"),
)
# An argument below one of these is a file of this repository, and must exist.
TRACKED_FOLDERS = ("benchmarks", "cluster", "configs", "docs", "jobs", "serve_app")

HelpOf = Callable[[tuple[str, ...]], str]


@dataclass(frozen=True)
class Command:
    """One simple command: its words, and the README line on which its block's entry begins."""

    line: int
    words: tuple[str, ...]

    def __str__(self) -> str:
        return f"README.md:{self.line}: `{' '.join(self.words)}`"


# Reading the README


def entries(markdown: str) -> Iterator[tuple[int, str]]:
    """The command lines of all fenced command blocks, continued lines and open quotes joined."""
    language, pending, start = None, "", 0
    for number, line in enumerate(markdown.splitlines(), start=1):
        fence = re.match(r"\s*(```+|~~~+)\s*(\w*)", line)
        if fence:
            if pending:
                raise ValueError(f"README.md:{start}: a quote or a continued line is still open at the fence")
            language = fence[2] if language is None else None
            continue
        if language not in COMMAND_LANGUAGES:
            continue
        if not pending:
            start = number
            if language == "console":
                if not line.lstrip().startswith("$ "):
                    continue  # output
                line = line.lstrip()[2:]
        pending += line
        if pending.endswith("\\"):
            pending = pending[:-1] + " "
        elif has_open_quote(pending):
            pending += "\n"
        else:
            yield start, pending
            pending = ""


def has_open_quote(text: str) -> bool:
    try:
        shlex.split(text, comments=True)
    except ValueError:
        return True
    return False


def commands(markdown: str) -> Iterator[Command]:
    """The simple commands of a README: split at `&&`, `|`, `;`; redirections and `NAME=value` dropped."""
    for line, text in entries(markdown):
        lexer = shlex.shlex(text, posix=True, punctuation_chars="&|;<>")
        lexer.whitespace_split = True
        words: list[str] = []
        tokens = list(lexer)
        for position, token in enumerate([*tokens, ";"]):
            if token and set(token) <= set("&|;"):
                while words and re.fullmatch(r"[A-Za-z_]\w*=.*", words[0], flags=re.DOTALL):
                    words.pop(0)
                if words:
                    yield Command(line, tuple(words))
                words = []
            elif not (is_redirection(token) or (position and is_redirection(tokens[position - 1]))):
                words.append(token)


def is_redirection(token: str) -> bool:
    return bool(set(token) & set("<>")) and set(token) <= set("&<>")


# Checking one command


def problems(command: Command, root: Path, help_of: HelpOf) -> Iterator[str]:
    """What is wrong with a command in the tree under `root`: one sentence each."""
    program, *arguments = command.words
    program = program.removeprefix("./").removeprefix(".venv/bin/")
    if program == "ray" and "--" in arguments:  # ray job submit ... -- the command itself
        inner = arguments[arguments.index("--") + 1 :]
        yield from problems(Command(command.line, tuple(inner)), root, help_of)
        arguments = arguments[: arguments.index("--")]
    if any((program, *arguments)[: len(allowed)] == allowed for allowed in ALLOWED):
        yield from missing_files(arguments, root)
    elif program in CHECKS:
        yield from CHECKS[program](arguments, root, help_of)
    else:
        yield f"no rule checks '{program}'; add one here, or put it on the allow list"


def check_make(arguments: list[str], root: Path, help_of: HelpOf) -> Iterator[str]:
    makefile = (root / "Makefile").read_text(encoding="utf-8")
    targets = set()
    for rule in re.findall(r"^([a-zA-Z][\w -]*):(?![:=]|.*?\w+ *[:?+]?= )", makefile, flags=re.MULTILINE):
        targets.update(rule.split())
    for argument in arguments:
        name, is_variable, _ = argument.partition("=")
        if is_variable and not re.search(rf"\$[({{]{re.escape(name)}[)}}]", makefile):
            yield f"the Makefile reads no variable '{name}'"
        elif not is_variable and not argument.startswith("-") and argument not in targets:
            yield f"the Makefile has no target '{argument}'"


def check_python(arguments: list[str], root: Path, help_of: HelpOf) -> Iterator[str]:
    if arguments[:2] == ["-m", "embinv.cli"]:
        yield from check_embinv(arguments[2:], root, help_of)
    elif arguments[:1] == ["-m"] and "".join(arguments[1:2]).startswith("serve_app."):
        subcommand = tuple(word for word in arguments[2:3] if word.isidentifier())
        yield from unknown_flags(arguments[2:], (*arguments[:2], *subcommand), help_of)
        yield from missing_files(arguments[2:], root)
    elif not arguments or arguments[0].startswith("-"):
        yield "only `python path/to/script.py` and `python -m` of embinv.cli and serve_app can be checked"
    elif not (root / arguments[0]).is_file():
        yield f"there is no script {arguments[0]}"
    else:
        yield from unknown_flags(arguments[1:], (arguments[0],), help_of)
        yield from missing_files(arguments[1:], root)


def check_embinv(arguments: list[str], root: Path, help_of: HelpOf) -> Iterator[str]:
    subcommand = tuple(arguments[:1]) if arguments and not arguments[0].startswith("-") else ()
    yield from unknown_flags(arguments[len(subcommand) :], ("-m", "embinv.cli", *subcommand), help_of)
    yield from missing_files(arguments, root)


def check_serve(arguments: list[str], root: Path, help_of: HelpOf) -> Iterator[str]:
    if arguments[:1] not in (["run"], ["deploy"]):
        yield "only `serve run` and `serve deploy` can be checked"
        return
    files = [argument for argument in arguments[1:] if argument.endswith((".yaml", ".yml"))]
    if not files:
        yield "`serve run` and `serve deploy` take a YAML file of this repository"
    for name in files:
        if not (root / name).is_file():
            yield f"there is no file {name}"


CHECKS: dict[str, Callable[[list[str], Path, HelpOf], Iterator[str]]] = {
    "make": check_make,
    "python": check_python,
    "python3": check_python,
    "embinv": check_embinv,
    "serve": check_serve,
}


def unknown_flags(arguments: list[str], script: tuple[str, ...], help_of: HelpOf) -> Iterator[str]:
    """The flags among `arguments` that the script's own help does not know. Fails as its `--help` fails."""
    try:
        known = help_of(script)
    except ValueError as error:
        yield str(error)
        return
    for argument in arguments:
        flag = argument.partition("=")[0]
        if re.match(r"--?[a-zA-Z]", flag) and not re.search(rf"(?<![\w-]){re.escape(flag)}(?![\w-])", known):
            yield f"`{' '.join(script)} --help` knows no {flag}"


def missing_files(arguments: list[str], root: Path) -> Iterator[str]:
    for argument in arguments:
        path = argument.rpartition("=")[2]
        if path.startswith(tuple(f"{folder}/" for folder in TRACKED_FOLDERS)) and not any(root.glob(path)):
            yield f"there is no file {path}"


@functools.cache
def help_from(root: Path) -> HelpOf:
    """`--help` of a script or module under `root`, run once each, for the README and docs/ together."""

    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch", "transformers", "ray.data", "ray.train.torch", "ray.serve"])

    @functools.cache
    def run(script: tuple[str, ...]) -> str:
        said, saying = context.Pipe(duplex=False)
        process = context.Process(target=say_help, args=(script, root, saying))
        process.start()
        saying.close()
        code, out, error = said.recv() if said.poll(120) else (1, "", "no word in 120 s")
        process.kill()
        if code:
            raise ValueError(f"`{' '.join(script)} --help` exits {code}: {error.strip()[-400:]}")
        return out

    return run


def say_help(script: tuple[str, ...], root: Path, to: Connection) -> None:
    """Runs `python <script> --help` in this process, which has the large libraries imported, and sends what it says."""
    os.chdir(root)
    os.environ |= {"COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"}
    out, error, code = io.StringIO(), io.StringIO(), 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(error):
        try:
            if script[0] == "-m":
                sys.path.insert(0, str(root))
                sys.argv = [*script[1:], "--help"]
                runpy.run_module(script[1], run_name="__main__", alter_sys=True)
            else:
                sys.path.insert(0, str(root / script[0].rpartition("/")[0]))
                sys.argv = [*script, "--help"]
                runpy.run_path(script[0], run_name="__main__")
        except SystemExit as end:
            code = end.code or 0
        except Exception:
            code = traceback.format_exc()
    if isinstance(code, str):
        error.write(code)
        code = 1
    to.send((code, out.getvalue(), error.getvalue()))


def lies(markdown: str, root: Path, help_of: HelpOf | None = None) -> list[str]:
    """Every problem of every command of a README, each with its line."""
    help_of = help_of or help_from(root)
    found = []
    for command in commands(markdown):
        found += [f"{command}: {problem}" for problem in problems(command, root, help_of)]
    return found


# The README itself


@pytest.fixture(scope="module")
def readme() -> str:
    path = ROOT / "README.md"
    assert path.is_file(), "there is no README.md"
    return path.read_text(encoding="utf-8")


def test_the_readme_shows_commands(readme):
    assert any(command.words[0] == "make" for command in commands(readme))


def test_the_readme_tells_the_truth(readme):
    found = lies(readme, ROOT)
    assert not found, "\n" + "\n".join(found)


# The checker itself


SCRIPT = """
import argparse
parser = argparse.ArgumentParser()
parser.add_argument("--config")
parser.add_argument("--out", "-o")
parser.parse_args()
"""


@pytest.fixture
def tree(tmp_path) -> Path:
    files = {
        "Makefile": "demo: export A ?= x\nghost: export A := y\nsetup demo:\n\techo $(FRESH)\ntest: setup\n",
        "jobs/train.py": SCRIPT,
        "jobs/broken.py": "raise SystemExit('no GPU')\n",
        "embinv/__init__.py": "",
        "embinv/cli.py": SCRIPT.replace(
            "parser.parse_args()",
            "invert = parser.add_subparsers().add_parser('invert')\n"
            "invert.add_argument('--vectors')\nparser.parse_args()",
        ),
        "configs/minilm.yaml": "",
        "serve_app/config.yaml": "",
    }
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return tmp_path


def fenced(text: str, language: str = "bash") -> str:
    return f"# Title\n\n```{language}\n{text}\n```\n"


TRUE_README = """
```console
$ make demo FRESH=1        # about ten minutes
==> python jobs/none.py --nonsense is output, not a command
$ python jobs/train.py \\
    --config configs/minilm.yaml --out=runs/x
```

```python
import nothing  # not a shell
```

   ```bash
git clone https://example.org/embinv && cd embinv
source .venv/bin/activate

RAY_AUTH_MODE=token .venv/bin/embinv invert --vectors dump.npy > out.txt 2>&1
python -m embinv.cli --out x | curl -d @- http://127.0.0.1:8000
serve run serve_app/config.yaml --blocking & serve status
curl -X POST http://127.0.0.1:8000/invert/minilm -d '{
  "embeddings": [[0.1, 0.2]]}'
ray job submit --working-dir . -- python jobs/train.py -o /mnt/x
   ```
"""


def test_a_true_readme_passes(tree):
    assert lies(TRUE_README, tree) == []


def test_every_command_of_a_block_is_seen():
    programs = [command.words[0] for command in commands(TRUE_README)]
    assert " ".join(programs) == ("make python git cd source .venv/bin/embinv python curl serve serve curl ray")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("make dmeo", "no target 'dmeo'"),
        ("make ghost", "no target 'ghost'"),
        ("make demo FRSH=1", "no variable 'FRSH'"),
        ("python jobs/trian.py --config x", "no script jobs/trian.py"),
        ("python jobs/train.py --setting x", "knows no --setting"),
        ("python jobs/train.py --conf x", "knows no --conf"),
        ("python jobs/train.py \\\n  --out x \\\n  --steps=3", "knows no --steps"),
        ("python jobs/train.py -x", "knows no -x"),
        ("python jobs/train.py --config configs/gone.yaml", "no file configs/gone.yaml"),
        ("python jobs/broken.py --config x", "exits 1: no GPU"),
        ("python -c 'print()'", "can be checked"),
        ("cd x && python jobs/train.py --gone", "knows no --gone"),
        ("ray job submit -- python jobs/train.py --gone", "knows no --gone"),
        ("A=1 .venv/bin/python jobs/train.py --gone", "knows no --gone"),
        ("embinv invert --config x", "knows no --config"),
        ("embinv ivnert --vectors x", "exits 2"),
        ("python -m embinv.cli invert --gone", "knows no --gone"),
        ("serve run serve_app/gone.yaml", "no file serve_app/gone.yaml"),
        ("serve deploy", "take a YAML file"),
        ("serve delete", "can be checked"),
        ("git push", "no rule checks 'git'"),
        ("kubectl apply", "no rule checks 'kubectl'"),
        ("curl -d @docs/gone.json http://x; rm -rf /", "no rule checks 'rm'"),
        ("curl --data-binary=docs/gone.json http://x", "no file docs/gone.json"),
    ],
)
def test_a_lie_is_found(tree, text, problem):
    found = lies(fenced(text), tree)
    assert any(problem in line for line in found), found


def test_a_lie_names_its_line(tree):
    assert lies(fenced("make demo\nmake dmeo", "console"), tree) == []  # without a prompt: output
    assert lies(fenced("$ make demo\n$ make dmeo", "console"), tree) == [
        "README.md:5: `make dmeo`: the Makefile has no target 'dmeo'"
    ]


def test_help_is_run_once_per_script(tree):
    calls = []
    ask = help_from(tree)

    @functools.cache
    def counted(script: tuple[str, ...]) -> str:
        calls.append(script)
        return ask(script)

    lies(fenced("python jobs/train.py --out x\npython jobs/train.py --config x"), tree, counted)
    assert calls == [("jobs/train.py",)]


def test_an_open_quote_at_the_fence_is_an_error(tree):
    with pytest.raises(ValueError, match=r"README.md:4"):
        lies(fenced("curl -d '{"), tree)
