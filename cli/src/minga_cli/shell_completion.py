"""Completion in bash and zsh, where typer's own does not do for names of files.

Bash parts words at `:`, `=` and `@` as well (COMP_WORDBREAKS). What it replaces is what follows the last of these, so
that an offer for `minga:da` must be `data/`. Typer gives bash the words as bash parts them, and `minga:data/` as the
offer. In both shells typer has a space follow a folder, inside which one goes on.
"""

import os
import re
import shlex
from dataclasses import dataclass

from typer import _completion_classes, _completion_shared
from typer._click.shell_completion import CompletionItem

# `mapfile`, since an unquoted $(…) would match names with `*` and `[` against files of the current folder.
BASH_SCRIPT = """
%(complete_func)s() {
    mapfile -t COMPREPLY < <(env COMP_LINE="${COMP_LINE:0:COMP_POINT}" COMP_WORDBREAKS="$COMP_WORDBREAKS" \\
        %(autocomplete_var)s=complete_bash "$1")
    # One goes on inside a folder.
    [[ ${#COMPREPLY[@]} == 1 && ${COMPREPLY[0]} == */ ]] && compopt -o nospace
    return 0
}

complete -o default -F %(complete_func)s %(prog_name)s
"""
ZSH_SCRIPT = """
#compdef %(prog_name)s

%(complete_func)s() {
  eval "$(env _TYPER_COMPLETE_ARGS="${words[1,$CURRENT]}" %(autocomplete_var)s=complete_zsh %(prog_name)s)"
}

compdef %(complete_func)s %(prog_name)s
"""
_SPECIAL = re.compile(r"""([\s"'\\$`&;()<>|*?\[\]{}~#!])""")


@dataclass(frozen=True, slots=True)
class Typed:
    """A command line up to the cursor."""

    words: list[str]
    """As the command gets them; the last one is being typed, and may be empty."""
    kept: int
    """Characters of the last word that bash leaves as they are."""
    quote: str
    """The quotation mark that is open; empty outside of quotes."""


def parse_line(line: str, breaks: str) -> Typed:
    """Split as bash does. breaks: characters that part words for completion alone, if they are not quoted."""
    words, word, kept, quote, escaped = [], "", 0, "", False
    in_word = False
    for char in line:
        if escaped:
            word, escaped = word + char, False
        elif char == "\\" and quote != "'":
            escaped = in_word = True
        elif char == quote:
            quote = ""
        elif char in "\"'" and not quote:
            quote, in_word, kept = char, True, len(word)
        elif char.isspace() and not quote:
            words += [word] if in_word else []
            word, kept, in_word = "", 0, False
        else:
            word, in_word = word + char, True
            kept = len(word) if char in breaks and not quote else kept
    return Typed([*words, word], kept, quote)


class BashComplete(_completion_classes.BashComplete):
    """What bash is offered."""

    source_template = BASH_SCRIPT

    def get_completion_args(self) -> tuple[list[str], str]:
        """The words before the cursor's, and that one."""
        self._typed = parse_line(os.environ["COMP_LINE"], os.environ["COMP_WORDBREAKS"])
        return self._typed.words[1:-1], self._typed.words[-1]

    def format_completion(self, item: CompletionItem) -> str:
        """The part of an offer that bash puts in place of what was typed last."""
        offer = str(item.value)[self._typed.kept :]
        return offer if self._typed.quote else _SPECIAL.sub(r"\\\1", offer)


class ZshComplete(_completion_classes.ZshComplete):
    """What zsh evaluates."""

    source_template = ZSH_SCRIPT

    def complete(self) -> str:
        """Names, with nothing behind a folder; commands and options as typer shows them, with their help."""
        items = self.get_completions(*self.get_completion_args())
        if not items or any(item.help for item in items):
            return super().complete()
        offers = [str(item.value) for item in items]
        folders = [offer for offer in offers if offer.endswith("/")]
        files = [offer for offer in offers if not offer.endswith("/")]
        return f"compadd -S '' -- {shlex.join(folders)}; compadd -- {shlex.join(files)}"


def use_in_typer() -> None:
    """Replace typer's own. Before the first command is made."""
    _completion_classes.BashComplete = BashComplete  # type: ignore[misc]
    _completion_classes.ZshComplete = ZshComplete  # type: ignore[misc]
    _completion_shared._completion_scripts |= {"bash": BASH_SCRIPT, "zsh": ZSH_SCRIPT}
