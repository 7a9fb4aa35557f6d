"""What a person sees of a node in a browser. Run by tests/page/run.sh; exit code 0: all of it is as it should be."""

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from contextlib import contextmanager

from browser import Browser

HOSTILE = "<img src=x onerror=\"window.hacked=1\"><script>window.hacked=1</script>&lt;b&gt;"
SHOWN = "document.querySelectorAll('#actors tr').length > 3"


def free_port():
    with socket.socket() as taken:
        for port in range(20_000 + os.getpid() % 5000, 30_000):
            try:
                taken.bind(("127.0.0.1", port))
                return port
            except OSError:
                continue
    raise RuntimeError("no free port")


class Node:
    """A node of its own, on small tables, so that it flushes and compacts all the time."""

    def __init__(self, binary, directory):
        self.binary, self.directory = binary, directory
        self.port = free_port()
        self.metrics, self.admin = self.port + 1, self.port + 2
        self.process = None

    def start(self):
        settings = {
            "SERVER__NODE_ID": "node-in-a-browser", "METRICS__PORT": str(self.metrics), "ADMIN__PORT": str(self.admin),
            "ADMIN__FAULT_INJECTION": "true", "MEM_TABLE__FLUSH_THRESHOLD": "1MiB", "SSTABLE__L0_SIZE": "4MiB",
            "SSTABLE__L1_SIZE": "8MiB", "SSTABLE__L2_SIZE": "16MiB", "CACHE__MAX_SIZE": "16MiB", "COMPACTION__THROTTLE": "20",
            # A write waits for a sync, which takes longer.
            "TRACING__SLOW_REQUEST": "100us",
            "DISK__WARN_USAGE": "0.98", "STORAGE__MAX_DISK_USAGE": "0.99", "DISK__STOP_USAGE": "1.0",
        }
        environment = {**os.environ, **{f"PAIRDB__{name}": value for name, value in settings.items()}}
        log = open(f"{self.directory}/node.log", "a")
        self.process = subprocess.Popen(
            [self.binary, "serve", "--data-dir", f"{self.directory}/data", "--listen", f"127.0.0.1:{self.port}"],
            env=environment, stdout=log, stderr=log)
        begun = time.monotonic()
        while True:
            try:
                return self.status()
            except OSError:
                assert time.monotonic() - begun < 30 and self.process.poll() is None, "the node does not start"
                time.sleep(0.05)

    def url(self, path="/"):
        return f"http://127.0.0.1:{self.metrics}{path}"

    def status(self):
        with urllib.request.urlopen(self.url("/status"), timeout=5) as answer:
            return json.load(answer)

    def load(self, seconds):
        return subprocess.Popen(
            [self.binary, "bench", "--addr", f"http://127.0.0.1:{self.port}", "--keys", "20000", "--value-size", "500",
             "--concurrency", "16", "--rate", "2000", "--duration", f"{seconds}s"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def kill_actor(self, name):
        subprocess.run([self.binary, "fault", "inject", "--admin-addr", f"http://127.0.0.1:{self.admin}", name, "kill"],
                       check=True, stdout=subprocess.DEVNULL)

    def end(self):
        if self.process:
            self.process.kill()
            self.process.wait()
            self.process = None


def slow_requests(now_ms, text):
    hops = [{"name": name, "queued_us": 900, "worked_us": 2100, "detail": text} for name in ["receive", "wal", "memtable", text]]
    return [{"trace_id": f"{n:032x}", "operation": text, "started_ms": now_ms - 1000 * n, "took_us": 12_000 + 9000 * n,
             "status": "OK" if n % 2 else text, "hops": hops} for n in range(1, 6)]


def made_hostile(value, name=""):
    """Every text of a status, but those that choose the page's classes or name a place in the tree, says something evil."""
    if isinstance(value, dict):
        return {key: made_hostile(item, key) for key, item in value.items()}
    if isinstance(value, list):
        return [made_hostile(item, name) for item in value]
    return HOSTILE if isinstance(value, str) and name != "parent" else value


class Checks:
    def __init__(self, browser, node, pictures):
        self.browser, self.node, self.pictures = browser, node, pictures

    def text(self, selector):
        return self.browser.value(f"document.querySelector({json.dumps(selector)}).innerText")

    def picture(self, name):
        self.browser.picture(f"{self.pictures}/{name}.png")

    def fits(self, what):
        width = self.browser.value("[document.documentElement.scrollWidth, innerWidth]")
        assert width[0] <= width[1], f"{what}: {width[0]} wide in a window of {width[1]}"

    @contextmanager
    def told_instead(self, status, is_shown):
        """The page is told this, which shows by that, and then what the node says."""
        self.browser.answer_instead("*/status", lambda: json.dumps(status))
        self.browser.until("it is shown", is_shown)
        yield
        self.browser.answer_instead("*/status", None)
        self.browser.until("the node itself is shown again", f"!({is_shown})")

    def it_shows_the_node(self):
        browser = self.browser
        browser.look(1400, 900)
        browser.open(self.node.url())
        browser.until("the node is shown", SHOWN)
        browser.until("the history has a past", "document.querySelector('.line.one')?.getAttribute('d').includes('L')")
        assert self.text("#node") == "node-in-a-browser"
        actors = self.text("#actors")
        for actor in self.node.status()["actors"]:
            assert actor["name"] in actors, f"no {actor['name']} in {actors}"
        browser.until("a compaction is shown", "/L0 → L1/.test(document.querySelector('#jobs').innerText)")
        browser.until("real requests that were slow are shown", "document.querySelectorAll('#slow details').length > 0")
        shown = browser.value("document.querySelector('#slow').textContent")
        for hop in ["receive", "wal", "memtable"]:
            assert hop in shown, f"no {hop} among the hops of {shown}"
        self.fits("wide")

    def it_updates_by_itself_and_nothing_moves(self):
        browser = self.browser
        place = ("[...document.querySelectorAll('section, figure, h2, h3')].map((e) => {"
                 " const r = e.getBoundingClientRect(); return [r.x, r.y + scrollY, r.width].map(Math.round).join(); }).join(' ')")
        browser.until("it is settled", "document.querySelectorAll('#ends tr').length === 0")
        before, applied = browser.value(place), self.text("#log")
        browser.until("the log goes on", f"document.querySelector('#log').innerText !== {json.dumps(applied)}")
        restarts = "document.querySelector('#tiles').lastChild.innerText.includes('\\n3\\n')"
        for actor in ["cache-0", "flush", "scrub"]:
            self.node.kill_actor(actor)
        browser.until("the restarts are shown", restarts)
        browser.until("with their reasons", "/cache-0[^]*killed/.test(document.querySelector('#ends').innerText)")
        browser.until("the node is well again", "document.body.dataset.state === 'healthy'")
        assert browser.value(place) == before, "parts of the page moved"

    def it_is_usable_by_keyboard(self):
        browser = self.browser
        browser.value("document.activeElement.blur()")
        browser.press("Tab")
        assert browser.value("document.activeElement.className") == "skip", "the first stop skips the head"
        browser.press("Enter")
        browser.until(
            "the first tile is in sight",
            "document.querySelector('#tiles > *').getBoundingClientRect().top >= "
            "document.querySelector('header').getBoundingClientRect().bottom",
        )
        browser.value("document.activeElement.blur(); window.scrollTo(0, 0); history.replaceState(null, '', location.pathname)")
        for _ in range(8):
            browser.press("Tab")
            if browser.value("document.activeElement.tagName") == "svg":
                break
        assert browser.value("document.activeElement.tagName") == "svg", "a chart can be reached"
        browser.press("ArrowLeft", 3)
        assert browser.value("document.querySelectorAll('.cursor.on').length") == 4, "the cursor is in all charts"
        assert browser.value("document.querySelector('.when').innerText").count(":") == 2, "it says the time"
        browser.press("Escape")
        assert browser.value("document.querySelectorAll('.cursor.on').length") == 0
        browser.value("document.querySelector('#pause').focus()")
        browser.press("Enter")
        browser.until("it is paused", "document.querySelector('#reasons').innerText.startsWith('Paused.')")
        self.text("#age").index("paused")
        browser.press("Enter")
        browser.until("it goes on", "document.querySelector('#age').innerText.startsWith('live')")

    def it_is_usable_in_the_dark_and_on_a_phone(self):
        browser = self.browser
        self.picture("wide")
        browser.look(1400, 900, dark=True)
        paper = browser.value("getComputedStyle(document.body).backgroundColor")
        assert max(int(part) for part in paper[4:-1].split(",")) < 64, f"dark paper is {paper}"
        self.picture("dark")
        browser.look(390, 844)
        browser.until("the charts fit", "document.querySelector('.chart svg').clientWidth < 390")
        self.fits("a phone")
        self.picture("phone")
        browser.look(390, 844, dark=True)
        self.picture("phone-dark")
        browser.look(1400, 900)

    def it_shows_slow_requests_and_hostile_texts_as_texts(self):
        browser = self.browser
        status = self.node.status()
        status["slow_requests"] = slow_requests(status["now_ms"], "wal: 3 in the batch")
        browser.answer_instead("*/status", lambda: json.dumps(status))
        browser.until("slow requests are shown", "document.querySelectorAll('#slow details').length === 5")
        assert browser.value("document.querySelector('#no-slow').hidden")
        browser.value("document.querySelector('#slow summary').focus()")
        browser.press("Enter")
        browser.until("one is open", "document.querySelector('#slow details').open")
        assert "memtable" in self.text("#slow details")
        status["version"] = "told once more"
        browser.until("it is shown anew", "document.querySelector('#about').textContent.includes('told once more')")
        assert browser.value("document.querySelector('#slow details').open"), "what was opened is closed"
        browser.value("window.dispatchEvent(new Event('visibilitychange'))")
        self.picture("slow")
        hostile = made_hostile(status)
        hostile["slow_requests"] = slow_requests(status["now_ms"], HOSTILE)
        hostile["streams"] = [dict.fromkeys(
            ["keys_copied", "bytes_copied", "keys_streamed", "bytes_streamed", "keys_resent", "keys_waiting", "bytes_waiting",
             "lag_ms", "overflows"], 1) | dict.fromkeys(["target_node_id", "address", "state", "problem"], HOSTILE)]
        hostile["tables"]["quarantined"] = [{"id": 7, "bytes": 1} | dict.fromkeys(["file", "first_key", "last_key", "cause"], HOSTILE)]
        hostile["health"]["reasons"] = [HOSTILE]
        browser.answer_instead("*/status", lambda: json.dumps(hostile))
        browser.until("the name is shown as it is", f"document.querySelector('#node').textContent === {json.dumps(HOSTILE)}")
        for place in ["reasons", "actors", "ends", "jobs", "memtables", "disks", "members", "streams", "slow", "quarantined"]:
            assert HOSTILE in browser.value(f"document.querySelector('#{place}').textContent"), f"no text in {place}"
        assert browser.value("window.hacked") is None, "a text of the node was run"
        # Now that all have the same name: rows are neither lost nor left over, however often they are shown.
        for time_shown in range(3):
            hostile["version"] = f"shown {time_shown}"
            browser.until("it is shown anew", f"document.querySelector('#about').textContent.includes('shown {time_shown}')")
            # The supervisor has a row of its own among the actors.
            for place, wanted in [("actors", len(hostile["actors"]) + 1), ("ends", len(hostile["ends"]))]:
                shown = browser.value(f"document.querySelectorAll('#{place} tr').length")
                assert shown == wanted, f"{wanted} {place} in {shown} rows"
        assert browser.value("document.querySelectorAll('img, iframe, object, main script').length") == 0
        self.fits("with hostile texts")
        self.picture("hostile")
        browser.answer_instead("*/status", None)
        browser.until("the node itself is shown again", "document.querySelector('#node').textContent === 'node-in-a-browser'")

    def it_draws_to_scale_what_the_node_says(self):
        """Of numbers that are known: the places of what is drawn, and the words beside it."""
        browser, status = self.browser, self.node.status()
        mib = 1 << 20
        level = lambda number, sizes, most: {
            "level": number, "tables": len(sizes), "bytes": sum(sizes), "max_bytes": most, "table_bytes": sizes}
        status["tables"]["levels"] = [level(0, [mib, 3 * mib], 16 * mib), level(1, [12 * mib], 8 * mib), level(2, [], 32 * mib)]
        status["compaction"] |= {"pending_bytes": 5 * mib, "pressure": 4.5, "write_delay_us": 1500, "jobs_failed": 2}
        status["write_memory"] |= {"bytes": 16 * mib, "max_bytes": 64 * mib, "slow_bytes": 48 * mib}
        status["cache"] |= {"bytes": 8 * mib, "max_bytes": 32 * mib, "frequency_weight": 0.25, "recency_weight": 0.75,
                            "hit_ratio": 0.9, "evictions": 1234}
        disk = {"used": 0.9, "total_bytes": 100 << 30, "available_bytes": 10 << 30}
        status["disks"] = [status["disks"][0] | disk]
        with self.told_instead(status, "document.querySelector('#debt').innerText.includes('4.50')"):
            self.drawn_to_scale(status["disks"][0]["directory"])

    def drawn_to_scale(self, directory):
        browser = self.browser
        browser.until("the bars have come to rest", "document.getAnimations().length === 0")
        drawn = browser.value("""Object.fromEntries([...document.querySelectorAll('.bar')].map((bar) => {
            const { left, width } = bar.querySelector('.track').getBoundingClientRect();
            const part = (from, to) => (to - from) / width;
            const shares = (of) => [...bar.querySelectorAll(of)].map((i) => i.getBoundingClientRect());
            return [bar.querySelector('.name').innerText, {
              fill: part(left, bar.querySelector('.fill').getBoundingClientRect().right),
              parts: shares('.fill i').map((i) => part(i.left, i.right)),
              marks: shares('.marks i').map((i) => part(left, i.right)),
              text: bar.querySelector('.text').innerText, kind: bar.className }];
        }))""")
        close = lambda found, wanted: len(found) == len(wanted) and all(abs(a - b) < 0.02 for a, b in zip(found, wanted))
        for name, fill, parts, marks, text, kind in [
            # The widest is L2's 32 MiB, of which it has nothing.
            ("L0", 4 / 32, [1 / 32, 3 / 32], [16 / 32], "2 tables, 4.0 MiB of 16.0 MiB", "bar"),
            ("L1", 12 / 32, [], [8 / 32], "1 table, 12.0 MiB of 8.0 MiB", "bar warn"),
            ("L2", 0, [], [1], "0 tables, 0 B of 32.0 MiB", "bar"),
            ("writes", 16 / 64, None, [48 / 64], "16.0 MiB of 64.0 MiB", "bar"),
            ("held", 8 / 32, [], [], "8.0 MiB of 32.0 MiB", "bar"),
            ("weights", 1, [0.25, 0.75], [], "often 0.25, lately 0.75", "bar split"),
            (directory, 0.9, [], [], "90.0 % of 100 GiB, 10.0 GiB free", "bar warn"),
        ]:
            bar = drawn[name]
            right = close([bar["fill"]], [fill]) and (parts is None or close(bar["parts"], parts)) and close(bar["marks"], marks)
            assert right and bar["text"] == text and bar["kind"] == kind, f"{name} is drawn as {bar}"
        debt, cache = self.text("#debt").split("\n"), self.text("#cache").split("\n")
        for words, name, wanted in [(debt, "behind", "5.0 MiB"), (debt, "writes wait", "1.5 ms"), (debt, "failed jobs", "2"),
                                    (cache, "hit ratio", "90.0 %"), (cache, "evicted", "1,234")]:
            assert words[words.index(name) + 1] == wanted, f"{name} in {words}"

    def it_tells_of_actors_members_and_the_last_minutes_what_the_node_says(self):
        browser, status = self.browser, self.node.status()
        handling = {"messages_per_s": 1500, "queued_p50_us": 1, "queued_p99_us": 2500, "worked_p50_us": 1, "worked_p99_us": 40}
        wal = next(actor for actor in status["actors"] if actor["name"] == "wal")
        wal |= {"restarts": 7, "mailbox": {"messages": 321, "bytes": 5, "refused": 0}, "handling": handling}
        stream = wal | {"name": "stream-n2", "parent": "streams", "state": "restarting", "restarts": 1, "mailbox": None, "handling": None}
        stuck = wal | {"name": "still", "stuck_ms": 61_000, "restarts": 0, "handling": handling | {"messages_per_s": 0}}
        status["actors"] += [stream, stuck]
        member = status["members"][0] | {
            "node_id": "n2", "address": "10.0.0.2:50052", "is_self": False, "version": "9.9", "heard_ms": 65_000}
        status["members"] = [member | {"state": "alive", "status": "degraded"}, member | {"node_id": "n3", "state": "down"}]
        at = [status["now_ms"] - 4000, status["now_ms"] - 2000, status["now_ms"]]
        status["history"] = {
            "at_ms": at, "reads_per_s": [0, 50, 100], "writes_per_s": [100, 100, 100], "errors_per_s": [0, 0, 0],
            "read_p50_us": [0, 0, 0], "read_p99_us": [0, 10, 1000], "write_p50_us": [10] * 3, "write_p99_us": [100_000] * 3,
            "cache_hit_ratio": [-1, 0.5, 1], "pending_bytes": [0, 1 << 20, 2 << 20]}
        with self.told_instead(status, "document.querySelector('#actors').innerText.includes('stream-n2')"):
            self.told_in_tables_and_charts()

    def told_in_tables_and_charts(self):
        browser = self.browser
        table = lambda place: browser.value(
            f"[...document.querySelectorAll('{place} tr')].map((row) => [...row.cells].map((cell) => cell.textContent.trim()))")
        actors = {row[0]: row[1:] for row in table("#actors")}
        for name, cells in [
            ("└ wal", ["running", "7", "321", "1,500", "2.5 ms", "40 µs"]),
            ("└ stream-n2", ["restarting", "1", "–", "–", "–", "–"]),
            ("└ still", ["at one message for 1 min 1 s", "0", "321", "0", "–", "–"]),
        ]:
            assert actors[name] == cells, f"{name}: {actors[name]}"
        order = list(actors)
        assert order.index("└ stream-n2") == order.index("└ streams") + 1, f"a child below its parent: {order}"
        assert table("#members") == [
            ["n2", "degraded", "10.0.0.2:50052", "9.9", "1 min 5 s ago"], ["n3", "down", "10.0.0.2:50052", "9.9", "1 min 5 s ago"]]
        charts = browser.value("""[...document.querySelectorAll('.chart')].map((chart) => ({
            legend: Object.fromEntries([...chart.querySelectorAll('.legend > *')].map((of) => [...of.children].map((e) => e.textContent))),
            heights: [...chart.querySelectorAll('path.line')].map((line) =>
              [...line.getAttribute('d').matchAll(/[ML][\\d.]+ ([\\d.]+)/g)].map((point) => Number(point[1]))),
        }))""")
        rates, latency, hits, debt = charts
        assert rates["legend"] == {"reads": "100", "writes": "100", "failed": "0"}, rates
        assert latency["legend"] == {"read p50": "–", "read p99": "1.0 ms", "write p50": "10 µs", "write p99": "100 ms"}, latency
        assert hits["legend"] == {"hits": "100 %"} and debt["legend"] == {"behind": "2.0 MiB"}, (hits, debt)
        # From the axis to the top, half way in the middle; of times on a logarithmic axis.
        top, axis = 8, 150 - 20
        near = lambda found, wanted: len(found) == len(wanted) and all(abs(a - b) < 1 for a, b in zip(found, wanted))
        half = (top + axis) / 2
        assert near(rates["heights"][0], [axis, half, top]) and near(rates["heights"][1], [top] * 3), rates
        assert near(hits["heights"][0], [half, top]) and near(debt["heights"][0], [axis, half, top]), (hits, debt)
        assert near(latency["heights"][1], [axis, half]) and latency["heights"][0] == [], latency
        assert near(latency["heights"][3], [top] * 3), latency
        browser.value("document.querySelector('.chart svg').focus()")
        browser.press("ArrowLeft", 2)
        said = browser.value("document.querySelector('.chart .legend').innerText.split('\\n')")
        assert "50" in " ".join(said), f"the cursor is at the second of three: {said}"
        browser.press("Escape")

    def all_that_is_read_is_there(self):
        """A name that a status does not have, and that the page reads, is noted."""
        browser = self.browser
        spy = """
            window.missing = [];
            const spied = (value, place) => typeof value !== 'object' || value === null ? value : new Proxy(value, {
              get(target, name) {
                if (typeof name === 'string' && !(name in target) && !/^\\d+$/.test(name) && !['then', 'toJSON'].includes(name))
                  window.missing.push(`${place}.${name}`);
                return Array.isArray(target) && typeof target[name] === 'function' ? target[name] : spied(target[name], `${place}.${String(name)}`);
              },
            });
            const json = Response.prototype.json;
            Response.prototype.json = async function () { return spied(await json.call(this), 'status'); };
        """
        added = browser.call("Page.addScriptToEvaluateOnNewDocument", source=spy)["identifier"]
        browser.open(self.node.url())
        browser.until("the node is shown", SHOWN)
        browser.until("it is shown twice", "document.querySelector('#ends tr') !== null")
        missing = browser.value("window.missing")
        assert missing == [], f"the page reads {missing}"
        browser.call("Page.removeScriptToEvaluateOnNewDocument", identifier=added)

    def it_says_when_the_node_is_gone_and_comes_back(self):
        browser = self.browser
        browser.open(self.node.url())
        browser.until("the node is shown", SHOWN)
        assert browser.complaints == [], f"the browser complains: {browser.complaints}"
        self.node.end()
        browser.until("it says so", "document.body.dataset.state === 'gone'")
        assert "no answer" in self.text("#state") and "does not answer" in self.text("#reasons")
        browser.until("and how old it is", "/[1-9]\\d* s old, from \\d\\d:/.test(document.querySelector('#reasons').innerText)")
        assert browser.value("getComputedStyle(document.querySelector('main')).opacity") < "0.9", "old numbers are marked"
        assert browser.value("document.title").startswith("no answer")
        self.picture("gone")
        self.node.start()
        browser.until("it comes back by itself", "document.body.dataset.state === 'healthy' && !document.body.classList.contains('old')")

    def it_asked_nobody_else(self):
        foreign = [url for url in self.browser.requested
                   if not url.startswith(self.node.url()) and not url.startswith(("data:", "about:"))]
        assert foreign == [], f"the page asked for {foreign}"


def main():
    binary, path, pictures = sys.argv[1:]
    with tempfile.TemporaryDirectory() as directory:
        node, browser, load = Node(binary, directory), None, None
        try:
            node.start()
            load = node.load(120)
            browser = Browser(path)
            checks = Checks(browser, node, pictures)
            for check in [checks.it_shows_the_node, checks.it_updates_by_itself_and_nothing_moves, checks.it_is_usable_by_keyboard,
                          checks.it_is_usable_in_the_dark_and_on_a_phone, checks.it_shows_slow_requests_and_hostile_texts_as_texts,
                          checks.it_draws_to_scale_what_the_node_says,
                          checks.it_tells_of_actors_members_and_the_last_minutes_what_the_node_says, checks.all_that_is_read_is_there,
                          checks.it_says_when_the_node_is_gone_and_comes_back, checks.it_asked_nobody_else]:
                check()
                print(f"ok: {check.__name__.replace('_', ' ')}", flush=True)
        finally:
            if load:
                load.kill()
            if browser:
                browser.close()
            node.end()
    print(f"pictures are in {pictures}")


if __name__ == "__main__":
    main()
