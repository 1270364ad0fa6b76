"""Who knows of kinds of machines: what works on networks asks the backend, read from the source.

A file that lies in no room of a kind imports nothing from one, and compares with no kind's and no
precision's name, nor with a constant that stands for one. What is taken for granted where nothing
is said, an option's default, is no question.
"""

import ast
from collections.abc import Iterator

import pytest

from tests.test_architecture import FILES, GRAPH

# What is of one kind of machine.
ROOMS = {
    "deploy.cpu": "machine code for CPUs",
    "deploy.gpu": "source and machine code for GPUs",
    "deploy.backends": "one object a kind",
    "deploy.devices": "CPUs behind TVM's RPC",
    "deploy.measure.gpu": "the clock of a GPU",
    "deploy.measure.gpu_peers": "what runs on a GPU instead",
    "deploy.measure.local": "the clock of this CPU",
    "deploy.measure.openvino_peer": "what runs on a CPU instead",
    "deploy.measure.memory": "that of a process which loads TVM's runtime alone",
    "deploy.measure.probes": "what a CPU can do at most",
    "deploy.trials.apart": "a CPU's candidate in a process of its own",
    "deploy.trials.remote": "candidates on CPUs behind RPC",
    "deploy.trials.swapped": "candidates on this CPU",
    "deploy.trials.whole": "candidates on a GPU",
    "deploy.tuning.metaschedule": "MetaSchedule's search for loop nests on this CPU",
}
# Where a kind is found by its name, by its words, by the kind of its code.
REGISTRIES = {
    "deploy.artifact_file": "the kinds of code that an artifact may hold",
    "deploy.loaders": "what loads each",
    "deploy.precision": "all precisions",
    "deploy.target": "one that names no precision is of fp32, as before there were two",
    "deploy.targets": "the words of each kind",
}
# What is used only where the backend says that it is of use.
ASKED_FIRST = {
    ("deploy.bench", "deploy.measure.memory"): "`Backend.measures_memory`",
    ("deploy.tuning.tune", "deploy.tuning.metaschedule"): "loop nests, `TuningBench.nests`",
}
KINDS = {"cpu", "cuda", "gpu", "llvm", "opencl", "adreno", "rocm", "metal", "fp16", "fp32"}
NAMES = {"FP16", "FP32", "Library", "GpuProgram", "GpuNetwork", "CpuKernels", "GpuKernels"}


def lies_in(module: str, rooms: dict[str, str]) -> bool:
    return any(f"{module}.".startswith(f"{room}.") for room in rooms)


OTHERS = [
    module
    for module in FILES
    if module.startswith("deploy.") and not lies_in(module, ROOMS | REGISTRIES)
]


def is_kind(node: ast.AST) -> bool:
    """Whether an expression is the name of a kind of machine or of a precision."""
    if isinstance(node, ast.Constant):
        return node.value in KINDS if isinstance(node.value, str) else False
    name = node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")
    return name in NAMES | ALIASES


def aliases(tree: ast.Module) -> Iterator[str]:
    """A file's own names for kinds and precisions: ``DEFAULT = "fp32"``."""
    for node in tree.body:
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value and is_kind(node.value):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            yield from map(ast.unparse, targets)


ALIASES: set[str] = set()  # while those are looked for
ALIASES |= {
    name
    for module in FILES
    if module.startswith("deploy.")
    for name in aliases(ast.parse(FILES[module].read_text()))
}


def questions(tree: ast.AST) -> Iterator[str]:
    """What asks for a kind: comparisons, membership, look-ups, patterns and isinstance."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare):
            asked = [node.left, *node.comparators]
        elif isinstance(node, ast.Call):
            called = ast.unparse(node.func).rpartition(".")[2]
            words = {"isinstance", "issubclass", "startswith", "endswith", "get", "getattr"}
            asked = node.args if called in words else []
        elif isinstance(node, ast.Subscript):
            asked = [node.slice]
        elif isinstance(node, ast.Dict):
            asked = [key for key in node.keys if key is not None]
        elif isinstance(node, ast.MatchValue):
            asked = [node.value]
        elif isinstance(node, ast.MatchClass):
            asked = [node.cls]
        else:
            continue
        parts = [part for each in asked for part in (
            each.elts if isinstance(each, ast.Tuple | ast.List | ast.Set) else [each]
        )]  # fmt: skip
        # `isinstance(x, A | B)`
        parts += [part for each in parts if isinstance(each, ast.BinOp) for part in ast.walk(each)]
        if any(map(is_kind, parts)):
            yield ast.unparse(node)


@pytest.mark.parametrize(
    ("source", "asks"),
    [
        ('target.kind == "cuda"', True), ('kind in ("llvm", "opencl")', True),
        ("precision is FP16", True), ("precision.FP16 != found", True),
        ("isinstance(code, GpuProgram)", True), ("isinstance(code, GpuProgram | Library)", True),
        ("isinstance(code, (int, program.GpuProgram))", True), ('{"cuda": 1}[kind]', True),
        ('text.startswith("cuda")', True), ('config.get("llvm")', True),
        ('match kind:\n    case "cuda": pass', True),
        ("match code:\n    case Library(): pass", True),
        ('def f(precision="fp32"): pass', False),
        ("def f(precision: Precision = FP32): pass", False),
        ("target.precision.name", False), ('"""A GPU, such as cuda."""', False),
        ('say("with --target cuda")', False), ('names["cudas"]', False),
    ],
)  # fmt: skip
def test_what_asks_is_seen(source: str, asks: bool):
    assert bool(list(questions(ast.parse(source)))) == asks


def test_a_constant_that_stands_for_one_is_seen(monkeypatch):
    source = ast.parse('DEFAULT = "fp32"\nOTHER: Final = FP16\nif asked == DEFAULT: pass')
    assert list(aliases(source)) == ["DEFAULT", "OTHER"]
    assert list(questions(source)) == []
    monkeypatch.setitem(globals(), "ALIASES", {"DEFAULT"})
    assert list(questions(source)) == ["asked == DEFAULT"]


def test_the_rooms_are_there():
    for room in ROOMS | REGISTRIES:
        assert any(f"{module}.".startswith(f"{room}.") for module in FILES), room
    assert {"deploy.bench", "deploy.build", "deploy.cli.tune", "deploy.tables.build"} <= set(OTHERS)
    assert len(OTHERS) > 50


@pytest.mark.parametrize("module", OTHERS)
def test_no_file_asks_for_a_kind_of_machine(module: str):
    assert list(questions(ast.parse(FILES[module].read_text()))) == []


@pytest.mark.parametrize("module", OTHERS)
def test_no_file_imports_from_a_room_of_one_kind(module: str):
    """But the backends, of which a target finds its own, and devices, which options name."""
    found = {name for name in GRAPH[module] if lies_in(name, ROOMS)}
    allowed = {name for name in found if name.startswith(("deploy.backends", "deploy.devices"))}
    allowed |= {used for user, used in ASKED_FIRST if user == module}
    assert found <= allowed


def test_nothing_is_allowed_that_is_not_needed():
    assert all(used in GRAPH[user] for user, used in ASKED_FIRST)
    assert all(lies_in(used, ROOMS) for _, used in ASKED_FIRST)
