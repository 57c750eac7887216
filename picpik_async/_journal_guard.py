"""Who may use a journal's file: one process at a time, its owner alone, and only where locks and syncs hold."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import weakref
from pathlib import Path
from typing import Final

from picpik_async._files import flush_folder
from picpik_async.errors import JournalError, legible

__all__ = ["Lock", "create_private", "kind_of_file_system", "mounts", "refuse_links", "refuse_network"]

# Another machine may have the same file open, so that the lock, or the shared memory of SQLite's WAL, does not keep it
# out; or a sync returns before the bytes are on a disk. As /proc/self/mountinfo spells them.
NETWORK_FILE_SYSTEMS: Final = frozenset(
    {
        # locks are advisory, emulated or lost when the server restarts
        "nfs",
        "nfs4",
        "afs",
        "coda",
        "ncpfs",
        # Windows shares: locks are mandatory or not passed on, syncs depend on the server
        "cifs",
        "smb3",
        "smbfs",
        # folders of a host shown to its guest: locks do not reach the host
        "9p",
        "vboxsf",
        "prl_fs",
        "vmhgfs",
        "fuse.vmhgfs-fuse",
        # storage of a cluster: shared memory is not shared between its machines
        "beegfs",
        "ceph",
        "fuse.ceph",
        "fuse.glusterfs",
        "glusterfs",
        "gfs2",
        "gpfs",
        "lustre",
        "ocfs2",
        "orangefs",
        "pvfs2",
        # object stores and remote shells: whole files are uploaded some time later, and locks are local
        "fuse.gcsfuse",
        "fuse.goofys",
        "fuse.juicefs",
        "fuse.rclone",
        "fuse.s3fs",
        "fuse.sshfs",
    }
)
_ESCAPE: Final = re.compile(r"\\([0-7]{3})")
_LONGEST_PID: Final = 20
_MOUNTS: Final = Path("/proc/self/mountinfo")


def mounts(source: Path = _MOUNTS) -> str:
    """What is mounted where, as Linux tells.

    Raises:
        JournalError: it does not.
    """
    try:
        return os.fsdecode(source.read_bytes())
    except OSError as error:
        msg = (
            f"journals work on Linux only, with /proc: {source} cannot be read ({error.strerror}), and so nobody knows"
            " whether a file is on a local disk; mount /proc, or go without a journal"
        )
        raise JournalError(msg) from None


def kind_of_file_system(folder: Path, mountinfo: str) -> str | None:
    """The type of the file system *folder* is on.

    Args:
        folder: absolute, without symbolic links.
        mountinfo: text of `/proc/self/mountinfo`.

    Returns:
        Such as `ext4`, or None if no mount is named for it.
    """
    kind, longest = None, -1
    for line in mountinfo.splitlines():
        mount, _, source = line.partition(" - ")
        point = Path(_ESCAPE.sub(lambda match: chr(int(match[1], 8)), mount.split(" ")[4]))
        if len(point.parts) >= longest and folder.is_relative_to(
            point
        ):  # of two at one place, the later hides the other
            kind, longest = source.partition(" ")[0], len(point.parts)
    return kind


def refuse_network(path: Path, mountinfo: str) -> None:
    """Refuse a file on a network file system.

    Raises:
        JournalError: it is on one.
    """
    kind = kind_of_file_system(path.parent, mountinfo)
    if kind in NETWORK_FILE_SYSTEMS:
        msg = (
            f"journal {legible(path)}: it is on a network file system ({kind}), where neither locks nor syncs hold what they"
            " promise; give a path on a local disk"
        )
        raise JournalError(msg, path=str(path))


def refuse_links(path: Path) -> None:
    """Refuse a file that has more than one name, for a lock beside one of them keeps nobody out who uses another.

    Raises:
        JournalError: it has.
    """
    if path.exists() and path.stat().st_nlink > 1:
        msg = (
            f"journal {legible(path)}: the file has another name, too (a hard link), by which others could use it at the same"
            " time; remove that name, or go on with a copy"
        )
        raise JournalError(msg, path=str(path))


def create_private(path: Path) -> None:
    """Make sure that there is a file at *path*; a new one is its owner's alone, and survives a loss of power.

    Raises:
        OSError: there is none, and none can be made; or it cannot be written.
    """
    try:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        os.close(os.open(path, os.O_RDWR | os.O_CLOEXEC))
        return
    os.close(file)
    flush_folder(path.parent)


class Lock:
    """The right to use a journal, kept until `release` or the end of the process, however it ends.

    Args:
        path: the journal's file; the lock is a file beside it, which is never deleted, for a lock on a deleted file
            keeps nobody out.

    Raises:
        JournalError: another process, or another journal of this one, has it.
        OSError: the file beside it cannot be made.
    """

    def __init__(self, path: Path) -> None:
        beside = path.with_name(f"{path.name}.lock")
        self._file: int | None = os.open(beside, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        with contextlib.ExitStack() as stack:
            stack.callback(self.release)
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise _in_use(path, os.pread(self._file, _LONGEST_PID, 0).strip()) from None
            stack.pop_all()
        _locks.add(self)
        with contextlib.suppress(OSError):  # on a full disk; it only helps those who are kept out
            os.ftruncate(self._file, 0)
            os.pwrite(self._file, b"%d\n" % os.getpid(), 0)

    def release(self) -> None:
        """Let others use the journal."""
        file, self._file = self._file, None
        if file is not None:
            os.close(file)


def _in_use(path: Path, holder: bytes) -> JournalError:
    who = f"process {int(holder)}" if holder.isdigit() else "another process"
    if holder == b"%d" % os.getpid():
        who = "another session of this process"
    msg = f"journal {legible(path)} is in use by {who}; close that one first, or give this one a journal of its own"
    return JournalError(msg, path=str(path))


_locks: weakref.WeakSet[Lock] = weakref.WeakSet()


def _let_go() -> None:
    """In a forked child: it would keep the lock beyond the end of its parent."""
    for lock in list(_locks):
        lock.release()


os.register_at_fork(after_in_child=_let_go)
