"""Where commands do their work: the options of threads and of devices, and what they mean."""

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from deploy import host
from deploy.cli.options import refusing
from deploy.devices.address import LOOPBACK, TRACKER_PORT, Address, parse_address
from lut.errors import UserError

if TYPE_CHECKING:
    from deploy.devices.network import Remote
    from deploy.measure.device import Devices
    from deploy.target import Target
    from lut.table import Identity

MAX_THREADS = 1024


def check_threads(threads: int) -> None:
    """Raise UserError for what is no number of threads."""
    _count_threads("--threads", str(threads))


Threads = Annotated[
    int | None,
    typer.Option(
        "--threads",
        help="Threads of a call; TVM_NUM_THREADS, else its machine's cores.",
        callback=refusing(check_threads),
    ),
]
Tracker = Annotated[
    str | None,
    typer.Option(
        "--rpc-tracker",
        help="HOST:PORT of TVM's tracker; TVM_TRACKER_HOST and _PORT, else 127.0.0.1:9190.",
    ),
]
Key = Annotated[
    str | None,
    typer.Option("--rpc-key", help="Work on a device with this key; TVM_TRACKER_KEY, else here."),
]
CallLimit = Annotated[
    float, typer.Option("--rpc-limit", help="Seconds that one call of a device may take.")
]
Device = Annotated[
    str | None,
    typer.Option(
        "--device",
        help="Work on a machine behind ssh (ssh:HOST, ssh:USER@HOST, ssh:HOST:PORT) or a phone on "
        "a cable (adb, adb:SERIAL): a program is sent there, nothing has to be installed.",
    ),
]
CALL_LIMIT_S = 120.0
MAX_LIMIT_S = 1_000_000


@dataclass(frozen=True)
class PlaceOptions:
    """Where it runs."""

    threads: Threads = None
    rpc_tracker: Tracker = None
    rpc_key: Key = None
    rpc_limit: CallLimit = CALL_LIMIT_S
    device: Device = None

    def read(self) -> "tuple[int, Remote | None]":
        """The number of threads, and the devices that the options name: None where the work is
        done on this machine. Without a number in --threads or TVM_NUM_THREADS it is that of the
        cores which do the work. Raises UserError for options that are wrong or do not go together,
        and for a tracker or a device that does not answer."""
        if self.device is not None:
            return self._read_device(self.device)
        word = read_key(self.rpc_key)
        if word is None:
            if self.rpc_tracker is not None:
                raise UserError(
                    "--rpc-tracker needs --rpc-key; hmseg-deploy device list shows the keys"
                )
            return read_threads(self.threads), None
        address = read_tracker(self.rpc_tracker)
        check_limit(self.rpc_limit)
        from deploy.cli.console import say
        from deploy.devices.tracker import require_key

        require_key(address, word)  # before long work, and before it is imported
        from deploy.devices.network import Remote
        from deploy.devices.session import Farm

        farm = Farm(address, word, call_limit_s=self.rpc_limit)
        if self.threads is not None or os.environ.get("TVM_NUM_THREADS"):
            workers = read_threads(self.threads)
        else:
            device = Remote(farm, 1, on_lost=say).on_one(lambda session: session.describe())
            if device is None:
                raise UserError(
                    f"the device {word} does not say how many cores it has; name --threads"
                )
            workers = device.cores
        return workers, Remote(farm, workers, on_lost=say)

    def _read_device(self, text: str) -> "tuple[int, Remote]":
        if self.rpc_key is not None or self.rpc_tracker is not None:
            raise UserError(f"--device {text} and --rpc-key name two devices; leave one out")
        check_limit(self.rpc_limit)
        from deploy.cli.console import say, step
        from deploy.devices.named import named_place

        place = named_place(text, self.rpc_limit)
        from deploy.devices.fitting import fitting_target
        from deploy.devices.network import Remote

        with step(f"asking {place.name} what it is") as progress, place.open() as session:
            found = session.describe()
            progress.result = f"{found.cpu}, {found.architecture}, {found.cores} cores"
        given = self.threads is not None or os.environ.get("TVM_NUM_THREADS")
        workers = read_threads(self.threads) if given else found.cores
        fitting = place.shell.target or fitting_target(found)
        return workers, Remote(place, workers, say, fitting)


@dataclass(frozen=True)
class TablePlaceOptions:
    """Where it is measured what a table was measured for, with as many threads."""

    rpc_tracker: Tracker = None
    rpc_key: Key = None
    rpc_limit: CallLimit = CALL_LIMIT_S

    def open(self, identity: "Identity", target: str | None = None) -> "tuple[Target, Devices]":
        """The target that the text names, by default the table's own, and what measures it. Raises
        UserError as `PlaceOptions.read` and `resolve_measured_target`."""
        place = PlaceOptions(identity.threads, **vars(self))
        named = (read_key(self.rpc_key), self.rpc_tracker, vars(self).get("device"))
        if not identity.threads and named != (None, None, None):
            raise UserError(
                f"{identity.target_text} is measured on its own machine: leave --rpc-key, "
                "--rpc-tracker and --device out"
            )
        workers, remote = place.read() if identity.threads else (0, None)
        from deploy.backends import backend_of

        text = identity.target_text if target is None else target
        resolved = resolve_measured_target(text, identity.precision)
        return resolved, backend_of(resolved).devices(workers, remote)


@dataclass(frozen=True)
class DeviceTablePlaceOptions(TablePlaceOptions):
    """The same, also over ssh and adb; for commands without a --device of their own."""

    device: Device = None


def check_limit(limit_s: float) -> None:
    """Raise UserError for what is no limit of a call: alarms and timers take only so much."""
    if not 0 < limit_s <= MAX_LIMIT_S:
        raise UserError(
            f"--rpc-limit {limit_s:g}: write a number of seconds above 0, at most {MAX_LIMIT_S}"
        )


def read_tracker(text: str | None) -> Address:
    """The option, else TVM_TRACKER_HOST and TVM_TRACKER_PORT, else this machine's usual port;
    raises UserError for no address."""
    if text is not None:
        return parse_address(text)
    host = os.environ.get("TVM_TRACKER_HOST") or LOOPBACK
    return parse_address(f"{host}:{os.environ.get('TVM_TRACKER_PORT') or TRACKER_PORT}")


def read_key(key: str | None) -> str | None:
    """The option, else TVM_TRACKER_KEY; None where neither names one. Raises UserError for what is
    no word."""
    key = key if key is not None else os.environ.get("TVM_TRACKER_KEY") or None
    if key is not None and (not key or not key.isprintable() or any(c in key for c in " :")):
        raise UserError(f"--rpc-key {key!r}: write a word without spaces and colons, such as arm")
    return key


def resolve_measured_target(text: str, precision: str | None) -> "Target":
    """`resolve_target` for what is measured: of the machine at hand alone.

    Raises UserError where there is none, or another than `text` names.
    """
    from deploy.backends import backend_of
    from deploy.targets import resolve_target

    target = resolve_target(text, None, precision)
    return backend_of(target).measured_target(target, text)


def read_threads(threads: int | None) -> int:
    """The option, else TVM_NUM_THREADS, else this process's cores; raises UserError for what is no
    number of threads."""
    name, text = "--threads", str(threads)
    if threads is None:
        name = "TVM_NUM_THREADS"
        text = os.environ.get(name) or str(host.usable_cpus())
    count = _count_threads(name, text)
    os.environ["TVM_NUM_THREADS"] = str(count)
    return count


def _count_threads(name: str, text: str) -> int:
    count = int(text) if text.isdecimal() and text.isascii() else 0
    if not 1 <= count <= MAX_THREADS:
        raise UserError(f"{name} {text}: write a number from 1 to {MAX_THREADS}")
    return count
