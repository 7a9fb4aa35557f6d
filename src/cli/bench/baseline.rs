//! The empty handler that a node's speed is compared with.
//!
//! A process of its own, like the node, on the same runtime and the same server settings: it decodes the same requests
//! and encodes answers of the same size, and does nothing between. It ends with the process that started it.

use crate::cli::Failure;
use crate::config::Config;
use crate::node;
use crate::rpc::pb;
use crate::rpc::pb::operation_result::Result as Outcome;
use crate::rpc::pb::storage_node_service_server::{StorageNodeService, StorageNodeServiceServer};
use clap::Args;
use std::process::{ExitCode, Stdio};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::net::TcpListener;
use tokio::process::{Child, Command};
use tokio_stream::StreamExt;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};

#[derive(Debug, Args)]
pub(in crate::cli) struct BaselineServerArgs {
    /// Bytes of the value that a read answers
    #[arg(long)]
    value_size: u64,
}

/// A running process of the empty handler; it ends when this is dropped.
pub(super) struct Baseline {
    addr: String,
    _process: Child,
}

impl Baseline {
    pub(super) fn addr(&self) -> &str {
        &self.addr
    }
}

/// Starts the process, and waits until it listens.
pub(super) async fn start(value_size: u64) -> Result<Baseline, Failure> {
    let mut process = Command::new(std::env::current_exe()?)
        .args(["baseline-server", "--value-size", &value_size.to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let out = process.stdout.take().ok_or("the baseline server has no output")?;
    let mut addr = String::new();
    BufReader::new(out).read_line(&mut addr).await?;
    if addr.is_empty() {
        return Err("the baseline server did not start".into());
    }
    Ok(Baseline {
        addr: addr.trim().to_owned(),
        _process: process,
    })
}

/// Runs the empty handler until standard input ends, as it does with the process that started this one.
pub(in crate::cli) async fn serve(args: BaselineServerArgs) -> Result<ExitCode, Failure> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("http://{}", listener.local_addr()?);
    let empty = EmptyHandler {
        value: vec![1; usize::try_from(args.value_size)?],
    };
    let incoming = TcpListenerStream::new(listener).map(|stream| {
        let stream = stream?;
        stream.set_nodelay(true)?;
        Ok::<_, std::io::Error>(stream)
    });
    node::http2(&Config::default())
        .server()
        .add_service(StorageNodeServiceServer::new(empty).max_decoding_message_size(crate::rpc::MAX_MESSAGE_BYTES))
        .serve_with_incoming_shutdown(incoming, async {
            let mut rest = Vec::new();
            let _ = tokio::io::stdin().read_to_end(&mut rest).await;
        })
        .await?;
    Ok(ExitCode::SUCCESS)
}

struct EmptyHandler {
    value: Vec<u8>,
}

impl EmptyHandler {
    fn found(&self) -> pb::ReadResponse {
        pb::ReadResponse {
            success: true,
            value: self.value.clone(),
            vector_clock: Some(pb::VectorClock {
                entries: vec![pb::VectorClockEntry {
                    coordinator_node_id: "bench".to_owned(),
                    logical_timestamp: i64::MAX,
                }],
            }),
            ..pb::ReadResponse::default()
        }
    }
}

fn written(clock: Option<pb::VectorClock>) -> pb::WriteResponse {
    pb::WriteResponse {
        success: true,
        updated_vector_clock: clock,
        applied: true,
        ..pb::WriteResponse::default()
    }
}

fn batch(outcomes: impl Iterator<Item = Outcome>) -> Response<pb::BatchResponse> {
    let result = |outcome| pb::OperationResult {
        id: 0,
        result: Some(outcome),
    };
    Response::new(pb::BatchResponse {
        results: outcomes.map(result).collect(),
    })
}

#[tonic::async_trait]
impl StorageNodeService for EmptyHandler {
    async fn write(&self, request: Request<pb::WriteRequest>) -> Result<Response<pb::WriteResponse>, Status> {
        Ok(Response::new(written(request.into_inner().vector_clock)))
    }

    async fn read(&self, _request: Request<pb::ReadRequest>) -> Result<Response<pb::ReadResponse>, Status> {
        Ok(Response::new(self.found()))
    }

    async fn batch_write(
        &self,
        request: Request<pb::BatchWriteRequest>,
    ) -> Result<Response<pb::BatchResponse>, Status> {
        let operations = request.into_inner().operations.into_iter();
        Ok(batch(
            operations.map(|operation| Outcome::Write(written(operation.vector_clock))),
        ))
    }

    async fn batch_read(&self, request: Request<pb::BatchReadRequest>) -> Result<Response<pb::BatchResponse>, Status> {
        let operations = request.into_inner().operations.into_iter();
        Ok(batch(operations.map(|_operation| Outcome::Read(self.found()))))
    }
}
