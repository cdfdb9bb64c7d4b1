#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Packages that stand alone, LibTorch inside: a .deb (installs in /opt/lockstep) and a tarball (unpack anywhere).
set -euo pipefail

usage() {
  cat <<'TEXT'
Usage: tools/package.sh [--no-install]

Builds the release preset and packs it: build/packages/lockstep_VERSION_ARCH.deb and lockstep-VERSION-Linux.tar.gz.
Each holds the shared libraries of LibTorch (0.4 GB) and Arrow (60 MB) and needs, besides, only what the .deb names as its dependencies.

Example: tools/package.sh && apt-get install ./build/packages/lockstep_*.deb && /opt/lockstep/bin/lockstep --version
TEXT
}

arguments=()
while (($#)); do
  case $1 in
    --no-install) arguments+=(--no-install) ;;
    --help | -h) usage; exit 0 ;;
    *) echo "package: unknown argument '$1'" >&2; usage >&2; exit 2 ;;
  esac
  shift
done

cd "$(dirname "${BASH_SOURCE[0]}")/.."
command -v dpkg-shlibdeps >/dev/null || { echo "package: no dpkg-shlibdeps here (apt-get install dpkg-dev)" >&2; exit 2; }
tools/build.sh "${arguments[@]}" release
rm -rf build/packages
# pack GENERATOR PREFIX: the folder that the package's files are in.
pack() {
  cpack --config build/release/CPackConfig.cmake -G "$1" -D CPACK_PACKAGING_INSTALL_PREFIX="$2" -B build/packages \
    >build/packages.log 2>&1 || { cat build/packages.log >&2; exit 1; }
}
pack DEB /opt/lockstep
pack TGZ "/lockstep-$(sed -n 's/^set(CPACK_PACKAGE_VERSION "\(.*\)")/\1/p' build/release/CPackConfig.cmake)"
rm -rf build/packages/_CPack_Packages
ls -sh build/packages
