//! PairDB's storage node: a log-structured key-value store with tenants and vector clocks, made of supervised actors.
//!
//! Layers, each knowing only those to its right: `http` → `rpc` → `actors` → `storage`. `node` composes them. See ARCHITECTURE.md.

#![deny(missing_docs, unsafe_code)]
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing,
        clippy::todo,
        clippy::unimplemented
    )
)]

pub mod actors;
pub mod cli;
pub mod config;
pub mod http;
pub mod node;
pub mod rpc;
pub mod storage;
pub mod telemetry;
