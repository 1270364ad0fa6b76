"""Work spread over the devices behind one key; what a lost device was doing is done by another."""

import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import TypeVar

from deploy.devices.session import DeviceLostError, Farm, RemoteSession, open_session
from deploy.devices.tracker import require_key
from lut.errors import HmsegError

Item = TypeVar("Item")
Result = TypeVar("Result")

TRIES = 3  # of one item, each on a device afresh
_RETURN_S = 30.0  # in which a device or a tracker that was restarted is back


def spread(
    farm: Farm,
    items: Sequence[Item],
    work: Callable[[RemoteSession, Item], Result],
    *,
    on_result: Callable[[Item, Result], None] = lambda _item, _result: None,
    on_lost: Callable[[str], None] = lambda _: None,
) -> list[Result]:
    """Do `work` on every item, on as many devices as have the key; results in the items' order.

    `on_result` is called for each item as it is done, one at a time: what it saves is not lost
    when a later item fails. An item whose device is lost (`on_lost` is told how) goes to the next
    free one, at most `TRIES` times. Raises what `work` raises, after the items that are under way.
    """
    devices = len(require_key(farm.tracker, farm.key).devices)
    queue = deque(enumerate(items))
    tries = [0] * len(items)
    results: dict[int, Result] = {}
    failures: list[Exception] = []
    lock = threading.Lock()

    def next_item() -> tuple[int, Item] | None:
        with lock:
            return None if failures or not queue else queue.popleft()

    def serve_one_device() -> None:
        patience_s = 0.0  # before the first device: a wrong address or key is told at once
        while True:
            found = next_item()
            if found is None:
                return
            try:
                with open_session(farm, patience_s=patience_s) as session:
                    patience_s = _RETURN_S
                    while found is not None:
                        index, item = found
                        result = work(session, item)
                        with lock:
                            results[index] = result
                            on_result(item, result)
                        found = next_item()
                return
            except DeviceLostError as error:
                assert found is not None
                with lock:
                    tries[found[0]] += 1
                    if tries[found[0]] >= TRIES:
                        failures.append(error)
                    else:
                        queue.appendleft(found)
                        on_lost(str(error))
            except Exception as error:  # handed to the caller's thread
                with lock:
                    failures.append(error)
                return

    if not items:
        return []
    workers = [
        threading.Thread(target=serve_one_device, daemon=True)
        for _ in range(max(1, min(devices, len(items))))
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    if failures:
        first = next((e for e in failures if not isinstance(e, HmsegError)), failures[0])
        raise first
    return [results[index] for index in range(len(items))]
