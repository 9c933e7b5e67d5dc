# syntax=docker/dockerfile:1
# One image with every binary; a container's command chooses which one runs.

FROM rust:1.95-bookworm AS build
WORKDIR /src
COPY . .
# The caches outlive the layer, so a second build compiles only what changed. The binaries are copied out of the cache.
RUN --mount=type=cache,target=/usr/local/cargo/registry,sharing=locked \
    --mount=type=cache,target=/src/target,sharing=locked \
    cargo build --release --locked -p ingest -p processor -p api -p allocator --bins \
    && install -D -t /out/ target/release/ingest target/release/processor target/release/api target/release/allocator

FROM debian:bookworm-slim
# The health checks use curl.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates curl \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --user-group --no-create-home allocator \
    && install -d -o allocator -g allocator /data
COPY --from=build /out/ /usr/local/bin/
USER 10001:10001
# The embedded default: docker run -p 127.0.0.1:8000:8000 -v allocator:/data IMAGE. Its data is in ./data.
WORKDIR /
CMD ["allocator", "run", "--set", "allocator.listen=0.0.0.0:8000"]
