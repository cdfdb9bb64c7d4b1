#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Brings what the tests need beside the build: a Python with torch and the packages of tests/oracle/requirements.txt, in
# the project's own .venv; as root iproute2, with which tests/cli/hosts.py makes hosts. Safe to repeat.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
readonly root python="$root/.venv/bin/python" requirements="$root/tests/oracle/requirements.txt"

usage() {
  cat <<'TEXT'
Usage: tools/setup_tests.sh [--no-install]

Installs what the tests against Python import (PyTorch, Hugging Face's transformers, Pillow) in .venv: about 50 MB beside torch, which
tools/setup.sh has put there. Where the build takes a LibTorch of yours, torch comes into .venv for the tests alone.
As root also the system package iproute2 (the command ip), for tests on several hosts, which only root can make.

  --no-install  install nothing; report what is missing (exit code 2 if anything is)
  --help        this text

Another Python that has them: cmake -DLOCKSTEP_ORACLE_PYTHON=PATH.
TEXT
}

say() { printf 'setup_tests: %s\n' "$*"; }
needs_you() { printf 'setup_tests: %s\n' "$@" >&2; exit 2; }

install=yes
while (($#)); do
  case $1 in
    --no-install) install=no ;;
    --help | -h) usage; exit 0 ;;
    *) needs_you "unknown argument '$1' (--no-install, --help)" ;;
  esac
  shift
done

# The first line of requirements.txt that .venv does not have in this version; nothing when all are there.
missing() {
  "$python" - "$requirements" <<'PYTHON'
import importlib.metadata, sys

for line in ["torch", *open(sys.argv[1])]:
    name, _, version = line.partition("#")[0].strip().partition("==")
    try:
        if name and importlib.metadata.version(name) != version and version:
            sys.exit(print(f"{name}=={version}"))
    except importlib.metadata.PackageNotFoundError:
        sys.exit(print(f"{name}=={version}" if version else name))
PYTHON
}

if ((EUID == 0)) && ! command -v ip >/dev/null; then
  [[ $install == yes ]] || needs_you "missing: ip (package iproute2), for the tests. Run tools/setup_tests.sh without --no-install."
  command -v apt-get >/dev/null || needs_you "missing: ip (package iproute2 or iproute), for the tests, and no apt-get here."
  say "apt-get install iproute2"
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends iproute2 </dev/null >/dev/null ||
    needs_you "apt-get could not install iproute2 (its messages are above)."
fi
if [[ ! -x $python || $(missing) == torch ]]; then
  [[ $install == yes ]] || needs_you "missing: .venv with torch, for the tests. Run tools/setup_tests.sh without --no-install."
  env -u CMAKE_PREFIX_PATH -u Torch_DIR "$root/tools/setup.sh"
fi
wanted=$(missing)
if [[ -z $wanted ]]; then
  say "nothing to do"
  exit 0
fi
[[ $install == yes ]] || needs_you "missing in .venv: $wanted, for the tests. Run tools/setup_tests.sh without --no-install."
say "pip install $wanted: downloads about 50 MB with what it needs"
"$python" -m pip install -qq --disable-pip-version-check --no-input -r "$requirements" </dev/null ||
  needs_you "pip could not install $wanted (its messages are above)."
[[ -z $(missing) ]] || needs_you "pip finished, but $(missing) is not there."
