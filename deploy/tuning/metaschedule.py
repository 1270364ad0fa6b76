"""MetaSchedule's search for loops that no kernel of ours covers.

Its own database, one folder for each loop nest, target, number of threads and version of TVM, is
the memory of an interrupted search. What it finds becomes a tuning record only after it has been
timed inside the network (deploy.tuning.tune).
"""

import hashlib
import logging
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

import tvm
from tvm import s_tir
from tvm.ir.utils import derived_object
from tvm.s_tir import meta_schedule as ms

from deploy.cpu.passes.schedule_fallback import workload_key
from deploy.target import Target
from lut.errors import UserError
from lut.files import write_atomic

BATCH = 16  # candidates that are chosen, built and run together
_INTRINSICS = "tvm.s_tir.tensor_intrin"
_FILES = ("database_workload.json", "database_tuning_record.json")
# Of evolved schedules, before each batch: a fifth of the default, whose choice takes longer than
# building and running what was chosen.
_POPULATION = 100
_TIMEOUT_S = 120  # the first run of a worker imports TVM


@dataclass(frozen=True)
class Found:
    """The fastest schedule of a search, as MetaSchedule's trace in JSON (None if none ran), and how
    many candidates were tried now."""

    trace: Any
    tried: int


def search(
    function: tvm.tirx.PrimFunc,
    target: Target,
    folder: Path,
    *,
    threads: int,
    limit: int,
    budget: int,
    early_stopping: int,
    on_tried: Callable[[int], None] = lambda _: None,
) -> Found:
    """Search schedules of one loop nest, up to `budget` candidates now and `limit` in all.

    It ends early when the last `early_stopping` candidates brought nothing faster. What `folder`
    holds of an earlier search counts towards the limit and is built upon.
    """
    work = folder / "metaschedule" / _folder_name(function, target, threads)
    database = _open_database(work)
    module = tvm.IRModule({"main": s_tir.renew_defs(function).with_attr("global_symbol", "main")})
    workload = database.commit_workload(module)
    device = tvm.target.Target({**target.config, "num-cores": threads})
    model = ms.cost_model.XGBModel(num_tuning_cores=threads)
    tried = without_gain = 0
    runner = None
    while without_gain < early_stopping:
        known = len(database.get_all_tuning_records())
        batch = min(BATCH, limit - known, budget - tried)
        if batch <= 0:
            break
        runner = runner or _runner(threads)
        before = _best_seconds(database, workload)
        ms.tune.tune_tasks(
            tasks=[_context(module, device, threads)],
            task_weights=[1.0],
            work_dir=str(work),
            max_trials_global=batch,
            num_trials_per_iter=batch,
            builder=_InProcessBuilder(),
            runner=runner,
            database=database,
            cost_model=model,
            measure_callbacks=[
                ms.measure_callback.AddToDatabase(),
                ms.measure_callback.RemoveBuildArtifact(),
                ms.measure_callback.UpdateCostModel(),
            ],
        )
        now = len(database.get_all_tuning_records()) - known
        if now == 0:  # the space of this nest is exhausted
            break
        tried += now
        without_gain = 0 if _best_seconds(database, workload) < before else without_gain + now
        on_tried(tried)
    best = database.get_top_k(workload, 1)
    return Found(_plain(best[0].trace.as_json()) if len(best) else None, tried)


def _folder_name(function: tvm.tirx.PrimFunc, target: Target, threads: int) -> str:
    parts = (workload_key(function), target.key, str(threads), version("apache-tvm"))
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:24]


def _open_database(work: Path) -> Any:  # noqa: ANN401
    try:
        work.mkdir(parents=True, exist_ok=True)
        for name in _FILES:
            content = (work / name).read_bytes() if (work / name).exists() else b""
            # What a crash cut off in the middle of a line, TVM would not read past.
            if not content.endswith(b"\n"):
                whole = content[: content.rfind(b"\n") + 1]
                write_atomic(work / name, whole.decode())
        return ms.database.JSONDatabase(work_dir=str(work))
    except (OSError, UnicodeDecodeError, RuntimeError, ValueError) as error:
        line = (str(error).strip().splitlines() or [type(error).__name__])[-1][:150]
        raise UserError(f"{work}: not a search that can go on ({line}); delete it") from error


def _best_seconds(database: Any, workload: Any) -> float:  # noqa: ANN401
    best = database.get_top_k(workload, 1)
    return min((float(second) for second in best[0].run_secs), default=1e10) if len(best) else 1e10


def _context(module: tvm.IRModule, device: Any, threads: int) -> Any:  # noqa: ANN401
    space = ms.space_generator.PostOrderApply(
        sch_rules="llvm", postprocs="llvm", mutator_probs="llvm"
    )
    strategy = ms.search_strategy.EvolutionarySearch(
        population_size=_POPULATION, init_min_unmeasured=_POPULATION // 4
    )
    quiet = logging.getLogger("hmseg.metaschedule")
    quiet.addHandler(logging.NullHandler())
    quiet.propagate = False
    with _without_tensor_intrinsics():
        return ms.TuneContext(
            mod=module,
            target=device,
            space_generator=space,
            search_strategy=strategy,
            num_threads=threads,
            logger=quiet,
        )


@contextmanager
def _without_tensor_intrinsics() -> Iterator[None]:
    """TuneContext imports all tensor intrinsics, whose parsing takes from 30 s to minutes; the
    rules for plain vectors use none of them."""
    if _INTRINSICS in sys.modules:
        yield
        return
    sys.modules[_INTRINSICS] = ModuleType(_INTRINSICS)
    try:
        yield
    finally:
        del sys.modules[_INTRINSICS]


def _runner(threads: int) -> Any:  # noqa: ANN401
    """Runs candidates in a process of its own, which they may crash."""

    def set_threads() -> None:
        os.environ["TVM_NUM_THREADS"] = str(threads)

    timing = ms.runner.EvaluatorConfig(number=1, repeat=5, min_repeat_ms=10)
    return ms.runner.LocalRunner(
        timeout_sec=_TIMEOUT_S, evaluator_config=timing, initializer=set_threads
    )


@derived_object
class _InProcessBuilder(ms.builder.PyBuilder):  # type: ignore[misc]
    """Builds here: the stock builder starts new processes for every batch, and each imports TVM
    and all tensor intrinsics before it builds anything."""

    def build(self, build_inputs: list[Any]) -> list[Any]:
        return [self._build(each) for each in build_inputs]

    def _build(self, each: Any) -> Any:  # noqa: ANN401
        folder = Path(tempfile.mkdtemp(prefix="hmseg-"))  # RemoveBuildArtifact takes it away
        path = folder / "candidate.tar"
        try:
            tvm.compile(each.mod, target=each.target).export_library(
                str(path), fcompile=tvm.support.tar.tar
            )
        except Exception as error:  # a candidate may fail anywhere in the compiler
            shutil.rmtree(folder)
            return ms.builder.BuilderResult(None, str(error)[:500])
        return ms.builder.BuilderResult(str(path), None)


def _plain(value: Any) -> Any:  # noqa: ANN401
    """TVM's containers and numbers as those of JSON."""
    if value is None or isinstance(value, bool | float):
        return value
    if isinstance(value, str):
        return str(value)
    if isinstance(value, int):
        return int(value)
    if hasattr(value, "value"):  # IntImm, FloatImm
        return value.value
    if hasattr(value, "items"):
        return {str(key): _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value]
