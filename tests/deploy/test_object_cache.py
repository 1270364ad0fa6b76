"""The cache by itself; that compiling uses it, tests/deploy/cpu/test_pipeline.py shows."""

import os
import pickle
import signal
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from pathlib import Path

import pytest

from deploy.object_cache import CacheWarning, ObjectCache, Usage, default_cache, key_of
from lut.errors import UserError
from lut.files import TEMPORARY

KEY, OTHER = key_of("a"), key_of("b")
DATA = bytes(range(256)) * 40
DIGEST_BYTES = 32
KILLS = 12

# Entry `number` is this long and holds this: every process and every reader knows it.
ENTRY = """
from deploy.object_cache import ObjectCache, key_of

def entry(number):
    return key_of("entry", str(number)), bytes([number % 251]) * (1000 + 97 * number)
"""


@pytest.fixture
def cache(tmp_path: Path) -> ObjectCache:
    return ObjectCache(tmp_path / "objects")


def again(cache: ObjectCache) -> ObjectCache:
    """The same folder for another process, which has nothing in memory."""
    return ObjectCache(cache.folder, cache.limit)


def entries(cache: ObjectCache) -> set[str]:
    return {path.name for path in cache.folder.iterdir()}


def start(code: str, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", ENTRY + code, *map(str, arguments)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def entry(number: int) -> tuple[str, bytes]:
    made: dict[str, object] = {}
    exec(ENTRY, made)
    return made["entry"](number)


def test_a_hit_and_a_miss(cache):
    assert cache.get(KEY) is None
    cache.put(KEY, DATA)
    for other in (cache, again(cache)):
        assert other.get(KEY) == DATA
        assert other.get(OTHER) is None
    assert cache.usage() == Usage(1, len(DATA) + DIGEST_BYTES)


def test_empty_bytes_are_an_entry(cache):
    cache.put(KEY, b"")
    assert again(cache).get(KEY) == b""


def test_a_key_is_of_each_text_and_of_their_order():
    texts = [("ab",), ("a", "b"), ("b", "a"), ("a", "", "b"), ("a", "b", ""), ("",), (), ('a","b',)]
    keys = [key_of(*text) for text in texts]
    assert len(set(keys)) == len(texts)
    assert all(len(key) == 64 and set(key) <= set("0123456789abcdef") for key in keys)
    assert key_of("a", "b") == key_of("a", "b")


def test_what_is_kept_can_be_read_as_the_file_that_it_is(cache):
    """Behind it stand only the bytes that prove it whole."""
    cache.put(KEY, DATA)
    assert (cache.folder / KEY).read_bytes()[:-DIGEST_BYTES] == DATA


@pytest.mark.parametrize(
    "damage",
    [
        lambda whole: whole[:-1],
        lambda whole: whole[: len(whole) // 2],
        lambda whole: whole[: DIGEST_BYTES - 1],
        lambda whole: b"",
        lambda whole: whole + b"\0",
        lambda whole: bytes([whole[0] ^ 1]) + whole[1:],
        lambda whole: whole[:-1] + bytes([whole[-1] ^ 0x80]),
        lambda whole: bytes(len(whole)),
    ],
)
def test_a_damaged_entry_is_removed_and_made_anew(cache, damage):
    cache.put(KEY, DATA)
    path = cache.folder / KEY
    path.write_bytes(damage(path.read_bytes()))
    other = again(cache)
    assert other.get(KEY) is None
    assert not path.exists()
    other.put(KEY, DATA)
    assert again(cache).get(KEY) == DATA


def test_an_entry_under_another_name_is_no_entry(cache):
    """A file that was renamed, or copied over another, is whole and yet the wrong one."""
    cache.put(KEY, DATA)
    (cache.folder / KEY).rename(cache.folder / OTHER)
    assert again(cache).get(OTHER) is None


def test_without_a_folder_it_is_in_memory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cache = ObjectCache(None)
    cache.put(KEY, DATA)
    assert cache.get(KEY) == DATA
    assert cache.usage() == Usage(0, 0)
    assert cache.clear() == 0
    assert list(tmp_path.iterdir()) == []


def test_it_goes_to_another_process(cache):
    cache.put(KEY, DATA)
    other = pickle.loads(pickle.dumps(cache))
    assert (other.folder, other.limit, other.get(KEY)) == (cache.folder, cache.limit, DATA)


def put_all(cache: ObjectCache, numbers: range, size: int = 1000) -> list[str]:
    """Entries of one size, used one after the other, the first longest ago."""
    keys = [key_of(str(number)) for number in numbers]
    for number, key in zip(numbers, keys, strict=True):
        cache.put(key, bytes(size - DIGEST_BYTES))
        if (cache.folder / key).exists():
            os.utime(cache.folder / key, (number, number))
    return keys


def test_it_stays_below_its_limit_at_every_moment(cache):
    cache.limit = 100_000
    for number in range(400):
        put_all(cache, range(number, number + 1))
        assert cache.usage().bytes <= cache.limit
    assert cache.usage().bytes >= 0.8 * cache.limit


def test_what_was_used_longest_ago_goes(cache):
    cache.limit = 100_000
    keys = put_all(cache, range(90))
    assert len(entries(cache)) == 90
    assert again(cache).get(keys[3])  # used now
    put_all(cache, range(90, 110))
    left = entries(cache)
    assert keys[3] in left
    assert not left & set(keys[:3])
    newest = {key_of(str(number)) for number in range(100, 110)}
    assert newest <= left


def test_a_full_folder_of_another_time_is_found_with_the_first_entry(cache):
    keys = put_all(cache, range(200))
    small = ObjectCache(cache.folder, 50_000)
    small.put(KEY, DATA)
    assert small.usage().bytes <= small.limit
    assert {KEY} < entries(small)
    assert entries(small) - {KEY} == set(keys[-(len(entries(small)) - 1) :])


def test_what_is_larger_than_the_cache_is_not_kept(cache):
    cache.limit = 5000
    cache.put(OTHER, bytes(1000))
    cache.put(KEY, DATA)
    assert entries(cache) == {OTHER}
    assert cache.get(KEY) == DATA  # as long as this one lives


def test_evicting_beside_a_process_that_removes_too(cache, monkeypatch):
    """A file may go between the look at the folder and its removal."""
    cache.limit = 20_000
    put_all(cache, range(18))
    real = Path.unlink

    def gone(path: Path, missing_ok: bool = False) -> None:
        if not path.name.startswith(TEMPORARY):
            real(path)
        real(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", gone)
    put_all(cache, range(18, 30))
    assert cache.usage().bytes <= cache.limit


def test_files_of_others_are_left_alone(cache):
    cache.limit = 20_000
    cache.folder.mkdir()
    foreign = [cache.folder / name for name in ("notes.txt", KEY[:-1], KEY.upper(), f"{KEY}.o")]
    for path in foreign:
        path.write_bytes(bytes(50_000))
        os.utime(path, (0, 0))
    put_all(cache, range(40))
    cache.clear()
    assert {path.name for path in foreign} == entries(cache)
    assert cache.usage() == Usage(0, 0)


def test_clearing(cache):
    keys = put_all(cache, range(5))
    assert cache.clear() == 5
    assert entries(cache) == set()
    assert cache.get(keys[0]) is None
    assert cache.clear() == 0
    cache.put(KEY, DATA)
    assert again(cache).get(KEY) == DATA
    assert ObjectCache(cache.folder / "none").clear() == 0


def test_clearing_takes_what_a_killed_process_left_and_not_what_is_being_written(cache):
    cache.put(KEY, DATA)
    old, new = (cache.folder / f"{TEMPORARY}{name}" for name in ("old", "new"))
    for path in (old, new):
        path.write_bytes(DATA)
    os.utime(old, (time.time() - 3600,) * 2)
    assert cache.usage() == Usage(3, 3 * len(DATA) + DIGEST_BYTES)
    assert cache.clear() == 2
    assert entries(cache) == {new.name}


def test_what_a_killed_process_left_is_evicted_in_its_turn(cache):
    cache.limit = 100_000
    cache.folder.mkdir()
    left = cache.folder / f"{TEMPORARY}left"
    left.write_bytes(bytes(10_000))
    os.utime(left, (0, 0))
    put_all(cache, range(1, 100))
    assert not left.exists()


def one_warning(work) -> str:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        work()
    (warning,) = caught
    assert warning.category is CacheWarning
    assert "\n" not in str(warning.message)
    return str(warning.message)


def fails(error: OSError):
    def write(*_arguments: object, **_options: object) -> int:
        raise error

    return write


@pytest.mark.parametrize("when", ["fsync", "replace"])
def test_a_full_disk_is_one_warning(cache, monkeypatch, when):
    cache.put(OTHER, DATA)
    full = OSError(28, "No space left on device")
    place = os if when == "fsync" else Path
    monkeypatch.setattr(place, when, fails(full))

    def work() -> None:
        for number in range(3):
            cache.put(key_of(str(number)), DATA)

    text = one_warning(work)
    assert text.startswith("nothing new is cached: cannot write ")
    assert "No space left on device" in text
    assert entries(cache) == {OTHER}
    assert again(cache).get(OTHER) == DATA


def test_a_folder_that_cannot_be_made_is_one_warning(tmp_path):
    (tmp_path / "file").write_text("")
    cache = ObjectCache(tmp_path / "file" / "objects")
    assert cache.get(KEY) is None
    text = one_warning(lambda: [cache.put(key, DATA) for key in (KEY, OTHER)])
    assert str(tmp_path / "file") in text
    assert cache.usage() == Usage(0, 0)


READ_ONLY = """
import os, sys, tempfile, warnings  # the standard library may lie where that user reads nothing
from pathlib import Path
from lut.errors import UserError

if os.geteuid() == 0:
    os.seteuid(65534)  # the superuser may write anywhere
cache = ObjectCache(Path(sys.argv[1]))
print(cache.get(sys.argv[2]) == bytes(range(256)) * 40)
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    cache.put(key_of("x"), b"x")
    cache.put(key_of("y"), b"y")
print([str(w.message).partition(":")[0] for w in caught], cache.usage().entries)
try:
    cache.clear()
except UserError as error:
    print(error)
"""


def test_a_read_only_folder_is_read():
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        cache = ObjectCache(Path(name) / "objects")
        cache.put(KEY, DATA)
        (cache.folder / KEY).chmod(0o644)
        cache.folder.chmod(0o555)
        process = start(READ_ONLY, cache.folder, KEY)
        out, err = process.communicate()
        cache.folder.chmod(0o755)
        assert process.returncode == 0, err
        hit, warned, refused = out.splitlines()
        assert hit == "True"
        assert warned == "['nothing new is cached'] 1"
        assert refused == f"cannot empty {cache.folder}: Permission denied"
        assert cache.usage().entries == 1


HAMMER = """
import random, sys
from pathlib import Path

folder, seed, rounds, limit = Path(sys.argv[1]), *map(int, sys.argv[2:])
rng, hits = random.Random(seed), 0
for _ in range(rounds):
    cache = ObjectCache(folder, limit)  # with nothing in memory
    for number in rng.sample(range(40), 10):
        key, data = entry(number)
        found = cache.get(key)
        assert found in (None, data), number
        hits += found is not None
        if found is None or rng.random() < 0.1:
            cache.put(key, data)
    if rng.random() < 0.02:
        cache.clear()
print(hits)
"""


def test_processes_that_hammer_one_folder(cache):
    """Four of them write, read, evict and clear; what any of them reads is whole."""
    total = sum(len(entry(number)[1]) for number in range(40))
    limit = total // 2
    running = [start(HAMMER, cache.folder, seed, 60, limit) for seed in range(4)]
    done = [process.communicate() for process in running]
    assert [process.returncode for process in running] == [0] * 4, done
    assert all(int(out) > 0 for out, _ in done)
    assert [err for _, err in done] == [""] * 4
    cache.limit = limit
    cache.put(KEY, DATA)
    assert again(cache).usage().bytes <= limit
    for number in range(40):
        key, data = entry(number)
        assert again(cache).get(key) in (None, data)
    assert not [name for name in entries(cache) if name.startswith(TEMPORARY)]


WRITE_ON = """
import sys
from pathlib import Path

cache = ObjectCache(Path(sys.argv[1]))
print("ready", flush=True)
while True:
    for number in range(40):
        cache.put(*entry(number))
"""


def test_killed_while_it_writes(cache):
    """Wherever a process ends, what is read afterwards is whole or a miss."""
    for kill in range(KILLS):
        process = start(WRITE_ON, cache.folder)
        assert process.stdout.readline() == "ready\n"
        time.sleep(0.02 + 0.013 * kill)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        found = again(cache)
        for number in range(40):
            key, data = entry(number)
            assert found.get(key) in (None, data)
    assert cache.usage().entries > 0
    for path in cache.folder.iterdir():
        os.utime(path, (time.time() - 3600,) * 2)
    cache.clear()
    assert entries(cache) == set()


def test_threads_share_one(cache):
    failures: list[BaseException] = []

    def work(seed: int) -> None:
        try:
            for number in range(seed, seed + 30):
                key, data = entry(number)
                cache.put(key, data)
                assert cache.get(key) == data
        except BaseException as error:
            failures.append(error)

    umask = os.umask(0o077)
    try:
        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert os.umask(0o077) == 0o077  # writing looks at it, which sets it
    finally:
        os.umask(umask)
    assert failures == []
    assert len(entries(cache)) == 37
    assert {path.stat().st_mode & 0o777 for path in cache.folder.iterdir()} == {0o600}


def test_the_user_s(monkeypatch, tmp_path):
    monkeypatch.setenv("HMSEG_HOME", str(tmp_path))
    monkeypatch.delenv("HMSEG_CACHE_MB", raising=False)
    assert default_cache() == ObjectCache(tmp_path / "objects", 512_000_000)
    monkeypatch.setenv("HMSEG_CACHE_MB", "3")
    assert default_cache().limit == 3_000_000


def test_no_room_for_it(monkeypatch, tmp_path):
    monkeypatch.setenv("HMSEG_HOME", str(tmp_path))
    monkeypatch.setenv("HMSEG_CACHE_MB", "0")
    default_cache().put(KEY, DATA)
    assert list(tmp_path.iterdir()) == []
    ObjectCache(tmp_path / "objects").put(KEY, DATA)
    assert default_cache().get(KEY) is None


@pytest.mark.parametrize("text", ["-1", "1.5", "many", "٣"])
def test_a_limit_that_is_no_number(monkeypatch, text):
    monkeypatch.setenv("HMSEG_CACHE_MB", text)
    with pytest.raises(
        UserError, match=r"HMSEG_CACHE_MB .* write a whole number of MB, such as 512"
    ):
        default_cache()
