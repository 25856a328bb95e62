"""Rot: bytes of a shared file that change although nothing else shows it."""

from dataclasses import replace

from minga_core.names import Name
from minga_engine.parts.files import Fingerprint
from minga_peer.share.store import ContentStore


async def change_unseen(store: ContentStore, name: str, data: bytes) -> None:
    """Change a file's bytes as a disk does: nothing else shows it. Also of a file that is damaged."""
    file = store.folder.shared_or_damaged(Name(name))
    assert file is not None
    manifest = await store.manifest(file.content_id) if store.held(file.content_id) else None
    path = store.root / file.path
    with path.open("r+b") as opened:
        opened.write(data)
    # No test can put a change time back: the store is made to know the file with the one that it has.
    now = file.changed(Fingerprint.of(path.stat()))
    if manifest is None:
        store.inventory.unshared[file.name] = now
        store.folder.damaged.load([replace(each, file=now) for each in store.folder.damaged if each.file == file])
    else:
        store.inventory.update(put=[now])
        await store.folder.index.write([(now, manifest)])


async def rot(store: ContentStore, name: str, offset: int = 0) -> bytes:
    """Flip a bit of a shared file as a disk does. The bytes that are there now."""
    data = bytearray((store.root / name).read_bytes())
    data[offset] ^= 1
    await change_unseen(store, name, bytes(data))
    return bytes(data)
