"""Says what keeps an object alive, for a test that finds it where it should be gone."""

import asyncio
import gc
import types
from typing import Any

DEPTH = 12
_ROOTS = (asyncio.Task, types.FrameType, types.ModuleType, types.GeneratorType, types.CoroutineType)


def held_by(thing: object) -> str:
    """Return the shortest chain of referrers from `thing` to something that lives by itself.

    "PipelineWorker < dict[worker] < CallGraph < Task ...": a task, a frame, a module, or nobody that the collector
    knows of.
    """
    path = {id(thing): type(thing).__name__}
    level: list[object] = [thing]
    for _ in range(DEPTH):
        above: list[object] = []
        for held in level:
            holders = [one for one in gc.get_referrers(held) if one is not level and not _is_search(one)]
            if not holders:
                return f"{path[id(held)]} < nobody"
            for holder in holders:
                if id(holder) in path or holder is above:
                    continue
                path[id(holder)] = f"{path[id(held)]} < {_name(holder, held)}"
                if isinstance(holder, _ROOTS):
                    return path[id(holder)]
                above.append(holder)
            del holders  # or it would be found as one of the next
        if not above:
            break
        level = above
    return f"{path[id(level[0])]} < ..."


def _is_search(holder: object) -> bool:
    return isinstance(holder, types.FrameType) and holder.f_code.co_filename == __file__


def _name(holder: Any, held: object) -> str:
    if isinstance(holder, asyncio.Task):
        return repr(holder)
    if isinstance(holder, types.FrameType):
        return f"frame {holder.f_code.co_qualname}:{holder.f_lineno}"
    if isinstance(holder, types.CoroutineType | types.GeneratorType):
        return f"{type(holder).__name__} {holder.__qualname__}"
    if isinstance(holder, dict):
        keys = [str(key) for key, value in holder.items() if value is held]
        return f"dict[{keys[0][:40]}]" if keys else "dict"
    if isinstance(holder, types.FunctionType | types.MethodType):
        return f"function {holder.__qualname__}"
    return type(holder).__qualname__
