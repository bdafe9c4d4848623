"""OpenTelemetry traces, where ``MTS4MM_TRACING`` asks for them.

A span a request, with what FastAPI did for it in spans of their own, under the caller's span by W3C ``traceparent``.
Where spans go, and how many, say the standard ``OTEL_*`` variables.
"""

from typing import TYPE_CHECKING, Any

from fastapi.telemetry import TelemetryConfig

from service.admission import ALWAYS_ADMITTED
from shared.errors import UsageError

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

OFF: TelemetryConfig = {"tracing": False, "metrics": False, "logs": False, "auto_configure": False}
"""No telemetry; the metrics and the log are the service's own."""


def tracer_provider() -> "TracerProvider":
    """Make what sends spans by OTLP over HTTP, in batches; shut it down at the end.

    Raises:
        UsageError: the extra ``otel`` is not installed.
    """
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import SERVICE_NAME, OTELResourceDetector, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError:
        raise UsageError("MTS4MM_TRACING is set, but its packages are not there: pip install 'mts4mm[otel]'") from None
    resource = Resource({SERVICE_NAME: "mts4mm"}).merge(OTELResourceDetector().detect())
    provider = TracerProvider(resource=resource)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider


def telemetry(provider: "TracerProvider | None") -> TelemetryConfig:
    """Say to FastAPI what to trace: all requests but those of who asks how the service is."""
    if provider is None:
        return OFF
    return {**OFF, "tracing": True, "tracer_provider": provider, "exclude": _is_a_probe}


def _is_a_probe(scope: Any) -> bool:
    return scope["path"] in ALWAYS_ADMITTED
