"""The architecture as a test: who imports whom, every command, every command line that is printed anywhere."""

import ast
import re
import runpy
import subprocess
import sys
import tomllib
from functools import cache
from graphlib import TopologicalSorter
from importlib.metadata import packages_distributions
from pathlib import Path
from zipfile import ZipFile

import pytest
import yaml

from product_vqa import console
from tests.commands import ROOT

FLOORS = {
    "product_vqa": 0,
    "dataset_builder": 1,
    "training": 1,
    "inference": 1,
    "local_hub": 1,
    "quickstart": 2,
    "benchmarks": 3,
}
COMMANDS = [
    "product_vqa.launch",
    "dataset_builder.inspect",
    "dataset_builder.download",
    "dataset_builder.ocr",
    "dataset_builder.build",
    "dataset_builder.audit",
    "training.estimate",
    "training.sft",
    "inference.predict",
    "inference.check",
    "inference.evaluate",
    "inference.calibrate",
    "inference.ensemble",
    "inference.report",
    "inference.demo",
    "inference.export",
    "inference.parity",
    "inference.serve",
    "local_hub",
    "quickstart",
    "quickstart.rendering.render",
    "quickstart.overlap",
    "quickstart.pretraining.pretrain",
    "quickstart.pretraining.evaluate",
    "benchmarks.ablation",
    "benchmarks.attribution",
    "benchmarks.audit",
    "benchmarks.base_models",
    "benchmarks.build",
    "benchmarks.disk_space",
    "benchmarks.dtype_sensitivity",
    "benchmarks.ensemble",
    "benchmarks.gpu",
    "benchmarks.gpu_runs",
    "benchmarks.image_server",
    "benchmarks.local_hub_attackers",
    "benchmarks.local_hub_load",
    "benchmarks.model_card",
    "benchmarks.grounding",
    "benchmarks.hinted_sft",
    "benchmarks.ocr",
    "benchmarks.predict",
    "benchmarks.predict_scale",
    "benchmarks.ray_engine",
    "benchmarks.read_many",
    "benchmarks.real_shape",
    "benchmarks.real_tokenizer",
    "benchmarks.scale",
    "benchmarks.serve",
    "benchmarks.shards",
    "benchmarks.second_look",
    "benchmarks.silence",
    "benchmarks.streaming",
    "benchmarks.train",
]
DOCUMENTS = sorted([ROOT / "README.md", ROOT / "model_card.md", *ROOT.glob("docs/*.md"),
                    *ROOT.glob("training/configs/*.yaml")])  # fmt: skip


# Installed by those who use them, or declared but heavy: imported where they are used, in libraries too.
OPTIONAL = {"atheris", "deepspeed", "ray", "trackio"}
HEAVY = {"peft", "scipy"}


@cache
def modules() -> dict[str, Path]:
    """Name -> file of each module of the rooms; a package by its own name."""
    files = [file for room in FLOORS for file in (ROOT / room).rglob("*.py")]
    names = {".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): file for file in files}
    assert len(names) == len(files) > 90
    return names


@cache
def syntax(file: Path) -> ast.Module:
    return ast.parse(file.read_text())


def is_command(file: Path) -> bool:
    return 'if __name__ == "__main__":' in file.read_text()


class _WithoutTypeChecking(ast.NodeTransformer):
    def visit_If(self, node: ast.If) -> ast.AST | None:
        return None if ast.unparse(node.test) == "TYPE_CHECKING" else self.generic_visit(node)


@cache
def imported_names(file: Path, *, for_types: bool = True) -> frozenset[str]:
    """Each module that the file imports, and `module.name` for each `from module import name`.

    Those below `if TYPE_CHECKING:` only with `for_types`.
    """
    tree = syntax(file) if for_types else _WithoutTypeChecking().visit(ast.parse(file.read_text()))
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level <= 1
            package = file.relative_to(ROOT).parent.parts if node.level else ()
            module = ".".join([*package, *filter(None, [node.module])])
            names |= {module, *(f"{module}.{alias.name}" for alias in node.names)}
    return frozenset(names)


def imported_packages(file: Path) -> set[str]:
    return {name.split(".")[0] for name in imported_names(file)}


def test_a_room_imports_rooms_on_lower_floors_only() -> None:
    for name, file in modules().items():
        room = name.split(".")[0]
        for other in imported_packages(file) & FLOORS.keys() - {room}:
            assert FLOORS[other] < FLOORS[room], f"{name} imports {other}"


def test_no_modules_import_each_other_in_a_circle() -> None:
    """Imports within functions count too; those for type checkers, which never run, do not."""
    imports = {
        name: imported_names(file, for_types=False) & modules().keys() - {name} for name, file in modules().items()
    }
    assert sum(map(len, imports.values())) > 200
    TopologicalSorter(imports).prepare()  # raises CycleError, with the circle


def libraries() -> list[Path]:
    """The modules that are not commands, without the one that runs commands."""
    files = [file for name, file in modules().items() if not is_command(file) and name != "product_vqa.cli"]
    assert len(files) > 60
    return files


def test_only_commands_import_within_functions() -> None:
    """Libraries import at the top; but for optional packages, and for `__getattr__`, which makes an import lazy."""
    found = set()
    for file in libraries():
        for function in ast.walk(syntax(file)):
            if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef) and function.name != "__getattr__":
                for node in ast.walk(function):
                    names = [node.module] if isinstance(node, ast.ImportFrom) else []
                    names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else names
                    found |= {
                        f"{file.relative_to(ROOT)}:{node.lineno} {name}"
                        for name in names
                        if name.split(".")[0] not in OPTIONAL | HEAVY
                    }
    assert not found


@pytest.mark.slow
def test_libraries_know_no_command_line() -> None:
    """What a function refuses it says in terms of its own arguments; a command writes them as flags."""
    stages = ("dataset_builder.", "training.", "inference.")  # others pass the flags of stages and launchers on
    texts = [text for command, text in helps().items() if command.startswith(stages)]
    flags = set(re.findall(r"--[a-z_]+", "".join(texts)))
    found, raised = set(), 0
    for file in libraries():
        for node in ast.walk(syntax(file)):
            if isinstance(node, ast.keyword | ast.arg) and node.arg == "flag":
                found.add(f"{file.relative_to(ROOT)}:{node.lineno}")
            if isinstance(node, ast.Raise):
                raised += 1
                if flags & set(re.findall(r"--[a-z_]+", ast.unparse(node))):
                    found.add(f"{file.relative_to(ROOT)}:{node.lineno}")
    assert raised > 100
    assert not found


# Modules without a test file of their own, and why.
TESTED_ELSEWHERE = {
    "product_vqa.entity_f1.app": "a Space's page, in test_entity_f1.py",
    "product_vqa.entity_f1.scoring": "by the metric, in test_entity_f1.py",
    "quickstart.rendering.levels": "a table; test_label_text.py and test_drawing.py render each level",
}


def test_each_module_has_a_test_file_of_its_name() -> None:
    missing = {
        name
        for name, file in modules().items()
        if file.name != "__init__.py"
        and not name.startswith("benchmarks.")  # measurements; `make bench` runs them
        and not list((ROOT / "tests" / name.split(".")[0]).rglob(f"test_{file.stem.strip('_')}.py"))
    }
    assert missing == TESTED_ELSEWHERE.keys()


def test_no_test_module_imports_another_one() -> None:
    """What several share is in conftest.py or in a plain module next to them."""
    files = sorted((ROOT / "tests").rglob("test_*.py"))
    assert len(files) > 60
    found = {
        f"{file.relative_to(ROOT)} imports {name}"
        for file in files
        for name in imported_names(file)
        if re.fullmatch(r"tests\.([a-z_]+\.)*test_[a-z_]+", name)
    }
    assert not found


@cache
def helps() -> dict[str, str]:
    """The --help of every command, read as docs/reference.py reads it."""
    read_helps = runpy.run_path(str(ROOT / "docs" / "reference.py"))["read_helps"]
    return read_helps(COMMANDS)


def test_every_command_answers_help() -> None:
    for module in COMMANDS:
        assert helps()[module].startswith("usage: "), module
        assert "--" in helps()[module], module


def test_the_dataset_builder_does_not_import_torch() -> None:
    """Loading torch and transformers takes as much CPU time as building hundreds of rows, in each shard."""
    names = [name for name in modules() if name.startswith("dataset_builder.")]
    code = f"import sys, {', '.join(names)}; print({{'torch', 'transformers'}} & sys.modules.keys())"
    completed = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert completed.stdout.strip() == "set()"


def test_every_command_of_the_house_is_listed_here() -> None:
    found = {name.removesuffix(".__main__") for name, file in modules().items() if is_command(file)}
    assert found == {*COMMANDS, "product_vqa.entity_f1.app"}  # a Space's, which has no options


@cache
def printed_commands() -> list[tuple[str, str, str]]:
    """(document, module, the command line) of each `-m module ...` that README, docs, the card or a YAML prints."""
    commands = []
    for document in DOCUMENTS:
        text = document.read_text().replace("\\\n", " ")
        for line in text.splitlines():
            for match in re.finditer(r"-m ((?:[a-z_]+\.)?[a-z_]+)((?: [^`\n|]*)?)", line):
                if match[1].split(".")[0] in FLOORS:
                    commands.append((document.name, match[1], match[2]))
            for match in re.finditer(r"product-vqa ([a-z-]+)((?: [^`\n|]*)?)", line):
                if match[1] in console.COMMANDS:
                    commands.append((document.name, console.COMMANDS[match[1]][0].removesuffix(".__main__"), match[2]))
    return commands


@pytest.mark.slow
def test_every_printed_command_exists_with_every_flag_that_it_is_given() -> None:
    assert len(printed_commands()) >= 15
    for document, module, rest in printed_commands():
        assert module in COMMANDS, f"{document} names {module}"
        for flag in re.findall(r"--[a-z_]+", rest):
            assert re.search(rf"{flag}\b", helps()[module]), f"{document}: {module} has no {flag}"


def test_every_file_that_a_printed_command_names_is_there() -> None:
    named = set()
    for document in DOCUMENTS:
        named |= set(
            re.findall(r"(?<!runs/)(?<!tests/)\b(?:training|quickstart)/[a-z_/0-9]+\.[a-z]+", document.read_text())
        )
    assert len(named) >= 4
    for name in sorted(named):
        assert (ROOT / name).is_file(), name


def test_make_has_the_targets_that_documents_and_workflows_name() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    assert set(re.findall(r"[a-z-]+", makefile.splitlines()[0])) == targets | {"make"}
    contributing = (ROOT / "CONTRIBUTING.md").read_text()
    assert set(re.findall(r"^    make ([a-z-]+)", contributing, re.MULTILINE)) == targets - {"quickstart"}

    files = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / ".ci/run", *(ROOT / ".github").rglob("*.*")]
    named = {
        name
        for file in files
        for name in re.findall(r"(?:^|`|run: )make ([a-z-]+)(?=`|$| +#| [A-Z]+=)", file.read_text(), re.MULTILINE)
    }
    assert named <= targets, "a target that does not exist"
    assert named >= {"test", "quality", "quickstart"}
    assert "run: .ci/run" in (ROOT / ".github/workflows/test.yml").read_text()
    nightly = yaml.safe_load((ROOT / ".github/workflows/nightly.yml").read_text())
    assert {name.split()[0] for name in nightly["jobs"]["slow"]["strategy"]["matrix"]["target"]} <= targets


@cache
def declared() -> set[str]:
    """The packages that pyproject.toml asks for."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    names = {re.split(r"[^\w.-]", text)[0].lower().replace("_", "-") for group in groups for text in group}
    return names - {project["name"]}  # an extra of other extras


def pinned() -> dict[str, str]:
    """Package -> version in requirements.lock, and in what `make ray` adds to it."""
    lock = "".join((ROOT / f"requirements{name}.lock").read_text() for name in ("", "-ray"))
    return dict(re.findall(r"^([a-z0-9-]+)==([^ ]+)(?: ;.*)? \\$", lock, re.MULTILINE))


def test_the_lock_pins_each_package_with_hashes_and_everything_else_takes_its_versions() -> None:
    for file in ROOT.glob("requirements*.lock"):
        blocks = re.split(r"^(?=[a-z])", file.read_text(), flags=re.MULTILINE)[1:]
        for block in blocks:
            assert re.fullmatch(r"[a-z0-9-]+==.*( \\\n    --hash=sha256:[0-9a-f]{64})+\n", block), block[:80]
    assert len(pinned()) > 100
    assert declared() <= pinned().keys(), "run `make lock`"
    assert f"\ntorch=={pinned()['torch']}+cpu " in (ROOT / "requirements-cpu.lock").read_text()
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    revisions = {hook["repo"].rsplit("/", 1)[1]: hook["rev"] for hook in hooks if hook["repo"] != "local"}
    assert revisions == {"ruff-pre-commit": f"v{pinned()['ruff']}", "codespell": f"v{pinned()['codespell']}"}


@pytest.mark.slow
def test_the_wheel_holds_everything_and_runs_from_any_folder(tmp_path: Path) -> None:
    build = "import sys, hatchling.build; hatchling.build.build_wheel(sys.argv[1])"  # as pip calls it
    subprocess.run([sys.executable, "-c", build, tmp_path], check=True, cwd=ROOT)
    (wheel,) = tmp_path.glob("*.whl")
    with ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "installed")
        packed = set(archive.namelist())
    files = {str(file.relative_to(ROOT)) for file in modules().values()}
    assert {file for file in files if not file.startswith("benchmarks/")} <= packed
    program = (
        "import product_vqa, quickstart.rendering.render, pathlib\n"
        "assert 'installed' in product_vqa.__file__, product_vqa.__file__\n"
        "from importlib.resources import files\n"
        "assert (files('product_vqa') / 'model_card.md').read_text().startswith('---')\n"
        "assert (files('training') / 'configs' / 'quickstart.yaml').is_file()\n"
        "assert (files('training') / 'py.typed').is_file()\n"
        "assert (files('dataset_builder') / 'dataset_card.md').is_file()\n"
        "assert (files('dataset_builder') / 'templates' / 'audit.html').is_file()\n"
        "assert (files('product_vqa') / 'pages' / 'style.css').is_file()\n"
        "assert (files('product_vqa') / 'task' / 'schema.json').is_file()\n"
        "from product_vqa.task.schema import CHALLENGE\n"
        "assert len(CHALLENGE.names) == 8\n"
        "assert len(list((files('inference') / 'examples').iterdir())) == 4\n"
        "assert (files('quickstart') / 'rendering' / 'fonts' / 'OpenSans-Regular.ttf').is_file()\n"
    )
    subprocess.run(
        [sys.executable, "-P", "-c", program],
        check=True,
        cwd=tmp_path,
        env={"PYTHONPATH": str(tmp_path / "installed")},
    )


def test_no_file_is_too_long_for_one_noun() -> None:
    """A size to notice: when a file outgrows this, ask whether it is still one thing."""
    lines = {name: len(file.read_text().splitlines()) for name, file in modules().items()}
    longest = max(lines, key=lambda name: lines[name])
    assert lines[longest] <= 400, longest


def test_every_package_that_is_imported_is_declared() -> None:
    files = [*modules().values(), *(ROOT / "tests").rglob("*.py")]
    imported = set().union(*(imported_packages(file) for file in files))
    imported -= {*FLOORS, "tests", *OPTIONAL, *sys.stdlib_module_names}
    assert len(imported) > 25
    distributions = packages_distributions()
    undeclared = {
        package
        for package in imported
        if not declared() & {name.lower().replace("_", "-") for name in distributions.get(package, [package])}
    }
    assert not undeclared
