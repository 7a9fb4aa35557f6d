//! The admin service, on a socket of its own.
//!
//! Owns: its wire and its socket. Does not own: the work. The socket lies in the data directory and is its owner's alone:
//! what is asked here is done with the node's rights. Where the configuration names tokens for administration, each call needs one as
//! well.

mod node_status;

pub(crate) use node_status::{open_status, parent, status};

use crate::actors::drain::DrainPhase;
use crate::actors::health::Health;
use crate::actors::maintenance::Maintenance;
use crate::rpc::admin_pb as pb;
use crate::rpc::admin_pb::admin_service_server::{AdminService, AdminServiceServer};
use crate::rpc::security::{Guard, Security, Whom};
use crate::rpc::status;
use crate::storage::backup;
use crate::storage::error::Error;
use crate::storage::verify::Damage;
use std::fs::Permissions;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::{Request, Response, Status};

/// Name of the socket in the data directory.
pub const SOCKET: &str = "admin.sock";

/// Makes the socket. One that an earlier process left is replaced: the caller has the directory to himself.
///
/// # Errors
/// As the operating system's: for example when the path is longer than about 100 bytes.
pub fn bind(data_dir: &Path) -> io::Result<UnixListener> {
    let path = data_dir.join(SOCKET);
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&path)?;
    std::fs::set_permissions(&path, Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Serves until the task that runs it is ended.
pub async fn serve(
    listener: UnixListener,
    maintenance: Maintenance,
    health: Arc<Health>,
    set_log_level: SetLogLevel,
    security: Arc<Security>,
) {
    let admin = Admin {
        maintenance,
        set_log_level,
        health,
    };
    let served = tonic::transport::Server::builder()
        .layer(Guard::new(&security, Whom::Admins))
        .add_service(AdminServiceServer::new(admin))
        .serve_with_incoming(UnixListenerStream::new(listener))
        .await;
    if let Err(error) = served {
        tracing::error!(%error, "the admin service ended");
    }
}

fn damage(error: Error) -> pb::Damage {
    let damage = Damage::of(Path::new(""), error);
    pb::Damage {
        file: damage.file.display().to_string(),
        offset: damage.offset,
        detail: damage.detail,
    }
}

/// Changes what is logged. Answers with what was logged until then, or says why not.
pub type SetLogLevel = fn(&str) -> Result<String, String>;

struct Admin {
    maintenance: Maintenance,
    set_log_level: SetLogLevel,
    health: Arc<Health>,
}

#[tonic::async_trait]
impl AdminService for Admin {
    async fn backup(&self, request: Request<pb::BackupRequest>) -> Result<Response<pb::BackupResponse>, Status> {
        let request = request.into_inner();
        let base = PathBuf::from(&request.directory);
        if !base.is_absolute() {
            return Err(Status::invalid_argument("directory: must be an absolute path"));
        }
        if !backup::is_name(&request.name) {
            return Err(Status::invalid_argument(
                "name: must be a file name that does not begin with a dot",
            ));
        }
        let copied = self
            .maintenance
            .backup(base, request.name)
            .await
            .map_err(|refusal| status::of_refusal(&refusal))?;
        Ok(Response::new(pb::BackupResponse {
            directory: copied.dir.display().to_string(),
            tables: copied.tables as u64,
            linked: copied.linked as u64,
            reused: copied.reused as u64,
            copied: copied.copied as u64,
            bytes: copied.bytes,
            damaged: copied.damaged,
        }))
    }

    async fn verify(&self, _request: Request<pb::VerifyRequest>) -> Result<Response<pb::VerifyResponse>, Status> {
        let verified = self
            .maintenance
            .verify()
            .await
            .map_err(|refusal| status::of_refusal(&refusal))?;
        Ok(Response::new(pb::VerifyResponse {
            files: verified.files,
            tables: verified.tables,
            segments: verified.segments,
            bytes: verified.bytes,
            keys: verified.keys,
            damage: verified.damage.into_iter().map(damage).collect(),
            changes: verified.changes,
        }))
    }

    async fn drain(&self, request: Request<pb::DrainRequest>) -> Result<Response<pb::DrainResponse>, Status> {
        let drain = &self.maintenance.drain;
        drain.begin().await.map_err(|refusal| status::of_refusal(&refusal))?;
        let limit = Duration::from_millis(request.into_inner().timeout_ms);
        let drained = drain.settled(limit).await == DrainPhase::Drained;
        Ok(Response::new(pb::DrainResponse { drained }))
    }

    async fn undrain(&self, _request: Request<pb::UndrainRequest>) -> Result<Response<pb::UndrainResponse>, Status> {
        let ended = self.maintenance.drain.end().await;
        ended.map_err(|refusal| status::of_refusal(&refusal))?;
        Ok(Response::new(pb::UndrainResponse {}))
    }

    async fn set_log_level(
        &self,
        request: Request<pb::SetLogLevelRequest>,
    ) -> Result<Response<pb::SetLogLevelResponse>, Status> {
        let changed = (self.set_log_level)(&request.into_inner().filter);
        let previous = changed.map_err(Status::invalid_argument)?;
        Ok(Response::new(pb::SetLogLevelResponse { previous }))
    }

    async fn status(&self, _request: Request<pb::StatusRequest>) -> Result<Response<pb::StatusResponse>, Status> {
        Ok(Response::new(status(&self.health)))
    }
}
