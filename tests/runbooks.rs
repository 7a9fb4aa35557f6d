//! The runbooks in `docs/`: what is marked as runnable runs as it stands there, against a node that has what the runbook is about;
//! of the rest the commands of the node are such that its command line takes, and links lead somewhere.

mod common;
#[path = "common/runbook.rs"]
mod runbook;
#[path = "common/secure.rs"]
mod secure;
#[path = "common/shell.rs"]
mod shell;

use pairdb_node::actors::gossip::seen::Life;
use pairdb_node::config::Config;
use runbook::{Block, Machine, blocks, missing};
use secure::{Authority, line, put, put_identity};
use shell::{assert_taken, commands_of_the_node};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

fn file(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// All documents, by their names.
fn documents() -> BTreeMap<String, String> {
    let files = fs::read_dir(file("docs")).unwrap();
    let named = files.map(|entry| {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        (name, fs::read_to_string(path).unwrap())
    });
    named.filter(|(name, _)| name.ends_with(".md")).collect()
}

fn follow(machine: &Machine, name: &str) {
    machine.follow(&file("docs").join(name));
}

#[test]
fn start_and_stop() {
    follow(&Machine::new(), "start-and-stop.md");
}

#[test]
fn disk_full() {
    let machine = Machine::new();
    machine.start();
    // However empty the disk is on which the tests run.
    machine.configure("0.000000001", "0.000000002", "0.000000003", "");
    machine.prepare("systemctl reload pairdb-node");
    machine.prepare_until("! pairdb-node put probe now --addr \"$ADDR\" --tenant runbook");
    follow(&machine, "disk-full.md");
}

#[test]
fn corruption() {
    let machine = Machine::new();
    machine.start();
    for n in 0..50 {
        let value = "x".repeat(100 + n);
        machine.prepare(&format!(
            "pairdb-node put key{n} {value} --addr \"$ADDR\" --tenant runbook"
        ));
    }
    machine.prepare("pairdb-node backup --to \"$BACKUPS\" --name good --config \"$CONFIG\"");
    machine.prepare("systemctl stop pairdb-node");
    let tables = fs::read_dir(machine.at("data/sstables")).unwrap();
    let mut tables = tables.map(|entry| entry.unwrap().path());
    let table = tables
        .find(|path| path.extension().is_some_and(|ext| ext == "sst"))
        .unwrap();
    let mut content = fs::read(&table).unwrap();
    let at = content.len() / 4;
    content[at] ^= 0x40;
    // A file of its own: the backup on the same disk has a link to the old one.
    let aside = table.with_extension("aside");
    fs::write(&aside, content).unwrap();
    fs::rename(&aside, &table).unwrap();
    machine.prepare("systemctl start pairdb-node");
    machine.prepare_until("pairdb-node health --addr \"$ADDR\"");
    follow(&machine, "corruption.md");
}

#[test]
fn slow_compaction() {
    let machine = Machine::new();
    machine.start();
    follow(&machine, "slow-compaction.md");
}

#[test]
fn log_latched() {
    let mut machine = Machine::new();
    machine.configure("0.98", "0.99", "1.0", "fault_injection = true");
    machine.start();
    let admin = format!("http://127.0.0.1:{}", machine.admin_port);
    machine.set("ADMIN", &admin);
    machine.prepare("pairdb-node fault inject disk-io error --point sync-log --admin-addr \"$ADMIN\"");
    machine.prepare_until(
        "! pairdb-node put latches now --addr \"$ADDR\" --tenant runbook && ! pairdb-node health --addr \"$ADDR\"",
    );
    follow(&machine, "log-latched.md");
}

#[test]
fn restart_storm() {
    let mut machine = Machine::new();
    machine.configure("0.98", "0.99", "1.0", "fault_injection = true");
    machine.start();
    let admin = format!("http://127.0.0.1:{}", machine.admin_port);
    machine.set("ADMIN", &admin);
    for n in 1..=2 {
        machine.prepare("pairdb-node fault inject memtable kill --admin-addr \"$ADMIN\"");
        machine.prepare_until(&format!(
            "pairdb-node status --config \"$CONFIG\" | grep -E '^ *memtable +running +{n} '"
        ));
    }
    follow(&machine, "restart-storm.md");
}

#[test]
fn adding_and_removing_a_node() {
    let machine = Machine::new();
    machine.configure("0.98", "0.99", "1.0", "[gossip]\nenabled = true\nbind_port = 0");
    machine.start();
    follow(&machine, "adding-and-removing-a-node.md");
}

/// Stands in for another machine, and the node there: it has the configuration other.toml.
const SSH: &str = r#"#!/bin/sh
set -eu
case $* in
    "10.0.0.4 systemctl start pairdb-node")
        pairdb-node serve --config "$MACHINE/other.toml" </dev/null >>"$MACHINE/other.log" 2>&1 &
        echo $! >"$MACHINE/other.pid"
        ;;
    "10.0.0.4 pairdb-node status --config $CONFIG") exec pairdb-node status --config "$MACHINE/other.toml" ;;
    *) exit 64 ;;
esac
"#;

#[test]
fn a_lost_member() {
    let machine = Machine::new();
    let seed = common::free_port();
    let gossip = |port: u16| {
        format!(
            "[gossip]\nenabled = true\nbind_port = {port}\nseed_nodes = [\"127.0.0.1:{seed}\"]\n\
             probe_interval = \"200ms\"\nprobe_timeout = \"100ms\""
        )
    };
    machine.configure("0.98", "0.99", "1.0", &gossip(seed));
    let other = format!(
        "[server]\nnode_id = \"storage-node-4\"\nport = {}\n\n[storage]\ndata_dir = {:?}\n\n[metrics]\nenabled = false\n\n{}\n",
        common::free_port(),
        machine.at("other"),
        gossip(0)
    );
    put(&machine.at("other.toml"), &other);
    let ssh = machine.at("bin/ssh");
    fs::write(&ssh, SSH).unwrap();
    fs::set_permissions(&ssh, fs::Permissions::from_mode(0o755)).unwrap();
    machine.start();
    machine.prepare("ssh 10.0.0.4 systemctl start pairdb-node");
    let sees = |state: &str| {
        let line = format!("grep -E '^ *storage-node-4 .* {state} '");
        machine.prepare_until(&format!("pairdb-node status --config \"$CONFIG\" | {line}"));
    };
    sees("alive");
    machine.prepare("kill -9 $(cat \"$MACHINE/other.pid\")");
    sees("down");
    follow(&machine, "lost-member.md");
    machine.prepare("kill -9 $(cat \"$MACHINE/other.pid\")");
}

#[test]
fn overload() {
    let machine = Machine::new();
    machine.start();
    follow(&machine, "overload.md");
}

#[test]
fn backup_and_restore() {
    let machine = Machine::new();
    machine.start();
    follow(&machine, "backup-and-restore.md");
}

#[test]
fn upgrade_and_roll_back() {
    let machine = Machine::new();
    machine.start();
    follow(&machine, "upgrade-and-roll-back.md");
}

#[test]
fn keys_and_certificates() {
    let mut machine = Machine::new();
    let secrets = machine.at("secrets");
    let (authority, new_authority) = (Authority::new("authority"), Authority::new("new authority"));
    put(&secrets.join("ca.crt"), &authority.pem);
    put_identity(&secrets, &authority.issue("node"));
    let renewed = authority.issue("node");
    put(&secrets.join("new.crt"), &renewed.cert);
    put(&secrets.join("new.key"), &renewed.key);
    let work = machine.at("work");
    put(&work.join("new-ca.crt"), &new_authority.pem);
    for (name, issued) in [
        ("client", authority.issue("client")),
        ("new-client", new_authority.issue("client")),
        ("new-node", new_authority.issue("node")),
    ] {
        put(&work.join(format!("{name}.crt")), &issued.cert);
        put(&work.join(format!("{name}.key")), &issued.key);
    }
    put(
        &secrets.join("tokens"),
        &[line("*", "token-of-everybody"), line("acme", "old-token-of-acme")].concat(),
    );
    put(&secrets.join("of-all"), "token-of-everybody");
    put(&machine.at("work/old-token"), "old-token-of-acme");
    let of = |name: &str| secrets.join(name).to_str().unwrap().to_owned();
    let gossip_keys = secrets.join("gossip.keys");
    // With what a person may leave in it.
    put(
        &gossip_keys,
        "# since May\n\nMDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=\n \t\n",
    );
    // As a machine has them on which root replaces files, and the node reads them as another user.
    let kept = ["tokens", "ca.crt", "node.crt", "node.key", "gossip.keys"].map(|name| secrets.join(name));
    for path in &kept {
        fs::set_permissions(path, fs::Permissions::from_mode(0o640)).unwrap();
        if rustix::process::geteuid().is_root() {
            std::os::unix::fs::chown(path, Some(1234), Some(1235)).unwrap();
        }
    }
    let who_may = || {
        kept.each_ref().map(|path| {
            let meta = fs::metadata(path).unwrap();
            (path.clone(), meta.mode(), meta.uid(), meta.gid())
        })
    };
    let before = who_may();
    let security = format!(
        "[gossip]\nenabled = true\nbind_port = 0\nkey_file = {gossip_keys:?}\ngossip_interval = \"200ms\"\n\n[security]\ntls_cert = {:?}\ntls_key = {:?}\nclient_ca = {:?}\ntokens_file = {:?}\ncheck_interval = \"200ms\"",
        of("node.crt"),
        of("node.key"),
        of("ca.crt"),
        of("tokens")
    );
    machine.configure("0.98", "0.99", "1.0", &security);
    machine.set("ADDR", &format!("https://127.0.0.1:{}", machine.port));
    machine.set("PAIRDB_CA", &of("ca.crt"));
    machine.set("PAIRDB_CERT", work.join("client.crt").to_str().unwrap());
    machine.set("PAIRDB_KEY", work.join("client.key").to_str().unwrap());
    machine.set("PAIRDB_TOKEN_FILE", &of("of-all"));
    machine.start();
    // By the document's own words, the id of a key is the one that the node shows.
    let text = &documents()["keys-and-certificates.md"];
    let (_, ids) = text.split_once("ids() {").unwrap();
    let (ids, _) = ids.split_once("\n}\n").unwrap();
    let names_its_key = || {
        machine.prepare_until(&format!(
            "ids() {{{ids}\n}}\nshown=$(pairdb-node status --config \"$CONFIG\" | sed -n 's/^.*gossip keys: \\(.*\\) signs$/\\1/p')\n\
             [ \"$shown\" = \"$(ids \"$SECRETS/gossip.keys\")\" ]"
        ));
    };
    names_its_key();
    follow(&machine, "keys-and-certificates.md");
    let keys = fs::read_to_string(&gossip_keys).unwrap();
    assert!(
        keys.lines().count() == 1 && !keys.contains("MDEyMzQ1"),
        "the old key is gone"
    );
    assert_eq!(
        who_may(),
        before,
        "owners and modes stay: the node may read what it could read"
    );
    assert_eq!(fs::read_to_string(secrets.join("ca.crt")).unwrap(), new_authority.pem);
    names_its_key();
    members_are_looked_at(&machine);
}

/// The blocks that say whether members are well do not pass when one is down or suspect: what the node itself says is changed so.
fn members_are_looked_at(machine: &Machine) {
    let status = machine.prepare("pairdb-node status --config \"$CONFIG\" --json");
    put(&machine.at("status.real"), &status);
    let stub = "#!/bin/sh\ncase $1 in status) cat \"$MACHINE/status.said\";; health) echo gossip_members;; esac\n";
    let node = machine.at("bin/pairdb-node");
    fs::remove_file(&node).unwrap();
    fs::write(&node, stub).unwrap();
    fs::set_permissions(&node, fs::Permissions::from_mode(0o755)).unwrap();
    let mut looked = 0;
    for (name, text) in documents() {
        let of_members = |block: &Block| block.kind == "sh run" && block.text.contains("\n! grep -oE '\"state\"");
        for block in blocks(&text).into_iter().filter(of_members) {
            looked += 1;
            for (life, passes) in [
                (Life::Alive, true),
                (Life::Left, true),
                (Life::Suspect, false),
                (Life::Down, false),
            ] {
                assert!(status.contains("\"state\":\"alive\""), "{status}");
                let said = status.replace("\"state\":\"alive\"", &format!("\"state\":\"{}\"", life.as_str()));
                put(&machine.at("status.said"), &said);
                let (code, output) = machine.run(&block.text);
                assert_eq!(
                    code == Some(0),
                    passes,
                    "{name}, line {}: {life:?}\n{output}",
                    block.line
                );
            }
        }
    }
    assert_eq!(looked, 2, "those of keys, and of a new node");
}

#[test]
fn reading_a_trace() {
    let machine = Machine::new();
    machine.configure("0.98", "0.99", "1.0", "[tracing]\nslow_request = \"1us\"");
    machine.start();
    follow(&machine, "reading-a-trace.md");
}

#[test]
fn every_block_is_of_a_known_kind_and_the_node_takes_each_command() {
    let mut commands = 0;
    for (name, text) in documents() {
        for Block { kind, text, line } in blocks(&text) {
            let place = format!("{name}, line {line}");
            match kind.as_str() {
                "sh run" | "sh fails" | "sh elsewhere" | "sh variables" => {
                    for arguments in commands_of_the_node(&text) {
                        assert_taken(&arguments, &place);
                        commands += 1;
                    }
                }
                "toml" => {
                    let dir = tempfile::tempdir().unwrap();
                    let config = put(&dir.path().join("config.toml"), &text);
                    let loaded = Config::load(Some(&config), [], &[]);
                    assert!(loaded.is_ok(), "{place}: {}", loaded.unwrap_err());
                }
                "text" => {}
                other => panic!("{place}: {other:?} is no kind of block"),
            }
        }
    }
    assert!(commands > 60, "{commands} commands");
    for (name, text) in documents() {
        let is_tested = name == "README.md" || text_of_this_test().contains(&format!("\"{name}\")"));
        assert!(is_tested, "{name}: no test follows it");
        assert!(
            text.contains("**It is well**") || name == "README.md",
            "{name}: when is it well again?"
        );
    }
}

/// What stands between back quotes in the running text of a document.
fn code_in(text: &str) -> Vec<String> {
    let mut is_block = false;
    let running = text.lines().filter(|line| {
        let is_fence = line.trim_start().starts_with("```");
        is_block ^= is_fence;
        !is_block && !is_fence
    });
    let paragraphs = running.collect::<Vec<_>>().join("\n");
    let paragraphs = paragraphs.split("\n\n");
    let code = paragraphs.flat_map(|paragraph| paragraph.split('`').skip(1).step_by(2));
    code.map(|code| code.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect()
}

#[test]
fn the_node_takes_the_commands_in_running_text() {
    let mut commands = 0;
    let mut all = documents();
    for other in ["README.md", "observability/README.md", "deploy/README.md"] {
        all.insert(format!("/{other}"), fs::read_to_string(file(other)).unwrap());
    }
    for (name, text) in all {
        for code in code_in(&text) {
            if code.contains('…') || code.contains("COMMAND") {
                continue;
            }
            // Its name alone is no command.
            let whole = |arguments: &Vec<String>| !arguments.is_empty();
            for arguments in commands_of_the_node(&code).into_iter().filter(whole) {
                assert_taken(&arguments, &name);
                commands += 1;
            }
        }
    }
    assert!(commands > 30, "{commands} commands");
    let found = commands_of_the_node("sudo -u pairdb env PAIRDB__A__B=1 pairdb-node config check");
    assert_eq!(found, [["config", "check"]]);
}

fn text_of_this_test() -> String {
    fs::read_to_string(file("tests/runbooks.rs")).unwrap()
}

#[test]
fn variables_are_explained() {
    let documents = documents();
    let explained: BTreeSet<String> = blocks(&documents["README.md"])
        .iter()
        .filter(|block| block.kind == "sh variables")
        .flat_map(|block| block.text.lines())
        .map(|line| {
            line.strip_prefix("export ")
                .unwrap()
                .split('=')
                .next()
                .unwrap()
                .to_owned()
        })
        .collect();
    let mut used = BTreeSet::new();
    for block in documents.values().flat_map(|text| blocks(text)) {
        for behind in block.text.split('$').skip(1) {
            let name: String = behind
                .chars()
                .take_while(|c| c.is_ascii_uppercase() || *c == '_')
                .collect();
            used.extend(Some(name).filter(|name| !name.is_empty()));
        }
    }
    assert_eq!(used, explained);
}

/// The anchors of a document's headings, as their readers make them.
fn anchors(text: &str) -> BTreeSet<String> {
    let headings = text.lines().filter(|line| line.starts_with('#'));
    headings
        .map(|line| {
            let words = line.trim_start_matches('#').trim().to_lowercase();
            let kept = words.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
            kept.map(|c| if c == ' ' { '-' } else { c }).collect()
        })
        .collect()
}

#[test]
fn links_lead_somewhere_and_every_runbook_is_listed() {
    let mut all: Vec<(PathBuf, String)> = documents()
        .into_iter()
        .map(|(name, text)| (file("docs").join(name), text))
        .collect();
    for other in ["README.md", "observability/README.md", "deploy/README.md"] {
        all.push((file(other), fs::read_to_string(file(other)).unwrap()));
    }
    let mut links = 0;
    for (document, text) in &all {
        for link in text.split("](").skip(1).filter_map(|behind| behind.split(')').next()) {
            if link.contains("://") {
                continue;
            }
            links += 1;
            let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = match path {
                "" => document.clone(),
                path => document.parent().unwrap().join(path),
            };
            assert!(target.exists(), "{}: {link}", document.display());
            if !anchor.is_empty() {
                let text = fs::read_to_string(&target).unwrap();
                assert!(anchors(&text).contains(anchor), "{}: {link}", document.display());
            }
        }
    }
    assert!(links > 60, "{links} links");
    let documents = documents();
    let listed = &documents["README.md"];
    for name in documents.keys().filter(|name| *name != "README.md") {
        assert!(listed.contains(&format!("]({name})")), "{name} is not listed");
    }
}

#[test]
fn alerts_that_runbooks_name_are_there() {
    let alerts = fs::read_to_string(file("observability/prometheus/alerts.yml")).unwrap();
    let known: BTreeSet<&str> = alerts
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- alert: "))
        .collect();
    let mut named = 0;
    for (name, text) in documents() {
        for word in text.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| {
            let behind = word.strip_prefix("Pairdb");
            behind.is_some_and(|behind| behind.starts_with(|c: char| c.is_ascii_uppercase()))
        }) {
            assert!(known.contains(word), "{name}: there is no alert {word}");
            named += 1;
        }
    }
    assert!(named > 20, "{named}");
}

#[test]
fn every_alert_has_a_runbook() {
    let alerts = fs::read_to_string(file("observability/prometheus/alerts.yml")).unwrap();
    let listed = documents().remove("README.md").unwrap();
    let rows: Vec<&str> = listed.lines().filter(|line| line.starts_with("| [")).collect();
    let mut count = 0;
    for alert in alerts.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")) {
        let named = format!("`{alert}`");
        assert!(
            rows.iter().any(|row| row.contains(&named)),
            "{alert}: no row of docs/README.md"
        );
        count += 1;
    }
    assert!(count > 40, "{count} alerts");
}

#[test]
fn what_a_runbook_changes_in_the_configuration_is_there() {
    let config = fs::read_to_string(file("deploy/systemd/config.toml")).unwrap();
    let mut changed = 0;
    for (name, text) in documents() {
        for block in blocks(&text) {
            for line in block
                .text
                .lines()
                .filter(|line| line.trim_start().starts_with("sed -i "))
            {
                for behind in line.split("s/^").skip(1) {
                    let key = behind.split(" = ").next().unwrap();
                    let found = config.lines().filter(|line| line.starts_with(&format!("{key} = ")));
                    assert_eq!(found.count(), 1, "{name}, line {}: {key}", block.line);
                    changed += 1;
                }
            }
        }
    }
    assert!(changed >= 3, "{changed} keys");
}

#[test]
fn what_a_document_says_is_looked_for_in_its_order() {
    let output = "one\n  two   three\nfour";
    assert_eq!(missing("one\n two three", output), None);
    assert_eq!(missing("…wo … four", output), None);
    assert_eq!(missing("four\none", output), Some("one".to_owned()));
    assert_eq!(missing("two four", output), Some("two four".to_owned()));
}

#[test]
fn commands_of_the_node_are_found_wherever_a_shell_would_run_them() {
    let text = "systemctl stop pairdb-node # pairdb-node no\nX=1 \"$NEW/pairdb-node\" a 'b c' 2>&1 | pairdb-node d > pairdb-node\n\
                until pairdb-node e \\\n  f; do x=$(pairdb-node g < h); done\nkubectl exec p -- /pairdb-node i &\nif ssh h pairdb-node j; then ssh h echo pairdb-node; fi";
    let found = commands_of_the_node(text);
    let expected: [&[&str]; 6] = [&["a", "b c"], &["d"], &["e", "f"], &["g"], &["i"], &["j"]];
    assert_eq!(found, expected);
}
