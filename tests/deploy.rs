//! What brings nodes up elsewhere: each configuration is one that the node takes, each command one that it knows, and names, ports,
//! labels and paths agree with each other. Manifests are held against the schemas of their kinds, which `tests/schemas` has.

mod common;
#[path = "common/schema.rs"]
mod schema;
#[path = "common/script.rs"]
mod script;
#[path = "common/secure.rs"]
mod secure;
#[path = "common/shell.rs"]
mod shell;

use common::binary;
use pairdb_node::config::Config;
use serde_json::{Value, json};
use shell::{assert_taken, commands_of_the_node};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;
use yaml_rust2::{Yaml, YamlLoader};

const NAMESPACE: &str = "pairdb";
/// The pod that the manifests are tried with.
const POD: &str = "pairdb-storage-node-0";

fn file(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn text(path: &str) -> String {
    std::fs::read_to_string(file(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn yaml(path: &str) -> Yaml {
    let mut documents = YamlLoader::load_from_str(&text(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
    assert_eq!(documents.len(), 1, "{path}");
    documents.remove(0)
}

fn manifest(name: &str) -> Yaml {
    yaml(&format!("deploy/kubernetes/{name}.yaml"))
}

#[track_caller]
fn string<'a>(yaml: &'a Yaml, key: &str) -> &'a str {
    yaml[key].as_str().unwrap_or_else(|| panic!("no {key} in {yaml:?}"))
}

#[track_caller]
fn list<'a>(yaml: &'a Yaml, key: &str) -> &'a [Yaml] {
    yaml[key].as_vec().unwrap_or_else(|| panic!("no {key} in {yaml:?}"))
}

#[track_caller]
fn strings(list: &Yaml) -> Vec<String> {
    let list = list.as_vec().unwrap_or_else(|| panic!("no list: {list:?}"));
    list.iter().map(|entry| entry.as_str().unwrap().to_owned()).collect()
}

fn labels(yaml: &Yaml) -> BTreeMap<String, String> {
    let pairs = yaml.as_hash().unwrap_or_else(|| panic!("no labels: {yaml:?}"));
    let word = |yaml: &Yaml| yaml.as_str().unwrap().to_owned();
    pairs.iter().map(|(name, value)| (word(name), word(value))).collect()
}

fn selects(selector: &Yaml, of: &Yaml) -> bool {
    let of = labels(of);
    labels(selector).iter().all(|(name, value)| of.get(name) == Some(value))
}

/// The configuration as a node has it that is given these arguments and this environment; `content` stands for the file that the
/// arguments name, and other keys for those of the gossip that it names. Asks the node itself, and then this process for the values.
fn taken(content: &str, environment: &[(String, String)]) -> Config {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("config.toml");
    std::fs::write(&file, content).unwrap();
    let config = Config::load(Some(&file), environment.iter().cloned(), &[]).unwrap();
    if let Some(keys) = &config.gossip.key_file {
        let own = dir.path().join("gossip.keys");
        std::fs::write(&own, "b25seS1mb3ItdGhlLXRlc3RzLW9mLXRoaXMtbm9kZSE=\n").unwrap();
        let content = content.replace(keys.to_str().unwrap(), own.to_str().unwrap());
        std::fs::write(&file, content).unwrap();
    }
    let checked = binary(&["config", "check", "--config", file.to_str().unwrap()])
        .envs(environment.iter().cloned())
        .output()
        .unwrap();
    assert!(checked.status.success(), "{content}\n{checked:?}");
    config
}

fn pair(name: &str, value: &str) -> (String, String) {
    (name.to_owned(), value.to_owned())
}

/// What follows the flag.
fn flag<'a>(arguments: &'a [String], name: &str) -> &'a str {
    let at = arguments.iter().position(|argument| argument == name);
    let value = at.and_then(|at| arguments.get(at + 1));
    value.unwrap_or_else(|| panic!("no {name} in {arguments:?}"))
}

/// The lines of the Dockerfile: instruction and the rest.
fn dockerfile() -> Vec<(String, String)> {
    let joined = text("deploy/docker/Dockerfile").replace("\\\n", " ");
    let lines = joined.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let pairs = lines.map(|line| line.split_once(' ').unwrap());
    pairs
        .map(|(instruction, rest)| pair(instruction, rest.trim()))
        .collect()
}

fn instructions(name: &str) -> Vec<String> {
    let of_name = dockerfile().into_iter().filter(|(instruction, _)| instruction == name);
    of_name.map(|(_, rest)| rest).collect()
}

fn instruction(name: &str) -> String {
    let mut all = instructions(name);
    assert_eq!(all.len(), 1, "{name}: {all:?}");
    all.remove(0)
}

fn words_of_json(text: &str) -> Vec<String> {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

/// What the image sets in the environment.
fn of_image() -> Vec<(String, String)> {
    let all = instructions("ENV").into_iter();
    all.map(|line| line.split_once('=').map(|(name, value)| pair(name, value)).unwrap())
        .collect()
}

/// The ports of a node, by the names that the manifests give them.
fn ports_of(config: &Config) -> BTreeMap<String, (u16, &'static str)> {
    BTreeMap::from([
        ("grpc".to_owned(), (config.server.port, "TCP")),
        ("metrics".to_owned(), (config.metrics.port, "TCP")),
        ("gossip".to_owned(), (config.gossip.bind_port, "UDP")),
    ])
}

fn seconds(text: &str) -> Duration {
    humantime::parse_duration(text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

#[test]
fn the_image_holds_the_binary_alone_and_runs_what_it_knows() {
    assert_eq!(instruction("FROM"), "scratch", "nothing is pulled");
    assert!(instructions("RUN").is_empty(), "there is no shell in it");
    let copies = instructions("COPY");
    assert_eq!(copies[0], "pairdb-node /pairdb-node");
    let entry = words_of_json(&instruction("ENTRYPOINT"));
    assert_eq!(entry, ["/pairdb-node"]);
    assert_taken(&words_of_json(&instruction("CMD")), "CMD");
    let health = instruction("HEALTHCHECK");
    let (options, command) = health.split_once(" CMD ").unwrap();
    let command = words_of_json(command);
    assert_eq!(command[..1], entry, "the binary looks after itself");
    assert_taken(&command[1..], "HEALTHCHECK");
    assert!(options.contains("--timeout="), "{options}");
    let config = taken("", &of_image());
    assert_eq!(Path::new(&instruction("VOLUME")), config.storage.data_dir);
    let user = instruction("USER");
    assert!(!user.starts_with("0") && !user.starts_with("root"), "{user}");
    assert_eq!(
        copies[1],
        format!("--chown={user} data {}", config.storage.data_dir.display())
    );
    let exposed: BTreeSet<String> = instruction("EXPOSE").split(' ').map(str::to_owned).collect();
    let ports = ports_of(&config).into_values();
    let expected = ports.map(|(port, protocol)| format!("{port}/{}", protocol.to_lowercase()));
    assert_eq!(exposed, expected.collect::<BTreeSet<_>>());
    assert_eq!(instruction("STOPSIGNAL"), "SIGTERM");
}

#[test]
fn a_binary_that_needs_libraries_makes_no_image() {
    // That of this test does.
    let made = std::process::Command::new(file("deploy/docker/build.sh"))
        .envs([("BINARY", env!("CARGO_BIN_EXE_pairdb-node")), ("BUILDER", "none")])
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&made.stderr);
    assert!(!made.status.success() && told.contains("is not static"), "{told}");
    // Nor does one of which nobody can tell.
    let tools = tempfile::tempdir().unwrap();
    let path = std::env::var_os("PATH").unwrap();
    for name in ["bash", "dirname", "uname", "grep", "mktemp", "install", "cp", "rm"] {
        let mut found = std::env::split_paths(&path).map(|dir| dir.join(name));
        let found = found.find(|path| path.exists()).unwrap();
        std::os::unix::fs::symlink(found, tools.path().join(name)).unwrap();
    }
    let made = std::process::Command::new(tools.path().join("bash"))
        .arg(file("deploy/docker/build.sh"))
        .envs([("BINARY", env!("CARGO_BIN_EXE_pairdb-node")), ("BUILDER", "none")])
        .env("PATH", tools.path())
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&made.stderr);
    assert!(!made.status.success() && told.contains("readelf"), "{made:?}");
}

#[test]
fn the_nodes_of_compose_take_their_configuration() {
    let compose = yaml("deploy/compose/compose.yaml");
    let shared = text("deploy/compose/config.toml");
    let mut published = BTreeSet::new();
    let services = compose["services"].as_hash().unwrap();
    assert_eq!(services.len(), 3);
    let node = &compose["x-node"];
    assert_eq!(
        string(node, "image"),
        "pairdb-node:local",
        "what build.sh builds when it is told no name"
    );
    assert!(text("deploy/docker/build.sh").contains("image=${1:-pairdb-node:local}"));
    assert_eq!(string(node, "pull_policy"), "never");
    let command = strings(&node["command"]);
    assert_taken(&command, "compose.yaml");
    for (name, service) in services {
        let name = name.as_str().unwrap();
        let mut environment = of_image();
        environment.extend(labels(&service["environment"]));
        let config = taken(&shared, &environment);
        assert_eq!(config.server.node_id, name);
        assert_eq!(config.advertised_host(), name);
        let address = format!("{name}:{}", config.server.port);
        assert_eq!(config.cluster.nodes.get(name), Some(&address), "the others find it");
        assert!(seconds(string(node, "stop_grace_period")) > config.server.shutdown_timeout);
        assert!(config.gossip.enabled);
        let seeds: Vec<String> = services
            .keys()
            .map(|name| format!("{}:{}", name.as_str().unwrap(), config.gossip.bind_port))
            .collect();
        assert_eq!(config.gossip.seed_nodes, seeds);
        let [secret] = &strings(&node["secrets"])[..] else {
            panic!("{:?}", node["secrets"]);
        };
        assert_eq!(config.gossip.key_file, Some(Path::new("/run/secrets").join(secret)));
        let keys = string(&compose["secrets"][secret.as_str()], "file").trim_start_matches("./");
        let ignored = text(".gitignore");
        assert!(
            ignored.lines().any(|line| line == format!("/deploy/compose/{keys}")),
            "a key is no part of the repository"
        );
        let readable = format!("chmod 0644 deploy/compose/{keys}");
        for told in ["deploy/README.md", "deploy/compose/compose.yaml"] {
            assert!(text(told).contains(&readable), "{told}: the user of the image reads it");
        }
        let volumes = strings(&service["volumes"]);
        assert_eq!(volumes[0], format!("./config.toml:{}:ro", flag(&command, "--config")));
        assert_eq!(volumes[1], format!("{name}:{}", config.storage.data_dir.display()));
        assert!(
            compose["volumes"]
                .as_hash()
                .unwrap()
                .contains_key(&Yaml::String(name.into()))
        );
        let inner: Vec<u16> = strings(&service["ports"])
            .iter()
            .map(|port| {
                let (host, inner) = port.rsplit_once(':').unwrap();
                assert!(host.starts_with("127.0.0.1:"), "{port}: there are no tokens");
                assert!(published.insert(host.to_owned()), "{host} twice");
                inner.parse().unwrap()
            })
            .collect();
        assert_eq!(inner, [config.server.port, config.metrics.port]);
    }
}

/// The environment of a container of the pod.
fn environment_of(container: &Yaml) -> Vec<(String, String)> {
    let mut environment = of_image();
    for variable in list(container, "env") {
        let field = string(&variable["valueFrom"]["fieldRef"], "fieldPath");
        let value = match field {
            "metadata.name" => POD,
            "metadata.namespace" => NAMESPACE,
            "status.podIP" => "10.1.2.3",
            other => panic!("{other}"),
        };
        environment.push(pair(string(variable, "name"), value));
    }
    environment
}

/// The configuration of a pod, and its container.
fn pod() -> (Config, Yaml) {
    let set = manifest("statefulset");
    let container = list(&set["spec"]["template"]["spec"], "containers")[0].clone();
    let content = manifest("configmap");
    let config = taken(string(&content["data"], "config.toml"), &environment_of(&container));
    (config, container)
}

/// What is in comments and no prose is there.
fn uncommented(text: &str, is_content: impl Fn(&str) -> bool) -> String {
    let mut changed = 0;
    let lines = text.lines().map(|line| {
        let (indent, rest) = line.split_at(line.len() - line.trim_start().len());
        match rest.strip_prefix("# ").filter(|rest| is_content(rest)) {
            Some(rest) => {
                changed += 1;
                format!("{indent}{rest}\n")
            }
            None => format!("{line}\n"),
        }
    });
    let text = lines.collect();
    assert!(changed > 0, "there is nothing in comments:\n{text}");
    text
}

#[test]
fn what_is_in_comments_for_tls_is_right() {
    let is_yaml = |line: &str| line.starts_with("- ") || line.starts_with("  ");
    let set = uncommented(&text("deploy/kubernetes/statefulset.yaml"), is_yaml);
    let set = YamlLoader::load_from_str(&set).unwrap().remove(0);
    let problems = problems_of(&schema::json(&set));
    assert!(
        !problems.is_empty() && problems.iter().all(Vec::is_empty),
        "{problems:?}"
    );
    let template = &set["spec"]["template"]["spec"];
    let container = &list(template, "containers")[0];
    let one = |list: &[Yaml]| -> Yaml {
        let mut named = list.iter().filter(|entry| entry["name"].as_str() == Some("tls"));
        let found = named.next().cloned().unwrap();
        assert!(named.next().is_none(), "one is called tls");
        found
    };
    let mount = one(list(container, "volumeMounts"));
    let dir = string(&mount, "mountPath");
    let secret = one(list(template, "volumes"));
    let secret = string(&secret["secret"], "secretName").to_owned();

    let is_toml = |line: &str| line.starts_with('[') || line.split(' ').nth(1) == Some("=");
    let map = manifest("configmap");
    let content = uncommented(string(&map["data"], "config.toml"), is_toml);
    let name = format!("*.pairdb-storage-node-headless.{NAMESPACE}.svc.cluster.local");
    assert!(content.contains(&name), "{name}: a certificate needs it");
    let files = tempfile::tempdir().unwrap();
    let authority = secure::Authority::new("authority");
    let issued = authority.issue_for(&name);
    for (name, pem) in [
        ("ca.crt", &authority.pem),
        ("tls.crt", &issued.cert),
        ("tls.key", &issued.key),
    ] {
        secure::put(&files.path().join(name), pem);
    }
    let there = files.path().to_str().unwrap();
    let config = taken(&content.replace(dir, there), &environment_of(container));
    assert!(
        config.advertised_host().ends_with(&name[1..]),
        "{}",
        config.advertised_host()
    );
    let security = &config.security;
    let made = text("deploy/README.md");
    let made = made
        .lines()
        .find(|line| line.contains(&format!("create secret generic {secret} ")));
    let made = made.unwrap_or_else(|| panic!("nobody makes the Secret {secret}"));
    for file in [
        &security.tls_cert,
        &security.tls_key,
        &security.client_ca,
        &security.peer_ca,
    ] {
        let file = file.as_ref().unwrap();
        assert_eq!(file.parent(), Some(files.path()), "it is where the Secret is mounted");
        let key = file.file_name().unwrap().to_str().unwrap();
        assert!(made.contains(&format!("--from-file={key}")), "{key}");
    }
}

#[test]
fn a_pod_takes_its_configuration_and_is_found_by_its_name() {
    let (config, container) = pod();
    let set = manifest("statefulset");
    let spec = &set["spec"];
    assert_eq!(config.server.node_id, POD);
    let headless = manifest("service-headless");
    let service = string(&headless["metadata"], "name");
    assert_eq!(
        config.advertised_host(),
        format!("{POD}.{service}.{NAMESPACE}.svc.cluster.local")
    );
    assert_eq!(string(spec, "serviceName"), service);
    assert_eq!(string(&headless["spec"], "clusterIP"), "None");
    assert!(headless["spec"]["publishNotReadyAddresses"].as_bool().unwrap());
    assert!(POD.starts_with(string(&set["metadata"], "name")));

    let arguments = strings(&container["args"]);
    assert_taken(&arguments, "statefulset.yaml");
    let template = &spec["template"]["spec"];
    let grace = template["terminationGracePeriodSeconds"].as_i64().unwrap();
    let before = container["lifecycle"]["preStop"]["sleep"]["seconds"].as_i64().unwrap();
    assert!(before > 0, "proxies learn that the pod goes");
    assert!(Duration::from_secs((grace - before) as u64) > config.server.shutdown_timeout);
    let mounts: BTreeMap<String, String> = list(&container, "volumeMounts")
        .iter()
        .map(|mount| pair(string(mount, "name"), string(mount, "mountPath")))
        .collect();
    assert_eq!(Path::new(&mounts["data"]), config.storage.data_dir);
    assert_eq!(
        string(&list(spec, "volumeClaimTemplates")[0]["metadata"], "name"),
        "data"
    );
    let (dir, key) = flag(&arguments, "--config").rsplit_once('/').unwrap();
    assert_eq!(mounts["config"], dir);
    let map = manifest("configmap");
    assert!(map["data"][key].as_str().is_some(), "no {key} in the ConfigMap");
    let volume = &list(template, "volumes")[0];
    assert_eq!(string(volume, "name"), "config");
    assert_eq!(string(&volume["configMap"], "name"), string(&map["metadata"], "name"));
    assert!(config.gossip.enabled);
    assert_eq!(
        config.gossip.seed_nodes,
        [format!("{service}:{}", config.gossip.bind_port)]
    );
    let keys = config.gossip.key_file.as_ref().unwrap();
    assert_eq!(keys.parent(), Some(Path::new(&mounts["gossip"])));
    let secret = string(&list(template, "volumes")[1]["secret"], "secretName").to_owned();
    let made = format!(
        "create secret generic {secret} --from-file={}=",
        keys.file_name().unwrap().display()
    );
    assert!(text("deploy/README.md").contains(&made), "{made}");
    let user = template["securityContext"]["runAsUser"].as_i64().unwrap();
    assert_eq!(instruction("USER"), format!("{user}:{user}"), "the user of the image");
    assert_eq!(template["securityContext"]["fsGroup"].as_i64(), Some(user));
    let bound = 2
        * (config.mem_table.num_mem_tables as u64 * config.mem_table.max_size.as_u64()
            + config.cache.max_size.as_u64());
    let memory = string(&container["resources"]["limits"], "memory");
    let limit: u64 = memory.strip_suffix("Gi").unwrap().parse::<u64>().unwrap() << 30;
    assert!(limit > bound, "{memory} for {bound} bytes of memtables and cache");
}

#[test]
fn ports_and_probes_are_those_of_the_node() {
    let (config, container) = pod();
    let expected = ports_of(&config);
    let own: BTreeMap<String, (u16, String)> = list(&container, "ports")
        .iter()
        .map(|port| {
            let number = port["containerPort"].as_i64().unwrap().try_into().unwrap();
            (
                string(port, "name").to_owned(),
                (number, string(port, "protocol").to_owned()),
            )
        })
        .collect();
    let same = |left: &(u16, String), right: &(u16, &str)| left.0 == right.0 && left.1 == right.1;
    assert_eq!(own.len(), expected.len());
    assert!(own.iter().all(|(name, port)| same(port, &expected[name])), "{own:?}");
    for name in ["service", "service-headless"] {
        for port in list(&manifest(name)["spec"], "ports") {
            let number = port["port"].as_i64().unwrap().try_into().unwrap();
            let target = string(port, "targetPort");
            let shown = (number, string(port, "protocol").to_owned());
            assert!(same(&shown, &expected[target]), "{name}: {port:?}");
            assert_eq!(string(port, "name"), target);
        }
    }
    assert_eq!(
        string(&container["startupProbe"]["tcpSocket"], "port"),
        "grpc",
        "listens when it is recovered"
    );
    for (probe, path) in [("livenessProbe", "/health/live"), ("readinessProbe", "/health/serving")] {
        let http = &container[probe]["httpGet"];
        assert_eq!((string(http, "path"), string(http, "port")), (path, "metrics"));
    }
    for host in [&config.server.host, &config.metrics.host] {
        assert_eq!(host, "0.0.0.0", "others reach the pod");
    }

    let policy = &manifest("networkpolicy")["spec"];
    let ports = |direction: &str| -> BTreeSet<(i64, String)> {
        let rules = list(policy, direction).iter();
        let ports = rules.flat_map(|rule| list(rule, "ports").to_vec());
        ports
            .map(|port| (port["port"].as_i64().unwrap(), string(&port, "protocol").to_owned()))
            .collect()
    };
    let of_node: BTreeSet<(i64, String)> = expected
        .values()
        .map(|(port, protocol)| (i64::from(*port), (*protocol).to_owned()))
        .collect();
    assert_eq!(ports("ingress"), of_node);
    let out = ports("egress");
    for (port, protocol) in [
        (config.server.port, "TCP"),
        (config.gossip.bind_port, "UDP"),
        (config.coordinator.port, "TCP"),
        (53, "UDP"),
        (53, "TCP"),
    ] {
        assert!(
            out.contains(&(i64::from(port), protocol.to_owned())),
            "no way out to {port}"
        );
    }
}

#[test]
fn what_selects_pods_and_services_finds_them() {
    let set = manifest("statefulset");
    let pods = &set["spec"]["template"]["metadata"]["labels"];
    let selectors = [
        set["spec"]["selector"]["matchLabels"].clone(),
        manifest("service")["spec"]["selector"].clone(),
        manifest("service-headless")["spec"]["selector"].clone(),
        manifest("poddisruptionbudget")["spec"]["selector"]["matchLabels"].clone(),
        manifest("networkpolicy")["spec"]["podSelector"]["matchLabels"].clone(),
        list(&set["spec"]["template"]["spec"], "topologySpreadConstraints")[0]["labelSelector"]["matchLabels"].clone(),
    ];
    for selector in selectors {
        assert!(
            !labels(&selector).is_empty() && selects(&selector, pods),
            "{selector:?}"
        );
    }
    let monitor = &manifest("servicemonitor")["spec"];
    let headless = manifest("service-headless");
    assert!(selects(
        &monitor["selector"]["matchLabels"],
        &headless["metadata"]["labels"]
    ));
    let endpoint = &list(monitor, "endpoints")[0];
    let asked = |service: &Yaml| {
        let ports = list(&service["spec"], "ports").iter();
        ports
            .filter(|port| string(port, "name") == string(endpoint, "port"))
            .count()
    };
    assert_eq!(asked(&headless), 1);
    assert_eq!(asked(&manifest("service")), 0, "each pod is asked once");
    let (config, _) = pod();
    assert_eq!(string(endpoint, "path"), config.metrics.path);
    let job = &list(endpoint, "relabelings")[0];
    assert_eq!(string(job, "targetLabel"), "job");
    let up = format!("up{{job=\"{}\"}}", string(job, "replacement"));
    assert!(text("observability/prometheus/alerts.yml").contains(&up), "{up}");
}

/// What is wrong with a manifest, by each version that knows its kind.
fn problems_of(document: &Value) -> Vec<Vec<String>> {
    let files = ["kubernetes-1.30", "kubernetes-1.37", "prometheus-operator-0.83"];
    let schemas = files.map(|name| serde_json::from_str(&text(&format!("tests/schemas/{name}.json"))).unwrap());
    let of_all = schemas.iter();
    of_all
        .filter_map(|schemas| schema::problems(schemas, document))
        .collect()
}

/// By the package itself, where it is or can be fetched; what stands in the repository is held against it as well.
#[test]
fn the_schemas_are_those_of_the_package_and_it_finds_the_manifests_valid() {
    let probe = "${PYTHON:-python3} -c 'import kubernetes_validate' ||
        timeout 60 python3 -m pip download --quiet --timeout 5 --retries 1 --no-deps --dest \"$(mktemp -d)\" kubernetes-validate==1.37.0";
    if let Some(said) = script::run_where(&[probe.to_owned()], "tests/schemas/check.sh") {
        assert!(said.contains("ok: the manifests are valid"), "{said}");
    }
}

#[test]
fn every_manifest_is_one_of_its_kind() {
    let mut kinds = BTreeMap::new();
    for entry in std::fs::read_dir(file("deploy/kubernetes")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let Some(stem) = name.strip_suffix(".yaml").filter(|stem| *stem != "kustomization") else {
            continue;
        };
        let document = schema::json(&manifest(stem));
        let kind = document["kind"].as_str().unwrap().to_owned();
        let found = problems_of(&document);
        assert!(!found.is_empty(), "{name}: nothing is known of {kind}");
        assert!(found.iter().all(Vec::is_empty), "{name}: {found:?}");
        kinds.insert(kind, document);
    }
    // What is wrong is found: a field that there is not, a number in place of a word, something that is missing.
    let spoilt = |kind: &str, place: &str, value: Value| {
        let mut document = kinds[kind].clone();
        let (parent, name) = place.rsplit_once('/').unwrap();
        let object = document.pointer_mut(parent).unwrap().as_object_mut().unwrap();
        match value {
            Value::Null => object.remove(name),
            value => object.insert(name.to_owned(), value),
        };
        let found = problems_of(&document);
        assert!(
            found.iter().all(|problems| !problems.is_empty()),
            "{kind}{place}: {found:?}"
        );
    };
    let container = "/spec/template/spec/containers/0";
    spoilt("StatefulSet", &format!("{container}/livenesProbe"), json!({}));
    spoilt("StatefulSet", &format!("{container}/name"), json!(5));
    spoilt(
        "StatefulSet",
        &format!("{container}/lifecycle/preStop/sleep/seconds"),
        json!("5s"),
    );
    spoilt("Service", "/spec/ports/0/port", Value::Null);
    spoilt("NetworkPolicy", "/spec/ingress/0/ports/0/portt", json!(1));
    spoilt("ServiceMonitor", "/spec/endpoints/0/intervall", json!("15s"));
    spoilt("PrometheusRule", "/spec/groups/0/rules/0/alerts", json!("Pairdb"));
    spoilt("PrometheusRule", "/spec/groups/0/rules/0/expr", Value::Null);
}

#[test]
fn kustomize_names_every_manifest_and_all_are_in_one_namespace() {
    let kustomization = manifest("kustomization");
    let mut named: BTreeSet<String> = strings(&kustomization["resources"]).into_iter().collect();
    assert_eq!(string(&kustomization, "namespace"), NAMESPACE);
    for entry in std::fs::read_dir(file("deploy/kubernetes")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let Some(stem) = name.strip_suffix(".yaml").filter(|stem| *stem != "kustomization") else {
            continue;
        };
        assert!(named.remove(&name), "{name} is not among the resources");
        let metadata = &manifest(stem)["metadata"];
        let of = if stem == "namespace" { "name" } else { "namespace" };
        assert_eq!(string(metadata, of), NAMESPACE, "{name}");
    }
    assert!(named.is_empty(), "{named:?} are not there");
    let (_, container) = pod();
    let (image, tag) = string(&container, "image").split_once(':').unwrap();
    let images = &list(&kustomization, "images")[0];
    assert_eq!((string(images, "name"), string(images, "newTag")), (image, tag));
}

#[test]
fn the_alerts_in_kubernetes_are_those_of_observability() {
    let there = yaml("observability/prometheus/alerts.yml");
    let here = manifest("prometheusrule");
    assert!(!list(&there, "groups").is_empty());
    assert_eq!(
        here["spec"]["groups"], there["groups"],
        "run deploy/kubernetes/rules.sh"
    );
}

#[test]
fn the_service_of_systemd_runs_what_the_node_knows() {
    let unit = text("deploy/systemd/pairdb-node.service");
    let settings: Vec<(&str, &str)> = unit
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split_once('='))
        .collect();
    let one = |name: &str| {
        let mut of_name = settings.iter().filter(|(key, _)| *key == name);
        let (_, value) = of_name.next().unwrap_or_else(|| panic!("no {name}"));
        assert!(of_name.next().is_none(), "{name} twice");
        *value
    };
    let config = taken(&text("deploy/systemd/config.toml"), &[]);
    let state = Path::new("/var/lib").join(one("StateDirectory"));
    assert_eq!(config.storage.data_dir, state);
    assert_eq!(Path::new(one("WorkingDirectory")), state);
    let configured = format!("/etc/{}/config.toml", one("ConfigurationDirectory"));
    let mut commands = 0;
    for (name, line) in settings.iter().filter(|(name, _)| name.starts_with("Exec")) {
        for arguments in commands_of_the_node(line) {
            commands += 1;
            assert_taken(&arguments, name);
            assert_eq!(flag(&arguments, "--config"), configured, "{name}");
        }
    }
    assert_eq!(
        commands, 3,
        "a check before the start, the start, and a check before a reload"
    );
    assert!(one("ExecStart").contains(" serve "));
    assert!(settings.contains(&("ExecReload", "/bin/kill -HUP $MAINPID")));
    assert!(seconds(one("TimeoutStopSec")) > config.server.shutdown_timeout);
    assert_eq!(one("KillSignal"), "SIGTERM");
    assert_eq!(one("Restart"), "on-failure");
}
