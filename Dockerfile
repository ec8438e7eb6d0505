# syntax=docker/dockerfile:1
# The router and the command in an image without a shell: two static programs and nothing else.
#
#   docker build --tag weave .
#
# How it is run: examples/docker/compose.yaml.
FROM rust:1-bookworm AS build
RUN apt-get update && apt-get install --yes --no-install-recommends cmake && rm -rf /var/lib/apt/lists/*
WORKDIR /weave
COPY . .
# With a target of its own, so that what runs during the build is not linked like what comes out of it.
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/weave/target \
    target="$(rustc -vV | sed -n 's/^host: //p')" && \
    RUSTFLAGS="-C target-feature=+crt-static" \
    cargo build --release --locked --target "$target" --package weave-router --package weave-launcher && \
    mkdir /out && cp "target/$target/release/weaver" "target/$target/release/weave" /out/

FROM scratch
COPY --from=build /out/weaver /out/weave /bin/
ENV PATH=/bin
ENTRYPOINT ["/bin/weave"]
