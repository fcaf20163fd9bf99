#!/usr/bin/env python3
"""Shows what bench/run has measured: a line a figure, a column a runtime.

Run as a program, it writes the tables of the last run's pull, exec, streams, logs and probes as docs/figures.md has them.
"""

import json
from pathlib import Path

NAMES = ("tripod", "containerd")


def show(results):
    names = list(results)
    rows = []
    for network in ("host", "bridge"):
        calls = {name: results[name].get("pods", {}).get(network, {}).get("calls", {}) for name in names}
        for call in sorted(set().union(*calls.values())):
            rows.append((f"{call}, {network}, ms", [calls[name].get(call, {}).get("median_ms") for name in names]))
        rates = [results[name].get("burst", {}).get(network, {}) for name in names]
        for key in ("pods_started_per_second", "pod_lives_per_second"):
            rows.append((f"{key}, {network}", [rate.get(key) for rate in rates]))
    for key in ("daemon_idle_kb", "daemon_kb", "shims_kb_per_pod"):
        rows.append((key, [results[name].get("memory", {}).get(key) for name in names]))
    for measure in ("pull", "exec", "streams", "logs", "probes"):
        rows += _rows(measure, [results[name].get(measure, {}) for name in names])
    print(f"{'':66}" + "".join(f"{name:>14}" for name in names))
    for label, values in rows:
        if any(value is not None for value in values):
            print(f"{label:66}" + "".join(f"{_number(value):>14}" for value in values))
    for kind, stages in results.get("tripod", {}).get("stages", {}).items():
        if isinstance(stages, dict):
            print(f"{kind}: " + ", ".join(f"{stage} {micros:.0f} µs" for stage, micros in stages.items()))


# Of a measure's figures, what the table shows; the rest is in the JSON.
_SHOWN = {
    "median_ms": "median ms", "p99_ms": "p99 ms", "per_second": "a second", "mb_per_second": "MB/s",
    "runtime_cpu_s_per_gb": "CPU s of the runtime a GB", "lines_lost": "lines lost", "peak_kb": "peak kB",
    "runtime_percent": "runtime, % of a core", "machine_percent": "machine beyond idle, % of a core",
    "peak_daemon_kb": "peak of the daemon, kB", "daemon_rss_kb": "daemon, RSS, kB", "disk_mb": "MB on disk",
    "times_unpacked": "times the unpacked files", "layers_mb": "MB of all layers", "page_cache_mb": "MB in the page cache",
    "sync_ms": "sync after the answer, ms",
    "done_per_second": "done a second", "failed": "failed", "runtime_ms_per_probe": "runtime, ms a probe",
}


def _rows(label, values):
    """Rows of figures that lie in dictionaries of dictionaries, in the order of the first that has them."""
    rows = []
    for key in dict.fromkeys(key for value in values for key in value):
        inner = [value.get(key) for value in values]
        if any(isinstance(one, dict) for one in inner):
            rows += _rows(f"{label}: {key}", [one if isinstance(one, dict) else {} for one in inner])
        elif key in _SHOWN:
            rows.append((f"{label}: {_SHOWN[key]}", inner))
    return rows


def _number(value):
    if value is None:
        return ""
    return str(round(value)) if isinstance(value, int) or abs(value) >= 1e3 else f"{value:.3g}"


def markdown(results):
    for measure, make in (("pull", _pull), ("exec", _exec), ("probes", _probes), ("streams", _streams), ("logs", _logs)):
        taken = [results.get(name, {}).get(measure) for name in NAMES]
        if all(taken):
            make(*taken)
            print()


def _line(label, *cells):
    print(f"| {label} | " + " | ".join(cells) + " |")


def _head(*columns):
    _line("", *columns)
    print("|" + "---|" * (len(columns) + 1))


def _times(one):
    return f"{_number(one['median_ms'])} ({_number(one['p99_ms'])})"


def _pull(tripod, containerd):
    _head(*(f"{name}, {what}" for what in ("s", "peak memory, MB") for name in NAMES))
    runtimes = (tripod, containerd)
    for label in (label for label, one in tripod.items() if isinstance(one, dict) and "peak_daemon_kb" in one):
        times = [_number(one[label]["median_ms"] / 1e3) for one in runtimes]
        _line(label, *times, *(_number(one[label]["peak_daemon_kb"] / 1e3) for one in runtimes))
    for program in tripod["inflate"]:
        times = [_number(one["inflate"][program]["median_ms"] / 1e3) for one in runtimes]
        _line(f"{program} -dc of that one layer, by itself", *times, "", "")
    after = [_number(one["afterwards"]["daemon_rss_kb"] / 1e3) for one in runtimes]
    _line("ten seconds afterwards", "", "", *after)
    print()
    _head(*(f"{name}, {what}" for what in ("MB on disk", "times the unpacked files") for name in NAMES))
    for label in tripod["kept on disk"]:
        both = [one["kept on disk"][label] for one in runtimes]
        _line(label, *(_number(one[key]) for key in ("disk_mb", "times_unpacked") for one in both))
    print()
    _head(*NAMES)
    for key, what in (("seconds", "pulled, s"), ("layers_mb", "sum of their layers, MB"), ("disk_mb", "on disk, MB"),
                      ("page_cache_mb", "in the page cache, MB")):
        _line(what, *(_number(one["ten images"][key]) for one in runtimes))


def _exec(tripod, containerd):
    _head(*NAMES, "target")
    for key, target in (("ExecSync", "2"), ("ExecSync, 16 at a time", ""), ("SPDY", "5"), ("WebSocket", "5")):
        label = key if key.startswith("ExecSync") else f"streaming server, {key}"
        _line(label, _times(tripod[key]), _times(containerd[key]), target)
    key = "ExecSync, 16 at a time"
    _line(f"{key}, a second", _number(tripod[key]["per_second"]), _number(containerd[key]["per_second"]), "")


def _probes(tripod, containerd):
    _head(*NAMES)
    for label, key in (
        ("probes done a second", "done_per_second"),
        ("runtime and commands, % of a core", "runtime_percent"),
        ("whole machine beyond idle and client, % of a core", "machine_percent"),
        ("runtime and commands, ms of a core a probe", "runtime_ms_per_probe"),
    ):
        _line(label, _number(tripod[key]), _number(containerd[key]))
    _line("time of a probe, ms", _times(tripod["time"]), _times(containerd["time"]))


def _throughput(label, tripod, containerd):
    runtimes = (tripod, containerd)
    cells = [_number(one[key]) for key in ("mb_per_second", "runtime_cpu_s_per_gb") for one in runtimes]
    _line(label, *cells)


def _streams(tripod, containerd):
    _head(*(f"{name}, {what}" for what in ("MB/s", "CPU s a GB") for name in NAMES))
    for kind in ("exec out", "exec in", "port-forward out", "port-forward in"):
        for transport in ("SPDY", "WebSocket"):
            _throughput(f"{kind}, {transport}", tripod[transport][kind], containerd[transport][kind])
    print()
    _head(*NAMES)
    for transport, kinds in tripod.items():
        for kind, one in kinds.items() if isinstance(kinds, dict) else ():
            if "median_ms" in one:
                _line(f"{kind}, {transport}, ms", _times(one), _times(containerd[transport][kind]))


def _logs(tripod, containerd):
    _head(*(f"{name}, {what}" for what in ("MB/s", "CPU s a GB") for name in NAMES))
    kinds = [kind for kind in tripod if isinstance(tripod[kind], dict)]
    kinds.sort(key=lambda kind: tripod[kind]["containers"])
    for kind in kinds:
        _throughput(kind, tripod[kind], containerd[kind])
    print()
    _head(*NAMES)
    runtimes = (tripod, containerd)
    _line("memory of the runtime, one container, MB", *(_number(one[kinds[0]]["peak_kb"] / 1e3) for one in runtimes))
    _line("memory of the runtime, many, MB", *(_number(one[kinds[-1]]["peak_kb"] / 1e3) for one in runtimes))
    _line("lines lost, all kinds", *(str(sum(one[kind]["lines_lost"] for kind in kinds)) for one in runtimes))


if __name__ == "__main__":
    markdown(json.loads((Path(__file__).parent / ".results" / "latest.json").read_text()))
