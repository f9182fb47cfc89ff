"""Imports go one way, as docs/packages.yaml says."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.conftest import ROOT

PACKAGE = ROOT / "nlp_rnn"
RULES = yaml.safe_load((ROOT / "docs" / "packages.yaml").read_text(encoding="utf-8"))
MODULES = sorted(path for path in PACKAGE.rglob("*.py"))
# Keras on any backend: no TensorFlow call.
BACKEND_NEUTRAL = [
    *(PACKAGE / "layers").glob("*.py"),
    *(PACKAGE / "models").glob("*.py"),
    *(PACKAGE / "training" / f"{name}.py" for name in ("optimizers", "checkpoints", "transfer")),
]


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imported(path: Path) -> set[str]:
    """The full names of all that a module imports, anywhere in it; of `from a import b` a.b."""
    package = name_of(path) if path.name == "__init__.py" else name_of(path).rpartition(".")[0]
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            module = ".".join([*above, *([node.module] if node.module else [])])
            names |= {f"{module}.{alias.name}" for alias in node.names}
    return names


def packages_of(names: set[str]) -> set[str]:
    """Of full names the packages of nlp_rnn they lie in; "" for nlp_rnn itself."""
    parts = [name.split(".") for name in names if name.split(".")[0] == "nlp_rnn"]
    return {part[1] if len(part) > 1 and part[1] in RULES else "" for part in parts}


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_a_module_imports_only_the_packages_below_its_own(path):
    own = name_of(path).split(".")[1] if path.parent != PACKAGE else ""
    allowed = {"", own, *RULES[own]["may_import"]} if own else {""}
    if path != PACKAGE / "api.py":
        assert packages_of(imported(path)) <= allowed


def test_rules_name_every_package_and_go_one_way():
    assert set(RULES) == {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    order = list(RULES)
    for number, (name, rule) in enumerate(RULES.items()):
        assert set(rule["may_import"]) <= set(order[:number]), name


def test_every_allowed_import_is_made():
    made = {name: set() for name in RULES}
    for path in MODULES:
        if path.parent != PACKAGE:
            made[name_of(path).split(".")[1]] |= packages_of(imported(path))
    for name, rule in RULES.items():
        assert set(rule["may_import"]) == made[name] - {"", name}, name


def test_no_two_modules_of_a_package_import_each_other():
    graph = {name_of(path): {name for name in imported(path) if name.startswith("nlp_rnn.")} for path in MODULES}
    modules = set(graph)

    def within(names, name):
        return {other for other in modules - {name} if any(f"{each}.".startswith(f"{other}.") for each in names)}

    graph = {name: within(names, name) - {"nlp_rnn"} for name, names in graph.items()}
    done: set[str] = set()

    def visit(name: str, above: tuple[str, ...]) -> None:
        assert name not in above, " -> ".join([*above, name])
        if name not in done:
            for other in graph[name]:
                visit(other, (*above, name))
            done.add(name)

    for name in graph:
        visit(name, ())


def test_relative_imports_are_seen(tmp_path):
    path = ROOT / "nlp_rnn" / "config" / "imagined.py"
    code = "from ..data import corpus\nfrom . import rules\nfrom .settings import Config\n"

    class Imagined(type(path)):
        def read_text(self, encoding: str) -> str:
            return code

    assert imported(Imagined(path)) == {"nlp_rnn.data.corpus", "nlp_rnn.config.rules", "nlp_rnn.config.settings.Config"}
    assert packages_of(imported(Imagined(path))) == {"data", "config"}


def test_nothing_imports_pipelines():
    assert not [path for path in MODULES if any(name.split(".")[0] == "pipelines" for name in imported(path))]


@pytest.mark.parametrize("path", BACKEND_NEUTRAL, ids=name_of)
def test_layers_and_models_are_plain_keras(path):
    assert not [module for module in imported(path) if module.split(".")[0] == "tensorflow"]


@pytest.mark.parametrize(
    "module",
    [
        "nlp_rnn",
        "nlp_rnn.config.loading",
        "nlp_rnn.cli.main",
        "nlp_rnn.ondevice.console",
        "nlp_rnn.data.corpus",
        "pipelines.__main__",
    ],
)
def test_what_answers_at_once_does_not_import_tensorflow(module):
    code = f"import sys, {module}; sys.exit(any(name in sys.modules for name in ('tensorflow', 'keras', 'matplotlib')))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_architecture_names_every_module():
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    table = {line.split("|")[1].strip().strip("`"): line for line in text.splitlines() if line.startswith("| `")}
    for path in MODULES:
        package = "/".join(path.parent.relative_to(PACKAGE).parts) or "nlp_rnn` itself"
        assert path.stem == "__init__" or f"`{path.stem}`" in table[package], path


def test_architecture_gives_the_sizes_of_the_longest_modules():
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    told = {name: int(lines) for name, lines in re.findall(r"^\| `([a-z_/]+)` \| (\d+) \|", text, re.MULTILINE)}
    sizes = {
        "/".join(path.relative_to(PACKAGE).with_suffix("").parts): len(path.read_text(encoding="utf-8").splitlines())
        for path in MODULES
    }
    assert told.keys() >= {name for name, lines in sizes.items() if lines > 310}
    assert told == {name: pytest.approx(sizes[name], abs=10) for name in told}
