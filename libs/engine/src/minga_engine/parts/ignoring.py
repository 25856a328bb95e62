"""Which files of a folder are left out: gitignore's rules, the defaults first and then those of its `.mingaignore`.

The file is read in the folder's root only. The last rule that matches an entry decides, so `!pattern` brings back what
a default leaves out, but nothing below a folder that is left out itself.
"""

import errno
import os
import re
import stat
from collections.abc import Sequence
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
MAX_KNOWN_FOLDERS = 1_000
"""Folders of which it is kept whether they are ignored."""
_UNCLEAR_SET = re.compile(r"\[[^]]*(\[|--|&&|\|\||~~|\(\?)")
"""Sets of characters that Python's regular expressions may understand otherwise in future, as `[[:alpha:]]`, or that
look like a group."""
_ANYWHERE = "^(?:.+/)?"
"""With this the expressions of rules without a folder begin."""
_NAMED_GROUP = re.compile(r"\(\?P<\w+>")


class IgnoreRules:
    """The defaults, and the rules of one folder. Paths are relative to it.

    >>> rules = minga.IgnoreRules(b"*.log")
    >>> rules.ignores_file("runs/1.log"), rules.ignores_file("runs/1.csv")
    (True, False)
    """

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
        self._folders: dict[str, bool] = {}
        """Whether folders are ignored, themselves or with one above them."""
        self._spec = GitIgnoreSpec(patterns, backend="simple")
        expressions = [each.regex.pattern for each in patterns if each.regex is not None]
        self._any = _any_of([_NAMED_GROUP.sub("(?:", each) for each in expressions])

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
        return self._ignores_folder(path.rpartition("/")[0]) or self.ignores(path, folder=False)

    def _ignores_folder(self, path: str) -> bool:
        """As `ignores_file`, for a folder; kept, since most files have their folder in common with others."""
        if not path:
            return False
        known = self._folders.get(path)
        if known is None:
            known = self._ignores_folder(path.rpartition("/")[0]) or self.ignores(path, folder=True)
            if len(self._folders) >= MAX_KNOWN_FOLDERS:
                self._folders.clear()
            self._folders[path] = known
        return known


def _any_of(expressions: Sequence[str]) -> re.Pattern[str]:
    """What matches when one of them does. Most files match no rule, which is found out in a fraction of the time."""
    anywhere = [each.removeprefix(_ANYWHERE) for each in expressions if each.startswith(_ANYWHERE)]
    others = [each for each in expressions if not each.startswith(_ANYWHERE)]
    # Folders above are skipped once for all rules that hold in any of them.
    return re.compile("|".join([f"{_ANYWHERE}(?:{'|'.join(anywhere)})", *others]))


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
