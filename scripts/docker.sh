#!/usr/bin/env bash
# Puts a Docker engine into .tools/docker, with a static busybox for an image: Debian's packages, unpacked and not
# installed, for installing them would start services. Does nothing where they are there already.
set -euo pipefail
cd "$(dirname "$0")/.."

works() { # FOLDER
  local libraries
  libraries="$(echo "$1"/usr/lib/*-linux-gnu | tr ' ' :):$(echo "$1"/lib/*-linux-gnu | tr ' ' :)"
  LD_LIBRARY_PATH="$libraries" "$1/usr/sbin/dockerd" --version >/dev/null 2>&1 &&
    LD_LIBRARY_PATH="$libraries" "$1/usr/sbin/runc" --version >/dev/null 2>&1 &&
    "$1/usr/bin/containerd" --version >/dev/null 2>&1 &&
    { "$1/bin/busybox" true 2>/dev/null || "$1/usr/bin/busybox" true 2>/dev/null; }
}
if works .tools/docker; then
  exit 0
fi
for program in apt-get dpkg-deb; do
  command -v "$program" >/dev/null || {
    echo "docker: $program is not there, so that Debian's package docker.io cannot be unpacked" >&2
    exit 1
  }
done

. scripts/apt.sh
mkdir -p .tools
folder="$(mktemp -d .tools/docker.XXXXXX)"
trap 'rm -rf "$folder"' EXIT
packages=(docker.io containerd runc busybox-static libdevmapper1.02.1 libseccomp2)
# As the user who runs this, who alone can write here; not as apt-get's own.
download() { (cd "$folder" && apt-get -qq -o APT::Sandbox::User=root download "${packages[@]}"); }
download 2>/dev/null || {
  "${as_root[@]}" apt-get update -qq # a fresh machine knows no packages yet
  download
}
for package in "$folder"/*.deb; do dpkg-deb -x "$package" "$folder/unpacked"; done
works "$folder/unpacked" || {
  echo "docker: the engine of Debian's package docker.io does not run here" >&2
  exit 1
}
rm -rf .tools/docker
mv "$folder/unpacked" .tools/docker
echo "docker: unpacked into .tools/docker"
