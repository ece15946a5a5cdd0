"""`zone completion`: scripts for shells, and the words those ask for. What is offered is read from the parsers."""

from __future__ import annotations

from argparse import REMAINDER, Namespace

from runtime.host.cli.parsers import Parser, below, command
from runtime.host.cli.terminal import write

EXAMPLES = {
    "bash": """\
examples:
  source <(zone completion bash)           for this shell
  zone completion bash > ~/.local/share/bash-completion/completions/zone
""",
    "zsh": """\
examples:
  source <(zone completion zsh)            for this shell; after compinit
  zone completion zsh > "${fpath[1]}/_zone"
""",
    "fish": """\
examples:
  zone completion fish | source            for this shell
  zone completion fish > ~/.config/fish/completions/zone.fish
""",
}
# Each asks `zone completion words SHELL …` and leaves files to the shell where the answer's first line says :files.
SCRIPTS = {
    "bash": """\
_zone() {
    local IFS=$'\\n' found breaks="${COMP_WORDBREAKS//$'\\n'}" line="${COMP_LINE:0:COMP_POINT}"
    found=($("${COMP_WORDS[0]}" completion words bash -- "$breaks" "$line" 2>/dev/null))
    case ${found[0]-} in
        :files) compopt -o default 2>/dev/null; found=("${found[@]:1}") ;;
        :directories) compopt -o dirnames 2>/dev/null; found=("${found[@]:1}") ;;
    esac
    COMPREPLY=("${found[@]}")
    case ${COMPREPLY[0]-} in *[:/=]) compopt -o nospace 2>/dev/null ;; esac
}
complete -F _zone zone
""",
    "zsh": """\
#compdef zone
_zone() {
    local -a lines words_found shown
    local line kind=""
    lines=("${(@f)$("${words[1]}" completion words zsh -- "${(@)words[2,CURRENT]}" 2>/dev/null)}")
    for line in "${lines[@]}"; do
        case $line in
            "") ;;
            :*) kind=$line ;;
            *) words_found+=("${line%%$'\\t'*}"); shown+=("${line/$'\\t'/  -- }") ;;
        esac
    done
    (( ${#words_found} )) && compadd -l -d shown -a words_found
    case $kind in
        :files) _files ;;
        :directories) _files -/ ;;
    esac
}
if [ "$funcstack[1]" = "_zone" ]; then _zone "$@"; else compdef _zone zone; fi
""",
    "fish": """\
function __zone_words
    set -l tokens (commandline -opc) (commandline -ct)
    for line in ($tokens[1] completion words fish -- $tokens[2..-1] 2>/dev/null)
        switch $line
            case :files
                __fish_complete_path (commandline -ct)
            case :directories
                __fish_complete_directories (commandline -ct)
            case '*'
                echo $line
        end
    end
end
complete -c zone -f -a '(__zone_words)'
""",
}


def fill_completion(parser: Parser) -> None:
    """`completion` and its commands."""
    shells = below(parser)
    for shell in SCRIPTS:
        command(shells, shell, f"Print the script for {shell}.", run=run_script, epilog=EXAMPLES[shell]).set_defaults(
            shell=shell
        )
    words = shells.add_parser("words")  # asked by the scripts, not by people: without help
    words.set_defaults(run=run_words)
    words.add_argument("shell", choices=tuple(SCRIPTS))
    words.add_argument("line", nargs=REMAINDER)


def run_script(arguments: Namespace) -> None:
    """Print a shell's script."""
    write(SCRIPTS[arguments.shell])


def run_words(arguments: Namespace) -> None:
    """Print what could stand at the end of a line, one word a line."""
    from runtime.host.cli.candidates import candidates

    words = arguments.line[1:] if arguments.line[:1] == ["--"] else arguments.line
    cut = 0
    if arguments.shell == "bash":
        breaks, line = words
        words = split(line)[1:]
        cut = cut_at(words[-1], breaks)
    found = candidates(words)
    lines = [f":{found.left_to_shell}"] * bool(found.left_to_shell)
    for word, text in found.words.items():
        shown = word[cut:]
        lines.append(f"{shown}\t{text}" if text and arguments.shell != "bash" else shown)
    write("".join(f"{line}\n" for line in lines))


def split(line: str) -> list[str]:
    """A command line up to the cursor in words, the last of which may be empty or in an open quote."""
    import shlex

    line = line.removesuffix("\\")  # with nothing behind it yet
    for closing in ("", "'", '"'):
        try:
            words = shlex.split(line + closing)
        except ValueError:
            continue
        return [*words, ""] if not closing and (not line or line[-1].isspace()) else words
    return line.split(" ")


def cut_at(word: str, breaks: str) -> int:
    """How much of a word bash keeps before what it replaces: up to the last character it breaks words at."""
    return max((word.rfind(mark) + 1 for mark in breaks if mark in ":=@"), default=0)
