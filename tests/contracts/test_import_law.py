"""The import law: DESIGN.md's floor plan, read off the syntax tree of every module.

What it enforces: imports point down the layers; `embinv` knows neither Ray nor DeepSpeed; each part of Ray
has one user; no cycles; one idea per file (no drawer names, no module over 400 lines); empty `__init__.py`
files. It reads files only and imports nothing. The second half feeds it sources that break each rule,
and so shows that the checker sees them.
"""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# From top to bottom. A module imports from its own layer or a lower one.
LAYERS = (
    {"cli"},
    {"commands"},
    # "" is embinv/__init__.py, the public API
    {"", "inverter", "importing", "correcting", "trained_corrector", "audit", "tasks", "evaluation"}
    | {"aligning", "dump_inversion", "dump_inverter", "dump_texts", "recognising", "planning"}
    | {"backups", "upgrading"},
    {"checkpoint", "checkpoint_versions", "calibration", "inversion", "config", "provenance"},
    {"training"},
    {"decoding"},
    {"models"},
    {"diffusion"},
    {"data"},
    {"encoders"},
    {"metrics", "defences", "spaces"},
)
LAYER_OF = {name: depth for depth, names in enumerate(LAYERS) for name in names}

# package -> the packages of this repository that it may import
MAY_IMPORT = {
    "embinv": {"embinv"},
    "serve_app": {"serve_app", "embinv"},
    "jobs": {"jobs", "serve_app", "embinv"},
}
# dotted prefix -> its only users
ONLY_USERS = {
    "ray": {"jobs", "serve_app"},
    "ray.data": {"jobs"},
    "ray.train": {"jobs"},
    "ray.serve": {"serve_app"},
    "deepspeed": {"jobs"},
}
DRAWERS = {"utils", "common", "helpers", "misc"}
MAX_LINES = 400


@dataclass(frozen=True)
class Import:
    """One imported name, as a dotted path from the top (`from ray import data` is `ray.data`)."""

    target: str
    line: int
    deferred: bool  # stands inside a function, so it runs later than the module


@dataclass(frozen=True)
class Module:
    """One source file under its dotted name (`embinv.data.schema`; a package has its `__init__.py`)."""

    name: str
    path: Path
    source: str
    imports: tuple[Import, ...]

    @property
    def package(self) -> str:
        return self.name.partition(".")[0]

    @property
    def part(self) -> str:
        """The name below the package that decides the layer: `data` for `embinv.data.schema`."""
        return [*self.name.split("."), ""][1]


def read_modules(root: Path) -> dict[str, Module]:
    """All modules of the three packages under `root`, by dotted name."""
    modules = {}
    for package in MAY_IMPORT:
        for path in sorted((root / package).rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            source = path.read_text(encoding="utf-8")
            base = parts[:-1]  # what a relative import counts from
            found = tuple(imports_in(ast.parse(source, filename=str(path)), base))
            modules[name] = Module(name, path, source, found)
    return modules


def imports_in(tree: ast.AST, base: tuple[str, ...]) -> Iterator[Import]:
    """Every import of a module, wherever it stands, and every `ray.x` reached through a bare `import ray`."""
    aliases: dict[str, str] = {}  # local name -> "ray", for `import ray` and `import ray as r`
    nodes = list(walk(tree, deferred=False))
    for node, deferred in nodes:
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, node.lineno, deferred)
                if alias.name.partition(".")[0] == "ray" and (alias.asname is None or alias.name == "ray"):
                    aliases[alias.asname or "ray"] = "ray"
        elif isinstance(node, ast.ImportFrom):
            above = base[: len(base) - node.level + 1] if node.level else ()
            origin = ".".join((*above, *filter(None, [node.module])))
            for alias in node.names:
                yield Import(origin if alias.name == "*" else f"{origin}.{alias.name}", node.lineno, deferred)
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called in {"import_module", "__import__"} and isinstance(node.args[0].value, str):
                yield Import(node.args[0].value, node.lineno, deferred)
    for node, deferred in nodes:
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in aliases:
            yield Import(f"{aliases[node.value.id]}.{node.attr}", node.lineno, deferred)


def walk(node: ast.AST, deferred: bool) -> Iterator[tuple[ast.AST, bool]]:
    """`ast.walk`, with whether each node stands inside a function."""
    yield node, deferred
    inside = deferred or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
    for child in ast.iter_child_nodes(node):
        yield from walk(child, inside)


def resolve(target: str, modules: dict[str, Module]) -> str | None:
    """The module of this repository that an import reaches: the longest prefix of it that is one."""
    parts = target.split(".")
    for end in range(len(parts), 0, -1):
        if (name := ".".join(parts[:end])) in modules:
            return name
    return None


def is_under(target: str, prefix: str) -> bool:
    return target == prefix or target.startswith(prefix + ".")


def violations(root: Path) -> list[str]:
    """Every breach of the import law under `root`, one sentence each, with file and line."""
    modules = read_modules(root)
    found = []
    for module in modules.values():
        where = module.path.relative_to(root)
        found += [f"{where}: {breach}" for breach in shape_breaches(module)]
        for imported in module.imports:
            for breach in import_breaches(module, imported, modules):
                found.append(f"{where}:{imported.line}: {breach}")
    found += [f"import cycle: {' -> '.join(cycle)}" for cycle in cycles(modules)]
    return found


def shape_breaches(module: Module) -> Iterator[str]:
    drawer = DRAWERS.intersection(module.name.split("."))
    if drawer:
        yield f"'{drawer.pop()}' names no idea; name the file after what is in it"
    lines = module.source.count("\n")
    if lines > MAX_LINES:
        yield f"{lines} lines; split a module past {MAX_LINES}"
    if module.path.name == "__init__.py" and module.name != "embinv" and module.source.strip():
        yield "an __init__.py stays empty, except embinv/__init__.py"
    if module.package == "embinv" and module.part not in LAYER_OF:
        yield f"'{module.part}' has no layer in the floor plan; give it one in LAYERS"


def import_breaches(module: Module, imported: Import, modules: dict[str, Module]) -> Iterator[str]:
    target = imported.target
    for prefix, users in ONLY_USERS.items():
        if is_under(target, prefix) and module.package not in users:
            yield f"{module.package} imports {target}, which only {' and '.join(sorted(users))} may"
    package, _, rest = target.partition(".")
    if package not in MAY_IMPORT:
        return
    if package not in MAY_IMPORT[module.package]:
        yield f"{module.package} imports {target}, which stands above it"
    elif module.package == package == "embinv":
        part = rest.partition(".")[0]
        if part not in LAYER_OF or resolve(target, modules) in {None, "embinv"}:
            yield f"imports {target} from the root package; inside embinv, import the module that defines it"
        elif module.part in LAYER_OF and LAYER_OF[part] < LAYER_OF[module.part]:
            yield f"{module.part} imports {target}, which stands above it in the floor plan"


def cycles(modules: dict[str, Module]) -> list[list[str]]:
    """Cycles among imports that run with the module itself (those inside functions do not count)."""
    graph = {
        name: sorted(
            {
                reached
                for i in module.imports
                if not i.deferred and (reached := resolve(i.target, modules)) and reached != name
            }
        )
        for name, module in modules.items()
    }
    found, done = [], set()

    def visit(name: str, path: list[str]) -> None:
        if name in path:
            found.append([*path[path.index(name) :], name])
        elif name not in done:
            for reached in graph[name]:
                visit(reached, [*path, name])
            done.add(name)

    for name in graph:
        visit(name, [])
    return found


# The tree itself


@pytest.mark.parametrize("package", sorted(MAY_IMPORT))
def test_the_package_has_modules_to_check(package):
    assert any(module.package == package for module in read_modules(ROOT).values()), f"{package}/ holds no module"


def test_the_tree_obeys_the_import_law():
    found = violations(ROOT)
    assert not found, "\n" + "\n".join(found)


# The checker itself


def breaches_of(tmp_path: Path, files: dict[str, str]) -> list[str]:
    for name, source in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source, encoding="utf-8")
    return violations(tmp_path)


LAWFUL = {
    "embinv/__init__.py": "from embinv.inverter import Inverter\n",
    "embinv/cli.py": "from embinv.inverter import Inverter\n",
    "embinv/inverter.py": "from embinv import checkpoint\nfrom embinv.decoding import base\nInverter = 1\n",
    "embinv/checkpoint.py": "import torch\nimport embinv.config\n",
    "embinv/config.py": "from .encoders.spec import EncoderSpec\n",
    "embinv/decoding/__init__.py": "",
    "embinv/decoding/base.py": "Denoiser = 1\n",
    "embinv/encoders/__init__.py": "",
    "embinv/encoders/spec.py": "from .base import Encoder\nEncoderSpec = 1\n",
    "embinv/encoders/base.py": "Encoder = 1\nrays = object()\nrays.data = 1\n",
    "serve_app/__init__.py": "",
    "serve_app/app.py": "from ray import serve\nimport ray\nimport embinv.inverter\nray.serve.status()\n",
    "jobs/__init__.py": "",
    "jobs/train.py": "import deepspeed, ray.data, ray.train\nimport embinv\nfrom serve_app import app\n",
}


def test_a_lawful_tree_passes(tmp_path):
    assert breaches_of(tmp_path, LAWFUL) == []


@pytest.mark.parametrize(
    ("name", "source", "breach"),
    [
        ("embinv/encoders/spec.py", "import embinv.config\n", "stands above it in the floor plan"),
        ("embinv/encoders/spec.py", "from embinv import config\n", "stands above it in the floor plan"),
        ("embinv/encoders/spec.py", "from .. import config\n", "stands above it in the floor plan"),
        (
            "embinv/encoders/spec.py",
            "from ..decoding.base import Denoiser\n",
            "stands above it in the floor plan",
        ),
        ("embinv/encoders/spec.py", "def f():\n    import embinv.cli\n", "stands above it in the floor plan"),
        ("embinv/cli.py", "import embinv\n", "from the root package"),
        ("embinv/cli.py", "from embinv import Inverter\n", "from the root package"),
        ("embinv/cli.py", "from . import Inverter\n", "from the root package"),
        ("embinv/cli.py", "from embinv import *\n", "from the root package"),
        ("embinv/cli.py", "import ray\n", "imports ray, which only jobs and serve_app may"),
        ("embinv/cli.py", "def f():\n    import ray\n", "imports ray, which only jobs and serve_app may"),
        (
            "embinv/cli.py",
            "class A:\n    def f(self):\n        from deepspeed import x\n",
            "which only jobs may",
        ),
        ("embinv/cli.py", "if True:\n    from ray import data\n", "which only jobs may"),
        ("embinv/cli.py", "import importlib\nimportlib.import_module('ray.data')\n", "which only jobs may"),
        ("embinv/cli.py", "x = __import__('deepspeed')\n", "which only jobs may"),
        ("embinv/cli.py", "import jobs.train\n", "which stands above it"),
        ("embinv/cli.py", "import serve_app.app\n", "which stands above it"),
        ("serve_app/app.py", "from jobs import train\n", "which stands above it"),
        ("serve_app/app.py", "import deepspeed\n", "which only jobs may"),
        ("serve_app/app.py", "from ray import train\n", "imports ray.train, which only jobs may"),
        ("serve_app/app.py", "import ray\nray.data.range(3)\n", "imports ray.data, which only jobs may"),
        ("jobs/train.py", "from ray.serve import run\n", "imports ray.serve.run, which only serve_app may"),
        ("jobs/train.py", "import ray as r\nr.serve.run()\n", "imports ray.serve, which only serve_app may"),
        ("embinv/novelty.py", "x = 1\n", "'novelty' has no layer"),
        ("embinv/data/utils.py", "x = 1\n", "'utils' names no idea"),
        ("jobs/helpers/__init__.py", "", "'helpers' names no idea"),
        ("embinv/encoders/__init__.py", "x = 1\n", "stays empty"),
        ("jobs/__init__.py", '"""Jobs."""\n', "stays empty"),
        ("jobs/train.py", "x = 1\n" * (MAX_LINES + 1), "401 lines"),
        (
            "embinv/encoders/base.py",
            "from embinv.encoders import spec\n",
            "import cycle: embinv.encoders.spec -> embinv.encoders.base -> embinv.encoders.spec",
        ),
    ],
)
def test_a_breach_is_found(tmp_path, name, source, breach):
    found = breaches_of(tmp_path, LAWFUL | {name: source})
    assert any(breach in line for line in found), found


def test_a_breach_names_file_and_line(tmp_path):
    found = breaches_of(tmp_path, LAWFUL | {"embinv/checkpoint.py": "import torch\n\nimport deepspeed\n"})
    assert found == ["embinv/checkpoint.py:3: embinv imports deepspeed, which only jobs may"]


def test_an_import_inside_a_function_makes_no_cycle(tmp_path):
    deferred = "Encoder = 1\ndef f():\n    from embinv.encoders import spec\n"
    assert breaches_of(tmp_path, LAWFUL | {"embinv/encoders/base.py": deferred}) == []


def test_a_module_of_exactly_the_allowed_length_passes(tmp_path):
    assert breaches_of(tmp_path, LAWFUL | {"jobs/train.py": "x = 1\n" * MAX_LINES}) == []
