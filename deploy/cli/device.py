"""hmseg-deploy device: list, doctor; of TVM's RPC tracker, serve, emulate."""

import logging
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from deploy.cli import completion, options, places
from deploy.cli.console import print_json, print_table, say, step
from deploy.devices.address import LOOPBACK, TRACKER_PORT, Address
from lut.errors import UserError, WorkError

if TYPE_CHECKING:
    from deploy.devices.place import Place

app = typer.Typer(
    help="Devices: phones on a cable, TVM's tracker and its servers.",
    no_args_is_help=True,
)

Host = Annotated[str, typer.Option(help="Address to listen at; others need --allow-remote.")]
TrackerPort = Annotated[int, typer.Option("--port", min=1, max=65535, help="Port to listen at.")]
ServerPort = Annotated[
    int,
    typer.Option("--port", min=1, max=65535, help="Port; the next ones where it is taken."),
]
OwnKey = Annotated[
    str | None,
    typer.Option("--rpc-key", help="The kind of device that this is, a word; TVM_TRACKER_KEY."),
]
AllowRemote = Annotated[
    bool, typer.Option("--allow-remote", help="Let other machines connect: they can run anything.")
]


@app.command()
def tracker(
    host: Host = LOOPBACK,
    port: TrackerPort = TRACKER_PORT,
    allow_remote: AllowRemote = False,
) -> None:
    """Run TVM's tracker.

    It knows the devices and hands them out, until it is interrupted.
    """
    address = _listen_address(host, port, allow_remote)
    from deploy.devices.tracker import run_tracker

    def tell(found: Address) -> None:
        say(f"tracker at {found}{_reach(found)}")
        print(found, flush=True)

    run_tracker(address, tell)


@app.command()
def serve(
    rpc_key: OwnKey = None,
    rpc_tracker: places.Tracker = None,
    host: Host = LOOPBACK,
    port: ServerPort = 9090,
    advertise: Annotated[
        str | None, typer.Option(help="Address that clients are given; default: as it is seen.")
    ] = None,
    allow_remote: AllowRemote = False,
) -> None:
    """Make this machine a device.

    Runs TVM's RPC server until it is interrupted.
    """
    key = places.read_key(rpc_key)
    if key is None:
        raise UserError("device serve: name the device's kind with --rpc-key, such as arm")
    address = _listen_address(host, port, allow_remote)
    where = places.read_tracker(rpc_tracker)
    say(f"serving with key {key} for the tracker {where}{_reach(address)}")
    from deploy.devices.server import serve as run_server

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    run_server(where, key, host=host, port=port, port_end=port + 100, advertise=advertise)


@app.command("list")
def list_devices(
    rpc_tracker: places.Tracker = None,
    phones: Annotated[
        bool, typer.Option("--adb", help="The phones that adb sees, for --device.")
    ] = False,
    as_json: options.Json = False,
) -> None:
    """List devices.

    The keys that a tracker knows, their devices, and how many are free; or phones on a cable.
    """
    if phones:
        if rpc_tracker is not None:
            raise UserError("--adb lists phones, --rpc-tracker a tracker's devices; leave one out")
        _list_phones(as_json)
        return
    from deploy.devices.tracker import states

    found = states(places.read_tracker(rpc_tracker))
    if as_json:
        print_json([asdict(state) for state in found])
        return
    print_table(
        "devices", ("key", "devices", "free", "waiting", "addresses"),
        [(s.key, len(s.devices), s.free, s.waiting, " ".join(s.devices)) for s in found],
    )  # fmt: skip


def _list_phones(as_json: bool) -> None:
    from deploy.devices.adb import phones

    found = phones()
    if as_json:
        print_json([{"device": f"adb:{serial}", "state": state} for serial, state in found])
        return
    print_table("phones", ("device", "state"), [(f"adb:{s}", state) for s, state in found])


@app.command()
def doctor(
    device: places.Device = None,
    rpc_key: places.Key = None,
    rpc_tracker: places.Tracker = None,
    rpc_limit: places.CallLimit = 30.0,
    target: Annotated[
        str | None,
        typer.Option(
            "--target",
            "-t",
            help="What is compiled for it; default: fits.",
            callback=options.refusing(options.check_target),
            autocompletion=completion.targets,
        ),
    ] = None,
    threads: places.Threads = None,
    adb: Annotated[
        bool, typer.Option("--adb", help="Behind the tracker is the app of a phone on a cable.")
    ] = False,
    as_json: options.Json = False,
) -> None:
    """Walk the chain from here to a device.

    Names the first broken link and its cure.
    """
    key = places.read_key(rpc_key)
    if key is None and device is None:
        raise UserError("device doctor: name the device with --device or --rpc-key")
    if device is not None and (rpc_key is not None or rpc_tracker is not None or adb):
        raise UserError(f"--device {device}: leave --rpc-key, --rpc-tracker and --adb out")
    places.check_limit(rpc_limit)
    place: Place
    if device is not None:
        from deploy.devices.named import named_place

        place = named_place(device, rpc_limit)  # first: it need not be there
    else:
        tracker = places.read_tracker(rpc_tracker)
        from deploy.devices.session import Farm

        place = Farm(tracker, key or "", call_limit_s=rpc_limit, wait_s=rpc_limit)
    from deploy.devices.doctor import diagnose

    findings = []
    for finding in diagnose(place, target=target, threads=threads, phone=adb):
        findings.append(finding)
        if not as_json:
            print(f"{finding.link:<14}{finding.state:<8}{finding.detail}", flush=True)
    if as_json:
        print_json([asdict(finding) for finding in findings])
    if findings[-1].state == "broken":
        raise WorkError(f"{findings[-1].link}: {findings[-1].detail}")
    say("every link holds")


@app.command()
def emulate(
    rpc_key: OwnKey = None,
    rpc_tracker: places.Tracker = None,
    setup_only: Annotated[
        bool, typer.Option("--setup-only", help="Download and unpack the machine, do not start.")
    ] = False,
) -> None:
    """Run an emulated 64-bit ARM device.

    For correctness only: its latencies mean nothing.
    """
    from deploy.devices import emulated

    folder = emulated.default_folder()
    if not emulated.is_set_up(folder):
        with step("setting up the emulated device") as progress:
            emulated.set_up(folder, progress.at)
    if setup_only:
        print(folder)
        return
    where = places.read_tracker(rpc_tracker)
    key = places.read_key(rpc_key) or emulated.KEY
    say(f"emulated device with key {key} for the tracker {where}; its latencies mean nothing")
    emulated.run_server(folder, where, key)


def _listen_address(host: str, port: int, allow_remote: bool) -> Address:
    address = Address(host, port)
    if not address.loopback and not allow_remote:
        raise UserError(
            f"--host {host} lets other machines connect, and who connects can run anything here; "
            "add --allow-remote if that is meant, or use an SSH tunnel (docs/guides/phone.md)"
        )
    if allow_remote and address.loopback:
        raise UserError("--allow-remote needs --host: the address that others connect to")
    return address


def _reach(address: Address) -> str:
    if address.loopback:
        return ", for this machine only"
    return f"; WARNING: whoever reaches {address.host} can run any program here, a key is no secret"
