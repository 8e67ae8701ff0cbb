FROM docker.io/library/rust:1.95-slim-bookworm AS build
WORKDIR /wakeupd
COPY . .
# Touch the sources, because the cached target folder may be newer and Cargo compares timestamps.
# The flag links libc statically. Without an explicit target it would also apply to proc macros, which
# cannot be static.
RUN --mount=type=cache,target=/usr/local/cargo/registry,sharing=locked \
    --mount=type=cache,target=/wakeupd/target,sharing=locked \
    touch src/lib.rs crates/*/src/lib.rs && \
    RUSTFLAGS="-C target-feature=+crt-static" \
    cargo install --locked --no-track --path . --root /out --target host-tuple && \
    mkdir /out/state

FROM scratch
LABEL org.opencontainers.image.title="wakeupd" \
      org.opencontainers.image.description="UDP wake-up ping daemon: one small heartbeat in, one 2-byte ping a second out" \
      org.opencontainers.image.licenses="MIT"
COPY --from=build /out/bin/wakeupd /
# A volume mounted here inherits the ownership of this folder, so that the user below can write the snapshot.
COPY --from=build --chown=65532:65532 --chmod=700 /out/state /var/lib/wakeupd
USER 65532:65532
EXPOSE 7561/udp
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=5s CMD ["/wakeupd", "healthcheck"]
ENTRYPOINT ["/wakeupd"]
