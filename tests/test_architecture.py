"""The directions of imports, read from the source; what a lower package may say."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

import pytest

from deploy.cli import hmseg, hmseg_deploy

ROOT = Path(__file__).parent.parent
ROOMS = ("lut", "hmseg", "deploy")
FILES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts): path
    for room in ROOMS
    for path in sorted((ROOT / room).rglob("*.py"))
}


def _is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")


def _imports(nodes: list[ast.stmt], *, lazy: bool) -> Iterator[str]:
    """Full names of imported modules; those inside functions only where `lazy`."""
    for node in nodes:
        if _is_type_checking(node):
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif lazy or not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            children = [child for child in ast.iter_child_nodes(node) if isinstance(child, ast.AST)]
            yield from _imports(children, lazy=lazy)


@cache
def imports_of(module: str, *, lazy: bool = True) -> frozenset[str]:
    return frozenset(_imports(ast.parse(FILES[module].read_text()).body, lazy=lazy))


def top(name: str) -> str:
    return name.partition(".")[0]


def test_the_reader_of_imports_sees_them_all():
    body = ast.parse(
        "import a.b\nfrom c import d\nif TYPE_CHECKING:\n    import hidden\n"
        "try:\n    import e\nexcept ImportError:\n    import f\ndef g():\n    import h\n"
    ).body
    assert set(_imports(body, lazy=False)) == {"a.b", "c", "c.d", "e", "f"}
    assert set(_imports(body, lazy=True)) == {"a.b", "c", "c.d", "e", "f", "h"}
    assert {"deploy.runtime", "hmseg.mrms", "lut.files"} <= set(FILES)


# The front door hands on what lies above it: for types, and by name when it is used.
FRONT_DOOR = {"hmseg.__init__": {"deploy.compile", "deploy.runtime"}}
# Beside it, where a module of deploy is named in a text: the entry points of the programs.
NAMES_DEPLOY = {*FRONT_DOOR, "hmseg.packages"}


@pytest.mark.parametrize("module", FILES)
def test_rooms_import_only_what_lies_below_them(module: str):
    allowed = ROOMS[: ROOMS.index(top(module)) + 1]
    above = {name for name in GRAPH[module] if top(name) not in allowed}  # for types too
    assert above == FRONT_DOOR.get(module, set())
    assert not {name for name in imports_of(module) if top(name) in ("tests", "benchmarks")}


def test_only_the_front_door_names_what_lies_above():
    """So too what is imported by its name (`importlib`)."""
    texts = re.compile(r"""["']deploy(\.\w+)*["']""")
    below = [module for module in FILES if top(module) != "deploy"]
    assert {name for name in below if texts.search(FILES[name].read_text())} == NAMES_DEPLOY


@pytest.mark.parametrize("module", FILES)
def test_heavy_packages_stay_in_their_rooms(module: str):
    used = {top(name) for name in imports_of(module)}
    if top(module) != "deploy":
        assert not used & {"tvm", "tvm_ffi", "onnx", "onnxruntime"}
    if top(module) == "lut":
        assert "torch" not in used


def test_nothing_that_the_runtime_imports_needs_torch_onnx_or_the_compiler():
    reached, todo = set(), ["deploy.runtime"]
    outside = set()
    while todo:
        module = todo.pop()
        if module in reached:
            continue
        reached.add(module)
        # A package's __init__ runs too; what it imports inside functions only when asked.
        parts = module.split(".")
        packages = (".".join([*parts[:n], "__init__"]) for n in range(1, len(parts)))
        todo += [package for package in packages if package in FILES]
        for name in imports_of(module, lazy=module.startswith("deploy.")):
            if top(name) in ROOMS:
                todo += [found for found in (name, f"{name}.__init__") if found in FILES]
            else:
                outside.add(top(name))
    assert {"deploy.artifact_file", "deploy.metadata", "hmseg.data.classes", "lut.files"} <= reached
    allowed = set(sys.stdlib_module_names) | {"numpy", "tvm_ffi"}
    assert outside <= allowed


@pytest.mark.parametrize("module", ["deploy.cli.hmseg_deploy", "deploy.runtime", "hmseg", "lut"])
def test_importing_is_light(module: str):
    heavy = {"torch", "tvm", "tvm_ffi", "onnx", "onnxruntime"}
    code = f"import sys, {module}; print({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def imported_modules(module: str) -> set[str]:
    """Modules of ours that a module imports, for types alone and inside functions too; `from
    package import module` imports the module."""
    found = set()
    for node in ast.walk(ast.parse(FILES[module].read_text())):
        if isinstance(node, ast.Import):
            found |= {file_of(alias.name) for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            package = node.module or ""
            found |= {file_of(f"{package}.{a.name}") or file_of(package) for a in node.names}
    return {name for name in found if name and name != module}


def file_of(name: str) -> str | None:
    """The module of that name, or the package's own."""
    return next((key for key in (name, f"{name}.__init__") if key in FILES), None)


GRAPH = {module: imported_modules(module) for module in FILES}


def circles(graph: Mapping[str, set[str]]) -> set[tuple[str, ...]]:
    """Members of each circle of imports; those of circles that meet come together."""
    reach: dict[str, set[str]] = {}
    for start in graph:
        reached, todo = set[str](), list(graph[start])
        while todo:
            if (name := todo.pop()) not in reached:
                reached.add(name)
                todo += graph[name]
        reach[start] = reached
    return {
        tuple(sorted(other for other in reach[name] if name in reach[other]))
        for name in graph
        if name in reach[name]
    }


def test_circles_are_seen():
    graph = {"a": {"b"}, "b": {"c"}, "c": {"b", "d"}, "d": set(), "e": {"a", "f"}, "f": {"e"}}
    assert circles(graph) == {("b", "c"), ("e", "f")}
    assert "hmseg.train.config" in GRAPH["deploy.cli.train"]  # inside a function, and for types
    assert "hmseg.network_file" in GRAPH["hmseg.zoo"]
    assert "hmseg.__init__" not in GRAPH["hmseg.zoo"]


def test_there_are_no_circles():
    assert not circles(GRAPH)


# The house of deploy/, from the ground up. A room imports from floors below its own, and nothing
# from its own floor; a file that lies lower than its room stands for itself.
FLOORS = (
    ("arena",),
    (
        "belt", "coordinates", "gpu.parameters", "gpu.plan", "grid", "host", "ir", "measure.clock",
        "noise",
        "object_cache", "resolution", "schedules",
    ),
    ("bilinear", "images", "metadata", "precision", "street"),
    ("target", "video_file"),
    ("cpu.library", "gpu.program"),  # what an artifact holds
    ("artifact",),
    ("artifact_file",),
    ("reading",),
    ("graph",),
    ("cpu", "gpu"),  # neither knows of the other
    ("loaders", "targets"),
    ("runtime",),
    ("measure", "quantise", "segment", "verify"),
    ("devices", "own_file", "profile", "video"),
    ("roofline", "trials"),
    ("backends",),
    ("bench", "choice", "evaluate", "quick_timing", "tuning"),
    ("build",),
    ("fastest",),
    ("compile", "tables"),
    ("paper", "report"),
    ("cli",),
)  # fmt: skip
FLOOR_OF = {f"deploy.{room}": number for number, rooms in enumerate(FLOORS) for room in rooms}
INSIDE = [module for module in FILES if top(module) == "deploy" and module != "deploy.__init__"]


def room_of(module: str) -> str:
    """The room with the longest name that a module of deploy/ lies in."""
    inside = [room for room in FLOOR_OF if f"{module}.".startswith(f"{room}.")]
    assert inside, f"{module} has no floor"
    return max(inside, key=len)


@pytest.mark.parametrize("module", INSIDE)
def test_floors_stand_on_those_below_them(module: str):
    room = room_of(module)
    others = {name: room_of(name) for name in GRAPH[module] if name in INSIDE}
    assert not {
        name for name, other in others.items()
        if other != room and FLOOR_OF[other] >= FLOOR_OF[room]
    }  # fmt: skip


def test_the_page_draws_these_floors():
    """From the top; what stands behind a line's names says what they are."""
    page = (ROOT / "docs" / "architecture.md").read_text()
    drawing = page[page.index("    cli/ ") : page.index("    ------")]
    names = [re.match(r"    ((?:[\w/]+(?:\.py|/) *)+)", line)[1] for line in drawing.splitlines()]
    assert [set(line.split()) for line in names] == [
        {f"{room.replace('.', '/')}{'.py' if f'deploy.{room}' in FILES else '/'}" for room in floor}
        for floor in reversed(FLOORS)
    ]


def test_every_room_is_there():
    assert {room_of(module) for module in INSIDE} == set(FLOOR_OF)


COMMANDS = [
    *(command.name for app in (hmseg.app, hmseg_deploy.app) for command in app.registered_commands),
    *(group.name for group in hmseg_deploy.app.registered_groups),
]
SPEAKS_OF_A_COMMAND = re.compile(
    rf"hmseg-deploy|\bhmseg ({'|'.join(map(str, COMMANDS))})\b|(?<![-\w])--[a-z]"
)


def test_what_speaks_of_a_command_is_seen():
    for text in ("run hmseg-deploy", "`hmseg search` found", "with --resume", "write '--data'"):
        assert SPEAKS_OF_A_COMMAND.search(text), text
    for text in ("hmseg searches", "the hmseg package", "a -- b", "x--y", "# ----------"):
        assert not SPEAKS_OF_A_COMMAND.search(text), text


@pytest.mark.parametrize("module", [name for name in FILES if top(name) != "deploy"])
def test_lower_packages_speak_of_no_command(module: str):
    """Not in messages, and not in docstrings: what would help is data (`HmsegError.mend`)."""
    lines = FILES[module].read_text().splitlines()
    assert not [line for line in lines if SPEAKS_OF_A_COMMAND.search(line)]
