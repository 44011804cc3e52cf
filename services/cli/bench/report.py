"""Measurements → figures → JSON and tables. Pure."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from services.cli.bench.drive import Answer, Phase


@dataclass
class Measurements:
    """What one run of the benchmark saw. Times in milliseconds."""

    full: Phase = field(default_factory=Phase)
    """Answers as high as the deadline allows."""
    scorer: Phase = field(default_factory=Phase)
    """Answers up to the scorer's rung."""
    in_process: dict[str, list[float]] = field(default_factory=dict)
    """Rung → times of the same model in this process."""
    cross_encoder_batches: list[float] = field(default_factory=list)
    """Times of batches of the plain cross-encoder."""
    cross_encoder_batch_pairs: int = 0
    """Pairs in each."""
    cpu_seconds: dict[str, float] = field(default_factory=dict)
    """Process → CPU seconds while `full` was driven."""


def percentiles(values: Sequence[float]) -> dict[str, float]:
    """p50, p95 and p99."""
    return {f"p{q}": round(float(np.percentile(values, q)), 3) for q in (50, 95, 99)}


def shares(names: Sequence[str]) -> dict[str, float]:
    """How often each name comes, of 1."""
    return {name: round(count / len(names), 4) for name, count in Counter(names).most_common()}


def overhead_ratios(measured: Measurements) -> dict[str, float]:
    """Rung → the mesh's median over the median of the same model in process, for rungs that both reached."""
    ratios = {}
    for rung, times in measured.in_process.items():
        mesh = [a.milliseconds for a in (*measured.full.answers, *measured.scorer.answers) if a.rung == rung]
        if mesh and times:
            ratios[rung] = round(float(np.median(mesh) / np.median(times)), 3)
    return ratios


def summarise(measured: Measurements) -> dict[str, Any]:
    """All figures. ValueError when no answer came."""
    answers = measured.full.answers
    if not answers:
        raise ValueError(f"no answer came: {dict(measured.full.errors)}")
    latency = percentiles([answer.milliseconds for answer in answers])
    rungs = shares([answer.rung for answer in answers])
    ratios = overhead_ratios(measured)
    candidates = float(np.median([answer.candidate_count for answer in answers]))
    cross_encoder_ms = None
    if measured.cross_encoder_batches:
        per_pair = float(np.median(measured.cross_encoder_batches)) / measured.cross_encoder_batch_pairs
        cross_encoder_ms = per_pair * candidates
    cpu = {name: round(seconds / len(answers), 6) for name, seconds in measured.cpu_seconds.items()}
    return {
        "requests": len(answers),
        "errors": dict(measured.full.errors),
        "requests_per_second": round(len(answers) / measured.full.seconds, 2),
        "latency_ms": latency,
        "rungs": rungs,
        "degraded": round(sum(answer.degraded for answer in answers) / len(answers), 4),
        "candidates": candidates,
        "overhead_ratio": ratios.get(next(iter(rungs))),
        "overhead_ratio_by_rung": ratios,
        "scorer_latency_ms": percentiles([a.milliseconds for a in measured.scorer.answers])
        if measured.scorer.answers
        else None,
        "in_process_ms": {rung: percentiles(times) for rung, times in measured.in_process.items() if times},
        "cross_encoder_ms": None if cross_encoder_ms is None else round(cross_encoder_ms, 1),
        "cross_encoder_speedup": None if cross_encoder_ms is None else round(cross_encoder_ms / latency["p50"], 1),
        "cross_encoder_measured_pairs": len(measured.cross_encoder_batches) * measured.cross_encoder_batch_pairs,
        "cpu_seconds_per_request": cpu | {"total": round(sum(cpu.values()), 6)},
        "hops": summarise_hops(answers),
    }


def summarise_hops(answers: Sequence[Answer]) -> dict[str, dict[str, float]]:
    """Hop → percentiles of its time, and means of its calls and bytes per request."""
    by_name: dict[str, list[Any]] = {}
    for answer in answers:
        for hop in answer.hops:
            by_name.setdefault(hop.name, []).append(hop)
    return {
        name: {
            **percentiles([hop.milliseconds for hop in hops]),
            "calls_per_request": round(len(hops) / len(answers), 3),
            "request_bytes": round(float(np.mean([hop.request_bytes for hop in hops])), 1),
            "response_bytes": round(float(np.mean([hop.response_bytes for hop in hops])), 1),
        }
        for name, hops in by_name.items()
    }


def print_summary(summary: dict[str, Any], console: Console) -> None:
    """The figures as tables."""
    latency = ", ".join(f"{name} {value:.1f} ms" for name, value in summary["latency_ms"].items())
    console.print(
        f"[bold]{summary['requests_per_second']:g} requests/s[/], {latency} "
        f"over {summary['requests']} answers of {summary['candidates']:.0f} candidates",
        highlight=False,
    )
    rungs = ", ".join(f"{rung} {share:.1%}" for rung, share in summary["rungs"].items())
    console.print(
        f"rungs: {rungs}; degraded {summary['degraded']:.1%}; errors {summary['errors'] or 'none'}", highlight=False
    )
    hops = Table("hop", "calls", "p50 ms", "p95 ms", "p99 ms", "bytes sent", "bytes received")
    for name, hop in summary["hops"].items():
        times = (f"{hop[q]:.2f}" for q in ("p50", "p95", "p99"))
        sizes = (f"{hop[key]:,.0f}" for key in ("request_bytes", "response_bytes"))
        hops.add_row(name, f"{hop['calls_per_request']:g}", *times, *sizes)
    console.print(hops)
    cpu = Table("process", "CPU ms per request")
    for name, seconds in summary["cpu_seconds_per_request"].items():
        cpu.add_row(name, f"{seconds * 1000:.2f}")
    console.print(cpu)
    for rung, ratio in summary["overhead_ratio_by_rung"].items():
        inside = summary["in_process_ms"][rung]["p50"]
        console.print(
            f"rung {rung}: the mesh takes [bold]{ratio:.2f}×[/] the {inside:.1f} ms in process", highlight=False
        )
    if summary["cross_encoder_ms"] is not None:
        console.print(
            f"plain cross-encoder over {summary['candidates']:.0f} pairs: {summary['cross_encoder_ms'] / 1000:.2f} s "
            f"(scaled from {summary['cross_encoder_measured_pairs']} measured pairs), "
            f"[bold]{summary['cross_encoder_speedup']:.0f}×[/] the mesh's p50",
            highlight=False,
        )
