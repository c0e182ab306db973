#!/usr/bin/env bash
# Puts prometheus and promtool into .tools/prometheus: Debian's package, unpacked and not installed, for
# installing it would start a server on all interfaces. Does nothing where both are there already.
set -euo pipefail
cd "$(dirname "$0")/.."

unpacked=.tools/prometheus/usr/bin
there() { command -v "$1" >/dev/null || "$unpacked/$1" --version >/dev/null 2>&1; }
if there prometheus && there promtool; then
  exit 0
fi
for program in apt-get dpkg-deb; do
  command -v "$program" >/dev/null || {
    echo "prometheus: $program is not there, so that Debian's package prometheus cannot be unpacked" >&2
    exit 1
  }
done

. scripts/apt.sh
mkdir -p .tools
folder="$(mktemp -d .tools/prometheus.XXXXXX)"
trap 'rm -rf "$folder"' EXIT
# As the user who runs this, who alone can write here; not as apt-get's own.
download() { (cd "$folder" && apt-get -qq -o APT::Sandbox::User=root download prometheus); }
download 2>/dev/null || {
  "${as_root[@]}" apt-get update -qq # a fresh machine knows no packages yet
  download
}
dpkg-deb -x "$folder"/prometheus_*.deb "$folder/unpacked"
for program in prometheus promtool; do "$folder/unpacked/usr/bin/$program" --version >/dev/null; done
rm -rf .tools/prometheus
mv "$folder/unpacked" .tools/prometheus
echo "prometheus: unpacked into .tools/prometheus"
