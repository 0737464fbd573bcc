"""Files that are written whole or not at all."""

import os
import stat
import tempfile
from pathlib import Path


def write(path: str | os.PathLike, content: str | bytes) -> None:
    """Put the content in the file's place once all of it is on the disk; a failure or a kill leaves the old one.

    A link stays a link, and the file keeps its mode.
    """
    file = Path(path).resolve()  # of a link, what it points to
    handle, part = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.", suffix=".part")
    try:
        with os.fdopen(handle, "wb") as f:
            f.write(content.encode() if isinstance(content, str) else content)
            f.flush()
            os.fsync(f.fileno())
        os.chmod(part, stat.S_IMODE(file.stat().st_mode) if file.exists() else 0o666 & ~_umask())
        os.replace(part, file)
    except BaseException:
        os.unlink(part)
        raise


def _umask() -> int:
    mask = os.umask(0)  # it can only be read by setting it
    os.umask(mask)
    return mask
