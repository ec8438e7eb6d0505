#!/usr/bin/env bash
# Two Docker hosts, one network, by hand: every command that an operator would type, on two network namespaces instead of two
# machines, with an engine of its own on each. Needs root, Docker and a static busybox (Debian: docker.io, busybox-static), no
# registry, and leaves nothing running.
#
#   cargo build --release && sudo examples/docker/by-hand.sh
#
# WEAVE_BIN names the directory of `weave` and `weaver` if it is not target/release.
set -euo pipefail
for tool in dockerd docker busybox iptables ip; do
    command -v $tool >/dev/null || { echo "this example needs $tool" >&2; exit 1; }
done
bin=$(realpath "${WEAVE_BIN:-$(dirname "$0")/../../target/release}")

# Once more, in namespaces of our own; the kernel removes them, and everything in them, when this script ends.
if [ -z "${INSIDE:-}" ]; then
    INSIDE=$$ exec unshare --mount --net --pid --fork --kill-child --mount-proc --propagation=private "$0"
fi
mount -n -t tmpfs tmpfs /run
mkdir -p /run/shared

say() { printf '\n\033[1m%s\033[0m\n' "$*"; }
enter() { # HOST COMMAND...
    nsenter --target "$(cat "/run/shared/$1")" --net --mount -- env PATH="$bin:$PATH" "${@:2}"
}
on() { # HOST COMMAND...: runs it there and shows it
    printf '%s$ %s\n' "$1" "${*:2}" >&2
    enter "$@"
}
clean_up() { # The kernel does not remove control groups by itself.
    for host in host1 host2; do
        enter $host sh -c 'docker ps --all --quiet | xargs -r docker rm --force' >/dev/null 2>&1 || true
        find /sys/fs/cgroup -depth -type d -path "*/weave-example-$INSIDE-$host*" -exec rmdir {} + 2>/dev/null || true
    done
}
trap clean_up EXIT

say "Two hosts with a wire between them, and an engine on each"
mkdir -p /run/shared/image/bin
cp "$(command -v busybox)" /run/shared/image/bin/busybox
for name in sh ping sleep; do ln -s busybox /run/shared/image/bin/$name; done
tar -C /run/shared/image -cf /run/shared/image.tar .
for number in 1 2; do
    unshare --net --mount --propagation=private sh -c '
        mkdir -p /run/shared/run-$1 && mount -n -t tmpfs tmpfs /run/shared/run-$1
        mkdir -p /run/shared/run-$1/shared /run/shared/run-$1/docker/plugins
        mount -n --bind /run/shared /run/shared/run-$1/shared && mount -n --move /run/shared/run-$1 /run
        mkdir -p /run/var-lib && mount -n --bind /run/var-lib /var/lib
        ip link set lo up && echo $$ >/run/shared/$1 && exec sleep infinity' sh host$number &
done
until [ -s /run/shared/host1 ] && [ -s /run/shared/host2 ]; do sleep 0.1; done
ip link add eth0 netns "$(cat /run/shared/host1)" type veth peer name eth0 netns "$(cat /run/shared/host2)"
for number in 1 2; do
    enter host$number ip address add 192.0.2.$number/24 dev eth0
    enter host$number ip link set eth0 up
    enter host$number dockerd --storage-driver vfs --data-root /run/docker-data --exec-root /run/docker-exec \
        --cgroup-parent "/weave-example-$INSIDE-host$number" >/run/shared/dockerd$number.log 2>&1 &
    until enter host$number docker version >/dev/null 2>&1; do sleep 0.2; done
    enter host$number docker import /run/shared/image.tar box >/dev/null
done
printf 'correct horse battery staple\n' >/run/shared/password

say "A router on each; it serves Docker by itself"
on host1 weave launch --password-file /run/shared/password --ipalloc-init consensus=2
on host2 weave launch --password-file /run/shared/password --ipalloc-init consensus=2 192.0.2.1
on host1 weave prime
until on host1 weave dns-args && on host2 weave dns-args; do sleep 1; done >/dev/null 2>&1

say "Containers find each other by name"
on host1 docker run --detach --name web --network weave box /bin/sleep 1000
on host2 docker run --rm --network weave $(enter host2 weave dns-args) box /bin/ping -c 2 web.weave.local

say "Without saying so: through the socket of weave env"
on host2 sh -c 'eval "$(weave env)"; docker run --rm --name cat box /bin/ping -c 1 web'

say "A restart keeps the address"
on host1 weave ps web
on host1 docker restart --time 0 web
on host1 weave ps web

say "A container of Docker's own network, attached in use"
on host2 docker run --detach --name plain box /bin/sleep 1000
on host2 weave attach plain
on host2 docker exec plain /bin/ping -c 1 "$(enter host1 docker inspect --format '{{.NetworkSettings.Networks.weave.IPAddress}}' web)"

say "Leaving: Docker is as it was"
on host2 docker rm --force plain
on host2 weave reset
on host2 docker network ls
