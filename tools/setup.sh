#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Brings what Lockstep needs to build, and nothing that is already there: system packages (Debian, Ubuntu; as root), and
# LibTorch and Apache Arrow in the project's own .venv. Safe to repeat, and to run twice at the same time.
set -euo pipefail
export LC_ALL=C  # apt's messages and sort's order

readonly torch_version=2.13.0
readonly arrow_version=26.0.1  # of pyarrow, whose wheel holds Arrow's C++ libraries and headers
readonly min_cmake=3.25
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
readonly root venv="$root/.venv"
readonly unfinished="$venv/lockstep-unfinished"  # there from the first moment of making .venv to the last
readonly lock="$root/build/.setup.lock"

usage() {
  cat <<'TEXT'
Usage: tools/setup.sh [--cuda] [--no-install] [--print-prefix]

Finds or installs what Lockstep needs, says what it does and how much it downloads, and prints CMake's prefix path.

  --cuda          take torch's CUDA build (3 GB with NVIDIA's libraries, 7 GB on disk; it needs a driver to run on GPUs, and no
                  CUDA toolkit to build)
  --no-install    install nothing; report what is missing (exit code 2 if anything is)
  --print-prefix  print only the CMake prefix path; installs nothing
  --help          this text

System packages come through apt when run as root; elsewhere the missing ones are named for apt, dnf, modules and conda.
LibTorch is the one that the environment names, 2.11 or newer, untouched; without, torch==2.13.0 from pip in .venv.
Apache Arrow, with which tables are read, is the one that the environment names or the system has; without, that of
pyarrow==26.0.1 from pip in .venv (55 MB).

Environment
  LOCKSTEP_TORCH_ROOT           a LibTorch of yours: the folder that holds include/ and lib/, such as site-packages/torch
  CMAKE_PREFIX_PATH, Torch_DIR  with such a folder, or that of its CMake package
  LOCKSTEP_TORCH_INDEX          the pip index to take torch from: give the index of PyTorch's CPU wheels that pytorch.org
                                names; without it, pip's own configuration decides, which often means the CUDA build
  LOCKSTEP_ARROW_ROOT           an Arrow C++ of yours: the folder that holds include/ and its libraries, such as
                                site-packages/pyarrow
  LOCKSTEP_ARROW=OFF            build without tables: no Arrow is needed

Exit codes: 0 all there, 1 something failed, 2 something is missing and yours to install.
Example: tools/setup.sh && cmake --preset release -DCMAKE_PREFIX_PATH="$(tools/setup.sh --print-prefix)"
TEXT
}

say() { printf 'setup: %s\n' "$*"; }
fail() { printf 'setup: error: %s\n' "$@" >&2; exit 1; }
needs_you() { printf 'setup: %s\n' "$@" >&2; exit 2; }

# ---------------------------------------------------------------------------------------------- what is there, what is not

# at_least 3.25.1 3.25: is the first version the second or newer?
at_least() { [[ $(printf '%s\n%s\n' "$2" "$1" | sort -V | head -n 1) == "$2" ]]; }

# The entries of CMAKE_PREFIX_PATH, a line each; ':' and ';' both separate.
prefix_entries() { sed 's/[:;]/\n/g; /^$/d' <<<"${CMAKE_PREFIX_PATH:-}"; }

has_compiler() {
  local compiler=${CXX:-$(command -v c++ || command -v g++ || true)}
  [[ -n $compiler ]] || return 1
  # CXX may carry a launcher or flags.
  # shellcheck disable=SC2086
  printf '#include <compare>\n#include <concepts>\n#include <span>\nint main() { return 0; }\n' |
    $compiler -std=c++20 -x c++ -fsyntax-only - >/dev/null 2>&1
}

has_cmake() {
  local version
  version=$(cmake --version 2>/dev/null | sed -n '1s/[^0-9]*\([0-9.]*\).*/\1/p') && [[ -n $version ]] &&
    at_least "$version" "$min_cmake"
}

has_ninja() { command -v ninja >/dev/null || command -v ninja-build >/dev/null; }

has_mpi() { command -v mpicc >/dev/null && { command -v mpirun || command -v mpiexec; } >/dev/null; }

# has_library spdlog spdlog/spdlog.h [...]: one of the headers is where compilers look, or <name>_DIR says where it is.
has_library() {
  local name=$1 directory header
  shift
  for directory in "$(printenv "${name}_DIR")" "$(printenv "${name}_ROOT")"; do
    [[ -n $directory && -d $directory ]] && return 0
  done
  while read -r directory; do
    for header in "$@"; do
      [[ -f $directory/$header ]] && return 0
    done
  done < <(
    printf '%s\n' /usr/include /usr/local/include
    [[ -z ${CONDA_PREFIX:-} ]] || printf '%s\n' "$CONDA_PREFIX/include"
    prefix_entries | sed 's|$|/include|'
    tr ':' '\n' <<<"${CPATH:-}:${CPLUS_INCLUDE_PATH:-}" | sed '/^$/d'
  )
  return 1
}

# The first Python that can make a virtual environment for this torch (which wants 3.10 or newer).
find_python() {
  local candidate
  for candidate in python3 python3.13 python3.12 python3.11 python3.10 python3.14; do
    if "$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 10))' >/dev/null 2>&1; then
      command -v "$candidate"
      return 0
    fi
  done
  return 1
}

# What CMake looks for, one row each: the check | what it is | apt | dnf | conda-forge | usual module
readonly needs=(
  "has_compiler|a C++20 compiler|g++|gcc-c++|gxx|gcc"
  "has_cmake|CMake $min_cmake or newer|cmake|cmake|cmake|cmake"
  "has_ninja|Ninja|ninja-build|ninja-build|ninja|ninja"
  "has_mpi|MPI (mpicc, mpirun)|mpich libmpich-dev|mpich-devel|mpich|mpich"
  "has_library spdlog spdlog/spdlog.h|spdlog|libspdlog-dev|spdlog-devel|spdlog|spdlog"
  "has_library yaml-cpp yaml-cpp/yaml.h|yaml-cpp|libyaml-cpp-dev|yaml-cpp-devel|yaml-cpp|yaml-cpp"
  "has_library CLI11 CLI/CLI.hpp|CLI11|libcli11-dev|cli11-devel|cli11|cli11"
  "has_library nlohmann_json nlohmann/json.hpp|nlohmann-json|nlohmann-json3-dev|json-devel|nlohmann_json|nlohmann_json"
  "has_library JPEG jpeglib.h|libjpeg (libjpeg-turbo)|libjpeg-dev|libjpeg-turbo-devel|libjpeg-turbo|libjpeg-turbo"
  "has_library PNG png.h|libpng|libpng-dev|libpng-devel|libpng|libpng"
  "has_library ZLIB zlib.h|zlib|zlib1g-dev|zlib-devel|zlib|zlib"
  "has_library Catch2 catch2/catch_all.hpp catch2/catch.hpp|Catch2 (tests)|catch2|catch-devel|catch2|catch2"
)
readonly need_python="find_python|Python 3.10 or newer with venv (to fetch LibTorch)|python3 python3-venv|python3|python|python"

missing=()  # rows of the table
find_missing() {
  local row check
  missing=()
  for row in "${needs[@]}" "$@"; do
    IFS=' ' read -ra check <<<"${row%%|*}"
    "${check[@]}" >/dev/null || missing+=("$row")
  done
}

# column 3: that column of every missing row, on one line.
column() { printf '%s\n' "${missing[@]}" | cut -d '|' -f "$1" | paste -sd ' '; }

# --------------------------------------------------------------------------------------------------- the LibTorch of the user

readonly torch_header=include/torch/headeronly/version.h

# Sets own_torch to the folder of the LibTorch that the environment names, as cmake/FindLibTorch.cmake does; empty when it
# names none.
own_torch=
find_own_torch() {
  local entry
  if [[ -n ${LOCKSTEP_TORCH_ROOT:-} ]]; then
    [[ -f $LOCKSTEP_TORCH_ROOT/$torch_header ]] ||
      fail "LOCKSTEP_TORCH_ROOT=$LOCKSTEP_TORCH_ROOT has no $torch_header." "Name the folder of a LibTorch, or unset it."
    own_torch=$(cd "$LOCKSTEP_TORCH_ROOT" && pwd)
    return
  fi
  if [[ -n ${Torch_DIR:-} ]]; then
    [[ -f $Torch_DIR/../../../$torch_header ]] ||
      fail "Torch_DIR=$Torch_DIR is no folder .../share/cmake/Torch of a LibTorch." "Name one, or unset it."
    own_torch=$(cd "$Torch_DIR/../../.." && pwd)
    return
  fi
  while read -r entry; do
    if [[ -f $entry/$torch_header ]]; then
      own_torch=$entry
      return
    elif [[ -f $entry/../../$torch_header ]]; then
      own_torch=$(cd "$entry/../.." && pwd)
      return
    fi
    [[ -d $entry ]] || say "note: CMAKE_PREFIX_PATH names $entry, which does not exist" >&2
  done < <(prefix_entries)
}

own_torch_version() {
  sed -n 's/^#define TORCH_VERSION_\(MAJOR\|MINOR\|PATCH\) \([0-9]*\).*/\2/p' "$own_torch/$torch_header" | paste -sd .
}

# ----------------------------------------------------------------------------------------------------- the Arrow of the user

# Sets needs_arrow: whether .venv has to have one.
needs_arrow=yes
find_own_arrow() {
  if [[ ${LOCKSTEP_ARROW:-} == OFF ]]; then
    needs_arrow=no
  elif [[ -n ${LOCKSTEP_ARROW_ROOT:-} ]]; then
    [[ -f $LOCKSTEP_ARROW_ROOT/include/arrow/util/config.h && -f $LOCKSTEP_ARROW_ROOT/include/parquet/parquet_version.h ]] ||
      fail "LOCKSTEP_ARROW_ROOT=$LOCKSTEP_ARROW_ROOT has no include/arrow and include/parquet." \
        "Name the folder of an Arrow C++ with Parquet, or unset it."
    needs_arrow=no
  elif has_library Arrow arrow/api.h && has_library Parquet parquet/arrow/reader.h; then
    needs_arrow=no
  fi
}

# --------------------------------------------------------------------------------------------------- the LibTorch of .venv

site_packages() { find "$venv"/lib/python3*/site-packages -maxdepth 0 -type d 2>/dev/null | head -n 1; }

# torch_field __version__: that value of torch/version.py in .venv, without its quotes; without importing torch.
torch_field() {
  sed -n "s/^$1\(: [^=]*\)\? = '\?\([^']*\)'\?\$/\2/p" "$(site_packages)/torch/version.py" 2>/dev/null | head -n 1
}

# damaged_file PACKAGE VERSION PATTERN FILE: the first file of the package's C++ side (PATTERN) in .venv that is not there
# in the size that pip noted when it was done; a word on what else is wrong, such as no FILE among them; nothing when it
# is whole.
damaged_file() (
  record=$(find "$(site_packages)" -maxdepth 2 -path "*/$1-$2*.dist-info/RECORD" 2>/dev/null | head -n 1)
  if [[ -z $record ]]; then echo "pip's RECORD of $1"; return; fi
  cd "$(site_packages)"
  # RECORD is CSV with CRLF line ends: path,hash,size.
  recorded=$(tr -d '\r' <"$record" | awk -F, -v pattern="$3" '$1 ~ pattern && $3 != "" { print $3, $1 }' | sort)
  found=$(cut -d ' ' -f 2- <<<"$recorded" | xargs -d '\n' stat -L -c '%s %n' 2>/dev/null | sort) || true
  if [[ $recorded != *"$4"* ]]; then echo "$4 in $record"; return; fi
  comm -23 <(echo "$recorded") <(echo "$found") | cut -d ' ' -f 2- | sed -n 1p
)
damaged_torch_file() { damaged_file torch "$torch_version" '^torch/(lib|include|share)/' torch/share/cmake/Torch/TorchConfig.cmake; }
damaged_arrow_file() { damaged_file pyarrow "$arrow_version" '^pyarrow/(include/|lib[^/]*[.]so[.0-9]*$)' pyarrow/libparquet.so; }

# Whether .venv has Arrow, where it has to: ready or missing.
arrow_state() {
  if [[ $needs_arrow == no ]]; then
    echo ready
  elif [[ -e $unfinished || ! -d $(site_packages)/pyarrow || -n $(damaged_arrow_file) ]]; then
    echo missing
  else
    echo ready
  fi
}

is_cpu_build() { [[ $(torch_field cuda) == None && $(torch_field hip) == None ]]; }

# What .venv is: ready, absent, no-torch (usable, without this torch), other (the CPU build, where --cuda asks for another),
# or half-made.
venv_state() {
  local version
  if [[ ! -e $venv ]]; then echo absent; return; fi
  if [[ -e $unfinished ]]; then echo half-made; return; fi
  version=$(torch_field __version__)
  if [[ ${version%%+*} == "$torch_version" ]]; then
    if [[ -n $(damaged_torch_file) ]]; then
      echo half-made
    elif [[ $cuda == yes ]] && is_cpu_build; then
      echo other
    else
      echo ready
    fi
  elif "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
    echo no-torch
  else
    echo half-made
  fi
}

# What pip would bring for torch, before anything large moves: "<build> <MB>"; build is cpu or the name of the first
# accelerator package that the wheel depends on. Prints nothing when this pip cannot tell.
pip_plan() {
  local report=$venv/lockstep-pip-report.json
  "$venv/bin/python" -m pip install -qq --dry-run --no-deps --report "$report" "${index_option[@]}" \
    "torch==$torch_version" >/dev/null 2>&1 </dev/null || return 0
  "$venv/bin/python" - "$report" <<'PYTHON' 2>/dev/null || true
import json, os, ssl, sys, urllib.parse, urllib.request
from pip._vendor.packaging.requirements import Requirement

torch = json.load(open(sys.argv[1]))["install"][0]
url = torch["download_info"]["url"]
needed = [Requirement(r) for r in torch["metadata"].get("requires_dist", [])]
needed = [r.name for r in needed if r.marker is None or r.marker.evaluate({"extra": ""})]
accelerators = [n for n in needed if n.lower().startswith(("nvidia", "cuda", "triton", "pytorch-triton", "rocm"))]
parts = urllib.parse.urlsplit(url)
size = 0
try:
    if parts.scheme == "file":
        size = os.path.getsize(urllib.parse.unquote(parts.path))
    else:
        context = ssl.create_default_context(cafile=os.environ.get("PIP_CERT"))
        head = urllib.request.Request(url, method="HEAD")
        with urllib.request.urlopen(head, timeout=10, context=context) as answer:
            size = int(answer.headers.get("Content-Length", 0))
except (OSError, ValueError):
    pass
print(accelerators[0] if accelerators else "cpu", round(size / 1e6))
PYTHON
}

readonly -a not_cpu_advice=(
  "That is 3 GB. To take it, for GPUs: tools/setup.sh --cuda."
  "Else set LOCKSTEP_TORCH_INDEX to the index of PyTorch's CPU wheels that pytorch.org names, and run tools/setup.sh again;"
  "or unpack a LibTorch of your choice and name it in LOCKSTEP_TORCH_ROOT."
)

check_free() {  # check_free WHAT MB
  local free_kb
  free_kb=$(df -Pk "$root" | awk 'NR == 2 { print $4 }')
  ((free_kb / 1024 > $2)) || fail "$root has $((free_kb / 1024)) MB free; $1 needs $2 MB."
}

# A .venv without packages; it is called unfinished until what it is made for is in it.
start_venv() {
  local python
  mkdir -p "$venv"
  touch "$unfinished"
  python=$(find_python)
  say "making .venv with $python ($("$python" -c 'import platform; print(platform.python_version())'))"
  "$python" -m venv "$venv" </dev/null || fail "$python cannot make a virtual environment in $venv."
}

make_arrow() {
  local log=$venv/lockstep-pip.log
  check_free "Apache Arrow" 400
  trap 'echo "setup: stopped; the next run puts .venv right" >&2; exit 130' INT TERM
  if [[ ! -e $venv || -e $unfinished ]]; then  # LibTorch is elsewhere
    rm -rf "$venv"
    start_venv
  fi
  say "pip install pyarrow==$arrow_version (Apache Arrow): downloads 55 MB, takes 170 MB on disk"
  local quiet=(-qq)
  [[ ! -t 1 ]] || quiet=()
  # What is half there is not what pip takes it for.
  if ! "$venv/bin/python" -m pip install "${quiet[@]}" --disable-pip-version-check --no-input --no-deps --force-reinstall \
      --only-binary :all: "pyarrow==$arrow_version" </dev/null 2> >(tee "$log" >&2); then
    fail "pip could not install pyarrow==$arrow_version (its messages are above and in .venv/lockstep-pip.log)." \
      "No network: name an Arrow C++ in LOCKSTEP_ARROW_ROOT, or build without tables: LOCKSTEP_ARROW=OFF."
  fi
  rm -f "$unfinished" "$log"
  trap - INT TERM
  [[ $(arrow_state) == ready ]] ||
    fail "pip finished, but pyarrow $arrow_version in $venv is not whole ($(damaged_arrow_file)). Remove .venv and run tools/setup.sh again."
  say "Apache Arrow $arrow_version is in .venv"
}

make_venv() {  # make_venv STATE
  local plan build megabytes log=$venv/lockstep-pip.log
  local needed_mb=1500
  [[ $cuda == no ]] || needed_mb=8000
  check_free LibTorch "$needed_mb"
  if [[ $1 == half-made || $1 == other ]]; then
    local reason="the CPU build"
    if [[ -e $unfinished ]]; then
      reason="half-made: an earlier set-up was stopped"
    elif [[ $1 == half-made ]]; then
      reason="half-made: missing or damaged: $(damaged_torch_file)"
    fi
    say ".venv is $reason; making it again"
    rm -rf "$venv"
  fi
  trap 'echo "setup: stopped; the next run puts .venv right" >&2; exit 130' INT TERM
  [[ $1 == no-torch ]] || start_venv

  index_option=()
  [[ -z ${LOCKSTEP_TORCH_INDEX:-} ]] || index_option=(--index-url "$LOCKSTEP_TORCH_INDEX")
  plan=$(pip_plan)
  read -r build megabytes <<<"${plan:-unknown 0}"
  if [[ $cuda == yes && $build == cpu ]]; then
    [[ ! -e $unfinished ]] || rm -rf "$venv"
    fail "pip would bring the CPU build of torch $torch_version. Nothing was downloaded." \
      "Set LOCKSTEP_TORCH_INDEX to the index of PyTorch's wheels for your CUDA that pytorch.org names."
  fi
  if [[ $cuda == no && $build != cpu && $build != unknown ]]; then
    [[ ! -e $unfinished ]] || rm -rf "$venv"
    fail "pip would bring a torch $torch_version that needs $build: not the CPU build. Nothing was downloaded." \
      "${not_cpu_advice[@]}"
  fi
  ((megabytes > 0)) || megabytes="about 200"
  local more="about 12 MB of small packages, takes 0.9 GB"
  [[ $cuda == no ]] || more="about 2.5 GB of NVIDIA's libraries, takes 7 GB"
  say "pip install torch==$torch_version: downloads $megabytes MB and $more on disk"
  local quiet=(-qq)
  [[ ! -t 1 ]] || quiet=()  # a terminal gets pip's own progress
  if ! "$venv/bin/python" -m pip install "${quiet[@]}" --disable-pip-version-check --no-input "${index_option[@]}" \
      "torch==$torch_version" </dev/null 2> >(tee "$log" >&2); then
    fail "pip could not install torch==$torch_version (its messages are above and in .venv/lockstep-pip.log)." \
      "No network: unpack a LibTorch and name it in LOCKSTEP_TORCH_ROOT, or point LOCKSTEP_TORCH_INDEX to an index you reach." \
      "No matching version: torch $torch_version has wheels for Python 3.10 and newer; .venv has $("$venv/bin/python" -V)."
  fi
  rm -f "$unfinished" "$venv/lockstep-pip-report.json" "$log"
  trap - INT TERM
  case $(venv_state) in
    ready) say "LibTorch $(torch_field __version__) is in .venv" ;;
    other) fail "pip brought torch $(torch_field __version__): the CPU build." ;;
    *) fail "pip finished, but torch $torch_version in $venv is not whole ($(damaged_torch_file)). Remove .venv and run tools/setup.sh again." ;;
  esac
}

# ------------------------------------------------------------------------------------------------------------ system packages

report_missing() {
  local row
  echo "missing:"
  for row in "${missing[@]}"; do
    echo "  - $(cut -d '|' -f 2 <<<"$row")"
  done
  echo "install with one of"
  echo "  apt:     apt-get install $(column 3)"
  echo "  dnf:     dnf install $(column 4)        (then: module load mpi/mpich-\$(uname -m))"
  echo "  conda:   conda install -c conda-forge $(column 5)"
  echo "  modules: module load $(column 6)        (names vary: module avail)"
  echo "and run tools/setup.sh again."
}

install_packages() {
  local packages download
  read -ra packages <<<"$(column 3)"
  command -v ccache >/dev/null || packages+=(ccache)  # optional: makes rebuilds fast
  export DEBIAN_FRONTEND=noninteractive
  local -r options=(-o DPkg::Lock::Timeout=300 --no-install-recommends)
  say "apt-get update"
  apt-get update -qq </dev/null || say "note: apt-get update failed; going on with the package lists that are here"
  download=$(apt-get install --assume-no "${options[@]}" "${packages[@]}" </dev/null 2>/dev/null | grep '^Need to get' || true)
  say "apt-get install ${packages[*]}${download:+ (${download%.})}"
  local log
  log=$(mktemp)
  if ! apt-get install -y "${options[@]}" "${packages[@]}" </dev/null >"$log" 2>&1; then
    cat "$log" >&2
    rm -f "$log"
    fail "apt-get could not install: ${packages[*]} (its messages are above)."
  fi
  rm -f "$log"
}

# ----------------------------------------------------------------------------------------------------------------------- main

cmake_prefix() {
  local torch prefix entry
  torch=${own_torch:-$(site_packages)/torch/share/cmake}
  prefix=$torch
  while read -r entry; do
    [[ $entry == "$torch" ]] || prefix+=";$entry"
  done < <(prefix_entries)
  echo "$prefix"
}

# One set-up at a time; where the file system has no locks, without.
take_lock() {
  mkdir -p "$root/build"
  exec 9>"$lock"
  command -v flock >/dev/null || return 0
  flock -n 9 || {
    say "another tools/setup.sh is at work in $root: waiting for it"
    flock 9 || say "note: no file locks here; do not run two set-ups at once"
  }
}

check_all() {  # sets state, arrow and missing
  state=ready
  [[ -n $own_torch ]] || state=$(venv_state)
  arrow=$(arrow_state)
  if [[ $state == absent || $state == half-made || $state == other || ($arrow != ready && ! -e $venv) ]]; then
    find_missing "$need_python"
  else
    find_missing
  fi
}

main() {
  local install=yes print=no state arrow
  cuda=no
  while (($#)); do
    case $1 in
      --cuda) cuda=yes ;;
      --no-install) install=no ;;
      --print-prefix) print=yes ;;
      --help | -h) usage; exit 0 ;;
      *) printf "setup: unknown argument '%s' (--cuda, --no-install, --print-prefix, --help)\n" "$1" >&2; exit 2 ;;
    esac
    shift
  done

  find_own_torch
  find_own_arrow
  if [[ $print == yes ]]; then
    [[ -n $own_torch || $(venv_state) == ready ]] || needs_you "no LibTorch here yet: run tools/setup.sh"
    cmake_prefix
    exit 0
  fi

  check_all
  if ((${#missing[@]})); then
    if [[ $install == no ]]; then needs_you "$(report_missing)"; fi
    if ((EUID != 0)); then needs_you "not root, so no system package can be installed; nothing was changed." "$(report_missing)"; fi
    if ! command -v apt-get >/dev/null; then needs_you "no apt-get here; nothing was changed." "$(report_missing)"; fi
  fi
  if [[ $state != ready ]]; then
    if [[ $install == no ]]; then
      local size="about 200 MB"
      [[ $cuda == no ]] || size="about 3 GB"
      needs_you "missing: LibTorch $torch_version (.venv is $state). Run tools/setup.sh without --no-install ($size)," \
        "or name a LibTorch of yours in LOCKSTEP_TORCH_ROOT."
    fi
    [[ -w $root ]] || fail "$root is not writable: LibTorch would go to .venv there. Name a LibTorch in LOCKSTEP_TORCH_ROOT."
  fi
  if [[ $arrow != ready ]]; then
    if [[ $install == no ]]; then
      needs_you "missing: Apache Arrow $arrow_version (pyarrow in .venv). Run tools/setup.sh without --no-install (55 MB)," \
        "or name an Arrow C++ of yours in LOCKSTEP_ARROW_ROOT, or build without tables: LOCKSTEP_ARROW=OFF."
    fi
    [[ -w $root ]] || fail "$root is not writable: Apache Arrow would go to .venv there. Name one in LOCKSTEP_ARROW_ROOT."
  fi

  if ((${#missing[@]})) || [[ $state != ready || $arrow != ready ]]; then
    take_lock
    check_all  # another set-up may have done it meanwhile
    ((${#missing[@]} == 0)) || install_packages
    check_all
    ((${#missing[@]} == 0)) || needs_you "installed, but too old or not found:" "$(report_missing)" \
      "(a newer CMake also comes with: pip install cmake)"
    [[ $state == ready ]] || make_venv "$state"
    [[ $(arrow_state) == ready ]] || make_arrow
  else
    say "nothing to do"
  fi
  if [[ -n $own_torch ]]; then
    local version
    version=$(own_torch_version)
    say "LibTorch ${version:-of unknown version} in $own_torch, which the environment names"
    [[ $version == "$torch_version"* ]] || say "note: Lockstep is tested with LibTorch $torch_version"
  fi
  say "CMake prefix path: $(cmake_prefix)"
}

main "$@"
