//! The fault service, on a listener of its own.
//!
//! Owns: its wire, and the bounds of its connections. Does not own: what is injected (see [`crate::actors::faults`]), or whether it is served at all.

use crate::actors::faults::{DISK_IO, Fault, Faults, Injection, MESSAGE, Refused, SUPERVISOR};
use crate::rpc::admin::parent;
use crate::rpc::admin_pb as pb;
use crate::rpc::admin_pb::fault_service_server::{FaultService, FaultServiceServer};
use crate::rpc::security::{Guard, Incoming, Security, Whom};
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

/// Connections at a time; more wait in the socket's queue.
const MOST: usize = 16;
/// A connection that is silent for so long is asked whether it lives, and closed when it does not say so within as long again.
const SILENT: Duration = Duration::from_secs(10);

/// Pause after a failed accept: without file descriptors the next one would fail at once as well.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves until the task that runs it is ended.
pub async fn serve(listener: TcpListener, faults: Arc<Faults>, security: Arc<Security>) {
    let (accepted, incoming) = mpsc::channel(1);
    let served = tonic::transport::Server::builder()
        .http2_keepalive_interval(Some(SILENT))
        .http2_keepalive_timeout(Some(SILENT))
        .layer(Guard::new(&security, Whom::Admins))
        .add_service(FaultServiceServer::new(Injector { faults }))
        .serve_with_incoming(ReceiverStream::new(incoming));
    tokio::select! {
        served = served => {
            if let Err(error) = served {
                tracing::error!(%error, "the fault service ended");
            }
        }
        () = accept(listener, accepted, &security) => {}
    }
}

/// Hands each connection over, as soon as there is a place for it.
async fn accept(listener: TcpListener, to: mpsc::Sender<io::Result<Incoming>>, security: &Security) {
    let places = Arc::new(Semaphore::new(MOST));
    while let Ok(place) = Arc::clone(&places).acquire_owned().await {
        let stream = match listener.accept().await {
            Ok((stream, _peer)) => stream,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection at admin.port");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let incoming = Incoming::new(stream, security.server(), &security.counts, place);
        if to.send(Ok(incoming)).await.is_err() {
            return;
        }
    }
}

struct Injector {
    faults: Arc<Faults>,
}

fn invalid(refused: Refused) -> Status {
    Status::invalid_argument(refused.0)
}

fn fault(request: &pb::InjectRequest) -> Result<Fault, Status> {
    match request.fault.as_str() {
        "panic" => Ok(Fault::Panic),
        "kill" => Ok(Fault::Kill),
        "error" => Ok(Fault::Error),
        "disk-full" => Ok(Fault::DiskFull),
        "stall" => Ok(Fault::Stall(Duration::from_millis(request.stall_ms))),
        "drop" => Ok(Fault::Drop),
        other => Err(Status::invalid_argument(format!(
            "fault: there is no {other:?}; there are panic, kill, error, disk-full, stall and drop"
        ))),
    }
}

fn target(faults: &Faults, actor: String) -> pb::Target {
    let child = faults.tree().children().into_iter().find(|child| child.name == actor);
    pb::Target {
        points: Faults::points(&actor).into_iter().map(ToOwned::to_owned).collect(),
        running: child
            .as_ref()
            .map_or(actor == SUPERVISOR || actor == DISK_IO, |child| child.running),
        generation: child.as_ref().map_or(0, |child| child.generation),
        parent: child.map_or("", |child| parent(&child.name)).to_owned(),
        actor,
    }
}

#[tonic::async_trait]
impl FaultService for Injector {
    async fn actors(&self, _request: Request<pb::ActorsRequest>) -> Result<Response<pb::ActorsResponse>, Status> {
        let faults = &self.faults;
        let armed = |(id, injection): (u64, Injection)| pb::Injection {
            id,
            actor: injection.actor,
            point: injection.point,
            fault: injection.fault.to_string(),
        };
        let happened = faults.happened().into_iter().map(|happened| pb::Injection {
            id: happened.id,
            actor: happened.actor,
            point: happened.point,
            fault: happened.fault.to_string(),
        });
        Ok(Response::new(pb::ActorsResponse {
            targets: faults.actors().into_iter().map(|actor| target(faults, actor)).collect(),
            armed: faults.armed().into_iter().map(armed).collect(),
            happened: happened.collect(),
        }))
    }

    async fn inject(&self, request: Request<pb::InjectRequest>) -> Result<Response<pb::InjectResponse>, Status> {
        let request = request.into_inner();
        let fault = fault(&request)?;
        if request.point.is_empty() && fault == Fault::Kill {
            self.faults.check_actor(&request.actor).map_err(invalid)?;
            let struck = self.faults.kill(&request.actor);
            return Ok(Response::new(pb::InjectResponse { id: 0, struck }));
        }
        let point = if request.point.is_empty() {
            MESSAGE.to_owned()
        } else {
            request.point
        };
        let injected = self.faults.inject(Injection {
            actor: request.actor,
            point,
            fault,
            after: request.after,
            times: if request.forever { 0 } else { request.times.max(1) },
            one_in: request.one_in.max(1),
            seed: request.seed,
        });
        let id = injected.map_err(invalid)?;
        Ok(Response::new(pb::InjectResponse { id, struck: false }))
    }

    async fn clear(&self, request: Request<pb::ClearRequest>) -> Result<Response<pb::ClearResponse>, Status> {
        let id = request.into_inner().id;
        let cleared = self.faults.clear((id != 0).then_some(id));
        Ok(Response::new(pb::ClearResponse {
            cleared: cleared as u64,
        }))
    }
}
