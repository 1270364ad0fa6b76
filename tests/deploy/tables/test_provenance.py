from datetime import datetime
from importlib.metadata import version

from deploy.backends import backend_of
from deploy.tables.provenance import TOOLS, now, provenance_now
from deploy.targets import resolve_target
from tests.deploy.tables.fakes import INFO

TARGET = resolve_target("x86-64-v3")


def test_what_is_measured_now():
    found = provenance_now(INFO, TARGET, {}, "calls", tools=("torch",), others={"openvino": "1"})
    own = backend_of(TARGET)
    wanted = {"torch": version("torch"), "openvino": "1"} | INFO.versions | own.versions()
    assert found.versions == wanted
    assert (found.cpu, found.cores, found.emulated) == (INFO.cpu, INFO.cores, INFO.emulated)
    assert (found.schedules, found.protocol) == ("rule", "calls")
    assert found.kernels_version == own.kernels_version
    assert datetime.fromisoformat(found.date).tzinfo is not None
    assert found == provenance_now(INFO, TARGET, {}, "calls", tools=("torch",),
                                   others={"openvino": "1"})  # fmt: skip
    assert set(provenance_now(INFO, TARGET, {}, "calls").versions) >= set(TOOLS)
    assert provenance_now(INFO, TARGET, {"conv": {"tile": 4}}, "calls").schedules != "rule"
    assert now().endswith("+00:00")
