# shellcheck shell=bash
# Sourced by the other scripts: gives apt_install.

as_root=()
[ "$(id -u)" -eq 0 ] || as_root=(sudo)
if [ "$(id -u)" -ne 0 ] && [ ! -t 0 ]; then as_root=(sudo -n); fi

# apt_install PACKAGE...: false where there is no apt-get or no right to use it.
apt_install() {
  command -v apt-get >/dev/null || return 1
  [ "${#as_root[@]}" -eq 0 ] || command -v sudo >/dev/null || return 1
  "${as_root[@]}" apt-get update -qq || return 1
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@"
}
