"""Three nodes in network namespaces, and what each sees of the others: see run.sh."""

import base64
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time

NODES = (1, 2, 3)
# How long is waited for what must come: long, since it ends as soon as it came.
PATIENCE = 60.0
# Within this time a node that is killed or cut off is known to be gone: it is believed after ten probes, 2 s by the intervals
# below, and by those of a node that is told none 10 s.
GONE_WITHIN = 8.0
# Within this time what a node says of itself is known, and that it is there, or back.
SOON = 15.0
# Of this process alone, so that two runs do not meet. The name of an interface has at most 15 bytes.
PREFIX = f"pdb{os.getpid()}"
SWITCH = f"{PREFIX}-switch"

CONFIG = """
[server]
node_id = "node{n}"
host = "10.77.0.{n}"
max_queue_delay = "60s"

[storage]
data_dir = "{dir}/data{n}"
max_disk_usage = 0.99

[disk]
warn_usage = 0.98
stop_usage = 1.0

[gossip]
enabled = true
key_file = "{dir}/keys"
seed_nodes = ["10.77.0.1:7946", "10.77.0.2:7946"]
gossip_interval = "500ms"
probe_interval = "200ms"
probe_timeout = "100ms"

[metrics]
enabled = false
"""


def ip(*arguments):
    subprocess.run(["ip", *arguments], check=True)


def namespace(n):
    return f"{PREFIX}-{n}"


def set_up_network():
    ip("netns", "add", SWITCH)
    ip("-n", SWITCH, "link", "add", "switch", "type", "bridge")
    ip("-n", SWITCH, "link", "set", "switch", "up")
    for n in NODES:
        ip("netns", "add", namespace(n))
        ip("-n", namespace(n), "link", "set", "lo", "up")
        ip("-n", namespace(n), "link", "add", "eth0", "type", "veth", "peer", "name", f"port{n}", "netns", SWITCH)
        ip("-n", SWITCH, "link", "set", f"port{n}", "master", "switch", "up")
        ip("-n", namespace(n), "address", "add", f"10.77.0.{n}/24", "dev", "eth0")
        ip("-n", namespace(n), "link", "set", "eth0", "up")


def tear_down_network():
    for name in (*map(namespace, NODES), SWITCH):
        subprocess.run(["ip", "netns", "delete", name], check=False)


def eventually(what, check, within=PATIENCE):
    """Waits until `check` holds; it says what it sees, and whether that is enough."""
    begun = time.monotonic()
    while True:
        holds, seen = check()
        if holds and time.monotonic() - begun <= within:
            print(f"ok: {what}, after {time.monotonic() - begun:.1f} s", flush=True)
            return
        if time.monotonic() - begun > within:
            sys.exit(f"error: not within {within:.0f} s: {what}; seen: {seen}")
        time.sleep(0.1)


def expect(what, holds, seen):
    if not holds:
        sys.exit(f"error: {what}; seen: {seen}")
    print(f"ok: {what}", flush=True)


class Node:
    """A node of the namespace of its number."""

    def __init__(self, binary, directory, n):
        self.binary = binary
        self.n = n
        self.config = directory / f"node{n}.toml"
        self.config.write_text(CONFIG.format(n=n, dir=directory))
        self.log = directory / f"node{n}.log"
        self.process = None

    def start(self):
        with self.log.open("a") as log:
            # exec in the namespace: the process is the node itself.
            self.process = subprocess.Popen(
                ["ip", "netns", "exec", namespace(self.n), self.binary, "serve", "--config", self.config],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )
        eventually(f"node{self.n} answers", lambda: (self.members() is not None, self.log.read_text()[-2000:]))

    def end(self, how):
        self.process.send_signal(how)
        return self.process.wait(timeout=PATIENCE)

    def ask(self, *arguments):
        """A command that reaches the node by the socket in its data directory, which no partition cuts."""
        return subprocess.run(
            [self.binary, *arguments, "--config", self.config], capture_output=True, text=True, check=False, timeout=PATIENCE
        )

    def members(self):
        """What the node knows of each, by name; None when it does not answer."""
        asked = self.ask("status", "--json")
        if not asked.stdout:
            return None
        return {member["node_id"]: member for member in json.loads(asked.stdout)["members"]}

    def states(self):
        members = self.members() or {}
        return {name: member["state"] for name, member in sorted(members.items())}

    def command(self, name, *arguments, of):
        """A command of a client in the namespace of `of`, by the network."""
        url = f"http://10.77.0.{self.n}:50052"
        return subprocess.run(
            ["ip", "netns", "exec", namespace(of), self.binary, name, *arguments, "--addr", url],
            capture_output=True, text=True, check=False, timeout=PATIENCE,
        )


def all_see(nodes, expected, what, within=SOON):
    eventually(
        what, lambda: (all(node.states() == expected for node in nodes), [node.states() for node in nodes]), within=within
    )


def put(node, key, value, of):
    done = node.command("put", key, value, of=of)
    expect(f"node{node.n} takes a write from node{of}'s side", done.returncode == 0, done.stderr)


def holds(node, key, value, of):
    done = node.command("get", key, of=of)
    expect(f"node{node.n} has it, from node{of}'s side", done.stdout == value, done)


def run(binary, directory):
    one, two, three = nodes = [Node(binary, directory, n) for n in NODES]
    checked = one.ask("config", "check")
    expect("the node takes the configuration", checked.returncode == 0, checked.stderr)
    everybody = {f"node{n}": "alive" for n in NODES}
    try:
        for node in nodes:
            node.start()
        all_see(nodes, everybody, "all join, and each sees all")
        for node in nodes:
            for of in NODES:
                done = node.command("health", of=of)
                expect(f"node{node.n} is well from node{of}'s side", done.returncode == 0, done.stdout + done.stderr)
        put(three, "before", "of node3", of=1)

        def drains(node, name):
            report = (node.members() or {}).get(name, {}).get("report") or {}
            return report.get("draining")

        for command, expected in [("drain", True), ("undrain", False)]:
            done = two.ask(command)
            expect(f"node2 {command}s", done.returncode == 0, done.stderr)
            eventually(
                f"all see that node2 {command}s",
                lambda expected=expected: (all(drains(node, "node2") is expected for node in nodes), two.members()),
                within=SOON,
            )

        life = one.members()["node3"]["incarnation"]
        three.end(signal.SIGKILL)
        all_see([one, two], everybody | {"node3": "down"}, "node3 is killed, and the others see it", within=GONE_WITHIN)
        three.start()
        all_see(nodes, everybody, "node3 is back for all")
        lives = [node.members()["node3"]["incarnation"] for node in nodes]
        expect("it is a later life of it", min(lives) > life, (life, lives))
        holds(three, "before", "of node3", of=2)

        ip("-n", SWITCH, "link", "set", "port3", "down")
        all_see([one, two], everybody | {"node3": "down"}, "node3 is cut off, and the others see it", within=GONE_WITHIN)
        alone = {"node1": "down", "node2": "down", "node3": "alive"}
        all_see([three], alone, "node3 sees that it is alone")
        reached = three.command("health", of=1)
        expect("nobody reaches it from node1's side", reached.returncode != 0, reached.stdout)
        put(three, "meanwhile", "of the cut", of=3)
        put(one, "meanwhile", "of the others", of=2)

        ip("-n", SWITCH, "link", "set", "port3", "up")
        all_see(nodes, everybody, "the network is whole again, and each sees all")
        holds(three, "meanwhile", "of the cut", of=1)
        holds(one, "meanwhile", "of the others", of=3)

        code = two.end(signal.SIGTERM)
        expect("node2 stops in order", code == 0, code)
        all_see([one, three], everybody | {"node2": "left"}, "the others see that it left")
    except BaseException:
        for node in nodes:
            if node.log.exists():
                print(f"--- node{node.n}\n{node.log.read_text()[-4000:]}", file=sys.stderr)
        raise
    finally:
        for node in nodes:
            if node.process and node.process.poll() is None:
                node.process.kill()
                node.process.wait()


def main():
    # As an end like any other, so that nothing is left behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("error: told to end"))
    with tempfile.TemporaryDirectory() as name:
        directory = pathlib.Path(name)
        keys = directory / "keys"
        keys.write_text(base64.b64encode(os.urandom(32)).decode() + "\n")
        keys.chmod(0o600)
        try:
            set_up_network()
            run(sys.argv[1], directory)
        finally:
            tear_down_network()
    print("everything was as it should be")


main()
