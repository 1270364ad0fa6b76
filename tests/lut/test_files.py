import fcntl
import os
import resource
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from lut.errors import UserError
from lut.files import (
    atomic_path,
    cache_folder,
    check_writable,
    file_digest,
    hold_lock,
    lock_folder,
    read_file,
    remove_leftovers,
    write_atomic,
)
from tests.conditions import NOT_ROOT

OLD, NEW = b"the old content", b"the new content"


@pytest.fixture
def old_file(tmp_path: Path) -> Path:
    path = tmp_path / "result.bin"
    path.write_bytes(OLD)
    return path


def only(path: Path) -> bool:
    """Whether `path` is alone in its folder: nothing temporary was left."""
    return list(path.parent.iterdir()) == [path]


def test_write_replaces_the_whole_file(old_file: Path):
    write_atomic(old_file, NEW)
    assert old_file.read_bytes() == NEW
    assert only(old_file)


def test_text_is_written_as_utf8(tmp_path: Path):
    write_atomic(tmp_path / "t", "Straße")
    assert (tmp_path / "t").read_bytes() == "Straße".encode()


def test_missing_folders_are_made(tmp_path: Path):
    path = tmp_path / "a" / "b" / "c.bin"
    write_atomic(path, NEW)
    assert path.read_bytes() == NEW


def test_an_exception_while_writing_leaves_the_old_file(old_file: Path):
    def interrupted_write() -> None:
        with atomic_path(old_file) as temporary:
            temporary.write_bytes(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted_write()
    assert old_file.read_bytes() == OLD
    assert only(old_file)


def test_the_old_file_stands_until_the_block_ends(old_file: Path):
    with atomic_path(old_file) as temporary:
        temporary.write_bytes(NEW)
        assert old_file.read_bytes() == OLD
        assert temporary.parent == old_file.parent  # a rename across file systems is no rename
    assert old_file.read_bytes() == NEW


def test_a_process_killed_while_writing_leaves_the_old_file(old_file: Path):
    code = (
        "import os, signal, sys; from pathlib import Path; from lut.files import atomic_path\n"
        "with atomic_path(Path(sys.argv[1])) as t:\n"
        "    t.write_bytes(b'half'); os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(old_file)], check=False)
    assert done.returncode == -9
    assert old_file.read_bytes() == OLD
    assert len(list(old_file.parent.iterdir())) == 2
    remove_leftovers(old_file.parent)
    assert list(old_file.parent.iterdir()) == [old_file]


def test_a_full_disk_is_one_clear_line_and_leaves_the_old_file(old_file: Path):
    code = (
        "import sys; from pathlib import Path; from lut.errors import UserError\n"
        "from lut.files import write_atomic\n"
        "try:\n"
        "    write_atomic(Path(sys.argv[1]), b'x' * 1_000_000)\n"
        "except UserError as error:\n"
        "    print(error)\n"
    )

    def no_room() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    done = subprocess.run(
        [sys.executable, "-c", code, str(old_file)],
        check=False, capture_output=True, text=True, preexec_fn=no_room,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"cannot write {old_file}: ")
    assert len(done.stdout.splitlines()) == 1
    assert old_file.read_bytes() == OLD
    assert only(old_file)


def test_a_device_is_not_replaced_by_a_file(tmp_path: Path):
    """Renaming onto a device (--out /dev/null) would take it away from the whole machine."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for write in (check_writable, lambda path: write_atomic(path, NEW)):
        with pytest.raises(UserError, match="not a regular file"):
            write(pipe)
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    assert only(pipe)


def test_a_link_keeps_pointing_and_its_file_is_replaced(tmp_path: Path, old_file: Path):
    link = tmp_path / "latest.bin"
    link.symlink_to(old_file.name)
    write_atomic(link, NEW)
    assert link.is_symlink()
    assert old_file.read_bytes() == NEW


@pytest.mark.parametrize("write", [check_writable, lambda p: write_atomic(p, NEW)])
def test_paths_that_cannot_be_written(write, tmp_path: Path, old_file: Path):
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    for path in (
        tmp_path,  # a folder
        old_file / "below-a-file",
        old_file / "two" / "below-a-file",
        tmp_path / ("n" * 300),  # a name longer than the file system takes
        Path("/proc/no-such-file"),
        loop,
    ):
        with pytest.raises(UserError, match="cannot write") as caught:
            write(path)
        assert "\n" not in str(caught.value)
    assert old_file.read_bytes() == OLD


@NOT_ROOT.mark
def test_a_folder_without_write_permission(tmp_path: Path):
    tmp_path.chmod(0o500)
    with pytest.raises(UserError, match="Permission denied"):
        check_writable(tmp_path / "x")


def test_a_name_as_long_as_the_file_system_takes(tmp_path: Path):
    path = tmp_path / ("n" * 255)
    write_atomic(path, NEW)
    assert path.read_bytes() == NEW


def test_checking_creates_nothing(tmp_path: Path):
    check_writable(tmp_path / "new" / "folder" / "x.bin")
    assert list(tmp_path.iterdir()) == []


def test_results_are_as_readable_as_any_new_file(tmp_path: Path):
    plain = tmp_path / "plain"
    plain.touch()
    write_atomic(tmp_path / "ours", NEW)
    assert (tmp_path / "ours").stat().st_mode == plain.stat().st_mode


def test_read_file(tmp_path: Path, old_file: Path):
    assert read_file(old_file) == OLD
    for path in (tmp_path / "missing", tmp_path / ("n" * 300), old_file / "x"):
        with pytest.raises(UserError, match=r"no such file|cannot be read") as caught:
            read_file(path)
        assert str(path) in str(caught.value)
    with pytest.raises(UserError, match="cannot be read"):
        read_file(tmp_path)


def test_file_digest(tmp_path: Path):
    (tmp_path / "a").write_bytes(b"abc")
    # The test vector of FIPS 180-4 for "abc".
    assert file_digest(tmp_path / "a").startswith("ba7816bf8f01cfea414140de5dae2223")
    with pytest.raises(UserError, match="no such file"):
        file_digest(tmp_path / "b")


def test_a_device_without_an_end_is_no_file():
    with pytest.raises(UserError, match="/dev/zero: a device, not a file"):
        read_file(Path("/dev/zero"))


def test_a_locked_folder_is_refused_by_name(tmp_path: Path):
    folder = tmp_path / "run"
    held = (
        "import sys; from pathlib import Path; from lut.files import lock_folder\n"
        "with lock_folder(Path(sys.argv[1])): print('held', flush=True); input()"
    )
    command = [sys.executable, "-c", held, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout
        assert other.stdout.readline() == b"held\n"
        (tmp_path / "link").symlink_to(folder)
        for name in (folder, tmp_path / "link"):
            with (
                pytest.raises(UserError, match=f"another process is at work in {name}; wait"),
                lock_folder(name),
            ):
                raise AssertionError
        other.kill()  # the kernel gives it back
    with lock_folder(folder):
        assert (folder / ".hmseg.lock").exists()
    assert list(folder.iterdir()) == []


def test_a_lock_leaves_nothing_behind(tmp_path: Path):
    with hold_lock(tmp_path / "new" / ".lock", "taken"):
        assert (tmp_path / "new" / ".lock").exists()
    assert list(tmp_path.iterdir()) == []
    with hold_lock(tmp_path / "new" / ".lock", "taken"):
        (tmp_path / "new" / "result").write_text("")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["result"]
    with (
        pytest.raises(UserError, match="cannot write"),
        hold_lock(Path("/proc/none/.lock"), "taken"),
    ):
        raise AssertionError


def test_a_lock_that_is_removed_meanwhile_is_made_anew(tmp_path: Path, monkeypatch):
    """By another process, between any two looks at it."""
    lock, flock, left = tmp_path / "new" / ".lock", fcntl.flock, [2]

    def slowly(file: object, how: int) -> None:
        flock(file, how)
        if left[0]:
            left[0] -= 1
            lock.unlink()
            lock.parent.rmdir()

    monkeypatch.setattr(fcntl, "flock", slowly)
    with hold_lock(lock, "taken"):
        assert lock.exists()
    assert left == [0]


def test_the_users_folder(monkeypatch, tmp_path: Path):
    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("HMSEG_HOME")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    assert cache_folder() == tmp_path / ".cache" / "hmseg"
    monkeypatch.setattr(Path, "home", no_home)
    with pytest.raises(UserError, match=r"no home folder; name a folder .* with HMSEG_HOME"):
        cache_folder()
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert cache_folder() == Path("/xdg/hmseg")
    monkeypatch.setenv("HMSEG_HOME", "/own")
    assert cache_folder() == Path("/own")


def test_a_folder_that_is_gone(tmp_path: Path, monkeypatch):
    """A shell may stand in one: a path that is relative has no place then."""
    folder = tmp_path / "gone"
    folder.mkdir()
    monkeypatch.chdir(folder)
    folder.rmdir()
    for write in (check_writable, lambda path: write_atomic(path, "")):
        with pytest.raises(UserError, match="cannot write out/x: No such file or directory"):
            write(Path("out/x"))
