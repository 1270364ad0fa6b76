"""What it takes to refuse files that are made to take all memory or time.

    python -m benchmarks.hostile_files --folder out/hostile
    python -m benchmarks.hostile_files --folder out/hostile --only "many nodes" loop

Each file, of up to --size MB, is given to `hmseg-deploy compile` in a process of its own. Memory is
the most that it and the processes that it starts have resident together, sampled 50 times a second,
the file's size and the program's own with it; a file that is not there shows what that is. Seconds
are of CPU time, all processes together, as other programs may run beside it, and of the clock. A
line for each goes to FOLDER/rows.jsonl as well. Exits with 1 where one ended in a traceback, said
more than one line, or took more than 1 GB or 20 s of CPU time.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

MOST_MIB, MOST_SECONDS = 1024, 20.0
_HUGE = 1 << 40
_GIVE_UP = 600.0

Row = dict[str, Any]


def _field(number: int, content: bytes) -> bytes:
    """A field of a protobuf that holds bytes."""
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


class Network:
    """``x`` (1, 3, 64, 64) -> nodes that are added -> a 1x1 convolution to ``y``."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self.functions: list[onnx.FunctionProto] = []

    def constant(self, value: object, kind: type = np.int64) -> str:
        self.weights.append(numpy_helper.from_array(np.array(value, kind), f"c{len(self.weights)}"))
        return self.weights[-1].name

    def __call__(self, op: str, *inputs: str, **attributes: object) -> str:
        output = f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, list(inputs), [output], name=output, **attributes))
        return output

    def model(self, last: str, more: bytes = b"", around: bytes = b"") -> bytes:
        """With more fields of the graph, and of the model, as a protobuf has them."""
        weight = numpy_helper.from_array(np.ones((5, 3, 1, 1), np.float32), "w")
        nodes = [*self.nodes, helper.make_node("Conv", [last, "w"], ["y"], name="head")]
        x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 64, 64])
        y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
        graph = helper.make_graph(nodes, "hostile", [x], [y], [weight, *self.weights])
        opsets = [helper.make_opsetid("", 17), helper.make_opsetid("laughs", 1)]
        empty = helper.make_model(
            helper.make_graph([], "", [], []), opset_imports=opsets, functions=self.functions,
            ir_version=8,
        )  # fmt: skip
        empty.ClearField("graph")
        return empty.SerializeToString() + _field(7, graph.SerializeToString() + more) + around


def _added(value: Callable[[Network], str]) -> Callable[[int], bytes]:
    """A small file that adds what a node makes to the image."""

    def make(_size: int) -> bytes:
        network = Network()
        return network.model(network("Add", "x", value(network)))

    return make


def _range(n: Network) -> str:
    limits = (n.constant(value, np.float32) for value in (0, _HUGE, 1))
    return n("Range", *limits)


def _loop(n: Network) -> str:
    """2^40 times 1 is added."""
    value = helper.make_tensor_value_info
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["on"], ["on_too"]),
            helper.make_node("Add", ["sum", "sum"], ["sum_too"]),
        ],
        "body",
        [value("i", TensorProto.INT64, []), value("on", TensorProto.BOOL, []),
         value("sum", TensorProto.FLOAT, [])],
        [value("on_too", TensorProto.BOOL, []), value("sum_too", TensorProto.FLOAT, [])],
    )  # fmt: skip
    return n("Loop", n.constant(_HUGE), n.constant(True, np.bool_), n.constant(1, np.float32),
             body=body)  # fmt: skip


def _doubled(n: Network) -> str:
    """A constant joined to itself 40 times."""
    value = n.constant([0.0], np.float32)
    for _ in range(40):
        value = n("Concat", value, value, axis=0)
    return n("ReduceSum", value)


def _product(n: Network) -> str:
    """8e12 multiply-adds of constants, 1.6 GB."""
    square = n("ConstantOfShape", n.constant([14000, 14000]))
    for _ in range(3):
        square = n("MatMul", square, square)
    return n("ReduceSum", square)


def _of(op: str, *inputs: object, **attributes: object) -> Callable[[int], bytes]:
    """One node of constants, whose first is a number of the image's type."""

    def value(n: Network) -> str:
        names = [
            n.constant(given, np.float32 if isinstance(given, float) else np.int64)
            for given in inputs
        ]
        return n("ReduceSum", n("Cast", n(op, *names, **attributes), to=TensorProto.FLOAT))

    return _added(value)


def _on_image(
    op: str, constant: object, kind: type, **attributes: object
) -> Callable[[int], bytes]:
    """A node that makes the image itself large."""

    def make(_size: int) -> bytes:
        n = Network()
        inputs = ["x", n.constant(constant, kind)]
        if op == "Resize":
            inputs.insert(1, "")
        return n.model(n(op, *inputs, **attributes))

    return make


def _laughs(_size: int) -> bytes:
    """Functions that call each other twice, 40 deep."""
    n = Network()
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("laughs", 1)]
    for depth in range(40):
        inner = f"f{depth - 1}" if depth else "Relu"
        domain = "laughs" if depth else ""
        nodes = [
            helper.make_node(inner, ["a"], ["b"], domain=domain),
            helper.make_node(inner, ["b"], ["c"], domain=domain),
        ]
        n.functions.append(helper.make_function("laughs", f"f{depth}", ["a"], ["c"], nodes, opsets))
    return n.model(n("f39", "x", domain="laughs"))


def _nested(size: int) -> bytes:
    """Graphs in graphs in attributes, as deep as the size allows."""
    return Network().model("x", _in_each_other(size, b""))


def _in_each_other(size: int, node: bytes) -> bytes:
    # Lengths stand before what they count: written from the inside out, reversed.
    parts, length = [node], len(node)
    while length < size:
        for number in (6, 5, 1):  # AttributeProto.g, NodeProto.attribute, GraphProto.node
            head = _varint(number << 3 | 2) + _varint(length)
            parts.append(head)
            length += len(head)
    return b"".join(reversed(parts))


def _repeated(number: int, item: bytes) -> Callable[[int], bytes]:
    """The same field of the graph again and again."""

    def make(size: int) -> bytes:
        field = _field(number, item)
        return Network().model("x", field * (size // len(field)))

    return make


def _chain(size: int) -> bytes:
    """Nodes one behind the other, the most that are read."""
    n, last = Network(), "x"
    for _ in range(min(99_000, size // 40)):
        last = n("Relu", last)
    return n.model(last)


def _constants(size: int) -> bytes:
    """The same of constants: each is computed."""
    n = Network()
    last = n.constant(0, np.float32)
    for _ in range(min(99_000, size // 40)):
        last = n("Relu", last)
    return n.model(n("Add", "x", last))


def _inputs(size: int) -> bytes:
    """One node that reads the image as often as the size allows."""
    node = _field(4, b"Sum") + _field(2, b"z") + _field(1, b"x") * (size // 3)
    return Network().model("x", _field(1, node))


def _integers(size: int) -> bytes:
    """A weight whose numbers take a byte in the file and eight in memory."""
    tensor = _field(1, _varint(size)) + _varint(2 << 3) + _varint(TensorProto.INT64)
    tensor += _field(7, b"\0" * size) + _field(8, b"many")
    return Network().model("x", _field(5, tensor))


def _missing(_size: int) -> bytes:
    """A weight of 4 TB in a file that is not there."""
    tensor = TensorProto(name="far", data_type=TensorProto.FLOAT, dims=[_HUGE])
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="far.bin")
    return Network().model("x", _field(5, tensor.SerializeToString()))


def _names(size: int) -> bytes:
    """A node whose operator is one long name."""
    return Network().model("x", _field(1, _field(4, b"\x1b" * size) + _field(2, b"z")))


def _noise(size: int) -> bytes:
    return np.random.default_rng(0).bytes(size)


def _zeros(size: int) -> bytes:
    return b"\x08\x08\x3a" + bytes(size)


_NODE = _field(4, b"Relu") + _field(1, b"x") + _field(2, b"z")
FILES: dict[str, Callable[[int], bytes]] = {
    "range of 2^40": _added(_range),
    "loop of 2^40": _added(_loop),
    "doubled 40 times": _added(_doubled),
    "products of constants": _added(_product),
    "ConstantOfShape": _of("ConstantOfShape", [1 << 16, 1 << 16, 16]),
    "Expand": _of("Expand", 1.0, [_HUGE]),
    "Tile": _of("Tile", [1], [_HUGE]),
    "OneHot": _of("OneHot", list(range(100)), [_HUGE], [0, 1]),
    "image expanded": _on_image("Expand", [1 << 20, 3, 64, 64], np.int64),
    "image padded": _on_image("Pad", [0, 0, 1 << 20, 1 << 20, 0, 0, 0, 0], np.int64),
    "image resized": _on_image("Resize", [1, 1, 1e5, 1e5], np.float32, mode="linear"),
    "functions in functions": _laughs,
    "graphs in graphs": _nested,
    "empty nodes": _repeated(1, b""),
    "many nodes": _repeated(1, _NODE),
    "many weights": _repeated(5, _field(8, b"w") + _varint(2 << 3) + b"\1"),
    "many values": _repeated(13, _field(1, b"v")),
    "many inputs": _repeated(11, _field(1, b"v")),
    "99000 nodes": _chain,
    "99000 nodes of constants": _constants,
    "one node of many inputs": _inputs,
    "packed integers": _integers,
    "weights elsewhere": _missing,
    "long name": _names,
    "noise": _noise,
    "zeros": _zeros,
}


def refuse(path: Path) -> Row:
    """What `hmseg-deploy compile` says of a file, and what it takes."""
    command = [sys.executable, "-m", "deploy.cli.hmseg_deploy", "compile", "--model", str(path)]
    command += ["-o", str(path.with_suffix(".hmseg"))]
    start, most = time.perf_counter(), 0
    with (path.parent / "said.txt").open("w+") as said:
        process = subprocess.Popen(command, stdout=said, stderr=said)
        while not (ended := os.wait4(process.pid, os.WNOHANG))[0]:
            most = max(most, sum(map(_resident, _family(process.pid))))
            if time.perf_counter() > start + _GIVE_UP:
                process.kill()
            time.sleep(0.02)
        process.returncode = os.waitstatus_to_exitcode(ended[1])
        seconds = time.perf_counter() - start
        said.seek(0)
        text = said.read().replace(f"{path.parent}/", "")
    lines = [line for line in text.splitlines() if line.startswith("error:")]
    size = path.stat().st_size if path.is_file() else 0
    return {
        "MB": round(size / 1e6, 1),
        "code": process.returncode,
        "cpu_s": round(ended[2].ru_utime + ended[2].ru_stime, 1),
        "clock_s": round(seconds, 1),
        "MiB": most >> 20,
        "lines": len(lines),
        "traceback": "Traceback" in text,
        "said": "".join(lines)[-160:],
    }


def _family(pid: int) -> Iterator[int]:
    yield pid
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return
    for child in children:
        yield from _family(int(child))


def _resident(pid: int) -> int:
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, IndexError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def main() -> int:
    """Make each file, give it to the program, delete it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--size", type=int, default=100, help="MB of a large file")
    parser.add_argument("--only", nargs="*", default=list(FILES), choices=list(FILES))
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    failed, path = 0, options.folder / "hostile.onnx"
    path.unlink(missing_ok=True)
    refuse(path)  # what is read from disk for the first time counts for none
    own = refuse(path)["MiB"]
    for name in options.only:
        path.write_bytes(FILES[name](options.size * 1_000_000))
        row = {"file": name} | refuse(path) | {"own_MiB": own}
        path.unlink()
        small = row["MiB"] <= MOST_MIB and row["cpu_s"] <= MOST_SECONDS
        good = row["code"] == 2 and row["lines"] == 1 and not row["traceback"] and small
        failed += not good
        with (options.folder / "rows.jsonl").open("a") as file:
            file.write(json.dumps(row | {"good": good}) + "\n")
        takes = f"{row['cpu_s']:>6} s of CPU{row['clock_s']:>7} s{row['MiB']:>6} MiB"
        verdict = f"{'' if good else 'MISSED '}{row['code']} {row['said']}"
        print(f"{name:<26}{row['MB']:>7} MB{takes}  {verdict}", flush=True)
    print(f"the program by itself: {own} MiB")
    print(f"{failed} of {len(options.only)} not refused in one line, {MOST_SECONDS:g} s and 1 GB")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
