"""Work spread over the devices of one place; what a lost device was doing is done by another."""

import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import TypeVar

from deploy.devices.place import DeviceSession, Place
from deploy.devices.session import DeviceLostError
from lut.errors import HmsegError

Item = TypeVar("Item")
Result = TypeVar("Result")

TRIES = 3  # of one item, each on a device afresh
_RETURN_S = 30.0  # in which a device or a tracker that was restarted is back


def spread(
    place: Place,
    items: Sequence[Item],
    work: Callable[[DeviceSession, Item], Result],
    *,
    on_result: Callable[[Item, Result], None] = lambda _item, _result: None,
    on_lost: Callable[[str], None] = lambda _: None,
) -> list[Result]:
    """Do `work` on every item, on as many devices as there are; results in the items' order.

    `on_result` is called for each item as it is done, one at a time: what it saves is not lost
    when a later item fails. An item whose device is lost (`on_lost` is told how) goes to the next
    free one, at most `TRIES` times. A device that cannot be had, busy or gone, is done without as
    long as there is another. Raises what `work` raises, after the items that are under way.
    """
    if not items:
        return []
    devices = place.count()
    serving = min(devices, len(items))
    queue = deque(enumerate(items))
    tries = [0] * len(items)
    results: dict[int, Result] = {}
    failures: list[Exception] = []
    lock = threading.Lock()
    ended = False  # the caller was interrupted: nothing is saved any more

    def next_item() -> tuple[int, Item] | None:
        with lock:
            return None if failures or not queue else queue.popleft()

    def work_in(session: DeviceSession) -> None:
        while found := next_item():
            index, item = found
            try:
                result = work(session, item)
            except DeviceLostError as error:
                with lock:
                    tries[index] += 1
                    if tries[index] >= TRIES:
                        failures.append(error)
                    else:
                        queue.appendleft(found)
                        on_lost(str(error))
                return
            with lock:
                if not ended:
                    results[index] = result
                    on_result(item, result)

    def serve_one_device() -> None:
        nonlocal serving
        patience_s = 0.0  # before the first device: a wrong address or key is told at once
        while True:
            with lock:
                if failures or not queue:
                    serving -= 1
                    return
            connected = False
            try:
                # An item is taken with a device in hand: who waits for one holds up nothing.
                with place.open(patience_s) as session:
                    connected, patience_s = True, _RETURN_S
                    work_in(session)
            except Exception as error:  # handed to the caller's thread
                with lock:
                    serving -= 1
                    if connected or (queue and not serving):
                        failures.append(error)
                    elif queue:
                        on_lost(f"{error}; going on without it")
                return

    workers = [threading.Thread(target=serve_one_device, daemon=True) for _ in range(serving)]
    for worker in workers:
        worker.start()
    try:
        for worker in workers:
            worker.join()
    finally:
        with lock:
            ended = True
    if failures:
        first = next((e for e in failures if not isinstance(e, HmsegError)), failures[0])
        raise first
    return [results[index] for index in range(len(items))]
