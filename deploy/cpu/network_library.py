"""A network's library: its kernels' object files, the plan of a frame and the runtime, linked."""

from collections.abc import Mapping

import numpy as np

from deploy.cpu import source
from deploy.cpu.library import PREFIX
from deploy.cpu.link import Tools, compile_c, link_shared, tools_of
from deploy.cpu.loaded import End, Ends
from deploy.cpu.symbols import rename_symbols, renamer
from deploy.graph.ends import LOGITS
from deploy.graph.frame import Frame
from deploy.object_cache import ObjectCache, key_of
from deploy.target import Target
from lut.errors import UserError

# The runtime's object files by key: some 100 KB, the same for every network.
_COMPILED: dict[str, bytes] = {}


def link_network(
    frame: Frame, objects: Mapping[str, bytes], target: Target, cache: ObjectCache | None = None
) -> bytes:
    """The shared library that artifacts hold, for programs and for TVM's servers. Raises UserError
    where there is no C compiler for the target."""
    tools, prefix = tools_of(target), PREFIX
    parts = network_objects(frame, objects, target, prefix, cache, served=True)
    return link_shared(tools, parts, (f"{prefix}_*", "__tvm_ffi_*"))


def frame_ends(frame: Frame) -> Ends:
    """What the library takes and gives: a batch of one image, without its axis. Raises UserError
    for another batch, which would be written behind the memory that a call is given."""
    main = frame.entries["main"]
    scores = frame.entries.get(LOGITS, main)
    ends = main.input, main.output, scores.output
    if any(tensor.shape[:1] != (1,) for tensor in ends):
        raise UserError(f"the network's ends {[t.shape for t in ends]} are no batches of one image")
    input_, output, found = (End(tensor.shape[1:], np.dtype(tensor.dtype).type) for tensor in ends)
    return Ends(input_, output, found)


def network_objects(
    frame: Frame, objects: Mapping[str, bytes], target: Target, prefix: str,
    cache: ObjectCache | None = None, *, served: bool,
) -> list[bytes]:  # fmt: skip
    """All object files of a network's library, whose symbols begin with `prefix`; `served` is
    whether TVM's servers find its entries."""
    tools, rename = tools_of(target), renamer(prefix)
    kernels = [rename_symbols(objects[name], rename) for name in frame.kernels]
    headers = {name: source.runtime_text(name, prefix) for name in source.HEADERS}
    own: dict[str, str | bytes] = {
        "frame.c": source.frame_text(frame, target, prefix),
        "constants.S": source.constants_text(prefix),
        "constants.bin": frame.constants,
    }
    made = compile_c(tools, {**headers, **own}, ("frame.c", "constants.S"))
    runtime = _runtime(tools, prefix, headers, cache, served=served)
    return [*made.values(), *runtime, *kernels]


def _runtime(
    tools: Tools, prefix: str, headers: dict[str, str], cache: ObjectCache | None, *,
    served: bool,
) -> list[bytes]:  # fmt: skip
    names = (*source.SOURCES, *((source.SERVED,) if served else ()))
    files = headers | {name: source.runtime_text(name, prefix) for name in names}
    found = []
    for name in names:
        key = key_of("the runtime's object file", name, tools.key, *files.values())
        data = _COMPILED.get(key) or (None if cache is None else cache.get(key))
        if data is None:
            data = compile_c(tools, files, (name,))[name]
            if cache is not None:
                cache.put(key, data)
        _COMPILED[key] = data
        found.append(data)
    return found
