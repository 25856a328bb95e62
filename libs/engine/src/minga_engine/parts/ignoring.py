"""Which files of a folder are left out: gitignore's rules, the defaults first and then those of its `.mingaignore`.

The file is read in the folder's root only. The last rule that matches an entry decides, so `!pattern` brings back what
a default leaves out, but nothing below a folder that is left out itself.
"""

import errno
import os
import re
import stat
from pathlib import Path

from pathspec import GitIgnoreSpec
from pathspec.patterns.gitignore.spec import GitIgnoreSpecPattern

from minga_engine.parts.files import IGNORE_FILE

DEFAULTS = r"""
# version control
.git
.hg
.svn
.jj
# backups, swap files and locks of editors
*~
.#*
\#*#
.*.sw[a-p]
.~lock.*#
~$*
# what systems leave in folders
.DS_Store
Thumbs.db
desktop.ini
.nfs*
.fuse_hidden*
.Trash-*/
lost+found/
# secrets
.env
.env.*
!.env.example
!.env.sample
!.env.template
.netrc
.ssh/
.gnupg/
.aws/
# downloads of browsers that are not complete
*.crdownload
"""
"""Left out everywhere, unless a rule of the folder says otherwise. Nothing that could be somebody's data: `*.part` is
the name of many a file that is complete."""

MAX_FILE_BYTES = 64 * 1024
MAX_RULES = 1000
"""Bound of the rules that each file is compared with (0.2 µs for a rule)."""
MAX_RULE_LENGTH = 1024
MAX_WILDCARDS = 3
"""`*` in one part of a rule: with each more, a match may take a hundred times as long (5: seconds, for one name)."""
MAX_DOUBLE_WILDCARDS = 2
"""`**` in a rule, for the same reason; one at its end costs nothing."""
_UNCLEAR_SET = re.compile(r"\[[^]]*(\[|--|&&|\|\||~~|\(\?)")
"""Sets of characters that Python's regular expressions may understand otherwise in future, as `[[:alpha:]]`, or that
look like a group."""
_NAMED_GROUP = re.compile(r"\(\?P<\w+>")


class IgnoreRules:
    """The defaults, and the rules of one folder. Paths are relative to it."""

    def __init__(self, data: bytes = b"") -> None:
        """data: the ignore file's bytes."""
        self.data = data
        self.problems: list[str] = []
        """Lines that have no effect, each with the reason."""
        patterns = [GitIgnoreSpecPattern(line) for line in DEFAULTS.splitlines()]
        for number, line in enumerate(os.fsdecode(data).splitlines(), 1):
            if len(patterns) > MAX_RULES:
                self.problems.append(f"line {number}: there are more than {MAX_RULES:,} rules")
                break
            try:
                patterns.append(_parsed(line))
            except ValueError as error:
                self.problems.append(f"line {number}: {error}")
        self._spec = GitIgnoreSpec(patterns, backend="simple")
        # Most files match no rule, which one expression finds out in a quarter of the time.
        expressions = [each.regex.pattern for each in patterns if each.regex is not None]
        self._any = re.compile("|".join(_NAMED_GROUP.sub("(?:", each) for each in expressions))

    @classmethod
    def of_folder(cls, folder: Path) -> "IgnoreRules":
        """The rules of a folder; the defaults alone when it has no ignore file.

        Blocking. Raises OSError when the ignore file cannot be read, is no regular file, or has over MAX_FILE_BYTES.
        """
        try:
            descriptor = os.open(folder / IGNORE_FILE, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        except FileNotFoundError:
            return cls()
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise OSError(errno.EINVAL, "not a regular file")
            if status.st_size > MAX_FILE_BYTES:
                raise OSError(errno.EFBIG, f"it has more than {MAX_FILE_BYTES // 1024} KiB")
            return cls(os.pread(descriptor, MAX_FILE_BYTES, 0))
        finally:
            os.close(descriptor)

    def ignores(self, path: str, *, folder: bool) -> bool:
        """Whether an entry of a folder that is not ignored is ignored."""
        entry = path + "/" if folder else path
        return self._any.match(entry) is not None and self._spec.match_file(entry)

    def ignores_file(self, path: str) -> bool:
        """Whether a file is ignored, itself or with a folder above it."""
        above = path.rpartition("/")[0]
        folders = [above] if above else []
        while "/" in above:
            above = above.rpartition("/")[0]
            folders.append(above)
        return any(self.ignores(folder, folder=True) for folder in reversed(folders)) or self.ignores(
            path, folder=False
        )


def _parsed(line: str) -> GitIgnoreSpecPattern:
    """A line's rule, whose `regex` is None for a comment. Raises ValueError, in words for people."""
    if len(line) > MAX_RULE_LENGTH:
        raise ValueError(f"it has more than {MAX_RULE_LENGTH:,} characters")
    parts = line.rstrip().removesuffix("/**").split("/")
    if sum("**" in part for part in parts) > MAX_DOUBLE_WILDCARDS:
        raise ValueError(f"`**` more than {MAX_DOUBLE_WILDCARDS} times")
    if any(part.count("*") > MAX_WILDCARDS for part in parts):
        raise ValueError(f"`*` more than {MAX_WILDCARDS} times between two /")
    if _UNCLEAR_SET.search(line):
        raise ValueError("a set of characters with [, --, &&, ||, ~~ or (? in it")
    try:
        pattern = GitIgnoreSpecPattern(line)
    except (ValueError, re.error) as error:
        raise ValueError("this is no rule of gitignore") from error
    if pattern.regex is None and line.strip() and not line.startswith("#"):
        raise ValueError("this is no rule of gitignore")
    return pattern
