//! `fault`: breaks a single actor of a node.
//!
//! Owns: arguments, and what a person reads. Does not own: what happens (the node's; see `admin.fault_injection`).

use super::client::{explain, fault_service};
use super::{AdminAccess, Failure};
use crate::rpc::admin_pb as pb;
use clap::{Args, Subcommand, ValueEnum};
use std::process::ExitCode;
use std::time::Duration;

/// How much further to the right children stand than their parent.
const INDENT: usize = 2;

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
    /// Show the tree of actors with their points, what is armed, and what happened
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

/// Each parent before its children, and how deep each is below those without one. Where a parent is not there, a child is taken
/// for one that has none.
fn tree(targets: &[pb::Target]) -> Vec<(usize, &pb::Target)> {
    let is_there = |name: &str| targets.iter().any(|target| target.actor == name);
    let roots = targets.iter().filter(|target| !is_there(&target.parent));
    let mut left: Vec<(usize, &pb::Target)> = roots.rev().map(|root| (0, root)).collect();
    let mut lines = Vec::new();
    while let Some((depth, target)) = left.pop() {
        let children = targets.iter().filter(|child| child.parent == target.actor);
        left.extend(children.rev().map(|child| (depth + 1, child)));
        lines.push((depth, target));
    }
    lines
}

fn listed(node: &pb::ActorsResponse) -> String {
    let mut text = String::new();
    let lines = tree(&node.targets);
    let width = lines.iter().map(|(depth, target)| INDENT * depth + target.actor.len());
    let width = width.max().unwrap_or(0) + INDENT;
    for (depth, target) in lines {
        let state = match (target.running, target.generation) {
            (true, 0) => String::new(),
            (true, generation) => format!("generation {generation}"),
            (false, _) => "restarting".to_owned(),
        };
        let name = format!("{:1$}{2}", "", INDENT * depth, target.actor);
        let line = format!("{name:<width$}{state:<16}{}", target.points.join(" "));
        text += &format!("{}\n", line.trim_end());
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn children_stand_below_their_parents_and_further_to_the_right() {
        let target = |actor: &str, parent: &str, running, generation| pb::Target {
            actor: actor.to_owned(),
            points: vec!["start".to_owned(), "message".to_owned()],
            running,
            generation,
            parent: parent.to_owned(),
        };
        let node = pb::ActorsResponse {
            targets: vec![
                target("supervisor", "", true, 0),
                target("wal", "supervisor", true, 2),
                target("streams", "supervisor", true, 1),
                target("scrub", "supervisor", false, 1),
                target("stream-node2", "streams", true, 1),
                target("disk-io", "", true, 0),
            ],
            ..pb::ActorsResponse::default()
        };
        let expected = "\
supervisor                        start message
  wal             generation 2    start message
  streams         generation 1    start message
    stream-node2  generation 1    start message
  scrub           restarting      start message
disk-io                           start message
";
        assert_eq!(listed(&node), expected);
    }
}
