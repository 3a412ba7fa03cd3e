#!/bin/sh
# A Debian mirror in (or none: debootstrap's own choice), the image localhost/debian:trixie-slim out.
# It stands in for the published image where no registry can be reached. Needs root, debootstrap and buildah.
set -eu

container=$(buildah from scratch)
root=$(buildah mount "$container")
debootstrap --variant=minbase trixie "$root" "$@"

# Slim as the published one: no package lists, no manuals, no translations; licences stay.
rm -rf "$root"/var/cache/apt/* "$root"/var/lib/apt/lists/* "$root"/var/log/*
rm -rf "$root"/usr/share/man "$root"/usr/share/info "$root"/usr/share/locale
find "$root"/usr/share/doc -type f ! -name copyright -delete
find "$root"/usr/share/doc -type d -empty -delete

buildah umount "$container"
buildah config --env PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin --cmd bash "$container"
buildah commit --rm "$container" localhost/debian:trixie-slim
