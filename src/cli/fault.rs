//! `fault`: breaks a single actor of a node.
//!
//! Owns: arguments, and what a person reads. Does not own: what happens (the node's; see `admin.fault_injection`).

use super::client::{explain, fault_service};
use super::{AdminAccess, Failure};
use crate::rpc::admin_pb as pb;
use clap::{Args, Subcommand, ValueEnum};
use std::process::ExitCode;
use std::time::Duration;

#[derive(Debug, Args)]
pub(super) struct FaultArgs {
    /// Address at which the node lets faults be injected: its admin.host and admin.port
    #[arg(long, global = true, value_name = "URL", default_value = "http://127.0.0.1:50053")]
    admin_addr: String,
    #[command(flatten)]
    access: AdminAccess,
    #[command(subcommand)]
    command: FaultCommand,
}

#[derive(Debug, Subcommand)]
enum FaultCommand {
    /// Show the actors with their points, what is armed, and what happened
    List,
    /// Inject a fault
    Inject(InjectArgs),
    /// Take back what has not happened yet
    Clear {
        /// Number of the injection; without it, all
        id: Option<u64>,
    },
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Kind {
    /// The actor, or its thread, panics
    Panic,
    /// It is killed
    Kill,
    /// It fails with an error; the disk, with EIO
    Error,
    /// The disk has no space
    DiskFull,
    /// It does nothing for the time of --stall
    Stall,
    /// A message is lost
    Drop,
}

#[derive(Debug, Args)]
struct InjectArgs {
    /// Actor, as `list` names it
    actor: String,
    /// What happens to it
    fault: Kind,
    /// Point at which; without one a kill strikes now, and everything else with the next message
    #[arg(long)]
    point: Option<String>,
    /// How long a stall lasts
    #[arg(long, value_name = "TIME", default_value = "100ms", value_parser = humantime::parse_duration)]
    stall: Duration,
    /// Times that the point is passed unharmed before
    #[arg(long, value_name = "N", default_value_t = 0)]
    after: u64,
    /// How often it happens
    #[arg(long, value_name = "N", default_value_t = 1, conflicts_with = "forever")]
    times: u64,
    /// It happens until it is cleared
    #[arg(long)]
    forever: bool,
    /// It happens at one in so many passes, chosen by chance
    #[arg(long, value_name = "N", default_value_t = 1)]
    one_in: u32,
    /// Where that chance begins: the same seed chooses the same passes
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
}

pub(super) async fn run(args: FaultArgs) -> Result<ExitCode, Failure> {
    let mut node = fault_service(&args.admin_addr, &args.access.access()).await?;
    match args.command {
        FaultCommand::List => {
            let answer = node.actors(pb::ActorsRequest {}).await;
            print!("{}", listed(&answer.map_err(|status| explain(&status))?.into_inner()));
        }
        FaultCommand::Inject(inject) => {
            let answer = node.inject(request(inject)).await;
            let answer = answer.map_err(|status| explain(&status))?.into_inner();
            match (answer.id, answer.struck) {
                (0, true) => println!("killed"),
                (0, false) => return Err("it was not running: it is being started again".into()),
                (id, _) => println!("injection {id} is armed"),
            }
        }
        FaultCommand::Clear { id } => {
            let answer = node.clear(pb::ClearRequest { id: id.unwrap_or(0) }).await;
            let cleared = answer.map_err(|status| explain(&status))?.into_inner().cleared;
            println!("{cleared} cleared");
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn request(args: InjectArgs) -> pb::InjectRequest {
    let fault = args.fault.to_possible_value();
    pb::InjectRequest {
        actor: args.actor,
        point: args.point.unwrap_or_default(),
        fault: fault.map(|fault| fault.get_name().to_owned()).unwrap_or_default(),
        stall_ms: u64::try_from(args.stall.as_millis()).unwrap_or(u64::MAX),
        after: args.after,
        times: args.times,
        forever: args.forever,
        one_in: args.one_in,
        seed: args.seed,
    }
}

fn listed(node: &pb::ActorsResponse) -> String {
    let mut text = String::new();
    for target in &node.targets {
        let state = match (target.running, target.generation) {
            (true, 0) => String::new(),
            (true, generation) => format!("generation {generation}"),
            (false, _) => "restarting".to_owned(),
        };
        text += &format!("{:<14}{state:<16}{}\n", target.actor, target.points.join(" "));
    }
    for (what, injections) in [("armed", &node.armed), ("happened", &node.happened)] {
        for injection in injections {
            let pb::Injection {
                id,
                actor,
                point,
                fault,
            } = injection;
            text += &format!("{what} {id}: {fault} of {actor} at {point}\n");
        }
    }
    text
}
