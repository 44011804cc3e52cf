"""Traces reach a collector when one is configured, and measurements name them."""

import asyncio
import re
import urllib.request

import grpc
import grpc.aio
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

from recmesh.feedback.v1 import feedback_service_pb2 as pb
from recmesh.feedback.v1 import feedback_service_pb2_grpc as pb_grpc
from tests.support.service_process import ServiceProcess
from tests.support.waiting import until


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """Keeps (service, span name) of what arrives."""

    def __init__(self) -> None:
        self.spans: set[tuple[str, str]] = set()
        self.trace_ids: set[str] = set()

    async def Export(self, request, context):
        for resource in request.resource_spans:
            attributes = {entry.key: entry.value.string_value for entry in resource.resource.attributes}
            for scope in resource.scope_spans:
                self.trace_ids |= {span.trace_id.hex() for span in scope.spans}
                self.spans |= {(attributes["service.name"], span.name) for span in scope.spans}
        return trace_service_pb2.ExportTraceServiceResponse()


def open_metrics(process: ServiceProcess) -> str:
    request = urllib.request.Request(f"http://127.0.0.1:{process.metrics_port}/metrics")
    request.add_header("Accept", "application/openmetrics-text; version=1.0.0")
    with urllib.request.urlopen(request, timeout=10) as answer:
        return answer.read().decode()


async def test_a_call_becomes_a_span_at_the_collector(tmp_path):
    collector = Collector()
    server = grpc.aio.server()
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(collector, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    settings = {
        "server": {"otlp_endpoint": f"127.0.0.1:{port}"},
        "scenario_files": ["deploy/scenarios/video.yaml"],
        "store": {"engine": "sqlite", "path": str(tmp_path / "log")},
    }
    process = ServiceProcess("feedback", settings, tmp_path)
    await asyncio.to_thread(process.start)
    try:
        async with grpc.aio.insecure_channel(process.address) as channel:
            event = pb.Feedback(event_id="e", user_id="u", item_id="i", event_kind=2, event_time_ms=1)
            request = pb.RecordFeedbackRequest(scenario="video", events=[event])
            await pb_grpc.FeedbackServiceStub(channel).RecordFeedback(request, timeout=60)
        page = await asyncio.to_thread(open_metrics, process)
        # Ending the process flushes what it has gathered.
        await asyncio.to_thread(process.terminate)
        await until(lambda: collector.spans)
    finally:
        await asyncio.to_thread(process.kill)
        await server.stop(None)
    trace_ids = set(re.findall(r'recmesh_feedback_call_seconds_bucket.+# {trace_id="(\w+)"}', page))
    assert trace_ids
    assert trace_ids <= collector.trace_ids
    assert ("recmesh-feedback", "/recmesh.feedback.v1.FeedbackService/RecordFeedback") in collector.spans
