"""Models and tokenizers from outside the repository, pinned by content: the params then say which weights were meant."""

from pathlib import Path

from tasks.core.errors import InputError
from tasks.core.files import digest, expand_variables


def pinned(source: str, revision: str | None, namespace: str, name: str, file: str = "params.yaml") -> str:
    """The folder or hub name to load. `revision` is the digest of the folder, or the commit of the hub repository.

    namespace, name: the key of `file` that holds `source`, for the sentence. ${VARIABLES} in a folder are expanded.
    """
    where = f"{file}: {namespace}.{name}"
    revision_key = "revision" if name == "source" else f"{name}_revision"
    folder = Path(expand_variables(source, where))
    if not folder.is_dir():
        return folder.as_posix()
    actual = digest(folder)
    if revision != actual:
        state = "not pinned" if revision is None else f"not what {revision} was"
        raise InputError(f"{where}: the folder {folder} is {state}; if it is the right one, write `{revision_key}: {actual}`")
    return folder.as_posix()
