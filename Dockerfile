# One image for every role: `inferq api`, `inferq worker`, `inferq migrate`.
FROM rust:1.95-bookworm AS build
WORKDIR /src
# The toolchain of the image is the one that rust-toolchain.toml names, without its lint tools.
ENV RUSTUP_TOOLCHAIN=1.95.0
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --release --locked --bin inferq && cp target/release/inferq /inferq

FROM debian:bookworm-slim
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --home-dir /var/lib/inferq --create-home inferq
COPY --from=build /inferq /usr/local/bin/inferq
# By number: Kubernetes cannot tell of a name that it is not root.
USER 10001
WORKDIR /var/lib/inferq
EXPOSE 8080 8081
ENTRYPOINT ["inferq"]
CMD ["--help"]
