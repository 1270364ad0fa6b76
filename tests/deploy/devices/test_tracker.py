"""What a tracker is asked; tests/deploy/devices/test_network.py asks a real one."""

from tvm.rpc import base

from deploy.devices import tracker


def test_the_numbers_are_those_of_tvm():
    assert base.RPC_TRACKER_MAGIC == tracker._MAGIC
    codes = base.TrackerCode
    assert (tracker._SUCCESS, tracker._REQUEST, tracker._SUMMARY) == (
        codes.SUCCESS, codes.REQUEST, codes.SUMMARY,
    )  # fmt: skip
