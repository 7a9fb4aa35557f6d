//! `put`, `get`, `delete`, `health`

use super::client::{connect, explain};
use super::{Failure, Target};
use crate::rpc::pb;
use crate::storage::limits::check_value;
use clap::Args;
use std::io::{Read, Write};
use std::process::ExitCode;
use tonic::Code;

#[derive(Debug, Args)]
pub(super) struct KeyArgs {
    #[command(flatten)]
    target: Target,
    /// The key, 1 to 1024 bytes
    key: String,
}

#[derive(Debug, Args)]
pub(super) struct PutArgs {
    #[command(flatten)]
    target: Target,
    /// The key, 1 to 1024 bytes
    key: String,
    /// The value, 1 byte to 10 MiB
    value: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct HealthArgs {
    #[command(flatten)]
    target: Target,
}

pub(super) async fn put(args: PutArgs) -> Result<ExitCode, Failure> {
    let value = match args.value {
        Some(value) => value.into_bytes(),
        None => {
            let mut value = Vec::new();
            std::io::stdin().read_to_end(&mut value)?;
            value
        }
    };
    // Before it is sent: a node does not even read a message that is far too large.
    check_value(&value)?;
    let request = pb::WriteRequest {
        tenant_id: args.target.tenant,
        key: args.key,
        value,
        ..pb::WriteRequest::default()
    };
    let mut client = connect(&args.target.addr, &args.target.access).await?;
    client.write(request).await.map_err(|status| explain(&status))?;
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn get(args: KeyArgs) -> Result<ExitCode, Failure> {
    let mut client = connect(&args.target.addr, &args.target.access).await?;
    let request = pb::ReadRequest {
        tenant_id: args.target.tenant,
        key: args.key,
    };
    match client.read(request).await {
        Ok(response) => {
            let mut out = std::io::stdout().lock();
            out.write_all(&response.into_inner().value)?;
            out.flush()?;
            Ok(ExitCode::SUCCESS)
        }
        Err(status) if status.code() == Code::NotFound => Err("not found".into()),
        Err(status) => Err(explain(&status)),
    }
}

pub(super) async fn delete(args: KeyArgs) -> Result<ExitCode, Failure> {
    let request = pb::DeleteRequest {
        tenant_id: args.target.tenant,
        key: args.key,
        ..pb::DeleteRequest::default()
    };
    let mut client = connect(&args.target.addr, &args.target.access).await?;
    client.delete(request).await.map_err(|status| explain(&status))?;
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn health(args: HealthArgs) -> Result<ExitCode, Failure> {
    let mut client = connect(&args.target.addr, &args.target.access).await?;
    let response = client
        .health_check(pb::HealthCheckRequest {})
        .await
        .map_err(|status| explain(&status))?
        .into_inner();
    println!("{}", response.status);
    let mut metrics: Vec<_> = response.metrics.into_iter().collect();
    metrics.sort();
    for (name, value) in metrics {
        println!("  {name:<22} {value}");
    }
    Ok(if response.healthy {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
