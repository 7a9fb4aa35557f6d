//! The children of the supervisor.
//!
//! Owns: how each actor is made, and the order in which they start. Does not own: what they share (see
//! [`super::composition`]).

use super::composition::{Parts, bytes};
use super::gossip::{key_file, pace};
use crate::actors::address_book::NodeAddress;
use crate::actors::cache::CacheActor;
use crate::actors::compaction::CompactionActor;
use crate::actors::disk::DiskActor;
use crate::actors::flush::FlushActor;
use crate::actors::gateway::{Connections, RpcGateway};
use crate::actors::gossip::core::About;
use crate::actors::gossip::gossip_actor::GossipActor;
use crate::actors::gossip::watch::GossipWatch;
use crate::actors::mailbox::{Bound, Mailbox};
use crate::actors::memtable::MemtableActor;
use crate::actors::registration::{Coordinator, Member, RegistrationActor};
use crate::actors::restarts::Intensity;
use crate::actors::scrub::ScrubActor;
use crate::actors::streaming::streams_actor::StreamsActor;
use crate::actors::streaming::work::Source;
use crate::actors::supervisor::ChildSpec;
use crate::actors::vitals::VitalsActor;
use crate::actors::wal::{SyncPolicy, WalActor, WalOptions};
use crate::config::Config;
use crate::rpc::coordinator::GrpcCoordinator;
use crate::storage::cache::CacheOptions;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

/// Bound of the mailbox of an actor that nobody else sends to.
const OWN_MESSAGES: Bound = Bound { messages: 16, bytes: 0 };
/// Longest time between two looks at the age of log segments.
const LONGEST_AGE_CHECK: Duration = Duration::from_secs(10);

/// How often an actor may end.
pub(super) fn intensity(config: &Config) -> Intensity {
    Intensity {
        restarts: config.supervisor.max_restarts,
        window: config.supervisor.restart_window,
    }
}

impl Parts {
    /// The children of the supervisor, in the order of their start: whoever is sent to before who sends.
    pub(super) fn children(
        &self,
        config: &Config,
        listener: Arc<TcpListener>,
        connections: Arc<Connections>,
        port: u16,
    ) -> Vec<ChildSpec> {
        let handles = &self.requests.handles;
        let mut children = vec![self.vitals()];
        let shard_bytes = bytes(config.cache.max_size) / handles.caches.len().max(1);
        for (shard, (cache, held)) in handles.caches.iter().zip(&self.health.shards).enumerate() {
            let options = CacheOptions {
                max_bytes: shard_bytes,
                frequency_weight: config.cache.frequency_weight,
                recency_weight: config.cache.recency_weight,
                adaptive_window: config.cache.adaptive_window,
            };
            let (loads, stats) = (Arc::clone(&self.requests.loads), Arc::clone(&self.health.cache));
            let (held, handles) = (Arc::clone(held), handles.clone());
            children.push(ChildSpec::new(
                format!("cache-{shard}"),
                cache.mailbox.clone(),
                move || CacheActor {
                    shard,
                    options,
                    loads: Arc::clone(&loads),
                    stats: Arc::clone(&stats),
                    held: Arc::clone(&held),
                    handles: handles.clone(),
                },
            ));
        }
        let throttle = Arc::clone(&self.scrub_throttle);
        let (tables, progress) = (Arc::clone(&self.tables), Arc::clone(&self.health.scrub));
        let (interval, neighbours) = (config.disk.scrub_interval, handles.clone());
        children.push(ChildSpec::new("scrub", handles.scrub.clone(), move || ScrubActor {
            tables: Arc::clone(&tables),
            interval,
            throttle: Arc::clone(&throttle),
            progress: Arc::clone(&progress),
            mailbox: neighbours.scrub.clone(),
            handles: neighbours.clone(),
        }));
        let dirs = vec![
            config.storage.data_dir.clone(),
            config.sstable_dir(),
            config.commit_log_dir(),
        ];
        let (fs, watch, mailbox) = (
            Arc::clone(&self.fs),
            Arc::clone(&self.health.disk),
            handles.disk.clone(),
        );
        let (every, threads) = (config.disk.check_interval, handles.threads.clone());
        children.push(ChildSpec::new("disk", handles.disk.clone(), move || DiskActor {
            fs: Arc::clone(&fs),
            dirs: dirs.clone(),
            every,
            watch: Arc::clone(&watch),
            threads: threads.clone(),
            mailbox: mailbox.clone(),
        }));
        let (tables, jobs, stats) = (
            Arc::clone(&self.tables),
            Arc::clone(&self.jobs),
            Arc::clone(&self.health.compaction),
        );
        let (workers, neighbours) = (config.compaction.workers, handles.clone());
        children.push(ChildSpec::new("compaction", handles.compaction.clone(), move || {
            CompactionActor {
                tables: Arc::clone(&tables),
                jobs: Arc::clone(&jobs),
                workers,
                stats: Arc::clone(&stats),
                handles: neighbours.clone(),
            }
        }));
        let (tables, stats) = (Arc::clone(&self.tables), Arc::clone(&self.health.flush));
        let (time, neighbours) = (Arc::clone(&self.time), handles.clone());
        children.push(ChildSpec::new("flush", handles.flush.clone(), move || FlushActor {
            tables: Arc::clone(&tables),
            stats: Arc::clone(&stats),
            time: Arc::clone(&time),
            handles: neighbours.clone(),
        }));
        let (stats, neighbours) = (Arc::clone(&self.health.memtable), handles.clone());
        let (flush_threshold, num_mem_tables) =
            (bytes(config.mem_table.flush_threshold), config.mem_table.num_mem_tables);
        children.push(ChildSpec::new("memtable", handles.memtable.clone(), move || {
            MemtableActor {
                flush_threshold,
                num_mem_tables,
                stats: Arc::clone(&stats),
                handles: neighbours.clone(),
            }
        }));
        let (log, time, neighbours) = (Arc::clone(&self.log), Arc::clone(&self.time), handles.clone());
        let options = WalOptions {
            node_id: config.server.node_id.clone(),
            buffer_size: bytes(config.commit_log.buffer_size),
            sync: SyncPolicy {
                every_batch: config.commit_log.sync_writes,
                interval: config.commit_log.sync_interval,
            },
            age_check: (config.commit_log.max_age / 8).clamp(Duration::from_millis(50), LONGEST_AGE_CHECK),
        };
        children.push(ChildSpec::new("wal", handles.wal.clone(), move || WalActor {
            log: Arc::clone(&log),
            options: options.clone(),
            time: Arc::clone(&time),
            handles: neighbours.clone(),
        }));
        children.push(self.streams(config));
        let neighbours = handles.clone();
        children.push(ChildSpec::new("gateway", handles.gateway.clone(), move || RpcGateway {
            listener: Arc::clone(&listener),
            connections: Arc::clone(&connections),
            handles: neighbours.clone(),
        }));
        // Once the node can be reached.
        children.extend(config.coordinator.enabled.then(|| self.registration(config, port)));
        let gossip = self.health.gossip.clone();
        children.extend(gossip.map(|watch| self.gossip(config, port, watch)));
        children
    }

    fn vitals(&self) -> ChildSpec {
        let (vitals, history) = (Arc::clone(&self.health.vitals), Arc::clone(&self.health.history));
        let mailbox = Mailbox::new(OWN_MESSAGES);
        ChildSpec::new("vitals", mailbox.clone(), move || VitalsActor {
            vitals: Arc::clone(&vitals),
            history: Arc::clone(&history),
            mailbox: mailbox.clone(),
        })
    }

    fn streams(&self, config: &Config) -> ChildSpec {
        let (streams, tree) = (Arc::clone(&self.requests.streaming.streams), Arc::clone(&self.tree));
        let source = Source {
            published: Arc::clone(&self.requests.handles.published),
            peers: self.requests.peers.clone(),
            within: self.requests.timeouts.write,
            faults: Arc::clone(&self.requests.handles.faults),
            traces: Arc::clone(&self.requests.handles.traces),
        };
        let (intensity, stuck_after) = (intensity(config), config.supervisor.stuck_after);
        let mailbox = self.requests.handles.streams.clone();
        ChildSpec::new("streams", mailbox.clone(), move || StreamsActor {
            streams: Arc::clone(&streams),
            source: source.clone(),
            tree: Arc::clone(&tree),
            mailbox: mailbox.clone(),
            intensity,
            stuck_after,
        })
    }

    fn gossip(&self, config: &Config, port: u16, watch: Arc<GossipWatch>) -> ChildSpec {
        let (told, health, book) = (
            &config.gossip,
            Arc::clone(&self.health),
            self.requests.peers.book.clone(),
        );
        let address = NodeAddress {
            host: config.advertised_host().to_owned(),
            port,
        };
        // Others cannot send to an address that means all of this node's own.
        let own_name = watch.bound.ip().is_unspecified().then(|| {
            let port = watch.bound.port();
            NodeAddress {
                port,
                ..address.clone()
            }
            .to_string()
        });
        let about = About {
            address,
            version: env!("CARGO_PKG_VERSION").to_owned(),
        };
        let pace = pace(config);
        let (node_id, seeds, key_file) = (config.server.node_id.clone(), told.seed_nodes.clone(), key_file(config));
        let (threads, name_service) = (self.requests.handles.threads.clone(), self.name_service.clone());
        ChildSpec::new("gossip", watch.mailbox.clone(), move || GossipActor {
            node_id: node_id.clone(),
            about: about.clone(),
            own_name: own_name.clone(),
            seeds: seeds.clone(),
            pace,
            key_file: key_file.clone(),
            health: Arc::clone(&health),
            book: book.clone(),
            threads: threads.clone(),
            name_service: name_service.clone(),
            watch: Arc::clone(&watch),
        })
    }

    fn registration(&self, config: &Config, port: u16) -> ChildSpec {
        let told = &config.coordinator;
        let coordinator: Arc<dyn Coordinator> = Arc::new(GrpcCoordinator {
            address: NodeAddress {
                host: told.host.clone(),
                port: told.port,
            },
            connect_timeout: told.timeout,
            security: Arc::clone(&self.security),
        });
        let member = Member {
            node_id: config.server.node_id.clone(),
            address: NodeAddress {
                host: config.advertised_host().to_owned(),
                port,
            },
            virtual_nodes: told.virtual_nodes,
        };
        let (tries, interval, timeout) = (told.tries, told.interval, told.timeout);
        let (watch, mailbox) = (Arc::clone(&self.health.registration), Mailbox::new(OWN_MESSAGES));
        ChildSpec::new("registration", mailbox.clone(), move || RegistrationActor {
            coordinator: Arc::clone(&coordinator),
            member: member.clone(),
            tries,
            interval,
            timeout,
            watch: Arc::clone(&watch),
            mailbox: mailbox.clone(),
        })
    }
}
