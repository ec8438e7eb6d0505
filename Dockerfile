# Images without a shell: static programs and nothing else. Any builder will do; nothing here is BuildKit's alone.
#
#   docker build --tag weave .                                        router and command; how it is run: examples/docker/compose.yaml
#   docker build --target kubernetes --tag weave/weave:0.1.0 .        the same with what a node of Kubernetes needs
#   docker build --target npc --tag weave/weave-npc:0.1.0 .           network policies; how both are run: manifests/
#
# RUST is an image with the compiler (1.90 or later) and a linker for C. Where there is none, build the programs as below by
# hand and use Dockerfile.prebuilt.
ARG RUST=docker.io/library/rust:1-bookworm
FROM ${RUST} AS build
WORKDIR /weave
COPY . .
# With a target of its own, so that what runs during the build is not linked like what comes out of it.
RUN target="$(rustc -vV | sed -n 's/^host: //p')" && \
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
