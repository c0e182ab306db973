#!/usr/bin/env bash
# Writes .env for docker-compose.yaml: .env.example, with a random value where that has none.
set -euo pipefail
cd "$(dirname "$0")/.."

if [ -e .env ]; then
  echo "compose-env: .env exists and is left as it is"
  exit 0
fi

umask 077
temporary="$(mktemp .env.XXXXXX)"
trap 'rm -f "$temporary"' EXIT
while IFS= read -r line; do
  case "$line" in
    FASTVLM_FERNET_KEY=) line+="$(head -c 32 /dev/urandom | base64 | tr '+/' '-_')" ;;
    FASTVLM_*=) line+="$(head -c 24 /dev/urandom | od -An -v -tx1 | tr -d ' \n')" ;;
  esac
  echo "$line"
done <.env.example >"$temporary"
mv "$temporary" .env
echo "compose-env: wrote .env; set FASTVLM_KIT_DIR in it to the folder that is to be backed up"
