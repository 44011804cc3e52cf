"""The scenarios' Triton pools, from Triton's side and from scoring's."""

from deploy.grafana.panels import SELECT, Board, latency, lines, max_of, rate_of

_MODEL = "{{scenario}} {{model}}"
_GPU = "a GPU"


def _triton(metric: str) -> str:
    return rate_of(metric, "scenario, model")


def _rule(noun: str) -> str:
    return f"scenario_model:recmesh_pool_{noun}:mean_rate5m{{{SELECT}}}"


POOLS = Board(
    "pools",
    "scoring pools",
    "Triton's queue, batches and GPUs, and how scoring finds them.",
    (
        (
            "Load",
            (
                lines("requests", _triton("nv_inference_request_success"), _MODEL, "reqps"),
                lines("failed requests", _triton("nv_inference_request_failure"), _MODEL, "reqps"),
                lines("refused or out of time", f"scenario:recmesh_pool_rejections:ratio_rate5m{{{SELECT}}}",
                      "{{scenario}}", "percentunit", description="Of scoring's calls."),
                lines("time in the queue", _rule("queue_seconds"), _MODEL, "s",
                      description="Mean per request. Above 50 ms the pool is too small."),
                lines("time of execution", _rule("compute_seconds"), _MODEL, "s"),
                lines("batch size", _rule("batch_size"), _MODEL),
                lines("requests that wait", "sum by (scenario, model) (nv_inference_pending_request_count"
                      f"{{{SELECT}}})", _MODEL),
            ),
        ),
        (
            "As scoring sees it",
            (
                latency("execution by part", "recmesh_scoring_inference_seconds", "scenario, part"),
                latency("latency of scoring", "recmesh_scoring_call_seconds", "scenario, method", exemplars=True),
                lines("failed executions",
                      rate_of("recmesh_scoring_inference_failures_total", "scenario, part, reason"),
                      "{{scenario}} {{part}} {{reason}}", "ops", needs="a failure"),
                lines("candidates", rate_of("recmesh_scoring_candidates_total", "scenario, rung"),
                      "{{scenario}} {{rung}}", "ops"),
                lines("parts loaded again", rate_of("recmesh_scoring_pool_reloads_total", "scenario"), "{{scenario}}",
                      "ops", description="The pool had lost them, as after a restart."),
            ),
        ),
        (
            "Hardware",
            (
                lines("GPU utilisation", max_of("nv_gpu_utilization", "scenario, gpu_uuid"),
                      "{{scenario}} {{gpu_uuid}}", "percentunit", needs=_GPU),
                lines("GPU memory", max_of("nv_gpu_memory_used_bytes", "scenario, gpu_uuid"),
                      "{{scenario}} {{gpu_uuid}}", "bytes", needs=_GPU),
                lines("GPU power", max_of("nv_gpu_power_usage", "scenario, gpu_uuid"),
                      "{{scenario}} {{gpu_uuid}} W", needs=_GPU),
            ),
        ),
    ),
)  # fmt: skip
