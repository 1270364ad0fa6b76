"""Starts trackers, device servers and clients as copies of one process that has imported TVM, which
takes seconds. Each line of its standard input is a job in JSON; it prints the copy's process id.

tests/deploy/cli/test_device.py starts them as a user does.
"""

import ctypes
import json
import logging
import os
import resource
import signal
import sys
from typing import Any

from tvm.rpc import server as tvm_server
from tvm.rpc import tracker as tvm_tracker

from deploy.cpu import tvm_runtime
from deploy.devices import server, tracker
from deploy.devices.address import LOOPBACK, Address
from deploy.devices.session import Farm, open_session
from tests.deploy.devices.naps import nap

_PR_SET_PDEATHSIG = 1
IMPORTED = (tvm_server, tvm_tracker)


def main() -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the copies
    for line in sys.stdin:
        job = json.loads(line)
        pid = os.fork()
        if not pid:
            _become(job)
            os._exit(0)
        print(pid, flush=True)


def _become(job: dict[str, Any]) -> None:
    """The tracker, a server with a key (ours, or TVM's own), or a client in a kernel that never
    ends; with variables of the environment, on some of the cores, with so many bytes of addresses.
    """
    os.setsid()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    nothing = os.open(os.devnull, os.O_RDWR)
    for number in range(3):
        os.dup2(nothing, number)
    logging.basicConfig(level=logging.CRITICAL)
    os.environ.update(job.get("env", {}))
    if cores := job.get("cores"):
        os.sched_setaffinity(0, cores)
        tvm_runtime._CPUS[:] = cores  # as it would have found them
    if size := job.get("address_space"):
        resource.setrlimit(resource.RLIMIT_AS, (size, size))
    (host, tracker_port), port = job["tracker"], job["port"]
    where = Address(host, tracker_port)
    if job["what"] == "tracker":
        tracker.run_tracker(where)
    elif job["what"] == "server":
        server.serve(where, job["key"], port=port, port_end=port + 100)
    elif job["what"] == "client":
        with open_session(Farm(where, job["key"])) as session:
            nap(session, 3600)
    else:
        tvm_server.PopenRPCServerState(
            LOOPBACK, port, port + 100, tracker_addr=tuple(where), key=job["key"]
        ).thread.join()


if __name__ == "__main__":
    main()
