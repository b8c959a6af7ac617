#!/bin/sh
# Make a base image where none can be pulled: Debian by debootstrap, from the mirror that this machine's
# own apt uses. Needs root, debootstrap and a Docker engine.
#
#   deploy/docker/base.sh [IMAGE]
set -eu
image=${1:-python:3.11-slim-bookworm}
mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Codename: bookworm' | head -n 1)
[ -n "$mirror" ] || { echo "base.sh: apt knows no mirror of Debian bookworm; run apt-get update" >&2; exit 1; }
folder=$(mktemp -d)
trap 'rm -rf --one-file-system "$folder"' EXIT
debootstrap --variant=minbase --include=python3,python3-venv,python3-pip,ca-certificates \
  bookworm "$folder/root" "$mirror" >"$folder/log" 2>&1 || { tail "$folder/log" >&2; exit 1; }
# Neither packages that are installed already nor the mirror's name belong into the image.
rm -rf "$folder/root/var/cache/apt/archives" "$folder/root/var/lib/apt/lists" "$folder/root/etc/apt/sources.list"
rm -rf "$folder/root/usr/share/doc" "$folder/root/usr/share/man" "$folder/root/usr/share/locale"
tar -C "$folder/root" -c . | docker import - "$image"
