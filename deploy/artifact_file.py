"""The file of an artifact.

A zip archive (any unzip lists it) whose comment is the SHA-256 of every byte before it, so that a
flipped bit anywhere is found before a byte is believed: that is the one checksum that reading pays
for. Members are read by their fixed names into memory; nothing is unpacked to a path that the file
names, and nothing is unpickled. Imports neither torch, onnx nor TVM, and of the kinds of code only
the one that the file holds.
"""

import hashlib
import io
import json
import zipfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from deploy.artifact import (
    FORMAT,
    FORMAT_VERSION,
    LEAST_STRIDE,
    Artifact,
    Golden,
    KernelInfo,
    StoredCode,
    coarse_size,
)
from deploy.cpu.library import Library
from deploy.metadata import Metadata
from deploy.precision import parse_precision
from deploy.target import Target
from lut.errors import UserError
from lut.files import read_file, write_atomic
from lut.json_text import parse_json

T = TypeVar("T")

_MANIFEST = "manifest.json"
_PLANES, _IMAGE = "golden/planes.npy", "golden/image.npy"  # the latter before format 6
_BESIDE = ("golden/labels.npy", "golden/logits.npy")
_END_RECORD_BYTES = 22  # of a zip file, before its comment
_DIGEST_BYTES = 64  # SHA-256 in hexadecimal
# What a file becomes when it is unpacked: at most so many times its size, and so much beside, for
# labels of one class alone. The drawn street becomes 6 times as large, code up to 4 times.
_MOST_RATIO, _SPARE_BYTES = 20, 128 << 20


def save_artifact(artifact: Artifact, path: Path) -> None:
    """Write the file whole or not at all; raises UserError where it cannot be written."""
    golden: list[NDArray[Any]] = [
        _planes_of(artifact.golden.image), artifact.golden.labels, artifact.golden.logits
    ]  # fmt: skip
    code, stored = artifact.code.members(), not artifact.code.compressed
    members = code | {
        name: _array_bytes(array) for name, array in zip((_PLANES, *_BESIDE), golden, strict=True)
    }
    hashes = {
        name: {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
        for name, data in members.items()
    }
    manifest = json.dumps(artifact.manifest() | {"members": hashes}, indent=1).encode()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in ({_MANIFEST: manifest} | members).items():
            # A fixed date: equal contents give equal bytes.
            packed = zipfile.ZIP_STORED if name in code and stored else zipfile.ZIP_DEFLATED
            archive.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), data, packed)
        archive.comment = b"0" * _DIGEST_BYTES
    body = buffer.getvalue()[:-_DIGEST_BYTES]
    write_atomic(path, body + hashlib.sha256(body).hexdigest().encode())


def load_artifact(path: Path) -> Artifact:
    """Read and check an artifact; raises UserError in one line for anything but a sound file."""
    return parse_artifact(read_file(path), str(path))


def parse_artifact(data: bytes, name: str) -> Artifact:
    """`load_artifact` on the bytes of a file called `name`."""
    body, digest = memoryview(data)[:-_DIGEST_BYTES], data[-_DIGEST_BYTES:]
    if data[:2] != b"PK" or len(body) < _END_RECORD_BYTES:
        raise UserError(f"{name}: not an hmseg artifact; make one with hmseg-deploy compile")
    if hashlib.sha256(body).hexdigest().encode() != digest:
        raise UserError(
            f"{name}: damaged or cut short (its checksum does not match); copy it again"
        )
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            manifest = parse_json(_unpack(archive, [_MANIFEST], len(data))[_MANIFEST])
            _check_format(manifest, name)
            kind, own = _code_members(manifest["members"])
            image = _PLANES if _PLANES in manifest["members"] else _IMAGE
            members = _unpack(archive, [*own, image, *_BESIDE], len(data))
        metadata = Metadata.from_strings(manifest["metadata"])
        code = kind.from_members({member: members[member] for member in own})
        code.check_ends(metadata)
        return Artifact(
            code=code,
            target=_read_target(manifest["target"]),
            metadata=metadata,
            golden=_read_golden(members, metadata, manifest),
            parity=_typed(dict, manifest, "parity"),
            versions=_typed(dict, manifest, "versions"),
            created=_typed(str, manifest, "created"),
            kernels=tuple(_read_kernel(kernel) for kernel in _typed(list, manifest, "kernels")),
            threads=_typed(int, manifest, "threads"),
            calls=_texts({"calls": []} | manifest, "calls"),
            choice=_typed(dict, {"choice": {}} | manifest, "choice"),
        )
    except UserError as error:
        raise error if str(error).startswith(name) else UserError(f"{name}: {error}") from error
    # A file that was made up, with a checksum of its own, may bring about whatever zipfile, zlib,
    # numpy, and a manifest of another shape raise.
    except Exception as error:
        raise UserError(f"{name}: not a sound hmseg artifact ({error})") from error


def _unpack(archive: zipfile.ZipFile, members: Sequence[str], size: int) -> dict[str, bytes]:
    """The content of members of a file of so many bytes. Raises ValueError, before anything is
    unpacked, where one is packed as we never do, or all are larger than ours can become."""
    infos = [archive.getinfo(member) for member in members]
    for info in infos:
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ValueError(f"{info.filename} is packed in another way than by deflating")
    if (unpacked := sum(info.file_size for info in infos)) > _SPARE_BYTES + _MOST_RATIO * size:
        raise ValueError(f"its {size} bytes would become {unpacked}")
    found = {}
    for info in infos:
        with archive.open(info) as file:
            # Not `read()`: that unpacks whatever there is before it looks at the size that is said.
            found[info.filename] = file.read(info.file_size)
    return found


def _check_format(manifest: Any, name: str) -> None:  # noqa: ANN401 - any JSON value
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise UserError(f"{name}: not an hmseg artifact; make one with hmseg-deploy compile")
    version = manifest.get("format_version")
    if type(version) is not int or version < 1:
        raise UserError(f"{name}: format version {version!r} is not a version")
    if version > FORMAT_VERSION:
        raise UserError(
            f"{name}: format version {version} is newer than this program's {FORMAT_VERSION}; "
            "update hmseg, or compile the model again with this version"
        )


def _library() -> type[StoredCode]:
    return Library


def _gpu_program() -> type[StoredCode]:
    from deploy.gpu.program import GpuProgram

    return GpuProgram


# In the order in which an artifact's files are looked at; a kind is imported when it is asked.
_CODES: tuple[Callable[[], type[StoredCode]], ...] = (_library, _gpu_program)


def _code_members(members: Iterable[str]) -> tuple[type[StoredCode], list[str]]:
    """The kind of code that an artifact's files are, and which of them are its."""
    for code in _CODES:
        kind = code()
        if own := [name for name in members if kind.is_member(name)]:
            return kind, own
    raise ValueError("it holds no code")


def _planes_of(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(H, W, C) -> (C, H, W), which gets a third smaller: by how much, modulo 256, the other
    channels are brighter than the first, and each row than the one above. A camera's noise is much
    the same in all channels."""
    planes = np.moveaxis(image, 2, 0).copy()
    planes[1:] -= planes[0]
    planes[:, 1:] -= planes[:, :-1].copy()
    return planes


def _image_of(planes: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The inverse of `_planes_of`."""
    whole = np.cumsum(planes, axis=1, dtype=np.uint8)
    whole[1:] += whole[0]
    return np.ascontiguousarray(np.moveaxis(whole, 0, 2))


def _array_bytes(array: NDArray[Any]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def _typed(kind: type[T], values: dict[str, Any], field: str) -> T:
    value = values[field]
    if not isinstance(value, kind):
        raise TypeError(f"{field} is {value!r:.40}")
    return value


def _texts(values: dict[str, Any], field: str) -> tuple[str, ...]:
    items = _typed(list, values, field)
    if not all(isinstance(item, str) for item in items):
        raise TypeError(f"{field} must be texts")
    return tuple(items)


def _read_kernel(kernel: dict[str, Any]) -> KernelInfo:
    name, template, spec = (_typed(str, kernel, field) for field in ("name", "template", "spec"))
    macs, size = _typed(int, kernel, "macs"), _typed(int, kernel, "bytes")
    return KernelInfo(name, template, spec, macs, size, tuned=_typed(bool, kernel, "tuned"))


def _read_target(values: dict[str, Any]) -> Target:
    # Artifacts from before there was another precision do not name theirs.
    precision = _typed(str, {"precision": "fp32"} | values, "precision")
    return Target(
        _typed(str, values, "name"),
        _typed(dict, values, "config"),
        _typed(str, values, "architecture"),
        _texts(values, "features"),
        parse_precision(precision),
    )


def _read_golden(members: dict[str, bytes], metadata: Metadata, manifest: dict[str, Any]) -> Golden:
    stride = _typed(int, {"golden_stride": LEAST_STRIDE} | manifest, "golden_stride")
    if stride < 1:
        raise ValueError(f"golden_stride is {stride}")
    coarse = coarse_size(*metadata.resolution, stride)
    planar = _PLANES in members
    size, channels = tuple(metadata.resolution), metadata.channels
    shapes: dict[str, tuple[type, tuple[int, ...]]] = {
        _PLANES if planar else _IMAGE: (
            np.uint8, (channels, *size) if planar else (*size, channels)
        ),
        _BESIDE[0]: (metadata.found_dtype, tuple(metadata.found_shape)),
        _BESIDE[1]: (np.float32, (metadata.num_scores, *coarse)),
    }  # fmt: skip
    arrays = {name: np.load(io.BytesIO(members[name]), allow_pickle=False) for name in shapes}
    for member, (kind, shape) in shapes.items():
        found = arrays[member]
        if found.dtype != kind:
            raise ValueError(f"{member} is {found.dtype}, not {np.dtype(kind)}")
        if found.shape != shape:
            raise ValueError(f"{member} is of shape {found.shape}, the network's is {shape}")
    image, labels, logits = arrays.values()
    return Golden(_image_of(image) if planar else image, labels, logits, stride)
