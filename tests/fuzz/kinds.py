"""The kinds of files that are read: a few whole ones of each, what damages them, and what reads
them, as far as a program goes with them before it computes."""

import hashlib
import io
import json
import lzma
import struct
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from PIL import Image

from deploy.artifact_file import parse_artifact, save_artifact
from deploy.images import read_image
from deploy.tuning.records import load_records, winners
from hmseg.network_file import read_network, write_network
from hmseg.train.checkpoint import Checkpoint, load_into
from hmseg.zoo import create_model
from lut.jsonl import PACKED
from lut.table_file import load_table, save_table
from tests.fuzz.mutations import damage_bytes, damage_json, damage_message, json_text

Seeds = list[bytes]


@dataclass(frozen=True)
class Kind:
    """`seeds` are whole files, `damage` makes a damaged one of one of them (the second argument is
    another), `read` raises an HmsegError or is content."""

    suffix: str
    seeds: Callable[[], Seeds]
    damage: Callable[[bytes, Random, bytes], bytes]
    read: Callable[[Path], object]

    def file(self, number: int) -> bytes:
        """The damaged file of this number: always the same."""
        rng = Random(f"{self.suffix} {number}")
        seeds = self.seeds()
        return self.damage(rng.choice(seeds), rng, rng.choice(seeds))


def _written(write: Callable[[Path], object]) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "file"
        write(path)
        return path.read_bytes()


# --- artifacts -----------------------------------------------------------------------------------


@cache
def _artifacts() -> Seeds:
    from deploy.arena import Region
    from deploy.gpu.plan import Entry, Launch, Plan
    from deploy.gpu.program import GpuProgram
    from tests.deploy.gpu.test_program import PTX
    from tests.deploy.test_artifact_file import ARTIFACT

    image, labels = Region(256, 64 * 96 * 3), Region(256 + 64 * 96 * 3, 64 * 96)
    launch = Launch("k", (4, 2, 1), (32, 1, 1), (Region(0, 8), image))
    plan = Plan(1 << 16, 256, image, {"main": Entry((launch,), labels)})
    gpu = replace(ARTIFACT, code=GpuProgram(plan, bytes(256), ptx={"compute_61": PTX}))
    return [_written(lambda path, a=a: save_artifact(a, path)) for a in (ARTIFACT, gpu)]


def _damage_artifact(data: bytes, rng: Random, other: bytes) -> bytes:
    """As an accident does, or with a digest of its own, as who makes it up does."""
    if rng.random() < 0.15:
        return damage_bytes(data, rng, other)
    if rng.random() < 0.25:
        return _sealed(damage_bytes(data[:-64], rng, other) + b"0" * 64)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    manifest = json.loads(members.pop("manifest.json"))
    name = rng.choice(list(members))
    match rng.randrange(4):
        case 0:
            members[name] = damage_bytes(members[name], rng)
        case 1 if name.endswith(".json"):
            members[name] = json_text(damage_json(json.loads(members[name]), rng))
        case 2:
            members[name] = bytes(rng.choice((0, 1 << 16, 1 << 24)))
    manifest["members"] = {
        name: {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
        for name, content in members.items()
    }
    text = json_text(damage_json(manifest, rng) if rng.random() < 0.7 else manifest)
    buffer = io.BytesIO()
    packing = rng.choice((zipfile.ZIP_DEFLATED,) * 3 + (zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA))
    with zipfile.ZipFile(buffer, "w", packing) as archive:
        for each, content in (members | {"manifest.json": text}).items():
            archive.writestr(zipfile.ZipInfo(each), content, packing)
        archive.comment = b"0" * 64
    return _sealed(buffer.getvalue())


def _sealed(data: bytes) -> bytes:
    body = data[:-64]
    return body + hashlib.sha256(body).hexdigest().encode()


def _read_artifact(path: Path) -> object:
    artifact = parse_artifact(path.read_bytes(), path.name)
    json.dumps(artifact.manifest())
    return artifact.golden_input, artifact.target.key


# --- ONNX ----------------------------------------------------------------------------------------


@cache
def _networks() -> Seeds:
    from onnx import TensorProto, helper

    from tests.deploy.reading.files import Network

    plain = Network(shape=(1, 3, 64, 96))
    x = plain("Relu", plain("Conv", "x", plain.weights(8, 3, 3, 3), pads=[1] * 4, strides=[2, 2]))
    x = plain("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
    x = plain("BatchNormalization", x, *(plain.const(np.ones(8, np.float32)) for _ in range(4)))
    x = plain("Conv", x, plain.weights(5, 8, 1, 1), plain.weights(5))
    x = plain("Resize", x, "", "", plain.const(np.array([1, 5, 64, 96])), mode="linear")
    first = plain.model(plain("ArgMax", x, axis=1, keepdims=0))
    helper.set_model_props(
        first, {"names": json.dumps(list("abcde")), "palette": str([[9, 9, 9]] * 5)}
    )
    first.graph.output[0].type.tensor_type.elem_type = TensorProto.INT64

    mixed = Network(shape=("N", 3, "H", "W"))
    x = mixed("Conv", "x", mixed.weights(8, 3, 3, 3), pads=[1] * 4)
    x = mixed("Mul", x, mixed("Sigmoid", x))
    left, right = mixed("Split", x, mixed.const(np.array([4, 4])), outputs=2, axis=1)
    x = mixed("Concat", right, left, axis=1)
    x = mixed("Transpose", mixed("Transpose", x, perm=[0, 2, 3, 1]), perm=[0, 3, 1, 2])
    shape = mixed("Shape", x)
    size = mixed("Gather", shape, mixed.const(np.array([2, 3])), axis=0)
    x = mixed("AveragePool", x, kernel_shape=[2, 2], strides=[2, 2])
    x = mixed("Add", x, mixed("GlobalAveragePool", x))
    x = mixed("ConvTranspose", x, mixed.weights(8, 4, 2, 2), strides=[2, 2])
    sizes = mixed("Concat", mixed.const(np.array([1, 4])), size, axis=0)
    second = mixed.model(mixed("Softmax", mixed("Reshape", x, sizes), axis=1))
    return [first.SerializeToString(), second.SerializeToString()]


def _damage_network(data: bytes, rng: Random, other: bytes) -> bytes:
    import onnx

    if rng.random() < 0.3:
        return damage_bytes(data, rng, other)
    model = onnx.ModelProto.FromString(data)
    damage_message(model, rng)
    return model.SerializeToString()


def _read_network(path: Path) -> object:
    """In this process: the guard's own is for what would end it."""
    from deploy.graph.export import make_deployable
    from deploy.reading import ReadModel
    from deploy.reading.file import open_file
    from deploy.reading.graph import to_model
    from deploy.reading.guard import read_here
    from deploy.resolution import Resolution

    size = Resolution(64, 96)
    graph = read_here(path, size)
    return make_deployable(ReadModel(open_file(path, size), to_model(graph)))


# --- checkpoints ---------------------------------------------------------------------------------


@cache
def _checkpoints() -> Seeds:
    from tests.hmseg.train.test_checkpoint import make

    return [_written(make(classes).save) for classes in (3, 11)]


def _damage_checkpoint(data: bytes, rng: Random, other: bytes) -> bytes:
    if rng.random() < 0.2:
        return damage_bytes(data, rng, other)
    (length,) = struct.unpack_from("<Q", data)
    header, rest = json.loads(data[8 : 8 + length]), data[8 + length :]
    if rng.random() < 0.6:  # JSON in texts in JSON
        said = header["__metadata__"]
        name = rng.choice([name for name, text in said.items() if text[:1] in "[{"])
        said[name] = json_text(damage_json(json.loads(said[name]), rng)).decode()
    elif rng.random() < 0.3:
        rest = damage_bytes(rest, rng)
    else:
        header = damage_json(header, rng)
    text = json_text(header)
    return struct.pack("<Q", len(text)) + text + rest


@cache
def _model(classes: int) -> Any:
    return create_model("tiny-mrms", num_classes=classes)


def _read_checkpoint(path: Path) -> object:
    checkpoint = Checkpoint.load(path)
    load_into(_model(3 if len(checkpoint.classes) == 3 else 11), checkpoint.released, path)
    return checkpoint.as_history()


# --- lines and objects of JSON -------------------------------------------------------------------


def _damage_lines(data: bytes, rng: Random, other: bytes) -> bytes:
    if rng.random() < 0.3:
        return damage_bytes(data, rng, other)
    lines = data.splitlines(keepends=True)
    at = rng.randrange(len(lines))
    lines[at] = json_text(damage_json(json.loads(lines[at]), rng)) + b"\n"
    return b"".join(lines)


@cache
def _tuning() -> Seeds:
    from deploy.tuning.records import SHIPPED

    lines = next(SHIPPED.glob("*.jsonl")).read_bytes().splitlines(keepends=True)
    return [b"".join(lines[:3]), b"".join(lines[-3:])]


def _read_tuning(path: Path) -> object:
    return winners(load_records([path.parent]))


@cache
def _tables() -> Seeds:
    from tests.lut.tables import OTHER, again, table, visit

    tables = table(visit("a"), visit("b")), table(visit("c", {OTHER: 3.0}, role="calibration"))
    retiming = again(visit("c", {OTHER: 4.0}, role="calibration"))
    tables = *tables, replace(tables[1], retimings=(retiming,))
    return [_written(lambda path, t=t: save_table(t, path)) for t in tables]


def _read_table(path: Path) -> object:
    found = load_table(path)
    entries = found.entries
    return entries, found.occasions_spread, found.identity.size, found.cpus, found.calibration


@cache
def _packed() -> Seeds:
    return [lzma.compress(table) for table in _tables()]


@cache
def _bomb() -> bytes:
    """10 KB that become 64 MiB; several are one file too."""
    return lzma.compress(bytes(64 << 20), preset=0)


def _damage_packed(data: bytes, rng: Random, other: bytes) -> bytes:
    if rng.random() < 0.05:
        return _bomb() * rng.choice((1, 32))
    if rng.random() < 0.5:
        return damage_bytes(data, rng, other)
    return lzma.compress(_damage_lines(lzma.decompress(data), rng, lzma.decompress(other)))


@cache
def _genotypes() -> Seeds:
    from hmseg.genotype import MRMS_GENOTYPE

    search = {"config": {"budget": "1ms"}, "measured": asdict(_Measured())}
    return [_written(lambda path: write_network(path, MRMS_GENOTYPE, 0.5, 19, search))]


@dataclass
class _Measured:
    measured_us: float = 1.5


def _damage_object(data: bytes, rng: Random, other: bytes) -> bytes:
    if rng.random() < 0.3:
        return damage_bytes(data, rng, other)
    return json_text(damage_json(json.loads(data), rng))


# --- results, for a report -----------------------------------------------------------------------


@cache
def _results() -> Seeds:
    """A result of each kind, of its lines the first ones alone."""
    from tests.deploy.report.samples import FILES, bench_json, write_samples
    from tests.deploy.test_profile import PROFILE

    found = [json_text(bench_json(PROFILE))]
    with tempfile.TemporaryDirectory() as folder:
        write_samples(Path(folder))
        for name in FILES:
            if not name.endswith(PACKED):  # a latency table is a kind of its own
                data = (Path(folder) / name).read_bytes()
                if name.endswith(".json"):
                    data = json_text(json.loads(data))
                found.append(b"".join(data.splitlines(keepends=True)[:3]))
    return found + _tables()


def _damage_result(data: bytes, rng: Random, other: bytes) -> bytes:
    return (_damage_lines if data.count(b"\n") > 1 else _damage_object)(data, rng, other)


def _read_results(path: Path) -> object:
    """The page too: what was read is drawn."""
    from deploy.report.folder import Folder, read_result
    from deploy.report.page import page_of

    if (found := read_result(path, path.name)) is None:
        return None
    kind, result = found
    return page_of(Folder(path.parent, {kind.title: [result, result]}), path.name).encode()


# --- images --------------------------------------------------------------------------------------


@cache
def _images() -> Seeds:
    rng = np.random.default_rng(0)
    colours = Image.fromarray(rng.integers(0, 256, (24, 32, 3), dtype=np.uint8))
    deep = Image.fromarray(rng.integers(0, 65536, (24, 32), dtype=np.uint16))
    exif = Image.Exif()
    exif[0x0112] = 6
    found = []
    for image, form, options in (
        (colours, "PNG", {}), (colours.convert("P"), "PNG", {"transparency": 3}), (deep, "PNG", {}),
        (colours.convert("LA"), "PNG", {}), (colours, "JPEG", {"exif": exif}),
        (colours.convert("CMYK"), "JPEG", {"progressive": True}), (colours, "BMP", {}),
        (colours, "TIFF", {"compression": "tiff_lzw"}), (deep, "TIFF", {}),
        (colours.convert("RGBA"), "WEBP", {"lossless": True}),
    ):  # fmt: skip
        buffer = io.BytesIO()
        image.save(buffer, form, **options)
        found.append(buffer.getvalue())
    return found


KINDS: dict[str, Kind] = {
    "artifact": Kind(".hmseg", _artifacts, _damage_artifact, _read_artifact),
    "onnx": Kind(".onnx", _networks, _damage_network, _read_network),
    "checkpoint": Kind(".safetensors", _checkpoints, _damage_checkpoint, _read_checkpoint),
    "tuning": Kind(".jsonl", _tuning, _damage_lines, _read_tuning),
    "table": Kind(".jsonl", _tables, _damage_lines, _read_table),
    "packed": Kind(".jsonl.xz", _packed, _damage_packed, _read_table),
    "network": Kind(".json", _genotypes, _damage_object, read_network),
    "results": Kind(".jsonl", _results, _damage_result, _read_results),
    "image": Kind(".png", _images, damage_bytes, read_image),
}
