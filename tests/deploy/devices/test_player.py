"""The program that is sent to devices: on this machine by its own shell, and on 64-bit ARM by
qemu's emulator of a user's program. No phone ran it."""

import os
import shlex
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from deploy.build import build_artifact
from deploy.cpu.loaded import ends_of
from deploy.devices import player, player_link
from deploy.devices.measuring import RemoteDevices
from deploy.devices.network import Remote, RemoteLibrary
from deploy.devices.player import PlayerPlace
from deploy.devices.player_program import player_program
from deploy.devices.session import DeviceLostError
from deploy.measure.rounds import VisitProtocol
from deploy.runtime import open_artifact
from deploy.tables.networks import TimedNetwork
from deploy.tables.visit import measure_visit
from deploy.targets import resolve_target
from lut.errors import UserError, WorkError
from lut.ops import Resize
from tests.conditions import MOUNTS, QEMU, qemu
from tests.deploy.devices.farm import until
from tests.deploy.devices.shells import LocalShell, RefusingShell, emulated_shell
from tests.deploy.tables.fakes import SHALLOW


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "device"
    made.mkdir()
    return made


@pytest.fixture
def place(folder):
    return PlayerPlace(LocalShell(str(folder)), call_limit_s=60)


@pytest.fixture
def remote(place):
    return Remote(place, threads=2)


@pytest.fixture
def arm(tmp_path):
    QEMU.require()
    return PlayerPlace(emulated_shell(tmp_path, qemu()), call_limit_s=120)


def left(folder: Path) -> list[str]:
    return [str(path) for path in folder.iterdir()]


class TestHere:
    def test_a_network_gives_there_what_it_gives_here(self, remote, small_artifact, folder):
        image = small_artifact.golden.image
        here = open_artifact(small_artifact, "here", threads=2)
        labels, logits = remote.use(small_artifact, lambda n: (n(image), n.logits(image)))
        np.testing.assert_array_equal(labels, here(image))
        np.testing.assert_array_equal(logits, here.logits(image))
        assert left(folder) == []

    def test_it_says_what_it_is(self, place, remote, cpu):
        with place.open() as session:
            found = session.describe()
            assert found.architecture == cpu.architecture
            assert found.cores == len(os.sched_getaffinity(0))
            assert set(found.flags) > {"fpu"}
            assert found.available_mib > 0
            assert found.tvm_version is None
            assert session.report() == {
                "machine": found.cpu, "architecture": found.architecture, "device": "local",
                "emulated": False,
            }  # fmt: skip
        assert RemoteDevices(remote).info.cpu == found.cpu

    def test_frames_and_kernels_are_timed_by_its_clock(self, remote, small_artifact):
        """A table's visit, whose entries are made up; more frames than the clock's buffer holds."""
        keys = tuple(Resize(n, 8, 8, 4, 4) for n, _ in enumerate(small_artifact.calls, 1))
        network = TimedNetwork(SHALLOW, small_artifact, keys, keys)
        protocol = VisitProtocol(rounds=2, frames=3, warmup=0, attempts=2)
        devices, found = RemoteDevices(remote), []

        def work(device, reference, _item):
            with device.open(small_artifact) as session:
                many = session.time_kernels(2000 // len(keys))
                ceilings = session.ceilings(1)
                visit = measure_visit(session, reference, network, "entries", protocol)
                return visit, many, ceilings

        devices.spread([1], work, lambda _, made: found.append(made), reference=small_artifact)
        ((visit, many, ceilings),) = found
        assert set(visit.entries) == set(keys)
        assert min(min(us) for e in visit.entries.values() for us in e.samples_us) > 0
        assert len(many) == 2000 // len(keys)
        assert ceilings.fma_gflops > 0

    def test_what_is_let_go_here_goes_there(self, place, small_artifact):
        """Its threads and memory too: a table loads hundreds of networks."""
        image = small_artifact.golden.image
        with place.open() as session:
            for _ in range(3):
                library = RemoteLibrary(
                    small_artifact.code.data, session, 2, ends_of(small_artifact.metadata)
                )
                library.run("main", image)
            del library
            session.ask("about")
            program = children_of(session.link.program.pid)[0]
            status = Path(f"/proc/{program}/status").read_text()
            assert "Threads:\t2\n" in status  # of the pool for single kernels
            assert len(session._numbers["free"]) == len(session._numbers["unload"]) == 4096

    def test_more_tensors_than_there_are_numbers(self, place):
        with place.open() as session:
            kept = [session.empty((1,), "uint8") for _ in range(4096)]
            with pytest.raises(WorkError, match="too many tensors"):
                session.empty((1,), "uint8")
            del kept
            session.ask("about")
            assert session.empty((2, 3), "float32").shape == (2, 3)

    def test_memory_that_it_has_not(self, place):
        with place.open() as session:
            with pytest.raises(WorkError, match="enough memory; choose a smaller resolution"):
                session.empty((1 << 60,), "float32")
            assert session.describe()  # it goes on

    def test_a_number_is_given_back_where_nothing_was_made(self, place):
        with place.open() as session:
            for _ in range(2):
                with pytest.raises(WorkError, match="enough memory"):
                    session.empty((1 << 60,), "float32")
                with pytest.raises(WorkError, match="cannot be loaded"):
                    session.upload(b"nonsense")
            assert len(session._numbers["free"]) == len(session._numbers["unload"]) == 4096

    @pytest.mark.parametrize("dtype", ["bool", "uint8", "int64", "float16", "float32"])
    def test_what_is_written_is_read(self, place, dtype):
        array = np.arange(6).reshape(2, 3).astype(dtype)
        with place.open() as session:
            found = session.read(session.tensor(array))
        assert found.dtype == array.dtype
        np.testing.assert_array_equal(found, array)

    def test_what_is_no_library(self, place):
        with place.open() as session:
            with pytest.raises(WorkError, match="cannot be loaded: it is no shared library"):
                session.upload(b"nonsense")
            module = session.upload(player_neighbour())
            with pytest.raises(WorkError, match="the library has no function main"):
                module.call("main")
            with pytest.raises(WorkError, match="there is no such tensor"):
                session.ask("read 7")
            with pytest.raises(WorkError, match="an unknown request"):
                session.ask("dance")

    def test_a_call_that_never_ends(self, folder, small_artifact):
        place = PlayerPlace(LocalShell(str(folder)), call_limit_s=1)
        with place.open() as session:
            library = RemoteLibrary(
                small_artifact.code.data, session, 1, ends_of(small_artifact.metadata)
            )
            with pytest.raises(DeviceLostError, match="did not answer within 1 s"):
                library.time("main", small_artifact.golden.image, 10**7)
        until(lambda: left(folder) == [], 20, "the folder's removal")

    def test_it_ends_when_its_user_is_gone(self, place, folder):
        """As on a phone that is unplugged: the end of its input is all that it hears."""
        with place.open() as session:
            program = children_of(session.link.program.pid)[0]
            assert left(folder)
            session.link.program.stdin.close()
            until(lambda: left(folder) == [], 20, "the folder's removal")
            assert not Path(f"/proc/{program}").exists()
            with pytest.raises(DeviceLostError, match="was lost while starting"):
                session.ask("about")

    def test_it_ends_when_nothing_is_asked(self, folder, monkeypatch):
        """As where the link breaks and nobody says so: its input does not end."""
        monkeypatch.setattr(player_link, "IDLE_S", 1)
        with PlayerPlace(LocalShell(str(folder)), call_limit_s=60).open() as session:
            until(lambda: left(folder) == [], 20, "the folder's removal")
            with pytest.raises(DeviceLostError, match="nothing was asked of it for"):
                session.ask("about")

    def test_a_program_that_is_killed(self, place, folder):
        with place.open() as session:
            subprocess.run(
                ["kill", "-9", str(children_of(session.link.program.pid)[0])], check=True
            )
            with pytest.raises(DeviceLostError, match="for want of memory perhaps"):
                session.call("timing 3 frames", lambda: session.ask("about"))
        assert left(folder) == []

    def test_an_architecture_that_nothing_is_compiled_for(self, tmp_path, folder):
        shell = emulated_shell(tmp_path, "false")
        (tmp_path / "bin" / "uname").write_text("#!/bin/sh\necho armv7l\n")
        with (
            pytest.raises(UserError, match="emulated is armv7l; this version compiles for"),
            PlayerPlace(shell).open(),
        ):
            pass
        assert left(tmp_path / "tmp") == []

    def test_a_folder_that_no_program_runs_in(self, folder):
        shell = replace(LocalShell(str(folder)), runner="/dev/null")
        with pytest.raises(UserError, match="does not run programs in"), PlayerPlace(shell).open():
            pass
        assert left(folder) == []

    def test_a_folder_with_a_space_in_its_name(self, tmp_path, small_artifact):
        """A shell would split it: what stands beside it stays."""
        folder, beside = tmp_path / "my dir's", tmp_path / "my"
        folder.mkdir()
        beside.mkdir()
        place = PlayerPlace(LocalShell(shlex.quote(str(folder))), call_limit_s=60)
        image = small_artifact.golden.image
        labels = Remote(place, threads=1).use(small_artifact, lambda network: network(image))
        np.testing.assert_array_equal(labels, small_artifact.golden.labels)
        assert left(folder) == []
        assert beside.exists()

    @pytest.mark.parametrize("base", [".", "relative dir"])
    def test_a_folder_that_is_not_named_from_the_root(self, tmp_path, monkeypatch, base):
        monkeypatch.chdir(tmp_path)
        (tmp_path / base).mkdir(exist_ok=True)
        shell = LocalShell(shlex.quote(base))
        with (
            pytest.raises(UserError, match="its TMPDIR must begin with /"),
            PlayerPlace(shell).open(),
        ):
            pass
        assert left(tmp_path / base) == []

    @pytest.mark.parametrize(
        "printed", ["welcome\\n", "ok 3\\nabc", "hmseg\\n\\377\\n", "a\\nb\\nc"]
    )
    def test_what_the_login_prints_is_no_answer(self, folder, small_artifact, printed):
        noise = f'printf "{printed}"; exec "$@"'
        shell = LocalShell(str(folder), prefix=["sh", "-c", noise, "sh"])
        image = small_artifact.golden.image
        labels = Remote(PlayerPlace(shell), 1).use(small_artifact, lambda network: network(image))
        np.testing.assert_array_equal(labels, small_artifact.golden.labels)

    def test_a_login_that_runs_no_commands(self, folder):
        shell = LocalShell(str(folder), prefix=["echo", "This account is not available."])
        with (
            pytest.raises(WorkError, match="does not run commands: it says 'This account"),
            PlayerPlace(shell).open(),
        ):
            pass

    @pytest.mark.parametrize("kilobytes", [16, 0], ids=["program", "library"])
    def test_no_room(self, tmp_path, small_artifact, kilobytes):
        """For the program, or for the network behind it."""
        MOUNTS.require()
        room = kilobytes or len(player_program(small_artifact.target.architecture)) // 1024 + 16
        folder = tmp_path / "small"
        folder.mkdir()
        mount = f"mount -t tmpfs -o size={room}k none {folder} && echo && exec sleep 600"
        with subprocess.Popen(
            ["unshare", "-rm", "sh", "-c", mount], stdout=subprocess.PIPE
        ) as held:
            held.stdout.readline()
            inside = ["nsenter", "-t", str(held.pid), "-U", "-m", "--preserve-credentials"]
            remote = Remote(PlayerPlace(LocalShell(str(folder), prefix=inside)), threads=1)
            big = replace(small_artifact.code, data=small_artifact.code.data + bytes(1 << 20))
            try:
                with pytest.raises(UserError, match="No space left on device; free some room"):
                    remote.use(replace(small_artifact, code=big), lambda network: network)
                listed = subprocess.run([*inside, "ls", folder], capture_output=True, check=True)
                assert listed.stdout == b""
            finally:
                held.kill()


class TestConnections:
    """The first asks what it is, the second sends the program, the third runs it."""

    @pytest.mark.parametrize("number", [2, 3])
    def test_one_that_is_refused_leaves_nothing(self, folder, number):
        shell = RefusingShell("board", base=str(folder), refused={number: "Connection refused"})
        error = DeviceLostError if number == 3 else UserError
        with pytest.raises(error, match="ssh:board: Connection refused"), PlayerPlace(shell).open():
            pass
        assert len(shell.scripts) == number + 1  # the last removes the folder
        assert left(folder) == []

    def test_the_command_that_reaches_it_is_gone(self, folder):
        """As where its package is removed meanwhile."""

        class Gone(RefusingShell):
            def command(self, script):
                made = super().command(script)
                return ["/nowhere/ssh"] if len(self.scripts) == 3 else made

        shell = Gone("board", base=str(folder))
        with (
            pytest.raises(UserError, match="cannot run /nowhere/ssh: No such file"),
            PlayerPlace(shell).open(),
        ):
            pass
        assert left(folder) == []

    def test_a_program_that_fails_at_its_first_question(self, folder):
        shell = RefusingShell("board", base=str(folder), runner="sh -c 'exit 1'")
        with pytest.raises(DeviceLostError, match="lost while starting"), PlayerPlace(shell).open():
            pass
        assert left(folder) == []

    def test_who_is_not_there_yet_is_waited_for(self, folder, monkeypatch):
        monkeypatch.setattr(player, "_RETRY_S", 0)
        refused = {1: "Connection refused", 2: "No route to host", 5: "Connection closed by board"}
        shell = RefusingShell("board", base=str(folder), refused=refused)
        with PlayerPlace(shell).open(patience_s=60) as session:
            assert session.about["architecture"]
        assert left(folder) == []

    @pytest.mark.parametrize("number", [1, 3])
    def test_who_does_not_let_us_in_is_not_asked_again(self, folder, number):
        refused = {number: "me@board: Permission denied (publickey)."}
        shell = RefusingShell("board", base=str(folder), refused=refused)
        with (
            pytest.raises(UserError, match="put your key there"),
            PlayerPlace(shell).open(patience_s=60),
        ):
            pass
        assert len(shell.scripts) == (1 if number == 1 else 4)

    def test_what_is_missing_here_is_told_at_once(self, folder, monkeypatch):
        monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
        shell = RefusingShell("board", base=str(folder))
        with (
            pytest.raises(UserError, match="pip install ziglang"),
            PlayerPlace(shell).open(patience_s=60),
        ):
            pass
        assert len(shell.scripts) == 2
        assert left(folder) == []


class TestArm:
    """The static program for 64-bit ARM, emulated: for correctness only."""

    @pytest.mark.parametrize("target", ["arm", "android"])
    def test_a_network_passes_the_parity_gate(self, arm, small_graph, target, tmp_path):
        """Linked for glibc's names or for bionic's, it is the same to the program."""
        artifact, comparisons = build_artifact(
            small_graph, resolve_target(target), threads=2, remote=Remote(arm, threads=2)
        )
        assert comparisons
        assert artifact.parity["emulated"] is True
        assert artifact.parity["architecture"] == "aarch64"
        assert left(tmp_path / "tmp") == []

    def test_it_says_that_it_is_emulated(self, arm):
        with arm.open() as session:
            found = session.describe()
        assert (found.architecture, found.emulated) == ("aarch64", True)
        assert "asimd" in found.flags
        assert "asimddp" not in found.flags  # a Cortex-A72 has none

    def test_a_cpu_that_lacks_a_feature(self, arm, small_graph):
        """Before anything is sent, and in the library itself before its first kernel."""
        artifact, _ = build_artifact(small_graph, resolve_target("cortex-a76"), threads=1)
        with pytest.raises(UserError, match="compiled for cortex-a76, device emulated lacks"):
            Remote(arm, threads=1).use(artifact, lambda network: network)
        with arm.open() as session, pytest.raises(WorkError, match="the CPU lacks what it needs"):
            RemoteLibrary(artifact.code.data, session, 1, ends_of(artifact.metadata))

    def test_a_library_for_another_architecture(self, arm, small_artifact):
        with arm.open() as session, pytest.raises(WorkError, match="for another architecture"):
            session.upload(small_artifact.code.data)


@pytest.mark.parametrize("architecture", ["x86_64", "aarch64"])
def test_the_program_is_static_and_small(architecture, tmp_path):
    (tmp_path / "player").write_bytes(player_program(architecture))
    command = ["readelf", "-lW", tmp_path / "player"]
    headers = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "INTERP" not in headers
    assert "DYNAMIC" not in headers
    assert (tmp_path / "player").stat().st_size < 256 * 1024


def player_neighbour() -> bytes:
    """A library of one function that is none of ours."""
    from deploy.cpu.link import compile_c, link_shared, tools_of

    tools = tools_of(resolve_target("cpu"))
    objects = compile_c(tools, {"a.c": "int lonely(void) { return 1; }\n"}, ("a.c",))
    return link_shared(tools, list(objects.values()), ("lonely",))


def children_of(process: int) -> list[int]:
    """Of a shell: the program, once it has been started."""
    path = Path(f"/proc/{process}/task/{process}/children")
    until(lambda: path.read_text().split(), 10, "the program")
    time.sleep(0)
    return [int(word) for word in path.read_text().split()]
