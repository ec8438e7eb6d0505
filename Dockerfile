# syntax=docker/dockerfile:1
# Images without a shell: static programs and nothing else.
#
#   docker build --tag weave .                                        router and command; how it is run: examples/docker/compose.yaml
#   docker build --target kubernetes --tag weave/weave:0.1.0 .        the same with what a node of Kubernetes needs
#   docker build --target npc --tag weave/weave-npc:0.1.0 .           network policies; how both are run: manifests/
FROM rust:1-bookworm AS build
RUN apt-get update && apt-get install --yes --no-install-recommends cmake && rm -rf /var/lib/apt/lists/*
WORKDIR /weave
COPY . .
# With a target of its own, so that what runs during the build is not linked like what comes out of it.
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/weave/target \
    target="$(rustc -vV | sed -n 's/^host: //p')" && \
    RUSTFLAGS="-C target-feature=+crt-static" \
    cargo build --release --locked --target "$target" --package weave-router --package weave-launcher \
    --package weave-kube --package weave-cni --package weave-npc && \
    mkdir /out && cd "target/$target/release" && cp weaver weave weave-kube weave-net weave-npc /out/

FROM scratch AS npc
COPY --from=build /out/weave-npc /bin/
ENV PATH=/bin
ENTRYPOINT ["/bin/weave-npc"]

FROM scratch AS router
COPY --from=build /out/weaver /out/weave /bin/
ENV PATH=/bin
ENTRYPOINT ["/bin/weave"]

FROM router AS kubernetes
COPY --from=build /out/weave-kube /out/weave-net /usr/bin/
ENV PATH=/bin:/usr/bin

FROM router
