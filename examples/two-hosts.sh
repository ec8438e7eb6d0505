#!/usr/bin/env bash
# Two hosts, one network, by hand: every command that an operator would type, on two network namespaces instead of two
# machines. Needs no root where the system allows user namespaces, and leaves nothing behind.
#
#   cargo build --release && examples/two-hosts.sh
#
# WEAVE_BIN names the directory of `weave` and `weaver` if it is not target/release.
set -euo pipefail
command -v ping >/dev/null || { echo "this example needs ping (iputils-ping)" >&2; exit 1; }
bin=$(realpath "${WEAVE_BIN:-$(dirname "$0")/../target/release}")

# Once more, in namespaces of our own; the kernel removes them, and everything in them, when this script ends.
if [ -z "${INSIDE:-}" ]; then
    user=()
    ((EUID == 0)) || user=(--user --map-root-user)
    INSIDE=1 exec unshare "${user[@]}" --mount --net --pid --fork --kill-child --mount-proc "$0"
fi
mount -n -t tmpfs tmpfs /run

say() { printf '\n\033[1m%s\033[0m\n' "$*"; }
on() { # HOST COMMAND...: runs it there and shows it
    local host=$1
    shift
    printf '%s$ %s\n' "$host" "$*" >&2
    PATH=$bin:$PATH WEAVE_RUN_DIR=/run/weave-$host ip netns exec "$host" "$@"
}

say "Two hosts with a wire between them"
ip netns add host1
ip netns add host2
ip link add eth0 netns host1 type veth peer name eth0 netns host2
for n in 1 2; do
    ip -n "host$n" link set lo up
    ip -n "host$n" addr add "192.0.2.$n/24" dev eth0
    ip -n "host$n" link set eth0 up
done
echo "correct horse battery staple" >/run/password

say "A router on each; the second is told where the first is"
on host1 weave launch --password-file /run/password --nickname host1 --db-prefix /run/db-host1 \
    --ipalloc-init consensus=2
on host2 weave launch --password-file /run/password --nickname host2 --db-prefix /run/db-host2 \
    --ipalloc-init consensus=2 192.0.2.1
on host1 weave prime
on host1 weave status connections

say "A container on each, here a bare network namespace"
ip netns add web
ip netns add db
web=$(on host1 weave attach --netns /run/netns/web --name web)
db=$(on host2 weave attach --netns /run/netns/db --name db)
echo "web has $web on host1, db has $db on host2"

say "They reach each other, encrypted, whatever lies between the hosts"
on host1 weave ps
printf 'web$ ping -c 3 %s\n' "$db"
ip netns exec web ping -c 3 "$db"

say "Either host knows both names"
on host2 weave dns-lookup web
on host1 weave dns-lookup db

say "And the network as host2 sees it"
on host2 weave status
on host1 weave stop
on host2 weave stop
