"""The directions of imports, read from the source."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

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


def imports_of(module: str, *, lazy: bool = True) -> set[str]:
    return set(_imports(ast.parse(FILES[module].read_text()).body, lazy=lazy))


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


@pytest.mark.parametrize("module", FILES)
def test_rooms_import_only_what_lies_below_them(module: str):
    allowed = ROOMS[: ROOMS.index(top(module)) + 1]
    wrong = {name for name in imports_of(module) if top(name) in ROOMS and top(name) not in allowed}
    assert not wrong
    assert not {name for name in imports_of(module) if top(name) in ("tests", "benchmarks")}


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
    assert {"deploy.artifact", "deploy.metadata", "hmseg.data.classes", "lut.files"} <= reached
    allowed = set(sys.stdlib_module_names) | {"numpy", "tvm_ffi"}
    assert outside <= allowed


@pytest.mark.parametrize("module", ["deploy.cli.hmseg_deploy", "deploy.runtime", "hmseg", "lut"])
def test_importing_is_light(module: str):
    heavy = {"torch", "tvm", "tvm_ffi", "onnx", "onnxruntime"}
    code = f"import sys, {module}; print({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
