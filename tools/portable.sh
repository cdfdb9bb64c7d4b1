#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# A folder that runs on a machine that has Python's torch and nothing else of ours: a GPU node without root.
set -euo pipefail

readonly most_glibc=2.35 most_libstdcxx=3.4.30 most_mib=60

usage() {
  cat <<TEXT
Usage: tools/portable.sh [--torch VERSION]

Builds Lockstep with torch VERSION (default: the one of .venv, or that LOCKSTEP_TORCH_ROOT names; else it is brought from
pip, 3 GB for a CUDA build) and packs it without LibTorch: build/portable/lockstep-torchVERSION, and a .tar.gz of it.
It reads no tables (LOCKSTEP_ARROW=OFF): Arrow alone would be 60 MiB.
The folder has the command, MPICH with its launcher, and what these need. It runs where there is
  - a torch of the same minor version that python3 sees, or a LibTorch that LOCKSTEP_TORCH_ROOT names, of any build
  - glibc $most_glibc or newer (Ubuntu 22.04, Debian 12), and a driver for GPUs

Example: tools/portable.sh --torch 2.11.0
There:   lockstep-torch2.11.0/lockstep doctor
         lockstep-torch2.11.0/mpirun -n 2 lockstep-torch2.11.0/lockstep verify lockstep-torch2.11.0/configs/quickstart.yaml
TEXT
}

version=
while (($#)); do
  case $1 in
    --torch) version=${2:?--torch needs a version}; shift ;;
    --help | -h) usage; exit 0 ;;
    *) printf "portable: unknown argument '%s'\n" "$1" >&2; usage >&2; exit 2 ;;
  esac
  shift
done
fail() { printf 'portable: error: %s\n' "$@" >&2; exit 1; }

cd "$(dirname "${BASH_SOURCE[0]}")/.."
export LOCKSTEP_ARROW=OFF
if [[ -n $version ]]; then
  LOCKSTEP_TORCH_ROOT=$(tools/test-other-torch.sh --bring "$version")
  export LOCKSTEP_TORCH_ROOT
else
  tools/setup.sh --no-install
fi
torch=$(tools/setup.sh --print-prefix)
torch=${torch%%;*}
[[ -d $torch/lib ]] || torch=$(cd "$torch/../.." && pwd)
version=$(sed -n 's/^#define TORCH_VERSION_\(MAJOR\|MINOR\|PATCH\) \([0-9]*\).*/\2/p' \
  "$torch/include/torch/headeronly/version.h" | paste -sd .)
readonly build=build/portable/build-$version folder=build/portable/lockstep-torch$version
mkdir -p build/portable
cmake --preset release -B "$build" -DLOCKSTEP_TORCH_ROOT="$torch" -DLOCKSTEP_ARROW=OFF -DLOCKSTEP_TESTS=OFF -DCMAKE_SKIP_RPATH=ON >"build/portable/configure.log" ||
  { cat build/portable/configure.log >&2; exit 1; }
cmake --build "$build" --target lockstep_command --parallel "${LOCKSTEP_JOBS:-$(nproc)}"

rm -rf "$folder"
mkdir -p "$folder/bin" "$folder/lib/ucx"
cp "$build/lockstep" "$(command -v mpiexec.hydra)" "$(command -v hydra_pmi_proxy)" "$folder/bin"
cp -L "$build/liblockstep.so.0" "$folder/lib"
modules=$(dirname "$(ldconfig -p | sed -n 's/.*libucs\.so\.0 .*=> //p' | head -n 1)")/ucx
if [[ -d $modules ]]; then  # transports that UCX loads by name; InfiniBand's would bring its own world
  find "$modules" -name 'libuct_cma.so.0' -exec cp -L {} "$folder/lib/ucx" \;
fi
# What they need, but what every machine has and what torch brings or needs itself.
readonly there='^(linux-vdso|ld-linux-.*|libc|libm|libdl|librt|libpthread|libresolv|libutil|libgcc_s|libstdc\+\+|liblockstep)\.so'
packages=$(dirname "$torch")
readonly packages
while :; do
  missing=$(LD_LIBRARY_PATH="$folder/lib:$torch/lib" ldd "$folder"/bin/* "$folder"/lib/*.so* "$folder"/lib/ucx/* 2>/dev/null |
    awk '$2 == "=>" && $3 ~ /^\// { print $1, $3 }' | sort -u | grep -Ev "$there" | grep -Fv " $packages/" |
    while read -r name path; do [[ -e $folder/lib/$name ]] || echo "$path $name"; done || true)
  [[ -n $missing ]] || break
  while read -r path name; do cp -L "$path" "$folder/lib/$name"; done <<<"$missing"
done
cc -O2 -shared -fPIC -o "$folder/lib/cuda_counts.so" tools/bench/cuda_counts.c  # for gpu_bench.py: no compiler there
strip --strip-unneeded "$folder"/bin/* "$folder"/lib/*.so* "$folder"/lib/ucx/*
cp -r configs LICENSE "$folder"
for file in gpu_bench gpu_torch measuring; do install -D "tools/bench/$file.py" "$folder/tools/bench/$file.py"; done

{
  printf '#!/bin/sh\nbuilt=%s\n' "${version%.*}"
  cat <<'SCRIPT'
# The command, with the LibTorch that LOCKSTEP_TORCH_ROOT names, or else that of python3.
here=$(cd "$(dirname "$0")" && pwd)
torch=${LOCKSTEP_TORCH_ROOT:-$(python3 -c 'import importlib.util as u; print(u.find_spec("torch").submodule_search_locations[0])' 2>/dev/null)}
if [ ! -e "$torch/lib/libtorch_cpu.so" ]; then
  echo "lockstep: no LibTorch: python3 sees no torch, or LOCKSTEP_TORCH_ROOT names a folder without lib/libtorch_cpu.so" >&2
  exit 2
fi
found=$(sed -n "s/^__version__ = '\([0-9]*\.[0-9]*\)\..*/\1/p" "$torch/version.py" 2>/dev/null)
if [ -n "$found" ] && [ "$found" != "$built" ]; then
  echo "lockstep: this was built with torch $built, and $torch is $found: install torch $built, or name a LibTorch $built in LOCKSTEP_TORCH_ROOT" >&2
  exit 2
fi
LOCKSTEP_TORCH_ROOT=$torch LD_LIBRARY_PATH=$torch/lib:$here/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
export LOCKSTEP_TORCH_ROOT LD_LIBRARY_PATH
exec "$here/bin/lockstep" "$@"
SCRIPT
} >"$folder/lockstep"
cat >"$folder/mpirun" <<'SCRIPT'
#!/bin/sh
# MPICH's launcher. Without a list of hosts it starts its ranks here, and needs no ssh for that.
here=$(cd "$(dirname "$0")" && pwd)
LD_LIBRARY_PATH=$here/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH} UCX_MODULE_DIR=$here/lib/ucx
export LD_LIBRARY_PATH UCX_MODULE_DIR
case " $* " in
  *" -f "* | *" -hosts "* | *" -host "* | *" -hostfile "* | *" -launcher "*) ;;
  *) set -- -launcher fork "$@" ;;
esac
exec "$here/bin/mpiexec.hydra" "$@"
SCRIPT
chmod +x "$folder/lockstep" "$folder/mpirun"

# newest PREFIX: the newest version of such symbols that any of these files asks for.
newest() {
  find "$folder/bin" "$folder/lib" -type f -exec objdump -T {} + | sed -n "s/.*($1_\([0-9.]*\)).*/\1/p" | sort -Vu | tail -n 1
}
at_most() { [[ $(printf '%s\n%s\n' "$1" "$2" | sort -V | tail -n 1) == "$2" ]]; }
glibc=$(newest GLIBC) libstdcxx=$(newest GLIBCXX)
at_most "$glibc" "$most_glibc" || fail "it would need glibc $glibc; $most_glibc is promised. Build on an older system."
at_most "$libstdcxx" "$most_libstdcxx" || fail "it would need libstdc++ $libstdcxx; $most_libstdcxx is promised."
mib=$(du -sm --apparent-size "$folder" | cut -f 1)
((mib <= most_mib)) || fail "$folder has $mib MiB; $most_mib are promised."
tar -C build/portable -czf "$folder.tar.gz" "$(basename "$folder")"
echo "portable: $folder: $mib MiB, needs torch ${version%.*}, glibc $glibc; packed: $(du -m "$folder.tar.gz" | cut -f 1) MiB"
