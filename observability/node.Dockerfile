# An image of the node for compose.yaml. Build context: the repository. What it needs is fetched by the build alone: the Rust
# image, and the crates of Cargo.lock.

FROM rust:1.90-bookworm AS build
WORKDIR /src
COPY Cargo.toml Cargo.lock build.rs ./
COPY proto proto
COPY src src
COPY benches benches
RUN cargo build --release --locked --bin pairdb-node

FROM debian:bookworm-slim
RUN useradd --system --create-home --home-dir /var/lib/pairdb pairdb
COPY --from=build /src/target/release/pairdb-node /usr/local/bin/pairdb-node
USER pairdb
WORKDIR /var/lib/pairdb
VOLUME /var/lib/pairdb
EXPOSE 50052 9091 7946/udp
STOPSIGNAL SIGTERM
CMD ["pairdb-node", "serve"]
