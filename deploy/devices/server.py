"""The server of a device: TVM's own, kept alive, and able to say what machine it is.

    python -m deploy.devices.server --tracker 127.0.0.1:9190 --key arm

TVM's server gives up for good when a session's process crashes; this one starts it again. A session
runs in a process of its own, which dies with the server.
"""

import argparse
import ctypes
import logging
import multiprocessing
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import FrameType, ModuleType

from deploy.cpu.tvm_runtime import pinning, size_pool
from deploy.devices.address import LOOPBACK, Address, parse_address
from deploy.devices.describe import FUNCTION, SIZE_POOL, describe
from deploy.devices.sockets import Connection, hang_up, open_sockets

PORTS = (9090, 9199)
_PR_SET_PDEATHSIG = 1
_SILENT_S = 3.5  # until a connection must have said whose it is; it is looked at twice a second
_PAUSE_S = 1.0  # before a server that failed is started again

log = logging.getLogger("hmseg.device")


def serve(
    tracker: Address,
    key: str,
    *,
    host: str = LOOPBACK,
    port: int = PORTS[0],
    port_end: int = PORTS[1],
    advertise: str | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT, under the first free port from `port` on.

    The tracker hands out the address that it sees, or `advertise`. Runs whatever a client sends:
    bind only to loopback, or to a network that you trust.
    """
    # TVM's pool is never larger than this, and by itself it takes half of an x86 machine's cores.
    os.environ.setdefault("TVM_NUM_THREADS", str(len(os.sched_getaffinity(0))))
    # A session's process has what this one registered, and its hooks, only where it is forked.
    multiprocessing.set_start_method("fork", force=True)
    import tvm_ffi
    from tvm.rpc.server import PopenRPCServerState

    tvm_ffi.register_global_func(FUNCTION, describe)
    tvm_ffi.register_global_func(SIZE_POOL, partial(_size_pool, tvm_ffi))
    signal.signal(signal.SIGTERM, _leave)
    signal.signal(signal.SIGINT, _leave)
    threading.excepthook = lambda args: log.warning("%s", args.exc_value)
    logging.getLogger("RPCServer").setLevel(logging.WARNING)
    bound, folder = [0], Path.cwd()
    os.register_at_fork(after_in_child=lambda: _session_process(bound[0]))
    while True:
        state = PopenRPCServerState(
            host, port, port_end, tracker_addr=tuple(tracker), key=key, custom_addr=advertise
        )
        log.info("key %s, serving at %s:%d, tracker %s", key, host, state.port, tracker)
        bound[0] = state.port
        seen: dict[tuple[int, Connection], float] = {}
        while state.thread.is_alive():
            state.thread.join(0.5)
            _drop_silent(state.port, seen)
        state.sock.close()
        os.chdir(folder)  # it was in that session's temporary folder
        log.warning("the server stopped; starting it again")
        time.sleep(_PAUSE_S)


def _drop_silent(port: int, seen: dict[tuple[int, Connection], float]) -> None:
    """End connections that do not say within `_SILENT_S` whose they are: TVM's server waits for one
    after the other. `seen` says since when each is open; a session's, in a process of its own, may
    be as long as it likes."""
    now = time.monotonic()
    waiting = set() if _has_session() else {each for each in open_sockets() if _is_at(port, each)}
    for known in seen.keys() - waiting:
        del seen[known]
    for descriptor, connection in waiting:
        if now - seen.setdefault((descriptor, connection), now) > _SILENT_S:
            log.warning("a connection from %s said nothing; it is dropped", connection.peer[0])
            with suppress(OSError):
                hang_up(descriptor, port)


def _is_at(port: int, socket: tuple[int, Connection]) -> bool:
    return socket[1].local_port == port


def _has_session() -> bool:
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def _size_pool(ffi: ModuleType, threads: int) -> str:
    size_pool(ffi, threads)
    return pinning(threads)


def _session_process(port: int) -> None:
    """What a session's process does first: it dies with the server, and with its client.

    Else a kernel that never ends would hold the device after either is gone.
    """
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    threading.Thread(target=_die_with_client, args=(port,), daemon=True).start()


def _die_with_client(port: int) -> None:
    clients = [fd for fd, name in open_sockets() if name.local_port == port]
    poll = select.poll()
    for client in clients:
        poll.register(client, select.POLLRDHUP)
    if clients:
        poll.poll()
        time.sleep(_PAUSE_S)  # time for a session that ends by itself to do so
        os._exit(0)


def _leave(number: int, _frame: FrameType | None) -> None:
    # At once: threads of TVM's may be inside C code, and sessions die by themselves.
    os._exit(130 if number == signal.SIGINT else 0)


def main(arguments: Sequence[str]) -> None:
    """The command line for a machine that has TVM's Python package and this source only, as the
    emulated one; it listens on loopback. `hmseg-deploy device serve` can do more."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--tracker", type=parse_address, required=True)
    parser.add_argument("--key", required=True)
    parser.add_argument("--port", type=int, default=PORTS[0])
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    serve(options.tracker, options.key, port=options.port)


if __name__ == "__main__":
    main(sys.argv[1:])
