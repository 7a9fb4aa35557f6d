//! What traces cost: `cargo bench --bench tracing -- [--rounds N] [--seconds S]`.
//!
//! Four nodes, with half of the processors: one without trails (no traces, no threshold for slow requests), one that notes
//! them but sends nothing (as delivered), one that sends a hundredth of all traces, and one that sends all, to a collector that
//! swallows them on the generator's processors. In turns, so that what else the machine does meets all of them, each answers
//! cached reads and then writes; the round begins with another node each time.
//!
//! What counts is the rate, or, where the generator and the collector took all of their processor so that it does not show, the
//! processor time of a request; as its median over the rounds beside that of the node that sends nothing (`tracing.enabled = false`) in
//! the same round; what it costs beside the node without trails is shown as well. The exit code is 1 when 1 % costs more than 3 %
//! of it, or 100 % more than 15 %; or when fewer than nine tenths of the spans of 1 % reach the collector, so that nothing is cheap
//! because it is dropped. At 100 % and full load the exporter has what requests leave of the processors, and what it does not come
//! to is dropped: the share is shown beside the rate. So 100 % is measured once more at half the rate of the node that sends nothing,
//! beside that node at the same rate: there nine tenths of the spans must arrive, and what they cost shows in the processor time of a
//! request, which may be 15 % more. Also shown are the processor time that a node takes for a request, and the share
//! of it that the numbers behind the metrics take: a histogram's observation costs what is measured here, and how many of them a
//! request makes is counted by the metrics themselves.

mod load;

use load::{Client, Failure, Node, Outcome, keep_busy, median, offer, start, write};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use pairdb_node::rpc::pb;
use pairdb_node::storage::histogram::Histogram;
use std::hint::black_box;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Code, Request, Response, Status};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Few, so that all of them are in the cache.
const KEYS: u64 = 2000;
const CONNECTIONS: usize = 4;
const UNDER_WAY: usize = 64;
/// What 1 % and 100 % may cost of the rate.
const MOST: [f64; 2] = [0.03, 0.15];
/// Share of its processor that the generator takes when it is what is measured.
const GENERATOR_IS_BUSY: f64 = 0.95;
/// What the numbers behind the metrics may take of a request's processor time.
const MOST_OF_METRICS: f64 = 0.01;
const OBSERVATIONS: u32 = 2_000_000;

/// The places of the node that sends nothing and of the one that sends all among the nodes, and the name of the one that sends 1 %.
const OFF: usize = 1;
const ALL: usize = 3;
const HUNDREDTH: &str = "1 % sent";
/// Least of the requests that are to be sent which have to arrive, where the exporter has the time for them.
const LEAST_SENT: f64 = 0.9;
/// The rate at which it has, as a share of the one of the node that sends nothing.
const PACE: f64 = 0.5;
/// What 100 % may cost there of a request's processor time.
const MOST_PACED: f64 = 0.15;

/// Counts spans, and forgets them.
#[derive(Clone, Default)]
struct Swallowing(Arc<Swallowed>);

#[derive(Default)]
struct Swallowed {
    spans: AtomicU64,
    /// Spans of kind server: each request has one.
    requests: AtomicU64,
}

impl Swallowed {
    fn counts(&self) -> [u64; 2] {
        [&self.spans, &self.requests].map(|count| count.load(Ordering::Relaxed))
    }
}

#[tonic::async_trait]
impl TraceService for Swallowing {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let resources = request.into_inner().resource_spans;
        let scopes = resources.iter().flat_map(|resource| &resource.scope_spans);
        for span in scopes.flat_map(|scope| &scope.spans) {
            self.0.spans.fetch_add(1, Ordering::Relaxed);
            let is_request = span.kind() == SpanKind::Server;
            self.0.requests.fetch_add(u64::from(is_request), Ordering::Relaxed);
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

/// Where spans go.
struct Collector {
    addr: SocketAddr,
    swallowed: Arc<Swallowed>,
}

/// A node under measurement.
struct Measured {
    name: &'static str,
    node: Node,
    clients: Vec<Client>,
    metrics: SocketAddr,
    /// Microseconds of processor time for a read and for a write, by round.
    us: [Vec<f64>; 2],
    per_second: [Vec<f64>; 2],
    /// Share of its processor that the generator took, and the collector with it.
    generator: [Vec<f64>; 2],
    /// Spans of a request that the collector was sent.
    spans: [Vec<f64>; 2],
    /// Share of the requests that it was sent.
    sent: [Vec<f64>; 2],
    /// The share that it was to be sent.
    ratio: f64,
    /// Microseconds of processor time and the share that was sent, at a rate that leaves time.
    paced: [Vec<(f64, f64)>; 2],
    swallowed: Arc<Swallowed>,
}

fn begin(name: &'static str, ratio: f64, collector: &Collector, tracing: &[(&str, &str)]) -> Result<Measured, Failure> {
    let Collector { addr, swallowed } = collector;
    let endpoint = format!("http://{addr}");
    let metrics = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let port = metrics.port().to_string();
    let basic = [
        ("PAIRDB__TRACING__ENDPOINT", endpoint.as_str()),
        ("PAIRDB__METRICS__PORT", &port),
    ];
    Ok(Measured {
        name,
        node: start(&[&basic, tracing].concat())?,
        clients: Vec::new(),
        metrics,
        us: [Vec::new(), Vec::new()],
        per_second: [Vec::new(), Vec::new()],
        generator: [Vec::new(), Vec::new()],
        spans: [Vec::new(), Vec::new()],
        sent: [Vec::new(), Vec::new()],
        ratio,
        paced: [Vec::new(), Vec::new()],
        swallowed: Arc::clone(swallowed),
    })
}

async fn put(mut client: Client, number: u64) -> Result<u64, Code> {
    let request = pb::WriteRequest {
        vector_clock: load::clock(),
        ..write(&format!("key{:08}", number.wrapping_mul(7919) % KEYS), &[7; 100], &[])
    };
    client.write(request).await.map(|_| 1).map_err(|status| status.code())
}

async fn get(mut client: Client, number: u64) -> Result<u64, Code> {
    let request = pb::ReadRequest {
        tenant_id: "tenant".to_owned(),
        key: format!("key{:08}", number.wrapping_mul(7919) % KEYS),
    };
    client.read(request).await.map(|_| 1).map_err(|status| status.code())
}

impl Measured {
    async fn fill(&mut self) -> Result<(), Failure> {
        self.clients = self.node.clients(CONNECTIONS).await?;
        for number in 0..KEYS {
            let client = self.clients[0].clone();
            put(client.clone(), number).await.map_err(|code| format!("{code:?}"))?;
            get(client, number).await.map_err(|code| format!("{code:?}"))?;
        }
        Ok(())
    }

    async fn round(&mut self, time: Duration) -> Result<(), Failure> {
        for kind in [0, 1] {
            let before = self.before();
            let outcome = if kind == 0 {
                keep_busy(&self.clients, UNDER_WAY, time, get).await?
            } else {
                keep_busy(&self.clients, UNDER_WAY, time, put).await?
            };
            let (us, [spans, requests]) = self.cost_since(before, &outcome).await;
            self.us[kind].push(us);
            self.spans[kind].push(spans);
            self.sent[kind].push(requests);
            self.per_second[kind].push(outcome.per_second());
            self.generator[kind].push(outcome.own_cpu);
        }
        Ok(())
    }

    /// A round of requests of one kind, which come at this rate.
    async fn paced_round(&mut self, kind: usize, rate: f64, time: Duration) -> Result<(), Failure> {
        let before = self.before();
        let outcome = if kind == 0 {
            offer(&self.clients, rate, time, UNDER_WAY, get).await?
        } else {
            offer(&self.clients, rate, time, UNDER_WAY, put).await?
        };
        let (us, [_, requests]) = self.cost_since(before, &outcome).await;
        self.paced[kind].push((us, requests));
        Ok(())
    }

    fn before(&self) -> (Duration, [u64; 2]) {
        (self.node.process.cpu_time(), self.swallowed.counts())
    }

    /// Microseconds of processor time of a request; and how many spans, and of the requests, the collector was sent for each.
    async fn cost_since(&self, (cpu, sent): (Duration, [u64; 2]), outcome: &Outcome) -> (f64, [f64; 2]) {
        // What it still sends belongs to these requests.
        tokio::time::sleep(Duration::from_millis(700)).await;
        let (took, now, operations) = (
            self.node.process.cpu_time() - cpu,
            self.swallowed.counts(),
            outcome.operations as f64,
        );
        let us = took.as_secs_f64() * 1e6 / operations;
        (us, [0, 1].map(|of| (now[of] - sent[of]) as f64 / operations))
    }

    /// Share of the requests to be sent that the collector did not get under full load; 0 when none were to be.
    fn dropped(&self, kind: usize) -> f64 {
        if self.ratio == 0.0 {
            return 0.0;
        }
        (1.0 - median(self.sent[kind].clone()) / self.ratio).max(0.0)
    }

    /// The medians at a rate that leaves time.
    fn paced(&self, kind: usize) -> (f64, f64) {
        let (us, sent) = self.paced[kind].iter().copied().unzip();
        (median(us), median(sent))
    }

    /// How many observations its histograms have.
    fn observed(&self) -> Result<f64, Failure> {
        let mut stream = TcpStream::connect(self.metrics)?;
        write!(
            stream,
            "GET /metrics HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n"
        )?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        let is_count = |line: &&str| line.split('{').next().is_some_and(|name| name.ends_with("_count"));
        let counts = text
            .lines()
            .filter(is_count)
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
        Ok(counts.sum())
    }
}

/// Nanoseconds of an observation, with the reading of the clock.
fn ns_of_observation() -> f64 {
    let histogram = Histogram::of_durations();
    let begun = Instant::now();
    for _ in 0..OBSERVATIONS {
        black_box(&histogram).observe(black_box(Instant::now()).duration_since(begun));
    }
    begun.elapsed().as_secs_f64() * 1e9 / f64::from(OBSERVATIONS)
}

/// What 100 % costs where nearly all of it arrives: whether that is little enough, and arrives.
async fn measure_paced(nodes: &mut [Measured], rounds: usize, time: Duration) -> Result<bool, Failure> {
    let mut is_cheap = true;
    for (kind, what) in ["cached reads", "writes"].into_iter().enumerate() {
        let rate = PACE * median(nodes[OFF].per_second[kind].clone());
        for round in 0..rounds {
            let places = if round % 2 == 0 { [OFF, ALL] } else { [ALL, OFF] };
            for place in places {
                nodes[place].paced_round(kind, rate, time).await?;
            }
        }
        let ((off_us, _), (us, sent)) = (nodes[OFF].paced(kind), nodes[ALL].paced(kind));
        let cost = us / off_us - 1.0;
        println!(
            "{what} at {rate:.0}/s: with 100 % sent {us:.2} us of processor time a request, {:+.1} % beside {off_us:.2} with nothing \
             sent; {:.1} % of the requests were sent",
            cost * 100.0,
            sent * 100.0
        );
        is_cheap &= cost <= MOST_PACED && sent >= LEAST_SENT;
    }
    Ok(is_cheap)
}

async fn measure(rounds: usize, time: Duration) -> Result<bool, Failure> {
    let swallowed = Swallowing::default();
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let collector = &Collector {
        addr: listener.local_addr()?,
        swallowed: Arc::clone(&swallowed.0),
    };
    let serving = tonic::transport::Server::builder()
        .add_service(TraceServiceServer::new(swallowed.clone()).max_decoding_message_size(usize::MAX))
        .serve_with_incoming(TcpListenerStream::new(listener));
    tokio::spawn(serving);
    let sending = |ratio| {
        [
            ("PAIRDB__TRACING__ENABLED", "true"),
            ("PAIRDB__TRACING__SAMPLE_RATIO", ratio),
        ]
    };
    let mut nodes = vec![
        begin("no trails", 0.0, collector, &[("PAIRDB__TRACING__SLOW_REQUEST", "0s")])?,
        begin("nothing sent", 0.0, collector, &[])?,
        begin(HUNDREDTH, 0.01, collector, &sending("0.01"))?,
        begin("100 % sent", 1.0, collector, &sending("1"))?,
    ];
    for node in &mut nodes {
        node.fill().await?;
        node.round(time / 2).await?;
        node.us = [Vec::new(), Vec::new()];
        node.per_second = [Vec::new(), Vec::new()];
        node.generator = [Vec::new(), Vec::new()];
        node.spans = [Vec::new(), Vec::new()];
        node.sent = [Vec::new(), Vec::new()];
    }
    for round in 0..rounds {
        for place in 0..nodes.len() {
            let next = (round + place) % nodes.len();
            nodes[next].round(time).await?;
        }
    }
    let mut is_cheap = true;
    for (kind, what) in ["cached reads", "writes"].into_iter().enumerate() {
        println!("{what}, {rounds} rounds of {time:?}:");
        for (place, node) in nodes.iter().enumerate() {
            let cost_beside = |base: &Measured| {
                let rounds = node.per_second[kind].iter().zip(&base.per_second[kind]);
                median(rounds.map(|(rate, base)| 1.0 - rate / base).collect())
            };
            let (beside_off, beside_none) = (cost_beside(&nodes[OFF]), cost_beside(&nodes[0]));
            let time_beside_off = {
                let rounds = node.us[kind].iter().zip(&nodes[OFF].us[kind]);
                median(rounds.map(|(us, off)| us / off - 1.0).collect())
            };
            let generator = median(node.generator[kind].clone());
            let [us, per_second, spans, sent] =
                [&node.us, &node.per_second, &node.spans, &node.sent].map(|of| median(of[kind].clone()));
            println!(
                "  {:<13} {per_second:>8.0}/s (costs {:+.1} % beside tracing off, {:+.1} % beside no trails), {us:>6.2} us of processor \
                 time a request ({:+.1} %), the generator at {:.0} % of its processor; {:.1} % of the requests were sent, {:.1} % of those to be sent were dropped, {spans:.2} spans for \
                 each that was asked",
                node.name,
                beside_off * 100.0,
                beside_none * 100.0,
                time_beside_off * 100.0,
                generator * 100.0,
                sent * 100.0,
                node.dropped(kind) * 100.0
            );
            if let Some(most) = place.checked_sub(OFF + 1).map(|place| MOST[place]) {
                let cost = if generator < GENERATOR_IS_BUSY {
                    beside_off
                } else {
                    time_beside_off
                };
                is_cheap &= cost <= most;
            }
            is_cheap &= node.name != HUNDREDTH || sent >= LEAST_SENT * node.ratio;
        }
    }
    is_cheap &= measure_paced(&mut nodes, rounds, time).await?;
    let [spans, requests] = swallowed.0.counts();
    println!("the collector was sent {spans} spans of {requests} requests");
    let ns = ns_of_observation();
    for (kind, what) in ["read", "write"].into_iter().enumerate() {
        let before = nodes[OFF].observed()?;
        let done = if kind == 0 {
            keep_busy(&nodes[OFF].clients, UNDER_WAY, time, get).await?
        } else {
            keep_busy(&nodes[OFF].clients, UNDER_WAY, time, put).await?
        };
        let each = (nodes[OFF].observed()? - before) / done.operations as f64;
        let share = each * ns / 1000.0 / median(nodes[OFF].us[kind].clone());
        println!(
            "metrics: {each:.1} observations a {what}, {ns:.0} ns each, {:.2} % of its processor time",
            share * 100.0
        );
        is_cheap &= share <= MOST_OF_METRICS;
    }
    Ok(is_cheap)
}

fn main() -> Result<ExitCode, Failure> {
    let (mut rounds, mut seconds) = (9, 2.0);
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--bench" => {}
            "--rounds" => rounds = args.next().ok_or("--rounds needs a number")?.parse()?,
            "--seconds" => seconds = args.next().ok_or("--seconds needs a number")?.parse()?,
            other => return Err(format!("{other}: there are --rounds N and --seconds S").into()),
        }
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let is_cheap = runtime.block_on(measure(rounds, Duration::from_secs_f64(seconds)))?;
    Ok(if is_cheap { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
