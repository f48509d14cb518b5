# One image with both programs, which are one file: `api` by default, `worker` as the command.

FROM docker.io/library/rust:1.95-slim-bookworm AS build
WORKDIR /src
COPY . .
# The caches are not part of the image, so the programs are copied out of them. Cargo detects
# changes by time stamps, and takes sources that are older than the cache for unchanged: a build of
# an earlier commit would get a later one's programs. So our own crates are always rebuilt, and the
# cache is locked meanwhile.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target,sharing=locked \
    cargo clean --locked --release --workspace \
    && cargo build --locked --release --package multicall \
    && cp target/release/multicall /usr/local/bin/

FROM docker.io/library/debian:bookworm-slim
RUN useradd --system --uid 10001 --user-group --no-log-init --no-create-home --home-dir /data blog \
    && install --directory --owner=blog --group=blog --mode=700 /data \
    && ln --symbolic multicall /usr/local/bin/api \
    && ln --symbolic multicall /usr/local/bin/worker
# The authorities of TLS, without the package that makes this file of them.
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
COPY deploy/image/ /usr/local/bin/
COPY --from=build /usr/local/bin/multicall /usr/local/bin/
USER 10001
WORKDIR /data
ENV LISTEN_ADDR=0.0.0.0:8000 \
    METRICS_ADDR=0.0.0.0:9090 \
    DATA_DIR=/data
EXPOSE 8000
# For the API; a worker has no /ready. Docker alone keeps this, so docker-compose.yml has checks, too.
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s CMD http-ok 127.0.0.1 "${LISTEN_ADDR##*:}" /ready
CMD ["api"]
