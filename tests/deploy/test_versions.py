"""One real tuning trial: a wrong pair of apache-tvm and apache-tvm-ffi crashes in it."""

import subprocess
import sys
from importlib.metadata import version

TRIAL = """
import sys
import tempfile
import types

# Tuning parses the tensor intrinsics of every device, most of a minute; this target has none.
name = "tvm.s_tir.tensor_intrin"
sys.modules[name] = types.ModuleType(name)

import numpy as np
import tvm
from tvm import te
from tvm.s_tir import meta_schedule as ms
from tvm.ir.utils import derived_object

n = 16
a, b = (te.placeholder((n, n), name=name) for name in "ab")
k = te.reduce_axis((0, n), name="k")
c = te.compute((n, n), lambda i, j: te.sum(a[i, k] * b[k, j], axis=k), name="c")
module = tvm.IRModule({"main": te.create_prim_func([a, b, c])})
target = tvm.target.Target({"kind": "llvm", "mcpu": "x86-64-v2", "num-cores": 1})


# In this process: the stock builder's workers parse for half a minute and then time out.
@derived_object
class Builder(ms.builder.PyBuilder):
    def build(self, inputs):
        return [self._one(i, one) for i, one in enumerate(inputs)]

    def _one(self, index, one):
        # In a folder of its own: MetaSchedule removes the folder once it has measured.
        path = f"{tempfile.mkdtemp(dir=sys.argv[1])}/candidate-{index}.so"
        tvm.compile(one.mod, target=one.target).export_library(path)
        return ms.builder.BuilderResult(path, None)


@derived_object
class Future(ms.runner.PyRunnerFuture):
    def __init__(self, seconds):
        super().__init__()
        self.seconds = seconds

    def done(self):
        return True

    def result(self):
        return ms.runner.RunnerResult(self.seconds, None)


@derived_object
class Runner(ms.runner.PyRunner):
    def run(self, inputs):
        return [Future(self._one(one)) for one in inputs]

    def _one(self, one):
        rng = np.random.default_rng(0)
        x, y = (rng.random((n, n), dtype=np.float32) for _ in range(2))
        arrays = [tvm.runtime.tensor(v) for v in (x, y, np.zeros((n, n), np.float32))]
        library = tvm.runtime.load_module(one.artifact_path)
        library["main"](*arrays)
        np.testing.assert_allclose(arrays[2].numpy(), x @ y, rtol=1e-4)
        timed = library.time_evaluator("main", tvm.cpu(), number=1, repeat=3)(*arrays)
        return [float(t) for t in timed.results]


database = ms.tune_tir(
    module, target, work_dir=sys.argv[1], max_trials_global=1, num_trials_per_iter=1,
    builder=Builder(), runner=Runner(), cost_model="xgb", num_tuning_cores=1, seed=0,
)
records = database.get_all_tuning_records()
print(len(records), min(float(s) for s in records[0].run_secs) > 0)
"""


def test_one_tuning_trial(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", TRIAL, str(tmp_path)], capture_output=True, text=True, check=False
    )
    pair = f"apache-tvm {version('apache-tvm')}, apache-tvm-ffi {version('apache-tvm-ffi')}"
    assert done.returncode == 0, f"{pair}: {done.stderr[-2000:]}"
    assert done.stdout.splitlines()[-1] == "1 True"
    assert (tmp_path / "database_tuning_record.json").stat().st_size > 100


def test_the_pins_of_the_project_are_what_is_installed():
    import tomllib
    from pathlib import Path

    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    pins = dict(d.split("==") for d in project["project"]["dependencies"] if "==" in d)
    assert set(pins) == {"torch", "apache-tvm", "apache-tvm-ffi"}
    for package, pinned in pins.items():
        assert version(package).partition("+")[0] == pinned
