#!/bin/sh
# settings.sh FROM TO: installs settings, and leaves those alone that somebody has changed. They may hold tokens.
set -eu
[ -e "${DESTDIR:-}$2" ] || install -D -m 600 "$1" "${DESTDIR:-}$2"
