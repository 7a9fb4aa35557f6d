"""Two nodes under load, and a Prometheus that scrapes them: every metric arrives, every rule and every panel can be asked, and
alerts follow faults. Started by run.sh, with the node's binary as its argument; all that it starts ends with it.
"""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request

HERE = os.path.dirname(os.path.abspath(__file__))
PATIENCE = 60
# Nothing that this starts outlives it, however it ends.
LIFE = "280s"
# What has no value in this run: nobody orders a stream.
NO_STREAMS = {"pairdb_stream_" + name for name in (
    "lag_seconds", "keys_copied_total", "keys_forwarded_total", "waiting_bytes", "overflows_total", "stalled")}
# Panels of things that are not here, or not yet, by a part of their query; each is said to be empty.
EMPTY = {
    "pairdb_stream_": "there are no streams",
    "pairdb_storage_repair_duration_seconds": "nothing is repaired",
    "== 0": "every actor runs",
}


def free_ports(count):
    """Ports below those that the system gives to connections."""
    found, port = [], 20_000 + os.getpid() % 5_000
    while len(found) < count:
        port += 1
        with socket.socket() as tried:
            if tried.connect_ex(("127.0.0.1", port)) != 0:
                found.append(port)
    return found


def get(url):
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return answer.read().decode()
    except urllib.error.HTTPError as error:
        raise OSError(f"{url}: {error.code} {error.read().decode()}") from error


def eventually(what, check, seconds=PATIENCE):
    """What `check` returns, as soon as that is something."""
    begun, last = time.monotonic(), None
    while time.monotonic() - begun < seconds:
        try:
            last = check()
            if last:
                return last
        except OSError as error:
            last = error
        time.sleep(0.2)
    raise AssertionError(f"not within {seconds} s: {what}; last: {last}")


class Prometheus:
    def __init__(self, port):
        self.url = f"http://127.0.0.1:{port}/api/v1/"

    def ask(self, path, **parameters):
        answer = json.loads(get(self.url + path + "?" + urllib.parse.urlencode(parameters)))
        assert answer["status"] == "success", answer
        return answer["data"]

    def query(self, expression):
        return self.ask("query", query=expression)["result"]

    def rules(self):
        return [rule for group in self.ask("rules")["groups"] for rule in group["rules"]]

    def alerts(self, state):
        return {(alert["labels"]["alertname"], alert["labels"].get("actor"), alert["labels"].get("node_id"))
                for alert in self.ask("alerts")["alerts"] if alert["state"] == state}


class Node:
    def __init__(self, binary, work, name, start):
        self.name, self.binary = name, binary
        self.port, self.shown, self.admin = free_ports_for(name)
        environment = {
            "NODE_ID": name,
            "PAIRDB__METRICS__PORT": str(self.shown),
            "PAIRDB__ADMIN__PORT": str(self.admin),
            "PAIRDB__ADMIN__FAULT_INJECTION": "true",
            # Small, so that this load is flushed and compacted.
            "PAIRDB__MEM_TABLE__FLUSH_THRESHOLD": "1MiB",
            "PAIRDB__SSTABLE__L0_SIZE": "2MiB",
            "PAIRDB__SSTABLE__L1_SIZE": "4MiB",
            # However full the disk and however slow the machine is on which this runs.
            "PAIRDB__DISK__WARN_USAGE": "0.97",
            "PAIRDB__STORAGE__MAX_DISK_USAGE": "0.98",
            "PAIRDB__DISK__STOP_USAGE": "0.99",
            "PAIRDB__SERVER__MAX_QUEUE_DELAY": "10s",
            "PAIRDB__TENANTS__QUOTA__ACME__STORED_BYTES": "64KiB",
        }
        self.process = start(
            [binary, "serve", "--data-dir", os.path.join(work, name), "--listen", f"127.0.0.1:{self.port}"],
            environment, name)
        eventually(f"{name} is ready", lambda: get(f"http://127.0.0.1:{self.shown}/health/ready"))

    def run(self, *arguments, check=True):
        return subprocess.run([self.binary, *arguments], check=check, capture_output=True, text=True, timeout=PATIENCE)

    def bench(self, tenant, workload, seconds):
        self.run("bench", "--addr", f"http://127.0.0.1:{self.port}", "--tenant", tenant, "--workload", workload, "--keys", "4000",
                 "--value-size", "1000", "--concurrency", "16", "--channels", "2", "--rate", "1500", "--duration", f"{seconds}s")

    def put(self, tenant, value):
        self.run("put", "--addr", f"http://127.0.0.1:{self.port}", "--tenant", tenant, "key", value, check=False)

    def inject(self, *arguments):
        self.run("fault", "inject", "--admin-addr", f"http://127.0.0.1:{self.admin}", *arguments)


PORTS = {}


def free_ports_for(name):
    return PORTS[name]


def samples(node):
    """The names of all that a node shows, and of them those that have a value."""
    text = get(f"http://127.0.0.1:{node.shown}/metrics")
    families = set(re.findall(r"^# TYPE (\w+) ", text, re.MULTILINE))
    return families, set(re.findall(r"^(\w+)\{", text, re.MULTILINE))


def expressions():
    """Every query of every dashboard, with the title of its panel; variables stand for everything."""
    folder = os.path.join(HERE, "grafana", "dashboards")
    for name in sorted(os.listdir(folder)):
        with open(os.path.join(folder, name), encoding="utf-8") as file:
            dashboard = json.load(file)
        for panel in dashboard["panels"] + dashboard["annotations"]["list"]:
            for target in panel.get("targets", [panel]):
                if "expr" in target:
                    query = re.sub(r"\$(node|actor|tenant)\b", ".*", target["expr"].replace("$__rate_interval", "1m"))
                    assert "$" not in query, f"{name}: an unknown variable: {query}"
                    yield f"{dashboard['title']}: {panel.get('title') or panel.get('name')}", query
        for variable in dashboard["templating"]["list"]:
            query = re.sub(r"\$\w+", ".*", variable["definition"])
            yield f"{dashboard['title']}: ${variable['name']}", re.fullmatch(r"label_values\((.*), (\w+)\)", query).group(1)


def check_metrics(prometheus, nodes):
    known = set(prometheus.ask("label/__name__/values"))
    for node in nodes:
        families, names = samples(node)
        silent = {family for family in families if not any(name.startswith(family) for name in names)}
        assert silent <= {name.removesuffix("_total") for name in NO_STREAMS}, f"{node.name}: without a value: {silent}"
        assert names <= known, f"{node.name}: not in Prometheus: {names - known}"
    print(f"  {len(families)} families, {len(names)} names of each node are in Prometheus; without a value: {sorted(silent)}")


def check_rules(prometheus):
    rules = prometheus.rules()
    broken = [rule for rule in rules if rule["health"] != "ok" or rule.get("lastError")]
    assert rules and not broken, broken
    print(f"  {len(rules)} rules are evaluated without an error")


def check_dashboards(prometheus):
    asked, empty = 0, []
    for panel, query in expressions():
        asked += 1
        # A quantile of nothing is no number.
        if not any(sample["value"][1] != "NaN" for sample in prometheus.query(query)):
            why = next((why for part, why in EMPTY.items() if part in query), None)
            why = why or ("nothing happened" if query.endswith("> 0") or "ALERTS" in query else None)
            assert why, f"{panel} is empty: {query}"
            empty.append(f"{panel} ({why})")
    print(f"  {asked} queries of dashboards are answered; empty: {len(empty)}")
    for line in empty:
        print("   ", line)


def main():
    binary, started = os.path.abspath(sys.argv[1]), []
    work = tempfile.mkdtemp(prefix="pairdb-observability-")

    def start(command, environment, name):
        with open(os.path.join(work, f"{name}.log"), "w", encoding="utf-8") as log:
            command = ["timeout", "--kill-after", "5s", LIFE, *command]
            process = subprocess.Popen(command, env=os.environ | environment, stdout=log, stderr=log, cwd=work)
        started.append(process)
        return process

    ports = free_ports(7)
    PORTS["n1"], PORTS["n2"] = ports[:3], ports[3:6]
    try:
        follow(binary, work, start, ports[6])
        print("all of it holds")
    except BaseException:
        for name in sorted(name for name in os.listdir(work) if name.endswith(".log")):
            with open(os.path.join(work, name), encoding="utf-8", errors="replace") as log:
                print(f"--- {name}\n" + "".join(log.readlines()[-15:]), file=sys.stderr)
        raise
    finally:
        for process in started:
            process.terminate()
        for process in started:
            process.wait()
        shutil.rmtree(work, ignore_errors=True)


def follow(binary, work, start, port):
    nodes = [Node(binary, work, name, start) for name in ("n1", "n2")]
    configuration = os.path.join(work, "prometheus")
    shutil.copytree(os.path.join(HERE, "prometheus"), configuration)
    with open(os.path.join(configuration, "targets", "nodes.yml"), "w", encoding="utf-8") as file:
        json.dump([{"targets": [f"127.0.0.1:{node.shown}" for node in nodes]}], file)
    with open(os.path.join(configuration, "targets", "collector.yml"), "w", encoding="utf-8") as file:
        file.write("[]")
    path = os.path.join(configuration, "prometheus.yml")
    with open(path, encoding="utf-8") as file:
        shipped = file.read()
    with open(path, "w", encoding="utf-8") as file:
        file.write(shipped.replace(": 15s", ": 1s"))
    start(["prometheus", f"--config.file={path}", f"--storage.tsdb.path={work}/tsdb", f"--web.listen-address=127.0.0.1:{port}"],
          {}, "prometheus")
    prometheus = Prometheus(port)
    eventually("Prometheus asks both nodes", lambda: len(prometheus.query('up{job="pairdb"} == 1')) == 2)
    unhealthy = [target for target in prometheus.ask("targets")["activeTargets"] if target["health"] != "up"]
    assert not unhealthy, unhealthy

    print("under load:")
    for node in nodes:
        node.bench("bench", "write", 5)
        node.bench("bench", "mixed", 8)
        for size in (100, 100_000):
            node.put("acme", "v" * size)
    check_metrics(prometheus, nodes)
    check_rules(prometheus)
    check_dashboards(prometheus)
    # One that waits out its `for` is as wrong as one that fires.
    raised = prometheus.alerts("firing") | prometheus.alerts("pending")
    # What was put above was too much for its tenant: that waits, if Prometheus has come by before and after it.
    raised = {alert for alert in raised if alert[0] != "PairdbTenantOverQuota"}
    assert not raised, f"an alert is raised while nothing is wrong: {raised}"
    print("  no alert fires, or is about to")

    print("with faults:")
    first, second = nodes
    first.inject("memtable", "kill")
    eventually("the restart is told", lambda: ("PairdbActorRestarted", "memtable", "n1") in prometheus.alerts("firing"))
    others = {alert for alert in prometheus.alerts("firing") if alert != ("PairdbActorRestarted", "memtable", "n1")}
    assert not others, others
    print("  an actor was killed: PairdbActorRestarted, and no other")
    second.inject("disk-io", "error", "--point", "sync-log")
    second.put("other", "v")
    eventually("the latch is told", lambda: ("PairdbCommitlogLatched", None, "n2") in prometheus.alerts("firing"))
    eventually("the state is told", lambda: ("PairdbNodeUnhealthy", None, "n2") in prometheus.alerts("pending"))
    print("  a sync failed: PairdbCommitlogLatched")
    first.process.terminate()
    first.process.wait()
    eventually("the node's end is noticed", lambda: ("PairdbNodeDown", None, None) in prometheus.alerts("pending"))
    eventually("the node's end is told", lambda: ("PairdbNodeDown", None, None) in prometheus.alerts("firing"), 90)
    print("  a node was stopped: PairdbNodeDown, a minute later")
    check_rules(prometheus)


if __name__ == "__main__":
    main()
