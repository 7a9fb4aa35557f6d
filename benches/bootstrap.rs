//! How fast a node fills another, and what its clients notice of that:
//! `cargo bench --bench bootstrap -- [--mib N] [--pairs N]`.
//!
//! The source has half of the processors; the target and the clients share the other half. In turns, clients ask the source
//! for 400 operations a second (half reads, half writes) alone, and while it copies everything to an empty range of the
//! target, through gRPC. By the medians of all pairs, the copy must make 50 MB of values a second, and the p99 of the clients
//! may be twice as long; otherwise the exit code is 1, as it is when a call failed, or not all values arrived.

mod load;

use load::{Client, Failure, Node, Outcome, clock, median, offer, start, start_elsewhere, write};
use pairdb_node::rpc::pb;
use std::process::ExitCode;
use std::time::{Duration, Instant};
use tonic::Code;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const VALUE_BYTES: usize = 10 << 10;
/// Values of one call.
const BATCH: u64 = 50;
const RATE: f64 = 400.0;
const MOST_UNDER_WAY: usize = 2048;
/// Time for which clients are watched alone, and at most while a copy is under way.
const TIME: Duration = Duration::from_secs(4);
const POLL: Duration = Duration::from_millis(20);
/// A copy that takes longer has failed.
const MOST_TIME: Duration = Duration::from_secs(300);
const LEAST_MB_PER_S: f64 = 50.0;
const MOST_RATIO: f64 = 2.0;

async fn fill(client: &mut Client, keys: u64) -> Result<(), Failure> {
    for first in (0..keys).step_by(BATCH as usize) {
        let put = |number: u64| pb::WriteRequest {
            vector_clock: clock(),
            ..write(&format!("key{number:08}"), &value(number), &[])
        };
        let operations = (first..keys.min(first + BATCH)).map(put).collect();
        client.batch_write(pb::BatchWriteRequest { operations }).await?;
    }
    Ok(())
}

/// A value that does not compress away.
fn value(seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    std::iter::repeat_with(next).take(VALUE_BYTES / 8).flatten().collect()
}

/// One call of the clients.
async fn send(mut client: Client, number: u64) -> Result<u64, Code> {
    let key = format!("live{:06}", number.wrapping_mul(7919) % 10_000);
    let answer = if number.is_multiple_of(2) {
        let read = pb::ReadRequest {
            tenant_id: "tenant".to_owned(),
            key,
        };
        client.read(read).await.map(|_| ())
    } else {
        let write = pb::WriteRequest {
            vector_clock: clock(),
            ..write(&key, &[7; 100], &[])
        };
        client.write(write).await.map(|_| ())
    };
    match answer {
        Err(status) if status.code() != Code::NotFound => Err(status.code()),
        _ => Ok(1),
    }
}

/// The clients' load, for a while.
async fn load(node: &Node, time: Duration) -> Result<Outcome, Failure> {
    let clients = node.clients(4).await?;
    offer(&clients, RATE, time, MOST_UNDER_WAY, send).await
}

/// Copies everything; returns the time until the stream is completed, and the bytes and keys that it copied.
async fn copy(source: &Node, target: &Node) -> Result<(Duration, i64, i64), Failure> {
    let mut client = source.clients(1).await?.remove(0);
    let (host, port) = target.process.addr.split_once(':').ok_or("the target has no port")?;
    let whole_ring = pb::StreamKeyRange {
        start_hash: 0,
        end_hash: u64::MAX,
    };
    let begun = Instant::now();
    client
        .start_streaming(pb::StartStreamingRequest {
            source_node_id: "source".to_owned(),
            target_node_id: "target".to_owned(),
            target_host: host.to_owned(),
            target_port: port.parse()?,
            key_ranges: vec![whole_ring],
        })
        .await?;
    let which = pb::StreamStatusRequest {
        source_node_id: "source".to_owned(),
        target_node_id: "target".to_owned(),
    };
    let status = loop {
        let status = client.get_stream_status(which.clone()).await?.into_inner();
        if status.state == "completed" {
            break status;
        }
        if status.state == "failed" || begun.elapsed() > MOST_TIME {
            return Err(format!("the copy is {} after {:?}", status.state, begun.elapsed()).into());
        }
        tokio::time::sleep(POLL).await;
    };
    let took = begun.elapsed();
    client
        .stop_streaming(pb::StopStreamingRequest {
            source_node_id: "source".to_owned(),
            target_node_id: "target".to_owned(),
        })
        .await?;
    Ok((took, status.bytes_copied, status.keys_copied))
}

#[tokio::main]
async fn main() -> Result<ExitCode, Failure> {
    let (mut pairs, mut mib) = (3, 256);
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--bench" => {}
            "--pairs" => pairs = args.next().ok_or("--pairs needs a number")?.parse()?,
            "--mib" => mib = args.next().ok_or("--mib needs a number")?.parse()?,
            other => return Err(format!("{other}: there are --mib N and --pairs N").into()),
        }
    }
    let keys = mib * (1 << 20) / VALUE_BYTES as u64;
    let source = start(&[("NODE_ID", "source")])?;
    fill(&mut source.clients(1).await?.remove(0), keys).await?;
    load(&source, Duration::from_secs(1)).await?;
    let (mut rates, mut ratios, mut is_well) = (Vec::new(), Vec::new(), true);
    for pair in 1..=pairs {
        let target = start_elsewhere(&[("NODE_ID", "target")])?;
        let alone = load(&source, TIME).await?;
        let (copied, beside) = tokio::join!(copy(&source, &target), load(&source, TIME));
        let ((took, bytes, copied), beside) = (copied?, beside?);
        let rate = bytes as f64 / 1e6 / took.as_secs_f64();
        println!(
            "pair {pair}: {copied} keys, {:.0} MB in {took:.2?}: {rate:.0} MB/s; p99 alone {:.2} ms, beside {:.2} ms; failed {:?}, {:?}",
            bytes as f64 / 1e6,
            alone.p99_ms(),
            beside.p99_ms(),
            alone.failed,
            beside.failed
        );
        rates.push(rate);
        ratios.push(beside.p99_ms() / alone.p99_ms());
        is_well &= alone.failed.is_empty() && beside.failed.is_empty() && copied as u64 >= keys;
    }
    let (rate, ratio) = (median(rates), median(ratios));
    println!(
        "{rate:.0} MB/s (at least {LEAST_MB_PER_S}); p99 of the clients {ratio:.2} of that alone (at most {MOST_RATIO}); medians"
    );
    Ok(if is_well && rate >= LEAST_MB_PER_S && ratio <= MOST_RATIO {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
