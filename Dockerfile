# syntax=docker/dockerfile:1
# One image with both programs: `api` by default, `worker` as the command.

FROM rust:1.95-slim-bookworm AS build
WORKDIR /src
COPY . .
# The caches are not part of the image, so the programs are copied out of them. Cargo detects
# changes by time stamps, and takes sources that are older than the cache for unchanged: a build of
# an earlier commit would get a later one's programs. So our own crates are always rebuilt, and the
# cache is locked meanwhile.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target,sharing=locked \
    cargo clean --locked --release --workspace \
    && cargo build --locked --release --bins \
    && cp target/release/api target/release/worker /usr/local/bin/

FROM debian:bookworm-slim
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --user-group --home-dir /data --create-home blog
COPY --from=build /usr/local/bin/api /usr/local/bin/worker /usr/local/bin/
USER 10001
WORKDIR /data
ENV LISTEN_ADDR=0.0.0.0:8000 \
    METRICS_ADDR=0.0.0.0:9090 \
    DATA_DIR=/data
VOLUME /data
EXPOSE 8000
# By bash, for the image has no curl. Disabled for workers.
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s CMD ["bash", "-c", \
    "exec 3<>/dev/tcp/127.0.0.1/${LISTEN_ADDR##*:} && printf 'GET /ready HTTP/1.1\\r\\nHost: localhost\\r\\nConnection: close\\r\\n\\r\\n' >&3 && read -r status <&3 && [[ $status == *' 200 '* ]]"]
CMD ["api"]
