"""Can this stage be restored instead of run? Asked before anything has been restored.

`dvc repro` looks a stage up in its run cache by a hash of command, parameters and the hashes of its inputs. In a chain
(put a parameter back, and everything after it comes from the cache) the inputs of the second stage are not in the
workspace yet; but the run-cache entry of the first says what they will be. Beside lockfile.py, the only file that uses DVC's
private functions; dvc is pinned exactly, and tests/flows checks that what is foreseen here is what `dvc repro` then does.
"""

import os
from pathlib import Path

from dvc.dependency import Dependency, ParamsDependency
from dvc.fs import localfs
from dvc.output import Output
from dvc.stage import Stage
from dvc.stage.cache import _get_cache_hash
from dvc.stage.serialize import to_single_stage_lockfile
from dvc_data.hashfile.build import build
from dvc_data.hashfile.hash_info import HashInfo
from dvc_data.hashfile.meta import Meta
from dvc_data.hashfile.tree import Tree


def overlaps(dep: Output, out: Output) -> bool:
    """Whether one path is the other, or lies inside it."""
    return bool(localfs.overlaps(dep.fs_path, out.fs_path))


def foreseen_hash(dep: Dependency, restored: list[Output]) -> HashInfo:
    """The hash `dep` will have once these outputs, all of which overlap it, are checked out."""
    for out in restored:
        if out.fs_path == dep.fs_path:
            return out.hash_info
        if localfs.isin(dep.fs_path, out.fs_path):
            return _inside(dep, out)
    tree = Tree()
    for key, meta, found in _workspace(dep):
        path = localfs.join(dep.fs_path, *key)
        if not any(localfs.isin_or_eq(path, out.fs_path) for out in restored):
            tree.add(key, meta, found)
    for out in restored:
        prefix = localfs.relparts(out.fs_path, dep.fs_path)
        content = out.get_obj()
        entries = content if isinstance(content, Tree) else [((), out.meta, out.hash_info)]
        for key, meta, found in entries:
            tree.add((*prefix, *key), meta, found)
    tree.digest()
    return tree.hash_info


def foreseen_outs(stage: Stage, deps: dict[str, HashInfo]) -> list[Output] | None:
    """The outputs that can be checked out, or None if the stage has to run.

    Those that dvc.lock names, or else those of the run cache: a dvc.lock from another machine, where other bytes came out of
    the same inputs, names what is in no cache here, and `dvc repro` would look no further. deps: for each dependency by path,
    parameters included, the hash it will have when the stage is reached.
    """
    if not _may_restore(stage):
        return None
    if is_as_locked(stage, deps) and _are_cached(stage.outs):
        return list(stage.outs)
    outs = _newest_entry(stage, deps)
    return outs if outs and _are_cached(outs) else None


def is_as_locked(stage: Stage, deps: dict[str, HashInfo]) -> bool:
    """Whether dvc.lock says what the stage makes of these inputs."""
    known = not stage.changed_stage() and all(out.hash_info for out in stage.outs)
    return known and all(deps[dep.fs_path] == dep.hash_info for dep in stage.deps)


def _are_cached(outs: list[Output]) -> bool:
    return not any(out.changed_cache() for out in outs if out.use_cache)


def work_of(stage: Stage, deps: dict[str, HashInfo]) -> str:
    """The name under which DVC's run cache keeps what the stage makes of these inputs."""
    locked = [(dep, dep.hash_info, dep.meta) for dep in stage.deps]
    for dep in stage.deps:
        dep.hash_info = deps[dep.fs_path]
        if not isinstance(dep, ParamsDependency):
            dep.meta = Meta(isdir=dep.hash_info.isdir, isexec=localfs.isfile(dep.fs_path) and os.access(dep.fs_path, os.X_OK))
    name = str(_get_cache_hash(to_single_stage_lockfile(stage), key=True))
    for dep, hash_info, meta in locked:
        dep.hash_info, dep.meta = hash_info, meta
    return name


def _newest_entry(stage: Stage, deps: dict[str, HashInfo]) -> list[Output] | None:
    key = work_of(stage, deps)
    cache = stage.repo.stage_cache
    entries = sorted(Path(cache._get_cache_dir(key)).glob("*"), key=os.path.getmtime)
    entry = cache._load_cache(key, entries[-1].name) if entries else None
    return list(cache._create_stage(entry, wdir=stage.wdir).outs) if entry else None


def _may_restore(stage: Stage) -> bool:
    """DVC keeps no run of a stage without inputs or outputs, or with a persistent or a remote one."""
    if stage.is_callback or stage.always_changed or stage.frozen or not stage.deps or not stage.outs:
        return False
    return all(dep.protocol == "local" for dep in stage.deps) and all(
        out.protocol == "local" and out.is_in_repo and not out.persist for out in stage.outs
    )


def _inside(dep: Dependency, out: Output) -> HashInfo:
    """Hash of a file or folder within a restored folder."""
    content = out.get_obj()
    found = content.get_obj(out.cache, localfs.relparts(dep.fs_path, out.fs_path)) if isinstance(content, Tree) else None
    return found.hash_info if found else HashInfo()


def _workspace(dep: Dependency) -> Tree:
    """What lies in the folder now, by content."""
    if not dep.isdir():
        return Tree()
    _, _, content = build(dep.local_cache, dep.fs_path, dep.fs, dep.hash_name, ignore=dep.dvcignore, dry_run=True)
    return content if isinstance(content, Tree) else Tree()
