"""Shows what bench/run has measured: a line a figure, a column a runtime."""


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
    rows.append(("pull, ms", [results[name].get("pull", {}).get("time", {}).get("median_ms") for name in names]))
    rows.append(("pull, peak_daemon_kb", [results[name].get("pull", {}).get("peak_daemon_kb") for name in names]))
    for measure in ("exec", "streams", "logs", "probes"):
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
    return str(value) if isinstance(value, int) or abs(value) >= 1e4 else f"{value:.4g}"
