"""Files as containers take them."""

import io
import tarfile
from collections.abc import Mapping


def archive(files: Mapping[str, bytes], *, mode: int = 0o644, user: int = 0, group: int = 0) -> bytes:
    """A tar archive."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode, member.uid, member.gid = len(data), mode, user, group
            tar.addfile(member, io.BytesIO(data))
    return made.getvalue()
