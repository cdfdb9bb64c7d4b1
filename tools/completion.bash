# SPDX-License-Identifier: Apache-2.0
#
# Completion for bash: verbs and flags as `lockstep --help` and `lockstep VERB --help` list them, then files. Installed
# with the command; by hand: source tools/completion.bash

_lockstep() {
  local command=${COMP_WORDS[0]} word=${COMP_WORDS[COMP_CWORD]} verb=${COMP_WORDS[1]}
  COMPREPLY=()
  if ((COMP_CWORD == 1)); then
    mapfile -t COMPREPLY < <(compgen -W "$("$command" --help 2>/dev/null |
      sed -n '/^Subcommands:/,$s/^  \([a-z]*\) .*/\1/p') --help --version" -- "$word")
  elif [[ $word == -* ]]; then
    mapfile -t COMPREPLY < <(compgen -W "$("$command" "$verb" --help 2>/dev/null |
      grep -o -- '--[a-z][a-z-]*' | sort -u)" -- "$word")
  fi
}
complete -o default -F _lockstep lockstep
