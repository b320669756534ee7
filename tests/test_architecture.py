"""The house: a room imports only from floors below its own."""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[1]

# Rooms by module prefix; the longest prefix that fits counts. A room imports from lower floors.
FLOORS = {
    "diffct.arguments": 0,
    "diffct.registration": 0,
    "diffct.imaging.planes": 0,
    "diffct.atomic": 1,
    "diffct.config": 1,
    "diffct.cores": 1,
    "diffct.destination": 1,
    "diffct.device": 1,
    "diffct.model_source": 1,
    "diffct.cohort_folder": 1,
    "diffct.sections": 1,
    "diffct.imaging": 1,
    "diffct.models": 1,
    "diffct.metrics": 1,
    "diffct.figures": 2,
    "diffct.data": 2,
    "diffct.training": 2,
    "diffct.privacy": 2,
    "diffct.phantoms": 3,
    "diffct.inspection": 3,
    "diffct.pipelines": 3,
    "diffct.prepare": 3,
    "diffct.hub": 3,
    "diffct": 4,  # the front door itself: it opens onto the pipelines and the loader
    "diffct.eval": 5,
    "diffct.train": 6,
    "diffct.commands": 6,
    "diffct.cli": 7,
    "diffct.__main__": 8,
}
# What a room may use of its own floor besides itself.
NEIGHBOURS = {
    "diffct.sections": {"diffct.config"},
    "diffct.models": {"diffct.model_source"},
    "diffct.imaging": {"diffct.atomic", "diffct.cores"},
    "diffct.training": {"diffct.figures", "diffct.data"},
}
NEVER_IMPORTED = {"diffct.train", "diffct.cli"}


def room(module: str) -> str:
    fitting = [name for name in FLOORS if module == name or module.startswith(name + ".")]
    return max(fitting, key=len)


def modules() -> dict[str, Path]:
    """Return the project's modules by name."""
    found = {}
    for top, package in (
        ("diffct", "diffct"),
        ("pipelines", "diffct.pipelines"),
        ("train", "diffct.train"),
        ("eval", "diffct.eval"),
    ):
        for path in (ROOT / top).rglob("*.py"):
            parts = path.relative_to(ROOT / top).with_suffix("").parts
            name = ".".join((package, *(part for part in parts if part != "__init__")))
            found[name] = path
    return found


def imports(name: str, path: Path) -> set[str]:
    """Return the diffct modules that a module imports, also inside functions."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            package = name if path.name == "__init__.py" else name.rpartition(".")[0]
            for _ in range(node.level - 1):
                package = package.rpartition(".")[0]
            base = ".".join(filter(None, (package, node.module))) if node.level else node.module
            # `from diffct import data` names a module, `from diffct import Volume` does not.
            for alias in node.names:
                full = f"{base}.{alias.name}"
                found.add(full if full in modules() else base)
    return {module for module in found if module.split(".")[0] == "diffct"}


def test_every_module_has_a_room():
    assert len(modules()) > 20
    for name in modules():
        assert name == "diffct" or room(name) != "diffct", f"{name} has no room in FLOORS"


def test_no_room_imports_from_its_own_floor_or_above():
    wrong = []
    for name, path in modules().items():
        for target in imports(name, path):
            here, there = room(name), room(target)
            if here == there or name in ("diffct", "diffct.__main__"):
                continue
            below = FLOORS[there] < FLOORS[here]
            allowed = below or there in NEIGHBOURS.get(here, set())
            if not allowed or there in NEVER_IMPORTED:
                wrong.append(f"{name} imports {target}")
    assert wrong == []


def test_files_are_small_and_functions_short():
    wrong = []
    for name, path in modules().items():
        text = path.read_text()
        if text.count("\n") > 400:
            wrong.append(f"{name} has {text.count(chr(10))} lines")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef) and node.name != "__init__":
                # A docstring is no code.
                documented = ast.get_docstring(node) is not None
                first = node.body[1] if documented and len(node.body) > 1 else node.body[0]
                if node.end_lineno - first.lineno + 1 > 60:
                    wrong.append(f"{name}.{node.name} is too long")
    assert wrong == []
