//! Dashboards, alerts and their tests name metrics and labels that a node shows, alerts say what to do, and the files under
//! `observability/` fit each other. `observability/run.sh` asks Prometheus itself; the last test runs it where there is one.

mod common;
#[path = "common/promql.rs"]
mod promql;
#[path = "common/script.rs"]
mod script;
#[path = "common/site.rs"]
mod site;
#[path = "common/streaming.rs"]
mod streaming;

use common::*;
use pairdb_node::config::{Config, Quota};
use promql::{Matcher, Named, named};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use streaming::{WHOLE_RING, completed, start_stream};
use yaml_rust2::{Yaml, YamlLoader};

/// Labels that Prometheus adds to what a node shows.
const ADDED: [&str; 2] = ["instance", "job"];
/// Where a word of an alert leads.
const RUNBOOK: &str = "observability/README.md#";

fn file(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("observability").join(path)
}

fn text(path: &str) -> String {
    std::fs::read_to_string(file(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn yaml(path: &str) -> Yaml {
    let mut documents = YamlLoader::load_from_str(&text(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
    assert_eq!(documents.len(), 1, "{path}");
    documents.remove(0)
}

fn string<'a>(yaml: &'a Yaml, key: &str) -> &'a str {
    yaml[key].as_str().unwrap_or_else(|| panic!("no {key} in {yaml:?}"))
}

fn list<'a>(yaml: &'a Yaml, key: &str) -> &'a [Yaml] {
    yaml[key].as_vec().unwrap_or_else(|| panic!("no {key} in {yaml:?}"))
}

/// All dashboards, by the names of their files.
fn dashboards() -> Vec<(String, Value)> {
    let files = std::fs::read_dir(file("grafana/dashboards")).unwrap();
    let mut all: Vec<_> = files
        .map(|entry| {
            let path = entry.unwrap().path();
            let json = std::fs::read_to_string(&path).unwrap();
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            let json = serde_json::from_str(&json).unwrap_or_else(|error| panic!("{name}: {error}"));
            (name, json)
        })
        .collect();
    all.sort_by(|one, other| one.0.cmp(&other.0));
    all
}

/// Every object of a document, however deep.
fn objects<'a>(json: &'a Value, found: &mut Vec<&'a serde_json::Map<String, Value>>) {
    match json {
        Value::Object(object) => {
            found.push(object);
            object.values().for_each(|value| objects(value, found));
        }
        Value::Array(values) => values.iter().for_each(|value| objects(value, found)),
        _ => {}
    }
}

fn alerts() -> Vec<Yaml> {
    let rules = yaml("prometheus/alerts.yml");
    let groups = list(&rules, "groups").iter();
    groups.flat_map(|group| list(group, "rules").to_vec()).collect()
}

/// The labels that stand between braces in a template, behind `before`.
fn templated<'a>(text: &'a str, before: &'a str) -> impl Iterator<Item = &'a str> {
    let parts = text.split(before).skip(1);
    parts.map(|part| {
        let end = part.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        &part[..end.unwrap_or(part.len())]
    })
}

/// What a node shows: of each name, the values of each label.
struct Shown(BTreeMap<String, BTreeMap<String, BTreeSet<String>>>);

impl Shown {
    fn of<'a>(nodes: impl IntoIterator<Item = (&'a str, String)>) -> Self {
        let mut names: BTreeMap<String, BTreeMap<String, BTreeSet<String>>> = BTreeMap::new();
        for (_, text) in nodes {
            for line in text.lines().filter(|line| !line.starts_with('#')) {
                let (sample, _) = line.rsplit_once(' ').expect(line);
                let Named { metrics, .. } = named(sample);
                for (name, matchers) in metrics {
                    let labels = names.entry(name).or_default();
                    for Matcher { label, value, .. } in matchers {
                        labels.entry(label).or_default().insert(value);
                    }
                }
            }
        }
        Self(names)
    }

    fn labels(&self, metric: &str) -> &BTreeMap<String, BTreeSet<String>> {
        let labels = self.0.get(metric);
        labels.unwrap_or_else(|| panic!("no node shows {metric}"))
    }

    /// Fails unless every name in an expression is one that a node shows. `values`: the values of labels, too.
    fn check(&self, expression: &str, values: bool) -> BTreeSet<String> {
        let Named { metrics, groups } = named(expression);
        let mut known: BTreeSet<String> = ADDED.map(String::from).into();
        for (metric, matchers) in &metrics {
            let labels = self.labels(metric);
            known.extend(labels.keys().cloned());
            for Matcher { label, operator, value } in matchers {
                let is_added = ADDED.contains(&label.as_str());
                assert!(
                    is_added || labels.contains_key(label),
                    "{metric} has no label {label}: {expression}"
                );
                let is_one = !values || is_added || operator == "=~" || labels[label].contains(value);
                assert!(is_one, "no {metric} has {label}={value:?}: {expression}");
            }
        }
        for label in &groups {
            assert!(
                metrics.is_empty() || known.contains(label),
                "nothing here has the label {label}: {expression}"
            );
        }
        known
    }
}

/// A node with everything that can be seen: tenants with quotas, and a stream to another node.
async fn shown() -> Shown {
    let dir = tempfile::tempdir().unwrap();
    let to = start(&config(&dir.path().join("to"))).await;
    let mut with_tenants = site::shown(&dir.path().join("from"));
    let limited = Quota {
        stored_bytes: bytesize::ByteSize::mib(1),
        ..Quota::default()
    };
    with_tenants.tenants.quota.insert("acme".into(), limited);
    let from = start(&with_tenants).await;
    let source = client(from.address());
    source.clone().write(write("k", b"v", &[("a", 1)])).await.unwrap();
    start_stream(&source, "to", to.address(), &WHOLE_RING).await;
    completed(&source, "to").await;
    let address = from.metrics_address().unwrap();
    let (status, text) = tokio::task::spawn_blocking(move || site::ask(address, "/metrics"))
        .await
        .unwrap();
    assert_eq!(status, 200);
    from.shutdown().await;
    to.shutdown().await;
    Shown::of([("from", text)])
}

#[tokio::test(flavor = "multi_thread")]
async fn dashboards_alerts_and_their_tests_name_what_a_node_shows() {
    let shown = shown().await;
    let mut looked_at: BTreeSet<String> = BTreeSet::new();
    let mut look = |expression: &str, values: bool| {
        let known = shown.check(expression, values);
        looked_at.extend(named(expression).metrics.into_iter().map(|(metric, _)| metric));
        known
    };
    for (_, dashboard) in dashboards() {
        let mut all = Vec::new();
        objects(&dashboard, &mut all);
        for object in all {
            let Some(expression) = object.get("expr").and_then(Value::as_str) else {
                continue;
            };
            let known = look(&expression.replace("$__rate_interval", "1m"), true);
            let words = ["legendFormat", "titleFormat"];
            for words in words.iter().filter_map(|words| object.get(*words)?.as_str()) {
                for label in templated(words, "{{") {
                    let is_prometheus_own = named(expression).metrics.is_empty();
                    assert!(is_prometheus_own || known.contains(label), "{words}: {expression}");
                }
            }
        }
        for variable in dashboard["templating"]["list"].as_array().unwrap() {
            let query = variable["definition"].as_str().unwrap();
            assert_eq!(variable["query"]["query"], query);
            let inner = query.strip_prefix("label_values(").unwrap().strip_suffix(')').unwrap();
            let (expression, label) = inner.rsplit_once(", ").unwrap();
            assert!(look(expression, true).contains(label), "{query}");
        }
    }
    for alert in alerts() {
        let known = look(string(&alert, "expr"), true);
        for words in ["summary", "description"] {
            for label in templated(string(&alert["annotations"], words), "$labels.") {
                let is_up = string(&alert, "expr").starts_with("up{");
                assert!(is_up || known.contains(label), "{label}: {alert:?}");
            }
        }
    }
    for test in list(&yaml("prometheus/alerts_test.yml"), "tests") {
        for series in list(test, "input_series") {
            look(string(series, "series"), false);
        }
    }
    let families = shown.0.keys().map(|name| {
        let part = ["_bucket", "_sum", "_count"]
            .iter()
            .find_map(|end| name.strip_suffix(end));
        part.filter(|family| shown.0.contains_key(&format!("{family}_bucket")))
            .unwrap_or(name)
    });
    let nobody = families
        .filter(|family| !looked_at.iter().any(|name| name.starts_with(family)))
        .collect::<BTreeSet<_>>();
    assert!(nobody.is_empty(), "no dashboard and no alert looks at {nobody:?}");
}

#[test]
fn alerts_say_how_urgent_they_are_and_what_to_do() {
    let readme = text("README.md");
    let headings = readme.lines().filter(|line| line.starts_with('#'));
    let anchors: BTreeSet<String> = headings
        .map(|line| {
            let words = line.trim_start_matches('#').trim().to_lowercase();
            let kept = words.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
            kept.map(|c| if c == ' ' { '-' } else { c }).collect()
        })
        .collect();
    let mut names = BTreeSet::new();
    for alert in alerts() {
        let name = string(&alert, "alert");
        assert!(names.insert(name.to_owned()), "{name} is there twice");
        let severity = string(&alert["labels"], "severity");
        assert!(
            ["critical", "warning", "info"].contains(&severity),
            "{name}: {severity}"
        );
        assert!(
            string(&alert, "for").ends_with(['m', 'h', 's']),
            "{name} does not say for how long"
        );
        let annotations = &alert["annotations"];
        assert!(
            string(annotations, "summary").contains("$value"),
            "{name}: its summary tells no number"
        );
        assert!(string(annotations, "description").len() > 20, "{name}");
        let runbook = string(annotations, "runbook_url");
        let anchor = runbook
            .strip_prefix(RUNBOOK)
            .unwrap_or_else(|| panic!("{name}: {runbook}"));
        assert!(anchors.contains(anchor), "{name}: {runbook} leads nowhere");
        assert_eq!(anchor, name.to_lowercase(), "{name} leads to another's section");
    }
    // Each has a test in which it fires, and one in which it does not.
    let tests = yaml("prometheus/alerts_test.yml");
    let mut fires: BTreeMap<String, BTreeSet<bool>> = BTreeMap::new();
    for test in list(&tests, "tests") {
        for case in list(test, "alert_rule_test") {
            let expected = list(case, "exp_alerts");
            let name = string(case, "alertname").to_owned();
            fires.entry(name).or_default().insert(!expected.is_empty());
        }
    }
    assert_eq!(fires.keys().cloned().collect::<BTreeSet<_>>(), names);
    let both = BTreeSet::from([false, true]);
    let one_sided: Vec<_> = fires.iter().filter(|(_, cases)| **cases != both).collect();
    assert!(one_sided.is_empty(), "{one_sided:?}");
}

#[test]
fn dashboards_are_whole_and_told_apart() {
    let provisioned = yaml("grafana/provisioning/datasources/pairdb.yml");
    let sources: Vec<_> = list(&provisioned, "datasources")
        .iter()
        .map(|source| string(source, "uid"))
        .collect();
    let mut seen = BTreeSet::new();
    for (name, dashboard) in dashboards() {
        assert_eq!(
            dashboard["uid"],
            name.as_str(),
            "the file of a dashboard is called as its uid"
        );
        assert!(
            seen.insert(dashboard["title"].to_string()),
            "two are called {}",
            dashboard["title"]
        );
        assert!(dashboard["schemaVersion"].as_u64().unwrap() >= 39, "{name}");
        assert!(dashboard["id"].is_null(), "{name}: Grafana gives the number");
        let mut ids = BTreeSet::new();
        let panels = dashboard["panels"].as_array().unwrap();
        for panel in panels {
            assert!(ids.insert(panel["id"].as_u64().unwrap()), "{name}: {panel}");
            let kind = panel["type"].as_str().unwrap();
            assert!(
                ["row", "timeseries", "stat", "heatmap", "table"].contains(&kind),
                "{name}: {kind}"
            );
            let place = &panel["gridPos"];
            let right = place["x"].as_u64().unwrap() + place["w"].as_u64().unwrap();
            assert!(right <= 24, "{name}: {} leaves the page", panel["title"]);
            if kind == "row" {
                continue;
            }
            assert!(
                !panel["description"].as_str().unwrap().is_empty(),
                "{name}: {}",
                panel["title"]
            );
            for target in panel["targets"].as_array().unwrap() {
                assert!(
                    sources.contains(&target["datasource"]["uid"].as_str().unwrap()),
                    "{name}: {target}"
                );
            }
        }
        let overlap = panels.iter().enumerate().find(|(at, one)| {
            let others = panels.iter().skip(at + 1);
            others
                .into_iter()
                .any(|other| do_overlap(&one["gridPos"], &other["gridPos"]))
        });
        assert!(overlap.is_none(), "{name}: {overlap:?}");
    }
    assert_eq!(seen.len(), 4);
}

fn do_overlap(one: &Value, other: &Value) -> bool {
    let span = |place: &Value, at: &str, size: &str| {
        let begin = place[at].as_u64().unwrap();
        begin..begin + place[size].as_u64().unwrap()
    };
    let meet = |at, size| {
        let (one, other) = (span(one, at, size), span(other, at, size));
        one.start < other.end && other.start < one.end
    };
    meet("x", "w") && meet("y", "h")
}

#[test]
fn the_files_that_bring_all_of_it_up_fit_each_other() {
    let compose = yaml("compose.yaml");
    let services = compose["services"].as_hash().unwrap();
    let service = |name: &str| &compose["services"][name];
    let mut nodes = BTreeSet::new();
    for (name, service) in services {
        let name = name.as_str().unwrap();
        let is_node = name.starts_with("node");
        for mount in service["volumes"].as_vec().into_iter().flatten() {
            let (from, _) = mount.as_str().unwrap().split_once(':').unwrap();
            assert!(!from.starts_with('.') || file(from).exists(), "{name}: no {from}");
        }
        if !is_node {
            continue;
        }
        // A node refuses keys that it does not know.
        let own = service["environment"].as_hash().unwrap();
        let shared = compose["x-environment"].as_hash().unwrap();
        let environment: Vec<_> = shared
            .iter()
            .chain(own)
            .filter_map(|(key, value)| Some((key.as_str()?.to_owned(), value.as_str()?.to_owned())))
            .collect();
        let config = Config::load(None, environment, &[]).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(config.server.node_id, name);
        assert_eq!(config.server.advertise_host.as_deref(), Some(name));
        nodes.insert(format!("{name}:{}", config.metrics.port));
        assert!(config.gossip.enabled);
        let seed = format!("{name}:{}", config.gossip.bind_port);
        assert!(config.gossip.seed_nodes.contains(&seed), "{seed}");
        let keys = config.gossip.key_file.as_ref().and_then(|keys| keys.to_str());
        let mount = &list(&compose["x-node"], "configs")[0];
        assert_eq!(Some(string(mount, "target")), keys);
        let content = string(&compose["configs"][string(mount, "source")], "content");
        pairdb_node::actors::gossip::wire::Keys::parse(content, &config.gossip.cluster_name).unwrap();
    }
    assert_eq!(nodes.len(), 3);
    let targets = |path: &str| -> BTreeSet<String> {
        let targets = yaml(path);
        let targets = targets[0]["targets"].as_vec().unwrap().iter();
        targets.map(|target| target.as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(
        targets("prometheus/targets/nodes.yml"),
        nodes,
        "Prometheus asks every node"
    );

    let prometheus = yaml("prometheus/prometheus.yml");
    let jobs: Vec<_> = list(&prometheus, "scrape_configs")
        .iter()
        .map(|job| {
            let sources = list(&job["file_sd_configs"][0], "files").iter();
            sources.for_each(|path| assert!(file("prometheus").join(path.as_str().unwrap()).exists(), "{path:?}"));
            string(job, "job_name")
        })
        .collect();
    assert!(jobs.contains(&"pairdb"), "alerts ask for the job pairdb: {jobs:?}");
    for rules in list(&prometheus, "rule_files") {
        assert!(file("prometheus").join(rules.as_str().unwrap()).exists(), "{rules:?}");
    }

    let collector = yaml("collector/config.yaml");
    let address = |yaml: &Yaml| string(yaml, "endpoint").to_owned();
    assert_eq!(
        address(&collector["receivers"]["otlp"]["protocols"]["grpc"]),
        "0.0.0.0:4317"
    );
    let viewer = address(&collector["exporters"]["otlp"]);
    let (host, _) = viewer.split_once(':').unwrap();
    assert!(!service(host).is_badvalue(), "no service {host}");
    let reader = &collector["service"]["telemetry"]["metrics"]["readers"][0]["pull"]["exporter"]["prometheus"];
    let shown = format!("collector:{}", reader["port"].as_i64().unwrap());
    assert_eq!(targets("prometheus/targets/collector.yml"), [shown].into());
    for dashboards in list(&yaml("grafana/provisioning/dashboards/pairdb.yml"), "providers") {
        let path = string(&dashboards["options"], "path");
        let mounts = list(service("grafana"), "volumes");
        let is_mounted = |mount: &Yaml| mount.as_str().unwrap().contains(&format!(":{path}:"));
        assert!(mounts.iter().any(is_mounted), "nothing is at {path}");
    }
}

#[test]
fn prometheus_takes_the_rules_and_scrapes_a_node() {
    let probe = "command -v prometheus && command -v promtool && python3 --version";
    script::run_where(&[probe.to_owned()], "observability/run.sh");
}
