import hashlib
import io
import json
import os
import pickle
import struct
import subprocess
import sys
import tempfile
import tracemalloc
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deploy.artifact import Artifact, Golden, KernelInfo
from deploy.artifact_file import load_artifact, parse_artifact, save_artifact
from deploy.cpu.library import Library
from deploy.precision import BF16
from deploy.resolution import Resolution
from deploy.target import Target
from hmseg.data.classes import binary_classes, generic_classes
from lut.errors import UserError
from tests.conditions import MOUNTS
from tests.deploy.test_metadata import METADATA, json_values

SIZE = Resolution(64, 96)
RNG = np.random.default_rng(0)
ARTIFACT = Artifact(
    code=Library(RNG.bytes(3000)),
    target=Target("cpu", {"kind": "llvm", "mcpu": "x86-64-v3"}, "x86_64", ("avx2", "fma")),
    metadata=METADATA,
    golden=Golden(
        RNG.integers(0, 256, (*SIZE, 3), dtype=np.uint8),
        RNG.integers(0, 19, SIZE, dtype=np.uint8),
        RNG.normal(size=(19, 8, 12)).astype(np.float32),
    ),
    parity={"checked": True, "comparisons": []},
    versions={"hmseg": "0.1.0"},
    created="2026-01-01T00:00:00+00:00",
    kernels=(KernelInfo("conv", "pointwise", "pointwise 8x8x16x16 linear", 12, 34),),
    threads=2,
    calls=("conv", "conv"),
)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> bytes:
    path = tmp_path_factory.mktemp("a") / "a.hmseg"
    save_artifact(ARTIFACT, path)
    return path.read_bytes()


def saved(artifact: Artifact) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        save_artifact(artifact, Path(folder) / "a.hmseg")
        return (Path(folder) / "a.hmseg").read_bytes()


DATA_PATH_BYTES = 64


def sealed(members: dict[str, bytes]) -> bytes:
    """An archive of these members with a valid outer digest: what a forger could make."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
        archive.comment = b"0" * DATA_PATH_BYTES
    body = buffer.getvalue()[:-DATA_PATH_BYTES]
    return body + hashlib.sha256(body).hexdigest().encode()


def unsealed(data: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def with_manifest(data: bytes, change) -> bytes:
    members = unsealed(data)
    manifest = json.loads(members["manifest.json"])
    changed = change(manifest)
    return sealed(members | {"manifest.json": json.dumps(changed or manifest).encode()})


def with_member(data: bytes, name: str, content: bytes) -> bytes:
    """The member replaced and its hash in the manifest put right."""
    members = unsealed(data) | {name: content}
    manifest = json.loads(members["manifest.json"])
    manifest["members"][name]["sha256"] = hashlib.sha256(content).hexdigest()
    return sealed(members | {"manifest.json": json.dumps(manifest).encode()})


def refused(data: bytes, match: str) -> None:
    with pytest.raises(UserError, match=match) as caught:
        parse_artifact(data, "a.hmseg")
    assert str(caught.value).startswith("a.hmseg: ")
    assert "\n" not in str(caught.value)


def same(a: Artifact, b: Artifact) -> bool:
    arrays = [
        np.array_equal(getattr(a.golden, n), getattr(b.golden, n))
        and getattr(a.golden, n).dtype == getattr(b.golden, n).dtype
        for n in ("image", "labels", "logits")
    ]
    return all(arrays) and replace(a, golden=b.golden) == b


def test_round_trip(tmp_path):
    save_artifact(ARTIFACT, tmp_path / "a.hmseg")
    assert same(load_artifact(tmp_path / "a.hmseg"), ARTIFACT)


def test_the_precision_and_how_it_was_chosen(tmp_path):
    choice = {"precision": "bf16", "why": "it is faster", "ms": {"fp32": 2.0, "bf16": 1.0}}
    target = replace(ARTIFACT.target, precision=BF16)
    save_artifact(replace(ARTIFACT, target=target, choice=choice), tmp_path / "a.hmseg")
    loaded = load_artifact(tmp_path / "a.hmseg")
    assert (loaded.target.precision, loaded.choice) == (BF16, choice)
    assert "choice" not in ARTIFACT.manifest()  # where the user named one


def test_equal_contents_give_equal_bytes(data, tmp_path):
    save_artifact(ARTIFACT, tmp_path / "again.hmseg")
    assert (tmp_path / "again.hmseg").read_bytes() == data
    save_artifact(replace(ARTIFACT, kernels=()), tmp_path / "other.hmseg")
    assert (tmp_path / "other.hmseg").read_bytes() != data


def test_an_artifact_from_before_there_were_precisions(data):
    old = with_manifest(data, lambda manifest: manifest["target"].pop("precision") and None)
    assert same(parse_artifact(old, "a.hmseg"), ARTIFACT)


@pytest.mark.parametrize("precision", ["fp8", "", 16, None])
def test_an_unknown_precision(data, precision):
    def change(manifest):
        manifest["target"]["precision"] = precision

    refused(with_manifest(data, change), "precision")


def test_an_artifact_from_before_the_calls_were_listed(data):
    old = with_manifest(data, lambda manifest: {k: v for k, v in manifest.items() if k != "calls"})
    assert parse_artifact(old, "old").calls == ()


def test_an_artifact_from_before_the_stride_was_written(data):
    old = with_manifest(data, lambda m: {k: v for k, v in m.items() if k != "golden_stride"})
    assert same(parse_artifact(old, "old"), ARTIFACT)


def test_an_artifact_from_before_the_image_was_in_planes(data):
    """As format 5 had it, its library not deflated."""
    members = unsealed(data)
    buffer = io.BytesIO()
    np.save(buffer, ARTIFACT.golden.image)
    members["golden/image.npy"] = buffer.getvalue()
    manifest = json.loads(members["manifest.json"]) | {"format_version": 5}
    manifest["members"]["golden/image.npy"] = manifest["members"].pop("golden/planes.npy")
    del members["golden/planes.npy"]
    old = sealed(members | {"manifest.json": json.dumps(manifest).encode()})
    assert same(parse_artifact(old, "old"), ARTIFACT)


def test_code_is_deflated_where_that_is_worth_it():
    """Weights of 8 bits and instructions, but no more than loading can wait for."""
    few = RNG.integers(0, 16, 1 << 20, dtype=np.uint8).tobytes()
    for code, deflated in ((few, True), (RNG.bytes(1 << 20), False), (few * 5, False)):
        file = saved(replace(ARTIFACT, code=Library(code)))
        assert (len(file) < 0.9 * len(code)) is deflated
        assert parse_artifact(file, "a.hmseg").code == Library(code)


def test_a_camera_s_noise_is_kept_once():
    """What it says of a pixel is much the same in its three channels."""
    noise = RNG.integers(0, 256, (*SIZE, 1), dtype=np.uint8)
    grey = replace(ARTIFACT.golden, image=noise.repeat(3, 2))
    image = saved(replace(ARTIFACT, golden=grey)), saved(ARTIFACT)
    assert len(image[0]) < len(image[1]) - noise.nbytes


def test_rough_logits_are_within_half_a_unit_of_11_bits():
    logits = RNG.normal(scale=30, size=(19, *SIZE)).astype(np.float32)
    labels = np.zeros(SIZE, np.uint8)
    rough, exact = (
        Golden.sampled(ARTIFACT.golden.image, labels, logits, rough=r).logits for r in (True, False)
    )
    np.testing.assert_array_equal(exact, logits[:, ::8, ::8])
    off = np.abs(rough - exact)
    assert 0 < off.max() <= (np.abs(exact) * 2**-11).max()
    assert (off <= np.abs(exact) * 2**-11).all()


def test_of_a_large_image_fewer_logits_are_kept(tmp_path):
    size = Resolution(1024, 2048)
    planes = np.broadcast_to(np.arange(2048, dtype=np.float32), (19, *size))
    golden = Golden.sampled(np.zeros((*size, 3), np.uint8), np.zeros(size, np.uint8), planes)
    assert golden.stride == 16
    np.testing.assert_array_equal(golden.logits[3, 5], np.arange(0, 2048, 16))
    large = replace(ARTIFACT, metadata=replace(METADATA, resolution=size), golden=golden)
    save_artifact(large, tmp_path / "a.hmseg")
    assert same(load_artifact(tmp_path / "a.hmseg"), large)


def test_any_unzip_lists_it_and_the_manifest_says_what_it_is(data):
    members = unsealed(data)
    assert list(members) == [
        "manifest.json", "lib.so", "golden/planes.npy", "golden/labels.npy", "golden/logits.npy",
    ]  # fmt: skip
    manifest = json.loads(members["manifest.json"])
    assert (manifest["format"], manifest["format_version"]) == ("hmseg-artifact", 6)
    assert manifest["input"] == {"name": "image", "dtype": "uint8", "shape": [1, 64, 96, 3]}
    assert manifest["output"] == {"name": "labels", "dtype": "uint8", "shape": [1, 64, 96]}
    assert json.loads(manifest["metadata"]["names"])[0] == "road"
    for name, entry in manifest["members"].items():
        assert entry == {
            "sha256": hashlib.sha256(members[name]).hexdigest(),
            "bytes": len(members[name]),
        }
    logits = replace(ARTIFACT, metadata=replace(METADATA, output="logits")).manifest()["output"]
    assert logits == {"name": "logits", "dtype": "float32", "shape": [1, 19, 64, 96]}


@settings(max_examples=300)
@given(st.data())
def test_cut_anywhere(data, draw):
    refused(data[: draw.draw(st.integers(0, len(data) - 1))], "cut short|not an hmseg artifact")


def test_cut_at_both_ends_byte_by_byte(data):
    for length in (*range(200), *range(len(data) - 300, len(data))):
        refused(data[:length], "cut short|not an hmseg artifact")


@settings(max_examples=300)
@given(st.data())
def test_one_byte_flipped(data, draw):
    position = draw.draw(st.integers(0, len(data) - 1))
    changed = bytearray(data)
    changed[position] ^= draw.draw(st.integers(1, 255))
    refused(bytes(changed), "damaged|not an hmseg artifact")


@given(st.binary(max_size=200))
def test_any_bytes(junk):
    refused(junk, "damaged|not an hmseg artifact")
    refused(b"PK" + junk, "damaged|not an hmseg artifact")


def test_bytes_after_the_end(data):
    refused(data + b"\n", "damaged")


def test_a_sealed_archive_of_anything_else(data):
    refused(sealed({}), "not a sound")
    refused(sealed({"manifest.json": b"{}"}), "not an hmseg artifact")
    refused(sealed({"manifest.json": b"[1]"}), "not an hmseg artifact")
    refused(sealed({"manifest.json": b"\xff\xfe"}), "not JSON")
    refused(sealed({"manifest.json": b"[" * 100_000}), "not JSON")
    for member in ("lib.so", "golden/labels.npy"):
        members = unsealed(data)
        del members[member]
        refused(sealed(members), f"not a sound.*{member}")


def test_the_sealing_helper_makes_archives_that_are_taken(data):
    assert same(parse_artifact(sealed(unsealed(data)), "a.hmseg"), ARTIFACT)


@pytest.mark.parametrize("version", [7, 99])
def test_a_newer_format_says_to_update(data, version):
    changed = with_manifest(data, lambda m: m | {"format_version": version})
    refused(changed, f"format version {version} is newer than this program's 6; update hmseg")


@pytest.mark.parametrize(
    "change",
    [
        {"channels": 1, "mean": (0.5,), "std": (0.5,)},
        {"output": "masks", "threshold": 0.5},
        {"classes": binary_classes(), "scores": 1, "threshold": 0.5},
        {"classes": generic_classes(256)},
        {"output": "logits"},
    ],
)
def test_other_ends_than_labels_of_an_rgb_image(change):
    metadata = replace(METADATA, **change)
    image = RNG.integers(0, 256, (*SIZE, metadata.channels), dtype=np.uint8)
    scores = RNG.normal(size=(metadata.num_scores, *SIZE)).astype(np.float32)
    golden = Golden.sampled(image, metadata.found_in(scores), scores)
    artifact = replace(ARTIFACT, metadata=metadata, golden=golden)
    assert artifact.manifest()["output"]["shape"] == [1, *metadata.output_shape]
    again = parse_artifact(saved(artifact), "a.hmseg")
    assert again.metadata == metadata
    np.testing.assert_array_equal(again.golden.labels, golden.labels)
    wrong = replace(artifact, golden=replace(golden, labels=golden.labels.astype(np.int32)))
    with pytest.raises(UserError, match=r"golden/labels\.npy is int32"):
        parse_artifact(saved(wrong), "a.hmseg")


@pytest.mark.parametrize("version", ["1", 0, -1, None, 1.0, True])
def test_a_format_version_that_is_none(data, version):
    refused(with_manifest(data, lambda m: m | {"format_version": version}), "is not a version")


def test_nothing_is_unpickled(data, tmp_path):
    """An object array in place of the golden image would run code if it were unpickled."""
    marker = tmp_path / "code-ran"

    class Bomb:
        def __reduce__(self):
            return os.mkdir, (str(marker),)

    buffer = io.BytesIO()
    np.save(buffer, np.array([Bomb()], dtype=object), allow_pickle=True)
    refused(with_member(data, "golden/planes.npy", buffer.getvalue()), "not a sound")
    refused(with_member(data, "golden/planes.npy", pickle.dumps(Bomb())), "not a sound")
    assert not marker.exists()


def test_golden_arrays_of_another_shape_or_type(data):
    def npy(array) -> bytes:
        buffer = io.BytesIO()
        np.save(buffer, array)
        return buffer.getvalue()

    for name, array in {
        "golden/planes.npy": np.zeros((3, 64, 64), np.uint8),
        "golden/labels.npy": np.zeros((64, 96), np.int64),
        "golden/logits.npy": np.zeros((18, 8, 12), np.float32),
    }.items():
        refused(
            with_member(data, name, npy(array)),
            f"{name} is of shape" if array.dtype != np.int64 else f"{name} is int64",
        )


@pytest.mark.parametrize("packing", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_members_that_are_packed_as_we_never_do(data, packing):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", packing) as archive:
        for name, content in unsealed(data).items():
            archive.writestr(name, content)
        archive.comment = b"0" * DATA_PATH_BYTES
    refused(with_digest(buffer.getvalue()), "not a sound.*packed in another way")


def with_digest(data: bytes) -> bytes:
    body = data[:-DATA_PATH_BYTES]
    return body + hashlib.sha256(body).hexdigest().encode()


def test_a_small_file_does_not_become_a_large_one(data):
    """Before anything is unpacked, whether it says its size or not."""
    bomb = with_member(data, "lib.so", bytes(200 << 20))
    assert len(bomb) < 1 << 20
    tracemalloc.start()
    refused(bomb, r"not a sound.*its \d+ bytes would become 209\d+")
    at = bomb.rindex(b"PK\x01\x02", 0, bomb.rindex(b"lib.so"))
    lie = bomb[: at + 24] + struct.pack("<I", 1000) + bomb[at + 28 :]
    refused(with_digest(lie), "not a sound|checksum")
    assert tracemalloc.get_traced_memory()[1] < 32 << 20
    tracemalloc.stop()


def test_a_header_of_numpy_that_ends_nowhere(data):
    text = b"{'descr': '|u1', (".ljust(117) + b"\n"
    header = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text
    refused(with_member(data, "golden/planes.npy", header), "not a sound")


def paths_in(value, prefix=()):
    yield prefix
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from paths_in(inner, (*prefix, key))


@settings(max_examples=300)
@given(st.data(), json_values)
def test_any_value_anywhere_in_the_manifest_is_taken_or_a_user_error(data, draw, value):
    members = unsealed(data)
    manifest = json.loads(members["manifest.json"])
    path = draw.draw(st.sampled_from([p for p in paths_in(manifest) if p]))
    inner = manifest
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    try:
        parsed = parse_artifact(
            sealed(members | {"manifest.json": json.dumps(manifest).encode()}), "a.hmseg"
        )
    except UserError:
        return
    assert all(isinstance(feature, str) for feature in parsed.target.features)
    assert isinstance(parsed.target.config, dict)
    assert isinstance(parsed.parity, dict)
    json.dumps(parsed.manifest())


def test_member_names_are_never_paths(data, tmp_path, monkeypatch):
    """A name that leads out of the folder is never written: only fixed names are read at all."""
    monkeypatch.chdir(tmp_path)
    members = unsealed(data) | {"../escaped": b"x", "/tmp/escaped-hmseg": b"x"}
    assert same(parse_artifact(sealed(members), "a.hmseg"), ARTIFACT)
    assert list(tmp_path.iterdir()) == []
    assert not (tmp_path.parent / "escaped").exists()


def test_missing_files(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        load_artifact(tmp_path / "none.hmseg")
    with pytest.raises(UserError, match="cannot be read"):
        load_artifact(tmp_path)
    (tmp_path / "empty.hmseg").touch()
    with pytest.raises(UserError, match="not an hmseg artifact"):
        load_artifact(tmp_path / "empty.hmseg")


def test_the_old_artifact_stands_where_the_new_one_cannot_be_saved(tmp_path, monkeypatch):
    path = tmp_path / "a.hmseg"
    save_artifact(ARTIFACT, path)
    before = path.read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match=r"cannot write .*No space left on device"):
        save_artifact(replace(ARTIFACT, kernels=()), path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


FULL = """
import sys
from dataclasses import replace
from pathlib import Path
from deploy.artifact_file import load_artifact, save_artifact
from lut.errors import UserError
try:
    save_artifact(load_artifact(Path("a.hmseg")), Path(sys.argv[1]))
except UserError as error:
    print(error)
"""


@MOUNTS.mark
def test_a_full_disk(data, tmp_path):
    """A file system of 20 kB, in a namespace of its own."""
    (tmp_path / "a.hmseg").write_bytes(data)
    (tmp_path / "full").mkdir()
    mounted = 'mount -t tmpfs -o size=20k none full && "$@"; ls full'
    program = [sys.executable, "-c", FULL, "full/n.hmseg"]
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", mounted, "sh", *program],
        capture_output=True, text=True, check=True, cwd=tmp_path,
    )  # fmt: skip
    assert done.stdout.startswith("cannot write full/n.hmseg: No space left on device; ")
    assert done.stdout.count("\n") == 1  # and the folder is empty
