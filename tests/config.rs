//! The configuration: what is refused, and how it is told.

use pairdb_node::config::Config;
use std::path::Path;

fn load(toml: &str) -> Result<Config, String> {
    load_with(toml, &[], &[])
}

fn load_with(toml: &str, environment: &[(&str, &str)], flags: &[(&str, String)]) -> Result<Config, String> {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("config.toml");
    std::fs::write(&file, toml).unwrap();
    let environment = environment.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
    Config::load(Some(&file), environment, flags).map_err(|error| error.to_string())
}

#[test]
fn the_shipped_file_holds_every_key_with_its_default() {
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("config.toml");
    assert_eq!(Config::load(Some(&shipped), [], &[]).unwrap(), Config::default());
    let text = std::fs::read_to_string(shipped).unwrap();
    let defaults = serde_json::to_value(Config::default()).unwrap();
    for (section, keys) in defaults.as_object().unwrap() {
        assert!(text.contains(&format!("[{section}]")), "no [{section}]");
        for key in keys.as_object().unwrap().keys() {
            assert!(
                text.lines()
                    .any(|line| line.trim_start_matches("# ").starts_with(&format!("{key} = "))),
                "{section}.{key} is not in config.toml"
            );
        }
    }
}

#[test]
fn file_then_environment_then_flags() {
    let toml = "[server]\nport = 1\nnode_id = \"file\"\nhost = \"localhost\"\n[gossip]\nseed_nodes = [\"a:1\"]";
    let environment = [
        ("PAIRDB__SERVER__PORT", "2"),
        ("NODE_ID", "007"),
        ("PAIRDB__GOSSIP__SEED_NODES", "b:2, c:3"),
        ("PAIRDB__COMMIT_LOG__MAX_AGE", "36h"),
        ("PAIRDB__COMMIT_LOG__SYNC_WRITES", "false"),
        ("UNRELATED", "x"),
    ];
    let config = load_with(toml, &environment, &[("server.port", "3".to_owned())]).unwrap();
    assert_eq!(config.server.port, 3);
    assert_eq!(config.server.node_id, "007");
    assert_eq!(config.server.host, "localhost");
    assert_eq!(config.gossip.seed_nodes, ["b:2", "c:3"]);
    assert_eq!(config.commit_log.max_age.as_secs(), 36 * 3600);
    assert!(!config.commit_log.sync_writes);
}

#[test]
fn quotas_are_named_by_tenant_whatever_its_name_and_the_environment_comes_second() {
    let toml = "[tenants.default]\noperations_per_s = 5\n[tenants.quota.acme]\noperations_per_s = 7\n\
                [tenants.quota.\"Big.Corp-1\"]\nstored_bytes = \"10GiB\"\n[tenants.quota.free]";
    let environment = [
        ("PAIRDB__TENANTS__DEFAULT__OPERATIONS_PER_S", "6"),
        ("PAIRDB__TENANTS__QUOTA__ACME__BYTES_PER_S", "4MiB"),
    ];
    let tenants = load_with(toml, &environment, &[]).unwrap().tenants;
    assert_eq!(tenants.default.operations_per_s, 6);
    assert_eq!(tenants.quota.len(), 3);
    let acme = tenants.quota["acme"];
    assert_eq!((acme.operations_per_s, acme.bytes_per_s.as_u64()), (7, 4 << 20));
    assert_eq!(tenants.quota["Big.Corp-1"].stored_bytes.as_u64(), 10 << 30);
    assert_eq!(tenants.quota["free"], pairdb_node::config::Quota::default());
}

#[test]
fn directories_follow_the_data_directory() {
    let config = load("[storage]\ndata_dir = \"/d\"\nsstable_dir = \"/t\"").unwrap();
    assert_eq!(config.commit_log_dir(), Path::new("/d/commitlog"));
    assert_eq!(config.sstable_dir(), Path::new("/t"));
}

#[test]
fn unknown_keys_and_wrong_types_are_refused_by_name() {
    for (toml, expected) in [
        ("[server]\nprot = 1", "prot"),
        ("[sevrer]\nport = 1", "sevrer"),
        ("[server]\nport = \"x\"", "server.port"),
        ("[server]\nport = 70000", "server.port"),
        ("[mem_table]\nmax_size = \"many\"", "mem_table.max_size"),
        ("[server]\nread_timeout = \"soon\"", "server.read_timeout"),
        ("[logging]\nlevel = \"loud\"", "logging.level"),
        ("[tenants]\nquotas = {}", "quotas"),
        ("[tenants.quota.acme]\noperations = 1", "operations"),
        (
            "[tenants.quota.acme]\noperations_per_s = -1",
            "tenants.quota.acme.operations_per_s",
        ),
        (
            "[tenants.default]\nbytes_per_s = \"fast\"",
            "tenants.default.bytes_per_s",
        ),
        ("not toml", "config.toml"),
    ] {
        let error = load(toml).expect_err(toml);
        assert!(error.contains(expected), "{toml:?}: {error}");
    }
    let unknown = load_with("", &[("PAIRDB__SERVER__PROT", "1")], &[]).unwrap_err();
    assert!(unknown.contains("prot"), "{unknown}");
}

#[test]
fn impossible_values_are_refused_with_what_would_be_right() {
    for (toml, key, right) in [
        ("[server]\nnode_id = \"\"", "server.node_id", "1 to 128"),
        ("[server]\nmax_connections = 0", "server.max_connections", "at least 1"),
        (
            "[server]\nmax_concurrent_streams = 0",
            "server.max_concurrent_streams",
            "at least 1",
        ),
        (
            "[server]\nkeepalive_timeout = \"0s\"",
            "server.keepalive_timeout",
            "longer than zero",
        ),
        (
            "[server]\nwrite_timeout = \"0s\"",
            "server.write_timeout",
            "longer than zero",
        ),
        (
            "[commit_log]\nsegment_size = \"1KiB\"",
            "commit_log.segment_size",
            "64KiB",
        ),
        (
            "[commit_log]\nbuffer_size = \"1GiB\"",
            "commit_log.buffer_size",
            "256MiB",
        ),
        ("[mem_table]\nmax_size = \"1MiB\"", "mem_table.max_size", "16MiB"),
        (
            "[mem_table]\nflush_threshold = \"65MiB\"",
            "mem_table.flush_threshold",
            "mem_table.max_size",
        ),
        ("[mem_table]\nnum_mem_tables = 1", "mem_table.num_mem_tables", "2 to 64"),
        ("[sstable]\nbloom_filter_fp = 0.0", "sstable.bloom_filter_fp", "0.5"),
        ("[sstable]\nblock_size = \"5MiB\"", "sstable.block_size", "4MiB"),
        ("[sstable]\nindex_interval = 0", "sstable.index_interval", "at least 1"),
        ("[sstable]\nl1_size = \"1KiB\"", "sstable.l1_size", "1MiB"),
        (
            "[sstable]\nlevel_multiplier = 0",
            "sstable.level_multiplier",
            "1 to 100",
        ),
        ("[compaction]\nl0_trigger = 0", "compaction.l0_trigger", "1 to 100"),
        (
            "[compaction]\nworkers = 65",
            "compaction.workers",
            "0 (no compaction) to 64",
        ),
        ("[disk]\nwarn_usage = 0.95", "disk.warn_usage", "storage.max_disk_usage"),
        (
            "[storage]\nmax_disk_usage = 0.99",
            "storage.max_disk_usage",
            "disk.stop_usage",
        ),
        ("[disk]\nstop_usage = 1.5", "disk.stop_usage", "at most 1"),
        ("[cache]\nfrequency_weight = 2.0", "cache.frequency_weight", "0 to 1"),
        (
            "[cache]\nfrequency_weight = 0.0\nrecency_weight = 0.0",
            "cache.recency_weight",
            "above 0",
        ),
        (
            "[tenants.quota.\"a:b\"]\nstored_bytes = 1",
            "tenants.quota.\"a:b\"",
            "without ':'",
        ),
        ("[tenants.quota.\"\"]", "tenants.quota.\"\"", "1 to 256 bytes"),
        ("[metrics]\nhost = \"\"", "metrics.host", "127.0.0.1"),
        ("[metrics]\npath = \"metrics\"", "metrics.path", "begin with"),
        ("[metrics]\nport = 50052", "metrics.port", "another than server.port"),
        ("[metrics]\npath = \"/{all}\"", "metrics.path", "letters"),
        ("[metrics]\npath = \"/status\"", "metrics.path", "neither /status"),
        (
            "[supervisor]\nmax_restarts = 0",
            "supervisor.max_restarts",
            "1 to 100000",
        ),
    ] {
        let error = load(toml).expect_err(toml);
        assert!(error.contains(key) && error.contains(right), "{toml:?}: {error}");
    }
}

#[test]
fn a_password_in_the_collectors_address_is_refused_and_not_told() {
    for scheme in ["http", "https"] {
        let toml = format!("[tracing]\nendpoint = \"{scheme}://user:secret@collector:4317\"");
        let error = load(&toml).unwrap_err().to_string();
        assert!(error.contains("tracing.endpoint"), "{error}");
        assert!(!error.contains("secret"), "{error}");
    }
}

#[test]
fn gossip_that_cannot_work_is_refused_with_what_would_be_right() {
    assert!(
        load("[gossip]\nenabled = true\nbind_port = 0").is_ok(),
        "loopback needs no key"
    );
    let open = "[server]\nadvertise_host = \"10.0.0.1\"\n[gossip]\nenabled = true\nbind_host = \"0.0.0.0\"\n";
    assert!(load(&format!("{open}key_file = \"keys\"")).is_ok());
    for (toml, key, right) in [
        (open, "gossip.key_file", "openssl rand -base64 32"),
        (
            "[server]\nhost = \"0.0.0.0\"\n[gossip]\nenabled = true\nkey_file = \"keys\"",
            "gossip.bind_host",
            "server.advertise_host",
        ),
        (
            "[gossip]\nprobe_timeout = \"1s\"",
            "gossip.probe_timeout",
            "shorter than gossip.probe_interval",
        ),
        ("[gossip]\ngossip_interval = \"0s\"", "gossip.gossip_interval", "10ms"),
        ("[gossip]\nseed_nodes = [\"n2\"]", "gossip.seed_nodes", "host:port"),
        ("[gossip]\ncluster_name = \"\"", "gossip.cluster_name", "1 to 128 bytes"),
    ] {
        let error = load(toml).expect_err(toml);
        assert!(error.contains(key) && error.contains(right), "{toml:?}: {error}");
    }
}

#[test]
fn all_that_does_not_fit_is_told_at_once() {
    let toml = "[server]\nport = \"x\"\nread_timeout = \"soon\"\n[cache]\nfrequency_weight = 2.0\n[tenants.quota.\"a.b\"]\n\
                bytes_per_s = \"fast\"\n[mem_table]\nmax_size = \"1MiB\"";
    let error = load(toml).unwrap_err();
    for key in [
        "server.port",
        "server.read_timeout",
        "cache.frequency_weight",
        "tenants.quota.a.b.bytes_per_s",
        "mem_table.max_size",
    ] {
        assert!(error.contains(key), "{key}: {error}");
    }
}

#[test]
fn what_goes_together_in_security_is_checked() {
    for (toml, expected) in [
        ("tls_cert = \"a\"", "must both be there"),
        ("tls_key = \"a\"", "must both be there"),
        ("client_ca = \"a\"", "needs security.tls_cert"),
        ("tokens_file = \"\"", "must be a file"),
        ("check_interval = \"0s\"", "longer than zero"),
        ("tls_cret = \"a\"", "tls_cret"),
    ] {
        let error = load(&format!("[security]\n{toml}")).expect_err(toml);
        assert!(error.contains(expected), "{toml}: {error}");
    }
}

fn pairdb(args: &[&str], environment: &[(&str, &str)]) -> std::process::Output {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_pairdb-node"));
    command.args(args).envs(environment.iter().copied()).output().unwrap()
}

#[test]
fn what_is_printed_is_the_whole_of_it_and_reads_back_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let (file, again) = (dir.path().join("config.toml"), dir.path().join("again.toml"));
    let toml = "[cluster]\nnodes = { \"n 2\" = \"10.0.0.2:1\" }\n[tenants.quota.\"Big.Corp\"]\nbytes_per_s = 1234567\n\
                [cache]\nmax_size = \"1500001B\"\n[commit_log]\nmax_age = \"36h\"\n[security]\ntokens_file = \"tokens\"";
    std::fs::write(&file, toml).unwrap();
    let args = [
        "config",
        "print",
        "--config",
        file.to_str().unwrap(),
        "--listen",
        "[::1]:7",
    ];
    let printed = pairdb(&args, &[("PAIRDB__SERVER__NODE_ID", "of the environment")]);
    assert!(printed.status.success(), "{printed:?}");
    std::fs::write(&again, &printed.stdout).unwrap();
    let read = Config::load(Some(&again), [], &[]).unwrap();
    let environment = [("PAIRDB__SERVER__NODE_ID".to_owned(), "of the environment".to_owned())];
    let flags = [("server.host", "::1".to_owned()), ("server.port", "7".to_owned())];
    assert_eq!(read, Config::load(Some(&file), environment, &flags).unwrap());
    let text = String::from_utf8(printed.stdout).unwrap();
    let defaults = serde_json::to_value(Config::default()).unwrap();
    for (section, keys) in defaults.as_object().unwrap() {
        for (key, value) in keys.as_object().unwrap() {
            let is_one = !value.is_null() && !value.is_object();
            assert!(!is_one || text.contains(&format!("\n{key} = ")), "no {section}.{key}");
        }
    }
    assert!(text.contains("tokens_file = \"tokens\""), "{text}");
}

#[test]
fn a_check_says_what_is_wrong_and_fails() {
    let good = pairdb(&["config", "check"], &[]);
    assert!(good.status.success(), "{good:?}");
    assert!(String::from_utf8(good.stdout).unwrap().contains("can work"));
    let wrong = [("PAIRDB__SERVER__PORT", "x"), ("PAIRDB__CACHE__RECENCY_WEIGHT", "7")];
    let bad = pairdb(&["config", "check"], &wrong);
    let told = String::from_utf8(bad.stderr).unwrap();
    assert_eq!(bad.status.code(), Some(1));
    assert!(
        told.contains("server.port") && told.contains("cache.recency_weight"),
        "{told}"
    );
    let no_file = pairdb(&["config", "print", "--config", "/nowhere/at/all.toml"], &[]);
    assert!(!no_file.status.success() && no_file.stdout.is_empty());
}
